"""Chapter 7's long runs: one setting, T = 4 and 0.9, read in four ways, each with its own learning rate.

    python -m experiments.chapter07

Writes chapters/results/07_readings.csv, one line per reading, number of images, learning rate and seed. Can be
stopped and started again. About ten minutes on one core.
"""

import sys
from functools import cache
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

from companion import data
from companion.losses import kd_loss
from companion.metrics import accuracy
from companion.models import MLP
from companion.training import fit_many, teacher_logits
from experiments.common import run_all

T = 4.0
# The weights of the two terms that "0.9" becomes: hard, and soft beside the KL times T².
READINGS = {
    "as here": (0.1, 0.9),
    "hard term": (0.9, 0.1),
    "no T²": (0.1, 0.9 / T**2),
    "mean": (0.1, 0.9 / 10),
}
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
PER_CLASS = (20, 100)
SEEDS = tuple(range(10))
STEPS = 400


def other(hard, soft):
    return lambda z, v, y: hard * F.cross_entropy(z, y) + soft * kd_loss(z, v, T)


@cache
def images():
    """(to learn from, to choose the learning rate on, to test on)"""
    train = data.fashion("train")
    return train[:8000], train[8000:], data.fashion("test")


@cache
def run(reading, per_class, lr, seeds=SEEDS):
    """(validation, test) accuracies, one pair per seed: another teacher, other images, another student."""
    pool, validation, test = images()
    few = [pool.sample(per_class, seed) for seed in seeds]
    told = [teacher_logits(data.fashion_teacher(s), of.x) for s, of in zip(seeds, few, strict=True)]
    students = [MLP(784, 128, 10, seed=seed) for seed in seeds]
    fit_many(students, few, other(*READINGS[reading]), told, steps=STEPS, lr=lr, seeds=seeds)
    parts = (validation, test)
    return [[accuracy(teacher_logits(net, part.x), part.y) for part in parts] for net in students]


def one(reading, per_class, lr, seed):
    validation, test = run(reading, per_class, lr)[SEEDS.index(seed)]
    return {"validation": validation, "test": test}


if __name__ == "__main__":
    torch.set_num_threads(1)
    names = ("reading", "per_class", "lr", "seed")
    grid = ((reading, n, lr, seed) for n, reading, lr, seed in product(PER_CLASS, READINGS, RATES, SEEDS))
    about = "accuracy (%) of a student whose setting was read in four ways, T = 4"
    run_all("07_readings", about, [dict(zip(names, g, strict=True)) for g in grid], one)
