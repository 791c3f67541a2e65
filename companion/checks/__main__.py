"""Check a file of answers: python -m companion.checks FILE, or --list for the names of the exercises.

FILE is a Python file that defines functions named as the exercises; those it does not define count as not
attempted. It is run as any program of yours would be, with your rights: check only files that you trust.
Exit code: 0 if every exercise is solved, 1 if one is wrong or not attempted, 2 if FILE cannot be run.
"""

import argparse
import re
import runpy
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

from ._exercises import ALIASES, EXERCISES, Exercise


def verdict(exercise: Exercise, attempt) -> tuple[str, str]:
    """("✓" | "✗" | "○", hint) for one answer; whatever the answer itself prints is left out."""
    said = StringIO()
    try:
        with redirect_stdout(said):
            exercise.check(attempt)
    except (Exception, SystemExit) as error:  # the reader's function may do anything
        return "✗", f"it stopped with {type(error).__name__}: {error}"
    # the last one: what the answer itself prints may stand before it, in the same line
    *_, last = re.finditer(rf"([✓✗○]) {exercise.name}(?:: |$)", said.getvalue(), re.M)
    return last[1], said.getvalue()[last.end() :].strip()


def answers(file: str) -> dict:
    """What the file defines. Ends the program, with the reason, where it cannot be run."""
    if not Path(file).is_file():
        stop(f"{file}: there is no such file.")
    sys.path.insert(0, str(Path(file).resolve().parent))  # as `python FILE` would
    try:
        return runpy.run_path(file, run_name="answers")
    except SyntaxError as error:
        stop(f"{error.filename}, line {error.lineno}: {error.msg}.")
    except SystemExit:
        stop(f"{file} ends the program by itself (exit) before it could be checked: leave that out.")
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        stop(f"{file} stopped before it could be checked (line {line}), {type(error).__name__}: {error}")


def attempts(found: dict) -> tuple[dict[str, Callable], dict[str, str], list[str]]:
    """(exercise → function, exercise → the other name it was found under, own functions that answer no exercise)."""
    names = {exercise.name for exercise in EXERCISES}
    own = {name: f for name, f in found.items() if getattr(f, "__module__", "") == "answers" and callable(f)}
    given = {name: f for name, f in found.items() if name in names and callable(f)}
    under, unknown = {}, []
    for name, function in own.items():
        meant = ALIASES.get(name, name.removeprefix("my_").removesuffix("_solution"))
        if meant in names and meant not in given:
            given[meant], under[meant] = function, name
        elif name not in names and under.get(meant) != name and not name.startswith("_"):
            unknown.append(name)
    return given, under, unknown


def stop(reason: str):
    print(reason, file=sys.stderr)
    raise SystemExit(2)


def show_list() -> None:
    for e in EXERCISES:
        print(f"{e.name:24} chapter {int(e.chapter[:2])}, level {e.level}, {e.topic}: {e.title}")


def report(found: dict) -> list[str]:
    """Print a line for each exercise, and what was found beside them; give the marks."""
    given, under, unknown = attempts(found)
    marks = []
    for exercise in EXERCISES:
        attempt = given.get(exercise.name)
        mark, hint = verdict(exercise, attempt) if attempt else ("○", "not attempted")
        name = exercise.name + (f" (your {under[exercise.name]})" if exercise.name in under else "")
        print(f"{mark} {name}" + (f": {hint}" if hint else ""))
        marks.append(mark)
    for name in unknown:
        near = get_close_matches(name, [exercise.name for exercise in EXERCISES], 1)
        print(f"{name}: no exercise is called so" + (f"; did you mean {near[0]}?" if near else "."))
    return marks


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m companion.checks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="your answers")
    parser.add_argument("--list", action="store_true", help="name the exercises")
    given = parser.parse_args(arguments)
    if given.list:
        show_list()
        return 0
    if not given.file:
        parser.error("which FILE? (--list names the exercises)")
    marks = report(answers(given.file))
    solved, wrong, left = (marks.count(mark) for mark in "✓✗○")
    print(f"{solved} of {len(marks)} solved, {wrong} wrong, {left} not attempted")
    return int(solved < len(marks))


if __name__ == "__main__":
    sys.exit(main())
