"""The long runs of chapter 5: function matching on 100 labels, controls, and what labels do to the gain.

    python -m experiments.chapter05     # resumes where it stopped; about an hour and a quarter on one core

Learning rate and jitter of every condition are chosen on validation with seeds 100 to 102: for the labels' baseline
over all pairs of the two, for the teacher's sides the learning rate first (at a jitter of 2), then the jitter. The
reported seeds, 0 to 9, meet the test images once. Seed s has its own initial weights, its own 100 images and its own
teacher.
"""

from functools import partial
from itertools import product

import numpy as np
import torch

from companion.data import Split, fashion, fashion_teacher
from companion.losses import distillation_loss, kd_loss
from companion.metrics import accuracy, calibration_error
from companion.models import ConvNet
from companion.training import fit, hard_loss, jitter, teacher_logits
from experiments.common import REPORTED, TUNING, run_all, stored

RATES, SHIFTS = (0.01, 0.03, 0.1), (0, 1, 2, 3, 4)
MORE_RATES = (*RATES, 0.3)  # where 0.1 came out best, or might have
LOWER_RATES = (0.0003, 0.001, 0.003)  # and where 0.01 did: long runs on the labels of views
MATCHING_STEPS = 3000
FEWER = range(5)  # of the reported seeds, where the machine was busy
torch.set_num_threads(1)
TRAIN, VAL, TEST = fashion("train"), fashion("val"), fashion("test")
TEACHERS = [fashion_teacher(i) for i in range(10)]


def soft(logits_s, logits_t, y):
    return kd_loss(logits_s, logits_t, T=4)


def teacher_argmax(logits_s, logits_t, y):
    """Hard labels again, but the teacher's, asked anew for each view."""
    return hard_loss(logits_s, None, logits_t.argmax(-1))


def right_names(logits_s, logits_t, y):
    """The teacher's named class again, but only on the views where it is the label's."""
    names = logits_t.argmax(-1)
    return hard_loss(logits_s, None, names.where(names == y, -100))


def wrong_names(logits_s, logits_t, y):
    """And only on those where it is not: every name that this student hears is wrong."""
    names = logits_t.argmax(-1)
    return hard_loss(logits_s, None, names.where(names != y, -100))


LOSSES = {
    "hard": hard_loss,
    "argmax": teacher_argmax,
    "kd": soft,
    "both": partial(distillation_loss, T=4, alpha=0.9),
}
PARTS = {"right": right_names, "wrong": wrong_names}


def train_one(loss: str, seed: int, per_class: int, steps: int, lr: float, shift: int) -> dict:
    return measure(trained(loss, seed, per_class, steps, lr, shift)[0], seed)


def trained(loss: str, seed: int, per_class: int, steps: int, lr: float, shift: int):
    """A student and the images that it learned from."""
    student = ConvNet(4, dropout=0.0, seed=seed)
    images = TRAIN.sample(per_class, seed)
    teacher = None if loss == "hard" else TEACHERS[seed % 10]
    if teacher is not None and shift == 0:
        teacher = teacher_logits(teacher, images.x)
    transform = jitter(shift) if shift else None
    fit(student, images, (LOSSES | PARTS)[loss], teacher, steps=steps, lr=lr, seed=seed, transform=transform)
    return student, images


def places(images: Split, k: int) -> Split:
    """Each image in all (2k + 1)² places to which it can be rolled by up to k pixels."""
    moves = list(product(range(-k, k + 1), repeat=2))
    return Split(torch.cat([images.x.roll(move, (2, 3)) for move in moves]), images.y.repeat(len(moves)))


def fitted_one(loss: str, seed: int, steps: int, lr: float, shift: int) -> dict:
    """As train_one on ten images of each class; own, views: of its images, of all their views, named as labelled."""
    student, images = trained(loss, seed, 10, steps, lr, shift)
    views = places(images, shift)
    return {
        **measure(student, seed),
        "own": accuracy(teacher_logits(student, images.x), images.y),
        "views": accuracy(teacher_logits(student, views.x), views.y),
    }


def measure(student, seed: int) -> dict:
    """Validation while choosing, test once chosen; the other is left empty so that nobody looks."""
    part: Split = VAL if seed in TUNING else TEST
    logits = teacher_logits(student, part.x)
    return {
        "part": "val" if part is VAL else "test",
        "accuracy": accuracy(logits, part.y),
        "ece": calibration_error(logits, part.y),
    }


