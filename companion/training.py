"""One training loop for teachers and students, and the teacher's outputs, computed once."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._device import forked, on_device
from ._many import check_alike, each, stack, unstack
from .data import Split
from .metrics import accuracy

Loss = Callable[[Tensor, Tensor | None, Tensor], Tensor]


def hard_loss(logits_s: Tensor, logits_t: Tensor | None, y: Tensor) -> Tensor:
    """CE(y, softmax z), mean over examples: training without a teacher, in the form `fit` calls."""
    return F.cross_entropy(logits_s, y)


@dataclass(frozen=True)
class History:
    """What a run did: the loss (nats) of each step, and validation accuracy (%) at the steps it was taken."""

    loss: list[float]
    val_steps: list[int]
    val_accuracy: list[float]
    best_step: int


def fit(
    student: nn.Module,
    train: Split,
    loss: Loss = hard_loss,
    teacher: nn.Module | Tensor | None = None,
    *,
    steps: int,
    lr: float,
    batch_size: int = 100,
    weight_decay: float = 0.01,
    seed: int = 0,
    transform: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    val: Split | None = None,
    val_every: int = 100,
    progress: bool = False,
) -> History:
    """Train `student` in place with AdamW, the learning rate falling to 0 along half a cosine.

    Args:
        student: any module that maps x to logits. If it lies on the CPU and there is a GPU, it is trained there
            and comes back; `companion.device()` decides. On another device it stays where it is.
        train: what to learn from. Each epoch is a new permutation drawn from `seed`.
        loss: called as loss(logits_s, logits_t, y), e.g. `lambda s, t, y: kd_loss(s, t, T=4)`.
        teacher: a module, run in eval mode without gradients on the very input the student sees; or its
            logits (len(train), C) from `teacher_logits`; or None, and the loss gets None.
        steps, lr, batch_size, weight_decay: of AdamW; lr is the first step's.
        seed: of the batches, of dropout and of `transform`. The same seed gives the same run on the same device;
            batches and transform are drawn on the CPU, and so are the same on each.
        transform: changes each batch where `train` lies, called as transform(x, generator). Teacher and student
            see the same.
        val: if given, measured every `val_every` steps and at the end; the best weights are kept.
        progress: show a bar (needs tqdm).

    Returns:
        History. The student is left in eval mode.

    Raises:
        ValueError: teacher logits that do not fit `train`, or cached ones together with a transform;
            no steps or examples; val_every below 1; a loss that is not one number.
        FloatingPointError: the loss is no longer finite; names the step.
    """
    _check_run(train, teacher, transform, steps, batch_size, val_every)
    generator = torch.Generator().manual_seed(seed)
    batches = _batches(len(train), batch_size, steps, generator)
    history, best = History([], [], [], steps), (-1.0, steps, None)
    with on_device(student, teacher) as where, forked(where):
        torch.manual_seed(seed)
        optimiser = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for step, index in enumerate(_bar(batches, steps, progress), start=1):
            x = train.x[index] if transform is None else transform(train.x[index], generator)
            x, y = x.to(where), train.y[index].to(where)
            value = loss(student.train()(x), _teach(teacher, x, index), y)
            history.loss.append(_number(value))
            if not math.isfinite(history.loss[-1]):
                raise FloatingPointError(f"the loss is {history.loss[-1]} at step {step}: lower lr = {lr}.")
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
            if val is not None and (step % val_every == 0 or step == steps):
                best = _validate(student, val, step, history, best)
        student.eval()
        if val is None:
            return history
        student.load_state_dict(best[2])
    return History(history.loss, history.val_steps, history.val_accuracy, best[1])


def fit_many(
    students: Sequence[nn.Module],
    train: Split | Sequence[Split],
    loss: Loss | Sequence[Loss] = hard_loss,
    teacher: nn.Module | Tensor | Sequence | None = None,
    *,
    steps: int,
    lr: float,
    seeds: Sequence[int],
    batch_size: int = 100,
    weight_decay: float = 0.01,
    transform: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> list[History]:
    """Train students of one kind in place, all at once: what `fit` makes of each with its seed, to rounding.

    It pays where a step is mostly overhead: small MLPs. It does not for `ConvNet`, whose convolutions are no
    faster together (benchmarks/README.md has the ratios): there call `fit` in a loop.

    Args:
        students: alike but for their weights; batch norm keeps each student's own averages. Taken to the GPU
            and back as by `fit`.
        train, loss, teacher: as in `fit`, one for all students or a list, one for each. Temperature and α of
            its own: `[partial(distillation_loss, T=T, alpha=a) for T, a in ...]`.
        seeds: one a student, of its batches and of its `transform`.
        steps, lr, batch_size, weight_decay, transform: as in `fit`, the same for all.

    Returns:
        A History a student. There is no validation on the way. The students are left in eval mode.

    Raises:
        ValueError: as `fit`; students that are not alike or have dropout, whose draws could not be those of
            `fit`; a list that is not one for each; batches of different sizes.
        FloatingPointError: a loss is no longer finite; names student and step. No student is changed then.
    """
    n = len(students)
    check_alike(students)
    named = (("train splits", train), ("losses", loss), ("teachers", teacher), ("seeds", list(seeds)))
    splits, losses, teachers, seeds = (each(name, value, n) for name, value in named)
    for split, one in zip(splits, teachers, strict=True):
        _check_run(split, one, transform, steps, batch_size, 1)
    if len({min(batch_size, len(split)) for split in splits}) > 1:
        raise ValueError(f"splits of {sorted(map(len, splits))} examples give batches of different sizes.")
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    batches = [_batches(len(s), batch_size, steps, g) for s, g in zip(splits, generators, strict=True)]
    history = [History([], [], [], steps) for _ in students]
    with on_device(*students, *teachers) as where:
        state, forward = stack(students)
        weights = [x for x in state.values() if x.requires_grad]
        optimiser = torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for index in zip(*batches, strict=True):
            xs = [split.x[i] for split, i in zip(splits, index, strict=True)]
            ys = [split.y[i].to(where) for split, i in zip(splits, index, strict=True)]
            if transform is not None:
                xs = [transform(x, generator) for x, generator in zip(xs, generators, strict=True)]
            x = torch.stack(xs).to(where)
            taught = [_teach(*asked) for asked in zip(teachers, x, index, strict=True)]
            rows = zip(losses, forward(x), taught, ys, strict=True)
            values = [one(z, v, y) for one, z, v, y in rows]
            for i, (past, value) in enumerate(zip(history, values, strict=True)):
                past.loss.append(_number(value))
                if not math.isfinite(past.loss[-1]):
                    student = f"student {i} at step {len(past.loss)}"
                    raise FloatingPointError(f"the loss is {past.loss[-1]}, {student}: lower lr = {lr}.")
            optimiser.zero_grad()
            torch.autograd.backward(values)
            optimiser.step()
            schedule.step()
        unstack(state, students)
    return history


@torch.no_grad()
def teacher_logits(teacher: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """The teacher's logits on all of x, row i for example i, in eval mode and without gradients.

    A teacher on the CPU is asked on the GPU where there is one (`companion.device()`), and comes back.

    Give them to `fit` as `teacher`: it takes the rows of each batch by index, so shuffling cannot misalign
    them. They hold for x as it is: with a transform, pass the teacher itself.

    Args:
        teacher: a module that maps x to logits; its mode is put back afterwards.
        x: (N, ...). batch_size: examples at a time; it does not change the result.

    Returns:
        (N, C), on the device of x.
    """
    was_training = teacher.training
    teacher.eval()
    with on_device(teacher) as where:
        logits = torch.cat([teacher(part.to(where)).to(x.device) for part in x.split(batch_size)])
    teacher.train(was_training)
    return logits


def jitter(pixels: int) -> Callable[[Tensor, torch.Generator], Tensor]:
    """A transform for `fit`: rolls each image by up to ±`pixels` in both directions, each drawn evenly."""

    def transform(x: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = x.shape
        shift = torch.randint(-pixels, pixels + 1, (2, n, 1), generator=generator)
        rows = (torch.arange(height) + shift[0]) % height
        columns = (torch.arange(width) + shift[1]) % width
        return x[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    return transform


def _check_run(train, teacher, transform, steps, batch_size, val_every):
    if steps < 1 or len(train) == 0 or batch_size < 1:
        raise ValueError(f"nothing to do: {steps} steps on {len(train)} examples, {batch_size} at a time.")
    if val_every < 1:
        raise ValueError(f"val_every is a number of steps, 1 or more; got {val_every}.")
    if not isinstance(teacher, Tensor):
        return
    if len(teacher) != len(train):
        raise ValueError(f"{len(teacher)} rows of teacher logits for {len(train)} training examples.")
    if transform is not None:
        raise ValueError(
            "cached teacher logits belong to the images as they are, and the transform changes them: "
            "pass the teacher itself."
        )


def _batches(n, batch_size, steps, generator):
    """Index batches: one permutation after another, the short rest of each left out (kept if it is all)."""
    size = min(batch_size, n)
    order = torch.randperm(n, generator=generator)
    start = 0
    for _ in range(steps):
        if start + size > n:
            order, start = torch.randperm(n, generator=generator), 0
        yield order[start : start + size]
        start += size


def _teach(teacher, x, index):
    if teacher is None or isinstance(teacher, Tensor):
        return None if teacher is None else teacher[index].detach().to(x.device)
    with torch.no_grad():
        return teacher.eval()(x)


def _validate(student, val, step, history, best):
    value = accuracy(teacher_logits(student, val.x), val.y)
    history.val_steps.append(step)
    history.val_accuracy.append(value)
    return (value, step, copy.deepcopy(student.state_dict())) if value > best[0] else best


def _bar(batches, steps, progress):
    if not progress:
        return batches
    from tqdm.auto import tqdm

    return tqdm(batches, total=steps, unit="step")


def _number(loss: Tensor) -> float:
    if loss.numel() != 1:
        raise ValueError(f"the loss has shape {tuple(loss.shape)}: take its mean, fit needs one number.")
    return loss.item()
