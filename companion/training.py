"""One training loop for teachers and students, and what a model answers, computed once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._device import ask, autocast, evaluated, forked, half_type, joined, moved, on_device, one_tensor
from ._input import check_within, whole
from ._many import check_alike, check_outputs, check_sizes, each, stack, unstack
from ._refuse import check_reach, check_run, check_sound, check_student, check_val, finite, loss_of
from ._step import bar, batches, descent, drawn, keep_better, noted, scored, settled, teach
from .data import Split
from .metrics import accuracy

Loss = Callable[[Tensor, Tensor | None, Tensor], Tensor]
Score = Callable[[Tensor, Tensor], float]
Transform = Callable[[Tensor, torch.Generator], Tensor]


def hard_loss(logits_s: Tensor, logits_t: Tensor | None, y: Tensor) -> Tensor:
    """CE(y, softmax z), mean over examples or tokens: training without a teacher, in the form `fit` calls.

    Args:
        logits_s: (..., C). logits_t: not used.
        y: labels (...), whole numbers in 0 … C−1, or −100 where nothing counts; or soft labels (..., C), each
            row a distribution (mixup).

    Returns:
        Scalar, nats per example or token that counts; 0 where none does.

    Raises:
        ValueError: y has another shape, is no class, or is real and no distribution.
    """
    soft = y.is_floating_point()
    if y.shape != (logits_s.shape if soft else logits_s.shape[:-1]):
        raise ValueError(
            f"takes logits (..., C) and labels (...), or (..., C) if they are soft; got {tuple(logits_s.shape)} and "
            f"{y.dtype} {tuple(y.shape)}. For a regression: loss=lambda z, v, y: F.mse_loss(z, y)."
        )
    z = logits_s.flatten(0, -2)
    if not soft:
        y = y.flatten().long()
        check_within(
            "labels", y[y != -100], z.shape[-1], " What does not count is -100; classes 1 … C: y - 1."
        )
        return F.cross_entropy(z, y) if (y >= 0).any() else z.sum() * 0
    if not y.numel():
        return z.sum() * 0
    if not ((y.sum(-1) - 1).abs().max() <= 1e-2 and y.min() >= 0):  # NaN, too
        raise ValueError(
            "a row of soft labels has a negative entry or does not sum to 1. For several labels at once: "
            "loss=lambda z, v, y: F.binary_cross_entropy_with_logits(z, y)."
        )
    return F.cross_entropy(z, y.flatten(0, -2).to(z.dtype))


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
    loss: Loss | None = None,
    teacher: nn.Module | Tensor | None = None,
    *,
    steps: int,
    lr: float,
    batch_size: int = 100,
    weight_decay: float = 0.01,
    seed: int = 0,
    transform: Transform | None = None,
    val: Split | None = None,
    val_every: int = 100,
    score: Score = accuracy,
    precision: torch.dtype | None = None,
    progress: bool = False,
) -> History:
    """Train `student` in place with AdamW, the learning rate falling to 0 along half a cosine.

    Each call starts the optimiser and the schedule anew: two calls of 50 steps are not one of 100. What this small
    loop does not have (loaders, accumulation, a projector's own rate, checkpoints and resuming) is a loop of your
    own with the same losses: `reference/recipes`.

    Args:
        student: any module that maps x to logits, alone or as `.logits` or `["logits"]` of what it returns; from
            one that returns anything else, the loss gets that. If it lies on the CPU and there is a GPU, it is
            trained there and comes back; `companion.device()` decides. On another device it stays where it is.
        train: what to learn from. Each epoch is a new permutation drawn from `seed`.
        loss: called as loss(logits_s, logits_t, y), e.g. `lambda s, t, y: kd_loss(s, t, T=4)`. What it trains
            beside the student (a projector, a temperature) must be a part of the student. None is `hard_loss`, and
            refused beside a teacher, whom it would not ask.
        teacher: a module, run in eval mode without gradients on the very input the student sees, and given its
            modes back; or its logits (len(train), ...) from `teacher_logits`; or None, and the loss gets None.
        steps, lr, batch_size, weight_decay: of AdamW; lr is the first step's.
        seed: of the batches, of dropout and of `transform`. The same seed gives the same run on the same device;
            batches and transform are drawn on the CPU, and so are the same on each.
        transform: changes each batch where `train` lies, called as transform(x, generator). Teacher and student
            see the same.
        val: if given, scored every `val_every` steps and at the end; the weights of the best score are kept.
        score: called as score(outputs, y) on all of `val`; higher is better. From a student that returns a tuple or
            a dict without logits, any score but the accuracy gets that, its tensors over all of `val`. For a regression
            `lambda z, y: -F.mse_loss(z, y).item()`, for tokens
            `lambda z, y: accuracy(z[y >= 0], y[y >= 0])`, which leaves out those without a label.
        precision: torch.bfloat16 or torch.float16: models compute in it under `torch.autocast`, the weights stay as
            they are, and the loss gets float32. In float16 gradients are scaled, and a step where they overflow is
            left out. None is the models' own type, or that of an autocast around the call.
        progress: show a bar (needs tqdm).

    Returns:
        History. The student is left in eval mode.

    Raises:
        TypeError, ValueError: before the first step where something does not fit: teacher logits and `train`, cached
            logits and a transform, a score and `val`, a loss or a transform and how it is called, a student all
            frozen or its own teacher. At the first step: a loss that is not one number, has no gradient in the
            student, or reaches parameters outside it.
        FloatingPointError: loss, weights or answers are no longer finite; names the step.

    After an error or Ctrl-C (KeyboardInterrupt) too the student is in eval mode, with the weights of the best score
    so far, or without `val` the last, of a step perhaps half taken. The exception's `history` is the History until
    then; in a notebook, `sys.last_value.history`.
    """
    check_run(train, loss, teacher, transform, steps, batch_size, precision)
    loss = hard_loss if loss is None else loss
    check_student(student, teacher)
    if val is not None:
        check_val(val, score, val_every)
    generator = torch.Generator().manual_seed(seed)
    losses, val_steps, val_score, best = [], [], [], {}

    def report() -> History:
        return History(losses, val_steps, val_score, best.get("step", len(losses)))

    with on_device(student, teacher) as where, forked(where), evaluated(teacher), noted(report):
        if val is not None:
            scored(_answers(student, val.x, score), val.y, score)
        torch.manual_seed(seed)
        half = half_type(where, precision)
        cast = autocast(where, half)
        with settled(student, best):
            descend = descent(student.parameters(), lr, weight_decay, steps, where, half)
            order = batches(len(train), batch_size, steps, generator)
            student.train()  # `predict` gives each part its mode back
            for step, index in enumerate(bar(order, steps, progress), start=1):
                given = drawn(train, index, transform, generator)
                x, y = given.to(where), train.y[index].to(where)
                with cast():
                    z, v = ask(student, x), teach(teacher, x, index)
                    value, number = loss_of(loss, z, v, y, step, lr)
                losses.append(number)
                if step == 1:
                    check_reach([value], [*student.parameters(), given])
                descend(value)
                if val is not None and (step % val_every == 0 or step == steps):
                    answers = _answers(student, val.x, score)
                    check_sound(
                        not (isinstance(answers, Tensor) and answers.isnan().any()),
                        "answers to val",
                        step,
                        lr,
                    )
                    val_steps.append(step)
                    val_score.append(scored(answers, val.y, score))
                    keep_better(best, val_score[-1], step, student)
            check_sound(finite(student.parameters()), "weights", steps, lr)
    return report()


def fit_many(
    students: Sequence[nn.Module],
    train: Split | Sequence[Split],
    loss: Loss | Sequence[Loss] | None = None,
    teacher: nn.Module | Tensor | Sequence | None = None,
    *,
    steps: int,
    lr: float,
    seeds: Sequence[int],
    batch_size: int = 100,
    weight_decay: float = 0.01,
    transform: Transform | None = None,
    precision: torch.dtype | None = None,
) -> list[History]:
    """Train students of one kind in place, all at once: what `fit` makes of each with its seed, to rounding.

    It pays where a step is mostly overhead: small MLPs. It does not for `ConvNet`, whose convolutions are no
    faster together (benchmarks/README.md has the ratios): there call `fit` in a loop.

    In float32 rounding grows where the loss does not see a weight: Adam makes a step of a gradient that is mere
    rounding. With a linear layer of 784 inputs before batch norm, logits were 0.01 from those of `fit` after 100
    steps, and 1e-5 without batch norm; in float64, 1e-11.

    Args:
        students: alike but for their weights; batch norm keeps each student's own averages. Taken to the GPU
            and back as by `fit`.
        train, loss, teacher: as in `fit`, one for all students or a list with one for each. Temperature and α of
            its own: `[partial(distillation_loss, T=T, alpha=a) for T, a in ...]`.
            The loss must keep nothing from one call to the next: one for all is called for each student in turn.
        seeds: one per student, of its batches and of its `transform`.
        steps, lr, batch_size, weight_decay, transform, precision: as in `fit`, the same for all; in float16 the
            students share one scale, and leave a step out together.

    Returns:
        One History per student. There is no validation on the way. The students are left in eval mode.

    Raises:
        TypeError, ValueError: as `fit`; students that are not alike, that draw at random (dropout), whose draws
            could not be those of `fit`, or that PyTorch's vmap cannot run; a list that does not have one for each;
            batches of different sizes.
        FloatingPointError: a loss is no longer finite; names student and step.

    After an error or Ctrl-C no student is changed; the exception's `history` lists what was measured.
    """
    named = (("train splits", train), ("losses", loss), ("teachers", teacher), ("seeds", list(seeds)))
    splits, asked, teachers, seeds = (each(name, value, len(students)) for name, value in named)
    check_alike(students, teachers)
    for one in zip(splits, asked, teachers, strict=True):
        check_run(*one, transform, steps, batch_size, precision)
    asked = [hard_loss if one is None else one for one in asked]
    check_sizes(splits, batch_size)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    drawing = list(zip(splits, generators, strict=True))
    losses = [[] for _ in students]

    def report() -> list[History]:
        return [History(past, [], [], len(past)) for past in losses]

    with on_device(*students, *teachers) as where, evaluated(*students, *teachers), noted(report):
        state, forward = stack(students)
        half = half_type(where, precision)
        cast = autocast(where, half)
        weights = [x for x in state.values() if x.requires_grad]
        descend = descent(weights, lr, weight_decay, steps, where, half, fused=True)
        orders = [batches(len(split), batch_size, steps, g) for split, g in drawing]
        for step, index in enumerate(zip(*orders, strict=True), start=1):
            xs = [drawn(split, i, transform, g) for (split, g), i in zip(drawing, index, strict=True)]
            x = torch.stack(xs).to(where)
            ys = [split.y[i].to(where) for split, i in zip(splits, index, strict=True)]
            if step == 1:
                with autocast(where, half, enabled=False)():  # half precision would hide small differences
                    check_outputs(students, state, forward, x)
            with cast():
                taught = [teach(*one) for one in zip(teachers, x, index, strict=True)]
                rows = zip(asked, forward(x), taught, ys, strict=True)
                found = [loss_of(*row, step, lr, f" for student {i}") for i, row in enumerate(rows)]
            for past, (_, number) in zip(losses, found, strict=True):
                past.append(number)
            values = [value for value, _ in found]
            if step == 1:
                check_reach(values, [*weights, *xs])
            descend(*values)
        check_sound(finite(weights), "weights", steps, lr)
        unstack(state, students)
    for student in students:
        student.eval()
    return report()


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """What a model, teacher or student, answers on all of x: row i for example i, in eval mode, no gradients.

    A model on the CPU is asked on the GPU where there is one (`companion.device()`), and comes back.

    Args:
        model: a module that maps x to outputs, e.g. logits, alone or as `.logits` or `["logits"]` of what it
            returns. It gets x in the type of its weights; each of its parts gets its own mode back afterwards.
        x: (N, ...). batch_size: examples at a time; it does not change the result.

    Returns:
        (N, C) for a classifier, on the device of x.

    Raises:
        TypeError: x is no tensor, or the model returns something without logits.
        ValueError: batch_size is no whole number, 1 or more.
    """
    if not isinstance(x, Tensor) or not isinstance(model, nn.Module):
        raise TypeError(
            f"predict takes an nn.Module and a tensor; got {type(model).__name__} and {type(x).__name__}. With a "
            "DataLoader: torch.cat([predict(model, x) for x, _ in loader])."
        )
    whole("batch_size", batch_size)
    return torch.cat([one_tensor(part) for part in _asked(model, x, batch_size)])


@torch.no_grad()
def _asked(model: nn.Module, x: Tensor, batch_size: int = 1000) -> list:
    """What the model returns for each batch of x, on the device of x."""
    with on_device(model) as where, evaluated(model), autocast(where, half_type(where, None))():
        return [moved(ask(model, part.to(where)), x.device) for part in x.split(batch_size)]


def _answers(student: nn.Module, x: Tensor, score: Score):
    """What a score is given: the student's answers to all of x."""
    parts = _asked(student, x)
    return joined([one_tensor(part) for part in parts] if score is accuracy else parts)


def teacher_logits(teacher: nn.Module, x: Tensor, batch_size: int = 1000) -> Tensor:
    """`predict(teacher, x)`, under the name of what `fit` takes as `teacher`: the teacher's answers, made once.

    `fit` takes the rows of each batch by index, so shuffling cannot misalign them. They hold for x as it is:
    with a transform, pass the teacher itself.
    """
    return predict(teacher, x, batch_size)


def jitter(pixels: int) -> Transform:
    """A transform for `fit`: rolls each image by up to ±`pixels` in both directions, each drawn evenly.

    Raises:
        ValueError: pixels is no whole number, 0 or more.
    """
    whole("pixels", pixels, least=0)
    return partial(_roll, pixels)


def _roll(pixels: int, x: Tensor, generator: torch.Generator) -> Tensor:
    n, _, height, width = x.shape
    shift = torch.randint(-pixels, pixels + 1, (2, n, 1), generator=generator, device="cpu")
    rows = (torch.arange(height, device="cpu") + shift[0]) % height
    columns = (torch.arange(width, device="cpu") + shift[1]) % width
    image = torch.arange(n, device="cpu")[:, None, None]
    return x[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
