"""The long runs of chapter 8: what keeps a student from its teacher, the price of a badly chosen T, a biased teacher.

    python -m experiments.chapter08     # resumes where it stopped; about 22 minutes on one core

Learning rates are chosen on validation with seeds 100 to 102; seeds 0 to 9 are reported on test. Seed s has
its own initial weights, its own images and its own teacher.
"""

from functools import lru_cache, partial
from itertools import product

import torch
from torch import Tensor

from companion.data import Split, fashion, fashion_teacher
from companion.losses import distillation_loss
from companion.metrics import accuracy, agreement
from companion.models import MLP, ConvNet
from companion.training import fit, hard_loss, teacher_logits
from experiments.common import REPORTED, TUNING, choose_then_report, run_all

torch.set_num_threads(1)
TRAIN, VAL, TEST = fashion("train"), fashion("val"), fashion("test")
TEACHERS = [fashion_teacher(i) for i in range(10)]


def soft(T: float):
    return partial(distillation_loss, T=T, alpha=1)


def part_of(seed: int) -> Split:
    return VAL if seed in TUNING else TEST


# ------------------------------------------------------------------------------------------- what is passed on


def follow_one(change: str, lr: float, seed: int) -> dict:
    """A student of 1000 images, 300 steps and width 4, with one of the three (or two) made larger."""
    images = TRAIN if "images" in change else TRAIN.sample(100, seed)
    steps = 1200 if "steps" in change else 300
    student = ConvNet(16 if "width" in change else 4, dropout=0.0, seed=seed)
    teacher, part = TEACHERS[seed % 10], part_of(seed)
    v = teacher_logits(teacher, images.x)
    loss = hard_loss if change == "labels" else soft(4)
    fit(student, images, loss, v, steps=steps, lr=lr, seed=seed)
    z, seen = teacher_logits(student, part.x), teacher_logits(student, images.x)
    alike, right = agreement(z, teacher_logits(teacher, part.x)), accuracy(z, part.y)
    return {"agreement": alike, "accuracy": right, "on_training_images": agreement(seen, v)}


def following() -> None:
    about = (
        "Agreement with the teacher and accuracy (%) of a student with one thing more; seeds 0 to 9 on test"
    )
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    for change in ("labels", "none", "steps", "width", "images", "images and steps"):
        choose_then_report("08_following", about, follow_one, "agreement", rates, change=change)


# ----------------------------------------------------------------------------------------------- the temperature


def temperature_one(width: int, per_class: int, T: float, lr: float, seed: int) -> dict:
    """An MLP taught at T; on 100 and on all validation images, and (reported seeds only) on test."""
    images, student = TRAIN.sample(per_class, seed), MLP(784, width, 10, seed=seed)
    fit(student, images, soft(T), teacher_logits(TEACHERS[seed % 10], images.x), steps=600, lr=lr, seed=seed)
    z = teacher_logits(student, VAL.x)
    few = torch.randperm(len(VAL), generator=torch.Generator().manual_seed(seed))[:100]
    test = float("nan") if seed in TUNING else accuracy(teacher_logits(student, TEST.x), TEST.y)
    return {"val": accuracy(z, VAL.y), "val100": accuracy(z[few], VAL.y[few]), "test": test}


def temperature() -> None:
    about = "Accuracy (%) of MLP(784, width, 10), 600 steps at temperature T, α = 1; seeds 0 to 9"
    rates = {"lr": (0.0003, 0.001, 0.003, 0.01, 0.03)}
    for width, per_class, T in product((8, 128), (10, 300), (1.0, 2.0, 4.0, 8.0, 16.0)):
        setting = {"width": width, "per_class": per_class, "T": T}
        choose_then_report("08_temperature", about, temperature_one, "val", rates, **setting)


