"""The mean over rows with its gradient: what turns one row's formula into a loss."""

import math
from collections.abc import Callable
from itertools import repeat

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from ._formulas import in_both_ways
from ._input import (  # noqa: F401
    NotFinite,
    check_logits,
    check_mask,
    check_within,
    class_labels,
    not_finite,
    number,
    row_count,
    temperature,
)

# Numbers a chunk of rows may have. On the CPU the few arrays of that size that a formula needs stay in a core's
# cache; elsewhere a chunk bounds the memory, and has to be large enough to be worth its launches.
CHUNK, CHUNK_OFF_CPU = 1 << 15, 1 << 23
ONCE = (
    "this loss can be differentiated once: its gradient is made without a graph. For a second derivative write "
    "it with PyTorch's own functions, e.g. T**2 * F.kl_div((z / T).log_softmax(-1), (v / T).softmax(-1), "
    "reduction='batchmean')."
)


def mean_over_rows(
    formula: Callable[..., tuple[Tensor, Tensor]],
    logits_s: Tensor,
    logits_t: Tensor,
    mask: Tensor | None = None,
    denominator: float | None = None,
    more: tuple[Tensor, ...] = (),
    check: Callable[..., None] | None = None,
    classes: int = 2,
    whole: bool = False,
) -> Tensor:
    """Mean of a formula over the rows that count, differentiable once in the student's logits.

    Off the CPU it waits for the device once, for the value: a loss that is not finite shall not pass in silence. Where
    a row has a class at −inf, or overflows, it is made again there, and waited for twice.
    Under `torch.compile` and in export nothing is read back: what is not finite is returned as it is.

    Args:
        formula: called as formula(z, v, *more) on rows (n, C) in float32 or wider, without gradients; returns
            each row's value (n,) or (n, 1), and their derivative in z (n, C). It may not change z and v.
        logits_s, logits_t: (N, C) or (B, L, C), equal shapes. mask: boolean, their shape without C, or None.
        denominator: what the sum over the rows is divided by; None: the number of rows that count.
        more: further tensors, one entry per row, e.g. labels (N,); those of masked rows are set to 0.
        check: called as check(*more) before the formula; raises where they do not fit.
        classes: how many classes there must be at least.
        whole: the formula needs all rows at once.

    Returns:
        Scalar, float32 for half precision; 0 where no row counts.

    Raises:
        TypeError, ValueError: as `check_logits` and `check_mask`; the denominator is not positive although rows count.
        NotFinite: the mean is not finite.
    """
    check_logits(logits_s, logits_t, classes)
    check_mask(mask, logits_s)
    if denominator is not None:
        denominator = row_count(denominator, math.prod(logits_s.shape[:-1]), mask)
    inputs = (logits_s, logits_t.detach(), mask, formula, check, whole, denominator, *more)
    return _UnderTransforms.apply(*inputs)[0] if _transformed(logits_s) else _MeanOverRows.apply(*inputs)


def _transformed(z: Tensor) -> bool:
    """Inside `torch.func`, or in forward mode. (PyTorch has no public name for the first.)"""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or unpack_dual(z).tangent is not None


def mean_over_labelled(
    formula: Callable[..., tuple[Tensor, Tensor]],
    logits_s: Tensor,
    logits_t: Tensor,
    y: Tensor,
    mask: Tensor | None = None,
    denominator: float | None = None,
) -> Tensor:
    """`mean_over_rows` of formula(z, v, y), y being one class per row: (N,) or (B, L)."""
    y = class_labels(logits_s, y)

    def check(y):
        check_within("labels", y, logits_s.shape[-1], " Leave out rows without one: mask=(y != -100).")

    return mean_over_rows(formula, logits_s, logits_t, mask, denominator, (y,), check)


class _MeanOverRows(torch.autograd.Function):
    """Makes the gradient in the forward pass; the backward pass only scales it."""

    @staticmethod
    def forward(ctx, logits_s, *others):
        value, gradient = _mean_and_gradient(logits_s, *others)
        ctx.save_for_backward(gradient)
        ctx.dtype, ctx.others = logits_s.dtype, len(others)
        return value

    @staticmethod
    def backward(ctx, grad_loss):
        if torch.is_grad_enabled():
            raise RuntimeError(ONCE)
        return (ctx.saved_tensors[0] * grad_loss).to(ctx.dtype), *repeat(None, ctx.others)


