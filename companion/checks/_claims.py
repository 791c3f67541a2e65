"""Claims that a run checks, and numbers for the prose."""

import json
import math
import os
import re

from .. import book_seed, device
from ..metrics import Interval

SAID = re.compile(r"at least|at most|no more than|clear of 0|beats|loses to|no difference seen")
VERDICT = re.compile(
    r"clear of 0|beats|loses to|no difference seen"
)  # words with a rule: is 0 within the interval?
EXACT = 1e-6  # what rounding leaves in the identities of a book that computes them in double precision


def claim(text: str, measured, *, above=None, below=None, between=None, exact=None, unit="", per="seeds"):
    """Check a sentence of the book and print "✓ text", with the kind of evidence it rests on; raise where it fails.

    - claim(text, holds) with a truth value: a statement of logic; prints "✓ text".
    - claim(text, interval, above=1.5) holds if the whole interval lies beyond it: "✓ text: +2.1 ± 0.4, 10 seeds".
    - claim(text, number, between=(3, 4)) if the number does: "✓ text: 3.2".
    - claim(text, error, exact=1e-12) if abs(error) ≤ 1e-12 everywhere: "✓ text (exact)".

    Where the book is made, BOOK_SLACK=2 holds each bound to a factor of two of what was measured, that is of the
    end of the interval that faces it, or of the number: it has the same sign, and of a range around 0 one end is
    enough. A bound of 0 is a statement about the sign and always allowed, and a text that says "at least", "at
    most", "no more than", "clear of 0", "beats", "loses to" or "no difference seen" may have a wider one. An
    identity is exact to 1e-6 or better, of an error relative to what is compared; up to 1e-3 the ✓ line names the
    tolerance, and beyond that it is no identity.

    Args:
        text: a sentence that can be read alone, without numbers that depend on the run.
        measured: one truth value, or a metrics.Interval, a number, an error (a number or a tensor).
        above, below, between: the bound, or two of them; the comparison is strict.
        exact: the largest error.
        unit: follows the number as it is written: " points", " ms". A " %" has no plus sign before it.
        per: what the interval's n counts.

    Raises:
        AssertionError: the claim does not hold; names text, measured value and bound.
        TypeError: `measured` is not one truth value and there is no bound, or the kinds do not fit.
        ValueError: NaN; a bound that is not finite; more than one; or, with BOOK_SLACK, BOOK_SEED 0 and
            the CPU, one that is too wide.
    """
    given = {"above": above, "below": below, "between": between, "exact": exact}
    given = {kind: bound for kind, bound in given.items() if bound is not None}
    if len(given) > 1:
        raise ValueError(f"a claim has one bound; got {', '.join(given)}.")
    kind, bound = next(iter(given.items()), ("logic", None))
    if kind == "logic":
        low = high = holds = _truth(measured)
        ends, shown, found = (), "", ""
    elif kind == "exact":
        low = high = _error(measured)
        ends, holds = _bounds(kind, bound), low <= bound
        shown = " (exact)" if bound <= EXACT else f" (exact to {bound:g})"
        found = f": the error is {low:.3g}, claimed exact={bound}."
    else:
        (low, high), ends = _ends(measured), _bounds(kind, bound)
        holds, shown = _holds(low, high, *ends), _shown(measured, unit, per)
        found = f"{shown}, claimed {kind}={bound}."
    if not holds:
        raise AssertionError(f"✗ {text}{found}")
    if book_seed() == 0 and device().type == "cpu":
        # how near a bound is, is asked where the book is made: a reader's processor may measure a little else
        _fits(text, measured, kind, low, high, ends, float(os.environ.get("BOOK_SLACK", "inf")))
    _write_down(text, kind, measured, low, high, ends)
    print(f"✓ {text}{shown}")


def glue(**values: "float | str | Interval") -> None:
    """Give measured numbers to the prose: glue(gain=4.2) is written {glue:text}`gain:.1f` in a page.

    An Interval is given whole: glue(gain=interval) makes {glue:text}`gain` print "2.1 ± 0.4", to the digit at which
    the half width begins (one decimal below 10), and {glue:text}`gain_mean:.2f`, `gain_low`, `gain_high`, `gain_half`
    and `gain_n` its parts. What an interval is glued as depends on the run, and nbval does not compare it.
    """
    from IPython.display import display

    for name, value in values.items():
        for key, plain in _plain(name, value):
            metadata = {"scrapbook": {"name": key, "mime_prefix": "application/papermill.record/"}}
            display({"application/papermill.record/text/plain": plain}, raw=True, metadata=metadata)


def _plain(name: str, value):
    """(name, the literal that the page reads) of a value, or of an interval and its parts.

    What is no whole number stands in parentheses, which no other output does, so that tests/nbval.cfg knows it: its last
    digits differ between processors.
    """
    if not isinstance(value, Interval):
        value = value.item() if hasattr(value, "item") else value
        yield name, f"({value!r})" if isinstance(value, float) else repr(value)
        return
    yield name, repr(_written(value).removeprefix("+"))
    for part in ("mean", "low", "high"):
        yield f"{name}_{part}", f"({getattr(value, part)!r})"
    yield f"{name}_half", f"({value.half_width!r})"
    yield f"{name}_n", repr(value.n)


