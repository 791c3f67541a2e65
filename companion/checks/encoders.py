"""Exercises on a student that looks up tokens in a table, and on search (chapter 16), and on draws (chapter 19)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare


def rows_width(attempt: Callable[[Tensor, float], int]) -> None:
    """Checks attempt(answers, share), answers (V, m) → how many main directions keep that share of the squares."""
    generator = torch.Generator().manual_seed(16)
    cases = []
    for tokens, m, share in [(60, 12, 0.8), (40, 9, 0.95), (7, 20, 0.97), (80, 10, 0.6)]:
        falling = 0.8 ** torch.arange(m, dtype=torch.double)
        turn = torch.linalg.qr(torch.randn(m, m, generator=generator, dtype=torch.double))[0]
        noise = torch.randn(tokens, m, generator=generator, dtype=torch.double)
        cases.append(((noise * falling + 0.5) @ turn, share))

    def squares(answers):
        return torch.linalg.svdvals(answers) ** 2

    def first(kept, share):
        return int((kept.cumsum(0) / kept.sum() < share).sum()) + 1

    compare(
        "rows_width", attempt, lambda a, share: first(squares(a), share), cases,
        {
            "one too few: with these directions the share is not reached yet.":
                lambda a, share: first(squares(a), share) - 1,
            "the lengths are added up: it is their squares that are kept.":
                lambda a, share: first(squares(a).sqrt(), share),
            "the weakest directions are taken first: begin with the longest.":
                lambda a, share: first(squares(a).flip(0), share),
            "the mean is taken away first: the lines go through the origin.":
                lambda a, share: first(squares(a - a.mean(0)), share),
            "the columns as they stand are no main directions: take the singular values.":
                lambda a, share: first((a**2).sum(0), share),
            "that is how many numbers an answer has: fewer keep this share.": lambda a, share: a.shape[1],
            "that is the share of the directions, not of the squares.":
                lambda a, share: round(share * min(a.shape)),
        },
    )  # fmt: skip


def recall_at(attempt: Callable[[Tensor, Tensor, int], float]) -> None:
    """Checks attempt(scores_s, scores_t, k), scores (Q, D) → how many of the teacher's k best are found, eq-recall."""
    generator = torch.Generator().manual_seed(19)
    cases = []
    for q, d, k in [(4, 9, 3), (3, 7, 2), (5, 8, 4)]:
        theirs = torch.randn(q, d, generator=generator, dtype=torch.double)
        mine = theirs + torch.randn(q, d, generator=generator, dtype=torch.double)
        cases.append((mine, theirs, k))

    def best(scores, k, largest=True):
        chosen = scores.topk(k, dim=1, largest=largest).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter(1, chosen, True)

    def share(mine, theirs, k):
        return (mine & theirs).double().sum() / k / len(mine)

    compare(
        "recall_at", attempt, lambda s, t, k: share(best(s, k), best(t, k), k), cases,
        {
            "the farthest are compared: the best have the largest scores.":
                lambda s, t, k: share(best(s, k, False), best(t, k, False), k),
            "only the first of the teacher's is looked for: all its k are due.":
                lambda s, t, k: (best(s, k) & best(t, 1)).any(1).double().mean(),
            "the order within the k does not count.":
                lambda s, t, k: (s.topk(k, 1).indices == t.topk(k, 1).indices).double().mean(),
            "any of the k counts as found: it is the share of them.":
                lambda s, t, k: (best(s, k) & best(t, k)).any(1).double().mean(),
            "a number for each query: take their mean.":
                lambda s, t, k: (best(s, k) & best(t, k)).double().sum(1) / k,
            "this is how many are found: divide by k.": lambda s, t, k: share(best(s, k), best(t, k), 1),
            "divided by all documents: divide by k.":
                lambda s, t, k: share(best(s, k), best(t, k), s.shape[1]),
            "a share, between 0 and 1, not per cent.":
                lambda s, t, k: 100 * share(best(s, k), best(t, k), k),
        },
    )  # fmt: skip


def draws_worth(attempt: Callable[[Tensor, int, int], float]) -> None:
    """Checks attempt(p, n, m) → how many top-k answers n reviews with m draws each are worth, eq-answer-worth."""
    generator = torch.Generator().manual_seed(19)
    cases = [(0.2 + 0.6 * torch.rand(r, generator=generator, dtype=torch.double), n, m)
             for r, n, m in [(4, 100, 3), (7, 40, 5), (3, 900, 2)]]  # fmt: skip

    def luck(p):
        return (p * (1 - p)).mean()

    def spread(p):
        return p.var(unbiased=False)

    compare(
        "draws_worth", attempt, lambda p, n, m: n / (1 + luck(p) / m / spread(p)), cases,
        {
            "m is missing: the mean of m draws has 1/m of the luck of one.":
                lambda p, n, m: n / (1 + luck(p) / spread(p)),
            "m draws have less luck than one, not more: divide by m.":
                lambda p, n, m: n / (1 + luck(p) * m / spread(p)),
            "the 1 is missing: the opinions themselves are part of what varies.":
                lambda p, n, m: n / (luck(p) / m / spread(p)),
            "the two variances are the wrong way round.": lambda p, n, m: n / (1 + spread(p) / luck(p) * m),
            "that is the factor: how many answers are n reviews worth?":
                lambda p, n, m: 1 + luck(p) / m / spread(p),
            "it multiplies: noisy answers are worth less than n.":
                lambda p, n, m: n * (1 + luck(p) / m / spread(p)),
            "the variance of p is a mean over its R reviews: unbiased=False.":
                lambda p, n, m: n / (1 + luck(p) / m / p.var()),
            "the variance, not its root.": lambda p, n, m: n / (1 + luck(p) / m / spread(p).sqrt()),
            "p(1 − p) is averaged over the reviews, not summed.":
                lambda p, n, m: n / (1 + (p * (1 - p)).sum() / m / spread(p)),
            "the luck is the mean of p(1 − p), review by review, not that of the mean opinion.":
                lambda p, n, m: n / (1 + p.mean() * (1 - p.mean()) / m / spread(p)),
            "n reviews, not n · m questions.": lambda p, n, m: n * m / (1 + luck(p) / m / spread(p)),
        },
    )  # fmt: skip
