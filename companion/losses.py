"""Losses on the models' outputs ("responses").

One convention: z = student logits, v = teacher logits, T = temperature, p = softmax(v/T), q = softmax(z/T).
Sum over the C classes, mean over examples (or over the positions a mask keeps), natural logarithm (nats).
The teacher never receives a gradient. Half precision is computed in float32 inside. Each loss gives one
row's value and its derivative in z; `_core` takes the mean. A loss cannot be differentiated twice.
"""

from torch import Tensor

from ._core import compare, cross_entropy, decorrelation, mean_over_rows, standardized, temperature, wide


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
        Scalar, nats per example. At z = v it is (1 − α) · CE, not 0: labels may disagree with the teacher.

    Raises:
        ValueError: shapes differ or do not fit y, T ≤ 0, α outside 0 … 1, or the result is not finite.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, §2, "a weighted average of two objectives".
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the share of the soft term, 0 … 1; got {alpha}.")
    _check_labels(logits_s, y)
    if alpha == 1:
        return kd_loss(logits_s, logits_t, T)
    temperature(T)

    def rows(z, v, y):
        hard, slope = cross_entropy(z, y[:, None])
        if alpha > 0:
            _, _, gap, kl = compare(z, v, T)
            hard.mul_(1 - alpha).add_(kl, alpha=alpha * T * T)
            slope.mul_(1 - alpha).add_(gap, alpha=alpha * T)
        return hard, slope

    return mean_over_rows(rows, logits_s, logits_t, more=(y,))


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
    """T² · (α · TCKD + β · NCKD), mean over examples.

    TCKD is the KL of (p_y, 1 − p_y) from (q_y, 1 − q_y): the target against the rest. NCKD is the KL among
    the other classes, p̂ from q̂, each renormalised without the target. KL(p‖q) = TCKD + (1 − p_y) · NCKD,
    so plain KD mutes NCKD where the teacher is sure. For two classes NCKD is 0.

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
    """T² · (β · mean_i (1 − ρ(p_i·, q_i·)) + γ · mean_c (1 − ρ(p_·c, q_·c))), ρ Pearson's correlation.

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
        between_classes, slope = decorrelation(q, p, -1, beta / len(z))
        between_examples, more = decorrelation(q, p, 0, gamma / z.shape[1])
        slope.add_(more).mul_(q)
        slope.sub_(q * slope.sum(-1, keepdim=True))  # through the softmax
        # times N: these are means already, and `mean_over_rows` divides once more
        return (between_classes + between_examples).mul_(T * T * len(z)), slope.mul_(T * len(z))

    return mean_over_rows(batch, logits_s, logits_t, chunk=max(logits_s.numel(), 1))


def standardized_kd_loss(
    logits_s: Tensor, logits_t: Tensor, T: float = 2.0, mask: Tensor | None = None
) -> Tensor:
    """kd_loss of (z − mean z)/(std z) and (v − mean v)/(std v), each row by its own.

    The student reproduces the teacher's logits up to a shift and a scale: it need not reach their range.

    Args:
        logits_s: student logits (..., C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        T: temperature of both sides, > 0, in standard deviations.
        mask: (...) boolean, True where a position counts; None counts all. What is masked may be NaN.

    Returns:
        Scalar, nats per counted example; ≥ 0, and 0 where both agree up to a shift and a positive scale.

    Raises:
        ValueError: shapes differ, T ≤ 0, the mask does not fit, or the result is not finite
            (a class at −inf).

    Source: Sun et al. 2024, arXiv:2403.01427, alg. 1; divisor C − 1 and 1e-7 added to std from their code.
    """
    temperature(T)

    def rows(z, v):
        (z, std), (v, _) = (standardized(x) for x in (z, v))
        _, _, gap, kl = compare(z, v, T)
        # dz/dlogits: no part along the constant vector (gap has none) nor, but for the 1e-7, along z itself
        scale = (std + 1e-7) / (std.clamp_min(1e-30) * max(z.shape[-1] - 1, 1))
        along = (gap * z).sum(-1, keepdim=True).mul_(scale)
        return kl.mul_(T * T), gap.sub_(along * z).mul_(T).div_(std + 1e-7)

    return mean_over_rows(rows, logits_s, logits_t, mask)


def _check_labels(logits: Tensor, y: Tensor) -> None:
    if logits.dim() != 2 or y.shape != logits.shape[:1]:
        shapes = f"{tuple(logits.shape)} and {tuple(y.shape)}"
        raise ValueError(f"takes logits (N, C) and labels (N,); got {shapes}. Flatten tokens first.")
