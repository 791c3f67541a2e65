"""nbval, on another processor: pytest -p tests.nbval_figures.

A trained network's last digits differ between processors, and with them the numbers of a figure that moves.
nbval compares such a figure digit for digit; with this plugin, by its words and shapes exactly and by its
numbers nearly, so that a stale figure is still found. What a figure shows is claimed in text.
"""

import re

from nbval.plugin import IPyNbCell

NEAR = 0.1  # of the range of an array's numbers, on average over the array


class Figure:
    """What nbval compares in place of a moving figure's dictionary."""

    def __init__(self, figure: dict):
        self.figure = figure

    def __eq__(self, other):
        return isinstance(other, Figure) and alike(self.figure, other.figure)

    __hash__ = None

    def __repr__(self):
        return repr(self.figure)


def alike(one, other) -> bool:
    """Are two figures the same but for what differs between processors?"""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(alike(one[k], other[k]) for k in one)
        )
    if isinstance(one, str):
        return isinstance(other, str) and words(one) == words(other)
    if isinstance(one, float):
        return isinstance(other, int | float) and near([one], [other])
    if not isinstance(one, list):
        return one == other  # whole numbers, True, False, None
    if shape(one) != shape(other):
        return False
    if (numbers := flat(one)) is not None:
        return near(numbers, flat(other))
    return all(map(alike, one, other))


def words(text: str) -> str:
    """The text without its digits; of an image only that it is one."""
    return "IMAGE" if text.startswith("data:image/") else re.sub(r"−?\d[\d.,]*", "#", text)


def shape(values):
    """How nested lists are nested; of what is in them only whether it is a number."""
    if isinstance(values, list):
        return [shape(value) for value in values]
    return isinstance(values, int | float) and not isinstance(values, bool)


def flat(values) -> list[float] | None:
    """The numbers of nested lists, one after the other; None if something else is in them."""
    if isinstance(values, list):
        parts = [flat(value) for value in values]
        return None if not parts or None in parts else [number for part in parts for number in part]
    return [values] if shape(values) else None


def near(numbers: list[float], others: list[float]) -> bool:
    """On average over the array; of a goal's zeros and ones, one place in six at its border may change sides."""
    apart = sum(abs(a - b) for a, b in zip(numbers, others, strict=True))
    if {*numbers, *others} <= {0, 1}:
        return apart <= max(1, len(numbers) // 6)
    return apart <= NEAR * (max(*numbers, *others, 0) - min(*numbers, *others, 0)) * len(numbers)


def apart(one, other, at="figure") -> str:
    """The first place where two figures aren't alike."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return next(apart(one[k], other[k], f"{at}[{k!r}]") for k in one if not alike(one[k], other[k]))
    if isinstance(one, list) and isinstance(other, list) and shape(one) == shape(other) and flat(one) is None:
        i = next(i for i in range(len(one)) if not alike(one[i], other[i]))
        return apart(one[i], other[i], f"{at}[{i}]")
    return f"{at}: {str(one)[:200]} is stored, and {str(other)[:200]} came out"


def pytest_assertrepr_compare(config, op, left, right):
    if isinstance(left, Figure) and isinstance(right, Figure):
        return ["two moving figures", apart(left.figure, right.figure)]


def pytest_configure(config):
    plain = IPyNbCell.sanitize

    def sanitize(cell, value):
        is_figure = isinstance(value, dict) and set(value) == {"kind", "data"}
        return Figure(value) if is_figure else plain(cell, value)

    IPyNbCell.sanitize = sanitize
