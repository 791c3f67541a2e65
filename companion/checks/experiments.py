"""Exercises on comparing what was trained (chapters 5 and 6)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import metrics
from ._compare import compare


def paired_interval(attempt: Callable[[Tensor, Tensor], tuple[float, float]]) -> None:
    """Checks attempt(a, b) → (low, high) of the 95 % t-interval of the mean difference, eq-paired-interval."""

    def bounds(a, b, spread, quantile):
        mean, half = (a - b).mean(), quantile * spread
        return torch.stack([mean - half, mean + half])

    def right(a, b):
        interval = metrics.paired_interval(a, b)
        return torch.tensor([interval.low, interval.high], dtype=a.dtype)

    def t(n):
        return metrics.paired_interval([-1.0, 1.0] * (n // 2)).half_width / math.sqrt(1 / (n - 1))

    compare(
        "paired_interval", attempt, right, [(torch.arange(10.0) % 7 + s, torch.arange(10.0) % 5) for s in (0.1, 2)],
        {
            "the two runs are treated as unrelated: take the standard deviation of the differences.":
                lambda a, b: bounds(a, b, ((a.var() + b.var()) / len(a)).sqrt(), t(len(a))),
            "1.96 is the normal quantile: with few runs take Student's t, 2.262 for ten.":
                lambda a, b: bounds(a, b, (a - b).std() / len(a) ** 0.5, 1.96),
            "the standard deviation of one run, not of the mean: divide by √n.":
                lambda a, b: bounds(a, b, (a - b).std(), t(len(a))),
            "the standard deviation divides by n: take n − 1 (ddof=1).":
                lambda a, b: bounds(a, b, (a - b).std(correction=0) / len(a) ** 0.5, t(len(a))),
            "the difference is turned round: a − b.": lambda a, b: right(b, a),
            "the ends are swapped: the lower one comes first.": lambda a, b: right(a, b).flip(0),
            "this is the mean and the half width: return mean − half and mean + half.":
                lambda a, b: torch.stack([(a - b).mean(), right(a, b).diff()[0] / 2]),
            "divide by √n, not by √(n − 1): the n − 1 is in the standard deviation.":
                lambda a, b: bounds(a, b, (a - b).std() / (len(a) - 1) ** 0.5, t(len(a))),
        },
        rtol=2e-3,
    )  # fmt: skip


def fair_gap(attempt: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[float, float]]) -> None:
    """Checks attempt(val_taught, val_labels, test_taught, test_labels) → (mean, half width) of taught − labels.

    val (R, S) and test (R, P): accuracies at R rates; each side's rate is its best on validation, as a mean of seeds.
    """
    generator = torch.Generator().manual_seed(9)
    cases = []
    for rates, seeds, pairs in [(4, 3, 10), (5, 3, 6)]:
        bent = torch.arange(rates, dtype=torch.double)
        sides = []
        for best, top in [(rates - 2, 76.0), (1, 73.0)]:  # the taught side's best rate is larger
            curve = top - 3 * (bent - best).abs()
            val = curve[:, None] + torch.randn(rates, seeds, generator=generator, dtype=torch.double) / 2
            val[best - 1, 0] = top + 4  # the single luckiest student is not at the best rate
            val[best - 1, 1:] -= 2
            test = curve[:, None] + torch.randn(rates, pairs, generator=generator, dtype=torch.double)
            test[rates - 1 - best] = top + 6 + torch.randn(pairs, generator=generator, dtype=torch.double)
            sides.append((val, test))
        shared = 2 * torch.randn(pairs, generator=generator, dtype=torch.double)  # images and first weights
        (val_taught, test_taught), (val_labels, test_labels) = sides
        cases.append((val_taught, val_labels, test_taught + shared, test_labels + shared))

    def best(val):
        return val.mean(1).argmax()

    def report(a, b):
        gap = metrics.paired_interval(a, b)
        return torch.tensor([gap.mean, gap.half_width], dtype=torch.double)

    def right(va, vb, ta, tb):
        return report(ta[best(va)], tb[best(vb)])

    def unpaired(va, vb, ta, tb):
        a, b = ta[best(va)], tb[best(vb)]
        spread = ((a.var() + b.var()) / (a - b).var()).sqrt()
        return report(a, b) * torch.stack([torch.ones_like(spread), spread])

    def ends(va, vb, ta, tb):
        mean, half = right(va, vb, ta, tb)
        return torch.stack([mean - half, mean + half])

    compare(
        "fair_gap", attempt, right, cases,
        {
            "the rates are chosen on test images: choose on validation, and report on test.":
                lambda va, vb, ta, tb: report(ta[best(ta)], tb[best(tb)]),
            "both sides have the taught side's best rate: search one for each.":
                lambda va, vb, ta, tb: report(ta[best(va)], tb[best(va)]),
            "both sides have the best rate of the labels' side: search one for each.":
                lambda va, vb, ta, tb: report(ta[best(vb)], tb[best(vb)]),
            "the rate of the single luckiest student: take each rate's mean over the seeds first.":
                lambda va, vb, ta, tb: report(ta[va.amax(1).argmax()], tb[vb.amax(1).argmax()]),
            "the gap is turned round: taught − labels.":
                lambda va, vb, ta, tb: report(tb[best(vb)], ta[best(va)]),
            "the two sides are treated as unrelated: column i of both tables is a pair.": unpaired,
            "these are the two ends: return the mean and the half width.": ends,
            "the validation scores are reported: they have chosen the rate, so report on test.":
                lambda va, vb, ta, tb: report(va[best(va)], vb[best(vb)]),
        },
        rtol=2e-3,
    )  # fmt: skip


def worst_class(attempt: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(logits, y) → accuracy of the worst class among those present, in %, eq-worst-class."""
    generator = torch.Generator().manual_seed(5)
    y = torch.tensor([0] * 6 + [1] * 5 + [2] * 4 + [4] * 3)  # no example of class 3
    noise = torch.randn(len(y), 5, generator=generator, dtype=torch.double)
    logits = noise + 1.5 * torch.nn.functional.one_hot(y, 5)
    logits[:, 3] = -9

    def each(z, y, of=None):
        right, of = (z.argmax(-1) == y).double(), y if of is None else of
        return torch.stack([100 * right[of == c].mean() for c in range(z.shape[-1])])

    def seen(values):
        return values[~values.isnan()]

    compare(
        "worst_class", attempt, lambda z, y: seen(each(z, y)).min(),
        [(logits, y), (logits[:11].flip(1), 4 - y[:11]), (noise, y)],
        {
            "this is the accuracy over all examples: the common classes hide the rare ones.":
                lambda z, y: 100 * (z.argmax(-1) == y).double().mean(),
            "this is the mean of the classes' accuracies: take the smallest.":
                lambda z, y: seen(each(z, y)).mean(),
            "in per cent, please.": lambda z, y: seen(each(z, y)).min() / 100,
            "the denominator counts the answers of a class: count its labels. This is the worst precision.":
                lambda z, y: seen(each(z, y, z.argmax(-1))).min(),
            "a class without examples has no accuracy (0/0 is NaN): leave it out.":
                lambda z, y: each(z, y).min(),
            "a class without examples counts as 0 %: leave it out.":
                lambda z, y: each(z, y).nan_to_num(0).min(),
            "this is the best class: take the smallest.": lambda z, y: seen(each(z, y)).max(),
        },
    )  # fmt: skip
