"""Losses on the models' outputs ("responses").

One convention: z = student logits, v = teacher logits, T = temperature, p = softmax(v/T), q = softmax(z/T).
Sum over the C classes, mean over examples (or over the positions a mask keeps), natural logarithm (nats).
Logits are (N, C) or (B, L, C), classes last. T and the weights are numbers; neither they nor the teacher receive a
gradient. Half precision is computed in float32, also under autocast. Each loss gives one row's value and its
derivative in z; `_core` takes the mean. A loss can be differentiated once.

`mask` is boolean, True where a row counts; None counts all. What is masked may be anything: NaN, label −100.
`denominator` divides the sum over rows in place of their number. With the count of the whole batch, the losses of
its parts add up to the loss of the whole: this makes gradient accumulation exact.

Peak memory above the inputs, forward and backward, measured in float32 tables of the logits' size: 2, and 2.5 for
half precision (the usual F.kl_div line in float32: 5). Off the CPU up to 17 chunks of 16 MiB come on top. `dist_loss`
relates the whole batch at once: 7, and 9. Under `torch.compile` it is the compiler that decides.
"""

from torch import Tensor

from ._core import mean_over_labelled, mean_over_rows, number, temperature, wide
from ._formulas import compare, cross_entropy
from .adaptive import normkd_loss, rld_loss, wttm_loss
from .variants import dist_loss, dkd_loss, standardized_kd_loss

__all__ = [
    "dist_loss",
    "distillation_loss",
    "dkd_loss",
    "kd_loss",
    "logit_mse_loss",
    "normkd_loss",
    "rld_loss",
    "soften",
    "standardized_kd_loss",
    "wttm_loss",
]


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
    temperature(T.detach() if isinstance(T, Tensor) else T)  # here, and only here, T may be learnt
    return (wide(logits) / T).softmax(-1)


def kd_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    T: float = 1.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """T² · KL(p‖q) = T² · Σ_c p_c (log p_c − log q_c), mean over examples (eq-kd-loss).

    The gradient in the student's logits is T · (q − p) / N. The factor T² keeps it from vanishing as T grows.

    Args:
        logits_s: student logits (N, C) or (B, L, C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        T: temperature of both sides, > 0.
        mask: (N,) or (B, L) boolean, True where a position counts. What is masked may be NaN.
        denominator: in place of the number of counted examples: that of the whole batch, for a part of it. > 0, or 0
            where nothing counts.

    Returns:
        Scalar, nats per counted example; ≥ 0, and 0 where both sides agree up to a constant per row, or where
        nothing counts. Its own gradient cannot be differentiated again.

    Raises:
        TypeError: a side is no tensor of floating-point numbers.
        ValueError: shapes differ or are no rows of two classes or more, T ≤ 0, T asks for a gradient, or the mask
            does not fit. NotFinite, a ValueError: the result is not finite.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, §2 and §2.1 (T²); KL for their cross-entropy.
    """
    T = temperature(T)

    return mean_over_rows(lambda z, v: _kd(z, v, T), logits_s, logits_t, mask, denominator)


def _kd(z: Tensor, v: Tensor, T: float) -> tuple[Tensor, Tensor]:
    _, _, gap, kl = compare(z, v, T)  # gap = q − p
    return kl.mul_(T * T), gap.mul_(T)


def distillation_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    y: Tensor,
    T: float = 4.0,
    alpha: float = 0.9,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """(1 − α) · CE(y, softmax z) + α · T² · KL(p‖q), mean over examples (eq-distillation-loss).

    Args:
        logits_s: student logits (N, C) or (B, L, C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        y: labels (N,) or (B, L), whole numbers in 0 … C−1, whatever α is. The hard term is at T = 1.
        T: temperature of the soft term, > 0.
        alpha: weight of the soft term, 0 … 1; 0 is ordinary training, 1 is `kd_loss`.
        mask, denominator: as in `kd_loss`. Rows without a label: mask=(y != -100).

    Returns:
        Scalar, nats per counted example. At z = v it is (1 − α) · CE, not 0: labels may disagree with the teacher.

    Raises:
        TypeError, ValueError: as `kd_loss`; α outside 0 … 1, y does not fit, or a label that counts is no class.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, §2, "a weighted average of two objectives".
    """
    T, alpha = temperature(T), number("alpha", alpha)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the share of the soft term, 0 … 1; got {alpha}.")

    def rows(z, v, y):
        if alpha == 1:
            return _kd(z, v, T)
        hard, slope = cross_entropy(z, y[:, None])
        if alpha > 0:
            _, _, gap, kl = compare(z, v, T)
            hard.mul_(1 - alpha).add_(kl, alpha=alpha * T * T)
            slope.mul_(1 - alpha).add_(gap, alpha=alpha * T)
        return hard, slope

    return mean_over_labelled(rows, logits_s, logits_t, y, mask, denominator)


def logit_mse_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    centred: bool = False,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """‖z − v‖², sum over classes, mean over examples (eq-logit-mse).

    Centred, divided by 2C, it is the limit of `kd_loss` as T → ∞ (eq-limit-high).

    Args:
        logits_s: student logits (N, C) or (B, L, C); C may be 1, unless centred.
        logits_t: teacher logits, the same shape. They receive no gradient.
        centred: subtract each row's mean first, as the softmax does not see it.
        mask, denominator: as in `kd_loss`.

    Returns:
        Scalar, squared logits per counted example; 0 where both sides agree.

    Raises:
        TypeError, ValueError: as `kd_loss`. A class at −inf makes the result infinite.

    Source: Ba & Caruana 2014, arXiv:1312.6184, eq. 1; Kim et al. 2021, arXiv:2105.08919, eq. 2.
    """

    def rows(z, v):
        gap = z - v
        if centred:
            gap.sub_(gap.mean(-1, keepdim=True))
        return gap.square().sum(-1), gap.mul_(2)

    return mean_over_rows(rows, logits_s, logits_t, mask, denominator, classes=1 + centred)