def validation(rows: np.ndarray, **where) -> float:
    """Mean validation accuracy of the tuning rows that match."""
    rows = rows[(rows["part"] == "val") & np.all([rows[k] == v for k, v in where.items()], axis=0)]
    return rows["accuracy"].mean()


def best(rows: np.ndarray, key: str, **where):
    """The value of `key` with the highest mean validation accuracy among the tuning rows that match."""
    tried = rows[(rows["part"] == "val") & np.all([rows[k] == v for k, v in where.items()], axis=0)][key]
    return max(np.unique(tried).tolist(), key=lambda value: validation(rows, **where, **{key: value}))


def function_matching() -> None:
    name = "05_function_matching"
    about = "Test accuracy and ECE (%) of ConvNet(4) on 100 images; teachers ConvNet(16); seeds 0 to 9"

    def run(loss, lrs, shifts, seeds):
        grid = [
            {"loss": loss, "seed": seed, "per_class": 10, "steps": MATCHING_STEPS, "lr": lr, "shift": shift}
            for lr in lrs
            for shift in shifts
            for seed in seeds
        ]
        return run_all(name, about, grid, train_one)

    for loss in LOSSES:
        if loss == "hard":  # the baseline gets the whole grid
            rates = (*LOWER_RATES, *RATES)
            rows, pairs = run(loss, rates, SHIFTS, TUNING), product(rates, SHIFTS)
            _, shift = max(pairs, key=lambda pair: validation(rows, loss="hard", lr=pair[0], shift=pair[1]))
            lr = best(run(loss, (*rates, 0.3), [shift], TUNING), "lr", loss=loss, shift=shift)
        else:
            lr = best(run(loss, RATES, [2], TUNING), "lr", loss=loss, shift=2)
            shift = best(run(loss, [lr], SHIFTS, TUNING), "shift", loss=loss, lr=lr)
        run(loss, [lr], [shift], REPORTED)
        print(f"{loss}: lr {lr}, shift {shift}")
    lr = best(run("kd", MORE_RATES, [0], TUNING), "lr", loss="kd", shift=0)
    run("kd", [lr], [0], REPORTED)


def labels_alone() -> None:
    """The labels' side without views, where function_matching() chose views: what the longer training alone gives."""
    name = "05_labels_alone"
    about = "Accuracy and ECE (%) of ConvNet(4) on 100 images and their labels, 3,000 steps, no views; seeds 0 to 9"
    lr = best(stored("05_function_matching"), "lr", loss="hard", shift=0)
    setting = {"loss": "hard", "per_class": 10, "steps": MATCHING_STEPS, "lr": lr, "shift": 0}
    run_all(name, about, [{**setting, "seed": seed} for seed in REPORTED], train_one)


def targets(control: str, p, seed: int):
    """The teacher's probabilities p (N, 10) with their dark mass, that of the classes it does not name, changed."""
    top = p.argmax(-1)
    own = torch.nn.functional.one_hot(top, 10).bool()
    if control == "permuted":  # each row's wrong classes in an order of its own
        noise = torch.rand(p.shape, generator=torch.Generator().manual_seed(seed)).masked_fill(own, -1)
        order, places = noise.argsort(-1), (~own).double().argsort(dim=-1, stable=True)
        return torch.zeros_like(p).scatter(-1, places, p.gather(-1, order))
    if control == "swapped":  # wrong neighbours, the same for all images of a class
        noise = torch.rand((10, 10), generator=torch.Generator().manual_seed(seed))
        orders = noise.masked_fill(torch.eye(10).bool(), -1).argsort(-1)[top]  # a class itself stands first
        places = (~own).double().argsort(dim=-1, stable=True)
        return torch.zeros_like(p).scatter(-1, places, p.gather(-1, orders))
    if control == "uniform":
        return p.where(own, (1 - p.amax(-1, keepdim=True)) / 9)
    if control == "class mean":  # the average soft target of the images on which it names the same class
        return torch.stack([p[top == c].mean(0) for c in top])
    if control == "class neighbours":  # as sure as for this image, the rest divided as in that average
        mean = torch.stack([p[top == c].mean(0) for c in top]).masked_fill(own, 0)
        rest = 1 - p.amax(-1, keepdim=True)
        return p.where(own, rest * mean / mean.sum(-1, keepdim=True))
    return p


