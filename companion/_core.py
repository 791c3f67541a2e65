"""What the losses share: the mean over rows with its gradient, the comparison of p with q, small pieces."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# Numbers a chunk of rows may have: the few arrays of that size that a formula needs stay in a core's cache.
CHUNK = 1 << 15


def mean_over_rows(
    formula: Callable[..., tuple[Tensor, Tensor]],
    logits_s: Tensor,
    logits_t: Tensor,
    mask: Tensor | None = None,
    more: tuple = (),
    chunk: int = CHUNK,
) -> Tensor:
    """Mean of a formula over the rows that count, differentiable once in the student's logits.

    Args:
        formula: called as formula(z, v, *more) on rows (n, C) in float32 or wider, without gradients; returns
            each row's value (n,) or (n, 1), and their derivative in z (n, C). It may not change z and v.
        logits_s, logits_t: (..., C), equal shapes. mask: (...) boolean, or None.
        more: further tensors, one value a row, e.g. labels.
        chunk: numbers at a time; rows stay whole.

    Returns:
        Scalar, float32 for half precision; 0 where no row counts.

    Raises:
        ValueError: shapes differ, the mask does not fit, or the mean is not finite.
    """
    if logits_s.shape != logits_t.shape or logits_s.dim() < 2:
        raise ValueError(
            "student and teacher logits must have the same shape (..., C); got "
            f"{tuple(logits_s.shape)} and {tuple(logits_t.shape)}."
        )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != logits_s.shape[:-1]):
        raise ValueError(
            f"the mask must be boolean of shape {tuple(logits_s.shape[:-1])}; got {mask.dtype} "
            f"{tuple(mask.shape)}."
        )
    return _MeanOverRows.apply(logits_s, logits_t.detach(), mask, formula, more, chunk)


class _MeanOverRows(torch.autograd.Function):
    """Makes the gradient in the forward pass, chunk by chunk; the backward pass only scales it."""

    @staticmethod
    def forward(ctx, logits_s, logits_t, mask, formula, more, chunk):
        rows = [x.flatten(0, -2) for x in (logits_s, logits_t)] + [*more]
        if mask is not None:  # what is masked may be NaN: leave it out, do not multiply it by 0
            rows = [x[mask.flatten()] for x in rows]
        n, classes = rows[0].shape
        step = max(1, chunk // max(classes, 1)) if logits_s.is_cpu else max(n, 1)
        total, gradient = (
            0.0,
            torch.empty(n, classes, dtype=wide_type(logits_s.dtype), device=logits_s.device),
        )
        rows.append(gradient)
        for z, v, *others, out in (
            [rows] if 0 < n <= step else zip(*(x.split(step) for x in rows if n), strict=True)
        ):
            value, slope = formula(wide(z), wide(v), *others)
            total += value.sum().item() / n
            torch.mul(slope, 1 / n, out=out)
        if not math.isfinite(total):
            raise ValueError(_not_finite(total, rows[0], rows[1]))
        if mask is not None:
            gradient = gradient.new_zeros(logits_s.shape).masked_scatter_(mask[..., None], gradient)
        ctx.save_for_backward(gradient if logits_s.dim() == 2 else gradient.view(logits_s.shape))
        ctx.dtype = logits_s.dtype
        return gradient.new_tensor(total)

    @staticmethod
    def backward(ctx, grad_loss):
        if torch.is_grad_enabled():
            raise RuntimeError("this loss can be differentiated once: its gradient was made without a graph.")
        return (ctx.saved_tensors[0] * grad_loss).to(ctx.dtype), None, None, None, None, None


def compare(z: Tensor, v: Tensor, T: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """p = softmax(v/T) against q = softmax(z/T), exact where they nearly agree and where they are far apart.

    With u = (z − v)/T, less its mean under p, q is p·e^u / Σ p·e^u. Hence, with s = Σ p·(e^u − 1 − u) ≥ 0,
    KL(p‖q) = log(1 + s), log(q/p) = u − KL and q − p = p·(e^u − 1 − s)/(1 + s): nothing of size 1 cancels.

    Returns:
        p (n, C), log(q/p) (n, C), q − p (n, C) and KL(p‖q) (n, 1).
    """
    p = (v - v.amax(-1, keepdim=True)).div_(T).exp_()
    p.div_(p.sum(-1, keepdim=True))
    u = (z - v).div_(T)
    u.sub_((p * u).sum(-1, keepdim=True))
    r = u.expm1()
    s = (r - u).mul_(p).sum(-1, keepdim=True)
    if not math.isfinite(s.sum().item()):
        return _compare_far(z, v, T)
    kl = s.log1p()
    return p, u.sub_(kl), r.sub_(s).mul_(p).div_(s.add_(1)), kl


def _compare_far(z: Tensor, v: Tensor, T: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`compare` where e^u overflows or a class is at −inf: from log p and log q."""
    log_p, log_q = (v / T).log_softmax(-1), (z / T).log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    ratio = torch.where(log_p == log_q, 0, log_q - log_p)  # also −inf on both sides
    gap = torch.where(ratio.abs() < 0.5, p * ratio.expm1(), q - p)
    kl = (gap - torch.where(p > 0, p * ratio, 0)).sum(-1, keepdim=True)
    return p, ratio, gap, kl


