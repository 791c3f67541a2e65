"""Check a file of answers: python -m companion.checks FILE, or --list for the names of the exercises.

FILE is a Python file that defines functions named as the exercises; those it does not define count as not
attempted. It is run as any program of yours would be, with your rights: check only files that you trust.
Exit code: 0 if no answer is wrong, 1 if one is, 2 if FILE cannot be run.
"""

import argparse
import re
import runpy
import sys
import traceback
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from ._exercises import EXERCISES, Exercise


def verdict(exercise: Exercise, attempt) -> tuple[str, str]:
    """("✓" | "✗" | "○", hint) for one answer; whatever the answer itself prints is left out."""
    said = StringIO()
    try:
        with redirect_stdout(said):
            exercise.check(attempt)
    except Exception as error:  # the reader's function may raise anything
        return "✗", f"it stopped with {type(error).__name__}: {error}"
    last = re.findall(r"^([✓✗○]) \w+(?:: )?((?:.|\n(?![✓✗○] ))*)", said.getvalue(), re.M)[-1]
    return last[0], last[1].strip()


def answers(file: str) -> dict:
    """What the file defines. Ends the program, with the reason, where it cannot be run."""
    if not Path(file).is_file():
        stop(f"{file}: there is no such file.")
    sys.path.insert(0, str(Path(file).resolve().parent))  # as `python FILE` would
    try:
        return runpy.run_path(file, run_name="answers")
    except SyntaxError as error:
        stop(f"{error.filename}, line {error.lineno}: {error.msg}.")
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1].lineno
        stop(f"{file} stopped before it could be checked (line {line}), {type(error).__name__}: {error}")


def stop(reason: str):
    print(reason, file=sys.stderr)
    raise SystemExit(2)


def show_list() -> None:
    for e in EXERCISES:
        print(f"{e.name:24} chapter {int(e.chapter[:2])}, level {e.level}, {e.topic}")


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
    found = answers(given.file)
    marks = []
    for exercise in EXERCISES:
        attempt = found.get(exercise.name)
        mark, hint = verdict(exercise, attempt) if callable(attempt) else ("○", "not attempted")
        print(f"{mark} {exercise.name}" + (f": {hint}" if hint else ""))
        marks.append(mark)
    print(f"{marks.count('✓')} of {len(marks)} solved, {marks.count('✗')} wrong")
    return int("✗" in marks)


if __name__ == "__main__":
    sys.exit(main())
