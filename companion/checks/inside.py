"""Exercises on features and relations (chapter 10)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare


def attention_loss(attempt: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(maps_s, maps_t) → eq-attention with p = 2, maps (N, C, H, W) of one N, H and W."""
    generator = torch.Generator().manual_seed(10)
    cases = [
        tuple(torch.randn(n, c, *places, generator=generator, dtype=torch.double) for c in channels)
        for n, channels, places in [(2, (3, 5), (2, 2)), (5, (4, 2), (3, 2)), (3, (2, 6), (2, 4))]
    ]

    def activity(maps):
        return maps.square().sum(1).flatten(1)

    def length(x):
        return x.norm(dim=1, keepdim=True)

    def between(view, size):
        return lambda s, t: size(view(s) - view(t).detach())

    def attention(maps):
        return activity(maps) / length(activity(maps))

    def mean_length(gap):
        return gap.norm(dim=1).mean()

    right = between(attention, mean_length)
    compare(
        "attention_loss", attempt, right, cases,
        {
            "the maps are not divided by their lengths: a student with larger activations would pay for that.":
                between(activity, mean_length),
            "the values are summed as they are: square them first, or positive and negative ones cancel.":
                between(lambda m: m.sum(1).flatten(1) / length(m.sum(1).flatten(1)), mean_length),
            "these are absolute values, p = 1: square them.":
                between(lambda m: m.abs().sum(1).flatten(1) / length(m.abs().sum(1).flatten(1)), mean_length),
            "divided by the sum over the places: take the length, the root of the sum of squares.":
                between(lambda m: activity(m) / activity(m).sum(1, keepdim=True), mean_length),
            "one length for the whole batch: each image has its own.":
                between(lambda m: activity(m) / activity(m).norm(), mean_length),
            "this is the squared length of the difference: take its root.":
                between(attention, lambda gap: gap.square().sum(1).mean()),
            "this is the mean square over places and images: take the length of each image's difference, then the mean.":
                between(attention, lambda gap: gap.square().mean()),
            "this is one length for the whole batch: take that of each image, then the mean.":
                between(attention, lambda gap: gap.norm()),
            "this is the sum over the images: take the mean.":
                between(attention, lambda gap: gap.norm(dim=1).sum()),
            "this is the loss of each image: take the mean.":
                between(attention, lambda gap: gap.norm(dim=1)),
        },
        student=0, teacher=1,
    )  # fmt: skip
