"""A slider over frames that Python has computed: one kind of moving figure for whatever a chapter measured.

`show_frames` takes the slider's values, one to three panels and what is to be read off; a page draws the frame at which
the slider stands, and Jupyter, PDF and EPUB show the frame at which it starts. Import all from `companion.interactive`.
"""

import json
from collections.abc import Sequence

from ._frame_panels import Bars, Curves, Images, Points, Table
from ._moving import show
from ._numbers import array, decimals, listed, plain, texts, written
from ._stills import draw_still

__all__ = ["Bars", "Curves", "Images", "Points", "Table", "show_frames"]
LIMIT = 30_000  # bytes of one figure


def show_frames(
    slider: tuple,
    panels: Sequence[Bars | Curves | Points | Images | Table],
    say: Sequence[tuple] = (),
    *,
    choice: tuple[str, Sequence[str]] | None = None,
    how: str,
    goal: tuple[str, Sequence] | None = None,
    notes: Sequence | None = None,
) -> None:
    """A figure with a slider over F frames, and if wanted a choice of K options; one to three panels and read-outs.

    In a cell tagged hide-input, with figure and image metadata like every figure. The whole of it, for logits v (C,):

        Ts = [1, 2, 4, 8, 16]
        p = torch.stack([soften(v, T) for T in Ts])  # (F, C)
        entropy, second = torch.special.entr(p).sum(-1), p.sort().values[:, -2]  # (F,) each
        bars = Bars("The teacher's answer", FASHION_CLASSES, {"teacher": p})
        curve = Curves("At every T", "T", "entropy, nats", {"teacher": (Ts, entropy)}, logx=True)
        show_frames(
            ("temperature T", Ts, 0),  # starts at T = 1
            [bars, curve],
            [("entropy", entropy, "nats"), ("the second class", 100 * second, "%")],
            how="Move T. When is the second class heard?",
            goal=("Bring the entropy above 2 nats.", entropy > 2),
            notes=["Nearly a label.", "", "", "", "Nearly even."],
        )

    The panels, whose docstrings say more (companion/_frame_panels.py):

        Bars(title, classes, {name: (F, C)}, maximum=1, label="probability", target=None, ghosts=None)
        Curves(title, x, y, {name: (xs, ys)}, logx=False, logy=False, dots={}, unfolds=False)
        Points(title, x, y, labels, {name: (F, n, 2)}, ghosts=None, closed=False)
        Images(title, images, alt="A shirt, {value}")  # (F, H, W)
        Table(title, heads, rows)  # (F, R, C) strings

    A curve with ys (n,) stays, with a dot where n = F; one with ys (F, n) moves. Ghosts (n, 2) are where points were.
    The first three take colours={name: role} for names without "teacher", "student", "baseline" or "article" in them.

    Args:
        slider: (label, F values, index where it starts; 0 if left out). Values are numbers or short strings.
        panels: one to three of Bars, Curves, Points, Images, Table.
        say: read-outs under the controls, (name, (F,) numbers, unit) or (…, unit, decimals). Units: "%", "nats", "".
        choice: (label, K options), radio buttons; the first stands first. Then all that holds F frames, in panels,
            read-outs, goal and notes, has a first axis of K: (F, C) becomes (K, F, C).
        how: what to do, a sentence or two.
        goal: (what to find, (F,) of True where it is reached). Some frame reaches it; the one it starts with does not.
        notes: F sentences on what is seen in each frame, or "".

    Raises:
        ValueError: lengths or shapes differ, a number is not finite, a role is unknown, something is empty, the goal
            cannot be reached or is reached at the start, or the whole weighs more than 30 kB.
    """
    label, values, start = (*slider, 0)[:3]
    values, F = [written(v) for v in plain(values)], len(values)
    lead = (*((("K", len(choice[1])),) if choice else ()), ("F", F))
    if F < 2 or not 0 <= start < F:
        raise ValueError(f"A slider needs two values at least and starts at one; {F} values, start {start}.")
    if choice and len(choice[1]) < 2:
        raise ValueError(f"A choice needs two options at least; got {list(choice[1])}.")
    if not 1 <= len(panels) <= 3:
        raise ValueError(f"A figure has one to three panels; got {len(panels)}.")
    data = {"slider": {"label": label, "values": values, "start": start, "ticks": _ticks(values)}, "how": how}
    data["choice"] = choice and {"label": choice[0], "options": list(choice[1])}
    data["say"] = [_said(*row, lead=lead) for row in say]
    data["goal"] = goal and {"text": goal[0], "reached": _goal(goal[1], lead, start)}
    data["notes"] = notes and (
        texts("notes", plain(notes), lead) if choice else [texts("notes", notes, lead)]
    )
    data["panels"] = [panel.data(lead) for panel in panels]
    _small(data)
    draw_still(data)
    show("frames", data)


def _ticks(values) -> list[int]:
    """Places of the values that are written under the slider: as many, evenly, as a telephone has room for."""
    places = range(len(values))
    return next(
        list(places[::step])
        for step in places[1:] or [1]
        if sum(len(v) + 2 for v in values[::step]) <= 42 or step == len(values) - 1
    )


def _said(name, values, unit, digits=None, *, lead):
    """One read-out: what is shown of it in each frame."""
    found = array(f"The read-out {name!r}", values, lead)
    digits = decimals(found, unit) if digits is None else digits
    return {
        "name": name,
        "unit": unit,
        "digits": digits,
        "values": listed(found.round(digits).reshape(-1, lead[-1][1])),
    }


def _goal(reached, lead, start):
    """1 where the goal is reached, else 0, if it can be and is not yet."""
    found = array("The goal", reached, lead).astype(bool).reshape(-1, lead[-1][1])
    if not found.any() or found[0, start]:
        why = "is reached where the figure starts" if found.any() else "is reached in no frame"
        raise ValueError(f"The goal {why}; a reader is to move there.")
    return found.astype(int).tolist()


def _small(data) -> None:
    """Refuse what weighs too much, with the heaviest part and a remedy."""
    sizes = {p["title"]: len(json.dumps(p, ensure_ascii=False).encode()) for p in data["panels"]}
    total, heaviest = len(json.dumps(data, ensure_ascii=False).encode()), max(sizes, key=sizes.get)
    if total > LIMIT:
        raise ValueError(
            f"The figure weighs {total:,} bytes, {sizes[heaviest]:,} of them {heaviest!r}; at most {LIMIT:,}. "
            "Take fewer frames, fewer points a curve, or smaller images."
        )
