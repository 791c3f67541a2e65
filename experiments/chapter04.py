"""The long run of chapter 4: a temperature that suits the student. Linear students of one teacher, on the digits.

    python -m experiments.chapter04     # resumes where it stopped; about five minutes on one core

Each student and each T has a learning rate of its own, chosen on validation with seeds 100 to 102. The reported seeds,
0 to 9, meet the test images once. A seed decides the split of the images, the teacher and the student's first weights.
"""

import functools

import torch
from torch import nn

from companion.data import digits
from companion.losses import kd_loss
from companion.metrics import accuracy
from companion.models import MLP
from companion.training import fit, predict, teacher_logits
from experiments.common import REPORTED, TUNING, run_all

RATES = (0.01, 0.03, 0.1, 0.3)
TEMPERATURES = (0.5, 1, 2, 3, 4, 8, 16)
UNITS = (2, 3, 4, 6, 8, 16, 32)  # of the student's only layer between 64 pixels and ten logits


@functools.cache
def teacher_of(seed: int) -> MLP:
    """The teacher that knows the seed's training images."""
    teacher = MLP(64, 64, 10, seed=seed)
    fit(teacher, digits(seed)[0], steps=300, lr=0.01, seed=seed)
    return teacher


@functools.cache
def lesson(seed: int):
    """(train, validation, test) and the teacher's logits for the first."""
    parts = digits(seed)
    return parts, teacher_logits(teacher_of(seed), parts[0].x)


def trained(units: int, T: float, lr: float, seed: int) -> nn.Module:
    """A linear student that saw the teacher's answers at T, and no label."""

    def soft_loss(logits_s, logits_t, y):
        return kd_loss(logits_s, logits_t, T)

    (train, _, _), answers = lesson(seed)
    torch.manual_seed(seed)
    student = nn.Sequential(nn.Linear(64, units), nn.Linear(units, 10))
    fit(student, train, soft_loss, answers, steps=600, lr=lr, seed=seed)
    return student


def one(units: int, T: float, lr: float, seed: int) -> dict:
    """Accuracy on validation while choosing, on test once chosen."""
    part = "val" if seed in TUNING else "test"
    split = lesson(seed)[0][1 if part == "val" else 2]
    return {"part": part, "accuracy": accuracy(predict(trained(units, T, lr, seed), split.x), split.y)}


def runs(units: int, T: float, rates, seeds):
    configs = [{"units": units, "T": T, "lr": lr, "seed": seed} for lr in rates for seed in seeds]
    rows = run_all(
        "04_temperatures",
        "Accuracy (%) of linear students of a digits teacher; soft term alone",
        configs,
        one,
    )
    return rows[(rows["units"] == units) & (rows["T"] == T)]


def main() -> None:
    torch.set_num_threads(1)
    for units in UNITS:
        for T in TEMPERATURES:
            rows = runs(units, T, RATES, TUNING)
            rows = rows[rows["part"] == "val"]
            best = max(RATES, key=lambda lr, rows=rows: rows["accuracy"][rows["lr"] == lr].mean())
            runs(units, T, [best], REPORTED)
            print(f"{units} units, T = {T}: learning rate {best}")


if __name__ == "__main__":
    main()
