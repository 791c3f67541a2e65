"""The last layer and its distillation loss in one: the logits of all tokens are never there at once.

A vocabulary makes the logits of a batch the largest tensor of a training step: 4,096 tokens × 128,000 words are
2 GB in float32, and the usual lines keep five such tables. Here the tokens go through in groups: logits of a group,
its loss, its gradient, and what that means for the features and the weights; then the next. So the gradient is
made in the forward pass, and the backward pass only scales it.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor

from ._core import ONCE
from ._input import (
    NotFinite,
    check_mask,
    check_within,
    class_labels,
    number,
    positive,
    row_count,
    temperature,
)
from .tokens import forward_kl_loss

# Tokens in a group: enough that the matrix products run at their usual speed. Numbers a loss is given at a time.
GROUP, GROUP_OFF_CPU, AT_ONCE, AT_ONCE_OFF_CPU = 128, 1024, 1 << 17, 1 << 25


def fused_linear_kd_loss(
    features_s: Tensor,
    weight_s: Tensor,
    features_t: Tensor,
    weight_t: Tensor,
    T: float = 1.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
    *,
    loss: Callable[..., Tensor] = forward_kl_loss,
    y: Tensor | None = None,
    alpha: float = 1.0,
    cap_s: float | None = None,
    cap_t: float | None = None,
) -> Tensor:
    """(1 − α) · CE(y, z) + α · loss(z, v, T), z = h_s W_sᵀ, v = h_t W_tᵀ, without the (tokens, V) logits.

    Args:
        features_s: what the student's last layer is given (N, d_s) or (B, L, d_s). Where a model multiplies its logits
            by a number, multiply these.
        weight_s: that layer's weight (V, d_s); it has no bias.
        features_t, weight_t: the teacher's, (N, d_t) or (B, L, d_t), and (V, d_t). They receive no gradient.
        T: temperature of both sides, > 0.
        mask: (N,) or (B, L), True where a token counts; features of others may be NaN. denominator: as in `kd_loss`.
        loss: called as loss(z, v, T=T, denominator=n) on a group; any of `tokens` or of your own whose parts add up,
            e.g. partial(generalized_jsd_loss, beta=0.3).
        y: labels (N,) or (B, L), needed where α < 1. alpha: weight of `loss`, 0 … 1.
        cap_s, cap_t: c of a soft cap, z = c · tanh(h Wᵀ / c); None: there is none.

    Returns:
        Scalar, nats per counted token, as the loss on the logits gives it. It is not for `torch.func`.

    Raises:
        TypeError, ValueError: as `loss`; shapes do not fit, vocabularies differ in size, α < 1 without labels.

    Source: the idea is Liger Kernel's (Hsu et al. 2024, arXiv:2410.10989, §3.2), there for cross-entropy.
    """
    T, alpha = temperature(T), _weight(alpha, y)
    _check(features_s, weight_s, features_t, weight_t)
    check_mask(mask, features_s)
    rows = features_s[..., 0].numel()
    if y is not None:
        y = _labels(features_s, y, mask, len(weight_s))
    kept = torch.arange(rows).to(features_s.device) if mask is None else mask.flatten().nonzero()[:, 0]
    n = max(len(kept), 1) if denominator is None else row_count(denominator, rows, mask)
    caps = tuple(None if c is None else positive("soft cap", c) for c in (cap_s, cap_t))
    part = partial(_part, loss=partial(loss, T=T, denominator=n), y=y, alpha=alpha, n=n)
    flat = features_s.flatten(0, -2), weight_s, features_t.detach().flatten(0, -2), weight_t.detach()
    found = _Fused.apply(*flat, kept, part, caps)
    if not alpha and not math.isfinite(found.item()):  # `loss` has not been asked, which would have said so
        raise NotFinite(f"the loss is {found.item()}: the student's features or weight are not finite.")
    return found


class _Fused(torch.autograd.Function):
    """Group by group: logits, loss, gradient, and its two products."""

    @staticmethod
    def forward(ctx, h, weight, h_t, weight_t, kept, part, caps):
        wider, group = torch.promote_types(h.dtype, torch.float32), GROUP if h.is_cpu else GROUP_OFF_CPU
        w, w_t = weight.to(h.dtype), weight_t.to(h_t.dtype)
        of_h, of_weight, total = torch.zeros_like(h), None, h.new_zeros((), dtype=wider)
        if ctx.needs_input_grad[1]:
            of_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, wider))
        room = [x.new_empty(min(group, len(kept)), len(w)) for x in (h, h_t)]
        for places in kept.split(group) if len(kept) else ():
            x, x_t = h[places], h_t[places]
            z, v = room[0][: len(x)], room[1][: len(x)]
            (
                torch.mm(x, w.T, out=z),
                torch.mm(x_t, w_t.T, out=v),
            )  # autocast leaves alone what is written to a place
            total += _to_slopes(z, v, places, part, caps)
            of_h[places] = torch.mm(z, w, out=torch.empty_like(x))
            if of_weight is not None:
                _add_product(of_weight, z, x)
        ctx.save_for_backward(of_h, None if of_weight is None else of_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx, grad_loss):
        if torch.is_grad_enabled():
            raise RuntimeError(ONCE)
        if (
            grad_loss.is_cpu and grad_loss.item() == 1
        ):  # loss.backward(): no second table of the weights' size
            return *ctx.saved_tensors, *repeat(None, 5)
        scaled = (None if x is None else (x * grad_loss).to(x.dtype) for x in ctx.saved_tensors)
        return *scaled, *repeat(None, 5)


def _to_slopes(z, v, places, part, caps) -> Tensor:
    """The loss of a group; what was its student logits becomes their gradient. Few rows at a time stay in the cache."""
    total, rows = 0, max(1, (AT_ONCE if z.is_cpu else AT_ONCE_OFF_CPU) // z.shape[1])
    for a, b, of in zip(z.split(rows), v.split(rows), places.split(rows), strict=True):
        with torch.enable_grad():
            here = a.detach().requires_grad_()
            value = part(_capped(here, caps[0]), _capped(b, caps[1]), of)
            (slope,) = torch.autograd.grad(value, here)
        a.copy_(slope)
        total = total + value.detach()
    return total


def _part(z, v, group, loss, y, alpha, n) -> Tensor:
    """A group's share of the mean over all tokens."""
    value = alpha * loss(z, v) if alpha else 0
    if alpha < 1:
        z = z if z.dtype == torch.float64 else z.float()
        value = value + (1 - alpha) / n * F.cross_entropy(z, y[group], reduction="sum")
    return value


