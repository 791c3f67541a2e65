"""Chapter 17's student under its teacher's conditions: all 45,000 images, 3,600 steps; then fewer bits, and the repair.

    python -m experiments.chapter17_all [FOLDER]     # resumes where it stopped; about ten minutes on one core

The package leaves these images out: FOLDER holds the official files of Fashion-MNIST, and without it they are downloaded.
The MLP learns from their labels, or from the answers of the teacher that learned from the same labels. Rounding and
repair are those of `experiments.chapter17`: 300 steps on its own former answers to 1,000 images that are new to it.
Each learning rate is chosen as there, on validation with seeds 100 to 102; seeds 0 to 9 meet the test images once.
"""

import sys
from functools import lru_cache, partial

import torch

from companion.data import Split, fashion_full, fashion_teacher
from companion.models import MLP
from companion.training import fit_many, hard_loss, teacher_logits
from experiments.chapter17 import RATES, REPAIRS, compared, fewer_bits, repaired, soft
from experiments.common import REPORTED, group, run_all, widen_then_report

IMAGES, STEPS = 45_000, 3_600  # as scripts/train_teachers.py


@lru_cache(maxsize=1)
def everything(folder: str | None = None) -> Split:
    """What the shipped teachers have learned from."""
    return fashion_full(folder)[0][:IMAGES]


@lru_cache(maxsize=13)
def answers(index: int, folder: str | None = None):
    return teacher_logits(fashion_teacher(index), everything(folder).x)


@lru_cache(maxsize=4)
def taught(how: str, lr: float, seeds: tuple, folder: str | None = None) -> dict:
    """The students of these seeds, all at once."""
    students = [MLP(784, 64, 10, seed=seed) for seed in seeds]
    loss, said = hard_loss, None
    if how == "distilled":
        loss, said = soft, [answers(seed % 10, folder) for seed in seeds]
    fit_many(students, everything(folder), loss, said, steps=STEPS, lr=lr, seeds=seeds)
    return dict(zip(seeds, students, strict=True))


def taught_one(how: str, lr: float, seed: int, befores=taught) -> dict:
    return compared(befores(how, lr, group(seed))[seed], seed)


def fewer_bits_one(bits: int, how: str, whole_lr: float, lr: float, seed: int, befores=taught) -> dict:
    """Rounded only; repaired by its own former answers; or ONNX Runtime's file of eight bits."""

    def mended():
        return repaired(f"{bits} bits", how, whole_lr, lr, group(seed), befores)[seed]

    return fewer_bits(befores("distilled", whole_lr, group(seed))[seed], bits, how, seed, mended)


def main(folder: str | None = None) -> None:
    befores = partial(taught, folder=folder)
    whole_one, few_one = (partial(one, befores=befores) for one in (taught_one, fewer_bits_one))
    about = f"MLP(784 64 10) taught on {IMAGES} images in {STEPS} steps: accuracy and agreement with its teacher (%)"
    for how in ("alone", "distilled"):
        lr = widen_then_report("17_all", about, whole_one, RATES, how=how)["lr"]
    about = "The distilled MLP of 17_all in few bits: accuracy and agreement with itself before (%)"
    for bits, how in ((8, "file"), (4, "rounded"), (3, "rounded")):
        fixed = {"bits": bits, "how": how, "whole_lr": lr, "lr": 0.0}
        run_all("17_all_bits", about, [{**fixed, "seed": s} for s in REPORTED], few_one)
    widen_then_report(
        "17_all_bits", about, few_one, REPAIRS, "as_before", bits=3, how="1000 new images", whole_lr=lr
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
