"""The long runs of chapter 10: a loss on features or relations beside the labels, and beside KD; its controls.

    python -m experiments.chapter10     # resumes where it stopped; about 14 minutes on one core

Learning rate and weight are chosen on validation with seeds 100 to 102, by a walk that goes on while the end of what
it has tried is best; seeds 0 to 9 are reported on test. Seed s has its own initial weights, 1,000 images and teacher.
The new last layers of finished students, which the other scripts of the chapter store, are here, too.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from companion.data import Split, fashion, fashion_teacher
from companion.features import (
    attention_transfer_loss,
    contrastive_loss,
    hint_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_preserving_loss,
)  # fmt: skip
from companion.losses import distillation_loss
from companion.metrics import accuracy
from companion.models import ConvNet
from companion.training import fit, hard_loss
from experiments.common import REPORTED, TUNING, run_all

torch.set_num_threads(1)
TRAIN, VAL, TEST = fashion("train"), fashion("val"), fashion("test")
NAME, STEPS = "10_methods", 200
ABOUT = "Accuracy (%) of ConvNet(4), 1000 images, 200 steps; CKA with the teacher"
RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
WEIGHTS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
START = {"hint": 0.01, "attention": 1.0, "similarity": 10.0, "rkd": 10.0, "contrastive": 1.0}
SHAPES = ((10,), (16, 14, 14), (32, 7, 7), (64, 4, 4))  # what is kept of a teacher


class Student(nn.Module):
    """ConvNet(4) and a regressor, a 1 × 1 convolution from its 16 last channels to the teacher's 64."""

    def __init__(self, seed: int):
        super().__init__()
        self.net = ConvNet(4, dropout=0.0, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.regressor = nn.Conv2d(16, 64, 1)

    def forward(self, x: Tensor) -> tuple:
        maps = self.net.features(x)
        return self.net.head(maps[-1].flatten(1)), maps, self.regressor(maps[-1])


@torch.no_grad()
def rows(net: ConvNet, x: Tensor) -> Tensor:
    """Logits and all maps of a network in eval mode, flattened beside each other, (N, …)."""
    net.eval()
    parts = []
    for batch in x.split(500):
        maps = net.features(batch)
        logits = net.head(maps[-1].flatten(1))
        parts.append(torch.cat([logits, *(m.flatten(1) for m in maps)], 1))
    return torch.cat(parts)


def unrow(taught: Tensor) -> list[Tensor]:
    parts = taught.split([int(np.prod(shape)) for shape in SHAPES], 1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, SHAPES, strict=True)]


def rkd(s: Tensor, t: Tensor) -> Tensor:
    """Distances, and twice the angles among half the batch, of the means over the places."""
    s, t = s.mean((2, 3)), t.mean((2, 3))
    return rkd_distance_loss(s, t) + 2 * rkd_angle_loss(s[:50], t[:50])


LOSSES = {  # (the student's maps, what its regressor makes of the last, the teacher's maps) → a number
    "none": lambda s, r, t: 0.0,
    "hint": lambda s, r, t: hint_loss(r, t[-1]),
    "attention": lambda s, r, t: sum(map(attention_transfer_loss, s, t)),
    "similarity": lambda s, r, t: similarity_preserving_loss(s[-1], t[-1]),
    "rkd": lambda s, r, t: rkd(s[-1], t[-1]),
    "contrastive": lambda s, r, t: contrastive_loss(r, t[-1]),
}


def shuffled_in_class(y: Tensor, seed: int) -> Tensor:
    """For each image another of the same class (a cycle within the class)."""
    generator = torch.Generator().manual_seed(seed)
    other = torch.empty_like(y)
    for c in y.unique():
        index = (y == c).nonzero()[:, 0]
        index = index[torch.randperm(len(index), generator=generator)]
        other[index] = index.roll(1)
    return other


@lru_cache(maxsize=16)
def lesson(target: str, seed: int) -> tuple[Split, Tensor]:
    """A student's images and what it is told of them: the teacher's logits, and the maps of the target."""
    images, teacher = TRAIN.sample(100, seed), fashion_teacher(seed % 10)
    told = rows(teacher, images.x)
    if target == "same class":
        told = torch.cat([told[:, :10], told[shuffled_in_class(images.y, seed), 10:]], 1)
    return images, told


@lru_cache(maxsize=16)
def exact(seed: int) -> Tensor:
    return rows(fashion_teacher(seed % 10), TEST.x)


def cka(s: Tensor, t: Tensor) -> float:
    """Linear CKA: the cosine of two centred Gram matrices, as in Kornblith et al. 2019."""
    s, t = s - s.mean(0), t - t.mean(0)
    return ((s.T @ t).norm() ** 2 / ((s.T @ s).norm() * (t.T @ t).norm())).item()


def measure(net: ConvNet, seed: int, look_inside: bool = True) -> dict:
    part = VAL if seed in TUNING else TEST
    new = rows(net, part.x)
    found = {"accuracy": accuracy(new[:, :10], part.y), "cka": float("nan")}
    if part is TEST and look_inside:
        found["cka"] = cka(new[:, -net.head.in_features :], exact(seed)[:, -1024:])
    return found


def answers(base: str, z: Tensor, v: Tensor, y: Tensor, T: float = 4) -> Tensor:
    """The loss on a student's logits: of labels alone, or of labels and teacher."""
    return hard_loss(z, None, y) if base == "labels" else distillation_loss(z, v, y, T=T, alpha=0.9)


