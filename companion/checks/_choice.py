"""Exercises that predict, diagnose or choose: the answer is a word, a number, or several of them."""

import math
from collections.abc import Callable

from ._compare import is_empty
from ._say import say


def choice(name: str, right, hints: dict, within: float = 0.0) -> Callable[[Callable], None]:
    """The check of an exercise whose stub takes nothing and returns its answer.

        choice("flatter", right="b", hints={"a": "that is T below 1.", "c": "the order never changes."})
        choice("half_at", right=4.0, hints={2.0: "that is where the slope is steepest."}, within=0.1)
        choice("who_wins", right=("student", 3), hints={(0, "teacher"): "…", (1, 2): "…"})

    Args:
        right: a word, a number, or a tuple of them. Words are compared without case and spaces around them.
        hints: wrong answer → what to think of again; of a tuple, (place, wrong answer). With words, these and the
            right one are all there is to choose from.
        within: how far a number may lie from its answer, as a share of it.
    """

    def check(attempt: Callable) -> None:
        try:
            answer = attempt()
        except NotImplementedError:
            answer = ...
        except Exception as error:  # the reader's function may raise anything
            return say(name, f"it stops with {type(error).__name__}: {error}. It takes no argument.")
        if answer is ... or (answer is None and is_empty(attempt)):
            print(f"○ {name}: not attempted")
        elif answer is None:
            say(name, "it returned nothing (None): is a `return` missing?")
        else:
            say(name, _fault(_plain(answer), right, hints, within))

    return check


def _plain(answer):
    """A tensor or an array as the number, or the list of numbers, that is in it."""
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
        return answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    return answer


def _fault(answer, right, hints: dict, within: float) -> str | None:
    """None for the right answer, else the hint."""
    if not isinstance(right, tuple):
        return _of_one(answer, right, hints, within)
    if not isinstance(answer, tuple | list) or len(answer) != len(right):
        return f"{len(right)} answers are due, as in `return a, b`; got {answer!r}."
    for place, (one, due) in enumerate(zip(map(_plain, answer), right, strict=True)):
        own = {wrong: hint for (at, wrong), hint in hints.items() if at == place}
        if fault := _of_one(one, due, own, within):
            return f"answer {place + 1}: {fault}"
    return None


def _of_one(answer, right, hints: dict, within: float) -> str | None:
    if isinstance(right, str) != isinstance(answer, str) or isinstance(right, bool) != isinstance(
        answer, bool
    ):
        kind = (
            "a word" if isinstance(right, str) else "True or False" if isinstance(right, bool) else "a number"
        )
        return f"{kind} is due; got {answer!r}."
    value = answer if isinstance(right, str) else _number(answer)
    if value is None:
        return f"a number is due; got {answer!r}."
    if _is(value, right, within):
        return None
    for wrong, hint in hints.items():
        if _is(value, wrong, within):
            return hint
    if isinstance(right, str):
        return f"{answer!r} is none of the answers: {', '.join(sorted([right, *hints], key=str))}."
    return f"{answer!r} is too {'large' if value > right else 'small'}."


def _number(answer) -> float | None:
    """The answer as a float, whatever kind of number it is; None for NaN and for what is no number."""
    try:
        value = float(answer)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(value) else value


def _is(answer, value, within: float) -> bool:
    if isinstance(value, str):
        return answer.strip().casefold() == value.casefold()
    return abs(answer - value) <= within * abs(value) + 1e-9
