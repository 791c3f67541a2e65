"""What stands for a figure says the figure's numbers: each is written in it, or can be read off its axes.

An alternative text is typed once, and the figure is drawn anew in each run. Here the numbers of the one are looked for in
the other: in its labels, in what its cell prints, and in the places of points, lines and bars by the ticks of their axes.
"""

import copy
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.test_notebooks import CHAPTERS, cells

SVG = "{http://www.w3.org/2000/svg}"
NUMBER = re.compile(
    r"(?:\b(?P<about>about|near|nearly|some|almost|around) )?(?<![\w.,`:])(?P<n>\d(?:[\d,]*\d)?(?:\.\d+)?)"
)
GLUED = re.compile(r"\{glue:\w+\}`[^`]*`")
PIXELS = 0.35  # a tick and a point are drawn to a hundredth; a thin bar's edge may be read for its middle


def alt_of(cell) -> str:
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")


def pictures(cell) -> list[str]:
    return [out["data"]["image/svg+xml"] for out in cell.outputs if "image/svg+xml" in out.get("data", ())]


def written(cell) -> str:
    """Labels of the figure, what is printed, and the numbers that a moving figure is drawn from."""
    said = [
        label
        for svg in pictures(cell)
        for label in re.findall(r"<text[^>]*>([^<]*)</text>|<!-- (.*?) -->", svg)
    ]
    said = [part for label in said for part in label]
    for out in cell.outputs:
        said.append(out.get("text", ""))
        said += [
            v if isinstance(v, str) else json.dumps(v)
            for k, v in out.get("data", {}).items()
            if "svg" not in k
        ]
    return " ".join(said)


def ticks(axes, which) -> tuple[list[float], list[float]]:
    """Where the numbers along one axis stand, and what they are."""
    places, numbers = [], []
    for tick in axes.iter(f"{SVG}g"):
        mark = next(tick.iter(f"{SVG}use"), None)
        if not re.fullmatch(rf"{which}tick_\d+", tick.get("id", "")) or mark is None:
            continue
        label = "".join("".join(text.itertext()) for text in tick.iter(f"{SVG}text"))
        label = re.sub(r"[\s,]", "", label).replace("−", "-").rstrip("%")
        power = re.fullmatch(r"10(-?\d)", label) if next(tick.iter(f"{SVG}tspan"), None) is not None else None
        if power or re.fullmatch(r"-?\d*\.?\d+", label):
            places.append(float(mark.get(which)))
            numbers.append(10.0 ** int(power[1]) if power else float(label))
    return places, numbers


def scale(axes, which):
    """From a place to its number: linear or logarithmic, as the ticks are; None without two numbers."""
    places, numbers = ticks(axes, which)
    if len(set(numbers)) < 2:
        return None
    for there, back in ((np.asarray, np.asarray), (np.log, np.exp)):
        if there is np.log and min(numbers) <= 0:
            continue
        v = there(np.array(numbers))
        line = np.polyfit(places, v, 1)
        if np.abs(np.polyval(line, places) - v).max() <= 0.02 * np.ptp(v):
            return lambda place, line=line, back=back: back(np.polyval(line, place))
    return None


def drawn(element) -> list[np.ndarray]:
    """The points of each line, bar and marker in it: (n, 2)."""
    found = []
    for e in element.iter():
        if e.tag == f"{SVG}path" and e.get("d"):
            values = [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", e.get("d"))]
            found.append(np.array(values[: len(values) // 2 * 2]).reshape(-1, 2))
        elif e.tag in (f"{SVG}use", f"{SVG}text") and e.get("x"):
            found.append(np.array([[float(e.get("x")), float(e.get("y"))]]))
    return [points for points in found if len(points)]


def room(axes, column) -> tuple[float, ...]:
    """From where to where its background reaches: panels that share an axis have the same room, and one has the ticks."""
    background = next((part for part in axes if part.get("id", "").startswith("patch")), None)
    ends = drawn(background)[0][:, column] if background is not None else np.zeros(1)
    return round(ends.min(), 1), round(ends.max(), 1)


def readings(svg: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """All numbers that can be read off its axes, and how exactly: of points, and of the lengths of bars."""
    panels = [
        g
        for g in ElementTree.fromstring(svg.encode()).iter(f"{SVG}g")
        if re.fullmatch(r"axes_\d+", g.get("id", ""))
    ]
    found = []
    for column, which in enumerate("xy"):
        scales = {room(axes, column): number for axes in panels if (number := scale(axes, which))}
        for axes in panels:
            number = scale(axes, which) or scales.get(room(axes, column))
            parts = [part for part in axes if not part.get("id", "").startswith("matplotlib.axis")]
            shapes = [points[:, column] for part in parts for points in drawn(part)]
            if not number or not shapes:
                continue
            place = np.concatenate(shapes)
            exact = np.abs(number(place + PIXELS) - number(place))
            found.append((number(place), exact))
            if (
                np.abs(number(np.array(room(axes, column)))).max() < 1.3
            ):  # shares, which may be said in per cent
                found.append((100 * number(place), 100 * exact))
            if bars := [place for place in shapes if len(place) == 4]:
                ends = number(np.array([[place.min(), place.max()] for place in bars]))
                found.append((ends[:, 1] - ends[:, 0], np.full(len(bars), exact.min())))
    return found


def not_in_the_figure(cell) -> list[str]:
    """The numbers of its alternative text that are neither written nor drawn; what is glued is the run's own."""
    words, read, missing = written(cell), [r for svg in pictures(cell) for r in readings(svg)], []
    for found in NUMBER.finditer(GLUED.sub("", alt_of(cell))):
        text = found["n"]
        if re.search(rf"(?<![\d.]){re.escape(text)}(?!\.?\d)", words):
            continue
        plain = text.replace(",", "")
        decimals = len(plain.partition(".")[2])
        near = max(0.5 * 10**-decimals, 0.06 * float(plain) if found["about"] else 0)
        if not any((np.abs(np.abs(values) - float(plain)) <= near + exact).any() for values, exact in read):
            missing.append(text)
    return missing


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_an_alternative_text_says_the_figure_s_numbers(path):
    wrong = {alt_of(cell): found for cell in cells(path, "code") if (found := not_in_the_figure(cell))}
    assert not wrong


def test_a_number_of_another_run_is_found():
    """Of the typed numbers of all chapters, each moved by seven in its last digit, more than half are found out."""
    moved = caught = 0
    for cell in (cell for path in CHAPTERS[::4] for cell in cells(path, "code") if alt_of(cell)):
        for found in NUMBER.finditer(GLUED.sub("", alt_of(cell))):
            plain = found["n"].replace(",", "")
            decimals = len(plain.partition(".")[2])
            if decimals or float(plain) > 12:
                other = copy.deepcopy(cell)
                other.metadata["mystnb"]["image"]["alt"] = (
                    f"Here {float(plain) + 7 * 10**-decimals:.{decimals}f}."
                )
                moved, caught = moved + 1, caught + bool(not_in_the_figure(other))
    assert moved > 100 and caught > moved / 2
