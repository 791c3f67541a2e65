"""The numbers of a figure that moves: checked, rounded to what can be seen, with axes and strokes that suit them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import Tensor

from ._panels import ROLES

STROKES = ("", " dash", " dots")  # of the first, second and third entry of one colour


def plain(values):
    """Tensors, arrays and sequences of them as nested lists."""
    if isinstance(values, Tensor):
        return values.detach().cpu().tolist()
    if isinstance(values, np.ndarray | np.generic):
        return values.tolist()
    return [plain(v) for v in values] if isinstance(values, list | tuple | range) else values


def array(what: str, values, shape) -> np.ndarray:
    """`values` as numbers of that shape, or an error that names both. shape: pairs (letter, length or None for any)."""
    wanted = f"({', '.join(f'{name} = {n}' if n else name for name, n in shape)})"
    try:
        found = np.asarray(plain(values), dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} needs numbers of shape {wanted}, in rows of one length.") from error
    fits = len(found.shape) == len(shape) and all(
        n in (None, m) for (_, n), m in zip(shape, found.shape, strict=True)
    )
    if not fits or not found.size:
        raise ValueError(f"{what} needs shape {wanted}; got {found.shape}.")
    if not np.isfinite(found).all():
        raise ValueError(f"{what} holds NaN or infinity; a figure's numbers must be finite.")
    return found


def texts(what: str, values, shape) -> list:
    """Nested lists of strings of that shape, or an error that names both."""
    (name, n), *rest = shape
    if isinstance(values, str) or len(values) != n:
        raise ValueError(f"{what} needs {n} entries ({name}); got {values!r}.")
    if rest:
        return [texts(what, row, rest) for row in values]
    if wrong := [v for v in values if not isinstance(v, str)]:
        raise ValueError(f"{what} takes strings; got {wrong}.")
    return list(values)


def listed(numbers: np.ndarray):
    """Nested lists, whole numbers without a point: they weigh less."""
    if numbers.ndim:
        return [listed(row) for row in numbers]
    return int(numbers) if numbers == int(numbers) else float(numbers)


def to_digits(numbers: np.ndarray, span: float, log: bool = False) -> np.ndarray:
    """Rounded to a 2000th of the span at most (a panel is 300 points wide); on a logarithmic axis to four digits."""
    if log:
        return np.vectorize(lambda v: float(f"{v:.4g}"))(numbers)
    return np.round(numbers, max(0, 3 - math.floor(math.log10(span or 1))))


def to_axis(numbers: np.ndarray, axis: dict) -> np.ndarray:
    """Rounded to what can be seen on that axis."""
    return to_digits(numbers, axis["max"] - axis["min"], axis["log"])


def seen(places: np.ndarray, x: dict, y: dict) -> np.ndarray:
    """Places (…, 2), each coordinate rounded to what can be seen on its axis."""
    return np.stack([to_axis(places[..., 0], x), to_axis(places[..., 1], y)], -1)


def decimals(numbers: np.ndarray, unit: str) -> int:
    """How many decimals a read-out shows: about three digits of the largest; none of whole numbers."""
    largest = np.abs(numbers).max()
    if (numbers == numbers.round()).all() or not largest:
        return 0
    return min(max(2 - math.floor(math.log10(largest)), 1 if unit == "%" else 0), 6)


def written(value) -> str:
    """A number as an axis or a slider says it: 0.5, 12,000, 10⁶, 2e−05."""
    if isinstance(value, str):
        return value
    text = f"{value:,g}" if value == 0 or 1e-4 <= abs(value) < 1e6 else f"{value:.0e}"
    if text.lstrip("-").startswith("1e"):
        return f"10{str(int(text.split('e')[1])).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return text.replace("-", "−")


def axis(
    title: str, label: str, numbers: np.ndarray, limits, log: bool = False, room: float = 0.05, at=()
) -> dict:
    """Ends, ticks and their names for one axis; the numbers' own ends, with some room, where no limits are given.

    at: where a logarithmic axis has its ticks, if their names have room there.
    """
    low, high = limits or (numbers.min(), numbers.max())
    if low > numbers.min() or high < numbers.max():
        raise ValueError(
            f"{title!r}: {label!r} runs over {numbers.min():g} … {numbers.max():g}, and its axis is to end at "
            f"{low:g} and {high:g}. Give wider limits."
        )
    if log and low <= 0:
        raise ValueError(f"{title!r}: {label!r} holds {low:g}; a logarithmic axis takes numbers above 0.")
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    elif limits is None:
        low, high = (
            (low * (low / high) ** room, high * (high / low) ** room)
            if log
            else (low - room * (high - low), high + room * (high - low))
        )
    locators = [LogLocator(subs=subs, numticks=6) for subs in ((1,), (1, 2, 5))] if log else [MaxNLocator(5)]
    for locator in locators:
        found = [float(f"{t:.6g}") for t in locator.tick_values(low, high)]
        ticks = [t for t in found if low <= t <= high] if label else []
        if len(ticks) > 2:
            break
    if log and label and _have_room(at, low, high):
        ticks = [float(f"{t:.6g}") for t in at]
    ends = {"min": float(f"{low:.6g}"), "max": float(f"{high:.6g}")}
    return {**ends, "ticks": ticks, "names": [written(t) for t in ticks], "label": label, "log": log}


def _have_room(ticks, low: float, high: float) -> bool:
    """Whether two to eight names fit below a logarithmic axis, which is 266 points long; a letter takes 6.2."""
    places = [266 * math.log(t / low) / math.log(high / low) for t in ticks]
    wide = [6.2 * len(written(float(t))) for t in ticks]
    return 2 <= len(ticks) <= 8 and all(
        b - a >= (v + w) / 2 + 5 for (a, b), (v, w) in zip(pairwise(places), pairwise(wide), strict=True)
    )


def styles(title: str, names: Iterable[str], colours: Mapping[str, str]) -> list[str]:
    """The class of each entry: a letter for its role, and a stroke where the role has come before."""
    found, seen = [], Counter()
    for name in names:
        words = name.lower().replace("’", " ").replace("'", " ").split()
        role = colours.get(name) or next((role for role in ROLES if role in words), None)
        if role not in ROLES:
            raise ValueError(
                f"{title!r}: {name!r} has role {role!r}. Roles are {', '.join(ROLES)}: colours={{{name!r}: …}}."
            )
        if seen[role] == len(STROKES):
            raise ValueError(
                f"{title!r} has more than {len(STROKES)} entries of role {role!r}; give some another one."
            )
        found.append(role[0] + STROKES[seen[role]])
        seen[role] += 1
    if not found:
        raise ValueError(f"{title!r} is empty; it needs an entry at least.")
    return found
