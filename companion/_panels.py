"""What the book's figures are put together from: the colours, images, bars."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

TEACHER, STUDENT, BASELINE, ARTICLE = "#2f7fc1", "#d55e00", "#7f7f7f", "#b4559b"
INK = "#767676"  # readable on white and on the dark page alike
ROLES = {"teacher": TEACHER, "student": STUDENT, "baseline": BASELINE, "article": ARTICLE, "ink": INK}
WIDTH = 4.8  # inches, of the widest figure

Colours = Mapping[str, str] | Sequence[str] | None  # name → colour, or one colour per entry


def colour_of(colours: Colours, names: Sequence[str], default: str | None) -> list[str | None]:
    """One colour per name. A mapping may name more; instead of a colour its role may stand, e.g. "student"."""
    if colours is None:
        found = [default] * len(names)
    elif isinstance(colours, Mapping):
        found = [colours.get(name, default) for name in names]
    elif isinstance(colours, str) or len(colours) != len(names):
        raise ValueError(f"one colour per entry: {len(names)} entries, and colours are {colours!r}.")
    else:
        found = list(colours)
    return [ROLES.get(colour, colour) for colour in found]


def draw_image(ax, image: Tensor) -> None:
    """A grey image (1, H, W), darkest value black, without axes."""
    ax.imshow(image[0].detach().cpu().numpy(), interpolation="nearest")
    ax.set_axis_off()


def draw_bars(ax, p: Tensor, names: Sequence[str] | None, colour: str) -> None:
    """Horizontal bars of probabilities (C,), the first on top; names at the left, or none."""
    ax.barh(range(len(p)), p.detach().cpu().numpy(), color=colour)
    ax.set(xlim=(0, 1), ylim=(len(p) - 0.5, -0.5))
    ax.set_xticks((0, 0.5, 1), ("0", "½", "1"), fontsize=9)
    if names is None:
        ax.set_yticks([])
    else:
        ax.set_yticks(range(len(p)), names, fontsize=9)


def write_cells(drawn, cells: Sequence[Sequence[str]]) -> None:
    """A word in each cell of a heat map (R, K), black on light colours and white on dark ones."""
    for (i, j), value in np.ndenumerate(drawn.get_array()):
        red, green, blue, _ = drawn.cmap(drawn.norm(value))
        ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        drawn.axes.text(j, i, cells[i][j], ha="center", va="center", fontsize=9, color=ink)
