"""Losses on responses that take the KL apart (DKD), correlate (DIST) or standardise the logits first.

Conventions, mask, denominator and memory as in `losses`, which gives these by the same names.
"""

from math import inf

from torch import Tensor

from ._core import check_logits, mean_over_labelled, mean_over_rows, number, temperature
from ._formulas import compare, compare_standardized, decorrelation, out_of_reach


def dkd_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    y: Tensor,
    T: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """T² · (α · TCKD + β · NCKD), mean over examples.

    TCKD is the KL of (p_y, 1 − p_y) from (q_y, 1 − q_y): the target against the rest. NCKD is the KL among
    the other classes, p̂ from q̂, each renormalised without the target. KL(p‖q) = TCKD + (1 − p_y) · NCKD,
    so plain KD mutes NCKD where the teacher is sure. For two classes NCKD is 0.

    Args:
        logits_s: student logits (N, C) or (B, L, C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        y: labels (N,) or (B, L), whole numbers in 0 … C−1.
        T: temperature of both sides, > 0.
        alpha: weight of TCKD, ≥ 0. beta: weight of NCKD, ≥ 0. (Here α does not weigh soft against hard.)
        mask, denominator: as in `kd_loss`. Rows without a label: mask=(y != -100).

    Returns:
        Scalar, nats per counted example; ≥ 0, and 0 where both sides agree up to a constant per row.

    Raises:
        TypeError, ValueError: as `kd_loss`; a negative weight, y does not fit, or a label that counts is no class.

    Source: Zhao et al. 2022, arXiv:2203.08679, eq. 7, and their code for T².
    """
    T, alpha, beta = temperature(T), number("alpha", alpha), number("beta", beta)
    if not (0 <= alpha < inf and 0 <= beta < inf):
        raise ValueError(f"alpha and beta are weights of 0 or more; got {alpha} and {beta}.")

    def rows(z, v, y):
        y = y[:, None]
        p, _, gap, kl = compare(z, v, T)
        out = out_of_reach(z, v, T)  # where the target leaves both softmaxes
        _, _, gap_rest, nckd = compare(z.scatter(-1, y, out), v.scatter(-1, y, out), T)
        weight = beta - alpha * (1 - p.gather(-1, y))  # α · TCKD = α · KL − α · (1 − p_y) · NCKD
        value, slope = (alpha * a + weight * b for a, b in ((kl, nckd), (gap, gap_rest)))
        return value.mul_(T * T), slope.mul_(T)

    return mean_over_labelled(rows, logits_s, logits_t, y, mask, denominator)


def dist_loss(
    logits_s: Tensor, logits_t: Tensor, T: float = 1.0, beta: float = 1.0, gamma: float = 1.0
) -> Tensor:
    """T² · (β · mean_i (1 − ρ(p_i·, q_i·)) + γ · mean_c (1 − ρ(p_·c, q_·c))), ρ Pearson's correlation.

    The first term relates the classes of an example, the second the examples in a class. So a batch cannot be cut
    into parts whose losses add up to its own: there is no mask and no denominator.

    Args:
        logits_s: student logits (N, C).
        logits_t: teacher logits (N, C). They receive no gradient.
        T: temperature of both sides, > 0.
        beta: weight of the relations between classes, ≥ 0. gamma: weight of those between examples, ≥ 0.

    Returns:
        Scalar, no unit; 0 where both sides' probabilities agree. ρ does not exist for a row or a column of equal
        probabilities: it counts 0 beside another such one, ½ beside any other. The student's is then led towards
        the teacher's as though it had its spread: a last layer may start at zero.

    Raises:
        TypeError, ValueError: as `kd_loss`; a negative weight; logits (B, L, C).

    Source: Huang et al. 2022, arXiv:2205.10536, eq. 6–9; T² from their code.
    """
    T, beta, gamma = temperature(T), number("beta", beta), number("gamma", gamma)
    if not (0 <= beta < inf and 0 <= gamma < inf):
        raise ValueError(f"beta and gamma are weights of 0 or more; got {beta} and {gamma}.")
    check_logits(logits_s, logits_t)
    if logits_s.dim() != 2:
        raise ValueError(f"dist_loss takes logits (N, C), a batch of examples; got {tuple(logits_s.shape)}.")

    def batch(z, v):
        q, p = ((x / T).softmax(-1) for x in (z, v))
        between_classes, slope = decorrelation(q, p, -1, beta / len(z))
        between_examples, more = decorrelation(q, p, 0, gamma / z.shape[1])
        slope.add_(more).mul_(q)
        slope.sub_(q * slope.sum(-1, keepdim=True))  # through the softmax
        # times N: these are means already, and `mean_over_rows` divides once more
        return (between_classes + between_examples).mul_(T * T * len(z)), slope.mul_(T * len(z))

    return mean_over_rows(batch, logits_s, logits_t, whole=True)


def standardized_kd_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    T: float = 2.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """kd_loss of (z − mean z)/(std z) and (v − mean v)/(std v), each row by its own.

    The student reproduces the teacher's logits up to a shift and a scale: it need not reach their range.

    Args:
        logits_s: student logits (N, C) or (B, L, C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        T: temperature of both sides, > 0, in standard deviations.
        mask, denominator: as in `kd_loss`.

    Returns:
        Scalar, nats per counted example; ≥ 0, and 0 where both agree up to a shift and a positive scale. A student's
        row of equal logits is led as though it had the teacher's spread: a last layer may start at zero.

    Raises:
        TypeError, ValueError: as `kd_loss`. A class at −inf makes the result NaN.

    Source: Sun et al. 2024, arXiv:2403.01427, alg. 1; divisor C − 1 and 1e-7 added to std from their code.
    """
    T = temperature(T)

    def rows(z, v):
        return compare_standardized(z, v, T)[:2]

    return mean_over_rows(rows, logits_s, logits_t, mask, denominator)
