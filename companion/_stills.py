"""The still picture of a figure of frames: its panels below each other, as they are where the slider starts."""

import io
from base64 import b64decode

import matplotlib.pyplot as plt
import numpy as np

from ._panels import INK, ROLES, WIDTH

COLOURS = {role[0]: colour for role, colour in ROLES.items()}
LINES, SHADES = {"": "-", "dash": "--", "dots": ":"}, {"": 1, "dash": 0.5, "dots": 0.25}


def _style(c: str):
    letter, _, stroke = c.partition(" ")
    return COLOURS[letter], stroke


def _bars(ax, panel, i):
    series, C = panel["series"], len(panel["classes"])
    for k, s in enumerate(series):
        colour, stroke = _style(s["c"])
        shift = 0.8 * ((k + 0.5) / len(series) - 0.5)
        kind = {"color": colour, "alpha": SHADES[stroke], "label": s["name"]}
        ax.barh(np.arange(C) + shift, s["values"][0][i], 0.8 / len(series), **kind)
    names, target = list(panel["classes"]), panel["target"]
    if isinstance(target, list):
        target = target[i]
        names[target] = f"▸ {names[target]}"
    ax.set_yticks(range(C), names, fontsize=9)
    if target >= 0:
        ax.get_yticklabels()[target].set_fontweight("bold")
    if ghosts := panel.get("ghosts"):
        at, places = ghosts["values"][0], np.arange(C)
        ax.vlines(at, places - 0.4, places + 0.4, color=INK, lw=1.2, label=ghosts["name"])
    ax.set(xlim=(0, panel["maximum"]), ylim=(C - 0.5, -0.5), xlabel=panel["label"])
    ax.set_xticks(panel["ticks"], panel["names"])
    return len(series) > 1 or "ghosts" in panel


def _axes(ax, panel):
    for name in "xy":
        a = panel[name]
        ax.set(**{f"{name}scale": "log" if a["log"] else "linear", f"{name}label": a["label"]})
        ax.set(**{f"{name}lim": (a["min"], a["max"])})
        getattr(ax, f"set_{name}ticks")(a["ticks"], a["names"])
    ax.minorticks_off()


def _curves(ax, panel, i):
    for line in panel["lines"]:
        colour, stroke = _style(line["c"])
        ys = line["ys"][0][i] if line["moves"] else line["ys"][0]
        ax.plot(line["xs"], ys, LINES[stroke], color=colour, label=line["name"])
        if "dots" in line:
            ax.plot(*line["dots"][0][i], "o", color=colour, clip_on=False)
    _axes(ax, panel)
    return len(panel["lines"]) > 1


def _labels(ax, panel, first):
    """Beside the points, towards the middle; of a closed line, outside it."""
    wide, high = (panel[name]["max"] - panel[name]["min"] for name in "xy")
    middle, centre = (panel["x"]["min"] + panel["x"]["max"]) / 2, np.mean(first, 0)
    for label, (x, y) in zip(panel["labels"], first, strict=True):
        side = -1 if x > middle else 1
        kind = {"xytext": (7 * side, -3), "ha": "left" if side > 0 else "right"}
        if panel.get("closed", False):
            away = ((x, y) - centre) / (wide, high)
            kind = {"xytext": 11 * away / (np.hypot(*away) or 1), "ha": "center", "va": "center"}
        ax.annotate(label, (x, y), textcoords="offset points", fontsize=9, **kind)


def _points(ax, panel, i):
    first = panel["groups"][0]["at"][0][i]
    if closed := panel.get("closed", False):
        own = {"color": _style(panel["groups"][0]["c"])[0]}
        for places, kind in [(panel["ghosts"], {"color": INK, "lw": 1, "ls": "--"}), (first, own)]:
            if places:
                ax.plot(*zip(*places, places[0], strict=True), **kind)
    for ghost, point in zip(panel["ghosts"] or (), first, strict=bool(panel["ghosts"])):
        if not closed:
            ax.plot(*zip(ghost, point, strict=True), color=INK, lw=1)
        ax.plot(*ghost, "o", color=INK, mfc="none")
    for group in panel["groups"]:
        colour, stroke = _style(group["c"])
        x, y = zip(*group["at"][0][i], strict=True)
        ax.plot(x, y, "o", color=colour, alpha=SHADES[stroke], label=group["name"])
    _labels(ax, panel, first)
    _axes(ax, panel)
    return len(panel["groups"]) > 1


def _images(ax, panel, i):
    from PIL import Image

    source = panel["sources"][panel["places"][0][i]]
    ax.imshow(Image.open(io.BytesIO(b64decode(source.split(",")[1]))), interpolation="nearest")
    ax.set_anchor("W")
    ax.set_axis_off()


def _table(ax, panel, i):
    ax.set_axis_off()
    drawn = ax.table(
        panel["rows"][0][i],
        colLabels=panel["heads"],
        loc="center",
        cellLoc="left",
        colLoc="left",
        edges="horizontal",
    )
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    for cell in drawn.get_celld().values():
        cell.set(edgecolor=INK, facecolor="none")


DRAW = {"bars": _bars, "curves": _curves, "points": _points, "images": _images, "table": _table}


def _height(panel) -> float:
    """In inches, with title and axis."""
    if panel["form"] == "bars":
        return 0.85 + len(panel["classes"]) * (0.12 + 0.09 * len(panel["series"]))
    if panel["form"] == "table":
        return 0.8 + 0.22 * len(panel["rows"][0][0])
    return {"images": 1.7, "points": 3.2}.get(panel["form"], 2.6)


def draw_still(data) -> None:
    """The current figure becomes the frame at which `data` starts, of the first option."""
    heights = [_height(panel) for panel in data["panels"]]
    _, axes = plt.subplots(
        len(heights), 1, figsize=(WIDTH, sum(heights) + 0.3), height_ratios=heights, squeeze=False
    )
    slider, choice = data["slider"], data["choice"]
    where = [f"{slider['label']}: {slider['values'][slider['start']]}"]
    where += [f"{choice['label']}: {choice['options'][0]}"] if choice else []
    plt.suptitle(", ".join(where), fontsize=10, color=INK)
    for ax, panel in zip(axes[:, 0], data["panels"], strict=True):
        ax.set_title(panel["title"], fontsize=10, loc="left")
        if DRAW[panel["form"]](ax, panel, slider["start"]):
            ax.legend(fontsize=9)
