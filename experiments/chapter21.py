"""The long runs of chapter 21: labels that are few, rare or wrong, with the usual teacher and with one of the same data.

    python -m experiments.chapter21     # resumes where it stopped; about 20 minutes on one core

The learning rate of each student is chosen on validation with seeds 100 to 102; the rest is fixed. The reported
seeds, 0 to 9, meet the test images once. Seed s has its own initial weights, its own images and labels, and its own
teacher. A student is an MLP with 128 hidden units, a teacher a ConvNet(16).
"""

from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F

from companion.data import Split
from companion.metrics import accuracy
from companion.models import MLP, ConvNet
from companion.training import fit, hard_loss, teacher_logits
from experiments.chapter06 import BUILD, RATES, TEACHERS, TEST, TRAIN, VAL, measure, part_of, smoothed, soft
from experiments.common import choose_then_report


def few_one(per_class: int, loss: str, lr: float, seed: int) -> dict:
    images, student = TRAIN.sample(per_class, seed), BUILD["MLP"](seed=seed)
    losses = {"hard": hard_loss, "kd T=1": soft(1), "kd T=4": soft(4)}
    v = teacher_logits(TEACHERS[seed % 10], images.x)
    fit(student, images, losses[loss], v, steps=600, lr=lr, seed=seed)
    return measure(student, seed)


def few_labels() -> None:
    about = "Accuracy and worst class (%) of MLP(784, 128, 10), 600 steps, by labels a class; seeds 0 to 9"
    for n, loss in product((10, 30, 100, 300, 900), ("hard", "kd T=1", "kd T=4")):
        grid = {"lr": RATES["mlp"]}
        choose_then_report("21_few_labels", about, few_one, "accuracy", grid, per_class=n, loss=loss)


def long_tail(seed: int) -> Split:
    """500 images of one class, 5 of another, the rest between, geometrically; the seed deals the ranks."""
    generator = torch.Generator().manual_seed(seed)
    rank = torch.randperm(10, generator=generator)
    counts = (500 * 100 ** (-rank / 9)).round().int().tolist()
    order = torch.randperm(len(TRAIN), generator=generator)
    return TRAIN[torch.cat([order[TRAIN.y[order] == c][:n] for c, n in enumerate(counts)])]


@lru_cache(maxsize=16)
def tail_teacher(seed: int) -> ConvNet:
    """A ConvNet(16) that learned from the long tail itself, and knows the rare classes no better."""
    teacher = ConvNet(16, seed=seed)
    fit(teacher, long_tail(seed), steps=600, lr=5e-3, seed=seed)
    return teacher


def tail_student(loss: str, lr: float, seed: int) -> MLP:
    images, student = long_tail(seed), BUILD["MLP"](seed=seed)
    prior = (images.y.bincount(minlength=10) / len(images)).log()
    losses = {
        "hard": hard_loss,
        "balanced": lambda z, v, y: F.cross_entropy(z + prior, y),
        "kd": soft(4),
        "balanced kd": lambda z, v, y: soft(4)(z, v, y) + F.cross_entropy(z + prior, y),
        "tail kd": soft(4),
    }
    v = teacher_logits(tail_teacher(seed) if loss == "tail kd" else TEACHERS[seed % 10], images.x)
    fit(student, images, losses[loss], v, steps=600, lr=lr, seed=seed)
    return student


def tail_one(loss: str, lr: float, seed: int) -> dict:
    return measure(tail_student(loss, lr, seed), seed)


def ranks_one(loss: str, lr: float, seed: int) -> dict:
    """The student of 21_long_tail again: right answers (%) for each class, the commonest first."""
    part = {"val": VAL, "test": TEST}[part_of(seed)]
    logits = teacher_logits(tail_student(loss, lr, seed), part.x)
    common_first = long_tail(seed).y.bincount(minlength=10).argsort(descending=True).tolist()
    each = {
        f"rank{r}": accuracy(logits[part.y == c], part.y[part.y == c]) for r, c in enumerate(common_first)
    }
    return {"part": part_of(seed), "accuracy": accuracy(logits, part.y), **each}


def tail() -> None:
    about = "Test accuracy and worst class (%) of MLP(784, 128, 10) on a 100 : 1 long tail; seeds 0 to 9"
    each = "Right answers (%) of the students of 21_long_tail for each class, the commonest (rank 0) first"
    for loss in ("hard", "balanced", "kd", "balanced kd", "tail kd"):
        best = choose_then_report(
            "21_long_tail", about, tail_one, "accuracy", {"lr": RATES["mlp"]}, loss=loss
        )
        choose_then_report("21_tail_ranks", each, ranks_one, "accuracy", {"lr": (best["lr"],)}, loss=loss)


