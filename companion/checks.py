"""Claims, numbers for the prose, and exercises that check themselves.

An exercise's check runs the reader's function on random inputs beside the right one. If they differ, it
looks among the mistakes people really make for one that gives the same result, and prints that one's hint.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import losses, metrics


def claim(text: str, holds) -> None:
    """Print "✓ text" if `holds` is true, else raise: a sentence of the book that a run checks.

    Args:
        text: the claim, without numbers that depend on the run.
        holds: a bool, or a boolean tensor or array of one value. Compare with a margin.

    Raises:
        AssertionError: the claim does not hold.
        TypeError: `holds` is not one truth value (a float that is NaN would pass as true).
    """
    value = holds.item() if math.prod(getattr(holds, "shape", [0])) == 1 else holds
    if not isinstance(value, bool):
        raise TypeError(f"claim takes one truth value; got {holds!r}.")
    if not value:
        raise AssertionError(f"✗ {text}")
    print(f"✓ {text}")


def glue(**values: float | str) -> None:
    """Give measured numbers to the prose: glue(gain=4.2) is written {glue:text}`gain:.1f` in a page."""
    from IPython.display import display

    for name, value in values.items():
        plain = repr(value.item() if hasattr(value, "item") else value)
        metadata = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}}
        display({"application/papermill.record/text/plain": plain}, raw=True, metadata=metadata)


# ---------------------------------------------------------------------------------------------- exercises


def soften(attempt: Callable[[Tensor, float], Tensor]) -> None:
    """Checks attempt(logits, T) → probabilities (N, C), eq-soften."""
    _check(
        "soften", attempt, losses.soften, _cases(lambda z, v, y, T: (z, T)),
        {
            "T is ignored: divide the logits by T.": lambda z, T: z.softmax(-1),
            "T multiplies the logits: that sharpens. Divide.": lambda z, T: (z * T).softmax(-1),
            "T divides the probabilities (errata C2): the rows no longer sum to 1. Divide the logits, before "
            "the softmax.": lambda z, T: z.softmax(-1) / T,
            "this is the article's formula (errata F1): only the sum is divided by T, so the rows sum to T.":
                lambda z, T: z.exp() / (z.exp().sum(-1, keepdim=True) / T),
            "probabilities are softened again: T belongs on logits.": lambda z, T: (z.softmax(-1) / T).softmax(-1),
            "the softmax runs over the examples: take dim=-1, the classes.": lambda z, T: (z / T).softmax(0),
            "these are log-probabilities: softmax, not log_softmax.": lambda z, T: (z / T).log_softmax(-1),
        },
    )  # fmt: skip


def kd_loss(attempt: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Checks attempt(logits_s, logits_t, T) → T²·KL(p‖q), value and gradient, eq-kd-loss."""

    def kl(a, b):
        return (a.exp() * (a - b)).sum(-1)

    def logs(z, v, T):
        return (v.detach() / T).log_softmax(-1), (z / T).log_softmax(-1)

    _check(
        "kd_loss", attempt, losses.kd_loss, _cases(lambda z, v, y, T: (z, v, T)),
        {
            "the factor T² is missing: the gradient vanishes as T grows.":
                lambda z, v, T: kl(*logs(z, v, T)).mean(),
            "T² divides (errata C3): multiply.": lambda z, v, T: kl(*logs(z, v, T)).mean() / T**2,
            "T where T² belongs.": lambda z, v, T: T * kl(*logs(z, v, T)).mean(),
            "the direction is reversed: this is KL(q‖p). F.kl_div(log q, p) takes the student first and "
            "computes KL(p‖q).": lambda z, v, T: T**2 * kl(*logs(z, v, T)[::-1]).mean(),
            "this is reduction='mean', which divides by the classes too: take 'batchmean'.":
                lambda z, v, T: T**2 * kl(*logs(z, v, T)).mean() / z.shape[-1],
            "this is a sum over the examples: take the mean, or the step grows with the batch (errata F6).":
                lambda z, v, T: T**2 * kl(*logs(z, v, T)).sum(),
            "this is the cross-entropy, which is not 0 when the two agree (errata F7): subtract the "
            "teacher's entropy.":
                lambda z, v, T: -(T**2) * (logs(z, v, T)[0].exp() * logs(z, v, T)[1]).sum(-1).mean(),
            "softmax twice: its output went into a softmax again. Models give logits (errata C5).":
                lambda z, v, T: T**2 * kl(*logs(z.softmax(-1), v.softmax(-1), T)).mean(),
            "F.kl_div wants log-probabilities of the student: log_softmax, not softmax.":
                lambda z, v, T: T**2 * (logs(z, v, T)[0].exp() * (
                    logs(z, v, T)[0] - (z / T).softmax(-1))).sum(-1).mean(),
            "only the teacher is softened: divide both sides' logits by T (errata F3).":
                lambda z, v, T: T**2 * kl(logs(z, v, T)[0], z.log_softmax(-1)).mean(),
            "only the student is softened: divide both sides' logits by T (errata F3).":
                lambda z, v, T: T**2 * kl(v.detach().log_softmax(-1), logs(z, v, T)[1]).mean(),
        },
        teacher=1,
    )  # fmt: skip


