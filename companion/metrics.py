"""What is measured, and how sure the measurement is. Accuracies, agreements and errors are in per cent."""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from ._input import whole


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Share of examples whose largest logit is the label, in %. logits (N, C), y (N,) in 0 … C−1.

    Raises:
        ValueError: shapes do not fit, no example, one column only, a label that is no class, NaN, +∞, or a row all −∞.
            (One class at −∞ is ruled out, which is an answer.)
    """
    _check(logits, y)
    return 100 * (logits.argmax(-1) == y).sum().item() / len(y)


def agreement(logits_s: Tensor, logits_t: Tensor) -> float:
    """Share of examples on which student and teacher name the same class, in %: fidelity, not accuracy.

    Args: both (N, C). Source: Stanton et al. 2021, arXiv:2106.05945, eq. 2 ("average top-1 agreement").
    """
    _check_tensors(logits_s, logits_t)
    if logits_s.shape != logits_t.shape:
        raise ValueError(f"shapes differ: {tuple(logits_s.shape)} and {tuple(logits_t.shape)}.")
    named = logits_t.argmax(-1)
    _check(logits_t, named)
    return accuracy(logits_s, named)


def calibration_error(logits: Tensor, y: Tensor, bins: int = 15) -> float:
    """ECE = Σ_b (n_b/N) · |accuracy_b − confidence_b| over equal-width bins of confidence, in % (eq-ece).

    Args:
        logits: (N, C); the confidence is the largest value of softmax(logits), at T = 1. y: (N,).
        bins: number of bins of [0, 1].

    Returns:
        0 … 100; 0 where confidence and accuracy agree in every bin. Biased upwards for small N.

    Raises:
        ValueError: as `accuracy`; bins is no whole number above 0.

    Source: Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    _check(logits, y)
    whole("bins", bins)
    confidence, predicted = logits.double().softmax(-1).max(-1)
    gap = (predicted == y).double() - confidence
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1
    per_bin = torch.zeros(bins, dtype=torch.double, device="cpu").index_add_(0, index.cpu(), gap.cpu())
    return 100 * per_bin.abs().sum().item() / len(y)


def temperature_scale(logits: Tensor, y: Tensor) -> float:
    """The T > 0 that minimises the mean of −log softmax(z/T)_y: what a network's confidence is judged with.

    Fit it on validation logits and measure on others, `calibration_error(test_logits / T, y)`. It changes no
    prediction. A gain in calibration that remains beside it is more than a gain in scale.

    Args:
        logits: (N, C), finite. y: labels (N,) in 0 … C−1.

    Returns:
        T, to 12 digits; above 1 where the network is too sure, below 1 where it is not sure enough. The loss is
        convex in 1/T, so there is no other minimum.

    Raises:
        ValueError: as `accuracy`; or there is no such T: every label has the largest logit, or the labels'
            logits lie no higher on average than the others'.

    Source: Guo et al. 2017, arXiv:1706.04599, §4.2, "temperature scaling".
    """
    _check(logits, y)
    if not logits.isfinite().all():
        raise ValueError("the logits must be finite: a class at −∞ stays there at every T.")
    z = logits.detach().double()
    z = z - z.gather(1, y[:, None].long())

    def slope(k: float) -> float:
        """The loss's derivative in k = 1/T, which rises with k."""
        return ((k * z).softmax(-1) * z).sum(-1).mean().item()

    if (z <= 0).all():
        raise ValueError(
            "every label has the largest logit: the loss falls as long as T does. Take more examples."
        )
    if slope(0) >= 0:
        raise ValueError(
            "the labels' logits are no higher than the others': no T > 0 makes these logits better."
        )
    low = high = 1 / z.abs().max().item()
    while slope(high) < 0:
        high *= 2
    while slope(low) > 0:
        low /= 2
    while high - low > 1e-13 * high:
        k = (low + high) / 2
        low, high = (k, high) if slope(k) < 0 else (low, k)
    return 2 / (low + high)


