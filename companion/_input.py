"""What the losses ask of their input. Every refusal names what came and what to pass instead."""

import math

import torch
from torch import Tensor


class NotFinite(ValueError, FloatingPointError):
    """A loss is infinite or NaN: of its input, or of a training run that diverges."""


PADDED = (
    " If both are language models of one tokenizer and one is padded at the end, cut it: z[..., :V]. With two "
    "tokenizers column c is not the same token: see companion.vocabulary."
)
LEARN_T = "T**2 * F.kl_div((z / T).log_softmax(-1), (v / T).softmax(-1), reduction='batchmean')"


def number(name: str, x: float | Tensor) -> float:
    """x, or the number in a tensor of one element that asks for no gradient."""
    if x is None or isinstance(x, str | list | tuple):
        raise TypeError(f"{name} is one number; got {x!r}.")
    if not isinstance(x, Tensor):
        return x.item() if hasattr(x, "item") else x  # numpy's float32 would make the arithmetic its own
    if x.requires_grad or torch.autograd.forward_ad.unpack_dual(x).tangent is not None:
        raise ValueError(
            f"{name} gets no gradient from this loss: pass {name}.item(). To learn a temperature, take PyTorch's "
            f"own functions, with z and v the student's and the teacher's logits: {LEARN_T}."
        )
    if x.numel() != 1 or (x.dim() and not x.is_floating_point()):
        raise ValueError(
            f"{name} is one number for all rows; got a tensor {tuple(x.shape)} of {x.dtype}. If these are labels, "
            "this loss takes none in that place: lambda z, v, y: kd_loss(z, v, T=4)."
        )
    return x.item()


def positive(name: str, x: float | Tensor) -> float:
    x = number(name, x)
    if not 0 < x < math.inf:
        raise ValueError(f"the {name} must be a positive number; got {x}.")
    return x


def whole(name: str, n: int, least: int = 1) -> int:
    """n, if it is a whole number and at least so many."""
    if isinstance(n, bool) or not hasattr(n, "__index__") or n < least:
        remedy = f" Pass int({n})." if isinstance(n, float) and n.is_integer() and n >= least else ""
        raise ValueError(f"{name} is a whole number, {least} or more; got {n!r}.{remedy}")
    return n


def row_count(denominator: float | Tensor, rows: int, mask: Tensor | None) -> float:
    """What a sum is divided by. 0 is the count of a batch in which nothing counts: then there is nothing to divide."""
    count = number("denominator", denominator)
    if count == 0 and not (rows if mask is None else bool(mask.any())):
        return 1.0
    return positive("denominator", count)


def temperature(T: float | Tensor) -> float:
    """T, if it is one."""
    return positive("temperature T", T)


