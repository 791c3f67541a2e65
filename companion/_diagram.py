"""The diagram of distillation: one input, two models, two losses. One unit is a tenth of an inch."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from ._panels import BASELINE, INK, STUDENT, TEACHER, WIDTH, draw_image
from .losses import soften

LEFT, RIGHT = 26.5, 35  # the bars; left of them stand their names


def draw_distillation(
    image: Tensor | None, logits_t: Tensor, logits_s: Tensor, y: int, T: float, classes: Sequence[str]
) -> None:
    """Everything on one sheet; see `plotting.show_distillation_diagram`."""
    bars = max(9.0, 1.42 * len(classes))  # the height of a panel: each bar has room for its name
    step = bars + 4.5  # from one panel to the next
    height = 3 * step - 1
    figure = plt.figure(figsize=(WIDTH, height / 10))
    figure.set_layout_engine("none")  # every place is given
    sheet = _axes(figure, 0, 0, 10 * WIDTH, height)
    sheet.set(xlim=(0, 10 * WIDTH), ylim=(0, height))
    soft, own, plain = (1 + bars / 2 + k * step for k in (2, 1, 0))  # the middles of the panels
    student, middle = (own + plain) / 2, (soft + (own + plain) / 2) / 2
    if image is None:
        _box(sheet, 0.5, middle - 3.5, 7, 7, "input", "x", INK)
    else:
        draw_image(_axes(figure, 0.5, middle - 3.5, 7, 7), image)
    _box(sheet, 9, soft - 3, 8, 6, "teacher", "fixed", TEACHER)
    _box(sheet, 9, student - 3, 8, 6, "student", "trained", STUDENT)
    panels = [
        (soft, f"p at T = {T:g}", soften(logits_t, T), TEACHER),
        (own, f"q at T = {T:g}", soften(logits_s, T), STUDENT),
        (plain, "q at T = 1", soften(logits_s), STUDENT),
    ]
    ends = _panels_of(figure, panels, bars, classes)
    meet = (soft + own) / 2
    _box(sheet, 37.5, meet - 3, 10, 6, "soft loss", "T² · KL(p‖q)", INK)
    _box(sheet, 37.5, plain + 2.5, 10, 6, "hard loss", "cross-entropy", INK)
    sheet.text(
        42.5, plain - 2.9, f"label:\n{classes[y]}", ha="center", va="center", color=BASELINE, fontsize=9
    )
    for start, end, colour in [
        ((6, middle + 4), (9.5, soft - 3.5), TEACHER), ((6, middle - 4), (9.5, student + 3.5), STUDENT),
        ((17.4, soft), (19.6, soft), TEACHER), ((17, student + 3.2), (19.6, own), STUDENT),
        ((17, student - 3.2), (19.6, plain), STUDENT), (ends[0], (37.1, meet + 1.2), TEACHER),
        (ends[1], (37.1, meet - 1.2), STUDENT), (ends[2], (37.1, plain + 5), STUDENT),
        ((42.5, plain - 0.8), (42.5, plain + 2.1), BASELINE),
    ]:  # fmt: skip
        style = {"arrowstyle": "-|>", "color": colour, "lw": 1.3, "shrinkA": 0, "shrinkB": 0}
        sheet.annotate("", end, start, arrowprops=style)


def _panels_of(figure, panels, bars: float, classes) -> list[tuple[float, float]]:
    """Draws the bars, all on one scale, and gives where the arrow from each panel to its loss starts."""
    longest = max(p.max().item() for _, _, p, _ in panels)
    for centre, title, p, colour in panels:
        ax = _axes(figure, LEFT, centre - bars / 2, RIGHT - LEFT, bars)
        _bars(ax, title, p, colour, classes, longest)
    return [_end(p, longest, centre, bars) for centre, _, p, _ in panels]


def _end(p: Tensor, longest: float, centre: float, bars: float) -> tuple[float, float]:
    """Just right of the longest bar, on the sheet: there the arrow to a loss starts."""
    top = int(p.argmax())
    right = LEFT + (RIGHT - LEFT) * p[top].item() / longest
    return right + 0.5, centre + bars * (0.5 - (top + 0.5) / len(p))


def _axes(figure, left: float, bottom: float, width: float, height: float):
    sheet = 10 * figure.get_size_inches()
    place = left / sheet[0], bottom / sheet[1], width / sheet[0], height / sheet[1]
    ax = figure.add_axes(place)
    ax.set_axis_off()
    return ax


def _box(sheet, left, bottom, width, height, name, below, colour) -> None:
    middle, centre = left + width / 2, bottom + height / 2
    frame = {"boxstyle": "round,pad=0,rounding_size=1", "fc": "none", "ec": colour, "lw": 1.5}
    sheet.add_patch(FancyBboxPatch((left, bottom), width, height, **frame))
    sheet.text(middle, centre + 1.1, name, ha="center", va="center", color=colour, fontsize=10)
    sheet.text(middle, centre - 1.2, below, ha="center", va="center", color=colour, fontsize=9)


def _bars(ax, title, p, colour, names, longest) -> None:
    ax.barh(range(len(p)), p.detach().cpu().numpy(), color=colour)
    ax.set(xlim=(0, longest), ylim=(len(p) - 0.5, -0.5))
    ax.plot([0, 0], [-0.5, len(p) - 0.5], color=INK, lw=1)
    ax.set_title(title, fontsize=10, pad=4, color=colour)
    for i, name in enumerate(names):
        ax.text(-0.03 * longest, i, name, ha="right", va="center", fontsize=9)
