"""Chapter 15, the gap: a student of a third of the teacher's parameters, more words without labels, more steps.

python -m experiments.chapter15_many writes chapters/results/15_many.csv in half an hour. The teacher's answers to
the 90,000 words are asked once and kept in _build/chapter15_many.pt. The learning rate is the smaller student's.
"""

from pathlib import Path

import torch

import companion.teachers
from experiments import chapter15
from experiments.common import run_all

WORDS, WIDTH = 90_000, 148


def student():
    return companion.teachers.AttentivePronouncer(WIDTH)


def one(way: str, steps: int, lr: float, seed: int) -> dict:
    return chapter15.one(way, steps, lr, seed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    chapter15.UNLABELLED, chapter15.KEPT = WORDS, Path("_build/chapter15_many.pt")
    chapter15.AttentivePronouncer = student
    about = (
        f"As 15_words with a student of {sum(p.numel() for p in student().parameters())} parameters "
        f"and {WORDS} words without labels"
    )
    run_all("15_many", about, [
        {"way": "off_policy", "steps": 6_000, "lr": 1e-2, "seed": seed} for seed in chapter15.REPORTED
    ], one)  # fmt: skip
