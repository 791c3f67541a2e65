"""Losses on responses that treat each example in its own way: its weight (WTTM), temperature (NormKD) or classes (RLD).

Conventions, mask, denominator and memory as in `losses`, which gives these by the same names.
"""

from math import inf

from torch import Tensor

from ._core import mean_over_labelled, mean_over_rows, number, temperature
from ._formulas import against_rest, compare, compare_below, compare_standardized


def wttm_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    T: float = 4.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """w · KL(p‖q) with p = softmax(v/T), q = softmax(z) and w = Σ_c softmax(v)_c^(1/T), mean over examples.

    The student is not softened: trained to the end, its own softmax is the teacher's softened one. w is 1 where the
    teacher is sure and C^(1 − 1/T) where it knows nothing: with T > 1, what it doubts weighs more. There is no T²: the
    gradient in z is w · (q − p) / N, and does not fade as T grows. T = 1 is `kd_loss`.

    Args:
        logits_s: student logits (N, C) or (B, L, C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        T: temperature of the teacher's side, > 0. The paper calls 1/T the exponent γ.
        mask, denominator: as in `kd_loss`.

    Returns:
        Scalar, nats per counted example; ≥ 0, and 0 where z is v/T up to a constant per row. So it is not 0 where both
        sides agree, unless T = 1.

    Raises:
        TypeError, ValueError: as `kd_loss`.

    Source: Zheng & Yang 2024, arXiv:2402.11148; formula of their code (WTTM), where the labels' term is added.
    """
    T = temperature(T)

    def rows(z, v):
        p, _, gap, kl = compare(z, v / T, 1.0)
        # Σ e^(v/T) / (Σ e^v)^(1/T), the largest logit taken out of both
        spread = (v - v.amax(-1, keepdim=True)).exp_().sum(-1, keepdim=True)
        weight = spread.pow_(-1 / T).div_(p.amax(-1, keepdim=True))
        return kl.mul_(weight), gap.mul_(weight)

    return mean_over_rows(rows, logits_s, logits_t, mask, denominator)


def normkd_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    T: float = 2.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """(σ_v·T)² · KL(softmax(v/(σ_v·T)) ‖ softmax(z/(σ_z·T))), σ the standard deviation of a row, mean over examples.

    A temperature for each example and each side. But for the weight σ_v² it is `standardized_kd_loss`: a constant added
    to a row does not count, and the student need not reach the teacher's range.

    Args:
        logits_s: student logits (N, C) or (B, L, C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        T: temperature in standard deviations of each row, > 0.
        mask, denominator: as in `kd_loss`.

    Returns:
        Scalar, nats · squared logits per counted example; ≥ 0, and 0 where both agree up to a shift and a positive scale.
        A teacher's row of equal logits has no weight. A student's is led as though it had the teacher's spread.

    Raises:
        TypeError, ValueError: as `kd_loss`. A class at −inf makes the result NaN.

    Source: Chi et al. 2023, arXiv:2308.00520; formula, divisor C − 1 and T = 2 of their code. They add nothing to σ; here
    1e-7 is, as in `standardized_kd_loss`, where they would divide 0 by 0.
    """
    T = temperature(T)

    def rows(z, v):
        value, slope, std = compare_standardized(z, v, T)
        weight = std.square()
        return value.mul_(weight), slope.mul_(weight)

    return mean_over_rows(rows, logits_s, logits_t, mask, denominator)


def rld_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    y: Tensor,
    T: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """T² · (α · SCD + β · MCD), mean over examples: `dkd_loss`, mended where the teacher is wrong.

    SCD, sample confidence: the KL of (p_m, 1 − p_m) from (q_y, 1 − q_y), m the teacher's first class. The student is
    to be as sure of the label as the teacher is of its own answer, right or wrong. MCD, masked correlation: the KL
    among the classes that the teacher ranks below the label, p̂ from q̂, each renormalised; what it ranks above, and
    the label, are left out. Where the teacher is right, this is `dkd_loss`.

    Args:
        logits_s: student logits (N, C) or (B, L, C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        y: labels (N,) or (B, L), whole numbers in 0 … C−1.
        T: temperature of both sides, > 0.
        alpha: weight of SCD, ≥ 0. beta: weight of MCD, ≥ 0. (Here α does not weigh soft against hard.)
        mask, denominator: as in `kd_loss`. Rows without a label: mask=(y != -100).

    Returns:
        Scalar, nats per counted example; ≥ 0. Where both sides agree it is 0 for rows in which the teacher's first class
        is the label, and not 0 for others: there the student is asked to be better than its teacher.

    Raises:
        TypeError, ValueError: as `kd_loss`; a negative weight, y does not fit, or a label that counts is no class.

    Source: Sun et al. 2025, arXiv:2408.07703; formula, T² and defaults of their code, one T for both terms as there for
    CIFAR-100.
    """
    T, alpha, beta = temperature(T), number("alpha", alpha), number("beta", beta)
    if not (0 <= alpha < inf and 0 <= beta < inf):
        raise ValueError(f"alpha and beta are weights of 0 or more; got {alpha} and {beta}.")

    def rows(z, v, y):
        y = y[:, None]
        (sure, shares), (sure_t, _) = against_rest(z, y, T), against_rest(v, v.argmax(-1, keepdim=True), T)
        _, _, gap_sure, scd = compare(sure, sure_t, 1.0)
        slope, mcd = compare_below(z, v, y, T)
        slope.mul_(beta).add_(shares.mul_(gap_sure[:, 1:]), alpha=alpha)
        slope.scatter_add_(-1, y, gap_sure[:, :1] * alpha)
        return mcd.mul_(beta).add_(scd, alpha=alpha).mul_(T * T), slope.mul_(T)

    return mean_over_labelled(rows, logits_s, logits_t, y, mask, denominator)
