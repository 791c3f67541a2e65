"""Chapter 10: new last layers for students of labels whose weight decay is tuned, and what such a layer costs.

    python -m experiments.chapter10_tuned     # resumes where it stopped; about 5 minutes on one core

Decay, learning rate and weight of each student are those that experiments/chapter10_longer.py chose (200 steps). The
new layers have their decay, rate and steps walked. Seeds 100 to 102 choose on validation, seeds 0 to 9 are reported on
test; images, teacher and first weights of a seed are those of experiments/chapter10.py. 10_tuned_time.csv: a layer's
cost, counted in steps of KD.
"""

import time

import numpy as np
from torch import nn

from companion.data import Split
from companion.models import ConvNet
from companion.training import fit
from experiments.chapter10 import answers, last_features, lesson, new_layer, rows
from experiments.chapter10_controls import walk
from experiments.common import run_all, stored

LAYERS, TIME = "10_tuned_layers", "10_tuned_time"


def chosen(method: str) -> dict:
    """Weight, rate and decay of a student of labels in 200 steps, as stored."""
    table = stored("10_longer")
    of = (table["method"] == method) & (table["base"] == "labels") & (table["steps"] == 200)
    found = table[of & (table["seed"] == 0)][0]
    return {key: float(found[key]) for key in ("weight", "lr", "decay")}


def relearned(method: str, layer: str, steps: int, decay: float, lr: float, seed: int) -> dict:
    """A new last layer on the features of a student with a tuned decay; `decay` and `lr` are the layer's."""
    of = chosen(method)
    features = last_features(method, "labels", of["weight"], of["lr"], seed, of["decay"])
    return new_layer(features, layer, steps, lr, seed, decay)


FIRST = {  # (method, what the layer learns from) → steps, decay and rate where its walk begins
    ("contrastive", "labels"): (200, 1.0, 0.03),
    ("contrastive", "kd"): (3000, 0.1, 0.01),
    ("none", "labels"): (1000, 1.0, 0.001),
    ("none", "kd"): (200, 0.01, 0.03),
}


def layers() -> None:
    about = "Accuracy (%) of ConvNet(4), 1000 labels, tuned decay; features kept, last layer learned anew"
    for (method, layer), (steps, decay, lr) in FIRST.items():
        setting = {"method": method, "layer": layer, "steps": steps, "decay": decay, "lr": lr}
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