def cross_entropy(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """−log softmax(z)_y of each row, y (n, 1), and its derivative softmax(z) − onehot(y)."""
    z = z - z.amax(-1, keepdim=True)
    target = z.gather(-1, y)
    total = z.exp_().sum(-1, keepdim=True)
    z.div_(total).scatter_add_(-1, y, torch.full_like(target, -1.0))
    return total.log_().sub_(target), z


def standardized(x: Tensor) -> tuple[Tensor, Tensor]:
    """(x − mean)/(std + 1e-7) and std of each row, the divisor of the variance being C − 1."""
    x = x - x.mean(-1, keepdim=True)
    std = x.square().sum(-1, keepdim=True).div_(max(x.shape[-1] - 1, 1)).sqrt_()
    return x.div_(std + 1e-7), std


def decorrelation(x: Tensor, y: Tensor, dim: int, weight: float) -> tuple[Tensor, Tensor]:
    """weight · Σ (1 − ρ) of x and y along dim, as ½‖a − b‖² of unit vectors; and its derivative in x."""
    (a, size), (b, _) = (_unit(t, dim) for t in (x, y))
    half = (a - b).square_().sum(dim, keepdim=True).div_(2)
    slope = (a - b).sub_(a * half).mul_(weight).div_(size)  # (a − b) − a·(1 − ρ) is ρ·a − b
    return half.sum() * weight, slope.masked_fill_(size == float("inf"), 0)


def _unit(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """x centred along dim over its length, and the length; 0 and ∞ where x is constant to rounding."""
    least = 4 * torch.finfo(x.dtype).eps * x.norm(dim=dim, keepdim=True)
    x = x - x.mean(dim, keepdim=True)
    size = x.norm(dim=dim, keepdim=True)
    size.masked_fill_(size <= least, float("inf"))
    return x.div_(size), size


def wide(x: Tensor) -> Tensor:
    """float32 for half precision, where e^12 already overflows; wider types as they are."""
    return x.to(wide_type(x.dtype))


def wide_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def temperature(T: float) -> float:
    """T, if it is one."""
    if not 0 < T < math.inf:
        raise ValueError(f"the temperature T must be a positive number; got {T}.")
    return T


def _not_finite(total: float, z: Tensor, v: Tensor) -> str:
    ranges = ", ".join(f"{what} {_range(x)}" for what, x in (("student", z), ("teacher", v)))
    return (
        f"the loss is {total}: logits are {ranges}. Mask positions that do not count; a class that one side "
        "rules out (−inf) and the other does not may be infinitely far."
    )


def _range(x: Tensor) -> str:
    known = x[~x.isnan()].float()
    span = f"{known.min():.3g} … {known.max():.3g}" if len(known) else "all NaN"
    return f"{span} ({int(x.isnan().sum())} NaN)"