class _UnderTransforms(torch.autograd.Function):
    """The same for `torch.func` and forward mode, which want more of it; it takes longer to start.

    The gradient is an output here, and a batch under vmap is taken one after the other."""

    @staticmethod
    def forward(*inputs):
        return _mean_and_gradient(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])
        ctx.save_for_forward(inputs[0], output[1])
        ctx.others = len(inputs) - 1

    @staticmethod
    def backward(ctx, grad_loss, _):
        z, gradient = ctx.saved_tensors
        return (_Once.apply(z, gradient) * grad_loss).to(z.dtype), *repeat(None, ctx.others)

    @staticmethod
    def jvp(ctx, tangent, *_):
        return (_Once.apply(*ctx.saved_tensors) * tangent).sum(), None

    @staticmethod
    def vmap(info, in_dims, *inputs):
        each = [
            _UnderTransforms.apply(
                *(x if dim is None else x.select(dim, i) for x, dim in zip(inputs, in_dims, strict=True))
            )
            for i in range(info.batch_size)
        ]
        return tuple(map(torch.stack, zip(*each, strict=True))), (0, 0)


class _Once(torch.autograd.Function):
    """The gradient as it is; its own derivative in the logits is refused, not taken for 0."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z, gradient):
        return gradient.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, _):
        raise RuntimeError(ONCE)

    @staticmethod
    def jvp(ctx, *_):
        raise RuntimeError(ONCE)


def _mean_and_gradient(z, v, mask, formula, check, whole, denominator, *more) -> tuple[Tensor, Tensor]:
    """The mean, and its derivative in z in z's shape, chunk by chunk."""
    shape, wider, count = z.shape, wide_type(z.dtype), denominator
    if len(shape) > 2:
        z, v = z.flatten(0, -2), v.flatten(0, -2)
    if mask is not None:
        mask = mask.flatten()
        more = [x.where(mask.view(-1, *repeat(1, x.dim() - 1)), 0) for x in more]
        count = mask.sum().clamp_min(1) if count is None else count
    count = max(len(z), 1) if count is None else count
    if torch.compiler.is_compiling():  # the compiler makes its own chunks, and no value can be looked at
        value, slope = _rows(formula, z, v, mask, *more)
        return _cast(value.sum() / count, wider), _cast(slope / count, wider).view(shape)
    if check is not None:
        check(*more)
    columns = z, v, mask, *more
    total, gradient = _made(formula, columns, whole, count, wider)
    found = total.item()
    if not z.is_cpu and not math.isfinite(found):  # a row overflowed, which `compare` did not ask
        with in_both_ways():
            total, gradient = _made(formula, columns, whole, count, wider)
        found = total.item()
    if not math.isfinite(found):
        raise not_finite(found, *(x if mask is None else x[mask] for x in (z, v)))
    return total, gradient.view(shape) if len(shape) > 2 else gradient


def _made(formula, columns, whole: bool, count, wider: torch.dtype) -> tuple[Tensor, Tensor]:
    """The mean and its derivative, at once or chunk by chunk."""
    z = columns[0]
    step = max(1, (CHUNK if z.is_cpu else CHUNK_OFF_CPU) // z.shape[1])
    if not len(z) or not (whole or len(z) <= step):
        return _chunks(formula, columns, step, count, wider)
    value, slope = _rows(formula, *columns)  # small batches, where every operation counts
    return _cast(value.sum() / count, wider), _cast(slope.div_(count), wider)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A `to` that changes nothing is left out: up to torch 2.11 the compiler would give such a result no gradient."""
    return x if x.dtype == dtype else x.to(dtype)


def _chunks(formula, columns, step: int, count, wider: torch.dtype) -> tuple[Tensor, Tensor]:
    """The mean and its derivative, `step` rows at a time: no array of all rows is made but the derivative."""
    gradient, sums = torch.empty(columns[0].shape, dtype=wider, device=columns[0].device), []
    parts = zip(*(_split(x, step) for x in (gradient, *columns)))  # noqa: B905
    for out, *rows in parts if len(gradient) else ():
        if rows[2] is not None and out.is_cpu and not rows[2].any():
            out.zero_()
            continue
        value, slope = _rows(formula, *rows)
        sums.append(value.sum())
        torch.div(slope, count, out=out)
        del slope  # not kept while the next is made
    return torch.stack([gradient.new_zeros(()), *sums]).sum().to(wider) / count, gradient


def _split(x: Tensor | None, step: int):
    return repeat(None) if x is None else x.split(step)


def _rows(formula, z, v, mask, *more) -> tuple[Tensor, Tensor]:
    """The formula in the wider type; what is masked may be NaN: it is replaced, not multiplied by 0."""
    if z.dtype != v.dtype or z.dtype != wide_type(z.dtype):
        dtype = torch.promote_types(wide_type(z.dtype), wide_type(v.dtype))
        z, v = z.to(dtype), v.to(dtype)
    value, slope = formula(z, v, *more)
    if mask is None:
        return value, slope
    mask = mask[:, None]
    return value.view(-1, 1).where(mask, 0), slope.where(mask, 0)


def wide(x: Tensor) -> Tensor:
    """float32 for half precision, where e^12 already overflows; wider types as they are."""
    return x.to(wide_type(x.dtype))


def wide_type(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