def control_one(control: str, seed: int, lr: float) -> dict:
    return measure(controlled(control, seed, lr), seed)


def controlled(control: str, seed: int, lr: float) -> ConvNet:
    """A student of one of the controls."""
    images, student = TRAIN.sample(10, seed), ConvNet(4, dropout=0.0, seed=seed)
    v = teacher_logits(TEACHERS[seed % 10], images.x)
    loss, teacher = soft, 4 * targets(control, (v / 4).softmax(-1), seed).log()
    if control in ("labels", "smoothed", "argmax"):
        epsilon, teacher = 0.1 * (control == "smoothed"), None
        loss = partial(smoothed_loss, epsilon=epsilon)
    if control == "argmax":
        images = Split(images.x, v.argmax(-1))
    fit(student, images, loss, teacher, steps=400, lr=lr, seed=seed)
    return student


def smoothed_loss(logits_s, logits_t, y, epsilon):
    return torch.nn.functional.cross_entropy(logits_s, y, label_smoothing=epsilon)


def controls() -> None:
    """What it is in the soft targets that teaches."""
    about = "Accuracy and ECE (%) of ConvNet(4) on 100 images, 400 steps, by what it is taught; seeds 0 to 9"
    changed = ("soft", "permuted", "swapped", "uniform", "class mean", "class neighbours")
    for control in ("labels", "smoothed", "argmax", *changed):

        def run(lrs, seeds, control=control):
            grid = [{"control": control, "seed": s, "lr": lr} for lr in lrs for s in seeds]
            return run_all("05_controls", about, grid, control_one)

        run([best(run(MORE_RATES, TUNING), "lr", control=control)], REPORTED)


def tempered_one(control: str, T: float, seed: int, lr: float) -> dict:
    return measure(tempered(control, T, seed, lr), seed)


def tempered(control: str, T: float, seed: int, lr: float) -> ConvNet:
    """As controlled, at another temperature: of the targets and of the loss."""
    images, student = TRAIN.sample(10, seed), ConvNet(4, dropout=0.0, seed=seed)
    p = (teacher_logits(TEACHERS[seed % 10], images.x).double() / T).softmax(-1)
    answers = (T * targets(control, p, seed).log()).float()
    fit(student, images, partial(soft_at, T=T), answers, steps=400, lr=lr, seed=seed)
    return student


def soft_at(logits_s, logits_t, y, T):
    return kd_loss(logits_s, logits_t, T=T)


def temperatures() -> None:
    """How much harm the permuted targets do, by T; T = 4 is in 05_controls."""
    about = "Accuracy and ECE (%) of ConvNet(4) on 100 images, 400 steps, soft or permuted targets at T; seeds 0 to 9"
    for control, T in product(("permuted", "soft"), (1.0, 2.0)):

        def run(lrs, seeds, control=control, T=T):
            grid = [{"control": control, "T": T, "seed": s, "lr": lr} for lr in lrs for s in seeds]
            return run_all("05_permuted", about, grid, tempered_one)

        run([best(run(RATES, TUNING), "lr", control=control, T=T)], REPORTED)


def labels() -> None:
    """How the gain of plain distillation falls as the labels grow; with most of them, labels beside the teacher, too."""
    name = "05_labels"
    about = "Accuracy and ECE (%) of ConvNet(4) on 10 · per_class images; seeds 0 to 9"
    for per_class in (10, 100, 900):
        for loss in ("hard", "kd", "both") if per_class == 900 else ("hard", "kd"):

            def run(lrs, seeds, loss=loss, per_class=per_class):
                grid = [
                    {"loss": loss, "seed": s, "per_class": per_class, "steps": 1500, "lr": lr, "shift": 0}
                    for lr in lrs
                    for s in seeds
                ]
                return run_all(name, about, grid, train_one)

            lr = best(run(RATES, TUNING), "lr", loss=loss, per_class=per_class)
            run([lr], REPORTED)


