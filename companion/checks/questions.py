"""Exercises on which questions teach, and on what they give away (chapter 12)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare


def membership_auc(attempt: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(inside, outside), losses (N,) and (M,) → the share of pairs, eq-auc, between 0 and 1."""
    generator = torch.Generator().manual_seed(12)

    def losses(n, high):  # whole numbers, so that there are ties
        return torch.randint(0, high, (n,), generator=generator).double()

    cases = [(losses(n, 4), losses(m, 5)) for n, m in [(6, 9), (8, 5), (7, 7)]]

    def pairs(inside, outside):
        return inside[:, None], outside[None, :]

    def right(inside, outside):
        a, b = pairs(inside, outside)
        return (a < b).double().mean() + (a == b).double().mean() / 2

    compare(
        "membership_auc", attempt, right, cases,
        {
            "turned round: a member's loss is the *smaller* one.": lambda a, b: 1 - right(a, b),
            "ties are left out: a pair with equal losses counts half.":
                lambda a, b: (a[:, None] < b[None, :]).double().mean(),
            "a pair with equal losses counts half, not whole.":
                lambda a, b: (a[:, None] <= b[None, :]).double().mean(),
            "a share, between 0 and 1, not per cent.": lambda a, b: 100 * right(a, b),
            "this is the number of pairs: divide by how many there are.":
                lambda a, b: right(a, b) * len(a) * len(b),
            "each member is compared with the mean of the others: compare it with each of them.":
                lambda a, b: (a < b.mean()).double().mean(),
            "compares the means only: a share of pairs is due.": lambda a, b: (a.mean() < b.mean()).double(),
        },
    )  # fmt: skip


def worth_of(attempt: Callable[[float, Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(right, sizes, curve) → the new images that teach as much, eq-worth: straight lines in log n."""
    sizes = torch.tensor([10, 100, 1000, 3000], dtype=torch.double)
    curve = torch.tensor([40, 70, 80, 84], dtype=torch.double)
    cases = [(right, sizes, curve) for right in (47.0, 72.5, 81.0)]

    def piece(right, curve):
        """The point on the left, and the share of the way to the next."""
        i = int((curve <= right).sum()) - 1
        return i, (right - curve[i]) / (curve[i + 1] - curve[i])

    def between(right, n, curve):
        i, share = piece(right, curve)
        return n[i] + share * (n[i + 1] - n[i])

    def turned(right, n, curve):
        i, share = piece(right, curve)
        return n[i + 1] + share * (n[i] - n[i + 1])

    def nearest(right, n, curve):
        i, share = piece(right, curve)
        return n[i + int(share > 0.5)]

    compare(
        "worth_of", attempt, lambda right, n, curve: between(right, n.log(), curve).exp(), cases,
        {
            "the line is straight in n: take the logarithm of the sizes first.": between,
            "this is the logarithm of the worth: take it back.":
                lambda right, n, curve: between(right, n.log(), curve),
            "this is log10 of the worth: take it back.":
                lambda right, n, curve: between(right, n.log10(), curve),
            "the share of the way is counted from the wrong end.":
                lambda right, n, curve: turned(right, n.log(), curve).exp(),
            "this is a point of the curve: read between the points.": nearest,
            "one straight line from the first point to the last: take the two points around `right`.":
                lambda right, n, curve: between(right, n[[0, -1]].log(), curve[[0, -1]]).exp(),
        },
    )  # fmt: skip


def statistics_gap(attempt: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(a, mean, var), a (N, K, H, W) → ‖means − mean‖ + ‖variances − var‖ over K channels, eq-inversion."""
    generator = torch.Generator().manual_seed(13)
    cases = []
    for shape in [(3, 2, 2, 3), (4, 5, 3, 3), (2, 3, 4, 1)]:
        a = torch.randn(shape, generator=generator, dtype=torch.double)
        mean, var = torch.rand(2, shape[1], generator=generator, dtype=torch.double)
        cases.append((a, mean, var))
    every = (0, 2, 3)

    def moments(a, dims=every, correction=0):
        return a.mean(dims), a.var(dims, correction=correction)

    def gap(m, s, mean, var):
        return (m - mean).norm() + (s - var).norm()

    compare(
        "statistics_gap", attempt, lambda a, mean, var: gap(*moments(a), mean, var), cases,
        {
            "the variance is missing: there are two norms.": lambda a, m, v: (a.mean(every) - m).norm(),
            "the mean is missing: there are two norms.":
                lambda a, m, v: (a.var(every, correction=0) - v).norm(),
            "these are squared norms: take the root of each.":
                lambda a, m, v: (a.mean(every) - m).square().sum()
                + (a.var(every, correction=0) - v).square().sum(),
            "this is the standard deviation: the batch norm keeps variances.":
                lambda a, m, v: gap(a.mean(every), a.std(every, correction=0), m, v),
            "the variance divides by the number of values, not by one less: correction=0.":
                lambda a, m, v: gap(*moments(a, correction=1), m, v),
            "one norm over both: add two norms.":
                lambda a, m, v: torch.cat([a.mean(every) - m, a.var(every, correction=0) - v]).norm(),
            "one number for each channel: the norm runs over the channels.":
                lambda a, m, v: (a.mean(every) - m).abs() + (a.var(every, correction=0) - v).abs(),
        },
        student=0,
    )  # fmt: skip
