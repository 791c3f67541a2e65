"""Exercises on a student that looks up tokens in a table, and on search (chapter 16), and on draws (chapter 19)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare


def static_vector(attempt: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(ids, table, weight, up) → eq-static: W Σ w_t e_t over the text's tokens, of length 1."""
    generator = torch.Generator().manual_seed(16)
    cases = []
    for tokens, (size, width, out) in [
        ((4, 1, 4, 0), (6, 3, 5)),
        ((2, 7), (9, 4, 2)),
        ((5, 5, 3), (6, 2, 4)),
    ]:
        table, up = (
            torch.randn(shape, generator=generator, dtype=torch.double)
            for shape in ((size, width), (out, width))
        )
        weight = 0.2 + torch.rand(size, generator=generator, dtype=torch.double)
        cases.append((torch.tensor(tokens), table, weight, up))

    def unit(v):
        return v / v.norm()

    def summed(ids, table, weight):
        return (weight[ids, None] * table[ids]).sum(0)

    compare(
        "static_vector", attempt, lambda i, e, w, up: unit(up @ summed(i, e, w)), cases,
        {
            "its length is not 1: divide by the norm, at the end.": lambda i, e, w, up: up @ summed(i, e, w),
            "the token weights are missing.": lambda i, e, w, up: unit(up @ e[i].sum(0)),
            "a token that stands twice in the text counts twice.":
                lambda i, e, w, up: unit(up @ summed(i.unique(), e, w)),
            "the sum is divided by its length before W: W comes first.":
                lambda i, e, w, up: up @ unit(summed(i, e, w)),
            "each token's vector is made a unit vector first: only the text's is.":
                lambda i, e, w, up: unit(up @ (w[i, None] * e[i] / e[i].norm(dim=1, keepdim=True)).sum(0)),
            "W is missing: the vector has the width of the table, not the teacher's.":
                lambda i, e, w, up: unit(summed(i, e, w)),
            "all tokens of the table are summed: take the text's, table[ids].":
                lambda i, e, w, up: unit(up @ (w[:, None] * e).sum(0)),
            "the weight is taken of the place in the text, not of the token: weight[ids].":
                lambda i, e, w, up: unit(up @ (w[: len(i), None] * e[i]).sum(0)),
        },
        student=1,
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