def views_of_a_thousand() -> None:
    """The labels' side with 1,000 images and shifted copies, as long as the 100 had: what the answers to views meet."""
    name = "05_thousand"
    about = "Accuracy and ECE (%) of ConvNet(4) on 1,000 images and their labels, 3,000 steps, shifted; seeds 0 to 9"

    def run(lrs, shifts, seeds):
        grid = [
            {
                "loss": "hard",
                "seed": seed,
                "per_class": 100,
                "steps": MATCHING_STEPS,
                "lr": lr,
                "shift": shift,
            }
            for lr in lrs
            for shift in shifts
            for seed in seeds
        ]
        return run_all(name, about, grid, train_one)

    rates, shifts = (*LOWER_RATES, *RATES), (0, 1, 2, 3)
    rows, pairs = run(rates, shifts, TUNING), product(rates, shifts)
    lr, shift = max(pairs, key=lambda pair: validation(rows, lr=pair[0], shift=pair[1]))
    run([lr], [shift], REPORTED)


def names_in_parts() -> None:
    """Views rolled by up to four pixels, as in function_matching, and of the teacher's names only a part."""
    name = "05_names"
    about = "Accuracy and ECE (%) of ConvNet(4) on 100 images, views and a part of the names; seeds 0 to 9"
    for loss in PARTS:

        def run(lrs, seeds, loss=loss):
            setting = {"per_class": 10, "steps": MATCHING_STEPS, "shift": 4}
            grid = [{"loss": loss, "seed": s, "lr": lr, **setting} for lr in lrs for s in seeds]
            return run_all(name, about, grid, train_one)

        rates = RATES if loss == "right" else (0.03,)  # the rate that all names chose
        lr = best(run(rates, TUNING), "lr", loss=loss) if len(rates) > 1 else rates[0]
        run([lr], REPORTED)


def fitted() -> None:
    """Do true labels of views ask too much of a small student, or does it know its images by heart?"""
    name = "05_fitted"
    about = "Accuracy and ECE (%) of ConvNet(4) on 100 images, 3,000 steps, k = 4; own, views: see fitted_one"
    setting = {"steps": MATCHING_STEPS, "shift": 4}
    matched, names = stored("05_function_matching"), stored("05_names")
    of_names = matched[(matched["loss"] == "argmax") & (matched["part"] == "test")]["lr"][0].item()
    rates = {
        "hard": best(matched, "lr", loss="hard", shift=4),
        "right": best(names, "lr", loss="right"),
        "argmax": of_names,
    }
    grid = [{"loss": loss, "seed": s, "lr": lr, **setting} for s in FEWER for loss, lr in rates.items()]
    run_all(name, about, grid, fitted_one)


def from_validation(seed: int, lr: float, steps: int) -> dict:
    """A student of 4,000 of the validation images' labels; the other 1,000 choose its rate."""
    order = torch.randperm(len(VAL), generator=torch.Generator().manual_seed(seed))
    student = ConvNet(4, dropout=0.0, seed=seed)
    fit(student, VAL[order[:4000]], hard_loss, steps=steps, lr=lr, seed=seed)
    part = VAL[order[4000:]] if seed in TUNING else TEST
    logits = teacher_logits(student, part.x)
    return {"part": "test" if part is TEST else "val", "accuracy": accuracy(logits, part.y)}


def labels_at_hand() -> None:
    """The obvious objection: whoever has 5,000 labels to choose by can train on most of them."""
    about = "Accuracy (%) of ConvNet(4) on 4,000 of the validation images and their labels; seeds 0 to 9"

    def run(lrs, seeds):
        grid = [{"seed": s, "lr": lr, "steps": 1500} for lr in lrs for s in seeds]
        return run_all("05_validation", about, grid, from_validation)

    run([best(run(RATES, TUNING), "lr")], REPORTED)


def more_pairs() -> None:
    """Ten further pairs for the comparison that ten leave wide; rates as controls() chose them."""
    about = "Accuracy and ECE (%) as in 05_controls, ten further seeds, 10 to 19"
    chosen = stored("05_controls")
    for control in ("soft", "class mean"):
        lr = best(chosen, "lr", control=control)
        grid = [{"control": control, "seed": s, "lr": lr} for s in range(10, 20)]
        run_all("05_more_pairs", about, grid, control_one)


if __name__ == "__main__":
    controls()
    temperatures()
    function_matching()
    labels_alone()
    labels()
    views_of_a_thousand()
    names_in_parts()
    fitted()
    labels_at_hand()
    more_pairs()
