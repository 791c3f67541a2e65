"""The panels of a figure of frames, as `show_frames` takes them: each checks its numbers and makes JSON of them.

Arrays are tensors, arrays or nested lists; F is the number of frames, C of classes or bars, n of points. With a `choice`
of K options, every array of F frames gets a first axis more: (F, C) becomes (K, F, C).
Colours are given by role: "teacher", "student", "baseline", "article" or "ink". A name with one of these words in it
("the student after") has its colour already; up to three entries may share one, and their strokes tell them apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ._moving import png
from ._numbers import array, axis, listed, plain, seen, styles, texts, to_axis, to_digits, written


@dataclass(frozen=True)
class Bars:
    """Horizontal bars, one group a class or method, one bar a series: Bars("Answers", classes, {"teacher": p}).

    title: over the panel. classes: C names, of 24 letters at most. values: name → (F, C), from 0 to `maximum`.
    colours: name → role. maximum: where the axis ends. label: of the axis. target: place of the class set in bold; F
    places, one a frame: that class has a ▸ before its name, too.
    ghosts: (what they are, (C,) numbers), a stroke across each class's bars there in every frame; with a choice (K, C).
    """

    title: str
    classes: Sequence[str]
    values: Mapping[str, object]
    colours: Mapping[str, str] = field(default_factory=dict)
    maximum: float = 1
    label: str = "probability"
    target: int | Sequence[int] | None = None
    ghosts: tuple[str, object] | None = None

    def data(self, lead) -> dict:
        """The panel as JSON. lead: (("K", K), ("F", F)) or (("F", F),)."""
        C, series = len(self.classes), []
        if not C or max(map(len, self.classes)) > 24:
            raise ValueError(f"{self.title!r} needs classes of at most 24 letters; got {list(self.classes)}.")
        moves = isinstance(self.target, Sequence)
        target = -1 if self.target is None else [int(i) for i in self.target] if moves else self.target
        if self.target is not None and not all(0 <= i < C for i in (target if moves else [target])):
            raise ValueError(f"{self.title!r} has {C} classes; target is {self.target}.")
        if moves and len(target) != lead[-1][1]:
            raise ValueError(f"{self.title!r} needs {lead[-1][1]} targets, one a frame; got {len(target)}.")
        for name, c in zip(self.values, styles(self.title, self.values, self.colours), strict=True):
            what = f"{self.title!r}, {name!r}"
            found = array(what, self.values[name], (*lead, ("C", C)))
            if found.min() < 0 or found.max() > self.maximum * (1 + 1e-6):
                raise ValueError(
                    f"{what} lies in {found.min():g} … {found.max():g}, and bars go from 0 to maximum = "
                    f"{self.maximum:g}. Give another maximum, or draw Curves."
                )
            rounded = to_digits(found.reshape(-1, lead[-1][1], C), self.maximum)
            series.append({"name": name, "c": c, "values": listed(rounded)})
        more = {}
        if self.ghosts:
            name, ghosts = self.ghosts
            ghosts = array(f"{self.title!r}, {name!r}", ghosts, (*lead[:-1], ("C", C)))
            if ghosts.min() < 0 or ghosts.max() > self.maximum * (1 + 1e-6):
                raise ValueError(
                    f"{self.title!r}, {name!r}: ghosts stand from 0 to maximum = {self.maximum:g}."
                )
            ghosts = to_digits(ghosts.reshape(-1, C), self.maximum)
            more = {"ghosts": {"name": name, "values": listed(ghosts)}}
        ticks = [0, self.maximum / 2, self.maximum]
        return {
            "form": "bars", "title": self.title, "classes": list(self.classes), "series": series,
            "maximum": self.maximum, "ticks": ticks, "names": [written(t) for t in ticks], "label": self.label,
            "target": target, **more,
        }  # fmt: skip


@dataclass(frozen=True)
class Curves:
    """Curves over an axis: Curves("On test images", "T", "accuracy, %", {"student": (temperatures, accuracy)}).

    title: over the panel. x, y: labels of the axes, with units.
    curves: name → (xs, ys), xs (n,). With ys (n,) the curve stays; if n = F it has a dot where the slider stands. With
    ys (F, n) it changes from frame to frame. With a choice: ys (n,), the same for all options; (K, n); (K, F, n).
    colours: name → role. logx, logy: logarithmic axes. xlim, ylim: where the axes end; the numbers' own ends if None.
    dots: name of a curve → (F, 2), its dot in each frame, where n is not F.
    unfolds: on a page, curves of n = F points reach only as far as the slider has been; the still picture has them all.
    """

    title: str
    x: str
    y: str
    curves: Mapping[str, tuple]
    colours: Mapping[str, str] = field(default_factory=dict)
    logx: bool = False
    logy: bool = False
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None
    dots: Mapping[str, object] = field(default_factory=dict)
    unfolds: bool = False

    def _line(self, name, lead):
        """xs (n,), ys (K or 1, n) or (K or 1, F, n), dots (K or 1, F, 2) or None, of one curve."""
        what, F = f"{self.title!r}, {name!r}", lead[-1][1]
        xs = array(f"{what}, xs", self.curves[name][0], (("n", None),))
        ys, n = plain(self.curves[name][1]), ("n", len(xs))
        shapes = {len(s): s for s in ((n,), (*lead[:-1], n), (*lead, n))}
        ys = array(f"{what}, ys", ys, shapes.get(np.ndim(ys), (*lead, n)))
        moves, dots = ys.ndim == len(lead) + 1, None
        ys = ys.reshape(-1, *[F] * moves, len(xs))
        if name in self.dots:
            dots = array(f"{what}, dots", self.dots[name], (*lead, ("x and y", 2))).reshape(-1, F, 2)
        elif not moves and len(xs) == F:
            dots = np.stack([np.broadcast_to(xs, ys.shape), ys], -1)
        return xs, ys, dots

    def data(self, lead) -> dict:
        """The panel as JSON. lead: (("K", K), ("F", F)) or (("F", F),)."""
        if unknown := [name for name in self.dots if name not in self.curves]:
            raise ValueError(f"{self.title!r} has dots of {unknown}; its curves are {list(self.curves)}.")
        kinds = styles(self.title, self.curves, self.colours)
        lines = [self._line(name, lead) for name in self.curves]
        dots = [d.reshape(-1, 2) for *_, d in lines if d is not None]
        xs = np.concatenate([xs for xs, *_ in lines] + [d[:, 0] for d in dots])
        ys = np.concatenate([ys.ravel() for _, ys, _ in lines] + [d[:, 1] for d in dots])
        at = np.unique(np.concatenate([xs for xs, *_ in lines]))
        x = axis(self.title, self.x, xs, self.xlim, self.logx, 0, at)
        y = axis(self.title, self.y, ys, self.ylim, self.logy)
        found = []
        for name, c, (xs, ys, dots) in zip(self.curves, kinds, lines, strict=True):
            line = {"name": name, "c": c, "xs": listed(to_axis(xs, x)), "ys": listed(to_axis(ys, y))}
            if dots is not None:
                line["dots"] = listed(seen(dots, x, y))
            found.append({**line, "moves": ys.ndim == 3})
        if self.unfolds and any(line["moves"] or len(line["xs"]) != lead[-1][1] for line in found):
            raise ValueError(f"{self.title!r} unfolds: each curve needs one point a frame, ys (F,).")
        more = {"unfolds": True} if self.unfolds else {}
        return {"form": "curves", "title": self.title, "x": x, "y": y, "lines": found, **more}


@dataclass(frozen=True)
class Points:
    """Labelled points that move in a plane: Points("Classes", "", "", names, {"student": places}).

    title: over the panel. x, y: labels of the axes; "" for an axis without meaning, which then has no ticks.
    labels: n short names, written beside the points of the first entry. points: name → (F, n, 2).
    colours: name → role. ghosts: (n, 2), fixed places in ink, each joined to the point of the first entry.
    closed: instead, the points of the first entry form a closed line in their order, and the ghosts a dashed one.
    """

    title: str
    x: str
    y: str
    labels: Sequence[str]
    points: Mapping[str, object]
    colours: Mapping[str, str] = field(default_factory=dict)
    ghosts: object = None
    closed: bool = False

    def data(self, lead) -> dict:
        """The panel as JSON. lead: (("K", K), ("F", F)) or (("F", F),)."""
        kinds = styles(self.title, self.points, self.colours)
        shape = (("n", len(self.labels)), ("x and y", 2))
        places = {
            name: array(f"{self.title!r}, {name!r}", at, (*lead, *shape)) for name, at in self.points.items()
        }
        all_places = [at.reshape(-1, 2) for at in places.values()]
        if self.ghosts is not None:
            all_places.append(array(f"{self.title!r}, ghosts", self.ghosts, shape))
        x, y = (
            axis(self.title, label, np.concatenate([at[:, i] for at in all_places]), None, room=0.1)
            for i, label in enumerate((self.x, self.y))
        )
        groups = [
            {"name": name, "c": c, "at": listed(seen(at, x, y).reshape(-1, *at.shape[-3:]))}
            for (name, at), c in zip(places.items(), kinds, strict=True)
        ]
        found = {"form": "points", "title": self.title, "x": x, "y": y, "labels": list(self.labels)}
        ghosts = None if self.ghosts is None else listed(seen(all_places[-1], x, y))
        return {**found, "groups": groups, "ghosts": ghosts, **({"closed": True} if self.closed else {})}


@dataclass(frozen=True)
class Images:
    """A grey image for each frame: Images("What the student sees", images, alt="A shirt, {value}").

    title: over the panel. images: (F, H, W), the darkest value of all black, the lightest white.
    alt: what the image shows, for those who do not see it; {value} stands for the slider's value.
    """

    title: str
    images: object
    alt: str

    def data(self, lead) -> dict:
        """The panel as JSON. lead: (("K", K), ("F", F)) or (("F", F),)."""
        found = array(f"{self.title!r}", self.images, (*lead, ("H", None), ("W", None)))
        if found.min() == found.max():
            raise ValueError(f"{self.title!r} is {found.min():g} everywhere; there is nothing to see.")
        pixels = torch.as_tensor(found).flatten(0, len(lead) - 1)
        made = [png(image[None], found.min(), found.max()) for image in pixels]
        sources = list(dict.fromkeys(made))  # what stands twice is kept once
        places = np.reshape([sources.index(one) for one in made], (-1, lead[-1][1])).tolist()
        return {"form": "images", "title": self.title, "alt": self.alt, "sources": sources, "places": places}


@dataclass(frozen=True)
class Table:
    """A few cells of text: Table("By hand", ["", "p", "q"], rows).

    title: over the panel. heads: C names of columns, four at most. rows: (F, R, C) strings, the first cell of a row its
    name.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence

    def data(self, lead) -> dict:
        """The panel as JSON. lead: (("K", K), ("F", F)) or (("F", F),)."""
        if not 2 <= len(self.heads) <= 4:
            raise ValueError(f"{self.title!r} needs two to four columns; got {list(self.heads)}.")
        first = self.rows[0] if len(lead) == 1 else self.rows[0][0]
        shape = (*lead, ("R", len(first)), ("C", len(self.heads)))
        rows = texts(self.title, self.rows, shape)
        rows = rows if len(lead) == 2 else [rows]
        return {"form": "table", "title": self.title, "heads": list(self.heads), "rows": rows}