@lru_cache(maxsize=16)
def noisy(seed: int):
    """9,000 images, 40 % of them with a wrong label, and a ConvNet(16) that learned from just these."""
    images = TRAIN.sample(900, seed)
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(images), generator=generator) < 0.4
    other = (images.y + torch.randint(1, 10, images.y.shape, generator=generator)) % 10
    images = Split(images.x, other.where(wrong, images.y))
    teacher = ConvNet(16, seed=seed)
    fit(teacher, images, steps=600, lr=5e-3, seed=seed)
    return images, teacher


def noisy_one(teacher: str, loss: str, lr: float, seed: int) -> dict:
    (images, noisy_teacher), student = noisy(seed), BUILD["MLP"](seed=seed)
    v = teacher_logits(TEACHERS[seed % 10] if teacher == "clean" else noisy_teacher, images.x)
    losses = {
        "hard": hard_loss,
        "smoothed .1": smoothed(0.1),
        "smoothed .4": smoothed(0.4),
        "argmax": lambda z, v, y: hard_loss(z, None, v.argmax(-1)),
        "kd T=1": soft(1),
        "kd T=4": soft(4),
        "kd and labels": soft(4, 0.5),
    }
    fit(student, images, losses[loss], v, steps=600, lr=lr, seed=seed)
    return measure(student, seed, teacher_accuracy=measure(noisy_teacher, seed)["accuracy"])


def noise() -> None:
    about = "Accuracy and worst class (%) of MLP(784, 128, 10), 9000 images, 40 % wrong labels; seeds 0 to 9"
    methods = [("none", k) for k in ("hard", "smoothed .1", "smoothed .4")]
    answers = ("argmax", "kd T=1", "kd T=4", "kd and labels")
    methods += product(("noisy", "clean"), answers)
    for teacher, loss in methods:
        grid = {"lr": RATES["mlp"]}
        choose_then_report("21_noisy_labels", about, noisy_one, "accuracy", grid, teacher=teacher, loss=loss)


@lru_cache(maxsize=16)
def same_clean(seed: int) -> ConvNet:
    """A ConvNet(16) like the noisy teacher, of the same 9,000 images, with their right labels."""
    teacher = ConvNet(16, seed=seed)
    fit(teacher, TRAIN.sample(900, seed), steps=600, lr=5e-3, seed=seed)
    return teacher


def same_images_one(teacher: str, loss: str, lr: float, seed: int) -> dict:
    images, student = TRAIN.sample(900, seed), BUILD["MLP"](seed=seed)
    v = teacher_logits(same_clean(seed), images.x)
    fit(student, images, soft(4), v, steps=600, lr=lr, seed=seed)
    return measure(student, seed, teacher_accuracy=measure(same_clean(seed), seed)["accuracy"])


def same_images() -> None:
    """The control for 21_noisy_labels: a teacher of right labels that saw no image more than the student."""
    about = (
        "As 21_noisy_labels, taught by a ConvNet(16) that learned the right labels of the same 9000 images"
    )
    fixed = {"teacher": "clean same", "loss": "kd T=4"}
    choose_then_report("21_same_images", about, same_images_one, "accuracy", {"lr": RATES["mlp"]}, **fixed)


def told_one(situation: str, teacher: str, seed: int) -> dict:
    """What a student is told, in per cent: by its labels, and by a teacher's answers to the same images.

    On the long tail, the part that falls to the three rarest classes (answers at T = 4); with wrong labels, how often
    the label is right, and the class that the teacher names.
    """
    row, usual = {"part": part_of(seed)}, TEACHERS[seed % 10]
    if situation == "long tail":
        images = long_tail(seed)
        rare = images.y.bincount(minlength=10).argsort()[:3]
        v = teacher_logits(usual if teacher == "usual" else tail_teacher(seed), images.x)
        labels = torch.isin(images.y, rare).double().mean().item()
        answers = (v.double() / 4).softmax(-1)[:, rare].sum(-1).mean().item()
        return {**row, "labels": 100 * labels, "answers": 100 * answers}
    images, own = noisy(seed)
    true, v = TRAIN.sample(900, seed).y, teacher_logits(usual if teacher == "usual" else own, images.x)
    return {**row, "labels": 100 * (images.y == true).double().mean().item(), "answers": accuracy(v, true)}


