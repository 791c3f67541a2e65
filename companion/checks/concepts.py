"""Exercises on the soft loss, the teacher's word, entropy, relations and wrong scores (chapters 1, 2 and 6)."""

import math
from collections.abc import Callable
from itertools import starmap

import torch
from torch import Tensor

from .. import losses
from ._compare import compare, random_cases


def number(count: Callable) -> Callable:
    """The same count, as a tensor."""
    return lambda *case: torch.tensor(float(count(*case)), dtype=torch.double)


def word_loss(attempt: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(logits_s, logits_t, y) → mean of −log q of the class that the teacher puts first."""

    def each(z, c):
        return -z.log_softmax(-1)[range(len(c)), c]

    compare(
        "word_loss", attempt, lambda z, v, y: each(z, v.argmax(-1)).mean(), random_cases(lambda z, v, y, T: (z, v, y)),
        {
            "these are the labels: the word is the class that the teacher puts first.":
                lambda z, v, y: each(z, y).mean(),
            "this is the student's own first class: take the teacher's.": lambda z, v, y: each(z, z.argmax(-1)).mean(),
            "teacher and student have changed places: the student's probability is asked for.":
                lambda z, v, y: each(v, z.argmax(-1)).mean(),
            "these are all the teacher's numbers: only its first class counts.":
                lambda z, v, y: -(v.softmax(-1) * z.log_softmax(-1)).sum(-1).mean(),
            "the sign is turned round: the loss is minus the logarithm.":
                lambda z, v, y: -each(z, v.argmax(-1)).mean(),
            "the logarithm is missing.": lambda z, v, y: -(-each(z, v.argmax(-1))).exp().mean(),
            "this is minus the student's logit: take the log of its softmax.":
                lambda z, v, y: -z[range(len(z)), v.argmax(-1)].mean(),
            "this is the sum over the images: take the mean.": lambda z, v, y: each(z, v.argmax(-1)).sum(),
            "the loss is one number: take the mean over the images.": lambda z, v, y: each(z, v.argmax(-1)),
        },
        student=0, teacher=1,
    )  # fmt: skip


def soft_loss_of(attempt: Callable[[list, list, float], float]) -> None:
    """Checks attempt(p, q, T) → T² Σ p log(p/q) of two lists of probabilities, eq-soft-loss."""

    def total(term):
        return lambda p, q: sum(starmap(term, zip(p, q, strict=True)))

    def softened(p, T):
        roots = [a ** (1 / T) for a in p]
        return [root / sum(roots) for root in roots]

    distance = total(lambda a, b: a * math.log(a / b))
    mistakes = {
        "the factor T² is missing.": lambda p, q, T: distance(p, q),
        "T where T² belongs.": lambda p, q, T: T * distance(p, q),
        "T² divides: multiply by it.": lambda p, q, T: distance(p, q) / T**2,
        "p and q have changed places: the weight is the teacher's p, and p stands over q.":
            lambda p, q, T: T**2 * distance(q, p),
        "the sign is turned round: in the logarithm p stands over q.":
            lambda p, q, T: -(T**2) * distance(p, q),
        "the weight is the teacher's p, not the student's q.": lambda p, q, T: -(T**2) * distance(q, p),
        "each logarithm needs its weight p.": lambda p, q, T: T**2 * total(lambda a, b: math.log(a / b))(p, q),
        "this is −Σ p log q: it is not 0 when the two agree. The logarithm is that of p/q.":
            lambda p, q, T: -(T**2) * total(lambda a, b: a * math.log(b))(p, q),
        "only the first class is counted: the return stands inside the loop.":
            lambda p, q, T: T**2 * distance(p[:1], q[:1]),
        "only the last class is counted: add the terms up.": lambda p, q, T: T**2 * distance(p[-1:], q[-1:]),
        "this is the mean over the classes: sum.": lambda p, q, T: T**2 * distance(p, q) / len(p),
        "p and q come in softened: no second T inside.":
            lambda p, q, T: T**2 * distance(softened(p, T), softened(q, T)),
        "these are bits: take the natural logarithm.": lambda p, q, T: T**2 * distance(p, q) / math.log(2),
        "take the natural logarithm, not that of base 10.":
            lambda p, q, T: T**2 * distance(p, q) / math.log(10),
    }  # fmt: skip
    cases = [
        ([1 / 2, 1 / 3, 1 / 6], [1 / 3, 1 / 3, 1 / 3], 4),
        ([81 / 98, 16 / 98, 1 / 98], [0.2, 0.5, 0.3], 1),
        ([0.1, 0.2, 0.3, 0.4], [0.35, 0.25, 0.25, 0.15], 2),
    ]
    compare(
        "soft_loss_of", attempt, number(lambda p, q, T: T**2 * distance(p, q)), cases,
        {hint: number(wrong) for hint, wrong in mistakes.items()},
    )  # fmt: skip


def entropy(attempt: Callable[[Tensor], Tensor]) -> None:
    """Checks attempt(p), p (N, C) → one number for each row, eq-entropy."""
    compare(
        "entropy", attempt, lambda p: -(p * p.log()).sum(-1), random_cases(lambda z, v, y, T: ((z / T).softmax(-1),)),
        {
            "the sign is missing: these logarithms are negative.": lambda p: (p * p.log()).sum(-1),
            "these are bits: take the natural logarithm.": lambda p: -(p * p.log2()).sum(-1),
            "this is the mean over the classes: sum.": lambda p: -(p * p.log()).mean(-1),
            "the sum runs over the examples: take dim=-1, the classes.": lambda p: -(p * p.log()).sum(0),
            "each logarithm needs its weight p.": lambda p: -p.log().sum(-1),
            "take the natural logarithm, not that of base 10.": lambda p: -(p * p.log10()).sum(-1),
            "one number per row is due, not the sum of all.": lambda p: -(p * p.log()).sum(),
            "one number per row is due, not their mean.": lambda p: -(p * p.log()).sum(-1).mean(),
            "the sum over the classes is missing.": lambda p: -(p * p.log()),
            "the shape is (N,): sum without keepdim.": lambda p: -(p * p.log()).sum(-1, keepdim=True),
            "probabilities come in: no softmax.": lambda p: -(p.softmax(-1) * p.log_softmax(-1)).sum(-1),
        },
    )  # fmt: skip


def same_image(attempt: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(a, b, y), logits (N, C) of two teachers → mean correlation of the wrong scores less label means."""
    generator = torch.Generator().manual_seed(2)
    cases = []
    for n, classes in [(24, 4), (30, 5), (42, 6)]:
        y = torch.arange(n).remainder(classes)[torch.randperm(n, generator=generator)]
        of_label, of_image, one, other = torch.randn(4, n, classes, generator=generator, dtype=torch.double)
        both = 2 * of_label[y] + of_image + 3  # what all of a label share, and what is said of this image
        cases.append((both + 0.7 * one, 1.5 * both + 0.7 * other, y))

    def wrong(v, y):
        return v[~torch.nn.functional.one_hot(y, v.shape[1]).bool()].view(len(v), -1)

    def means(rows, y):
        return torch.stack([rows[y == c].mean(0) for c in y])

    def left(v, y):
        return wrong(v, y) - means(wrong(v, y), y)

    def centred(rows):
        return rows - rows.mean(-1, keepdim=True)

    def each(f, g):
        return torch.cosine_similarity(centred(f), centred(g), dim=-1)

    compare(
        "same_image", attempt, lambda a, b, y: each(left(a, y), left(b, y)).mean(), cases,
        {
            "these are the scores themselves: subtract their mean over the images with the same label.":
                lambda a, b, y: each(wrong(a, y), wrong(b, y)).mean(),
            "the target is still there: take the wrong scores alone.":
                lambda a, b, y: each(a - means(a, y), b - means(b, y)).mean(),
            "the mean is that over the images with the same label, not over all.":
                lambda a, b, y: each(wrong(a, y) - wrong(a, y).mean(0), wrong(b, y) - wrong(b, y).mean(0)).mean(),
            "both teachers need the subtraction.": lambda a, b, y: each(left(a, y), wrong(b, y)).mean(),
            "from each teacher's scores go that teacher's own means.":
                lambda a, b, y: each(left(a, y), wrong(b, y) - means(wrong(a, y), y)).mean(),
            "a cosine is a correlation only of rows with the mean 0: shift each row first.":
                lambda a, b, y: torch.cosine_similarity(left(a, y), left(b, y), dim=-1).mean(),
            "this is one correlation over all images at once: take that of each image, then the mean.":
                lambda a, b, y: torch.cosine_similarity(
                    centred(left(a, y)).flatten(), centred(left(b, y)).flatten(), dim=0),
            "the mean over the images is missing.": lambda a, b, y: each(left(a, y), left(b, y)),
        },
    )  # fmt: skip


def relations(attempt: Callable[[Tensor], Tensor]) -> None:
    """Checks attempt(f), features (N, d) → cosines of all pairs of rows less their mean (N, N), eq-gram."""

    def cosines(f):
        unit = torch.nn.functional.normalize(f, dim=-1)
        return unit @ unit.T

    generator = torch.Generator().manual_seed(3)
    cases = [
        (torch.tensor([[5.0, 6], [6, 5], [1, 1]], dtype=torch.double),),
        *(
            (torch.randn(n, d, generator=generator, dtype=torch.double) + 2,)
            for n, d in [(5, 7), (6, 3), (4, 4)]
        ),
    ]
    compare(
        "relations", attempt, lambda f: cosines(f - f.mean(0)), cases,
        {
            "the mean over the images is still there: subtract it first.": cosines,
            "the mean is that over the images, dim=0, one number for each feature.":
                lambda f: cosines(f - f.mean(-1, keepdim=True)),
            "these are products: divide by both lengths.": lambda f: (f - f.mean(0)) @ (f - f.mean(0)).T,
            "the lengths are those of the rows less the mean.":
                lambda f: (f - f.mean(0)) @ (f - f.mean(0)).T / (f.norm(dim=-1) * f.norm(dim=-1)[:, None]),
            "these are pairs of features: one row and one column are due for each image.":
                lambda f: cosines((f - f.mean(0)).T),
            "these are distances: take the cosine.": lambda f: torch.cdist(f, f),
        },
    )  # fmt: skip


def transfer_information(attempt: Callable[[Tensor], Tensor]) -> None:
    """Checks attempt(logits_t) → entropy of the mean answer − mean entropy, eq-transfer-information."""
    generator = torch.Generator().manual_seed(4)
    random = torch.randn(6, 5, generator=generator, dtype=torch.double) * 3
    sure = torch.eye(5, dtype=torch.double)[:3] * 2000

    def entropy(p):
        return torch.special.entr(p).sum(-1)

    def parts(v, answers=losses.soften):
        return entropy(answers(v).mean(0)), entropy(answers(v)).mean()

    def unsafe(p):
        return -(p * p.log()).sum(-1)

    compare(
        "transfer_information", attempt, lambda v: parts(v)[0] - parts(v)[1],
        [(random,), (random[:2],), (sure,)],
        {
            "this is the mean entropy alone: how unsure the teacher is of each answer.":
                lambda v: parts(v)[1],
            "this is the entropy of the mean answer alone: an unsure teacher scores high too.":
                lambda v: parts(v)[0],
            "the sign is turned round: information is not negative.": lambda v: parts(v)[1] - parts(v)[0],
            "this is in bits: take the natural logarithm.":
                lambda v: (parts(v)[0] - parts(v)[1]) / math.log(2),
            "the logits are averaged: average the probabilities.":
                lambda v: entropy(losses.soften(v.mean(0))) - parts(v)[1],
            "0 · log 0 is NaN for a sure teacher: torch.special.entr(p) gives −p log p with 0 at p = 0.":
                lambda v: unsafe(losses.soften(v).mean(0)) - unsafe(losses.soften(v)).mean(),
            "the mean runs over the classes: average over the examples, dim=0.":
                lambda v: entropy(losses.soften(v).mean(-1)) - parts(v)[1],
        },
    )  # fmt: skip
