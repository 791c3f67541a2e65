"""Chapter 15: is it only sureness? Off-policy students with KL(teacher‖student), sampled with a sharper softmax.

python -m experiments.chapter15_sharper writes chapters/results/15_sharper.csv, two minutes a run; it may be stopped and
goes on. The runs are those of off_policy in 15_words.csv, made again; then their logits are divided by a temperature.
Nothing is chosen here: the chapter compares at the temperature at which they are as sure as off_policy_reverse.
"""

from functools import lru_cache

import torch

from experiments.chapter15 import REPORTED, STEPS, TEST, train
from experiments.chapter15_parts import EVALUATED, parts
from experiments.chapter15_slips import track
from experiments.common import run_all, stored

TEMPERATURES = (1.0, 0.8, 0.7, 0.6, 0.5)


@lru_cache(maxsize=1)
def student_of(lr: float, seed: int):
    return train("off_policy", STEPS, lr, seed)[0].requires_grad_(False)


def one(temperature: float, lr: float, seed: int) -> dict:
    """Sampled words right, slips and entropy, with logits divided by the temperature."""
    student = student_of(lr, seed)
    weights = [student.head.weight, student.head.bias]
    before = [w.clone() for w in weights]
    for w in weights:
        w /= temperature
    right = parts(student, TEST, torch.Generator().manual_seed(seed), EVALUATED)[0]
    found = {"sampled_right": right, **track(student, seed)}
    for w, was in zip(weights, before, strict=True):
        w.copy_(was)
    return found


def main():
    words = stored("15_words")
    rate = words["lr"][(words["way"] == "off_policy") & (words["seed"] == 0)][0].item()
    about = (
        "Off-policy students of 1000 steps, logits / temperature: sampled_right in percent of 3000 test words; "
        "the others as in 15_slips"
    )
    configs = [{"temperature": T, "lr": rate, "seed": s} for s in REPORTED for T in TEMPERATURES]
    run_all("15_sharper", about, configs, one)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