def told() -> None:
    """Why the teachers of the long tail and of the wrong labels help, or do not."""
    about = (
        "Told by labels and by answers (%): of a long tail's three rarest classes; rightly, with wrong labels"
    )
    for situation, teacher in product(("long tail", "wrong labels"), ("usual", "own")):
        choose_then_report("21_told", about, told_one, "answers", {}, situation=situation, teacher=teacher)


# ------------------------------------------------------------------------------- teachers of the student's own data


@lru_cache(maxsize=32)
def own_few_teacher(per_class: int, seed: int) -> ConvNet:
    """A ConvNet(16) that learned the student's own few images, trained as the other teachers of own data are."""
    teacher = ConvNet(16, seed=seed)
    fit(teacher, TRAIN.sample(per_class, seed), steps=600, lr=5e-3, seed=seed)
    return teacher


def own_few_one(per_class: int, lr: float, seed: int) -> dict:
    images, student = TRAIN.sample(per_class, seed), BUILD["MLP"](seed=seed)
    teacher = own_few_teacher(per_class, seed)
    fit(student, images, soft(4), teacher_logits(teacher, images.x), steps=600, lr=lr, seed=seed)
    return measure(student, seed, teacher_accuracy=measure(teacher, seed)["accuracy"])


def own_few() -> None:
    """The control for 21_few_labels: a teacher that saw no more images than its student."""
    about = "As 21_few_labels at T = 4, taught by a ConvNet(16) of the student's own images"
    for n in (10, 100):
        choose_then_report("21_own_few", about, own_few_one, "accuracy", {"lr": RATES["mlp"]}, per_class=n)


def own_many_one(per_class: int, lr: float, seed: int) -> dict:
    """The teacher of few labels answers 9,000 images, most of them without a label."""
    images, student = TRAIN.sample(900, seed), BUILD["MLP"](seed=seed)
    v = teacher_logits(own_few_teacher(per_class, seed), images.x)
    fit(student, images, soft(4), v, steps=600, lr=lr, seed=seed)
    return measure(student, seed)


def own_many() -> None:
    """Few labels and many unlabelled images, which a teacher of the few answers."""
    about = "As 21_own_few, but the teacher of the few images answers 9,000"
    choose_then_report("21_own_many", about, own_many_one, "accuracy", {"lr": RATES["mlp"]}, per_class=10)


@lru_cache(maxsize=16)
def balanced_teacher(seed: int) -> ConvNet:
    """The teacher of the tail itself, with balanced labels: the same images, and no preference for the common."""
    teacher, images = ConvNet(16, seed=seed), long_tail(seed)
    prior = (images.y.bincount(minlength=10) / len(images)).log()
    fit(teacher, images, lambda z, v, y: F.cross_entropy(z + prior, y), steps=600, lr=5e-3, seed=seed)
    return teacher


def balanced_teacher_one(teacher: str, lr: float, seed: int) -> dict:
    images, student = long_tail(seed), BUILD["MLP"](seed=seed)
    of = balanced_teacher(seed)
    fit(student, images, soft(4), teacher_logits(of, images.x), steps=600, lr=lr, seed=seed)
    return measure(student, seed, teacher_accuracy=measure(of, seed)["accuracy"])


def balanced_teachers() -> None:
    """Does a teacher of the tail itself help once it no longer prefers the common classes?"""
    about = (
        "As 21_long_tail, loss kd, taught by a ConvNet(16) that learned the balanced labels of the same tail"
    )
    grid = {"lr": RATES["mlp"]}
    choose_then_report(
        "21_balanced_teacher", about, balanced_teacher_one, "accuracy", grid, teacher="balanced"
    )


@lru_cache(maxsize=16)
def halves(seed: int) -> torch.Tensor:
    """Answers (logits) to the 9,000 images of `noisy`, by two teachers: each learned one half and answers the other."""
    images, _ = noisy(seed)
    half = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)) % 2
    answers = torch.empty(len(images), 10)
    for mine in (0, 1):
        teacher = ConvNet(16, seed=seed + 1000 * mine)
        fit(teacher, images[half == mine], steps=600, lr=5e-3, seed=seed)
        answers[half != mine] = teacher_logits(teacher, images.x[half != mine])
    return answers


def halves_one(loss: str, lr: float, seed: int) -> dict:
    images, student = noisy(seed)[0], BUILD["MLP"](seed=seed)
    losses = {
        "argmax": lambda z, v, y: hard_loss(z, None, v.argmax(-1)),
        "kd T=1": soft(1),
        "kd T=4": soft(4),
    }
    fit(student, images, losses[loss], halves(seed), steps=600, lr=lr, seed=seed)
    return measure(student, seed)


