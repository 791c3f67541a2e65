"""Exercises on a training step (chapters 3 and 5): what it returns, and what it does to the two networks."""

from copy import deepcopy
from itertools import permutations

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


def view_loss(attempt) -> None:
    """Checks attempt(student, teacher, x, roll, T) → the soft loss of one view, where each roll(x) is another view."""
    for seed, T in ((0, 4.0), (1, 2.0)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student, teacher = (nn.Sequential(nn.Flatten(), nn.Linear(36, 4)) for _ in range(2))
            x, before, drawn = torch.randn(8, 1, 6, 6), deepcopy(student), []

            def roll(images, drawn=drawn):
                """Another view at each call; the hints need them all."""
                drawn.append(images.roll((1 + len(drawn), 2), (2, 3)))
                return drawn[-1].clone()

            loss = result_of("view_loss", attempt, student, teacher, x.clone(), roll, T)
            if loss is None:
                return
            hint = _fault_of_view(loss, before, student, teacher, x, drawn, T)
        if hint:
            return say("view_loss", hint)
    say("view_loss", None)


def _fault_of_view(loss: Tensor, before, student, teacher, x, drawn, T) -> str | None:
    if any(p.grad is not None for p in student.parameters()) or not _same(before, student):
        return (
            "the student has been trained: return the loss, and leave backward() and the step to the caller."
        )
    if loss.shape != ():
        return f"one number is due, the mean over the batch; this has the shape {tuple(loss.shape)}."

    def of(seen, asked, T=T):
        return losses.kd_loss(before(seen), teacher(asked).detach(), T)

    if not drawn:
        still = " Here both see the images as they are." if torch.allclose(loss, of(x, x), rtol=1e-4) else ""
        return "nothing has been rolled: view = roll(x)." + still
    first = drawn[0]
    expected = of(first, first)
    wrong = {
        "the teacher was asked about the images as they are: ask it about the view.": of(first, x),
        "the student sees the images as they are: show it the view.": of(x, first),
        "both see the images as they are: show them the view.": of(x, x),
        "T is 1: pass it on.": of(first, first, 1.0),
        "T² is missing: kd_loss has it.": expected / T**2,
        "student and teacher are swapped: the student's logits come first.": losses.kd_loss(
            teacher(first), before(first), T
        ),
        "this learns the class that the teacher names: take its soft answer.": nn.functional.cross_entropy(
            before(first), teacher(first).argmax(-1)
        ),
    }
    if not torch.allclose(loss, expected, rtol=1e-4):
        if any(torch.allclose(loss, of(*pair), rtol=1e-4) for pair in permutations(drawn, 2)):
            return "teacher and student see different views: call roll once, and show both the result."
        for hint, value in wrong.items():
            if torch.allclose(loss, value, rtol=1e-4):
                return hint
        return (
            f"the loss is {loss.item():.4f}, not {expected.item():.4f}: kd_loss of both answers to one view."
        )
    return _gradient_fault(loss, student, teacher, before, expected)


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
