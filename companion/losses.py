"""Losses on the models' outputs ("responses").

One convention: z = student logits, v = teacher logits, T = temperature, p = softmax(v/T), q = softmax(z/T).
Sum over the C classes, mean over examples (or over the positions a mask keeps), natural logarithm (nats).
The teacher never receives a gradient. Half precision is computed in float32 inside. Each loss gives one
row's value and its derivative in z; `_core` takes the mean. A loss cannot be differentiated twice.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._core import compare, mean_over_rows, temperature, wide


def soften(logits: Tensor, T: float = 1.0) -> Tensor:
    """p = softmax(v / T) over the last dimension (eq-soften).

    Args:
        logits: (..., C), any real numbers; −inf gives a class probability 0.
        T: temperature, > 0. T = 1 is the usual softmax; larger T is softer.

    Returns:
        Probabilities (..., C), each row summing to 1; float32 for half-precision input.

    Raises:
        ValueError: T is not a positive number.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, eq. 1.
    """
    return (wide(logits) / temperature(T)).softmax(-1)


def kd_loss(logits_s: Tensor, logits_t: Tensor, T: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """T² · KL(p‖q) = T² · Σ_c p_c (log p_c − log q_c), mean over examples (eq-kd-loss).

    The gradient in the student's logits is T · (q − p) / N. The factor T² keeps it from vanishing as T grows.

    Args:
        logits_s: student logits (..., C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        T: temperature of both sides, > 0.
        mask: (...) boolean, True where a position counts; None counts all. What is masked may be NaN.

    Returns:
        Scalar, nats per counted example; ≥ 0, and 0 where both sides agree up to a constant per row, or where
        nothing counts. Its own gradient cannot be differentiated again.

    Raises:
        ValueError: shapes differ, T ≤ 0, the mask does not fit, or the result is not finite.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, §2 and §2.1 (T²); KL for their cross-entropy.
    """
    temperature(T)

    def rows(z, v):
        _, _, gap, kl = compare(z, v, T)  # gap = q − p
        return kl.mul_(T * T), gap.mul_(T)

    return mean_over_rows(rows, logits_s, logits_t, mask)


def distillation_loss(
    logits_s: Tensor, logits_t: Tensor, y: Tensor, T: float = 4.0, alpha: float = 0.9
) -> Tensor:
    """(1 − α) · CE(y, softmax z) + α · T² · KL(p‖q), mean over examples (eq-distillation-loss).

    Args:
        logits_s: student logits (N, C).
        logits_t: teacher logits (N, C). They receive no gradient.
        y: labels (N,), int64 in 0 … C−1. The hard term is at T = 1.
        T: temperature of the soft term, > 0.
        alpha: weight of the soft term, 0 … 1; 0 is ordinary training, 1 uses no labels.

    Returns:
        Scalar, nats per example. At z = v it is (1 − α) · CE, not 0: the labels may disagree with the teacher.

    Raises:
        ValueError: shapes differ or do not fit y, T ≤ 0, α outside 0 … 1, or the result is not finite.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, §2, "a weighted average of two objectives".
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the share of the soft term, 0 … 1; got {alpha}.")
    _check_labels(logits_s, y)
    soft = kd_loss(logits_s, logits_t, T)
    if alpha == 1 or len(y) == 0:
        return alpha * soft
    hard = F.cross_entropy(wide(logits_s), y)
    return (1 - alpha) * hard + alpha * soft


def logit_mse_loss(
    logits_s: Tensor, logits_t: Tensor, centred: bool = False, mask: Tensor | None = None
) -> Tensor:
    """‖z − v‖², sum over classes, mean over examples (eq-logit-mse).

    Centred, divided by 2C, it is the limit of `kd_loss` as T → ∞ (eq-limit-high).

    Args:
        logits_s: student logits (..., C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        centred: subtract each row's mean first, as the softmax does not see it.
        mask: (...) boolean, True where a position counts.

    Returns:
        Scalar, squared logits per counted example; 0 where both sides agree.

    Raises:
        ValueError: shapes differ, the mask does not fit, or the result is not finite (a class at −inf).

    Source: Ba & Caruana 2014, arXiv:1312.6184, eq. 1; Kim et al. 2021, arXiv:2105.08919, eq. 2.
    """

    def rows(z, v):
        gap = z - v
        if centred:
            gap.sub_(gap.mean(-1, keepdim=True))
        return gap.square().sum(-1), gap.mul_(2)

    return mean_over_rows(rows, logits_s, logits_t, mask)


def dkd_loss(
    logits_s: Tensor, logits_t: Tensor, y: Tensor, T: float = 4.0, alpha: float = 1.0, beta: float = 8.0
) -> Tensor:
    """T² · (α · TCKD + β · NCKD), mean over examples (eq-dkd).

    TCKD is the KL of (p_y, 1 − p_y) from (q_y, 1 − q_y): the target against the rest. NCKD is the KL among the
    other classes, p̂ from q̂, each renormalised without the target. KL(p‖q) = TCKD + (1 − p_y) · NCKD, so plain
    KD mutes NCKD where the teacher is sure. For two classes NCKD is 0.

    Args:
        logits_s: student logits (N, C).
        logits_t: teacher logits (N, C). They receive no gradient.
        y: labels (N,), int64 in 0 … C−1.
        T: temperature of both sides, > 0.
        alpha: weight of TCKD, ≥ 0. beta: weight of NCKD, ≥ 0. (Here α does not weigh soft against hard.)

    Returns:
        Scalar, nats per example; ≥ 0, and 0 where both sides agree up to a constant per row.

    Raises:
        ValueError: shapes differ or do not fit y, T ≤ 0, a negative weight, or the result is not finite.

    Source: Zhao et al. 2022, arXiv:2203.08679, eq. 7, and their code for T².
    """
    _check_labels(logits_s, y)
    temperature(T)
    if not (alpha >= 0 and beta >= 0):
        raise ValueError(f"alpha and beta are weights of 0 or more; got {alpha} and {beta}.")

    def rows(z, v, y):
        y = y[:, None]
        p, _, gap, kl = compare(z, v, T)
        out_of_reach = v.amin(-1, keepdim=True) - 1000 * T  # e^−1000 = 0: the target leaves both softmaxes
        _, _, gap_rest, nckd = compare(z.scatter(-1, y, out_of_reach), v.scatter(-1, y, out_of_reach), T)
        weight = beta - alpha * (1 - p.gather(-1, y))  # α · TCKD = α · KL − α · (1 − p_y) · NCKD
        value, slope = (alpha * a + weight * b for a, b in ((kl, nckd), (gap, gap_rest)))
        return value.mul_(T * T), slope.mul_(T)

    return mean_over_rows(rows, logits_s, logits_t, more=(y,))


def dist_loss(
    logits_s: Tensor, logits_t: Tensor, T: float = 1.0, beta: float = 1.0, gamma: float = 1.0
) -> Tensor:
    """T² · (β · mean_i (1 − ρ(p_i·, q_i·)) + γ · mean_c (1 − ρ(p_·c, q_·c))), ρ Pearson's correlation (eq-dist).

    The first term relates the classes of an example, the second the examples in a class.

    Args:
        logits_s: student logits (N, C).
        logits_t: teacher logits (N, C). They receive no gradient.
        T: temperature of both sides, > 0.
        beta: weight of the relations between classes. gamma: weight of those between examples.

    Returns:
        Scalar, no unit; 0 where both sides' probabilities agree. ρ does not exist for a row or a column of
        equal probabilities: it counts 0 beside another such one, ½ beside any other, and gets no gradient.

    Raises:
        ValueError: shapes differ or are not (N, C), T ≤ 0, or the result is not finite (a class at −inf).

    Source: Huang et al. 2022, arXiv:2205.10536, eq. 6–9; T² from their code.
    """
    temperature(T)
    if logits_s.dim() != 2:
        raise ValueError(f"dist_loss takes logits (N, C), a batch of examples; got {tuple(logits_s.shape)}.")

    def batch(z, v):
        q, p = ((x / T).softmax(-1) for x in (z, v))
        between_classes, slope = _decorrelation(q, p, -1, beta / len(z))
        between_examples, more = _decorrelation(q, p, 0, gamma / z.shape[1])
        slope.add_(more).mul_(q)
        slope.sub_(q * slope.sum(-1, keepdim=True))  # through the softmax
        # The sums are means already; `mean_over_rows` divides by N once more.
        return (between_classes + between_examples).mul_(T * T * len(z)), slope.mul_(T * len(z))

    return mean_over_rows(batch, logits_s, logits_t, chunk=max(logits_s.numel(), 1))


def standardized_kd_loss(
    logits_s: Tensor, logits_t: Tensor, T: float = 2.0, mask: Tensor | None = None
) -> Tensor:
    """kd_loss of (z − mean z)/(std z) and (v − mean v)/(std v), each row by its own (eq-standardized-kd).

    The student has to reproduce the teacher's logits up to a shift and a scale, so a smaller one need not
    reach the teacher's range.

    Args:
        logits_s: student logits (..., C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        T: temperature of both sides, > 0, in standard deviations.
        mask: (...) boolean, True where a position counts; None counts all. What is masked may be NaN.

    Returns:
        Scalar, nats per counted example; ≥ 0, and 0 where both sides agree up to a shift and a positive scale.

    Raises:
        ValueError: shapes differ, T ≤ 0, the mask does not fit, or the result is not finite (a class at −inf).

    Source: Sun et al. 2024, arXiv:2403.01427, alg. 1; divisor C − 1 and 1e-7 added to std from their code.
    """
    temperature(T)

    def rows(z, v):
        (z, std), (v, _) = (_standardized(x) for x in (z, v))
        _, _, gap, kl = compare(z, v, T)
        # dz/dlogits: no part along the constant vector (gap has none) nor, but for the 1e-7, along z itself
        along = (gap * z).sum(-1, keepdim=True).div_(max(z.shape[-1] - 1, 1)).mul_((std + 1e-7) / std.clamp_min(1e-30))
        return kl.mul_(T * T), gap.sub_(along * z).mul_(T).div_(std + 1e-7)

    return mean_over_rows(rows, logits_s, logits_t, mask)


def _standardized(x: Tensor) -> tuple[Tensor, Tensor]:
    """(x − mean)/(std + 1e-7) and std of each row, the divisor of the variance being C − 1."""
    x = x - x.mean(-1, keepdim=True)
    std = x.square().sum(-1, keepdim=True).div_(max(x.shape[-1] - 1, 1)).sqrt_()
    return x.div_(std + 1e-7), std


def _decorrelation(x: Tensor, y: Tensor, dim: int, weight: float) -> tuple[Tensor, Tensor]:
    """weight · Σ (1 − ρ) of x and y along dim, as ½‖a − b‖² of unit vectors; and its derivative in x."""
    (a, size), (b, _) = (_unit(t, dim) for t in (x, y))
    half = (a - b).square_().sum(dim, keepdim=True).div_(2)
    slope = (a - b).sub_(a * half).mul_(weight).div_(size)  # (a − b) − a·(1 − ρ) is ρ·a − b
    return half.sum() * weight, slope.masked_fill_(size == float("inf"), 0)


def _unit(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """x centred along dim and divided by its length, and the length; 0 and ∞ where x is constant to rounding."""
    least = 4 * torch.finfo(x.dtype).eps * x.norm(dim=dim, keepdim=True)
    x = x - x.mean(dim, keepdim=True)
    size = x.norm(dim=dim, keepdim=True)
    size.masked_fill_(size <= least, float("inf"))
    return x.div_(size), size


def _check_labels(logits: Tensor, y: Tensor) -> None:
    if logits.dim() != 2 or y.shape != logits.shape[:1]:
        raise ValueError(
            f"takes logits (N, C) and labels (N,); got {tuple(logits.shape)} and {tuple(y.shape)}. "
            "For tokens, flatten the positions first."
        )
