"""How an exercise is checked: the reader's function beside the right one and beside the foreseen mistakes."""

import inspect
import traceback

import torch
from torch import Tensor

from ._say import CHANGED, say, shown, text

NO_GRADIENT = "the value is right, but no gradient reaches the student: .detach() and no_grad cut it off."
A_NUMBER = (
    "the value is right, but it is a plain number, without a gradient: no .item() and no float() in a loss."
)
ONLY_TEACHER = (
    "the gradient goes to the teacher, not to the student: detach the teacher's logits, not the student's."
)
CUT = "the value is right, the gradient in the student's logits is not: .detach() or no_grad cut part of it off."
BACKWARD = "backward() has been called in it: return the loss, and leave that to the caller."
AS_PLACES = (
    "it is right as {dtype}, and as an index 0 and 1 would be places: return True and False, a comparison."
)
LEAK = "a gradient reaches the teacher: detach its logits."


def random_cases(pick, sure: bool = False) -> list[tuple]:
    """Random inputs in float64, in which N, C and T all vary; `pick` chooses the arguments.

    sure: one case more, in which a probability is 0 in every floating-point number, and its logarithm −∞.
    """
    generator = torch.Generator().manual_seed(0)
    made = []
    for n, classes, T in [(2, 3, 2.0), (5, 4, 4.0), (3, 6, 0.5)]:
        z, v = torch.randn(2, n, classes, generator=generator, dtype=torch.double) * 3
        made.append(pick(z, v, torch.randint(0, classes, (n,), generator=generator), T))
    if sure:
        z, v = 3000 * torch.eye(2, dtype=torch.double), torch.ones(2, 2, dtype=torch.double)
        made.append(pick(z, v, torch.tensor([0, 1]), 2.0))
    return made


def compare(
    name, attempt, right, cases, mistakes, student: int | None = None, teacher: int | None = None,
    slips=(), rtol: float = 1e-4,
) -> None:  # fmt: skip
    """Compare attempt and right on all cases; name the mistake that explains a difference, if one does.

    Args:
        cases: tuples of arguments. mistakes: hint → a function that makes the mistake.
        student, teacher: the places of their logits in a case, for a loss: the student's gradient is compared too, and
            none may reach the teacher.
        slips: hint → a function with the right value and a wrong gradient.
    """
    results, inputs = [], []
    for case in cases:
        given = copied(case, student, teacher)
        result = result_of(name, attempt, *given)
        if result is None:
            return
        if changed(case, given):
            return say(name, CHANGED)
        results.append(result)
        inputs.append(given)
    if not agree(right, cases, results, rtol):
        return say(name, named(mistakes, right, cases, results, rtol) or first_that_differs(
            attempt, right, cases, results, rtol))  # fmt: skip
    if torch.as_tensor(right(*cases[0])).dtype == torch.bool and results[0].dtype != torch.bool:
        return say(name, AS_PLACES.format(dtype=results[0].dtype))
    if student is None:
        return say(name, None)
    try:
        fault = gradient_fault(right, cases, inputs, results, student, teacher, dict(slips), rtol)
    except Exception as error:  # the backward pass runs what the reader wrote, too
        fault = not_taken(error)
    return say(name, fault)


def copied(case, *with_gradient) -> list:
    """The case for the reader's function, which may do with it what it likes."""
    copies = [x.clone() if isinstance(x, Tensor) else x for x in case]
    for place in with_gradient:
        if place is not None:
            copies[place].requires_grad_()
    return copies


def changed(case, given) -> bool:
    """Whether a tensor of the case is no longer as it was; NaN counts as equal to NaN."""
    pairs = [(a, b.detach()) for a, b in zip(case, given, strict=True) if isinstance(a, Tensor)]
    return not all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in pairs
    )


def result_of(name, attempt, *case) -> Tensor | None:
    """What the reader's function returns, as a tensor; None where there is nothing to compare, and that is said."""
    try:
        result = attempt(*case)
    except NotImplementedError:
        result = ...
    except Exception as error:  # the reader's function may raise anything
        say(name, stopped(error, attempt, case))
        return None
    if result is ... or (result is None and is_empty(attempt)):
        print(f"○ {name}: not attempted")
        return None
    if result is None:
        say(name, "it returned nothing (None): is a `return` missing?")
        return None
    try:
        parts = result if isinstance(result, tuple | list) else None
        return torch.as_tensor(result) if parts is None else torch.stack([torch.as_tensor(x) for x in parts])
    except Exception:
        say(name, f"it returned {text(result)}, a {type(result).__name__}: numbers or a tensor are due.")
        return None


