"""The exercises on a batch that several processes share, and on answers that were drawn (chapter 18)."""

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


def draws_loss(attempt: Callable[[Tensor, Tensor, Tensor, int, int], Tensor]) -> None:
    """Checks attempt(z, drawn, mask, n, world) → the loss of a process's share by k drawn tokens, drawn (B, L, k)."""
    generator = torch.Generator().manual_seed(18)
    z = torch.randn(3, 5, 7, generator=generator, dtype=torch.double)
    drawn = torch.randint(4, (3, 5, 6), generator=generator)  # six draws of four tokens: some come twice
    mask = torch.arange(5) < torch.tensor([5, 3, 1])[:, None]

    def each(z, drawn):
        return -z.log_softmax(-1).gather(-1, drawn)

    def total(rows, mask):
        return torch.where(mask, rows, 0).sum()

    def once(z, drawn):  # each token that came up, however often: scatter where scatter_add is due
        came = torch.zeros_like(z).scatter(-1, drawn, 1 / drawn.shape[-1])
        return -(came * z.log_softmax(-1)).sum(-1)

    def outside(z, drawn):
        return each(z, drawn).neg().exp().mean(-1).log().neg()

    compare(
        "draws_loss", attempt, lambda z, drawn, mask, n, world: world / n * total(each(z, drawn).mean(-1), mask),
        [(z, drawn, mask, 40, 2), (z[:2], drawn[:2], mask[:2], 25, 4), (z[1:], drawn[1:], mask[1:], 4, 1)],
        {
            "each draw counts 1/k: take the mean over the k draws, not their sum.":
                lambda z, drawn, mask, n, world: world / n * total(each(z, drawn).sum(-1), mask),
            "a token that was drawn twice counts twice, 2/k.":
                lambda z, drawn, mask, n, world: world / n * total(once(z, drawn), mask),
            "first the logarithm of each draw's probability, then the mean over the draws.":
                lambda z, drawn, mask, n, world: world / n * total(outside(z, drawn), mask),
            "this takes the logits themselves: the loss needs their log_softmax.":
                lambda z, drawn, mask, n, world: world / n * total(-z.gather(-1, drawn).mean(-1), mask),
            "this is the mean over the share's own tokens; divide by n / world.":
                lambda z, drawn, mask, n, world: total(each(z, drawn).mean(-1), mask) / mask.sum(),
            "the processes' gradients are averaged afterwards, which divides by their number once more: multiply by it.":
                lambda z, drawn, mask, n, world: total(each(z, drawn).mean(-1), mask) / n,
            "padding is counted: sum where the mask is true.":
                lambda z, drawn, mask, n, world: world / n * each(z, drawn).mean(-1).sum(),
        },
        student=0,
    )  # fmt: skip
