"""The exercise on a training step (chapter 3): what it returns, and what it does to the two networks."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from .. import losses
from ._compare import changed, not_taken, result_of
from ._say import CHANGED, say


def training_step(attempt) -> None:
    """Checks attempt(student, teacher, x, y, T, alpha) → loss, with the teacher in eval mode and frozen."""
    for seed, T, alpha in ((0, 3.0, 0.7), (1, 2.0, 0.4)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student, teacher = (
                nn.Linear(6, 4),
                nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.5), nn.Linear(32, 4)),
            )
            x, y = torch.randn(8, 6), torch.randint(0, 4, (8,))
            before, as_it_was, given = deepcopy(student), deepcopy(teacher), (x.clone(), y.clone())
            loss = result_of("training_step", attempt, student, teacher, *given, T, alpha)
            if loss is None:
                return
            if changed((x, y), given):
                return say("training_step", CHANGED)
            if not _same(as_it_was, teacher):
                return say("training_step", "the teacher's weights have changed: only ask it.")
            hint = _fault(loss, before, student, teacher, x, y, T, alpha)
        if hint:
            return say("training_step", hint)
    say("training_step", None)


def _fault(loss: Tensor, before, student, teacher, x, y, T, alpha) -> str | None:
    """The first thing that is wrong with the loss, or with what became of the networks."""
    if any(p.grad is not None for p in student.parameters()) or not _same(before, student):
        return (
            "the student has been trained: return the loss, and leave backward() and the step to the caller."
        )
    if teacher.training:
        return "the teacher is in train mode: dropout moves its targets. teacher.eval()."
    z, v = before(x), teacher(x).detach()
    expected = losses.distillation_loss(z, v, y, T, alpha)
    if loss.shape != ():
        return f"one number is due, the mean over the batch; this has the shape {tuple(loss.shape)}."
    value = loss.detach().double()
    if not torch.allclose(value, expected.double(), rtol=1e-4):
        for hint, wrong in _mistakes(z, v, y, T, alpha).items():
            if torch.allclose(value, wrong.double(), rtol=1e-4):
                return hint
        return f"the loss is {loss.item():.4f}, not {expected.item():.4f}: see eq-distillation-loss."
    return _gradient_fault(loss, student, teacher, before, expected)


def _mistakes(z, v, y, T, alpha) -> dict[str, Tensor]:
    """Hint → the loss with that mistake."""
    loss = losses.distillation_loss
    return {
        "student and teacher are swapped: the student's logits come first.": loss(v, z, y, T, alpha),
        "T and α are those of the defaults: pass them on.": loss(z, v, y),
        "α is the default's: pass it on.": loss(z, v, y, T),
        "T is the default's: pass it on.": loss(z, v, y, alpha=alpha),
        "T is 1: pass it on.": loss(z, v, y, 1.0, alpha),
        "α and 1 − α are swapped: α weighs the soft term.": loss(z, v, y, T, 1 - alpha),
        "the loss takes logits, and these are probabilities (erratum C5).": loss(
            z.softmax(-1), v.softmax(-1), y, T, alpha
        ),
        "this is the soft term alone: the labels have a part, too.": losses.kd_loss(z, v, T),
        "the teacher does not enter: this is the hard term alone (erratum C1).": nn.functional.cross_entropy(
            z, y
        ),
    }


def _gradient_fault(loss: Tensor, student, teacher, before, expected: Tensor) -> str | None:
    """What is wrong with the gradients of a loss whose value is right."""
    if not loss.requires_grad:
        return "the loss has no gradient: only the teacher's forward goes under no_grad, and .item() cuts it off."
    own = list(student.parameters())
    if not all(p.requires_grad for p in own):
        return "a part of the student is frozen: only the teacher's weights may be."
    of = [*own, *(p for p in teacher.parameters() if p.requires_grad)]
    try:
        found = torch.autograd.grad(loss, of, allow_unused=True, materialize_grads=True)
    except Exception as error:  # the backward pass runs what the reader wrote, too
        return not_taken(error)
    mine, leaked = found[: len(own)], found[len(own) :]
    if any(g.abs().max() > 0 for g in leaked):
        return "a gradient reaches the teacher: run it under torch.no_grad(); eval() does not do that."
    due = torch.autograd.grad(expected, list(before.parameters()))
    if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(mine, due, strict=True)):
        return "the value is right, the student's gradient is not: part of its loss is cut off by detach or no_grad."
    return None


def _same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
