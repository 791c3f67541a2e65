"""Chapter 17's student under its teacher's conditions: all 45,000 images, 3,600 steps; then fewer bits, and the repair.

    python -m experiments.chapter17_all [FOLDER]     # resumes where it stopped; about ten minutes on one core

The package leaves these images out: FOLDER holds the official files of Fashion-MNIST, and without it they are downloaded.
The MLP learns from their labels, or from the answers of the teacher that learned from the same labels. Rounding and
repair are those of `experiments.chapter17`: 300 steps on its own former answers to 1,000 images that are new to it.
Each learning rate is chosen as there, on validation with seeds 100 to 102; seeds 0 to 9 meet the test images once.
"""

import sys
import tempfile
from functools import lru_cache

import torch

from companion.compress import quantized, settled
from companion.data import Split, fashion_full, fashion_teacher
from companion.deploy import export_onnx, int8
from companion.metrics import accuracy, agreement
from companion.models import MLP
from companion.training import fit_many, hard_loss, predict, teacher_logits
from experiments.chapter17 import MORE, NEW, RATES, REPAIRS, compared, examined, soft, widened
from experiments.common import REPORTED, group, run_all

IMAGES, STEPS = 45_000, 3_600  # as scripts/train_teachers.py
FOLDER = None


@lru_cache(maxsize=1)
def everything() -> Split:
    """What the shipped teachers have learned from."""
    return fashion_full(FOLDER)[0][:IMAGES]


@lru_cache(maxsize=13)
def answers(index: int):
    return teacher_logits(fashion_teacher(index), everything().x)


@lru_cache(maxsize=4)
def taught(how: str, lr: float, seeds: tuple) -> dict:
    """The students of these seeds, all at once."""
    students = [MLP(784, 64, 10, seed=seed) for seed in seeds]
    loss, said = hard_loss, None
    if how == "distilled":
        loss, said = soft, [answers(seed % 10) for seed in seeds]
    fit_many(students, everything(), loss, said, steps=STEPS, lr=lr, seeds=seeds)
    return dict(zip(seeds, students, strict=True))


def taught_one(how: str, lr: float, seed: int) -> dict:
    return compared(taught(how, lr, group(seed))[seed], seed)


@lru_cache(maxsize=2)
def repaired(bits: int, whole_lr: float, lr: float, seeds: tuple) -> dict:
    before = taught("distilled", whole_lr, seeds)
    few = [quantized(before[seed], bits) for seed in seeds]
    fit_many(few, NEW, soft, [predict(before[s], NEW.x) for s in seeds], steps=MORE, lr=lr, seeds=seeds)
    return {seed: settled(student) for seed, student in zip(seeds, few, strict=True)}


def fewer_bits_one(bits: int, how: str, whole_lr: float, lr: float, seed: int) -> dict:
    """Rounded only; repaired by its own former answers; or ONNX Runtime's file of eight bits."""
    before = taught("distilled", whole_lr, group(seed))[seed]
    name, part = examined(seed)
    v = predict(before, part.x)
    if how == "file":
        with tempfile.TemporaryDirectory() as folder:
            z = int8(export_onnx(before, NEW.x[:100], f"{folder}/whole.onnx"), f"{folder}/eight.onnx")(part.x)
    elif how == "rounded":
        z = predict(settled(quantized(before, bits)), part.x)
    else:
        z = predict(repaired(bits, whole_lr, lr, group(seed))[seed], part.x)
    return {
        "part": name,
        "accuracy": accuracy(z, part.y),
        "as_before": agreement(z, v),
        "before": accuracy(v, part.y),
    }


def main(folder: str | None = None) -> None:
    global FOLDER
    FOLDER = folder
    about = f"MLP(784 64 10) taught on {IMAGES} images in {STEPS} steps: accuracy and agreement with its teacher (%)"
    for how in ("alone", "distilled"):
        lr = widened("17_all", about, taught_one, RATES, how=how)["lr"]
    about = "The distilled MLP of 17_all in few bits: accuracy and agreement with itself before (%)"
    for bits, how in ((8, "file"), (4, "rounded"), (3, "rounded")):
        fixed = {"bits": bits, "how": how, "whole_lr": lr, "lr": 0.0}
        run_all("17_all_bits", about, [{**fixed, "seed": s} for s in REPORTED], fewer_bits_one)
    widened(
        "17_all_bits", about, fewer_bits_one, REPAIRS, "as_before", bits=3, how="1000 new images", whole_lr=lr
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
