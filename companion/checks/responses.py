"""Exercises on soft targets and the losses made of them (chapters 3, 4 and 9)."""

from collections.abc import Callable

import torch
from torch import Tensor

from .. import losses
from ._compare import compare, random_cases, result_of, say


def soften(attempt: Callable[[Tensor, float], Tensor]) -> None:
    """Checks attempt(logits, T) → probabilities (N, C), eq-soften."""
    compare(
        "soften", attempt, losses.soften, random_cases(lambda z, v, y, T: (z, T)),
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

    compare(
        "kd_loss", attempt, losses.kd_loss, random_cases(lambda z, v, y, T: (z, v, T)),
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

    compare(
        "kd_gradient", attempt, lambda z, v, T: T * gap(z, v, T) / len(z), random_cases(lambda z, v, y, T: (z, v, T)),
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

    compare(
        "high_temperature_loss", attempt, lambda z, v: square(centred(z), centred(v)) / (2 * z.shape[-1]),
        random_cases(lambda z, v, y, T: (z, v)),
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

    compare(
        "distillation_loss", attempt, losses.distillation_loss,
        random_cases(lambda z, v, y, T: (z, v, y, T, 0.7)),
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
    loss = result_of("training_step", attempt, student, teacher, x, y, 3.0, 0.7)
    torch.random.set_rng_state(torch_state)
    if loss is None:
        return
    modes = teacher.training
    expected = losses.distillation_loss(student(x), teacher.eval()(x), y, 3.0, 0.7)
    if modes:
        say("training_step", "the teacher is in train mode: dropout moves its targets. teacher.eval().")
    elif not torch.allclose(loss, expected, rtol=1e-4):
        say(
            "training_step",
            f"the loss is {loss.item():.4f}, not {expected.item():.4f}: see eq-distillation-loss.",
        )
    elif not loss.requires_grad:
        say("training_step", "the loss has no gradient: only the teacher's forward goes under no_grad.")
    else:
        loss.backward()
        leaked = any(p.grad is not None for p in teacher.parameters())
        hint = "a gradient reaches the teacher: run it under torch.no_grad(); eval() does not do that."
        say("training_step", hint if leaked else None)


def masked_mean(attempt: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(rows, mask) → mean of rows (B, L) where mask is true, or 0 if it is true nowhere."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.rand(3, 6, generator=generator, dtype=torch.double)
    mask = torch.arange(6) < torch.tensor([6, 4, 1])[:, None]
    hidden = torch.where(mask, rows, float("nan"))

    def kept(rows, mask):
        return torch.where(mask, rows, 0)

    compare(
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
    compare(
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
