"""The pieces of the losses' formulas, on rows in float32 or wider: values with their derivatives."""

import math
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

# From this temperature on it is worth asking which of the u are next to nothing: mostly all.
FLAT = 100
RULED_OUT = -1e30  # a logit below is as good as −∞
_both_ways = ContextVar("both ways", default=False)


@contextmanager
def in_both_ways():
    """Within, `compare` makes every row also from log p and log q, and takes each row's better one."""
    token = _both_ways.set(True)
    try:
        yield
    finally:
        _both_ways.reset(token)


def compare(z: Tensor, v: Tensor, T: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """p = softmax(v/T) against q = softmax(z/T), exact where they nearly agree and where they are far apart.

    With u = (z − v)/T, less its mean under p, q is p·e^u / Σ p·e^u. Hence, with s = Σ p·(e^u − 1 − u) ≥ 0,
    KL(p‖q) = log(1 + s), log(q/p) = u − KL and q − p = p·(e^u − 1 − s)/(1 + s): nothing of size 1 cancels.
    A row where e^u overflows, or with a class at −inf, is taken from log p and log q.

    Returns:
        p (n, C), log(q/p) (n, C), q − p (n, C) and KL(p‖q) (n, 1).
    """
    if v.is_cpu:
        p = (v - v.amax(-1, keepdim=True)).div_(T).exp_()
        p.div_(p.sum(-1, keepdim=True))
    else:  # there one kernel is faster than five
        p = (v / T).softmax(-1)
    return _compare(p, z, v, T)


def compare_below(z: Tensor, v: Tensor, y: Tensor, T: float) -> tuple[Tensor, Tensor]:
    """q̂ − p̂ and KL(p̂‖q̂) among the classes that the teacher ranks below y (n, 1); 0 where none has a probability."""
    below = (v < v.gather(-1, y)).to(v.dtype)
    most = ((below - 1) * -RULED_OUT).add_(v).amax(-1, keepdim=True)
    some = most > RULED_OUT
    below = torch.maximum(below, (~some).to(v.dtype))
    # what is left out is set to 0, not put out of reach: an exponential that underflows takes ten times as long
    p = (v - most).div_(T).clamp_max_(0).exp_().mul_(below)
    _, _, gap, kl = _compare(p.div_(p.sum(-1, keepdim=True)), z, v, T, below)
    return gap.mul_(some), kl.where(some, 0)


def _compare(p: Tensor, z: Tensor, v: Tensor, T: float, among: Tensor | None = None) -> tuple[Tensor, ...]:
    """`compare` given p; `among` is 1 for a class that counts, else 0."""
    u = (z - v).div_(T)
    u.sub_((p * u).sum(-1, keepdim=True))
    if among is not None:
        u.mul_(among)  # what does not count, p = 0, is not to overflow either
    r = u.expm1()
    rest = r - u
    if T > FLAT:  # so flat that e^u − 1 − u itself cancels: take its series where u is small
        rest = torch.where(u.abs() < 1e-2, u.square() * (0.5 + u * (1 / 6 + u / 24)), rest)
    s = rest.mul_(p).sum(-1, keepdim=True)
    del rest  # a chunk less while the rest is made
    where, kl, at_first = None, s.log1p(), not (torch.compiler.is_compiling() or _both_ways.get())
    if not (at_first and z.is_cpu and math.isfinite(s.sum().item())):
        # A GPU is not asked, which would make the program wait for it: there a row that overflows is not finite at first.
        where = s.isfinite()
    parts = p, u.sub_(kl), r.sub_(s).mul_(p).div_(s.add_(1)), kl
    if where is None or (at_first and not z.is_cpu):
        return parts
    if among is not None:
        z, v = (x.masked_fill(among == 0, -math.inf) for x in (z, v))
    return tuple(torch.where(where, a, b) for a, b in zip(parts, _compare_far(z, v, T), strict=True))


def _compare_far(z: Tensor, v: Tensor, T: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`compare` from log p and log q."""
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
    std = x.square().sum(-1, keepdim=True).div_(x.shape[-1] - 1).sqrt_()
    return x.div_(std + 1e-7), std


def compare_standardized(z: Tensor, v: Tensor, T: float) -> tuple[Tensor, Tensor, Tensor]:
    """T² · KL of the standardized rows, its derivative in z as it came, and the teacher's std."""
    (z, std), (v, std_t) = (standardized(x) for x in (z, v))
    _, _, gap, kl = compare(z, v, T)
    # dz/dlogits: no part along the constant vector (gap has none) nor, but for the 1e-7, along z itself
    scale = (std + 1e-7) / (std.clamp_min(1e-30) * (z.shape[-1] - 1))
    along = (gap * z).sum(-1, keepdim=True).mul_(scale)
    # a row that is constant, but for rounding, is led as though it had the teacher's spread
    std = torch.where(std > 8 * torch.finfo(z.dtype).eps * std_t, std, std_t)
    return kl.mul_(T * T), gap.sub_(along * z).mul_(T).div_(std + 1e-7), std_t


def out_of_reach(z: Tensor, v: Tensor, T: float) -> Tensor:
    """A logit for each row that takes a class out of both softmaxes: e^−1000 = 0."""
    return torch.minimum(z.amin(-1, keepdim=True), v.amin(-1, keepdim=True)) - 1000 * T


def against_rest(x: Tensor, c: Tensor, T: float) -> tuple[Tensor, Tensor]:
    """x_c/T beside the log of the other classes' sum (n, 2), and the others' shares of it (n, C), 0 at c."""
    rest = x.scatter(-1, c, -math.inf)
    most = rest.amax(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).min)  # others that are all ruled out
    shares = rest.sub_(most).div_(T).exp_()
    total = shares.sum(-1, keepdim=True)
    pair = torch.cat([x.gather(-1, c) / T, most / T + total.log()], -1)
    return pair, shares.div_(total.clamp_min(torch.finfo(x.dtype).tiny))


def decorrelation(x: Tensor, y: Tensor, dim: int, weight: float) -> tuple[Tensor, Tensor]:
    """weight · Σ (1 − ρ) of x and y along dim, as ½‖a − b‖² of unit vectors; and its derivative in x."""
    (a, size), (b, size_y) = (_unit(t, dim) for t in (x, y))
    half = (a - b).square_().sum(dim, keepdim=True).div_(2)
    slope = (a - b).sub_(a * half).mul_(weight)  # (a − b) − a·(1 − ρ) is ρ·a − b
    return half.sum() * weight, slope.div_(torch.where(size == math.inf, size_y, size))


def _unit(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """x centred along dim over its length, and the length; 0 and ∞ where x is constant to rounding."""
    mean = x.mean(dim, keepdim=True)
    x = x - mean
    size = x.norm(dim=dim, keepdim=True)
    size.masked_fill_(size <= 4 * torch.finfo(x.dtype).eps * x.shape[dim] ** 0.5 * mean.abs(), math.inf)
    return x.div_(size), size


def bounded(ratio: Tensor) -> Tensor:
    """log(q/p) within ±80: beyond, the mixture is one of the two to the last digit, and e^ratio overflows."""
    return ratio.clamp_(-80, 80)


def through_softmax(q: Tensor, slope: Tensor, scale: float) -> Tensor:
    """scale · q · (slope − Σ q·slope): from the derivative in q to the one in the logits."""
    slope = slope - (q * slope).sum(-1, keepdim=True)
    return slope.mul_(q).mul_(scale)


def one_for_the_rest(log_q: Tensor, index: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """p_r (log p_r − log q_r) for all that is not stored, as one class; and its derivative in the logits at T = 1."""
    stored = torch.zeros_like(p).masked_fill_(p > 0, -math.inf)  # a place with p = 0 is padding
    rest = log_q.scatter_add(-1, index, stored)
    log_q_r = rest.logsumexp(-1, keepdim=True)
    nothing_left = log_q_r == -math.inf
    p_r = (1 - p.sum(-1, keepdim=True)).clamp_min_(0).masked_fill_(nothing_left, 0)
    value = -torch.special.entr(p_r) - p_r * log_q_r.masked_fill(nothing_left, 0)
    share = rest.softmax(-1).masked_fill_(nothing_left, 0)  # q_j / q_r of what is in the rest
    return value.squeeze(-1), log_q.exp().sub_(share).mul_(p_r)
