"""Exercises on other people's conventions (chapter 7)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare

NEEDS_LOGITS = "it compares probabilities, and this teacher gives only text."
WRONG_TOOLS = {
    **{
        (0, tool): NEEDS_LOGITS
        for tool in ("TRL DistillationTrainer", "TRL GOLDTrainer", "DistillKit", "torchdistill")
    },
    (1, "EasyDistill"): "the probabilities can be had: text alone would throw them away.",
    (1, "TRL GOLDTrainer"): "it is for two tokenisers, and here is one.",
    (
        1,
        "DistillKit",
    ): "what is stored belongs to a given text, and the student's own text is not known before.",
    (1, "torchdistill"): "it trains on given inputs: nothing is written by the student.",
    (2, "EasyDistill"): "it would do, and throw away the probabilities that you have.",
    (
        2,
        "TRL DistillationTrainer",
    ): "it needs one vocabulary, and raises an error that names the tool you want.",
    (2, "DistillKit"): "what is stored are the teacher's tokens: which of them is which of the student's?",
    (2, "torchdistill"): "its loss compares class number c with class number c: one set of classes.",
}
WRONG_SHARES = {
    (0, 0.9): "which term is torchdistill's alpha on?",
    (0, 0.36): "with labels its T² is there.",
    (1, 0.9): "that is what was written: its alpha weighs the labels.",
    (1, 0.36): "with labels its T² is there.",
}


def same_training(attempt: Callable[[float, float, int, float, int], tuple[float, float]]) -> None:
    """Checks attempt(hard, soft, k, T, m) → (alpha, scale), eq-same-training."""

    def answer(hard, soft, k, T, m):
        return _pair(hard, soft * T ** (k - 2) / m)

    compare(
        "same_training", attempt, lambda *case: torch.stack(answer(*case)),
        [(0.3, 0.7, 2, 4.0, 1), (1.0, 2.0, 0, 4.0, 1), (0.5, 0.5, 2, 2.0, 10), (0.2, 0.9, 0, 3.0, 5)],
        {
            "α is on the hard term: here it weighs the soft one.": _swapped(answer),
            "T² is left out: where k = 0 the soft weight acts as soft / T².":
                lambda hard, soft, k, T, m: torch.stack(_pair(hard, soft / m)),
            "T^k alone is too large: our soft term has T² already, so T^(k − 2) is left.":
                lambda hard, soft, k, T, m: torch.stack(_pair(hard, soft * T**k / m)),
            "the extra divisor m is left out: with `mean` it is the number of classes.":
                lambda hard, soft, k, T, m: torch.stack(_pair(hard, soft * T ** (k - 2))),
            "the extra divisor makes the soft term smaller: divide by m.":
                lambda hard, soft, k, T, m: torch.stack(_pair(hard, soft * T ** (k - 2) * m)),
            "the two weights of our loss sum to 1: divide by their sum, and keep the sum as the scale.":
                lambda hard, soft, k, T, m: torch.tensor([soft * T ** (k - 2) / m, 1.0], dtype=torch.double),
            "this is our loss over theirs: the scale is what ours is multiplied by.":
                lambda *case: torch.stack([answer(*case)[0], 1 / answer(*case)[1]]),
            "the order is (alpha, scale).": lambda *case: torch.stack(answer(*case)[::-1]),
            "k − 2 is turned round: where k = 0, T² is missing in their loss, and soft / T² is left.":
                lambda hard, soft, k, T, m: torch.stack(_pair(hard, soft * T ** (2 - k) / m)),
            "the scale is the sum of both weights after T and m: use the corrected soft weight.":
                lambda hard, soft, k, T, m: torch.stack([
                    answer(hard, soft, k, T, m)[0], torch.tensor(hard + soft, dtype=torch.double)]),
            "the scale is missing: our loss is theirs divided by the sum of both weights.":
                lambda *case: torch.stack([answer(*case)[0], torch.ones((), dtype=torch.double)]),
        },
    )  # fmt: skip


def row_mean_over_mean(attempt: Callable[[tuple[int, ...]], float], name: str = "row_mean_over_mean") -> None:
    """Checks attempt(shape) → KL per counted row over F.kl_div(reduction="mean"), eq-kl-div-mean."""

    def number(of):
        return lambda shape: torch.tensor(float(of(shape)))

    compare(
        name, attempt, number(lambda s: s[-1]), [((8, 10),), ((2, 3, 7),), ((4, 5),)],
        {
            "`batchmean` divides by the first dimension alone: for tokens that is not the number of rows.":
                number(lambda s: torch.Size(s).numel() / s[0]),
            "this turns the factor round: `mean` is the smaller one.": number(lambda s: 1 / s[-1]),
            "this is right for (N, C) only: for tokens (B, L, C) the classes are the last dimension.":
                number(lambda s: s[1]),
            "this is the first dimension, the examples: the classes are the last one.": number(lambda s: s[0]),
            "this is the number of rows, by which both divide.": number(lambda s: torch.Size(s[:-1]).numel()),
            "this is the number of all entries, by which `mean` divides: the rows stay in both.":
                number(lambda s: torch.Size(s).numel()),
        },
    )  # fmt: skip


def _pair(hard: float, soft: float) -> tuple[Tensor, Tensor]:
    hard, soft = torch.tensor([hard, soft], dtype=torch.double)
    return soft / (hard + soft), hard + soft


def _swapped(answer: Callable) -> Callable:
    def wrong(*case):
        alpha, scale = answer(*case)
        return torch.stack([1 - alpha, scale])

    return wrong