def stopped(error: Exception, attempt, case) -> str:
    """An exception as a sentence: its words, the line it came from, and the inputs."""
    said = (str(error).splitlines() or [""])[0]
    if "in-place" in said or "inplace" in said:
        return CHANGED
    if "numpy()" in said and "grad" in said:
        return "numpy() cuts the gradient off, and a loss without one teaches nothing: stay in torch."
    file = getattr(getattr(attempt, "__code__", None), "co_filename", None)
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" It came from `{lines[-1]}`." if lines and lines[-1] else ""
    return f"it stops with {type(error).__name__}: {said}.{where} The inputs were\n{shown(attempt, case)}"


def is_empty(function) -> bool:
    """A body of `pass`, `...` or a docstring: nobody forgot a `return` there."""

    def empty():
        """As a stub is."""

    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and not code.co_names and len(code.co_code) <= len(empty.__code__.co_code) and (
        set(code.co_consts) <= {None, function.__doc__})  # fmt: skip


def agree(function, cases, results, rtol) -> bool:
    expected = [torch.as_tensor(function(*case)) for case in cases]
    return all(
        e.shape == r.shape
        and torch.allclose(r.detach().double(), e.detach().double(), rtol=rtol, atol=1e-6, equal_nan=True)
        for e, r in zip(expected, results, strict=True)
    )


def named(mistakes, right, cases, results, rtol) -> str | None:
    """The hint of the mistake that gives the same results on all cases, or at least where they are finite."""
    finite = [i for i, result in enumerate(results) if result.isfinite().all()]
    for kept in (range(len(cases)), finite):
        some, of = [cases[i] for i in kept], [results[i] for i in kept]
        if some and not agree(right, some, of, rtol):
            for hint, wrong in mistakes.items():
                if agree(wrong, some, of, rtol):
                    return hint
    return None


def first_that_differs(attempt, right, cases, results, rtol) -> str:
    """What to say where no mistake fits: the inputs, what is due, and what came."""
    for case, result in zip(cases, results, strict=True):
        if not agree(right, [case], [result], rtol):
            due = torch.as_tensor(right(*case))
            if due.shape != result.shape:
                come = f"It has the shape {tuple(result.shape)}, and {tuple(due.shape)} is due."
            else:
                come = f"It should be\n  {text(due)}\nand it is\n  {text(result)}"
            return f"the result differs. For\n{shown(attempt, case)}\n{come}"
    raise AssertionError("all cases agree")


def gradient_fault(right, cases, inputs, results, student, teacher, slips, rtol) -> str | None:
    """What is wrong with the gradient of a loss whose value is right."""
    if not any(result.requires_grad for result in results):
        return A_NUMBER if all(result.dtype != torch.double for result in results) else NO_GRADIENT
    wanted = [i for i in (student, teacher) if i is not None]
    if any(given[i].grad is not None for given in inputs for i in wanted):
        return BACKWARD
    found = [
        gradients(result, [given[i] for i in wanted]) for given, result in zip(inputs, results, strict=True)
    ]
    leaks = any(of[1].abs().max() > 1e-12 for of in found) if teacher is not None else False
    if all(of[0].abs().max() == 0 for of in found):
        return ONLY_TEACHER if leaks else NO_GRADIENT
    if leaks:
        return LEAK
    pulls = [of[0] for of in found]
    if agree(pull(right, student), cases, pulls, rtol):
        return None
    for hint, wrong in slips.items():
        if agree(pull(wrong, student), cases, pulls, rtol):
            return hint
    return CUT


def not_taken(error: Exception) -> str:
    """Why a loss that has a value has no gradient."""
    said = (str(error).splitlines() or [""])[0]
    if "inplace operation" in said:
        return (
            "the value is right, but an operation in place has overwritten what the gradient is made of: "
            "write x = x + 1, not x += 1."
        )
    if "second time" in said:
        return BACKWARD
    return f"the value is right, but its gradient cannot be taken: {type(error).__name__}, {said}."


def gradients(result: Tensor, of: list[Tensor]) -> list[Tensor]:
    """d result / d each, 0 where there is none."""
    if not result.requires_grad:
        return [torch.zeros_like(x) for x in of]
    return list(
        torch.autograd.grad(result.sum(), of, allow_unused=True, materialize_grads=True, retain_graph=True)
    )


def pull(function, student: int):
    """The function that gives the gradient of `function` in the student's logits."""

    def gradient(*case):
        given = copied(case, student)
        return gradients(function(*given), [given[student]])[0]

    return gradient
