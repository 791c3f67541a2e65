"""Chapter 4: does a bound on T hold on a second task? Linear students of the shipped teachers of clothes.

    python -m experiments.chapter04_fashion     # resumes where it stopped; about two minutes on one core

As experiments.chapter04, but on Fashion-MNIST: 2,000 training images, of which the students see the teacher's answers
and no label. Each student and each T has a learning rate of its own, chosen on validation with seeds 100 to 102. The
reported seeds, 0 to 9, meet the test images once. A seed decides the images, the teacher and the first weights.
`behind` is how far the teacher's second class lies behind its first, mean over the images.
"""

import functools
from functools import partial

import torch
from torch import nn

from companion.data import fashion, fashion_teacher
from companion.losses import kd_loss
from companion.metrics import accuracy
from companion.training import fit_many, predict, teacher_logits
from experiments.chapter04 import RATES
from experiments.common import TUNING, choose_then_report, group

TEMPERATURES = (1, 2, 3, 4, 8)
UNITS = (2, 3, 4, 6)


@functools.cache
def lesson(seed: int):
    """The seed's 2,000 images, flat, and its teacher's logits for them."""
    images = fashion("train").sample(200, seed)
    return images, teacher_logits(fashion_teacher(seed % 10), images.x)


@functools.cache
def marked(part: str, index: int):
    """Images of a part, and a teacher's mean distance from its first class to its second there."""
    images = fashion(part)
    top = teacher_logits(fashion_teacher(index), images.x).topk(2).values
    return images, (top[:, 0] - top[:, 1]).mean().item()


@functools.cache
def trained(units: int, T: float, lr: float, seeds: tuple[int, ...]) -> dict[int, nn.Module]:
    """Linear students of one setting, one a seed."""
    students = []
    for seed in seeds:
        torch.manual_seed(seed)
        students.append(nn.Sequential(nn.Flatten(), nn.Linear(784, units), nn.Linear(units, 10)))
    splits, answers = zip(*map(lesson, seeds), strict=True)

    def soft_loss(logits_s, logits_t, y):
        return kd_loss(logits_s, logits_t, T)

    fit_many(students, splits, soft_loss, answers, steps=600, lr=lr, seeds=seeds)
    return dict(zip(seeds, students, strict=True))


def one(units: int, T: float, lr: float, seed: int) -> dict:
    """Accuracy on validation while choosing, on test once chosen."""
    part = "val" if seed in TUNING else "test"
    images, behind = marked(part, seed % 10)
    student = trained(units, T, lr, group(seed))[seed]
    return {"part": part, "accuracy": accuracy(predict(student, images.x), images.y), "behind": behind}


def main() -> None:
    torch.set_num_threads(1)
    about = "Accuracy (%) of linear students of teachers of clothes; soft term alone"
    report = partial(choose_then_report, "04_fashion", about, one, "accuracy")
    for units in UNITS:
        for T in TEMPERATURES:
            print(report({"lr": RATES}, units=units, T=T))


if __name__ == "__main__":
    main()