def _written(value, unit: str = "") -> str:
    """A number or an interval as it stands in a sentence: "3.2", "+2.1 ± 0.4", with a true minus."""
    if isinstance(value, Interval):
        half = value.half_width
        places = min(6, max(int(half < 10), -math.floor(math.log10(half)))) if half > 0 else 1
        sign = "" if unit.strip() == "%" else "+"
        text = f"{value.mean:{sign},.{places}f} ± {half:,.{places}f}"
    else:
        value = float(value)
        text = f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def _shown(measured, unit: str, per: str) -> str:
    n = f", {measured.n} {per}" if isinstance(measured, Interval) else ""
    return f": {_written(measured, unit)}{unit}{n}"


def _truth(holds) -> bool:
    value = holds.item() if math.prod(getattr(holds, "shape", [0])) == 1 else holds
    if not isinstance(value, bool):
        raise TypeError(f"claim takes one truth value, or a bound beside what was measured; got {holds!r}.")
    return value


def _ends(measured) -> tuple[float, float]:
    """(low, high) of an interval, or a number twice."""
    if isinstance(measured, Interval):
        ends = measured.low, measured.high
    else:
        value = measured.item() if math.prod(getattr(measured, "shape", [0])) == 1 else measured
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"a bound is compared with a number or an Interval; got {measured!r}.")
        ends = float(value), float(value)
    if any(math.isnan(end) for end in ends):
        raise ValueError(f"what was measured is NaN: {measured!r}.")
    return ends


def _error(error) -> float:
    """The largest absolute value in a number or a tensor."""
    if isinstance(error, bool | Interval) or "bool" in str(getattr(error, "dtype", "")):
        raise TypeError(f"exact= takes the error, not whether it is small; got {error!r}.")
    if math.prod(getattr(error, "shape", [1])) == 0:
        raise ValueError("exact= got an empty tensor: nothing was compared.")
    largest = abs(error.detach() if hasattr(error, "detach") else error)
    largest = float(largest.max() if hasattr(largest, "max") else largest)
    if math.isnan(largest):
        raise ValueError("the error is NaN.")
    return largest


def _bounds(kind: str, bound) -> tuple[float, float]:
    """(lower, upper), infinite where there is none. A claim that nothing could break is refused."""
    if kind == "between":
        low, high = map(float, bound)
    elif kind == "exact":
        low, high = -math.inf, float(bound)
    else:
        low, high = (float(bound), math.inf) if kind == "above" else (-math.inf, float(bound))
    finite = [end for end in (low, high) if math.isfinite(end)]
    if len(finite) != 1 + (kind == "between") or low >= high or (kind == "exact" and float(bound) < 0):
        raise ValueError(f"{kind}={bound!r} is no bound that a measurement can lie beyond.")
    return low, high


def _holds(low: float, high: float, lower: float, upper: float) -> bool:
    return lower < low and high < upper


def _fits(text: str, measured, kind: str, low: float, high: float, ends: tuple, slack: float) -> None:
    """Raise where the bound says much less than what was measured, or where the words and the interval disagree."""
    if kind == "exact" and ends[1] > 1e-3:
        raise ValueError(f"“{text}”: an error of {ends[1]:.3g} is no identity; compare with below=.")
    if kind in ("exact", "logic"):
        return
    if VERDICT.search(text) and ("no difference seen" in text) != (low <= 0 <= high):
        raise ValueError(f"“{text}”: {_shown(measured, '', 'values')[2:]} gives the other verdict.")
    pairs = [(bound, end) for bound, end in zip(ends, (low, high), strict=True) if math.isfinite(bound)]
    near = [_within(bound, end, slack) for bound, end in pairs]
    around = len(pairs) == 2 and ends[0] < 0 < ends[1]
    if math.isfinite(slack) and not SAID.search(text) and not (any(near) if around else all(near)):
        bounds = " and ".join(f"{bound:g}" for bound, _ in pairs)
        raise ValueError(
            f"“{text}”: the bound {bounds} is further than a factor of {slack:g} from what was measured, "
            f"{_shown(measured, '', 'values')[2:]}. Draw it nearer, or say “at least”, “at most” or “no more than”."
        )


def _within(bound: float, end: float, slack: float) -> bool:
    """bound 0 speaks of the sign; any other lies on the same side of 0 and within a factor of `slack`."""
    return bound == 0 or (bound * end > 0 and max(bound / end, end / bound) <= slack)


def _write_down(text: str, kind: str, measured, low: float, high: float, ends: tuple) -> None:
    """One line of JSON to the file named in BOOK_CLAIMS: all claims of a run, for a test or a reviewer."""
    if not (path := os.environ.get("BOOK_CLAIMS")):
        return
    n = measured.n if isinstance(measured, Interval) else None
    bounds = [end if math.isfinite(end) else None for end in ends]
    line = {"text": text, "kind": kind, "measured": [low, high], "bounds": bounds, "n": n}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
