"""Exercises on choosing a teacher (chapter 11)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare


def lost_and_regained(attempt: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(logits_t, logits_s, y) → (lost, regained) in % of the images, eq-lost-regained."""
    generator = torch.Generator().manual_seed(11)
    cases = []
    for n in (40, 25, 64):
        y = torch.randint(0, 5, (n,), generator=generator)
        right = 2.0 * torch.nn.functional.one_hot(y, 5)
        logits = torch.randn(2, n, 5, generator=generator, dtype=torch.double)
        cases.append((logits[0] + 1.5 * right, logits[1] + right, y))

    def parts(v, z, y):
        return v.argmax(-1) == y, z.argmax(-1) == y

    def both(lost, regained, scale=100.0):
        return scale * torch.stack([lost, regained]).double().mean(-1)

    def account(v, z, y):
        knew, right = parts(v, z, y)
        return both(knew & ~right, right & ~knew)

    def among(v, z, y):
        knew, right = parts(v, z, y)
        return 100 * torch.stack([(~right)[knew].double().mean(), right[~knew].double().mean()])

    def gap(v, z, y):
        knew, right = (100 * part.double().mean() for part in parts(v, z, y))
        return torch.stack([knew - right, right - knew])

    compare(
        "lost_and_regained", attempt, account, cases,
        {
            "in per cent: multiply by 100.": lambda v, z, y: account(v, z, y) / 100,
            "these are numbers of images: take their share of all N, in per cent.":
                lambda v, z, y: account(v, z, y) * len(y) / 100,
            "the two are in the other order: first what the student lost.":
                lambda v, z, y: account(v, z, y).flip(0),
            "shares of all N images are due, not of those that the teacher knew or did not know.": among,
            "this is the difference of the two accuracies: count image by image.": gap,
            "these are all images on which the teacher is right, and all on which the student is: cross them.":
                lambda v, z, y: both(*parts(v, z, y)),
            "these are all the errors of the student and of the teacher: lost is only what the teacher knew.":
                lambda v, z, y: both(~parts(v, z, y)[1], ~parts(v, z, y)[0]),
            "disagreement is not loss: two different answers may both be wrong. Compare with y.":
                lambda v, z, y: both(*[v.argmax(-1) != z.argmax(-1)] * 2),
        },
    )  # fmt: skip
