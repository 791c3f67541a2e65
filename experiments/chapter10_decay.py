"""Chapter 10: are contrast's features better only because their student had another weight decay than KD's?

    python -m experiments.chapter10_decay     # resumes where it stopped; about 3 minutes on one core

KD for 200 steps with the weight decay that validation chose for labels + contrast, 1 (with it, too, KD's rate is the
best of its neighbours: 10_longer.csv). Then a new last layer by KD on the features, with its decay, rate and steps
walked from those of the layer for KD's own decay. Seeds 100 to 102 choose on validation, seeds 0 to 9 are reported on
test; images, teacher and first weights of a seed are those of experiments/chapter10.py.
"""

from experiments.chapter10 import last_features, new_layer
from experiments.chapter10_controls import chosen, walk
from experiments.chapter10_tuned import chosen as tuned
from experiments.common import stored

NAME = "10_decay_layers"
ABOUT = "Accuracy (%) of ConvNet(4) on KD's features, trained with contrast's decay; last layer anew by KD"


def relearned(method: str, trained_decay: float, steps: int, decay: float, lr: float, seed: int) -> dict:
    """A new last layer by KD; `decay` and `lr` are the layer's, `trained_decay` the student's."""
    weight, rate = chosen(method, "kd")
    return new_layer(
        last_features(method, "kd", weight, rate, seed, trained_decay), "kd", steps, lr, seed, decay
    )


def layers(method: str) -> None:
    old = stored("10_layers_decay")
    found = old[(old["method"] == method) & (old["layer"] == "kd") & (old["seed"] == 0)][0]
    setting = {"method": method, "trained_decay": tuned("contrastive")["decay"], "steps": int(found["steps"])}
    setting |= {key: float(found[key]) for key in ("decay", "lr")}
    walk(NAME, ABOUT, relearned, setting, ("decay", "lr", "steps"))


if __name__ == "__main__":
    layers("none")