def check_logits(logits_s: Tensor, logits_t: Tensor, classes: int = 2) -> None:
    """Two tensors of one shape, (N, C) or (B, L, C), with enough classes.

    Raises:
        TypeError: a side is no tensor of floating-point numbers.
        ValueError: shapes differ, too few or too many dimensions, or fewer classes than the loss compares.
    """
    for side, x in (("student", logits_s), ("teacher", logits_t)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(_no_logits(side, x))
    if logits_s.shape != logits_t.shape:
        padded = (
            logits_s.shape[:-1] == logits_t.shape[:-1] and min(logits_s.shape[-1], logits_t.shape[-1]) > 1
        )
        raise ValueError(
            "student and teacher logits must have the same shape (..., C); got "
            f"{tuple(logits_s.shape)} and {tuple(logits_t.shape)}.{PADDED if padded else ''}"
        )
    shape = tuple(logits_s.shape)
    if len(shape) < 2:
        raise ValueError(
            f"logits are (N, C), rows of classes; got {shape}. For one example pass z[None], v[None]."
        )
    if len(shape) > 3:
        raise ValueError(
            f"logits are (N, C) or (B, L, C), the classes last; got {shape}. For maps (B, C, H, W) pass "
            "z.movedim(1, -1).flatten(0, -2) of both sides; where the classes are last already, z.flatten(0, -2)."
        )
    if shape[-1] < classes:
        raise ValueError(
            f"the softmax of {shape[-1]} logit is constant, so there is nothing to learn from {shape}. For one "
            "logit x and its sigmoid pass the two classes torch.cat([x, torch.zeros_like(x)], -1) of both sides."
        )


def _no_logits(side: str, x) -> str:
    if x is None and side == "teacher":
        return "there are no teacher logits (None): this loss needs a teacher; without one, F.cross_entropy(z, y)."
    if isinstance(x, Tensor):
        return f"{side} logits are floating-point numbers; got {x.dtype}. Are they labels, or an argument out of place?"
    remedy = "pass the tensor of logits in it, e.g. output.logits, output['logits'] or output[0]"
    if (not hasattr(x, "logits") and type(x).__module__ == "numpy") or isinstance(x, list):
        remedy = "pass torch.as_tensor(…) of it"
    return f"{side} logits must be a tensor; got {type(x).__name__}: {remedy}."


def check_mask(mask: Tensor | None, logits: Tensor) -> None:
    if mask is None:
        return
    wanted = f"the mask must be a boolean tensor of shape {tuple(logits.shape[:-1])}"
    if not isinstance(mask, Tensor):
        raise ValueError(f"{wanted}; got {type(mask).__name__}.")
    if mask.dtype != torch.bool or mask.shape != logits.shape[:-1]:
        remedy = "" if mask.dtype == torch.bool else " Pass mask.bool()."
        raise ValueError(f"{wanted}; got {mask.dtype} {tuple(mask.shape)}.{remedy}")


def class_labels(logits: Tensor, y: Tensor) -> Tensor:
    """y as (rows,) int64, if it has one whole number for each row of the logits; not yet whether it is a class."""
    if not isinstance(y, Tensor):
        raise TypeError(
            f"labels must be a tensor of whole numbers; got {type(y).__name__}: torch.as_tensor(…)."
        )
    if isinstance(logits, Tensor) and y.shape == logits.shape and y.dim() > 1:
        raise ValueError(
            f"takes one class per row; got labels {tuple(y.shape)}, one number for each logit. For soft labels add "
            "(1 - alpha) * F.cross_entropy(z, y) and alpha * kd_loss(z, v, T) yourself. For several labels per "
            "example each class is a pair (z, 0): see the FAQ."
        )
    if isinstance(logits, Tensor) and y.shape != logits.shape[:-1]:
        raise ValueError(
            f"takes logits (N, C) and labels (N,), or (B, L, C) and (B, L); got {tuple(logits.shape)} and "
            f"{tuple(y.shape)}. For maps (B, C, H, W) pass z.movedim(1, -1).flatten(0, -2) and y.flatten()."
        )
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"labels are whole numbers; got {y.dtype}: pass y.long() if they are classes.")
    return y.long().flatten()


def check_within(what: str, x: Tensor, classes: int, remedy: str = "") -> None:
    """Raises ValueError unless all of x lie in 0 … classes − 1."""
    if x.numel():
        low, high = (end.item() for end in x.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(f"{what} lie in 0 … {classes - 1}; got {low} … {high}.{remedy}")


def check_stored(index: Tensor, p: Tensor) -> None:
    """Raises ValueError unless the probabilities are some, and no token is stored twice in a row."""
    if not p.numel():
        return
    if not (p.min().item() >= 0 and p.sum(-1, dtype=torch.float32).max().item() <= 1.01):
        raise ValueError("probabilities are 0 or more and sum to at most 1 in each row.")
    padding = torch.arange(-index.shape[-1], 0, device=index.device)
    places = index.where(p > 0, padding).sort(-1).values
    twice = places[:, 1:] == places[:, :-1]
    if twice.any():
        raise ValueError(
            f"token {places[:, 1:][twice][0]} is stored twice in a row: add up its probabilities, e.g. with "
            "p.new_zeros(rows, V).scatter_add_(-1, index, p).topk(K), or give the second place p = 0."
        )


def not_finite(total: float, z: Tensor, v: Tensor) -> NotFinite:
    ranges = ", ".join(f"{what} {_range(x)}" for what, x in (("student", z), ("teacher", v)))
    return NotFinite(
        f"the loss is {total}: logits are {ranges}. If training diverges, lower the learning rate; mask positions "
        "that do not count; a class that one side rules out (−inf) and the other does not may be infinitely far."
    )


def _range(x: Tensor) -> str:
    known = x[~x.isnan()].float()
    span = f"{known.min():.3g} … {known.max():.3g}" if len(known) else "all NaN"
    return f"{span} ({int(x.isnan().sum())} NaN)"
