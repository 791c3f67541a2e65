"""Chapter 10: new last layers for students of labels whose weight decay is tuned, and what such a layer costs.

    python -m experiments.chapter10_tuned     # resumes where it stopped; about 5 minutes on one core

Decay, learning rate and weight of each student are those that experiments/chapter10_longer.py chose (200 steps). The
new layers have their decay, rate and steps walked. Seeds 100 to 102 choose on validation, seeds 0 to 9 are reported on
test; images, teacher and first weights of a seed are those of experiments/chapter10.py. 10_tuned_time.csv: a layer's
cost, counted in steps of KD.
"""

import time
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from companion.data import Split
from companion.metrics import accuracy
from companion.models import ConvNet
from companion.training import fit
from experiments.chapter10 import TEST, VAL, answers, lesson, rows, trained
from experiments.chapter10_controls import walk
from experiments.common import TUNING, run_all, stored

LAYERS, TIME = "10_tuned_layers", "10_tuned_time"


def chosen(method: str) -> dict:
    """Weight, rate and decay of a student of labels in 200 steps, as stored."""
    table = stored("10_longer")
    of = (table["method"] == method) & (table["base"] == "labels") & (table["steps"] == 200)
    found = table[of & (table["seed"] == 0)][0]
    return {key: float(found[key]) for key in ("weight", "lr", "decay")}


@lru_cache(maxsize=16)
def last_features(method: str, seed: int) -> tuple[Split, Split]:
    """What a finished student's last layer reads: of its own images, and of those that judge it; and their labels."""
    of = chosen(method)
    net = trained(method, "labels", "teacher", of["weight"], of["lr"], seed, decay=of["decay"])
    part = VAL if seed in TUNING else TEST
    images, _ = lesson("teacher", seed)
    return tuple(Split(rows(net, of.x)[:, -net.head.in_features :], of.y) for of in (images, part))


def relearned(method: str, layer: str, steps: int, decay: float, lr: float, seed: int) -> dict:
    """A new last layer on kept features, from the labels of the student's own 1,000 images or from KD on them."""
    seen, new = last_features(method, seed)
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


def layers(methods: tuple = ("contrastive", "none")) -> None:
    """From what the students of the default decay were given (10_layers_decay.csv)."""
    about = "Accuracy (%) of ConvNet(4), 1000 labels, tuned decay; features kept, last layer learned anew"
    old = stored("10_layers_decay")
    for method in methods:
        for layer in ("labels", "kd"):
            of = (old["method"] == method) & (old["base"] == "labels") & (old["layer"] == layer)
            found = old[of & (old["seed"] == 0)][0]
            setting = {"method": method, "layer": layer, "steps": int(found["steps"])}
            setting |= {key: float(found[key]) for key in ("decay", "lr")}
            walk(LAYERS, about, relearned, setting, ("decay", "lr", "steps"))


def costs(time_no: int) -> dict:
    """A step of a last layer by KD, and the features of 1,000 images, each over a step of KD of the whole student."""
    images, told = lesson("teacher", 0)
    v, net = told[:, :10].contiguous(), ConvNet(4, dropout=0.0, seed=0)
    kept = Split(rows(net, images.x)[:, -net.head.in_features :], images.y)

    def taught(module, split, steps):
        start = time.process_time()
        fit(module, split, lambda z, v, y: answers("kd", z, v, y), v, steps=steps, lr=0.01, seed=0)
        return (time.process_time() - start) / steps

    times = []
    for _ in range(5):
        whole = taught(ConvNet(4, dropout=0.0, seed=0), images, 40)
        layer = taught(nn.Linear(kept.x.shape[1], 10), kept, 400)
        start = time.process_time()
        rows(net, images.x)
        times.append((layer / whole, (time.process_time() - start) / whole))
    layer, features = np.median(times, 0).tolist()
    return {"layer": layer, "features": features}


def timed() -> None:
    about = "Time over a step of KD: a step of a new last layer by KD, and the features of the 1,000 images"
    run_all(TIME, about, [{"time_no": i} for i in range(5)], costs)


if __name__ == "__main__":
    layers()
    timed()
