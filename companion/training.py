"""One training loop for teachers and students, and the teacher's outputs, computed once."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._device import evaluated, forked, on_device
from ._many import check_alike, each, stack, unstack
from .data import Split
from .metrics import accuracy

Loss = Callable[[Tensor, Tensor | None, Tensor], Tensor]
Score = Callable[[Tensor, Tensor], float]


def hard_loss(logits_s: Tensor, logits_t: Tensor | None, y: Tensor) -> Tensor:
    """CE(y, softmax z), mean over examples: training without a teacher, in the form `fit` calls."""
    return F.cross_entropy(logits_s, y)


@dataclass(frozen=True)
class History:
    """What a run did: the loss of each step, and the validation score at the steps where it was taken.

    The losses of the book are in nats, and the score is the accuracy in % unless `fit` was given another.
    """

    loss: list[float]
    val_steps: list[int]
    val_score: list[float]
    best_step: int

    @property
    def val_accuracy(self) -> list[float]:
        """`val_score` under its name where the score is the accuracy."""
        return self.val_score


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
    score: Score = accuracy,
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
        val: if given, scored every `val_every` steps and at the end; the weights of the best score are kept.
        score: called as score(outputs, y) on all of `val`; higher is better. For a regression
            `lambda z, y: -F.mse_loss(z, y).item()`, for tokens
            `lambda z, y: accuracy(z.flatten(0, 1), y.flatten())`.
        progress: show a bar (needs tqdm).

    Returns:
        History. The student is left in eval mode.

    Raises:
        ValueError: teacher logits that do not fit `train`, or cached ones together with a transform;
            no steps or examples; val_every below 1; a loss that is not one number; a score that does not
            fit `val`, tried before the first step.
        FloatingPointError: the loss is no longer finite; names the step.
    """
    _check_run(train, teacher, transform, steps, batch_size, val_every)
    generator = torch.Generator().manual_seed(seed)
    batches = _batches(len(train), batch_size, steps, generator)
    history, best = History([], [], [], steps), (-math.inf, steps, None)
    with on_device(student, teacher) as where, forked(where):
        if val is not None:
            _score(student, val, score)
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
                best = _validate(student, val, score, step, history, best)
        student.eval()
        if val is None:
            return history
        student.load_state_dict(best[2])
    return History(history.loss, history.val_steps, history.val_score, best[1])


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
def predict(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """What a model, teacher or student, answers on all of x: row i for example i, in eval mode, no gradients.

    A model on the CPU is asked on the GPU where there is one (`companion.device()`), and comes back.

    Args:
        model: a module that maps x to outputs, e.g. logits; each of its parts gets its own mode back afterwards.
        x: (N, ...). batch_size: examples at a time; it does not change the result.

    Returns:
        (N, C) for a classifier, on the device of x.
    """
    with on_device(model) as where, evaluated(model):
        return torch.cat([model(part.to(where)).to(x.device) for part in x.split(batch_size)])


def teacher_logits(teacher: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """`predict(teacher, x)`, under the name of what `fit` takes as `teacher`: the teacher's answers, made once.

    `fit` takes the rows of each batch by index, so shuffling cannot misalign them. They hold for x as it is:
    with a transform, pass the teacher itself.
    """
    return predict(teacher, x, batch_size)


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


def _score(student, val, score):
    if score is accuracy and (val.y.is_floating_point() or val.y.dim() != 1):
        raise ValueError(
            f"accuracy takes labels (N,), and val.y is {val.y.dtype} {tuple(val.y.shape)}: give a score, e.g. "
            "score=lambda z, y: -F.mse_loss(z, y).item(). Higher must be better."
        )
    value = score(predict(student, val.x), val.y)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, Real) or math.isnan(value):
        raise ValueError(f"a score is one number, higher for the better; got {value}.")
    return float(value)


def _validate(student, val, score, step, history, best):
    value = _score(student, val, score)
    history.val_steps.append(step)
    history.val_score.append(value)
    better = value > best[0] or best[2] is None
    return (value, step, copy.deepcopy(student.state_dict())) if better else best


def _bar(batches, steps, progress):
    if not progress:
        return batches
    from tqdm.auto import tqdm

    return tqdm(batches, total=steps, unit="step")


def _number(loss: Tensor) -> float:
    if loss.numel() != 1:
        raise ValueError(f"the loss has shape {tuple(loss.shape)}: take its mean, fit needs one number.")
    return loss.item()
