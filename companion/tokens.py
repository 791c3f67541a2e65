"""Losses on language models' outputs, token by token.

As in `losses`: z = student logits, v = teacher logits, p = softmax(v/T), q = softmax(z/T), nats, factor T²,
mean over all positions that the mask keeps, in (B, L, V) or (N, V); mask, denominator and memory as there.
Shift logits and mask before: row t belongs to the token that it predicts. β weighs the teacher in the mixture
m = βp + (1 − β)q.
"""

import torch
from torch import Tensor

from ._core import check_logits, mean_over_rows, number, temperature
from ._formulas import bounded, compare, one_for_the_rest, through_softmax
from ._input import check_stored, check_within
from .losses import kd_loss


def forward_kl_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    T: float = 1.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """T² · KL(p‖q), mean over counted tokens: `kd_loss` by the name it has here (eq-kd-loss).

    The student has to cover what the teacher says: where p is large and q small, it costs most.

    Args:
        logits_s: student logits (B, L, V) or (N, V).
        logits_t: teacher logits, the same shape. They receive no gradient.
        T: temperature of both sides, > 0.
        mask: (B, L) or (N,), True where a token counts. denominator: as in `kd_loss`.

    Returns:
        Scalar, nats per counted token; ≥ 0, and 0 where both sides agree up to a constant per row.

    Raises:
        TypeError, ValueError: as `kd_loss`.

    Source: Kim & Rush 2016, arXiv:1606.07947, §3.1 ("word-level"), with KL for their cross-entropy.
    """
    return kd_loss(logits_s, logits_t, T, mask, denominator)


def reverse_kl_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    T: float = 1.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """T² · KL(q‖p) = T² · Σ_c q_c (log q_c − log p_c), mean over counted tokens.

    The student has to stay where the teacher is: it may leave out what the teacher also says.

    Args:
        logits_s: student logits (B, L, V) or (N, V).
        logits_t: teacher logits, the same shape. They receive no gradient.
        T: temperature of both sides, > 0.
        mask: (B, L) or (N,), True where a token counts. denominator: as in `kd_loss`.

    Returns:
        Scalar, nats per counted token; ≥ 0, and 0 where both sides agree up to a constant per row.

    Raises:
        TypeError, ValueError: as `kd_loss`. A token that the teacher rules out (−inf) and the student does not is
            infinitely far.

    Source: Gu et al. 2024 (MiniLLM), arXiv:2306.08543, §2; Agarwal et al. 2024 (GKD), arXiv:2306.13649, §2.
    """
    T = temperature(T)

    def rows(z, v):
        q, log_p_over_q, _, kl = compare(v, z, T)  # the roles exchanged
        slope = log_p_over_q.add_(kl).mul_(q).masked_fill_(q == 0, 0)
        return kl * (T * T), slope.mul_(-T)

    return mean_over_rows(rows, logits_s, logits_t, mask, denominator)


def generalized_jsd_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    beta: float = 0.5,
    T: float = 1.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """T² · (β · KL(p‖m) + (1 − β) · KL(q‖m)), m = βp + (1 − β)q, mean over counted tokens.

    At most −β log β − (1 − β) log(1 − β) at T = 1, however far the two are apart.

    Args:
        logits_s: student logits (B, L, V) or (N, V).
        logits_t: teacher logits, the same shape. They receive no gradient.
        beta: the teacher's weight in the mixture, 0 … 1. By convention 0 is KL(p‖q) and 1 is KL(q‖p): the
            formula itself tends to 0 there, as β · KL(p‖q) and (1 − β) · KL(q‖p).
        T: temperature of both sides, > 0. In other losses it is the third argument, here beta is: name both.
        mask: (B, L) or (N,), True where a token counts. denominator: as in `kd_loss`.

    Returns:
        Scalar, nats per counted token; ≥ 0, and 0 where both sides agree up to a constant per row.

    Raises:
        TypeError, ValueError: as `kd_loss`; β outside its range.

    Source: Agarwal et al. 2024 (GKD), arXiv:2306.13649, eq. 1 (there without T²).
    """
    beta = number("beta", beta)
    if not 0 <= beta <= 1:
        raise ValueError(f"beta is the teacher's weight in the mixture, 0 … 1; got {beta}.")
    if beta in (0, 1):
        return (reverse_kl_loss if beta else forward_kl_loss)(logits_s, logits_t, T, mask, denominator)
    T = temperature(T)

    def rows(z, v):
        p, ratio, gap, _ = compare(z, v, T)
        q, ratio = gap.add_(p), bounded(ratio)
        log_m_over_p = ratio.expm1().mul_(1 - beta).log1p_()
        log_m_over_q = ratio.neg_().expm1_().mul_(beta).log1p_()
        value = p.mul_(log_m_over_p).mul_(-beta).sub_(q * log_m_over_q, alpha=1 - beta)
        value = value.sum(-1).clamp_min_(0)  # the last digit of a sum may lie below
        return value.mul_(T * T), through_softmax(q, log_m_over_q, -T * (1 - beta))

    return mean_over_rows(rows, logits_s, logits_t, mask, denominator)


