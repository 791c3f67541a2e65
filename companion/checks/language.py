"""Exercises on language models, token by token (chapter 14)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ._compare import compare


def next_token_loss(attempt: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(logits, ids, counts) → mean of −log q of the tokens that count, each from the row before it."""
    generator = torch.Generator().manual_seed(14)
    logits = 2 * torch.randn(3, 6, 5, generator=generator, dtype=torch.double)
    ids = torch.randint(0, 5, (3, 6), generator=generator)
    counts = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0]]).bool()

    def nll(logits, ids):
        return F.cross_entropy(logits.transpose(1, 2), ids, reduction="none")

    def mean(rows, counts):
        return torch.where(counts, rows, 0).sum() / counts.sum()

    def right(logits, ids, counts):
        return mean(nll(logits[:, :-1], ids[:, 1:]), counts[:, 1:])

    def by_text(logits, ids, counts):
        rows, counts = nll(logits[:, :-1], ids[:, 1:]), counts[:, 1:]
        return (torch.where(counts, rows, 0).sum(-1) / counts.sum(-1)).mean()

    compare(
        "next_token_loss", attempt, right,
        [(logits, ids, counts), (logits[:2, 1:], ids[:2, 1:], counts[:2, 1:]), (logits[:1], ids[:1], counts[:1])],
        {
            "nothing is shifted: row t then predicts the token it has just read.":
                lambda z, ids, counts: mean(nll(z, ids), counts),
            "the mask is not shifted: it belongs to the token that is predicted. Take counts[:, 1:].":
                lambda z, ids, counts: mean(nll(z[:, :-1], ids[:, 1:]), counts[:, :-1]),
            "the shift goes the other way: row t predicts token t + 1, not t − 1.":
                lambda z, ids, counts: mean(nll(z[:, 1:], ids[:, :-1]), counts[:, 1:]),
            "the mask is not used: prompt and padding enter the mean.":
                lambda z, ids, counts: nll(z[:, :-1], ids[:, 1:]).mean(),
            "the sum is divided by all places; divide by those that count.":
                lambda z, ids, counts: torch.where(counts[:, 1:], nll(z[:, :-1], ids[:, 1:]), 0).mean(),
            "the sum is divided by the texts: a long answer then weighs more than its tokens.":
                lambda z, ids, counts: right(z, ids, counts) * counts[:, 1:].sum() / len(ids),
            "this is the mean of the texts' means: a token of a short answer then weighs more. Divide once.": by_text,
            "the sign is turned: a loss is −log q.": lambda z, ids, counts: -right(z, ids, counts),
            "these are bits; take the natural logarithm.": lambda z, ids, counts: right(z, ids, counts) / torch.log(
                torch.tensor(2.0, dtype=torch.double)),
        },
        student=0,
    )  # fmt: skip