def _capped(z: Tensor, cap: float | None) -> Tensor:
    return z if cap is None else cap * torch.tanh(z / cap)


def _add_product(total: Tensor, slope: Tensor, x: Tensor) -> None:
    if total.dtype == slope.dtype:
        total.addmm_(slope.T, x)
    else:
        total += torch.mm(slope.T, x, out=x.new_empty(total.shape))


def _weight(alpha: float, y: Tensor | None) -> float:
    alpha = number("alpha", alpha)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the weight of the soft term, 0 … 1; got {alpha}.")
    if alpha < 1 and y is None:
        raise ValueError(f"alpha = {alpha} leaves {1 - alpha:g} for the labels: pass y, or alpha=1.")
    return alpha


def _labels(features: Tensor, y: Tensor, mask: Tensor | None, vocabulary: int) -> Tensor:
    """Labels by row; those of masked tokens are never looked at."""
    y = class_labels(features, y)
    remedy = " Leave out tokens without one: mask=(y != -100)."
    check_within("labels", y if mask is None else y[mask.flatten()], vocabulary, remedy)
    return y


def _check(features_s, weight_s, features_t, weight_t) -> None:
    for side, h, weight in (("student", features_s, weight_s), ("teacher", features_t, weight_t)):
        for what, x in (("features", h), ("weight", weight)):
            if not isinstance(x, Tensor) or not x.is_floating_point():
                got = x.dtype if isinstance(x, Tensor) else type(x).__name__
                raise TypeError(f"the {side}'s {what} must be a tensor of floating-point numbers; got {got}.")
    shapes = [tuple(x.shape) for x in (features_s, weight_s, features_t, weight_t)]
    got = "got student {} and {}, teacher {} and {}.".format(*shapes)
    if features_s.dim() not in (2, 3) or features_s.shape[:-1] != features_t.shape[:-1]:
        raise ValueError(f"takes features (N, d) or (B, L, d), one row a token on both sides; {got}")
    if any(
        w.dim() != 2 or w.shape[1:] != h[-1:] for h, w in zip(shapes[::2], (weight_s, weight_t), strict=True)
    ):
        raise ValueError(f"takes features (…, d) and the last layer's weight (V, d) of each side; {got}")
    if len(weight_s) != len(weight_t) or len(weight_s) < 2:
        raise ValueError(
            f"the vocabularies differ in size or have one token; {got} If both models use one tokenizer and one weight "
            "is padded at its end, cut it, weight[:V]. Two tokenizers: see companion.vocabulary."
        )
