"""The long runs of chapter 20: students of a teacher that has hardly seen some classes, and what mends them.

    python -m experiments.chapter20     # resumes where it stopped; about 12 minutes on one core

Learning rates are chosen on validation with seeds 100 to 102; seeds 0 to 9 are reported on test. Seed s has
its own initial weights, its own images and its own teacher.
"""

from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from companion.data import Split
from companion.losses import distillation_loss
from companion.metrics import accuracy
from companion.models import ConvNet
from companion.training import fit, hard_loss, teacher_logits
from experiments.chapter08 import TEST, TRAIN, VAL, part_of, soft
from experiments.common import REPORTED, choose_then_report, run_all, stored


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


def fair_one(kind: str, lr: float, seed: int, of=biased) -> dict:
    """A student of the kind, or the teacher itself; classes as in `by_class`."""
    (mine, teacher, log_prior), part = of(seed), part_of(seed)
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
    run_all("20_fairness", about, [{"kind": "teacher", "lr": 0.0, "seed": s} for s in REPORTED], fair_one)
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    for kind in ("alone", "taught", "half labels", "corrected"):
        choose_then_report("20_fairness", about, fair_one, "accuracy", rates, kind=kind)


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
    about = "Accuracy (%) of biased teachers, logits less factor · log shares; classes as in 20_fairness; seeds 0 to 9"
    settings = [{"factor": f, "seed": s} for s in REPORTED for f in (0.5, 1.0, 1.5, 2.0, 2.5)]
    run_all("20_correction", about, settings, corrected_one)


def multiple_one(factor: float, lr: float, seed: int, loss=None, T: float = 1.0) -> dict:
    """A student of the teacher's logits, divided by T, less `factor` times the log shares; classes as in `by_class`."""
    (mine, teacher, log_prior), part = biased(seed), part_of(seed)
    v, student = teacher_logits(teacher, mine.x), ConvNet(4, dropout=0.0, seed=seed)
    fit(student, mine, loss or soft(4), v / T - factor * log_prior, steps=300, lr=lr, seed=seed)
    z = teacher_logits(student, part.x)
    return by_class(z, part, log_prior)


def multiples() -> None:
    """What suits the teacher itself (20_correction: 1.5 to 2), tried on its student."""
    about = "Accuracy (%) as 20_fairness, of students taught logits less factor · log shares; seeds 0 to 9"
    for factor in (1.5, 2.0):
        rates = {"lr": (0.01, 0.03, 0.1)}
        choose_then_report("20_multiples", about, multiple_one, "accuracy", rates, factor=factor)


def both_one(factor: float, lr: float, seed: int, T: float = 1.0) -> dict:
    """As `multiple_one`, with the student's own labels at half weight beside the corrected logits."""
    return multiple_one(factor, lr, seed, partial(distillation_loss, T=4, alpha=0.5), T)


def both() -> None:
    """A corrected teacher and labels, half each: does it beat the labels alone?"""
    about = (
        "Accuracy (%) as 20_fairness, of labels and logits less factor · log shares, half each; seeds 0 to 9"
    )
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    for factor in (1.0, 1.5):
        choose_then_report("20_both", about, both_one, "accuracy", rates, factor=factor)


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
    run_all("20_sure", about, settings, sure_one)


def calibrated_one(learns_from: str, lr: float, seed: int) -> dict:
    """A student of the teacher, calibrated and then corrected with factor 1, with labels at half weight or without."""
    T = own_temperature(biased_logits(seed)[0], biased(seed)[2])
    one = multiple_one if learns_from == "answers" else both_one
    return one(1.0, lr, seed, T=T)


def calibrated() -> None:
    about = "Accuracy (%) as 20_fairness, of students of logits / fitted T less log shares; seeds 0 to 9"
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    for learns_from in ("answers", "answers and labels"):
        choose_then_report("20_calibrated", about, calibrated_one, "accuracy", rates, learns_from=learns_from)


