"""The exercise on a batch that several processes share (chapter 18)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare


def share_loss(attempt: Callable[[Tensor, Tensor, int, int], Tensor]) -> None:
    """Checks attempt(rows, mask, n, world) → the loss of a process's share, rows (B, L), of n tokens in all."""
    generator = torch.Generator().manual_seed(18)
    rows = torch.rand(3, 6, generator=generator, dtype=torch.double)
    mask = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]

    def total(rows, mask):
        return (rows * mask).sum()

    compare(
        "share_loss", attempt, lambda rows, mask, n, world: world / n * total(rows, mask),
        [(rows, mask, 40, 2), (rows[:2], mask[:2], 25, 4), (rows[1:], mask[1:], 5, 1)],
        {
            "this is the mean over the share's own tokens: a token of a share with few of them weighs more. "
            "Divide by n.": lambda rows, mask, n, world: total(rows, mask) / mask.sum(),
            "the processes' gradients are averaged afterwards, which divides by their number once more: multiply by it.":
                lambda rows, mask, n, world: total(rows, mask) / n,
            "divided by the number of processes twice: the average does it once already, and you are to undo that.":
                lambda rows, mask, n, world: total(rows, mask) / (n * world),
            "padding is counted: sum where the mask is true.": lambda rows, mask, n, world: world / n * rows.sum(),
            "this is the sum; n, the tokens of the whole batch, divides it.":
                lambda rows, mask, n, world: total(rows, mask),
        },
        student=0,
    )  # fmt: skip
