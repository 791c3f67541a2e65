"""The diagram of distillation: one input, two models, two losses. One unit is a tenth of an inch."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from ._panels import BASELINE, INK, STUDENT, TEACHER, WIDTH, draw_image
from .losses import soften

HEIGHT = 4.0


def draw_distillation(
    image: Tensor | None, logits_t: Tensor, logits_s: Tensor, y: int, T: float, classes: Sequence[str]
) -> None:
    """Everything on one sheet; see `plotting.show_distillation_diagram`."""
    figure = plt.figure(figsize=(WIDTH, HEIGHT))
    figure.set_layout_engine("none")  # every place is given
    sheet = _axes(figure, 0, 0, 10 * WIDTH, 10 * HEIGHT)
    sheet.set(xlim=(0, 10 * WIDTH), ylim=(0, 10 * HEIGHT))
    if image is None:
        _box(sheet, 0.5, 18, 8, 8, "input", "x", INK)
    else:
        draw_image(_axes(figure, 0.5, 18, 8, 8), image)
    _box(sheet, 10.5, 29, 9, 6, "teacher", "fixed", TEACHER)
    _box(sheet, 10.5, 9, 9, 6, "student", "trained", STUDENT)
    names = classes if len(classes) <= 4 else ()
    left = 27 if names else 23
    for bottom, title, p, colour in [
        (28, f"p at T = {T:g}", soften(logits_t, T), TEACHER),
        (14.5, f"q at T = {T:g}", soften(logits_s, T), STUDENT),
        (1, "q at T = 1", soften(logits_s), STUDENT),
    ]:
        _bars(_axes(figure, left, bottom, 35.5 - left, 9), title, p, colour, names)
    _box(sheet, 37.5, 21, 10, 6, "soft loss", "T² · KL(p‖q)", INK)
    _box(sheet, 37.5, 7.5, 10, 6, "hard loss", "cross-entropy", INK)
    sheet.text(42.5, 2, f"label:\n{classes[y]}", ha="center", va="center", color=BASELINE, fontsize=9)
    for start, end, colour in [
        ((8, 26.5), (10.5, 29.5), TEACHER), ((8, 17.5), (10.5, 14.5), STUDENT), ((20, 32), (22.5, 32), TEACHER),
        ((20, 14), (22.5, 17), STUDENT), ((20, 10), (22.5, 7), STUDENT), ((36, 32), (41, 27.5), TEACHER),
        ((36, 18), (39, 20.5), STUDENT), ((36, 6), (39, 7.5), STUDENT), ((42.5, 4), (42.5, 7), BASELINE),
    ]:  # fmt: skip
        style = {"arrowstyle": "-|>", "color": colour, "lw": 1.3, "shrinkA": 0, "shrinkB": 0}
        sheet.annotate("", end, start, arrowprops=style)


def _axes(figure, left: float, bottom: float, width: float, height: float):
    sheet = (10 * WIDTH, 10 * HEIGHT) * 2
    place = [part / whole for part, whole in zip((left, bottom, width, height), sheet, strict=True)]
    ax = figure.add_axes(place)
    ax.set_axis_off()
    return ax


def _box(sheet, left, bottom, width, height, name, below, colour) -> None:
    middle, centre = left + width / 2, bottom + height / 2
    frame = {"boxstyle": "round,pad=0,rounding_size=1", "fc": "none", "ec": colour, "lw": 1.5}
    sheet.add_patch(FancyBboxPatch((left, bottom), width, height, **frame))
    sheet.text(middle, centre + 1.1, name, ha="center", va="center", color=colour, fontsize=10)
    sheet.text(middle, centre - 1.2, below, ha="center", va="center", color=colour, fontsize=9)


def _bars(ax, title, p, colour, names) -> None:
    ax.barh(range(len(p)), p.detach().cpu().numpy(), color=colour)
    ax.set(xlim=(0, 1), ylim=(len(p) - 0.5, -0.5))
    ax.plot([0, 0], [-0.5, len(p) - 0.5], color=INK, lw=1)
    ax.set_title(title, fontsize=9, pad=2, color=colour)
    for i, name in enumerate(names):
        ax.text(-0.05, i, name, ha="right", va="center", fontsize=9)
