"""Claims, numbers for the prose, and exercises that check themselves.

An exercise's check, checks.<its name>, runs the reader's function on random inputs beside the right one. If they differ,
it looks among the mistakes people really make for one that gives the same result, and prints that one's hint.
"""

from collections.abc import Callable
from difflib import get_close_matches

from ._choice import choice
from ._claims import claim, glue
from ._exercises import EXERCISES

_CHECKS = {exercise.name: exercise.check for exercise in EXERCISES}


def __getattr__(name: str) -> Callable:
    if name in _CHECKS:
        return _CHECKS[name]
    near = get_close_matches(name, _CHECKS)
    raise AttributeError(
        f"no exercise is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else ".")
    )


def __dir__() -> list[str]:
    return ["choice", "claim", "glue", *_CHECKS]
