"""The long runs of chapter 11: one student and many teachers, checkpoints on sparse parity, lessons in noise.

    python -m experiments.chapter11     # resumes where it stopped; about 5 minutes on one core

Learning rates (and temperatures) are chosen on validation with seeds 100 to 102, for each teacher its own; seeds 0
to 9 are reported on test. Seed s has its own initial weights, its own images and teachers of its own. What shares a
learning rate is trained at once.
"""

import copy
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.data import Split, fashion, fashion_teacher
from companion.losses import distillation_loss, kd_loss
from companion.metrics import accuracy
from companion.models import MLP
from companion.training import fit, fit_many, hard_loss, predict
from experiments.common import REPORTED, TUNING, run_all

torch.set_num_threads(1)


def in_groups(name: str, about: str, configs: list[dict], together: Callable[..., list[dict]]) -> np.ndarray:
    """`run_all`, where the configs of one learning rate are one call, together(configs, lr)."""

    @lru_cache
    def found(lr: float) -> dict:
        group = [c for c in configs if c["lr"] == lr]
        return {tuple(c.values()): row for c, row in zip(group, together(group, lr), strict=True)}

    return run_all(name, about, configs, lambda **config: found(config["lr"])[tuple(config.values())])


def choose_then_report_many(name: str, about: str, settings: list[dict], rates, together) -> np.ndarray:
    """Each setting's best row of the grid on the tuning seeds, reported on the others.

    A setting's "grid" is a list of values of its column "setting" (T, ε); it is chosen together with the rate.
    """
    tried = [
        {**{k: v for k, v in s.items() if k != "grid"}, "setting": value, "lr": lr}
        for s in settings
        for value in s["grid"]
        for lr in rates
    ]
    rows = in_groups(name, about, [{**t, "seed": s} for t in tried for s in TUNING], together)
    rows = rows[np.isin(rows["seed"], TUNING)]

    def mean(setting):
        return rows["accuracy"][np.all([rows[k] == v for k, v in setting.items()], axis=0)].mean()

    chosen = []
    for s in settings:
        own = [t for t in tried if all(t[k] == v for k, v in s.items() if k != "grid")]
        chosen.append(max(own, key=mean))
    return in_groups(name, about, [{**c, "seed": s} for c in chosen for s in REPORTED], together)


# ----------------------------------------------------------------------------------------------- sparse parity

BITS, PARITY, PARITY_STEPS, EVERY = 32, 4, 640, 40


def parity(seed: int, n: int) -> Split:
    """n rows of 32 random signs; the label is 1 where the product of the first four is +1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 2, (n, BITS), generator=generator).float() * 2 - 1
    return Split(x, (x[:, :PARITY].prod(-1) > 0).long())


class Course(nn.Module):
    """A teacher that takes the place of the one before: each answers `turns` batches, the last all that follow."""

    def __init__(self, teachers, turns: int):
        super().__init__()
        self.teachers, self.turns, self.asked = nn.ModuleList(teachers), turns, 0

    def forward(self, x: Tensor) -> Tensor:
        now = min(self.asked // self.turns, len(self.teachers) - 1)
        self.asked += 1
        return self.teachers[now](x)


@lru_cache(maxsize=16)
def parity_teacher(seed: int) -> list[MLP]:
    """MLP(32, 256, 2) every 40 steps of its training, and at its end."""
    teacher, kept = MLP(BITS, 256, 2, seed=seed + 500), []
    steps = iter(range(PARITY_STEPS))

    def loss(z, v, y):
        if next(steps) % EVERY == 0:
            kept.append(copy.deepcopy(teacher).eval().requires_grad_(False))
        return hard_loss(z, v, y)

    data = parity(seed + 500, 128 * PARITY_STEPS)
    fit(teacher, data, loss, steps=PARITY_STEPS, lr=3e-3, batch_size=128, seed=seed)
    return [*kept[1:], teacher.eval().requires_grad_(False)]


def middle(seed: int) -> int:
    """Which checkpoint is the first to be right on more than 60 of 100 fresh examples."""
    fresh = parity(seed + 700, 4000)
    return next(i for i, t in enumerate(parity_teacher(seed)) if accuracy(predict(t, fresh.x), fresh.y) > 60)


def course(kind: str, seed: int):
    checkpoints = parity_teacher(seed)
    if kind == "labels":
        return None
    if kind == "final":
        return checkpoints[-1]
    if kind == "two":
        return Course([checkpoints[middle(seed)], checkpoints[-1]], PARITY_STEPS // 4)
    return Course(checkpoints[2:], PARITY_STEPS // 2 // len(checkpoints[2:]))


def parity_together(configs: list[dict], lr: float) -> list[dict]:
    """Students MLP(32, 8, 2), each example seen once; their accuracy every 64 steps."""
    curves = [[] for _ in configs]
    students = [MLP(BITS, 8, 2, seed=c["seed"]) for c in configs]
    data = [parity(c["seed"], 128 * PARITY_STEPS) for c in configs]
    fresh = parity(999, 4000)

    def loss(curve, taught, z, v, y):
        curve.append(accuracy(z.detach(), y))
        return kd_loss(z, v) if taught else hard_loss(z, v, y)

    losses = [partial(loss, curve, c["kind"] != "labels") for curve, c in zip(curves, configs, strict=True)]
    teachers = [course(c["kind"], c["seed"]) for c in configs]
    fit_many(students, data, losses, teachers, steps=PARITY_STEPS, lr=lr, batch_size=128, seeds=range(len(students)))
    rows = []
    for curve, student in zip(curves, students, strict=True):
        parts = {f"s{64 * (i + 1)}": float(np.mean(curve[64 * i : 64 * i + 64])) for i in range(10)}
        rows.append({"accuracy": accuracy(predict(student, fresh.x), fresh.y), **parts})
    return rows


def parity_of_checkpoints() -> None:
    """How far a teacher's answer goes with single signs, at each checkpoint."""
    about = "Sparse parity: accuracy (%) of MLP(32 256 2) on the way; correlation of its answer with single signs"

    def one(step: int, seed: int) -> dict:
        fresh = parity(998, 20_000)
        z = predict(parity_teacher(seed)[step // EVERY - 1], fresh.x)
        answer = 2 * z.softmax(-1)[:, 1] - 1
        with_each = (answer[:, None] * fresh.x).mean(0).abs() / answer.square().mean().sqrt()
        each = {"inside": with_each[:PARITY].mean().item(), "outside": with_each[PARITY:].mean().item()}
        return {"accuracy": accuracy(z, fresh.y), **each}

    steps = range(EVERY, PARITY_STEPS + 1, EVERY)
    run_all("11_parity_teacher", about, [{"step": t, "seed": s} for s in REPORTED for t in steps], one)


def parities() -> None:
    about = "Sparse parity: accuracy (%) of MLP(32 8 2) by what it learns from; s64 … during training; seeds 0 to 9"
    settings = [{"kind": k, "grid": [1]} for k in ("labels", "final", "two", "progressive")]
    choose_then_report_many("11_parity", about, settings, (0.003, 0.01, 0.03), parity_together)
    parity_of_checkpoints()


if __name__ == "__main__":
    parities()
