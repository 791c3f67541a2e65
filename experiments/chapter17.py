"""The long runs of chapter 17: what a student loses when it is made smaller, and who repairs it.

    python -m experiments.chapter17     # resumes where it stopped; about five minutes on one core

A student MLP(784, 64, 10) learns from a ConvNet(16) on 9,000 images. Then its weights are rounded to few bits, or most of
them are left out, and it is trained on: with labels, or with its own former answers to 1,000 images that are new to it
and have no label. Its rival is the teacher itself, rounded and repaired in the same way. Each learning rate is chosen on
validation with seeds 100 to 102, by accuracy; for a repair from its own former answers by agreement with itself before,
which needs no label. Seeds 0 to 9 meet the test images once. Seed s has its own initial weights and its own teacher.
"""

import tempfile
import zlib
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import torch

from companion.compress import pruned, quantized, settled
from companion.data import Split, fashion, fashion_teacher
from companion.deploy import export_onnx, int8
from companion.losses import kd_loss
from companion.metrics import accuracy, agreement
from companion.models import MLP, ConvNet
from companion.training import fit, fit_many, hard_loss, predict, teacher_logits
from experiments.common import REPORTED, TUNING, group, run_all, widen_then_report

torch.set_num_threads(1)
TRAIN, VAL, TEST = fashion("train"), fashion("val"), fashion("test")
OWN, NEW = TRAIN[:9000], TRAIN[9000:]
RATES = (0.001, 0.003, 0.01)
REPAIRS = (0.0003, 0.001, 0.003)
STEPS, MORE = 600, 300
DAMAGES = {
    "3 bits": lambda s: quantized(s, 3),
    "2 bits": lambda s: quantized(s, 2),
    "80 % out": lambda s: pruned(s, 0.8),
    "90 % out": lambda s: pruned(s, 0.9),
    "95 % out": lambda s: pruned(s, 0.95),
}
ZIPPED = ("3 bits", "2 bits", "80 % out", "90 % out")
OF_ITSELF = ("1000 new images", "9000 images", "1000 old images")  # taught by its own former answers
WAYS = (
    "1000 new images", "1000 labels", "9000 labels", "9000 images", "1000 new images and the large teacher",
    "1000 old images", "1000 old labels",
)  # fmt: skip


def soft(logits_s, logits_t, y):
    return kd_loss(logits_s, logits_t, T=4)


def examined(seed: int) -> tuple[str, Split]:
    """Validation while choosing, test once chosen."""
    return ("val", VAL) if seed in TUNING else ("test", TEST)


@lru_cache(maxsize=60)
def large_answers(index: int, part: str):
    x = {"own": OWN, "new": NEW, "val": VAL, "test": TEST}[part].x
    return teacher_logits(fashion_teacher(index), x)


@lru_cache(maxsize=8)
def wholes(how: str, lr: float, seeds: tuple) -> dict:
    """Students before anything is taken from them, by seed; or the teacher's own kind on the student's labels."""
    if how == "ConvNet(16) alone":
        convs = {seed: ConvNet(16, seed=seed) for seed in seeds}
        for seed, net in convs.items():
            fit(net, OWN, hard_loss, None, steps=STEPS, lr=lr, seed=seed)
        return convs
    students = [MLP(784, 64, 10, seed=seed) for seed in seeds]
    loss, taught = hard_loss, None
    if how == "distilled":
        loss, taught = soft, [large_answers(seed % 10, "own") for seed in seeds]
    fit_many(students, OWN, loss, taught, steps=STEPS, lr=lr, seeds=seeds)
    return dict(zip(seeds, students, strict=True))


def compared(student, seed: int, before=None) -> dict:
    """How many answers are right, like the large teacher's, and like the student's own before."""
    name, part = examined(seed)
    z, v = predict(student, part.x), large_answers(seed % 10, name)
    row = {"part": name, "accuracy": accuracy(z, part.y), "agrees": agreement(z, v)}
    if before is not None:
        row["as_before"] = agreement(z, predict(before, part.x))
    return {**row, "teacher": accuracy(v, part.y)}


def whole_one(how: str, lr: float, seed: int) -> dict:
    return compared(wholes(how, lr, group(seed))[seed], seed)


def damage_one(damage: str, amount: int, whole_lr: float, seed: int) -> dict:
    before = wholes("distilled", whole_lr, group(seed))[seed]
    after = quantized(before, amount) if damage == "bits" else pruned(before, amount / 100)
    return compared(settled(after), seed, before)


@lru_cache(maxsize=2)
def repaired(damage: str, how: str, whole_lr: float, lr: float, seeds: tuple, befores=None) -> dict:
    """Trained on for 300 steps with the damage in force, by seed: `wholes`, or what `befores` makes in its place."""
    before = (befores or wholes)("distilled", whole_lr, seeds)
    students = [DAMAGES[damage](before[seed]) for seed in seeds]
    images, loss, taught = (OWN if "9000" in how else OWN[:1000] if "old" in how else NEW), hard_loss, None
    if "images" in how:
        own = [predict(before[seed], images.x) for seed in seeds]
        loss, taught = soft, [large_answers(seed % 10, "new") for seed in seeds] if "large" in how else own
    fit_many(students, images, loss, taught, steps=MORE, lr=lr, seeds=seeds)
    return {seed: settled(student) for seed, student in zip(seeds, students, strict=True)}


def repair_one(damage: str, how: str, whole_lr: float, lr: float, seed: int) -> dict:
    before = wholes("distilled", whole_lr, group(seed))[seed]
    return compared(repaired(damage, how, whole_lr, lr, group(seed))[seed], seed, before)


