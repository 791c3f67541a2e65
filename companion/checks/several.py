"""Exercises on losses over positions (chapters 9 and 15)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare


def masked_mean(attempt: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(rows, mask) → mean of rows (B, L) where mask is true, or 0 if it is true nowhere."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.rand(3, 6, generator=generator, dtype=torch.double)
    mask = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]
    hidden = torch.where(mask, rows, float("nan"))

    def kept(rows, mask):
        return torch.where(mask, rows, 0)

    compare(
        "masked_mean", attempt, lambda rows, mask: kept(rows, mask).sum() / max(int(mask.sum()), 1),
        [(rows, mask), (rows[:2, 1:], mask[:2, 1:]), (hidden[1:], mask[1:]), (hidden, mask & False)],
        {
            "the sum is divided by B alone: longer texts get larger losses. Divide by the counted positions.":
                lambda rows, mask: kept(rows, mask).sum() / len(rows),
            "the sum is divided by B·L: padding is counted too. Divide by mask.sum().":
                lambda rows, mask: kept(rows, mask).mean(),
            "the mask is not used: padding enters the sum.": lambda rows, mask: rows.mean(),
            "masked by a product, and 0 · NaN is NaN: choose with torch.where(mask, rows, 0).":
                lambda rows, mask: (rows * mask).sum() / max(int(mask.sum()), 1),
            "the mask is turned round: it is true where a position counts.":
                lambda rows, mask: kept(rows, ~mask).sum() / max(int((~mask).sum()), 1),
            "what is masked need not be NaN, and what is not NaN need not count: use the mask.":
                lambda rows, mask: rows.nanmean(),
            "with no counted position this is 0/0: divide by at least 1.":
                lambda rows, mask: kept(rows, mask).sum() / mask.sum(),
            "this is the mean of the sequences' means: a token of a short sequence then weighs more.":
                lambda rows, mask: (kept(rows, mask).sum(-1) / mask.sum(-1).clamp(min=1)).mean(),
        },
        student=0,
    )  # fmt: skip


def answer_mask(attempt: Callable[[Tensor, int], Tensor]) -> None:
    """Checks attempt(said, stop) → which rows of logits count, (B, L − 1): up to the first `stop`, and with it."""
    generator = torch.Generator().manual_seed(4)
    cases = []
    for stop, ends in ((3, (2, 4, 6)), (7, (5, 1)), (0, (9, 3, 6, 2))):  # 9: cut off before its end
        said = torch.randint(8, 12, (len(ends), 7), generator=generator)
        said[torch.arange(7) >= torch.tensor(ends)[:, None]] = stop
        cases.append((said, stop))

    def right(said, stop):
        ends = said[:, 1:] == stop
        return ends.cumsum(1) - ends.long() == 0

    compare(
        "answer_mask", attempt, right, cases,
        {
            "the end does not count: it is a token that the student must learn to say.":
                lambda said, stop: said[:, 1:] != stop,
            "all rows count: what stands after the first end is padding.":
                lambda said, stop: torch.ones_like(said[:, 1:], dtype=torch.bool),
            "it is one column too wide: the last token predicts nothing. Look at said[:, 1:].":
                lambda said, stop: (said == stop).cumsum(1) - (said == stop).long() == 0,
            "it is not shifted: row t of the logits belongs to said[:, t + 1].":
                lambda said, stop: right(torch.cat([said[:, :1], said], 1)[:, :-1], stop),
            "it is turned round: it is true where a row counts.": lambda said, stop: ~right(said, stop),
            "a row that was cut off before its end counts as well, all of it.":
                lambda said, stop: right(said, stop) & (said[:, 1:] == stop).any(1, keepdim=True),
        },
    )  # fmt: skip
