"""Controls of chapter 10: KD for longer, the five losses beside labels with a tuned weight decay.

    python -m experiments.chapter10_longer     # resumes where it stopped; about 25 minutes on one core

KD for 200 + 1,000 and 200 + 3,000 steps, as many as students and their new last layers have together, and KD with
contrast for the first of these; the rate is chosen anew. Labels, alone and with contrast, for the first of these, too,
with weight, rate and decay walked from those of 200 steps. Beside labels, and for KD alone, the decay, the weight and
the rate are each walked in turn until none moves. Seeds 100 to 102 choose on validation, seeds 0 to 9 are reported on
test; images, teacher and first weights of a seed are those of experiments/chapter10.py. At
the end KD's students of 1,200 steps, without contrast and with, get a new last layer by KD: 10_longer_layers.csv.
"""

from companion.metrics import accuracy
from experiments.chapter10 import START, TEST, VAL, last_features, new_layer, rows, trained
from experiments.chapter10_controls import chosen, walk
from experiments.common import TUNING, stored

NAME, LAYERS = "10_longer", "10_longer_layers"
ABOUT = "Accuracy (%) of ConvNet(4), 1000 images: KD with more steps, labels with a tuned weight decay"
OF_LAYERS = "Accuracy (%) of ConvNet(4), trained longer; features kept, last layer learned anew by KD"


def one(method: str, base: str, steps: int, decay: float, weight: float, lr: float, seed: int) -> dict:
    net, part = (
        trained(method, base, "teacher", weight, lr, seed, steps, decay),
        VAL if seed in TUNING else TEST,
    )
    return {"accuracy": accuracy(rows(net, part.x)[:, :10], part.y)}


def of_student(method: str, base: str, steps: int) -> dict:
    """Decay, weight and rate of a student that this script has reported."""
    table = stored(NAME)
    of = (table["method"] == method) & (table["base"] == base) & (table["steps"] == steps)
    found = table[of & (table["seed"] == 0)][0]
    return {key: float(found[key]) for key in ("decay", "weight", "lr")}


def longer(method: str, steps: int) -> None:
    weight, lr = chosen(method, "kd")
    setting = {"method": method, "base": "kd", "steps": steps, "decay": 0.01, "weight": weight, "lr": lr}
    walk(NAME, ABOUT, one, setting, ("lr",))


def decayed(method: str, base: str = "labels") -> None:
    """Beside labels or in KD alone, from chapter 10's weight, and the decay and rate of labels in chapter 13."""
    weight = 0.0 if method == "none" else chosen(method, "labels")[0]
    setting = {"method": method, "base": base, "steps": 200, "decay": 1.0, "weight": weight, "lr": 0.03}
    walk(NAME, ABOUT, one, setting, ("lr", "decay") if method == "none" else ("weight", "lr", "decay"))


def longer_labels(method: str) -> None:
    """Labels for 1,200 steps, from what 200 steps with a tuned decay have chosen."""
    setting = {"method": method, "base": "labels", "steps": 1200, **of_student(method, "labels", 200)}
    walk(NAME, ABOUT, one, setting, ("lr", "decay") if method == "none" else ("lr", "decay", "weight"))


def relearned(
    method: str, base: str, trained: int, steps: int, decay: float, lr: float, seed: int
) -> dict:  # fmt: skip
    """A new last layer by KD on the features of a student of `trained` steps; the other numbers are the layer's."""
    of = of_student(method, base, trained)
    features = last_features(method, base, of["weight"], of["lr"], seed, of["decay"], trained)
    return new_layer(features, "kd", steps, lr, seed, decay)


def layers(method: str, base: str, steps: int, which: tuple) -> None:
    """From what the student of 200 steps was given; five seeds, since a student of 1,200 steps takes long."""
    old = stored("10_layers_decay")
    found = old[(old["method"] == method) & (old["layer"] == "kd") & (old["seed"] == 0)][0]
    setting = {"method": method, "base": base, "trained": steps, "steps": int(found["steps"])}
    setting |= {key: float(found[key]) for key in ("decay", "lr")}
    walk(LAYERS, OF_LAYERS, relearned, setting, which, range(5))


if __name__ == "__main__":
    longer("none", 1200)
    for method in ("none", *START):
        decayed(method)
    longer("none", 3200)
    longer("contrastive", 1200)
    decayed("none", "kd")
    longer_labels("none")
    longer_labels("contrastive")
    layers("none", "kd", 1200, ("decay", "lr", "steps"))
    layers("contrastive", "kd", 1200, ())  # the layer as chosen for the student of 200 steps