def trained(
    method: str, base: str, target: str, weight: float, lr: float, seed: int,
    steps: int = STEPS, decay: float = 0.01, T: float = 4,
) -> ConvNet:  # fmt: skip
    """A student that learns from labels, or from KD, and with some weight from features."""
    images, told = lesson(target, seed)

    def loss(out, told, y):
        z, maps, fitted = out
        v, *maps_t = unrow(told)
        first = answers(base, z, v, y, T)
        return first + (weight * LOSSES[method](maps, fitted, maps_t) if method != "none" else 0)

    student = Student(seed)
    fit(student, images, loss, told, steps=steps, lr=lr, seed=seed, weight_decay=decay)
    return student.net


def one(method: str, base: str, target: str, weight: float, lr: float, seed: int) -> dict:
    net = trained(method, base, target, weight, lr, seed)
    return measure(net, seed, target == "teacher")


def reference(method: str, base: str, target: str, weight: float, lr: float, seed: int) -> dict:
    """The teacher."""
    return measure(fashion_teacher(seed % 10), seed)


def walk(name: str, values: tuple, start: float, setting: dict) -> dict:
    """The value of `name` with the best mean on validation, starting at `start`: its neighbours, and on from there."""

    def score(i):
        tried = {**setting, name: values[i]}
        order = ("method", "base", "target", "weight", "lr")
        tried = {key: tried[key] for key in order}
        found = run_all(NAME, ABOUT, [{**tried, "seed": s} for s in TUNING], one)
        here = np.isin(found["seed"], TUNING) & np.all([found[k] == v for k, v in tried.items()], axis=0)
        return found["accuracy"][here].mean()

    best = values.index(start)
    while True:
        around = [i for i in (best - 1, best, best + 1) if 0 <= i < len(values)]
        better = max(around, key=score)
        if better == best:
            return {**setting, name: values[best]}
        best = better


def report(setting: dict, run=one) -> None:
    order = ("method", "base", "target", "weight", "lr")
    run_all(NAME, ABOUT, [{**{k: setting[k] for k in order}, "seed": s} for s in REPORTED], run)


def baselines() -> None:
    for base in ("labels", "kd"):
        setting = {"method": "none", "base": base, "target": "teacher", "weight": 0.0}
        report(walk("lr", RATES, 0.01, setting))
    fixed = {"base": "labels", "target": "teacher", "weight": 0.0, "lr": 0.0}
    report({"method": "teacher", **fixed}, reference)


def methods() -> dict:
    """Each method beside labels and beside KD: weight and learning rate in turn until neither moves, then ten seeds."""
    chosen = {}
    for method, start in START.items():
        for base, rate in (("labels", 0.01), ("kd", 0.03)):
            setting = {"method": method, "base": base, "target": "teacher", "weight": start, "lr": rate}
            before = None
            while before != setting:
                before = setting
                setting = walk("weight", WEIGHTS, setting["weight"], setting)
                setting = walk("lr", RATES, setting["lr"], setting)
            chosen[method, base] = setting
            start = setting["weight"]
            report(setting)
    return chosen


def controls(chosen: dict) -> None:
    """The features of another image of the same class: beside KD for the two methods that beat it, beside labels for
    the hint, whose scale is that of its features, with a weight of its own. (The others: chapter10_controls.py.)
    """
    for method in ("attention", "contrastive"):
        report({**chosen[method, "kd"], "target": "same class"})
    setting = {**chosen["hint", "labels"], "target": "same class"}
    report(walk("weight", WEIGHTS, setting["weight"], setting))


@lru_cache(maxsize=16)
def last_features(
    method: str, base: str, weight: float, rate: float, seed: int, decay: float = 0.01, steps: int = STEPS
) -> tuple[Split, Split]:
    """What a finished student's last layer reads: of its own images, and of those that judge it; and their labels."""
    net = trained(method, base, "teacher", weight, rate, seed, steps, decay)
    size, part = net.head.in_features, VAL if seed in TUNING else TEST
    images, _ = lesson("teacher", seed)
    return tuple(Split(rows(net, of.x)[:, -size:], of.y) for of in (images, part))


def relearned(
    method: str,
    base: str,
    weight: float,
    rate: float,
    layer: str,
    steps: int,
    lr: float,
    seed: int,
    decay: float = 0.01,
) -> dict:
    """A new last layer on kept features, from the labels of the student's own 1,000 images or from KD on them."""
    return new_layer(last_features(method, base, weight, rate, seed), layer, steps, lr, seed, decay)


def new_layer(
    features: tuple[Split, Split], layer: str, steps: int, lr: float, seed: int, decay: float
) -> dict:
    """A new last layer on these features, from the labels of 1,000 images or from KD on them."""
    seen, new = features
    _, told = lesson("teacher", seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        last = nn.Linear(seen.x.shape[1], 10)
    fit(
        last, seen, lambda z, v, y: answers(layer, z, v, y), told[:, :10].contiguous(),
        steps=steps, lr=lr, seed=seed, weight_decay=decay,
    )  # fmt: skip
    with torch.no_grad():
        return {"accuracy": accuracy(last(new.x), new.y)}


if __name__ == "__main__":
    baselines()
    controls(methods())
