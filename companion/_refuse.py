"""What `fit` and `fit_many` refuse, each with its remedy: most of it before the first step."""

import inspect
import math
from collections.abc import Mapping
from numbers import Number

import torch
from torch import Tensor, nn

from ._input import whole
from .metrics import accuracy

LABELS = ("y", "label", "labels", "target", "targets")  # a third parameter of these names may have a default


def check_run(train, loss, teacher, transform, steps, batch_size, precision) -> None:
    """What there is to learn from, and what it is called with."""
    if not torch.is_grad_enabled():
        raise ValueError("gradients are switched off here: call it outside no_grad() and inference_mode().")
    check_split("train", train)
    whole("steps", steps), whole("batch_size", batch_size)
    if len(train) == 0:
        raise ValueError(f"nothing to do: {steps} steps on no examples.")
    if precision not in (None, torch.bfloat16, torch.float16):
        raise ValueError(f"precision is torch.bfloat16, torch.float16 or None; got {precision}.")
    if loss is not None:
        _check_loss(loss)
    _check_teacher(teacher, train, transform)
    if loss is None and teacher is not None:
        raise ValueError(
            "a teacher was given and no loss that asks it: pass loss=lambda z, v, y: kd_loss(z, v, T=4), or another "
            "with v, the teacher's logits. To train on the labels alone, leave the teacher out."
        )


def check_split(name: str, split) -> None:
    """`split` is what the loop indexes: two tensors that belong together."""
    arrays = [part for part in "xy" if hasattr(split, part) and not isinstance(getattr(split, part), Tensor)]
    if arrays and hasattr(split, "x") and hasattr(split, "y"):
        kind = type(getattr(split, arrays[0])).__name__
        raise TypeError(
            f"{name}.{arrays[0]} is no tensor but {kind}: Split(torch.as_tensor(x), torch.as_tensor(y))."
        )
    if not all(isinstance(getattr(split, part, None), Tensor) for part in "xy"):
        raise TypeError(
            f"{name} is a Split(x, y) of tensors; got {type(split).__name__}. From a TensorDataset: "
            "Split(*dataset.tensors). For a DataLoader write the loop yourself: reference/recipes has it."
        )


def check_student(student, *teachers) -> None:
    """The student can be trained, and is not its own teacher."""
    if not isinstance(student, nn.Module):
        raise TypeError(f"a student is an nn.Module; got {type(student).__name__}.")
    if any(student is teacher for teacher in teachers):
        raise ValueError("teacher and student are the same object: teach by a copy, copy.deepcopy(student).")
    learned = [p for p in student.parameters() if p.requires_grad]
    if not learned:
        raise ValueError("all weights of the student are frozen: free some by requires_grad_(True).")
    taught_by = {
        id(p) for teacher in teachers if isinstance(teacher, nn.Module) for p in teacher.parameters()
    }
    shared = [name for name, p in student.named_parameters() if p.requires_grad and id(p) in taught_by]
    if shared:
        raise ValueError(
            f"the teacher holds the student's own {', '.join(shared[:3])}, and would change with every step: give it "
            "a copy, copy.deepcopy(teacher), or freeze what both hold by requires_grad_(False)."
        )
    if any(p.dtype == torch.float16 for p in learned):
        raise ValueError("AdamW cannot train float16 weights: student.float(), with precision=torch.float16.")


def check_val(val, score, val_every: int) -> None:
    """What validation needs; whether the score fits is tried on the student itself."""
    check_split("val", val)
    whole("val_every", val_every)
    if score is accuracy and (val.y.is_floating_point() or val.y.dim() != 1):
        other = "-F.mse_loss(z, y).item()" if val.y.is_floating_point() else "accuracy(z[y >= 0], y[y >= 0])"
        raise ValueError(
            f"accuracy takes labels (N,), and val.y is {val.y.dtype} {tuple(val.y.shape)}: give a score, e.g. "
            f"score=lambda z, y: {other}. Higher must be better."
        )


def check_reach(losses: list[Tensor], owned: list[Tensor]) -> None:
    """Refuse losses that reach parameters which the optimiser does not have: they would never move."""
    known = {id(x) for x in owned}
    seen, ahead = set(), [loss.grad_fn for loss in losses]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [inner for inner, _ in node.next_functions]
        if type(node).__name__ == "AccumulateGrad" and id(node.variable) not in known:
            raise ValueError(
                f"the loss depends on a parameter {tuple(node.variable.shape)} that is not the student's and would "
                "never be trained. Make its module (a projector, a temperature) a part of the student, or freeze "
                "it by requires_grad_(False)."
            )


def loss_of(loss, z, v, y, step: int, lr: float, who: str = "") -> tuple[Tensor, float]:
    """The loss of a batch and its number; where there is none to descend, the error says why."""
    try:
        value = loss(z, v, y)
    except ValueError as error:
        if not str(error).startswith("the loss is ") and _sound(z):
            raise
        raise _no_number(error, step, lr, who, v) from error
    except (TypeError, AttributeError) as error:
        raise TypeError(_not_taken(error, z, v, y)) from error
    if not isinstance(value, Tensor | Number):
        raise TypeError(f"the loss{who} {_returned(value)}")
    if not isinstance(value, Tensor) or not value.requires_grad:
        raise ValueError(
            f"the loss{who} does not depend on the student's outputs: is something detached or taken by .item(), "
            "or are student and teacher swapped?"
        )
    if value.numel() != 1:
        raise ValueError(f"the loss has shape {tuple(value.shape)}: take its mean, fit needs one number.")
    number = value.item()
    if not math.isfinite(number):
        raise _no_number(f"the loss is {number}", step, lr, who, v)
    return value, number


