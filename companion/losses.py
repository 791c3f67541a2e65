"""Losses on the models' outputs ("responses").

One convention: z = student logits, v = teacher logits, T = temperature, p = softmax(v/T), q = softmax(z/T).
Sum over the C classes, mean over examples (or over the positions a mask keeps), natural logarithm (nats).
The teacher never receives a gradient. Half precision is computed in float32 inside.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
    return (_wide(logits) / _temperature(T)).softmax(-1)


def kd_loss(logits_s: Tensor, logits_t: Tensor, T: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """T² · KL(p‖q) = T² · Σ_c p_c (log p_c − log q_c), mean over examples (eq-kd-loss).

    The gradient in the student's logits is T · (q − p) / N. The factor T² keeps it from vanishing as T grows.

    Args:
        logits_s: student logits (..., C).
        logits_t: teacher logits, the same shape. They receive no gradient.
        T: temperature of both sides, > 0.
        mask: (...) boolean, True where a position counts; None counts all. What is masked may be NaN.

    Returns:
        Scalar, nats per counted example; ≥ 0, and 0 where both sides agree up to a constant per row, or
        where nothing counts. Its own gradient cannot be differentiated again.

    Raises:
        ValueError: shapes differ, T ≤ 0, the mask does not fit, or the result is not finite.

    Source: Hinton, Vinyals & Dean 2015, arXiv:1503.02531, §2 and §2.1 (T²); KL for their cross-entropy.
    """
    _same_shape(logits_s, logits_t, mask)
    rows = _KL.apply(logits_s, logits_t.detach(), _temperature(T))[0]
    return _mean(T * T * rows, mask, "kd_loss", logits_s, logits_t)


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
    if logits_s.dim() != 2 or y.shape != logits_s.shape[:1]:
        raise ValueError(
            f"distillation_loss takes logits (N, C) and labels (N,); got {tuple(logits_s.shape)} and "
            f"{tuple(y.shape)}. For tokens, flatten the positions first."
        )
    soft = kd_loss(logits_s, logits_t, T)
    if alpha == 1 or len(y) == 0:
        return alpha * soft
    hard = F.cross_entropy(_wide(logits_s), y)
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
    _same_shape(logits_s, logits_t, mask)
    gap = _wide(logits_s) - _wide(logits_t.detach())
    if mask is not None:
        gap = gap.where(mask[..., None], 0)
    if centred:
        gap = gap - gap.mean(-1, keepdim=True)
    return _mean(gap.square().sum(-1), mask, "logit_mse_loss", logits_s, logits_t)


class _KL(torch.autograd.Function):
    """KL(p‖q) of each row, with its gradient (q − p)/T made in the forward pass.

    With d = log q − log p a row's KL is Σ p·(e^d − 1 − d): the same sum as Σ −p·d, since p and q both sum
    to 1, but of terms ≥ 0, so that nothing cancels when student and teacher nearly agree.
    """

    @staticmethod
    def forward(logits_s, logits_t, T):
        log_q = (_wide(logits_s) / T).log_softmax(-1)
        log_p = (_wide(logits_t) / T).log_softmax(-1)
        p, q, d = log_p.exp(), log_q.exp(), log_q - log_p
        near = d.abs() < 0.5  # false for NaN, which −inf − (−inf) gives
        gap = torch.where(near, p * d.expm1(), q - p)
        rows = (gap - torch.where(p > 0, p * d, 0)).sum(-1)
        return rows, gap / T

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.dtype = inputs[0].dtype
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_rows, _):
        (gradient,) = ctx.saved_tensors
        # A masked row has weight 0 and may hold NaN, and 0 · NaN is NaN.
        weighted = torch.where(grad_rows[..., None] != 0, grad_rows[..., None] * gradient, 0)
        return weighted.to(ctx.dtype), None, None


def _wide(x: Tensor) -> Tensor:
    """float32 for half precision, where e^12 already overflows; wider types as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _temperature(T: float) -> float:
    if not 0 < T < float("inf"):
        raise ValueError(f"the temperature T must be a positive number; got {T}.")
    return T


def _same_shape(logits_s: Tensor, logits_t: Tensor, mask: Tensor | None) -> None:
    if logits_s.shape != logits_t.shape or logits_s.dim() < 2:
        raise ValueError(
            "student and teacher logits must have the same shape (..., C); got "
            f"{tuple(logits_s.shape)} and {tuple(logits_t.shape)}."
        )
    if mask is not None and (mask.dtype != torch.bool or mask.shape != logits_s.shape[:-1]):
        raise ValueError(
            f"the mask must be boolean of shape {tuple(logits_s.shape[:-1])}; got {mask.dtype} {tuple(mask.shape)}."
        )


def _mean(rows: Tensor, mask: Tensor | None, name: str, *inputs: Tensor) -> Tensor:
    """Mean over the counted rows, 0 if there are none; never NaN or inf in silence."""
    if mask is not None:
        rows = rows.where(mask, 0)
    count = rows.numel() if mask is None else mask.sum()
    loss = rows.sum() / max(int(count), 1)
    if not torch.isfinite(loss):
        ranges = ", ".join(f"{what} {_range(x)}" for what, x in zip(("student", "teacher"), inputs, strict=True))
        raise ValueError(
            f"{name} is {loss.item()}: logits are {ranges}. Mask positions that do not count; a class the "
            "student rules out (−inf) while the teacher does not is infinitely far."
        )
    return loss


def _range(x: Tensor) -> str:
    seen = x.detach().float()
    known = seen[~seen.isnan()]
    span = f"{known.min():.3g} … {known.max():.3g}" if len(known) else "all NaN"
    return f"{span} ({seen.isnan().sum()} NaN)"
