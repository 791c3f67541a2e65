"""The test that section 8.4 of chapter 8 fixed before it was run: does the gain over labels fall to nothing?

    python -m experiments.chapter08_forecast [FOLDER]     # resumes where it stopped; about 20 minutes on one core

FOLDER holds the official IDX files; without it they are downloaded. Ten new teachers learn from the images 0 … 29,999,
by the recipe of the shipped ones. The students' images are drawn from the next 24,000, and the last 6,000 choose their
learning rates, with seeds 100 to 102, from three and as many more as it takes for none at the edge to win; seeds 0 to 9
are reported on test. A student is that of 21_few_labels.
"""

import sys
from functools import cache, lru_cache, partial
from itertools import product

import torch

from companion.data import Split, fashion_full
from companion.losses import distillation_loss
from companion.metrics import accuracy
from companion.models import MLP, ConvNet
from companion.training import fit, hard_loss, teacher_logits
from experiments.common import TUNING, widen_then_report

RATES = (0.001, 0.003, 0.01)
LOSSES = {"hard": hard_loss, "kd T=4": partial(distillation_loss, T=4, alpha=1)}
FOLDER = sys.argv[1] if len(sys.argv) > 1 else None


@cache
def parts() -> dict[str, Split]:
    """What the teachers learn from, what the students' images are drawn from, and what is measured on."""
    train, test = fashion_full(FOLDER)
    return {"teacher": train[:30_000], "own": train[30_000:54_000], "val": train[54_000:], "test": test}


@lru_cache(maxsize=10)
def teacher(seed: int) -> ConvNet:
    """As `scripts/train_teachers.py` trains them, eight times through its images."""
    net = ConvNet(16, seed=seed)
    fit(net, parts()["teacher"], steps=8 * 300, lr=5e-3, batch_size=100, weight_decay=0.01, seed=seed)
    return net


def gain_one(images: int, loss: str, lr: float, seed: int) -> dict:
    """An MLP taught, or shown labels, on so many images; 24,000 are all there are."""
    own = parts()["own"]
    own = own if images == len(own) else own.sample(images // 10, seed)
    part, net = parts()["val" if seed in TUNING else "test"], MLP(784, 128, 10, seed=seed)
    v = None if loss == "hard" else teacher_logits(teacher(seed % 10), own.x)
    fit(net, own, LOSSES[loss], v, steps=600, lr=lr, seed=seed)
    return {"accuracy": accuracy(teacher_logits(net, part.x), part.y)}


def forecast() -> None:
    about = "Accuracy (%) of MLP(784, 128, 10), 600 steps, ten new teachers; seeds 0 to 9 on test"
    for images, loss in product((300, 1_000, 3_000, 9_000, 24_000), LOSSES):
        setting = {"images": images, "loss": loss}
        widen_then_report("08_forecast", about, gain_one, RATES, **setting)


if __name__ == "__main__":
    torch.set_num_threads(1)
    forecast()
