"""Exercises on rounded weights and on drafts (chapters 17 and 24)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare


def straight_through(attempt: Callable[[Tensor, int], Tensor]) -> None:
    """Checks attempt(w, bits), w (R, K) → the weights rounded with a scale for each row, and the gradient of w itself."""
    generator = torch.Generator().manual_seed(17)
    cases = [
        (torch.randn(r, k, generator=generator, dtype=torch.double), bits)
        for r, k, bits in [(2, 5, 3), (3, 4, 2), (1, 9, 4)]
    ]

    def grid(w, bits, steps=None, largest=None):
        steps = 2 ** (bits - 1) - 1 if steps is None else steps
        scale = (w.abs().amax(1, keepdim=True) if largest is None else largest) / steps
        return (w / scale).round() * scale

    def right(w, bits):
        return w + (grid(w, bits) - w).detach()

    compare(
        "straight_through", attempt, right, cases,
        {
            "these are whole numbers: multiply with the scale again.":
                lambda w, bits: (w / (w.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1))).round(),
            "one scale for the whole matrix: each row has its own.":
                lambda w, bits: grid(w, bits, largest=w.abs().max()),
            "each column has a scale: it is each row's.":
                lambda w, bits: grid(w, bits, largest=w.abs().amax(0, keepdim=True)),
            "2^(bits−1) steps to each side are one too many: with 0 in the middle it is 2^(bits−1) − 1.":
                lambda w, bits: grid(w, bits, steps=2 ** (bits - 1)),
            "2^bits − 1 steps are those of both sides together.":
                lambda w, bits: grid(w, bits, steps=2**bits - 1),
            "the largest weight without its sign: take the absolute value first.":
                lambda w, bits: grid(w, bits, largest=w.amax(1, keepdim=True)),
        },
        student=0,
        slips={
            "the values are right; the gradient is that of rounding, which is flat: add to w what rounding changes, "
            "detached.": grid,
        },
    )  # fmt: skip


def kept_share(attempt: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(p, q), distributions (N, V) → the share of proposals that is kept, (N,), eq-acceptance."""
    generator = torch.Generator().manual_seed(18)
    cases = [
        tuple(torch.randn(2, n, v, generator=generator, dtype=torch.double).mul(2).softmax(-1))
        for n, v in [(3, 4), (1, 7), (5, 3)]
    ]

    def right(p, q):
        return torch.minimum(p, q).sum(-1)

    compare(
        "kept_share", attempt, right, cases,
        {
            "this is the total variation, the share that is refused: 1 minus it.": lambda p, q: 1 - right(p, q),
            "half of the differences' sum is what differs; you took the whole.":
                lambda p, q: 1 - (p - q).abs().sum(-1),
            "the larger of the two instead of the smaller.": lambda p, q: torch.maximum(p, q).sum(-1),
            "this is the chance that two independent draws agree; the rule keeps more than those.":
                lambda p, q: (p * q).sum(-1),
            "mean over the tokens: the sum is due.": lambda p, q: torch.minimum(p, q).mean(-1),
            "min(1, p/q) holds for one token; weigh it by how often the draft proposes it, q.":
                lambda p, q: (p / q).clamp(max=1).mean(-1),
            "one number for all rows: each row has its own.": lambda p, q: right(p, q).mean(),
        },
    )  # fmt: skip
