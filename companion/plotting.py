"""The book's style and its few recurring figures.

Four colours carry the same meaning on every page, for colour-blind readers too, on light and dark pages:
teacher, student, baseline (the student trained alone) and the article's version. Where a figure takes `colours`,
they are given by name or one per entry, as colours or by their role: `{"KD": "student", "alone": "baseline"}`.

A figure is 4.8 inches wide at most: on a telephone it then shows nearly at its own size, and its labels, of 9 points
at least, stay legible. What needs more room is stacked, not put in a longer row.
"""

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from ._panels import (
    ARTICLE,
    BASELINE,
    INK,
    STUDENT,
    TEACHER,
    WIDTH,
    Colours,
    colour_of,
    draw_bars,
    draw_image,
    write_cells,
)
from .data import FASHION_CLASSES
from .metrics import Interval


def use_style() -> None:
    """Set the style; in a notebook, draw figures as transparent SVG whose bytes do not change between runs."""
    mpl.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.0), "figure.facecolor": "none", "savefig.facecolor": "none",
            "figure.constrained_layout.use": True,
            "axes.facecolor": "none", "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlecolor": INK,
            "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": "medium",
            "axes.prop_cycle": mpl.cycler(color=[TEACHER, STUDENT, BASELINE, ARTICLE]),
            "text.color": INK, "xtick.color": INK, "ytick.color": INK, "legend.frameon": False,
            "legend.labelcolor": INK, "grid.color": INK, "grid.alpha": 0.25, "font.size": 11,
            "svg.hashsalt": "companion", "svg.fonttype": "none", "image.cmap": "gray",
        }
    )  # fmt: skip
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # a plain Python session
        return
    set_matplotlib_formats("svg", metadata={"Date": None}, facecolor="none")