def _returned(value) -> str:
    """What came in place of a tensor, and where the loss in it may be."""
    if value is None:
        return "returned None: does it end without return?"
    if isinstance(value, Mapping) and value:
        key = "loss" if "loss" in value else next(iter(value))
        return f"returned a dict: take loss[{key!r}], lambda z, v, y: loss(z, v, y)[{key!r}]."
    if isinstance(value, tuple | list):
        return f"returned a {type(value).__name__}: take one number, lambda z, v, y: loss(z, v, y)[0]."
    return f"returned a {type(value).__name__}: fit needs a tensor of one number."


def check_sound(sound: bool, what: str, step: int, lr: float) -> None:
    """What a step left behind is finite; the loss would only show it at the next step, and never at the last."""
    if not sound:
        raise _diverged(f"{what} are not finite", step, lr)


def _check_loss(loss) -> None:
    takes = "the loss is called as loss(logits_s, logits_t, y)"
    if not callable(loss):
        raise TypeError(f"{takes}; got {type(loss).__name__}.")
    if _of_input_and_target(loss):
        raise TypeError(
            f"{takes}, and this one of (input, target), and y would land in {_third(loss)}: {_in_form(loss)}"
        )
    if not _takes(loss, 3):
        raise TypeError(
            f"{takes}, and this one does not take the three: loss=lambda z, v, y: ... with what it takes."
        )
    third = list(_signature(loss).parameters.values())[2:3] if _signature(loss) else []
    if third and third[0].default is not inspect.Parameter.empty and third[0].name not in LABELS:
        raise TypeError(
            f"{takes}, and y would land in its option {third[0].name}: loss=lambda z, v, y: "
            f"{getattr(loss, '__name__', 'loss')}(z, v, {third[0].name}=...)."
        )


def _of_input_and_target(loss) -> bool:
    """One of PyTorch's own losses, function or module."""
    return list(_signature(loss).parameters)[:2] == ["input", "target"] if _signature(loss) else False


def _third(loss) -> str:
    name = [*_signature(loss).parameters, None, None, None][2]
    return f"its option {name}" if name else "no place: it does not take the three"


def _in_form(loss) -> str:
    name = getattr(loss, "__name__", "loss")
    if name == "kl_div" or type(loss).__name__ == "KLDivLoss":
        return "loss=lambda z, v, y: kd_loss(z, v, T=1)."
    name = f"F.{name}" if getattr(loss, "__module__", "") == "torch.nn.functional" else name
    return f"loss=lambda z, v, y: {name}(z, y). (v are the teacher's logits, y is what train holds.)"


def _check_teacher(teacher, train, transform) -> None:
    if teacher is None or isinstance(teacher, nn.Module):
        return
    if not isinstance(teacher, Tensor):
        raise TypeError(
            f"the teacher is an nn.Module, its logits as a tensor, or None; got {type(teacher).__name__}. Logits from "
            "elsewhere: torch.as_tensor(logits). A function or several teachers: a module whose forward calls them."
        )
    if len(teacher) != len(train):
        raise ValueError(f"{len(teacher)} rows of teacher logits for {len(train)} training examples.")
    if transform is not None:
        raise ValueError(
            "cached teacher logits belong to the images as they are, and the transform changes them: "
            "pass the teacher itself."
        )
    unknown = teacher.isnan().flatten(1).any(1).nonzero().flatten().tolist()
    if unknown:
        raise ValueError(
            f"row {unknown[0]} of the teacher logits holds NaN ({len(unknown)} of {len(teacher)} rows do): ask the "
            "teacher anew, or leave those examples out of train and logits."
        )


def _signature(function) -> inspect.Signature | None:
    try:
        return inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):  # built in: it says nothing of what it takes
        return None


def _takes(function, n: int) -> bool:
    try:
        _ = _signature(function) and _signature(function).bind(*range(n))
    except TypeError:
        return False
    return True


def _diverged(what, step: int, lr: float) -> FloatingPointError:
    return FloatingPointError(f"{what} at step {step}: the run diverges, lower lr = {lr}.")


def _no_number(what, step: int, lr: float, who: str, v) -> FloatingPointError:
    said = (
        str(what).split(". ")[0] + who
    )  # of what a loss says, masks and all, its ranges are to the point here
    if step == 1:
        return FloatingPointError(
            f"{what}{who} at step 1, before any update: look for what is not finite in x, in the teacher's outputs "
            "and in the student's weights."
        )
    if not _sound(v):
        return FloatingPointError(
            f"{said} at step {step}: look for what is not finite in the teacher's outputs."
        )
    return _diverged(said, step, lr)


def finite(tensors) -> bool:
    """Whether all numbers in all tensors are finite."""
    return all(bool(x.isfinite().all()) for x in tensors)


def _sound(z) -> bool:
    return not isinstance(z, Tensor) or not (z.isnan() | z.isposinf()).any()


def _not_taken(error: Exception, z, v, y) -> str:
    kinds = ", ".join(f"{tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__ for x in (z, v, y))
    if v is None:
        hint = "There is no teacher, so logits_t is None."
    else:
        hint = "Where a model returns more than its logits, unpack it in the loss."
    return f"loss(logits_s, logits_t, y) could not take {kinds}: {error}. {hint}"