def reliability_one(answers: str, seed: int) -> dict:
    """How often the teacher is right where it is so sure, on test images weighed as unequally as its own.

    Its probabilities "as it is", "divided" by its fitted T, or "corrected": divided, then less the log shares, and
    measured on the test images as they are, evenly spread. Ten bins of confidence: the share of the images in it,
    the mean confidence and the accuracy, all in %; `T_even` is the temperature that evenly spread labels would fit.
    """
    (_, _, log_prior), (on_val, z) = biased(seed), biased_logits(seed)
    T = own_temperature(on_val, log_prior)
    T_even = own_temperature(on_val, torch.zeros(10))
    z = {"as it is": z, "divided": z / T, "corrected": z / T - log_prior}[answers].double()
    weight = (torch.zeros(10) if answers == "corrected" else log_prior).exp()[TEST.y].double()
    weight = weight / weight.sum()
    sure, said = z.softmax(-1).max(1)
    right = (said == TEST.y).double()
    place = (10 * sure).ceil().long().clamp(1, 10) - 1
    mass, conf, acc = (
        torch.zeros(10).double().index_add(0, place, weight * x) for x in (torch.ones_like(sure), sure, right)
    )
    found = {"T": T, "T_even": T_even, "ece": 100 * (conf - acc).abs().sum().item()}
    found["sure"], found["accuracy"] = 100 * conf.sum().item(), 100 * acc.sum().item()
    for b in range(10):
        here = mass[b].clamp(min=1e-12)
        found |= {
            f"share{b}": 100 * mass[b].item(),
            f"sure{b}": 100 * (conf[b] / here).item(),
            f"right{b}": 100 * (acc[b] / here).item(),
        }
    return found


def reliability() -> None:
    about = "Reliability (%) of biased teachers on test, weighed by their own shares (corrected: evenly); seeds 0 to 9"
    settings = [{"answers": a, "seed": s} for s in REPORTED for a in ("as it is", "divided", "corrected")]
    run_all("20_reliability", about, settings, reliability_one)


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
    run_all("20_few", about, settings, few_one)
    about = "Accuracy (%) as 20_fairness, of students as in 20_calibrated, T fitted to their own labels; seeds 0 to 9"
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    for labels, learns_from in ((1000, "answers and labels"), (100, "answers")):
        setting = {"labels": labels, "learns_from": learns_from}
        choose_then_report("20_own_labels", about, own_labels_one, "accuracy", rates, **setting)


@lru_cache(maxsize=16)
def even(seed: int):
    """The same student's images, and a ConvNet(16) that learnt on as many others as the biased one, evenly spread."""
    mine, tail, log_prior = biased_split(seed)
    others = [index[100:400] for index in of_each_class(seed)]
    index = torch.stack(others, 1).flatten()[: len(tail)]  # one of each class in turn
    teacher = ConvNet(16, seed=seed)
    fit(teacher, TRAIN[index], steps=300, lr=5e-3, seed=seed)
    return mine, teacher, log_prior


even_one = partial(fair_one, of=even)


def evenly() -> None:
    """The control: as many images for the teacher, spread evenly over the classes."""
    about = "Accuracy (%) as 20_fairness, teachers of as many images, all classes alike; seeds 0 to 9"
    run_all("20_even", about, [{"kind": "teacher", "lr": 0.0, "seed": s} for s in REPORTED], even_one)
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    choose_then_report("20_even", about, even_one, "accuracy", rates, kind="taught")


# ------------------------------------------------------------------------ whose mistakes does the blind student make?


def chosen_rate(name: str, **setting) -> float:
    """The learning rate of the reported runs of a setting."""
    rows = stored(name)
    for key, value in {"seed": 0, **setting}.items():
        rows = rows[rows[key] == value]
    return float(rows["lr"][0])


def told_one(kind: str, seed: int) -> dict:
    """On the rarest class (% of it): what the student's own images were told, and on test who is right of the two.

    `teacher` is the one that taught: with "recipe" it is calibrated by the student's labels and corrected.
    """
    mine, teacher, log_prior = biased(seed)
    T, factor, loss = 1.0, 0.0, soft(4)
    lr = chosen_rate("20_fairness", kind="alone" if kind == "alone" else "taught")
    if kind == "alone":
        loss = hard_loss
    if kind == "recipe":
        T, factor, loss = few_labels_T(1000, seed), 1.0, partial(distillation_loss, T=4, alpha=0.5)
        lr = chosen_rate("20_own_labels", labels=1000, learns_from="answers and labels")
    student = ConvNet(4, dropout=0.0, seed=seed)
    v = teacher_logits(teacher, mine.x) / T - factor * log_prior
    fit(student, mine, loss, v, steps=300, lr=lr, seed=seed)
    rare = int(log_prior.argmin())
    own, new = mine.y == rare, TEST.x[rare == TEST.y]
    said = teacher_logits(student, new).argmax(1)
    of_teacher = (teacher_logits(teacher, new) / T - factor * log_prior).argmax(1)
    right, told = said == rare, of_teacher == rare

    def share(x: Tensor) -> float:
        return 100 * x.double().mean().item()

    return {
        "told": share(v[own].argmax(1) == rare),
        "kept": share(teacher_logits(student, mine.x[own]).argmax(1) == rare),
        "both_right": share(right & told), "only_student": share(right & ~told),
        "only_teacher": share(~right & told), "same_word": share(~right & ~told & (said == of_teacher)),
        "other_word": share(~right & ~told & (said != of_teacher)),
    }  # fmt: skip


