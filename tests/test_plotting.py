"""The figures are drawn, and their SVG bytes do not change from run to run."""

import io

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import pytest
import torch

from companion import plotting
from companion.data import FASHION_CLASSES
from companion.metrics import Interval

FIGURES = {
    "images": lambda: plotting.show_images(torch.linspace(0, 1, 3 * 784).view(3, 1, 28, 28), "abc"),
    "one image": lambda: plotting.show_images(torch.zeros(1, 1, 8, 8)),
    "probabilities": lambda: plotting.show_probabilities(
        {"T = 1": torch.eye(10)[0], "T = 4": torch.full((10,), 0.1, requires_grad=True)}
    ),
    "intervals": lambda: plotting.show_intervals(
        {"KD": Interval(4.4, 3.9, 4.9, 10), "smoothing": Interval(-0.5, -1.0, 0.0, 10)},
        "gain, points", {"smoothing": plotting.BASELINE},
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    plotting.use_style()
    plt.close("all")
    yield
    plt.close("all")


def svg(draw) -> bytes:
    plt.close("all")
    draw()
    (number,) = plt.get_fignums()
    buffer = io.BytesIO()
    plt.figure(number).savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_the_same_figure_is_the_same_bytes(draw):
    first = svg(draw)
    assert first == svg(draw)
    assert b"<svg" in first and b"<dc:date>" not in first
    assert b"fill: #ffffff" not in first.split(b"axes_1")[0]  # no white sheet under it


def test_images_have_their_titles_and_no_axes():
    FIGURES["images"]()
    axes = plt.gcf().axes
    assert [ax.get_title() for ax in axes] == ["a", "b", "c"] and not any(ax.axison for ax in axes)


def test_probabilities_are_bars_in_the_order_of_the_classes():
    FIGURES["probabilities"]()
    first, second = plt.gcf().axes
    assert [label.get_text() for label in first.get_yticklabels()] == list(FASHION_CLASSES)
    assert [bar.get_width() for bar in second.patches] == pytest.approx([0.1] * 10)
    assert first.yaxis_inverted()


def test_intervals_are_drawn_from_low_to_high_in_their_colours():
    FIGURES["intervals"]()
    lines = plt.gcf().axes[0].lines
    assert list(lines[0].get_xdata()) == [3.9, 4.9] and lines[1].get_xdata()[0] == 4.4
    assert (lines[0].get_color(), lines[2].get_color()) == (plotting.STUDENT, plotting.BASELINE)


def test_the_four_colours_differ():
    assert len({plotting.TEACHER, plotting.STUDENT, plotting.BASELINE, plotting.ARTICLE}) == 4