def kd_gradient(attempt: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Checks attempt(logits_s, logits_t, T) → gradient of T²·KL in logits_s, (N, C), eq-kd-gradient."""

    def gap(z, v, T):
        return losses.soften(z, T) - losses.soften(v, T)

    _check(
        "kd_gradient", attempt, lambda z, v, T: T * gap(z, v, T) / len(z), _cases(lambda z, v, y, T: (z, v, T)),
        {
            "the sign is turned round: the student moves against the gradient, so it is q − p.":
                lambda z, v, T: -T * gap(z, v, T) / len(z),
            "this is the gradient of KL without T²: (q − p)/T. Multiply by T².":
                lambda z, v, T: gap(z, v, T) / T / len(z),
            "the inner derivative 1/T is missing: T² · (q − p)/T = T · (q − p).":
                lambda z, v, T: T**2 * gap(z, v, T) / len(z),
            "T is missing: T² from the loss, 1/T from the chain rule.": lambda z, v, T: gap(z, v, T) / len(z),
            "the loss is a mean over N examples: divide by N.": lambda z, v, T: T * gap(z, v, T),
        },
    )  # fmt: skip


def high_temperature_loss(attempt: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(logits_s, logits_t) → the limit of T²·KL for T → ∞, eq-limit-high."""

    def centred(x):
        return x - x.mean(-1, keepdim=True)

    def square(z, v):
        return (z - v).square().sum(-1).mean()

    _check(
        "high_temperature_loss", attempt, lambda z, v: square(centred(z), centred(v)) / (2 * z.shape[-1]),
        _cases(lambda z, v, y, T: (z, v)),
        {
            "the logits must be centred: the softmax does not see a constant added to a row, the squares do.":
                lambda z, v: square(z, v) / (2 * z.shape[-1]),
            "the factor 1/(2C) is missing.": lambda z, v: square(centred(z), centred(v)),
            "the ½ is missing.": lambda z, v: square(centred(z), centred(v)) / z.shape[-1],
            "the 1/C is missing.": lambda z, v: square(centred(z), centred(v)) / 2,
        },
    )  # fmt: skip


def distillation_loss(attempt: Callable[[Tensor, Tensor, Tensor, float, float], Tensor]) -> None:
    """Checks attempt(logits_s, logits_t, y, T, alpha), eq-distillation-loss; α weighs the soft term."""

    def parts(z, v, y, T):
        return torch.nn.functional.cross_entropy(z, y), losses.kd_loss(z, v, T)

    def blend(z, v, y, T, hard, soft):
        return hard * parts(z, v, y, T)[0] + soft * parts(z, v, y, T)[1]

    _check(
        "distillation_loss", attempt, losses.distillation_loss,
        _cases(lambda z, v, y, T: (z, v, y, T, 0.7)),
        {
            "α is on the hard term: here α weighs the soft one.":
                lambda z, v, y, T, a: blend(z, v, y, T, a, 1 - a),
            "the factor T² is missing from the soft term.":
                lambda z, v, y, T, a: blend(z, v, y, T, 1 - a, a / T**2),
            "T² multiplies the hard term too: it belongs to the soft term alone.":
                lambda z, v, y, T, a: blend(z, v, y, T, (1 - a) * T**2, a),
            "the hard term is softened: it stays at T = 1, as the student will be used.":
                lambda z, v, y, T, a: (1 - a) * parts(z / T, v, y, T)[0] + a * parts(z, v, y, T)[1],
            "the two terms are added without their weights.": lambda z, v, y, T, a: blend(z, v, y, T, 1, 1),
            "the hard term is missing.": lambda z, v, y, T, a: blend(z, v, y, T, 0, a),
            "the teacher does not enter: this is the hard term alone (errata C1).":
                lambda z, v, y, T, a: parts(z, v, y, T)[0],
        },
        teacher=1,
    )  # fmt: skip


def training_step(attempt) -> None:
    """Checks attempt(student, teacher, x, y, T, alpha) → loss, with the teacher in eval mode and frozen."""
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    student = torch.nn.Linear(6, 4)
    teacher = torch.nn.Sequential(
        torch.nn.Linear(6, 32), torch.nn.Dropout(0.5), torch.nn.Linear(32, 4)
    ).train()
    x, y = torch.randn(8, 6), torch.randint(0, 4, (8,))
    loss = _attempt("training_step", attempt, student, teacher, x, y, 3.0, 0.7)
    torch.random.set_rng_state(torch_state)
    if loss is None:
        return
    modes = teacher.training
    expected = losses.distillation_loss(student(x), teacher.eval()(x), y, 3.0, 0.7)
    if modes:
        _say("training_step", "the teacher is in train mode: dropout moves its targets. teacher.eval().")
    elif not torch.allclose(loss, expected, rtol=1e-4):
        _say(
            "training_step",
            f"the loss is {loss.item():.4f}, not {expected.item():.4f}: see eq-distillation-loss.",
        )
    elif not loss.requires_grad:
        _say("training_step", "the loss has no gradient: only the teacher's forward goes under no_grad.")
    else:
        loss.backward()
        leaked = any(p.grad is not None for p in teacher.parameters())
        hint = "a gradient reaches the teacher: run it under torch.no_grad(); eval() does not do that."
        _say("training_step", hint if leaked else None)


def paired_interval(attempt: Callable[[Tensor, Tensor], tuple[float, float]]) -> None:
    """Checks attempt(a, b) → (low, high) of the 95 % t-interval of the mean difference, eq-paired-interval."""

    def bounds(a, b, spread, quantile):
        mean, half = (a - b).mean(), quantile * spread
        return torch.stack([mean - half, mean + half])

    def right(a, b):
        interval = metrics.paired_interval(a, b)
        return torch.tensor([interval.low, interval.high], dtype=a.dtype)

    def t(n):
        return metrics.paired_interval([-1.0, 1.0] * (n // 2)).half_width / math.sqrt(1 / (n - 1))

    _check(
        "paired_interval", attempt, right, [(torch.arange(10.0) % 7 + s, torch.arange(10.0) % 5) for s in (0.1, 2)],
        {
            "the two runs are treated as unrelated: take the standard deviation of the differences.":
                lambda a, b: bounds(a, b, ((a.var() + b.var()) / len(a)).sqrt(), t(len(a))),
            "1.96 is the normal quantile: with few runs take Student's t, 2.262 for ten.":
                lambda a, b: bounds(a, b, (a - b).std() / len(a) ** 0.5, 1.96),
            "the standard deviation of one run, not of the mean: divide by √n.":
                lambda a, b: bounds(a, b, (a - b).std(), t(len(a))),
            "the standard deviation divides by n: take n − 1 (ddof=1).":
                lambda a, b: bounds(a, b, (a - b).std(correction=0) / len(a) ** 0.5, t(len(a))),
            "the difference is turned round: a − b.": lambda a, b: right(b, a),
        },
        rtol=2e-3,
    )  # fmt: skip


def permute_dark(attempt: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(p, y) → p with the probabilities of the wrong classes shuffled within each row."""
    generator = torch.Generator().manual_seed(1)
    p = torch.randn(64, 10, generator=generator).mul(2).softmax(-1)
    y = torch.randint(0, 10, (64,), generator=generator)
    result = _attempt("permute_dark", attempt, p.clone(), y)
    if result is None:
        return
    if result.shape != p.shape:
        return _say("permute_dark", "the shape changed: (N, C) in, (N, C) out.")
    own = torch.nn.functional.one_hot(y, 10).bool()
    moved = (result - p).abs().sum(-1) > 1e-6
    dark, was = (x[~own].view(64, 9) for x in (result, p))
    orders = {tuple(row.tolist()) for row in (dark[:, None, :] - was[:, :, None]).abs().argmin(1)}
    for wrong, hint in [
        (not torch.allclose(result.sort(-1)[0], p.sort(-1)[0], atol=1e-6), "the values of a row changed: only "
         "their places may."),
        (not torch.allclose(result[own], p[own], atol=1e-6), "the labelled class lost its own probability: shuffle "
         "the other nine only."),
        (moved.float().mean() < 0.9, "most rows are as they were: shuffle each of them."),
        (len(orders) == 1, "every row is shuffled alike, which only renames the classes: draw anew for each row."),
    ]:  # fmt: skip
        if bool(wrong):
            return _say("permute_dark", hint)
    return _say("permute_dark", None)


def masked_mean(attempt: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(rows, mask) → mean of rows (B, L) where mask is true, or 0 if it is true nowhere."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.rand(3, 6, generator=generator, dtype=torch.double)
    mask = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]
    hidden = torch.where(mask, rows, float("nan"))

    def kept(rows, mask):
        return torch.where(mask, rows, 0)

    _check(
        "masked_mean", attempt, lambda rows, mask: kept(rows, mask).sum() / max(int(mask.sum()), 1),
        [(rows, mask), (rows.flip(0), mask.flip(0)), (hidden, mask), (hidden, mask & False)],
        {
            "the sum is divided by B alone: longer texts get larger losses. Divide by the counted positions.":
                lambda rows, mask: kept(rows, mask).sum() / len(rows),
            "the sum is divided by B·L: padding is counted too. Divide by mask.sum().":
                lambda rows, mask: kept(rows, mask).mean(),
            "the mask is not used: padding enters the sum.": lambda rows, mask: rows.mean(),
            "masked by a product, and 0 · NaN is NaN: choose with torch.where(mask, rows, 0).":
                lambda rows, mask: (rows * mask).sum() / max(int(mask.sum()), 1),
            "with no counted position this is 0/0: divide by at least 1.":
                lambda rows, mask: kept(rows, mask).sum() / mask.sum(),
            "this is the mean of the sequences' means: a token of a short sequence then weighs more.":
                lambda rows, mask: (kept(rows, mask).sum(-1) / mask.sum(-1).clamp(min=1)).mean(),
        },
    )  # fmt: skip


def average_teachers(attempt: Callable[[Tensor, float], Tensor]) -> None:
    """Checks attempt(logits_t, T) → targets (N, C): logits_t (K, N, C) of K teachers, their softened mean."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 4, 5, generator=generator, dtype=torch.double) * 3
    _check(
        "average_teachers", attempt, lambda v, T: losses.soften(v, T).mean(0),
        [(logits, 2.0), (logits[:2, :3], 4.0)],
        {
            "the logits are averaged: one sure teacher then outvotes the others. Soften each, then average.":
                lambda v, T: losses.soften(v.mean(0), T),
            "T is ignored: soften each teacher's logits first.": lambda v, T: losses.soften(v).mean(0),
            "the probabilities are added, not averaged: the rows sum to K.":
                lambda v, T: losses.soften(v, T).sum(0),
            "the mean runs over the examples: the teachers are the first dimension.":
                lambda v, T: losses.soften(v, T).mean(1),
            "the logarithms are averaged: that is a product of teachers, and its rows do not sum to 1.":
                lambda v, T: losses.soften(v, T).log().mean(0).exp(),
            "softmax twice: the mean of probabilities is a distribution already.":
                lambda v, T: losses.soften(losses.soften(v, T).mean(0)),
        },
    )  # fmt: skip


def _cases(pick) -> list[tuple]:
    """Random inputs in float64, one with a single class of large logit; `pick` chooses the arguments."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for n, classes, T in [(5, 3, 2.0), (8, 10, 4.0), (7, 4, 0.5)]:
        z, v = torch.randn(2, n, classes, generator=generator, dtype=torch.double) * 3
        made.append(pick(z, v, torch.randint(0, classes, (n,), generator=generator), T))
    return made


def _check(name, attempt, right, cases, mistakes, teacher: int | None = None, rtol: float = 1e-4) -> None:
    """Compare attempt and right on all cases; name the mistake that explains a difference, if one does."""
    results = []
    for case in cases:
        case = [
            x.clone().requires_grad_() if x.__class__ is Tensor and x.is_floating_point() else x for x in case
        ]
        result = _attempt(name, attempt, *case)
        if result is None:
            return
        results.append(result)
        if teacher is not None and result.requires_grad:
            leak = torch.autograd.grad(result.sum(), case[teacher], allow_unused=True, retain_graph=True)[0]
            if leak is not None and leak.abs().max() > 1e-12:
                return _say(name, "a gradient reaches the teacher: detach its logits.")
    if _agree(right, cases, results, rtol):
        return _say(name, None)
    for hint, wrong in mistakes.items():
        if _agree(wrong, cases, results, rtol):
            return _say(name, hint)
    expected, got = right(*cases[0]), results[0].detach()
    return _say(name, f"the result differs. For the first case it should be\n{expected}\nand it is\n{got}")


def _attempt(name, attempt, *case) -> Tensor | None:
    """What the reader's function returns, as a tensor; None, with a word, where there is nothing to compare."""
    try:
        result = attempt(*case)
    except NotImplementedError:
        result = None
    if result is None or result is Ellipsis:
        print(f"○ {name}: not attempted")
        return None
    if isinstance(result, tuple | list):
        return torch.stack([torch.as_tensor(part) for part in result])
    return torch.as_tensor(result)


def _agree(function, cases, results, rtol) -> bool:
    expected = [function(*case) for case in cases]
    return all(
        e.shape == r.shape
        and torch.allclose(r.detach().double(), e.double(), rtol=rtol, atol=1e-6, equal_nan=True)
        for e, r in zip(expected, results, strict=True)
    )


def _say(name: str, hint: str | None) -> None:
    print(f"✓ {name}" if hint is None else f"✗ {name}: {hint}")
