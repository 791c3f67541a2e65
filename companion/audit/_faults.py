"""The fault suite: twenty inputs that break losses.

A case is a function of a loss; it returns None where the loss passes, and else says what is wrong.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A loss as the suite calls it, and its definition in float64 for one list of rows.

    Args:
        call: call(student, teacher, T, mask, y) → scalar; what a loss does not take, it ignores.
        rows: rows(student, teacher, T, y) → one value a row (or a scalar, for a loss over the batch).
        takes: of "T", "mask", "y", "tokens": what else it handles.
        divergence: it is 0 where both sides agree.
        ruled_out: a class at −inf has a meaning: "both" sides, or the "teacher" alone too.
        shape: of the student's side and, where it can differ, `wrong` shapes of the teacher's, by case.
    """

    call: Callable[..., Tensor]
    rows: Callable[..., Tensor]
    takes: frozenset = frozenset()
    divergence: bool = True
    ruled_out: frozenset = frozenset()
    shape: tuple = (8, 10)
    wrong: dict = field(default_factory=lambda: WRONG)


WRONG = {"(N, 1)": [(8, 1)], "(1, C), (C,)": [(1, 10), (10,)], "(N, C+8)": [(8, 18)]}
ONLY_N = {"(1, C), (C,)": [(1, 10), (10,)]}  # relations: the two sides share the examples alone
MAPS = {"(1, C), (C,)": [(1, 5, 3, 2), (5, 3, 2)], "(N, C+8)": [(8, 5, 3, 10)]}