def gap_recovered(student: float, baseline: float, teacher: float) -> float:
    """(student − baseline) / (teacher − baseline): the share of the gap that distillation closes (eq-gap).

    Args: three accuracies. Returns: 0 for no gain, 1 for the teacher's level; it may lie outside.

    Raises:
        ValueError: the teacher is not better than the baseline, so there is no gap to share; or a value is not finite.
    """
    if not teacher > baseline:
        raise ValueError(f"no gap: the teacher has {teacher:.2f} and the baseline {baseline:.2f}.")
    if not all(map(math.isfinite, (student, baseline, teacher))):
        raise ValueError(f"accuracies are finite; got {student}, {baseline} and {teacher}.")
    return (student - baseline) / (teacher - baseline)


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def __format__(self, spec: str) -> str:
        """f"{interval:.1f}" is "+2.1 ± 0.4": the spec is that of each number; the mean's sign is always written."""
        align, sign, rest = re.fullmatch(r"((?:.?[<>=^])?)([-+ ]?)(.*)", spec or ".2f").groups()
        mean, half = format(self.mean, align + (sign or "+") + rest), format(self.half_width, align + rest)
        return f"{mean} ± {half}".replace("-", "−")

    def __str__(self) -> str:
        return format(self)


def paired_interval(a, b=None, level: float = 0.95) -> Interval:
    """Mean of the differences a_i − b_i and its t-interval: d̄ ± t_{n−1} · s_d/√n (eq-paired-interval).

    Pair what shares a seed, a subset or a teacher: what both runs share cancels.

    Args:
        a: n values, one a repetition. b: as many, in the same order; None for the interval of a itself.
        level: coverage, between 0 and 1.

    Raises:
        ValueError: fewer than two pairs, different lengths, a table, a value that is not finite, or no such level.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a share between 0 and 1; got {level}.")
    a = torch.as_tensor(a, dtype=torch.double, device="cpu")
    b = torch.zeros_like(a) if b is None else torch.as_tensor(b, dtype=torch.double, device="cpu")
    if a.dim() != 1 or b.dim() != 1:
        raise ValueError(
            f"takes one value per repetition, (n,); got {tuple(a.shape)} and {tuple(b.shape)}. What a repetition "
            "measured several times is one value: its mean."
        )
    n = len(a)
    if n < 2 or len(b) != n:
        raise ValueError(f"an interval needs two pairs at least; got {n} and {len(b)} values.")
    difference = a - b
    if not difference.isfinite().all():
        raise ValueError(f"values must be finite; got {difference.tolist()}.")
    half = _t_quantile((1 + level) / 2, n - 1) * difference.std().item() / math.sqrt(n)
    mean = difference.mean().item()
    return Interval(mean, mean - half, mean + half, n)


def _t_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t by integrating its density in θ = arctan(x/√ν), which keeps the tail finite."""
    theta = torch.linspace(0, math.pi / 2, 100_001, dtype=torch.double, device="cpu")
    mass = torch.cumulative_trapezoid(theta.cos() ** (freedom - 1), theta)
    mass = mass / mass[-1] / 2 + 0.5
    i = int(torch.searchsorted(mass, probability))
    left = mass[i - 1] if i else mass.new_tensor(0.5)
    share = (probability - left) / (mass[i] - left)
    return math.sqrt(freedom) * math.tan(theta[i] + share * (theta[i + 1] - theta[i]))


def _check_tensors(*given) -> None:
    if not all(isinstance(x, Tensor) for x in given):
        kinds = " and ".join(type(x).__name__ for x in given)
        raise TypeError(f"takes logits and labels as tensors; got {kinds}: torch.as_tensor(x).")


def _check(logits: Tensor, y: Tensor) -> None:
    _check_tensors(logits, y)
    if logits.dim() != 2 or y.shape != logits.shape[:1] or len(y) == 0:
        raise ValueError(
            f"takes logits (N, C) and labels (N,), N > 0; got {tuple(logits.shape)}, {tuple(y.shape)}."
        )
    classes = logits.shape[1]
    if classes < 2:
        raise ValueError(
            f"takes one logit per class; got {tuple(logits.shape)}. "
            "A single sigmoid logit z is two classes: torch.cat([0 * z, z], dim=1)."
        )
    if y.is_floating_point() or y.dtype == torch.bool or y.min() < 0 or y.max() >= classes:
        raise ValueError(
            f"labels are whole numbers in 0 … {classes - 1}; got {y.dtype}, {y.min().item()} … {y.max().item()}. "
            "Leave out what has no label: keep = y != -100; logits[keep], y[keep]."
        )
    if logits.isnan().any():
        raise ValueError(f"{int(logits.isnan().any(-1).sum())} of {len(y)} rows of logits hold NaN.")
    if not logits.amax(-1).isfinite().all():
        bad = int((~logits.amax(-1).isfinite()).sum())
        raise ValueError(
            f"{bad} of {len(y)} rows of logits hold +∞, or −∞ only: no class can be told from them."
        )