def told() -> None:
    about = (
        "On the teacher's rarest class, in % of its images: who is right, teacher or student; seeds 0 to 9"
    )
    settings = [{"kind": kind, "seed": s} for s in REPORTED for kind in ("taught", "alone", "recipe")]
    run_all("20_told", about, settings, told_one)


# ----------------------------------------------------------------------------- if the teacher's counts are not known


def labelled_offsets(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """T and one offset for each class, fitted together to labels of evenly spread images by their cross-entropy."""
    log_T, b = torch.zeros(1, requires_grad=True), torch.zeros(logits.shape[1], requires_grad=True)
    search = torch.optim.LBFGS([log_T, b], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        search.zero_grad()
        loss = F.cross_entropy(logits / log_T.exp() - b, y)
        loss.backward()
        return loss

    search.step(closure)
    return log_T.exp().detach(), b.detach()


def matched_offsets(logits: Tensor) -> Tensor:
    """Offsets with which the mean answer to evenly spread images is even; no label."""
    b = torch.zeros(logits.shape[1])
    for _ in range(500):
        b = b + ((logits - b).softmax(-1).mean(0) * logits.shape[1]).log()
    return b


def offsets(by: str, seed: int) -> tuple[float, Tensor]:
    """T and offsets of one way to do without the counts: "images", or so many labels, as many of every class."""
    mine, teacher, _ = biased(seed)
    if by == "images":
        return 1.0, matched_offsets(teacher_logits(teacher, mine.x))
    of_each = [(mine.y == c).nonzero()[: int(by) // 10, 0] for c in range(10)]
    some = mine[torch.cat(of_each)]
    T, b = labelled_offsets(teacher_logits(teacher, some.x), some.y)
    return T.item(), b


def unknown_one(by: str, seed: int) -> dict:
    """The teacher itself, without its counts; `off` is how far the offsets are from the log shares (mean of ten)."""
    (T, b), (_, _, log_prior), (_, z) = offsets(by, seed), biased(seed), biased_logits(seed)
    off = (b - b.mean() - log_prior + log_prior.mean()).abs().mean().item()
    return {"T": T, "off": off, **by_class(z / T - b, TEST, log_prior)}


def uncounted_one(by: str, lr: float, seed: int) -> dict:
    """A student of such a teacher: of its answers alone, or with its labels at half weight where labels fit it."""
    (mine, teacher, log_prior), (T, b), part = biased(seed), offsets(by, seed), part_of(seed)
    student = ConvNet(4, dropout=0.0, seed=seed)
    loss = soft(4) if by == "images" else partial(distillation_loss, T=4, alpha=0.5)
    fit(student, mine, loss, teacher_logits(teacher, mine.x) / T - b, steps=300, lr=lr, seed=seed)
    return by_class(teacher_logits(student, part.x), part, log_prior)


def unknown() -> None:
    about = (
        "Accuracy (%) as 20_fairness, of biased teachers less fitted offsets, by what fits them; seeds 0 to 9"
    )
    settings = [{"by": by, "seed": s} for s in REPORTED for by in ("images", "200", "1000")]
    run_all("20_unknown", about, settings, unknown_one)
    about = "Accuracy (%) as 20_fairness, of students of teachers as in 20_unknown; seeds 0 to 9"
    rates = {"lr": (0.001, 0.003, 0.01, 0.03, 0.1)}
    for by in ("images", "1000"):
        choose_then_report("20_uncounted", about, uncounted_one, "accuracy", rates, by=by)


if __name__ == "__main__":
    fairness()
    correction()
    multiples()
    both()
    sure()
    reliability()
    calibrated()
    few()
    evenly()
    told()
    unknown()
