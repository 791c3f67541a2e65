"""The pieces of a run that `fit` and `fit_many` share: its batches, the teacher's rows, a step, a validation."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real

import torch
from torch import Tensor, nn

from ._device import ask


def batches(n: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches: one permutation after another, the short rest of each left out (kept if it is all)."""
    size = min(batch_size, n)
    order = torch.randperm(n, generator=generator, device="cpu")
    start = 0
    for _ in range(steps):
        if start + size > n:
            order, start = torch.randperm(n, generator=generator, device="cpu"), 0
        yield order[start : start + size]
        start += size


def bar(batches, steps: int, progress: bool):
    """The batches, with a progress bar if it is wanted."""
    if not progress:
        return batches
    from tqdm.auto import tqdm

    return tqdm(batches, total=steps, unit="step")


def drawn(split, index: Tensor, transform, generator: torch.Generator) -> Tensor:
    """The inputs of a batch, as they are or transformed."""
    if transform is None:
        return split.x[index]
    said = f"it returns the {len(index)} inputs, changed. One of x alone: lambda x, generator: transform(x)"
    try:
        x = transform(split.x[index], generator)
    except TypeError as error:
        raise TypeError(f"the transform is called as transform(x, generator): {error}. {said}.") from error
    if not isinstance(x, Tensor) or len(x) != len(index):
        raise TypeError(f"transform(x, generator) returned {type(x).__name__}; {said}.")
    return x


def teach(teacher, x: Tensor, index: Tensor):
    """The teacher's rows for a batch; None without a teacher."""
    if teacher is None or isinstance(teacher, Tensor):
        return None if teacher is None else teacher[index].detach().to(x.device)
    with torch.no_grad():
        return ask(teacher.eval(), x)


def descent(weights, lr, weight_decay, steps, where, half, fused=None) -> Callable[..., None]:
    """A function that takes one step of AdamW down the sum of some losses; lr falls along half a cosine.

    In float16 the losses are scaled so that small gradients are not lost. A step whose gradients overflow is
    left out, the schedule's with it, and the scale is halved.
    """
    optimiser = torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay, fused=fused)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    scaler = torch.amp.GradScaler(where.type, enabled=half is torch.float16)

    def descend(*losses: Tensor) -> None:
        optimiser.zero_grad()
        torch.autograd.backward([scaler.scale(loss) for loss in losses])
        scale = scaler.get_scale()
        scaler.step(optimiser)
        scaler.update()
        if scaler.get_scale() >= scale:
            schedule.step()
        elif scaler.get_scale() < 1:
            raise FloatingPointError(
                f"gradients overflow float16 even unscaled: lower lr = {lr}, or take precision=torch.bfloat16."
            )

    return descend


def scored(outputs: Tensor, y: Tensor, score) -> float:
    """The score of a student by its outputs, higher for the better."""
    value = score(outputs, y)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, Real) or math.isnan(value):
        raise ValueError(f"a score is one number, higher for the better; got {value}.")
    return float(value)


def keep_better(best: dict, value: float, step: int, student: nn.Module) -> None:
    """`best` holds the score, step and weights of the best validation so far; of equal ones, the first."""
    if not best or value > best["score"]:
        best.update(score=value, step=step, weights=copy.deepcopy(student.state_dict()))


@contextmanager
def noted(report: Callable) -> Iterator[None]:
    """An error inside, Ctrl-C among them, carries what was measured until then as its attribute `history`."""
    try:
        yield
    except BaseException as error:
        error.history = report()
        raise
    finally:
        torch.clear_autocast_cache()  # an autocast around the run may hold casts of the weights as they were


@contextmanager
def settled(student: nn.Module, best: dict) -> Iterator[None]:
    """However it ends, the student is in eval mode afterwards, with its best weights if some were validated."""
    try:
        yield
    finally:
        student.eval()
        if best:
            student.load_state_dict(best["weights"])
