"""Controls of chapter 10: KD for longer, the five losses beside labels with a tuned weight decay.

    python -m experiments.chapter10_longer     # resumes where it stopped; about 25 minutes on one core

KD for 200 + 1,000 and 200 + 3,000 steps, as many as students and their new last layers have together, and KD with
contrast for the first of these; the rate is chosen anew. Labels, alone and with contrast, for the first of these, too,
with weight, rate and decay walked from those of 200 steps. Beside labels, and for KD alone, the decay, the weight and
the rate are each walked in turn until none moves. Seeds 100 to 102 choose on validation, seeds 0 to 9 are reported on
test; images, teacher and first weights of a seed are those of experiments/chapter10.py.
"""

import numpy as np

from companion.metrics import accuracy
from experiments.chapter10 import RATES, START, TEST, VAL, WEIGHTS, rows, trained
from experiments.common import REPORTED, TUNING, run_all, stored

NAME = "10_longer"
ABOUT = "Accuracy (%) of ConvNet(4), 1000 images: KD with more steps, labels with a tuned weight decay"
DECAYS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
GRIDS = {"decay": DECAYS, "weight": WEIGHTS, "lr": RATES}
ORDER = ("method", "base", "steps", "decay", "weight", "lr")


def one(method: str, base: str, steps: int, decay: float, weight: float, lr: float, seed: int) -> dict:
    net, part = (
        trained(method, base, "teacher", weight, lr, seed, steps, decay),
        VAL if seed in TUNING else TEST,
    )
    return {"accuracy": accuracy(rows(net, part.x)[:, :10], part.y)}


def run(setting: dict, seeds) -> np.ndarray:
    setting = {k: setting[k] for k in ORDER}
    found = run_all(NAME, ABOUT, [{**setting, "seed": s} for s in seeds], one)
    here = np.isin(found["seed"], list(seeds)) & np.all([found[k] == v for k, v in setting.items()], axis=0)
    return found["accuracy"][here]


def walk(name: str, setting: dict) -> dict:
    """The value of `name` with the best mean on validation: where it is, its neighbours, and on from there."""
    values = GRIDS[name]
    best = values.index(setting[name])
    while True:
        around = [i for i in (best, best - 1, best + 1) if 0 <= i < len(values)]
        better = max(around, key=lambda i: run({**setting, name: values[i]}, TUNING).mean())
        if better == best:
            return {**setting, name: values[best]}
        best = better


def walk_all(setting: dict, which: tuple) -> None:
    before = None
    while before != setting:
        before = setting
        for name in which:
            setting = walk(name, setting)
    run(setting, REPORTED)


def longer(method: str, steps: int) -> None:
    table = stored("10_methods")
    of = (table["method"] == method) & (table["base"] == "kd") & (table["target"] == "teacher")
    found = table[of & (table["seed"] == 0)]
    weight, lr = float(found["weight"][0]), float(found["lr"][0])
    setting = {"method": method, "base": "kd", "steps": steps, "decay": 0.01, "weight": weight, "lr": lr}
    walk_all(setting, ("lr",))


def decayed(method: str, base: str = "labels") -> None:
    """Beside labels or in KD alone, from chapter 10's weight, and the decay and rate of labels in chapter 13."""
    table, weight = stored("10_methods"), 0.0
    if method != "none":
        of = (table["method"] == method) & (table["base"] == "labels") & (table["target"] == "teacher")
        weight = float(table[of & (table["seed"] == 0)]["weight"][0])
    setting = {"method": method, "base": base, "steps": 200, "decay": 1.0, "weight": weight, "lr": 0.03}
    walk_all(setting, ("lr", "decay") if method == "none" else ("weight", "lr", "decay"))


def longer_labels(method: str) -> None:
    """Labels for 1,200 steps, from what 200 steps with a tuned decay have chosen."""
    table = stored(NAME)
    of = (table["method"] == method) & (table["base"] == "labels") & (table["steps"] == 200)
    found = table[of & (table["seed"] == 0)][0]
    setting = {"method": method, "base": "labels", "steps": 1200}
    setting |= {key: float(found[key]) for key in ("decay", "weight", "lr")}
    walk_all(setting, ("lr", "decay") if method == "none" else ("lr", "decay", "weight"))


if __name__ == "__main__":
    longer("none", 1200)
    for method in ("none", *START):
        decayed(method)
    longer("none", 3200)
    longer("contrastive", 1200)
    decayed("none", "kd")
    longer_labels("none")
    longer_labels("contrastive")