def two_halves() -> None:
    """A noisy teacher asked only about images that it did not learn: its answers can't repeat their wrong labels."""
    about = (
        "As 21_noisy_labels, noisy teacher, but each half of the images is answered by a teacher of the other"
    )
    for loss in ("argmax", "kd T=1", "kd T=4"):
        choose_then_report("21_halves", about, halves_one, "accuracy", {"lr": RATES["mlp"]}, loss=loss)


def shares_one(teacher: str, seed: int) -> dict:
    """On images with a wrong label, mean shares (%) of an answer at T = 1; and how often its named class is right."""
    images, own = noisy(seed)
    true = TRAIN.sample(900, seed).y
    v = teacher_logits(own, images.x) if teacher == "own" else halves(seed)
    p, wrong = 100 * v.double().softmax(-1), images.y != true
    right = p.gather(1, true[:, None])[wrong].mean().item()
    label = p.gather(1, images.y[:, None])[wrong].mean().item()
    named = v.argmax(-1)
    return {
        "part": part_of(seed),
        "right": right,
        "wrong_label": label,
        "each_other": (100 - right - label) / 8,
        "named": accuracy(v, true),
        "names_label": 100 * (named == images.y)[wrong].double().mean().item(),
    }


def shares() -> None:
    """How much of an image's own wrong label comes back in the answer."""
    about = "Noisy teachers' answers (T = 1) to images with a wrong label: shares (%) of the right class and the label"
    for teacher in ("own", "halves"):
        choose_then_report("21_shares", about, shares_one, "named", {}, teacher=teacher)


# A wrong label is always the same other class: T-shirt → shirt → coat → pullover → T-shirt, sandal → sneaker → boot →
# sandal, trousers → dress → bag → trousers.
ALIKE = torch.tensor([6, 3, 0, 8, 2, 7, 4, 9, 1, 5])


@lru_cache(maxsize=16)
def mixed_up(seed: int):
    """As `noisy`, the same images and as many wrong labels, but each is the class `ALIKE` of the right one."""
    images = TRAIN.sample(900, seed)
    wrong = torch.rand(len(images), generator=torch.Generator().manual_seed(seed)) < 0.4
    images = Split(images.x, ALIKE[images.y].where(wrong, images.y))
    teacher = ConvNet(16, seed=seed)
    fit(teacher, images, steps=600, lr=5e-3, seed=seed)
    return images, teacher


def mixed_up_one(teacher: str, loss: str, lr: float, seed: int) -> dict:
    (images, own), student = mixed_up(seed), BUILD["MLP"](seed=seed)
    v, true = teacher_logits(own, images.x), TRAIN.sample(900, seed).y
    losses = {
        "hard": hard_loss,
        "argmax": lambda z, v, y: hard_loss(z, None, v.argmax(-1)),
        "kd T=1": soft(1),
        "kd T=4": soft(4),
    }
    fit(student, images, losses[loss], v, steps=600, lr=lr, seed=seed)
    return measure(student, seed, labels=accuracy(F.one_hot(images.y, 10), true), named=accuracy(v, true))


def mixed_ups() -> None:
    """Does the majority still mend wrong labels that are not drawn at random, but always the same other class?"""
    about = (
        "As 21_noisy_labels, but each wrong label is the class ALIKE; labels, named: right on the images (%)"
    )
    for teacher, loss in (("none", "hard"), ("own", "argmax"), ("own", "kd T=1"), ("own", "kd T=4")):
        grid = {"lr": RATES["mlp"]}
        choose_then_report("21_mixed_up", about, mixed_up_one, "accuracy", grid, teacher=teacher, loss=loss)


def tail_teacher_one(teacher: str, seed: int) -> dict:
    return measure(tail_teacher(seed), seed)


def tail_teachers() -> None:
    """How good is the own teacher of the long tail itself?"""
    about = "Accuracy and worst class (%) of the ConvNet(16) that taught the students of 21_long_tail, loss tail kd"
    choose_then_report("21_tail_teacher", about, tail_teacher_one, "accuracy", {}, teacher="own")


if __name__ == "__main__":
    few_labels()
    tail()
    noise()
    same_images()
    told()
    own_few()
    own_many()
    balanced_teachers()
    two_halves()
    shares()
    mixed_ups()
    tail_teachers()
