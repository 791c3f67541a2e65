"""The long runs of chapter 9: when a comparison may stop, what other temperatures and weights would give, and
whether stored answers still teach where the images are shifted.

    python -m experiments.chapter09     # resumes where it stopped; some ten minutes on one core

Every length, every pair of T and α, and every kind of answer has its learning rate searched anew.

Learning rates are chosen on validation with seeds 100 to 102; seeds 0 to 9 are reported. Seed s has its own
initial weights and its own 200 images; a taught student learns from teacher s mod 10 alone, at T = 4.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.data import Split, fashion, fashion_teacher
from companion.losses import distillation_loss, kd_loss
from companion.metrics import accuracy
from companion.models import MLP
from companion.training import fit, hard_loss, jitter, predict
from experiments.common import choose_then_report, widen_then_report

torch.set_num_threads(1)
TRAIN, VAL, TEST = fashion("train"), fashion("val"), fashion("test")
TEACHERS = [fashion_teacher(i) for i in range(10)]


def student_of(side: str, steps: int, lr: float, seed: int) -> dict:
    """A student's accuracy (%) after its last step, on validation and on test images."""
    images, student = TRAIN.sample(20, seed), MLP(784, 32, 10, seed=seed)
    if side == "taught":
        answers = predict(TEACHERS[seed % 10], images.x)
        fit(student, images, lambda z, v, y: kd_loss(z, v, 4), answers, steps=steps, lr=lr, seed=seed)
    else:
        fit(student, images, hard_loss, steps=steps, lr=lr, seed=seed)
    return {name: accuracy(predict(student, x), y) for name, (x, y) in PARTS.items()}


def student_with(T: float, alpha: float, lr: float, seed: int) -> dict:
    """The same after 240 steps, taught at temperature T with the weight α, and from labels with the rest."""
    images, student = TRAIN.sample(20, seed), MLP(784, 32, 10, seed=seed)
    answers = predict(TEACHERS[seed % 10], images.x)
    fit(
        student,
        images,
        lambda z, v, y: distillation_loss(z, v, y, T, alpha),
        answers,
        steps=240,
        lr=lr,
        seed=seed,
    )
    return {name: accuracy(predict(student, x), y) for name, (x, y) in PARTS.items()}


def shifted(pixels: int, x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to ±pixels both ways, each drawn evenly; what it leaves behind is black."""
    framed = F.pad(x, 4 * [pixels], value=BLACK)
    return jitter(pixels)(framed, generator)[..., pixels:-pixels, pixels:-pixels]


def moving(pixels: int) -> Callable:
    """`shifted` by up to so many pixels, as `fit` takes a transform."""
    return partial(shifted, pixels)


def student_shown(kind: str, pixels: int, lr: float, seed: int) -> dict:
    """The same after 480 steps at T = 4, also on images shifted by up to ±pixels.

    `unshifted`: it learns on its images as they are. Otherwise they are shifted anew at each step, and the teacher
    has answered the unshifted image once (`stored`) or is asked about each shifted one (`fresh`).
    """
    images, student = TRAIN.sample(20, seed), MLP(784, 32, 10, seed=seed)
    teacher, run = TEACHERS[seed % 10], {"steps": 480, "lr": lr, "seed": seed}
    answers = predict(teacher, images.x)
    if kind == "unshifted":
        fit(student, images, lambda z, v, y: kd_loss(z, v, 4), answers, **run)
    elif kind == "fresh":
        fit(student, images, lambda z, v, y: kd_loss(z, v, 4), teacher, transform=moving(pixels), **run)
    else:  # `fit` refuses stored logits beside a transform, so the number of the image stands in for its label
        numbered = Split(images.x, torch.arange(len(images)))
        fit(student, numbered, lambda z, v, i: kd_loss(z, answers[i], 4), transform=moving(pixels), **run)
    found = {}
    for name, (x, y) in PARTS.items():
        moved = moving(pixels)(x, torch.Generator().manual_seed(pixels))
        found |= {
            name: accuracy(predict(student, x), y),
            f"{name}_moved": accuracy(predict(student, moved), y),
        }
    return found


SHOWN = ("stored", "fresh", "unshifted")
BLACK = TRAIN.x.min().item()
PARTS = {name: (part.x, part.y) for name, part in {"val": VAL, "test": TEST}.items()}


def main() -> None:
    about = "Accuracy (%) of MLP(784, 32, 10), 200 images, taught at T = 4 or from labels; seeds 0 to 9"
    rates = {"lr": (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)}
    for steps in (60, 120, 240, 480):
        for side in ("from labels", "taught"):
            choose_then_report("09_steps", about, student_of, "val", rates, side=side, steps=steps)
    about = "Accuracy (%) of MLP(784, 32, 10), 200 images, 240 steps, at T with weight α on the teacher; seeds 0 to 9"
    rates = {"lr": (0.0003, 0.001, 0.003, 0.01, 0.03)}
    for T in (1, 4, 16):
        for alpha in (0.5, 0.9, 1):
            choose_then_report("09_defaults", about, student_with, "val", rates, T=T, alpha=alpha)
    about = "Accuracy (%) of MLP(784, 32, 10), 200 images, 480 steps at T = 4, by what it learns from; seeds 0 to 9"
    rates = (0.001, 0.003, 0.01, 0.03)
    for kind in SHOWN:
        for score in ("val", "val_moved"):  # each has a rate of its own
            widen_then_report("09_shifted", about, student_shown, rates, score, kind=kind, pixels=3)


if __name__ == "__main__":
    main()