def show_images(images: Tensor, titles: Sequence[str] = ()) -> None:
    """Grey images, four in a row. images (N, 1, H, W); titles: one per image, or none."""
    if titles and len(titles) != len(images):
        raise ValueError(f"one title per image: {len(images)} images, {len(titles)} titles.")
    columns = min(4, len(images))
    lines = math.ceil(len(images) / columns)
    _, axes = plt.subplots(lines, columns, figsize=(WIDTH / 4 * columns, 1.4 * lines), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for i, ax in zip(range(len(images)), axes.flat, strict=False):
        draw_image(ax, images[i])
        if titles:
            ax.set_title(titles[i], fontsize=9)
    plt.show()


def show_probabilities(
    rows: Mapping[str, Tensor], classes: Sequence[str] = FASHION_CLASSES, colours: Colours = None
) -> None:
    """Bars of class probabilities, one panel per entry, three at most. rows: title → probabilities (C,)."""
    drawn = colour_of(colours, list(rows), TEACHER)
    width = min(WIDTH, 1.1 + 1.3 * len(rows))
    _, axes = plt.subplots(1, len(rows), figsize=(width, 0.8 + 0.2 * len(classes)), squeeze=False)
    for i, (ax, (title, p)) in enumerate(zip(axes[0], rows.items(), strict=True)):
        draw_bars(ax, p, None if i else classes, drawn[i])
        ax.set_title(title)
    plt.show()


def show_image_and_bars(
    images: Tensor,
    probabilities: Mapping[str, Tensor],
    classes: Sequence[str] = FASHION_CLASSES,
    *,
    labels: Sequence[int] | Tensor | int | None = None,
    colours: Colours = None,
) -> None:
    """Images beside the class probabilities that speak of them: one line per image, one panel per entry.

    Args:
        images: one image (1, H, W), or several (N, 1, H, W).
        probabilities: title → (C,) for one image, (N, C) for several; three entries at most.
        classes: C names.
        labels: the right class of each image, an int or N of them; its name is set in bold.
        colours: title → colour or role, or one per entry; the teacher's where none is given.

    Raises:
        ValueError: an entry has not C probabilities per image, or colours do not fit the entries.
    """
    images = images[None] if images.dim() == 3 else images
    n, drawn = len(images), colour_of(colours, list(probabilities), TEACHER)
    for title, p in probabilities.items():
        if p.shape != (n, len(classes)) and (n, *p.shape) != (1, len(classes)):
            raise ValueError(
                f"{title!r} needs shape {(n, len(classes))}, a row per image; got {tuple(p.shape)}."
            )
    panels = len(probabilities)
    width, height = min(WIDTH, 2.1 + 1.1 * panels), (0.6 + 0.19 * len(classes)) * n
    _, axes = plt.subplots(
        n, 1 + panels, figsize=(width, height), width_ratios=[0.9] + [1] * panels, squeeze=False
    )
    for i, line in enumerate(axes):
        draw_image(line[0], images[i])
        for k, (title, p) in enumerate(probabilities.items()):
            draw_bars(line[k + 1], p.reshape(n, -1)[i], None if k else classes, drawn[k])
            line[k + 1].set_title("" if i else title, fontsize=10)
            line[k + 1].set_xlabel("probability" if i == n - 1 else "", fontsize=10)
            first, *_, last = line[k + 1].get_xticklabels()
            first.set_ha("left")  # clear of the next panel's
            last.set_ha("right")
        if labels is not None:
            right = int(torch.as_tensor(labels).reshape(n)[i])
            line[1].get_yticklabels()[right].set_fontweight("bold")
    plt.show()


def show_matrix(
    matrix: Tensor,
    rows: Sequence[str] = FASHION_CLASSES,
    columns: Sequence[str] | None = None,
    *,
    label: str = "",
    xlabel: str = "",
    ylabel: str = "",
    digits: int | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str = "cividis",
) -> None:
    """A heat map with names at its rows and columns, a colour bar, and the number in each cell.

    Args:
        matrix: (R, K).
        rows, columns: R and K names; the columns have the rows' names where none are given.
        label: what the colour means, with its unit. xlabel, ylabel: what columns and rows are.
        digits: decimals of the numbers in the cells; None leaves the numbers out.
        limits: the values at the two ends of the colours; those of the matrix where none are given.
        cmap: a colour map of matplotlib's; "RdBu" with limits (−m, m) for signed numbers.

    Raises:
        ValueError: the names do not fit the matrix, the numbers do not fit their cells, or one is not finite.
    """
    columns = rows if columns is None else columns
    values = _finite(matrix)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"the matrix is {values.shape}; there are {len(rows)} and {len(columns)} names.")
    shown = values.round(digits or 0) + 0.0  # no −0
    cells = [[f"{value:.{digits or 0}f}".replace("-", "−") for value in row] for row in shown]
    longest = max((len(cell) for row in cells for cell in row), default=0)
    if digits is not None and longest * 0.085 > (WIDTH - 1.5) / len(columns):
        raise ValueError(f"numbers of {longest} signs overlap: take fewer digits, per cent, or digits=None.")
    low, high = limits or (values.min(), values.max())
    _, ax = plt.subplots(figsize=(WIDTH, 1.3 + 0.28 * len(rows)))
    drawn = ax.imshow(values, cmap, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    steep = 90 if sum(map(len, columns)) > 36 else 0
    ax.set_xticks(range(len(columns)), columns, fontsize=9, rotation=steep)
    ax.set_yticks(range(len(rows)), rows, fontsize=9)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[:].set_visible(False)
    plt.colorbar(drawn, ax=ax, label=label, fraction=0.06, pad=0.02).outline.set_visible(False)
    if digits is not None:
        write_cells(drawn, cells)
    plt.show()


def show_intervals(
    rows: Mapping[str, Interval],
    xlabel: str,
    colours: Colours = None,
    digits: int | None = None,
    ticks: Sequence[float] | None = None,
) -> None:
    """Means with their intervals, one line per entry, zero marked.

    Args:
        rows: name → Interval. xlabel: of the axis, with its unit.
        colours: name → colour or role, or one per row; the student's where none is given.
        digits: writes each interval beside its row with so many decimals, "+2.1 ± 0.4"; None writes none.
        ticks: of the axis, which then reaches at least from the first to the last; None leaves them to matplotlib.

    Raises:
        ValueError: colours do not fit the rows.
    """
    drawn = colour_of(colours, list(rows), STUDENT)
    _, ax = plt.subplots(figsize=(WIDTH, 0.7 + 0.36 * len(rows)))
    for i, (row, colour) in enumerate(zip(rows.values(), drawn, strict=True)):
        ax.plot([row.low, row.high], [i, i], color=colour, lw=3, solid_capstyle="round")
        ax.plot(row.mean, i, "o", color=colour, ms=7)
        if digits is not None:
            place = {"xycoords": ax.get_yaxis_transform(), "va": "center", "color": colour}
            ax.annotate(f"{row:.{digits}f}", (1.02, i), **place)
    ax.axvline(0, color=INK, lw=1, ls=":")
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
    if ticks is not None:
        ax.set_xticks(ticks)
    plt.show()


def _finite(values) -> np.ndarray:
    values = torch.as_tensor(values).detach().cpu().double().numpy()
    if not np.isfinite(values).all():
        raise ValueError("A figure's numbers must be finite; these hold NaN or infinity.")
    return values
