"""The long runs of chapter 2: an even rest at T = 1, the teacher's class smoothed like a label, and errors.

    python -m experiments.chapter02     # resumes where it stopped; about eight minutes on one core

All as in 05_controls, from which the other rows of the figure come: 100 images, 400 steps, the rate chosen on
validation with seeds 100 to 102, the reported seeds 0 to 9. The even rest changes the teacher's p at T = 1 and is
learned at T = 1, like one class alone; the smoothed name is one class alone with nine tenths for it and the rest even.

`errors` trains the reported students again, at their stored rates, and sorts what they get wrong.
"""

from functools import partial
from itertools import product

import torch

from companion.data import Split
from companion.models import ConvNet
from companion.training import fit, teacher_logits
from experiments.chapter05 import (
    FEWER,
    MORE_RATES,
    TEACHERS,
    TEST,
    TRAIN,
    best,
    controlled,
    measure,
    smoothed_loss,
    tempered_one,
)
from experiments.common import REPORTED, TUNING, run_all, stored


def one(control: str, seed: int, lr: float) -> dict:
    if control == "even rest":
        return tempered_one("uniform", 1, seed, lr)
    images, student = TRAIN.sample(10, seed), ConvNet(4, dropout=0.0, seed=seed)
    names = teacher_logits(TEACHERS[seed % 10], images.x).argmax(-1)
    loss = partial(smoothed_loss, epsilon=0.1)
    fit(student, Split(images.x, names), loss, None, steps=400, lr=lr, seed=seed)
    return measure(student, seed)


def steps_at_one() -> None:
    """What lies between the even rest at T = 4 and one class alone at T = 1, and a smoothed label's other half."""
    about = "Accuracy and ECE (%) of ConvNet(4) on 100 images, 400 steps, all learned at T = 1; seeds 0 to 9"
    for control in ("even rest", "smoothed name"):

        def run(lrs, seeds, control=control):
            grid = [{"control": control, "seed": s, "lr": lr} for lr in lrs for s in seeds]
            return run_all("02_at_one", about, grid, one)

        run([best(run(MORE_RATES, TUNING), "lr", control=control)], REPORTED)


GROUPS = torch.tensor([0, 1, 0, 2, 0, 3, 0, 3, 4, 3])  # 0 tops, 3 shoes; trouser, dress and bag alone
WRONG = ("labels", "soft", "class neighbours", "uniform", "swapped", "permuted")


def errors_one(control: str, seed: int, lr: float) -> dict:
    """How a student errs: within a group of classes that look alike, or across; each in % of all test images."""
    student = controlled(control, seed, lr)
    named = teacher_logits(student, TEST.x).argmax(-1)
    wrong, across = named != TEST.y, GROUPS[named] != GROUPS[TEST.y]
    return {
        "right": 100 * (~wrong).double().mean().item(),
        "within": 100 * (wrong & ~across).double().mean().item(),
        "across": 100 * across.double().mean().item(),
    }


def errors() -> None:
    """The reported students of 05_controls once more, at their stored rates: what they get wrong."""
    about = "Test images (%) named right, wrong within a group of like classes, and across; ConvNet(4) on 100 images"
    reported = stored("05_controls")
    reported = reported[reported["part"] == "test"]
    for seed, control in product(FEWER, WRONG):
        lr = reported["lr"][reported["control"] == control][0].item()
        run_all("02_errors", about, [{"control": control, "seed": seed, "lr": lr}], errors_one)


if __name__ == "__main__":
    steps_at_one()
    errors()
