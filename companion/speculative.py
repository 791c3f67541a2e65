"""A student as a draft: it proposes tokens, its teacher checks them at once, and what comes out is the teacher's.

p is the target's distribution (the teacher's), q the draft's (the student's), both at temperature 1.
Source: Leviathan, Kalman & Matias 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318.
"""

import torch
from torch import Tensor

from ._core import wide
from ._input import check_logits, check_within


def acceptance(logits_s: Tensor, logits_t: Tensor) -> Tensor:
    """Σ min(p, q) = 1 − TV(p, q): the chance that a token which the draft proposes is kept (eq-acceptance).

    Args:
        logits_s, logits_t: of draft and target in the same contexts, (N, V) or (B, L, V).

    Returns:
        (N,) or (B, L), each 0 … 1; 1 where p = q.

    Raises:
        TypeError, ValueError: no logits, other shapes, NaN.

    Source: Leviathan et al. 2023, Theorem 3.5 and Corollary 3.6.
    """
    check_logits(logits_s, logits_t)
    return (
        torch.minimum(_shares(logits_t), _shares(logits_s)).sum(-1).clamp(max=1)
    )  # a sum is off by rounding


def _shares(logits: Tensor) -> Tensor:
    p = wide(logits).softmax(-1)
    if p.isnan().any():
        raise ValueError("logits hold NaN or +∞, or a row is −∞ everywhere: it is no distribution.")
    return p


def tokens_per_call(a: float, n: int) -> float:
    """(1 − aⁿ⁺¹)/(1 − a): tokens that one call of the target yields on average, with n proposed (eq-tokens-per-call).

    Args:
        a: chance that a proposal is kept, 0 … 1, taken to be the same everywhere and independent. n: 1 or more.

    Returns:
        1 (nothing is ever kept) … n + 1 (everything is).

    Raises:
        ValueError: a is no share, or n below 1.

    Source: Leviathan et al. 2023, eq. 1.
    """
    if not 0 <= a <= 1 or n < 1:
        raise ValueError(f"takes a share a from 0 to 1 and n ≥ 1; got {a} and {n}.")
    return sum(a**i for i in range(n + 1))


def verify(proposed: Tensor, logits_s: Tensor, logits_t: Tensor, generator: torch.Generator) -> Tensor:
    """The tokens that are kept, and one more: each distributed as the target's own (eq-speculative).

    Args:
        proposed: n tokens (n,) that the draft has drawn, each from its own row of logits_s.
        logits_s: the draft's logits before each, (n, V).
        logits_t: the target's in the same places and behind the last, (n + 1, V), from one call.
        generator: of the draws.

    Returns:
        (k,), k = 1 … n + 1: proposals up to the first that is refused, in its place one drawn from what is left of the
        target, max(0, p − q); behind n kept ones, one drawn from p.

    Raises:
        ValueError: shapes do not fit, a proposal is no token, or NaN.

    Source: Leviathan et al. 2023, Algorithm 1.
    """
    n = len(proposed)
    if proposed.shape != (n,) or logits_s.shape[:1] != (n,) or len(logits_t) != n + 1:
        raise ValueError(
            f"takes proposals (n,), logits (n, V) and (n + 1, V); got {tuple(proposed.shape)}, "
            f"{tuple(logits_s.shape)} and {tuple(logits_t.shape)}."
        )
    if proposed.is_floating_point() or proposed.dtype == torch.bool:
        raise ValueError(f"proposals are token numbers; got {proposed.dtype}.")
    check_logits(logits_s, logits_t[:n])
    check_within("proposals", proposed, logits_s.shape[-1])
    q, p = _shares(logits_s), _shares(logits_t)
    draws = torch.rand(n, generator=generator)
    for i, token in enumerate(proposed):
        if draws[i] * q[i, token] >= p[i, token]:  # kept with the chance min(1, p/q)
            rest = (p[i] - q[i]).clamp(min=0)
            rest = rest if rest.any() else p[i]  # the two are equal, and only rounding has refused
            return torch.cat([proposed[:i], rest.multinomial(1, generator=generator)])
    return torch.cat([proposed, p[n].multinomial(1, generator=generator)])
