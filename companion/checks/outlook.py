"""Exercises on choosing a temperature (chapter 8) and on a teacher that neglects classes (chapter 20)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare, random_cases


def regret(attempt: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(val, test), two tables of accuracy (seeds, temperatures) → mean regret, eq-regret."""
    generator = torch.Generator().manual_seed(6)
    noise = torch.randn(3, 2, 10, 5, generator=generator, dtype=torch.double)
    truth = 80 + torch.tensor(
        [0, 3, 4, 2, -3]
    )  # of each temperature: the third is the best, and choosing costs
    val, test = truth + 3 * noise[:, 0], truth + noise[:, 1]

    def chosen(val, of):
        return of.gather(1, val.argmax(1, keepdim=True))[:, 0]

    def best(test):
        return test.max(1).values

    compare(
        "regret", attempt, lambda val, test: (best(test) - chosen(val, test)).mean(),
        list(zip(val, test, strict=True)),
        {
            "the sign is turned round: it is the best minus the chosen.":
                lambda val, test: (chosen(val, test) - best(test)).mean(),
            "this is the regret of each seed: take the mean.": lambda val, test: best(test) - chosen(val, test),
            "the choice saw the test scores: choose by val, report by test.":
                lambda val, test: (best(test) - chosen(test, test)).mean(),
            "the validation score of the choice is reported: choose by val, report by test.":
                lambda val, test: (best(test) - chosen(val, val)).mean(),
            "T* is the best of each seed: not one temperature for all seeds, the one with the best mean.":
                lambda val, test: (test.mean(0).max() - chosen(val, test)).mean(),
            "one temperature is chosen for all seeds together: each seed chooses by its own validation scores.":
                lambda val, test: best(test).mean() - test.mean(0)[val.mean(0).argmax()],
            "T* is chosen by test, not by val.":
                lambda val, test: (test.mean(0)[val.mean(0).argmax()] - chosen(val, test)).mean(),
            "`test[:, chosen]` takes whole columns: take one entry per row, with gather.":
                lambda val, test: best(test).mean() - test[:, val.argmax(1)].mean(),
            "this is the sum over the seeds: take the mean.":
                lambda val, test: (best(test) - chosen(val, test)).sum(),
            "the seeds and the temperatures are mixed up: a row is a seed, a column a temperature.":
                lambda val, test: (best(test.T) - chosen(val.T, test.T)).mean(),
        },
    )  # fmt: skip


def balanced_targets(attempt: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Checks attempt(logits_t, counts, T) → softmax((v − log π)/T), (N, C), with π the shares of the counts."""
    cases = [
        (v, torch.arange(1, v.shape[-1] + 1, dtype=torch.double) ** 2, T)
        for _, v, _, T in random_cases(lambda *made: made)
    ]

    def log_shares(n):
        return (n / n.sum()).log()

    compare(
        "balanced_targets", attempt, lambda v, n, T: ((v - log_shares(n)) / T).softmax(-1), cases,
        {
            "nothing is taken off: these are the teacher's own targets.": lambda v, n, T: (v / T).softmax(-1),
            "log π is added, which makes the common classes more common still: subtract it.":
                lambda v, n, T: ((v + log_shares(n)) / T).softmax(-1),
            "the logarithm is missing: logits are on the scale of log π.":
                lambda v, n, T: ((v - n / n.sum()) / T).softmax(-1),
            "the counts are taken off, not their logarithms.": lambda v, n, T: ((v - n) / T).softmax(-1),
            "T divides the teacher's logits only: correct first, then divide both by T.":
                lambda v, n, T: (v / T - log_shares(n)).softmax(-1),
            "T has no effect: divide the corrected logits by it.":
                lambda v, n, T: (v - log_shares(n)).softmax(-1),
            "the rows do not sum to 1: divide by π before normalising, or subtract log π from the logits.":
                lambda v, n, T: (v / T).softmax(-1) / (n / n.sum()),
            "these are logits: the targets are their softmax.": lambda v, n, T: (v - log_shares(n)) / T,
            "the softmax runs over the examples: take dim=-1, the classes.":
                lambda v, n, T: ((v - log_shares(n)) / T).softmax(0),
        },
    )  # fmt: skip
