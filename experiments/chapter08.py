"""The long runs of chapter 8: what keeps a student from its teacher, and the price of a badly chosen T.

    python -m experiments.chapter08     # resumes where it stopped; about 20 minutes on one core

Learning rates are chosen on validation with seeds 100 to 102; seeds 0 to 9 are reported on test. Seed s has
its own initial weights, its own images and its own teacher.
"""

from functools import cache, partial
from itertools import product

import torch

from companion.data import Split, fashion, fashion_teacher
from companion.losses import distillation_loss
from companion.metrics import accuracy, agreement
from companion.models import MLP, ConvNet
from companion.training import fit, teacher_logits
from experiments.common import TUNING, choose_then_report

torch.set_num_threads(1)
TRAIN, VAL, TEST = fashion("train"), fashion("val"), fashion("test")
TEACHERS = [fashion_teacher(i) for i in range(10)]
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0)


def soft(T: float):
    return partial(distillation_loss, T=T, alpha=1)


def part_of(seed: int) -> Split:
    return VAL if seed in TUNING else TEST


# ------------------------------------------------------------------------------------------- what is passed on


@cache
def exact(seed: int) -> torch.Tensor:
    """What the seed's teacher answers on its part."""
    return teacher_logits(TEACHERS[seed % 10], part_of(seed).x)


def followed(student, images: Split, loss, steps: int, lr: float, seed: int) -> dict:
    """Teach it; how often it agrees with its teacher on its own images and on new ones, and its accuracy there."""
    part, v = part_of(seed), teacher_logits(TEACHERS[seed % 10], images.x)
    fit(student, images, loss, v, steps=steps, lr=lr, seed=seed)
    z, seen = teacher_logits(student, part.x), teacher_logits(student, images.x)
    return {
        "seen": agreement(seen, v),
        "agreement": agreement(z, exact(seed)),
        "accuracy": accuracy(z, part.y),
    }


def advice_one(per_class: int, steps: int, lr: float, seed: int) -> dict:
    """A ConvNet(4) taught at T = 4 on so many images, all 10,000 or its own."""
    images = TRAIN if per_class == 1000 else TRAIN.sample(per_class, seed)
    return followed(ConvNet(4, dropout=0.0, seed=seed), images, soft(4), steps, lr, seed)


def advice() -> None:
    """Is the purchase that the larger part names the better one? Three students, and what each can buy."""
    about = "Agreement with the teacher and accuracy (%) of ConvNet(4), T = 4; seeds 0 to 9 on test"
    rates = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    for per_class, steps, tried in (
        (100, 75, rates[1:5]), (10, 75, rates[1:]), (1000, 75, rates[1:5]), (10, 300, rates[1:]),
        (100, 300, rates[:5]), (100, 1200, rates[:5]), (1000, 300, rates[:5]), (1000, 1200, rates[:5]),
    ):  # fmt: skip
        setting = {"per_class": per_class, "steps": steps}
        choose_then_report("08_advice", about, advice_one, "agreement", {"lr": tried}, **setting)


def room_one(width: int, T: float, steps: int, lr: float, seed: int) -> dict:
    """An MLP taught at T on 3000 images."""
    return followed(MLP(784, width, 10, seed=seed), TRAIN.sample(300, seed), soft(T), steps, lr, seed)


def room() -> None:
    """Where more steps hardly help: eight units at T = 16. And what helps: a lower T, or twice the units."""
    about = (
        "Agreement with the teacher (%) of MLP(784, width, 10), 3000 images, at temperature T; seeds 0 to 9"
    )
    wide = (0.0003, 0.001, 0.003, 0.01, 0.03)
    for width, T, steps, rates in (
        (8, 2.0, 600, wide), (8, 16.0, 600, wide), (8, 16.0, 2400, wide), (16, 16.0, 600, wide[2:]),
    ):  # fmt: skip
        setting = {"width": width, "T": T, "steps": steps}
        choose_then_report("08_room", about, room_one, "accuracy", {"lr": rates}, **setting)


# ----------------------------------------------------------------------------------------------- the temperature


def temperature_one(width: int, per_class: int, T: float, lr: float, seed: int) -> dict:
    """An MLP taught at T; on 100 and on all validation images, and (reported seeds only) on test."""
    images, student = TRAIN.sample(per_class, seed), MLP(784, width, 10, seed=seed)
    fit(student, images, soft(T), teacher_logits(TEACHERS[seed % 10], images.x), steps=600, lr=lr, seed=seed)
    return scores(student, seed)


def scores(student: MLP, seed: int) -> dict:
    """Accuracy (%) on all validation images, on the seed's own hundred of them, and on test."""
    z = teacher_logits(student, VAL.x)
    few = torch.randperm(len(VAL), generator=torch.Generator().manual_seed(seed))[:100]
    test = float("nan") if seed in TUNING else accuracy(teacher_logits(student, TEST.x), TEST.y)
    return {"val": accuracy(z, VAL.y), "val100": accuracy(z[few], VAL.y[few]), "test": test}


def temperature() -> None:
    about = "Accuracy (%) of MLP(784, width, 10), 600 steps at temperature T, α = 1; seeds 0 to 9"
    rates = {"lr": (0.0003, 0.001, 0.003, 0.01, 0.03)}
    for width, per_class, T in product((8, 128), (10, 300), TEMPERATURES):
        setting = {"width": width, "per_class": per_class, "T": T}
        choose_then_report("08_temperature", about, temperature_one, "val", rates, **setting)


if __name__ == "__main__":
    advice()
    room()
    temperature()
