"""Exercises on size and information (chapters 1, 2 and 6)."""

import math
from collections.abc import Callable
from itertools import pairwise, starmap

import torch
from torch import Tensor

from .. import losses
from ._compare import compare, random_cases


def cost(attempt: Callable, what: str, name: str | None = None) -> None:
    """Checks "bytes": attempt(n, bits), eq-bytes; "parameters": attempt(sizes of an MLP), eq-layer-parameters."""

    def layers(each):
        return lambda sizes: sum(starmap(each, pairwise(sizes)))

    right, cases, mistakes = {
        "bytes": (lambda n, bits: n * bits / 8, [(4166, 32), (33914, 16), (1000, 4)], {
            "these are bits: eight of them are one byte.": lambda n, bits: n * bits,
            "more bits take more bytes: multiply by them.": lambda n, bits: n * 8 / bits,
            "four bytes per number is right for 32 bits only.": lambda n, bits: n * 4,
            "these are kilobytes: leave out the division by 1000 or 1024.": lambda n, bits: n * bits / 8000,
            "the bits do not enter: a number takes bits / 8 bytes.": lambda n, bits: n / 8,
        }),
        "parameters": (layers(lambda a, b: a * b + b), [((784, 128, 10),), ((64, 10),), ((5, 4, 3, 2),)], {
            "the biases are missing: one for each unit that a layer leads to.": layers(lambda a, b: a * b),
            "a bias belongs to a unit that a layer leads to, not to an input: a·b + b.":
                layers(lambda a, b: a * b + a),
            "one bias per layer is too few: each unit it leads to has one.": layers(lambda a, b: a * b + 1),
            "only the first layer is counted: take all neighbours in sizes.": lambda s: s[0] * s[1] + s[1],
            "only the last layer is counted: take all neighbours in sizes.": lambda s: s[-2] * s[-1] + s[-1],
            "the input has no biases: they belong to the units that a layer leads to.":
                lambda s: layers(lambda a, b: a * b + b)(s) + s[0],
        }),
    }[what]  # fmt: skip

    def number(count):
        return lambda *case: torch.tensor(float(count(*case)))

    compare(
        name or what, attempt, number(right), cases, {hint: number(wrong) for hint, wrong in mistakes.items()}
    )


def information(attempt: Callable, what: str, name: str | None = None) -> None:
    """Checks "entropy": attempt(p), eq-entropy; "dark": attempt(logits, y, T) → (N, C), eq-dark-knowledge."""

    def own(v, y):
        return torch.nn.functional.one_hot(y, v.shape[-1]).bool()

    def dark(v, y, T):
        return (v / T).masked_fill(own(v, y), -math.inf).softmax(-1)

    right, cases, mistakes = {
        "entropy": (lambda p: -(p * p.log()).sum(-1), lambda z, v, y, T: ((z / T).softmax(-1),), {
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
        }),
        "dark": (dark, lambda z, v, y, T: (v, y, T), {
            "the target is still there: its share is 0.": lambda v, y, T: (v / T).softmax(-1),
            "the shares do not sum to 1: divide by what is left without the target.":
                lambda v, y, T: (v / T).softmax(-1).masked_fill(own(v, y), 0),
            "T has no effect: divide the logits by it, before the softmax.": lambda v, y, T: dark(v, y, 1),
            "T multiplies the logits: divide.": lambda v, y, T: dark(v, y, 1 / T),
            "the target's own entry is 0: divide the others by 1 − p of the target, and set that one to 0.":
                lambda v, y, T: (p := (v / T).softmax(-1)) / (1 - p[own(v, y)])[:, None],
            "the label is the target, not the class with the largest logit.":
                lambda v, y, T: dark(v, v.argmax(-1), T),
            "a target logit of 0 still gets a share, e⁰: set it to −inf.":
                lambda v, y, T: (v / T).masked_fill(own(v, y), 0).softmax(-1),
        }),
    }[what]  # fmt: skip
    compare(name or what, attempt, right, random_cases(cases), mistakes)


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