def room_one(width: int, T: float, steps: int, lr: float, seed: int) -> dict:
    """What an MLP of 3000 images follows of its teacher: on its own images and on new ones; and its accuracy."""
    images, student, part = TRAIN.sample(300, seed), MLP(784, width, 10, seed=seed), part_of(seed)
    teacher = TEACHERS[seed % 10]
    v = teacher_logits(teacher, images.x)
    fit(student, images, soft(T), v, steps=steps, lr=lr, seed=seed)
    z, new = teacher_logits(student, images.x), teacher_logits(student, part.x)
    found = {"seen": agreement(z, v), "agreement": agreement(new, teacher_logits(teacher, part.x))}
    return {**found, "accuracy": accuracy(new, part.y)}


def room() -> None:
    """Why do narrow students mind a high temperature? Not fitted, or not generalised; too few steps, or no room?"""
    about = (
        "Agreement with the teacher (%) of MLP(784, width, 10), 3000 images, at temperature T; seeds 0 to 9"
    )
    rates = {"lr": (0.0003, 0.001, 0.003, 0.01, 0.03)}
    for width, T, steps in product((8, 128), (2.0, 16.0), (600, 2400)):
        if width == 8 or steps == 600:
            setting = {"width": width, "T": T, "steps": steps}
            choose_then_report("08_room", about, room_one, "accuracy", rates, **setting)


# ------------------------------------------------------------------------------------------------------ fairness


def of_each_class(seed: int) -> list[Tensor]:
    """The places in TRAIN of each class, in the order of this seed."""
    order = torch.randperm(len(TRAIN), generator=torch.Generator().manual_seed(seed))
    return [order[TRAIN.y[order] == c] for c in range(10)]


def biased_split(seed: int) -> tuple[Split, Split, Tensor]:
    """1000 balanced images for the student; of the others a 100 : 1 long tail for its teacher; log shares."""
    each = of_each_class(seed)
    mine = torch.cat([index[:100] for index in each])
    rank = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
    counts = (700 * 100 ** (-rank / 9)).round().int().tolist()
    others = torch.cat([index[100 : 100 + n] for index, n in zip(each, counts, strict=True)])
    counts = torch.tensor(counts, dtype=torch.float)
    return TRAIN[mine], TRAIN[others], (counts / counts.sum()).log()


@lru_cache(maxsize=16)
def biased(seed: int):
    """A student's images, a ConvNet(16) that learnt on the long tail, and the log shares of its classes."""
    mine, tail, log_prior = biased_split(seed)
    teacher = ConvNet(16, seed=seed)
    fit(teacher, tail, steps=300, lr=5e-3, seed=seed)
    return mine, teacher, log_prior


def by_class(z: Tensor, part: Split, log_prior: Tensor) -> dict:
    """The accuracy over all classes, and of each, rarest first in the teacher's training set."""
    each = [accuracy(z[part.y == c], part.y[part.y == c]) for c in log_prior.argsort().tolist()]
    return {"accuracy": accuracy(z, part.y), **{f"c{i}": value for i, value in enumerate(each)}}


def fair_one(kind: str, lr: float, seed: int) -> dict:
    """A student of the kind, or the teacher itself; classes as in `by_class`."""
    (mine, teacher, log_prior), part = biased(seed), part_of(seed)
    v, student = teacher_logits(teacher, mine.x), ConvNet(4, dropout=0.0, seed=seed)
    loss = {
        "alone": hard_loss,
        "taught": soft(4),
        "half labels": partial(distillation_loss, T=4, alpha=0.5),
        "corrected": soft(4),
    }
    if kind == "corrected":
        v = v - log_prior
    if kind == "teacher":
        student = teacher
    else:
        fit(student, mine, loss[kind], v, steps=300, lr=lr, seed=seed)
    z = teacher_logits(student, part.x)
    return by_class(z, part, log_prior)


def fairness() -> None:
    about = "Accuracy (%), of all and by class, rarest first for the teacher; ConvNet(4), 1000 images; seeds 0 to 9"
    run_all("08_fairness", about, [{"kind": "teacher", "lr": 0.0, "seed": s} for s in REPORTED], fair_one)
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    for kind in ("alone", "taught", "half labels", "corrected"):
        choose_then_report("08_fairness", about, fair_one, "accuracy", rates, kind=kind)