def whole_numbers(layer, bits: int) -> torch.Tensor:
    """The weights of a settled layer, each counted in stairs of its unit."""
    w = layer.weight.detach()
    return (w * (2 ** (bits - 1) - 1) / w.abs().amax(1, keepdim=True)).round().to(torch.int8)


def zipped_one(damage: str, whole_lr: float, lr: float, seed: int) -> dict:
    """A repaired network, zipped: with weights left out ONNX Runtime's file of eight bits, else its whole numbers."""
    before = wholes("distilled", whole_lr, group(seed))[seed]
    after = repaired(damage, WAYS[0], whole_lr, lr, group(seed))[seed]
    name, part = examined(seed)
    if "out" in damage:
        with tempfile.TemporaryDirectory() as folder:
            eight = int8(export_onnx(after, NEW.x[:100], f"{folder}/thin.onnx"), f"{folder}/eight.onnx")
            z, raw = eight(part.x), Path(eight.path).read_bytes()
    else:
        z, raw = predict(after, part.x), b""
        for layer in after.layers:
            stairs = layer.weight.detach().abs().amax(1)
            for x in (whole_numbers(layer, int(damage[0])), stairs, layer.bias.detach()):
                raw += x.numpy().tobytes()
    return {
        "part": name,
        "accuracy": accuracy(z, part.y),
        "as_before": agreement(z, predict(before, part.x)),
        "kilobytes": len(zlib.compress(raw, 9)) / 1000,
    }


def teacher(index: int) -> ConvNet:
    """A shipped teacher that can be trained on."""
    return deepcopy(fashion_teacher(index)).requires_grad_(True)


def fewer_bits(before, bits: int, how: str, seed: int, mended, ranges=None) -> dict:
    """ONNX Runtime's file of eight bits, a network rounded only, or what `mended` returns; beside itself before."""
    name, part = examined(seed)
    if how == "file":
        with tempfile.TemporaryDirectory() as folder:
            written = export_onnx(before, NEW.x[:100], f"{folder}/whole.onnx")
            z = int8(written, f"{folder}/eight.onnx", ranges)(part.x)
    else:
        z = predict(settled(quantized(before, bits)) if how == "rounded" else mended(), part.x)
    v = predict(before, part.x)
    return {
        "part": name,
        "accuracy": accuracy(z, part.y),
        "as_before": agreement(z, v),
        "before": accuracy(v, part.y),
    }


def rival_one(network: str, bits: int, how: str, lr: float, seed: int, whole_lr: float = 0.01) -> dict:
    """A teacher in few bits: rounded, or repaired by its own former answers; or a file of eight bits."""
    large = network == "ConvNet(16)"
    before = teacher(seed % 10).eval() if large else wholes("distilled", whole_lr, group(seed))[seed]

    def mended():
        few = quantized(before, bits)
        fit(few, NEW, soft, predict(before, NEW.x), steps=MORE, lr=lr, seed=seed)
        return settled(few)

    # convolutions need the range of their inputs beforehand: from images without labels
    return fewer_bits(before, bits, how, seed, mended, NEW.x[:256] if large else None)


def rivals() -> None:
    about = "The teacher in few bits and eight-bit files of ONNX Runtime: accuracy and agreement (%)"
    grid = [("ConvNet(16)", bits, "rounded") for bits in (4, 3)]
    grid += [("ConvNet(16)", 8, "file"), ("MLP(784 64 10)", 8, "file")]
    for network, bits, how in grid:
        fixed = {"network": network, "bits": bits, "how": how, "lr": 0.0}
        run_all("17_rivals", about, [{**fixed, "seed": s} for s in REPORTED], rival_one)
    widen_then_report(
        "17_rivals", about, rival_one, REPAIRS, by="as_before", network="ConvNet(16)", bits=3, how=WAYS[0]
    )


def images() -> None:
    about = "MLP(784 64 10) before anything is taken from it: accuracy and agreement with its teacher (%); 9000 images"
    for how in ("ConvNet(16) alone", "alone", "distilled"):
        lr = widen_then_report("17_whole", about, whole_one, RATES, how=how)["lr"]
    about = "The distilled MLP(784 64 10) with rounded or left-out weights: accuracy and agreement (%)"
    grid = [("bits", b) for b in (8, 6, 5, 4, 3, 2)] + [("left out", p) for p in (20, 40, 60, 80, 90, 95)]
    for damage, amount in grid:
        settings = [{"damage": damage, "amount": amount, "whole_lr": lr, "seed": s} for s in REPORTED]
        run_all("17_damaged", about, settings, damage_one)
    about = "As 17_damaged after 300 more steps with the damage in force"
    ways = {
        "3 bits": WAYS,
        "95 % out": WAYS[:2],
        "2 bits": WAYS[:4],
        "80 % out": WAYS[:1],
        "90 % out": WAYS[:1],
    }
    chosen = []
    for damage, how in ((d, h) for d in ways for h in ways[d]):
        by = "as_before" if how in OF_ITSELF else "accuracy"
        best = widen_then_report(
            "17_repaired", about, repair_one, REPAIRS, by, damage=damage, how=how, whole_lr=lr
        )
        if how == WAYS[0] and damage in ZIPPED:
            chosen.append({"damage": damage, "whole_lr": lr, "lr": best["lr"]})
    about = (
        "Repaired networks of 17_repaired, zipped; those with left-out weights in ONNX Runtime's eight bits"
    )
    for fixed in chosen:
        run_all("17_zipped", about, [{**fixed, "seed": s} for s in REPORTED], zipped_one)


if __name__ == "__main__":
    images()
    rivals()
