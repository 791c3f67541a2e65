"""Which peers are tested: one that does not import is left out and says why. One that should be there fails.

Should be there: every package of the extras that BOOK_PEERS names, as `make test-peers` does ("peers" by default).
"""

import importlib
import os
import warnings
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same under its older name
    import tomli as tomllib

PROJECT = Path(__file__).parents[2] / "pyproject.toml"

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


@cache
def promised() -> frozenset[str]:
    """The packages of the extras in BOOK_PEERS, as pyproject.toml has them."""
    extras = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = [extra for extra in os.environ.get("BOOK_PEERS", "").split(",") if extra]
    if unknown := set(named) - set(extras):
        raise pytest.UsageError(f"BOOK_PEERS names extras that companion does not have: {', '.join(unknown)}")
    return frozenset(Requirement(text).name for extra in named for text in extras[extra])


@cache
def why_not(module: str) -> str | None:
    """What importing it says, in one line; None where it imports."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
    except Exception as error:  # other people's packages fail in every way there is
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def need(package: str, module: str, **where) -> None:
    """Go on only where the module imports; where: allow_module_level=True at the top of a file."""
    if (reason := why_not(module)) is None:
        return
    if package in promised():
        pytest.fail(
            f"{package} belongs to BOOK_PEERS={os.environ['BOOK_PEERS']} and {module} does not import: {reason}"
        )
    pytest.skip(f"{module} does not import: {reason}", **where)
