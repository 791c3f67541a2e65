"""The book's style and its few recurring figures.

Four colours carry the same meaning on every page, for colour-blind readers too, on light and dark pages:
teacher, student, baseline (the student trained alone) and the article's version.
"""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
from torch import Tensor

from .data import FASHION_CLASSES
from .metrics import Interval

TEACHER, STUDENT, BASELINE, ARTICLE = "#2f7fc1", "#d55e00", "#7f7f7f", "#b4559b"
INK = "#767676"  # readable on white and on the dark page alike


def use_style() -> None:
    """Set the style; in a notebook, draw figures as transparent SVG whose bytes do not change between runs."""
    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.2), "figure.facecolor": "none", "savefig.facecolor": "none",
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
    """A row of grey images. images (N, 1, H, W); titles: one an image, or none."""
    _, axes = plt.subplots(1, len(images), figsize=(1.1 * len(images), 1.5), squeeze=False)
    for i, ax in enumerate(axes[0]):
        ax.imshow(images[i, 0].cpu().numpy(), interpolation="nearest")
        ax.set_axis_off()
        if titles:
            ax.set_title(titles[i], fontsize=9)
    plt.show()


def show_probabilities(rows: Mapping[str, Tensor], classes: Sequence[str] = FASHION_CLASSES) -> None:
    """Bars of class probabilities, one panel an entry. rows: title → probabilities (C,)."""
    _, axes = plt.subplots(1, len(rows), figsize=(2.6 * len(rows), 2.8), sharey=True, squeeze=False)
    for ax, (title, p) in zip(axes[0], rows.items(), strict=True):
        ax.barh(range(len(p)), p.detach().cpu().numpy(), color=TEACHER)
        ax.set(title=title, xlim=(0, 1), xticks=(0, 0.5, 1))
    axes[0, 0].set_yticks(range(len(classes)), classes, fontsize=9)
    axes[0, 0].invert_yaxis()
    plt.show()


def show_intervals(
    rows: Mapping[str, Interval], xlabel: str, colours: Mapping[str, str] | None = None
) -> None:
    """Means with their intervals, one line an entry, zero marked. rows: name → Interval."""
    _, ax = plt.subplots(figsize=(6.4, 0.6 + 0.36 * len(rows)))
    for i, (name, row) in enumerate(rows.items()):
        colour = (colours or {}).get(name, STUDENT)
        ax.plot([row.low, row.high], [i, i], color=colour, lw=3, solid_capstyle="round")
        ax.plot(row.mean, i, "o", color=colour, ms=7)
    ax.axvline(0, color=INK, lw=1, ls=":")
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
    plt.show()