@lru_cache(maxsize=16)
def biased_logits(seed: int) -> tuple[Tensor, Tensor]:
    """What the long tail's teacher says on validation and on test."""
    _, teacher, _ = biased(seed)
    return teacher_logits(teacher, VAL.x), teacher_logits(teacher, TEST.x)


def corrected_one(factor: float, seed: int) -> dict:
    """The teacher itself, without a student, less `factor` times the log shares of its classes."""
    (_, _, log_prior), (on_val, z) = biased(seed), biased_logits(seed)
    val, z = accuracy(on_val - factor * log_prior, VAL.y), z - factor * log_prior
    return {"val": val, **by_class(z, TEST, log_prior)}


def correction() -> None:
    about = "Accuracy (%) of biased teachers, logits less factor · log shares; classes as in 08_fairness; seeds 0 to 9"
    settings = [{"factor": f, "seed": s} for s in REPORTED for f in (0.5, 1.0, 1.5, 2.0, 2.5)]
    run_all("08_correction", about, settings, corrected_one)


def multiple_one(factor: float, lr: float, seed: int, loss=None, T: float = 1.0) -> dict:
    """A student of the teacher's logits, divided by T, less `factor` times the log shares; classes as in `by_class`."""
    (mine, teacher, log_prior), part = biased(seed), part_of(seed)
    v, student = teacher_logits(teacher, mine.x), ConvNet(4, dropout=0.0, seed=seed)
    fit(student, mine, loss or soft(4), v / T - factor * log_prior, steps=300, lr=lr, seed=seed)
    z = teacher_logits(student, part.x)
    return by_class(z, part, log_prior)


def multiples() -> None:
    """What suits the teacher itself (08_correction: 1.5 to 2), tried on its student."""
    about = "Accuracy (%) as 08_fairness, of students taught logits less factor · log shares; seeds 0 to 9"
    for factor in (1.5, 2.0):
        rates = {"lr": (0.01, 0.03, 0.1)}
        choose_then_report("08_multiples", about, multiple_one, "accuracy", rates, factor=factor)


def both_one(factor: float, lr: float, seed: int, T: float = 1.0) -> dict:
    """As `multiple_one`, with the student's own labels at half weight beside the corrected logits."""
    return multiple_one(factor, lr, seed, partial(distillation_loss, T=4, alpha=0.5), T)


def both() -> None:
    """A corrected teacher and labels, half each: does it beat the labels alone?"""
    about = (
        "Accuracy (%) as 08_fairness, of labels and logits less factor · log shares, half each; seeds 0 to 9"
    )
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    for factor in (1.0, 1.5):
        choose_then_report("08_both", about, both_one, "accuracy", rates, factor=factor)


# --------------------------------------------------------------------- is it the teacher's confidence, or its skew?


def own_temperature(logits: Tensor, log_prior: Tensor, y: Tensor | None = None) -> float:
    """The T that fits its logits to labels (validation) as unequal as the teacher's own: weighed by class shares."""
    y = VAL.y if y is None else y
    weight = log_prior.exp()[y].double()
    scales = torch.logspace(-1, 1, 401, dtype=torch.float64)
    of_label = [(logits.double() / T).log_softmax(-1)[range(len(y)), y] for T in scales]
    return scales[torch.stack([-(weight * x).mean() for x in of_label]).argmin()].item()


def sure_one(factor: float, seed: int) -> dict:
    """The teacher itself: its logits divided by the T that fits them, then less `factor` times the log shares."""
    (_, _, log_prior), (on_val, z) = biased(seed), biased_logits(seed)
    T = own_temperature(on_val, log_prior)
    on_val, z = on_val / T - factor * log_prior, z / T - factor * log_prior
    found = by_class(z, TEST, log_prior)
    return {"T": T, "val": accuracy(on_val, VAL.y), "accuracy": found["accuracy"], "c0": found["c0"]}


def sure() -> None:
    about = "Accuracy (%) of biased teachers, logits / fitted T less factor · log shares; seeds 0 to 9"
    settings = [{"factor": f, "seed": s} for s in REPORTED for f in (0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)]
    run_all("08_sure", about, settings, sure_one)