def draw(
    dtype=torch.float32, scale=3.0, distance=None, shape=(8, 10), seed=0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits and labels; with `distance` the student is that near to its teacher."""
    generator = torch.Generator().manual_seed(seed)
    z, v = scale * torch.randn(2, *shape, generator=generator)
    if distance is not None:
        v = v.to(dtype).float()
        z = v + distance * torch.randn(shape, generator=generator)
    y = torch.randint(0, shape[-1], shape[:-1] if len(shape) < 4 else shape[:1], generator=generator)
    return z.to(dtype), v.to(dtype), y


def value_and_gradient(loss: Loss, z, v, y, T=2.0, mask=None) -> tuple[Tensor, Tensor]:
    z = z.detach().clone().requires_grad_()
    value = loss.call(z, v, T, mask, y)
    value.backward()
    return value.detach(), z.grad


def reference(loss: Loss, z, v, y, T=2.0, columns=slice(None)) -> tuple[Tensor, Tensor]:
    z = z.detach().double().clone().requires_grad_()
    value = loss.rows(z[..., columns], v.detach().double()[..., columns], T, y).mean()
    value.backward()
    return value.detach(), z.grad


def compare(found, expected, tolerance=0.02) -> str | None:
    """None if value and gradient are within the tolerance of the reference, else what is wrong."""
    for name, a, b in zip(("value", "gradient"), found, expected, strict=True):
        grid = (
            5e-324
            if a.dtype == torch.float64
            else torch.finfo(a.dtype).smallest_normal * torch.finfo(a.dtype).eps
        )
        rounding = (
            grid / 2 * math.sqrt(a.numel())
        )  # a gradient comes in the input's type, down to its last step
        error = ((a.double() - b).norm() - rounding) / b.norm().clamp_min(1e-30)
        if not error < tolerance:
            return f"{name} is off by {error:.2%}"
    return None


def refused(call, *shapes) -> str | None:
    try:
        value = call()
    except ValueError as error:
        missing = [shape for shape in shapes if str(tuple(shape)) not in str(error)]
        return f"the error does not name {missing}" if missing else None
    return f"not refused, returned {tuple(value.shape)}"


# --------------------------------------------------------------------------------------------------- cases


def _precision(dtype, tolerance=0.02, T=2.0, **how):
    def case(loss):
        z, v, y = draw(dtype, shape=loss.shape, **how)
        return compare(value_and_gradient(loss, z, v, y, T), reference(loss, z, v, y, T), tolerance)

    return case


def _temperature(T, scale):
    def case(loss):
        return _precision(torch.float32, 1e-3, T, scale=scale)(loss)

    return case, "T"


def both_ruled_out(loss):
    z, v, y = draw()
    z[:, -1] = v[:, -1] = -math.inf
    y = y.clamp_max(8)
    z_, v_ = z.clone(), v.clone()
    z_[:, -1] = v_[:, -1] = 0
    expected = reference(loss, z_, v_, y, columns=slice(0, 9))
    return compare(value_and_gradient(loss, z, v, y), expected, 1e-4)


def teacher_ruled_out(loss):
    z, v, y = draw()
    v[:, -1] = -math.inf
    return compare(value_and_gradient(loss, z, v, y), reference(loss, z, v, y), 1e-4)


def nan_in_masked(loss):
    z, v, y = draw()
    mask = torch.arange(8) != 3
    z[3, 2] = v[3, 5] = math.nan
    value, gradient = value_and_gradient(loss, z, v, y, mask=mask)
    expected, g = reference(loss, z[mask], v[mask], y[mask])
    if gradient[3].abs().max() != 0:
        return "a masked row has a gradient"
    return compare((value, gradient[mask]), (expected, g), 1e-4)


def all_masked(loss):
    z, v, y = draw()
    value, gradient = value_and_gradient(loss, z, v, y, mask=torch.zeros(8, dtype=torch.bool))
    return None if value == 0 and not gradient.any() else f"value {value}, gradient {gradient.abs().max()}"


def empty_batch(loss):
    z, v, y = (part[:0] for part in draw(shape=loss.shape))
    value, gradient = value_and_gradient(loss, z, v, y)
    return None if value == 0 and gradient.shape == z.shape else f"value {value}"


def constant_logits(loss):
    z, v, y = torch.full(loss.shape, 3.0), torch.full(loss.shape, 3.0), torch.arange(8)
    value, gradient = value_and_gradient(loss, z, v, y)
    if not (value.isfinite() and gradient.isfinite().all()):
        return f"value {value}, gradient {gradient}"
    return f"value {value} at agreement" if loss.divergence and value != 0 else None


def _against(name):
    def case(loss):
        z, _, y = draw(shape=loss.shape)
        for shape in loss.wrong[name]:
            v = torch.randn(shape)
            wrong = refused(lambda v=v: loss.call(z, v, 2.0, None, y), z.shape, v.shape)
            if wrong:
                return f"{shape}: {wrong}"
        return None

    return case, name


def token_positions(loss):
    z, v, y = draw(shape=(2, 4, 10))
    if "tokens" not in loss.takes:
        return refused(lambda: loss.call(z, v, 2.0, None, y), z.shape)
    flat = reference(loss, z.flatten(0, 1), v.flatten(0, 1), y.flatten())
    value, gradient = value_and_gradient(loss, z, v, y)
    return compare((value, gradient.flatten(0, 1)), flat, 1e-4)


def teacher_gradient(loss):
    z, v, y = draw(shape=loss.shape)
    z, v = z.requires_grad_(), v.requires_grad_()
    loss.call(z, v, 2.0, None, y).backward()
    return None if v.grad is None else "a gradient reached the teacher"


# name → the case, and what a loss must take for it to apply
CASES: dict[str, tuple[Callable, str | None]] = {
    "bf16": (_precision(torch.bfloat16), None),
    "bf16, near-converged": (_precision(torch.bfloat16, distance=0.02), None),
    "fp16": (_precision(torch.float16), None),
    "fp16, near-converged": (_precision(torch.float16, distance=0.003), None),
    "fp16, |z| up to 3e4": (_precision(torch.float16, scale=1e4), None),
    "fp32, |z| about 1e4": (_precision(torch.float32, 1e-3, scale=1e4), None),
    "T = 0.01": _temperature(0.01, 0.1),
    "T = 100": _temperature(100.0, 3.0),
    "T = 1e4": _temperature(1e4, 3.0),
    "−inf in both": (both_ruled_out, "both"),
    "−inf in the teacher": (teacher_ruled_out, "teacher"),
    "NaN in a masked position": (nan_in_masked, "mask"),
    "all positions masked": (all_masked, "mask"),
    "empty batch": (empty_batch, None),
    "constant logits": (constant_logits, None),
    "(N, C) against (N, 1)": _against("(N, 1)"),
    "(N, C) against (1, C), (C,)": _against("(1, C), (C,)"),
    "(N, C) against (N, C+8)": _against("(N, C+8)"),
    "(B, L, V)": (token_positions, None),
    "undetached teacher": (teacher_gradient, None),
}


def outcome(case: str, loss: Loss) -> str | None:
    """None where the loss passes, the empty string where the case does not apply, else what is wrong."""
    function, needs = CASES[case]
    if needs is not None and needs not in loss.takes | loss.ruled_out | set(loss.wrong):
        return ""
    try:
        return function(loss)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
