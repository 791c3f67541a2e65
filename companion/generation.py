"""A language model writes: one token after the other, drawn or the likeliest."""

import math

import torch
from torch import Tensor, nn

from ._input import number


@torch.no_grad()
def generate(
    model: nn.Module,
    ids: Tensor,
    n: int,
    T: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    end: int | None = None,
    cache: bool = True,
) -> Tensor:
    """n more tokens, each drawn from softmax(z / T), of the k likeliest where top_k says so.

    T here is the sampling's, and no loss's: a loss on what was drawn takes the logits as they are.

    Args:
        model: gives logits (B, L, V) as model(ids), and with cache=True as model(ids, cache=list): it keeps in the list
            what it needs of past tokens and is then given the new ones only, as `teachers.SmolLM2` is.
        ids: beginnings of one length (B, L), int64, at least one token.
        n: how many tokens to write at most.
        T: temperature, ≥ 0; 0 takes the likeliest token.
        top_k: how many of the likeliest tokens may be drawn; None: all.
        generator: draws; needed unless T is 0, so that two runs write the same.
        end: the token that ends a text: what comes after it is filled with it.
        cache: False calls the model on all tokens each time.

    Returns:
        (B, L + up to n): the beginnings and what was written. The model is left in the mode it was in.

    Raises:
        ValueError: ids of another shape, T < 0, top_k < 1, n < 0, no generator where one is needed, logits with NaN.
    """
    _check(ids, n, T := number("temperature T", T), top_k, generator)
    was_training, past = model.training, []
    model.eval()
    try:
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for step in range(n):
            logits = model(ids if step == 0 else ids[:, -1:], cache=past) if cache else model(ids)
            token = _draw(logits[:, -1].float(), T, top_k, generator)
            if end is not None:
                token = token.masked_fill(done, end)
                done |= token == end
            ids = torch.cat([ids, token[:, None]], 1)
            if done.all():
                break
    finally:
        model.train(was_training)
    return ids


def _draw(z: Tensor, T: float, top_k: int | None, generator) -> Tensor:
    if not z.amax(-1).isfinite().all():
        raise ValueError("the model's logits hold NaN or +∞, or −∞ only: no token can be told from them.")
    if T == 0:
        return z.argmax(-1)
    if top_k is not None and top_k < z.shape[-1]:
        z, places = z.topk(top_k, -1)
    else:
        places = None
    z = (z - z.amax(-1, keepdim=True)) / T  # before the division: a small T shall not overflow
    drawn = z.softmax(-1).multinomial(1, generator=generator)
    return (drawn if places is None else places.gather(-1, drawn))[:, 0]


def _check(ids, n, T, top_k, generator) -> None:
    if not isinstance(ids, Tensor) or ids.dim() != 2 or ids.dtype != torch.long or not ids.numel():
        got = f"{tuple(ids.shape)}, {ids.dtype}" if isinstance(ids, Tensor) else type(ids).__name__
        raise ValueError(
            f"takes beginnings (B, L), int64, of at least one token; got {got}. One text: ids[None]."
        )
    if n < 0 or not 0 <= T < math.inf or (top_k is not None and top_k < 1):
        raise ValueError(f"takes n ≥ 0, T ≥ 0 and top_k ≥ 1 or None; got n = {n}, T = {T}, top_k = {top_k}.")
    if T > 0 and generator is None:
        raise ValueError(
            "tokens are drawn: pass generator=torch.Generator().manual_seed(…), or T=0 for the likeliest."
        )