def calibrated_one(learns_from: str, lr: float, seed: int) -> dict:
    """A student of the teacher, calibrated and then corrected with factor 1, with labels at half weight or without."""
    T = own_temperature(biased_logits(seed)[0], biased(seed)[2])
    one = multiple_one if learns_from == "answers" else both_one
    return one(1.0, lr, seed, T=T)


def calibrated() -> None:
    about = "Accuracy (%) as 08_fairness, of students of logits / fitted T less log shares; seeds 0 to 9"
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    for learns_from in ("answers", "answers and labels"):
        choose_then_report("08_calibrated", about, calibrated_one, "accuracy", rates, learns_from=learns_from)


# ----------------------------------------------------------------------------- how many labels does calibrating take?


def few_labels_T(labels: int, seed: int) -> float:
    """The teacher's fitted temperature, by labels of the student's own images, the same number of every class."""
    mine, teacher, log_prior = biased(seed)
    of_each = [(mine.y == c).nonzero()[: labels // 10, 0] for c in range(10)]
    some = mine[torch.cat(of_each)]
    return own_temperature(teacher_logits(teacher, some.x), log_prior, some.y)


def few_one(labels: int, seed: int) -> dict:
    """The teacher itself: divided by the T that so many labels find, then less its log shares."""
    (_, _, log_prior), (_, z), T = biased(seed), biased_logits(seed), few_labels_T(labels, seed)
    found = by_class(z / T - log_prior, TEST, log_prior)
    return {"T": T, "accuracy": found["accuracy"], "c0": found["c0"]}


def own_labels_one(labels: int, learns_from: str, lr: float, seed: int) -> dict:
    """As `calibrated_one`, its T found by so many of the student's own labels."""
    one = multiple_one if learns_from == "answers" else both_one
    return one(1.0, lr, seed, T=few_labels_T(labels, seed))


def few() -> None:
    about = "Accuracy (%) of biased teachers, logits / T fitted to the student's own labels; seeds 0 to 9"
    settings = [{"labels": n, "seed": s} for s in REPORTED for n in (20, 50, 100, 200, 500, 1000)]
    run_all("08_few", about, settings, few_one)
    about = "Accuracy (%) as 08_fairness, of students as in 08_calibrated, T fitted to their own labels; seeds 0 to 9"
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    for labels, learns_from in ((1000, "answers and labels"), (100, "answers")):
        setting = {"labels": labels, "learns_from": learns_from}
        choose_then_report("08_own_labels", about, own_labels_one, "accuracy", rates, **setting)


@lru_cache(maxsize=16)
def even(seed: int):
    """The same student's images, and a ConvNet(16) that learnt on as many others as the biased one, evenly spread."""
    mine, tail, log_prior = biased_split(seed)
    others = [index[100:400] for index in of_each_class(seed)]
    index = torch.stack(others, 1).flatten()[: len(tail)]  # one of each class in turn
    teacher = ConvNet(16, seed=seed)
    fit(teacher, TRAIN[index], steps=300, lr=5e-3, seed=seed)
    return mine, teacher, log_prior


def even_one(kind: str, lr: float, seed: int) -> dict:
    (mine, teacher, log_prior), part = even(seed), part_of(seed)
    student = teacher
    if kind == "taught":
        student = ConvNet(4, dropout=0.0, seed=seed)
        fit(student, mine, soft(4), teacher_logits(teacher, mine.x), steps=300, lr=lr, seed=seed)
    z = teacher_logits(student, part.x)
    return by_class(z, part, log_prior)


def evenly() -> None:
    """The control: as many images for the teacher, spread evenly over the classes."""
    about = "Accuracy (%) as 08_fairness, teachers of as many images, all classes alike; seeds 0 to 9"
    run_all("08_even", about, [{"kind": "teacher", "lr": 0.0, "seed": s} for s in REPORTED], even_one)
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    choose_then_report("08_even", about, even_one, "accuracy", rates, kind="taught")


if __name__ == "__main__":
    following()
    fairness()
    correction()
    multiples()
    both()
    sure()
    calibrated()
    few()
    evenly()
    temperature()
    room()