def skew_kl_loss(
    logits_s: Tensor,
    logits_t: Tensor,
    beta: float = 0.1,
    T: float = 1.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """T² · KL(p‖m), m = βp + (1 − β)q, mean over counted tokens.

    At most −log β at T = 1: what the student rules out costs no more than that.

    Args:
        logits_s: student logits (B, L, V) or (N, V).
        logits_t: teacher logits, the same shape. They receive no gradient.
        beta: the teacher's weight in the mixture, 0 ≤ β < 1; 0 is `forward_kl_loss`.
        T: temperature of both sides, > 0. In other losses it is the third argument, here beta is: name both.
        mask: (B, L) or (N,), True where a token counts. denominator: as in `kd_loss`.

    Returns:
        Scalar, nats per counted token; ≥ 0, and 0 where both sides agree up to a constant per row.

    Raises:
        TypeError, ValueError: as `kd_loss`; β outside its range.

    Source: Ko et al. 2024 (DistiLLM), arXiv:2402.03898, §3 (their α is β here; there without T²).
    """
    beta = number("beta", beta)
    if not 0 <= beta < 1:
        raise ValueError(f"beta is the teacher's weight in the mixture, 0 or more and below 1; got {beta}.")
    if beta == 0:
        return forward_kl_loss(logits_s, logits_t, T, mask, denominator)
    T = temperature(T)

    def rows(z, v):
        p, ratio, gap, _ = compare(z, v, T)
        log_m_over_p = bounded(ratio).expm1_().mul_(1 - beta).log1p_()
        value = (gap * (1 - beta)).sub_(p * log_m_over_p).sum(-1)  # Σ (m − p) = 0 keeps each term ≥ 0
        value.clamp_min_(0)
        one_less_p_over_m = log_m_over_p.neg_().expm1_()
        return value.mul_(T * T), through_softmax(gap.add_(p), one_less_p_over_m, -T * (1 - beta))

    return mean_over_rows(rows, logits_s, logits_t, mask, denominator)


def sparse_kd_loss(
    logits_s: Tensor,
    index: Tensor,
    p_t: Tensor,
    T: float = 1.0,
    mask: Tensor | None = None,
    denominator: float | None = None,
    tail: bool = False,
) -> Tensor:
    """T² · Σ_k p_k (log p_k − log q_k) over the K stored tokens of a row, mean over counted rows.

    Which tokens are stored decides what is learnt. The K largest, as they are or renormalised, tell the
    student that the rest has no probability: biased. With `tail` the rest is one more token, with 1 − Σ p_k and
    1 − Σ q_k: its size is learnt, and what is in it left to the student. K drawn from p, each with its share of
    the draws as p_k, sum to 1 and give the gradient of `forward_kl_loss` on average.

    Args:
        logits_s: student logits (B, L, V) or (N, V).
        index: which tokens are stored, (..., K) int64 in 0 … V−1, none twice in a row but where p_t is 0.
        p_t: the teacher's probabilities of them at temperature T, (..., K), ≥ 0; a padded place has 0.
        T: temperature of both sides, > 0; p_t must have been stored at it.
        mask, denominator: as in `kd_loss`.
        tail: add the rest's term, p_r (log p_r − log q_r).

    Returns:
        Scalar, nats per counted token. With the tail, or where the p_k sum to S = 1, it is a KL, ≥ 0; otherwise
        it may be negative, down to T² · S log S. It is no mistake, and clamping it would lose the gradient.

    Raises:
        TypeError, ValueError: as `kd_loss`; shapes do not fit, an index outside the vocabulary or twice in a row, a
            negative probability, a row summing to more than 1.01.

    Source: Anshumann et al. 2025, arXiv:2503.16870. The tail makes it the KL of p and q with the rest as one class.
    """
    T = temperature(T)
    _check_sparse(logits_s, index, p_t)
    index, p_t = index.flatten(0, -2), p_t.detach().flatten(0, -2)

    def rows(z, _, index, p):
        p = p.to(z.dtype)
        log_q = (z / T).log_softmax(-1)
        value = torch.special.entr(p).neg_().sub_(torch.where(p > 0, p * log_q.gather(-1, index), 0)).sum(-1)
        slope = log_q.exp().mul_(p.sum(-1, keepdim=True)).scatter_add_(-1, index, -p)
        if tail:
            more, slope_more = one_for_the_rest(log_q, index, p)
            value.add_(more)
            slope.add_(slope_more)
        return value.mul_(T * T), slope.mul_(T)

    def check(index, p):
        check_within("indices", index, logits_s.shape[-1])
        check_stored(index, p)

    return mean_over_rows(rows, logits_s, logits_s, mask, denominator, (index, p_t), check)


def _check_sparse(logits_s: Tensor, index: Tensor, p_t: Tensor) -> None:
    check_logits(logits_s, logits_s)
    if index.shape != p_t.shape or index.shape[:-1] != logits_s.shape[:-1]:
        raise ValueError(
            "takes student logits (..., V) and indices and probabilities (..., K); got "
            f"{tuple(logits_s.shape)}, {tuple(index.shape)} and {tuple(p_t.shape)}."
        )
    if index.dtype != torch.long or not p_t.is_floating_point():
        raise ValueError(f"takes indices in int64 and probabilities; got {index.dtype} and {p_t.dtype}.")
