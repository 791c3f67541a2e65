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
    "intervals with numbers": lambda: plotting.show_intervals(
        {"KD": Interval(4.4, 3.9, 4.9, 10), "teacher": Interval(-0.5, -1.0, 0.0, 10)},
        "gain, points", ["student", "teacher"], digits=1,
    ),
    "image and bars": lambda: plotting.show_image_and_bars(
        torch.linspace(0, 1, 784).view(1, 28, 28), {"T = 1": torch.eye(10)[3]}, labels=3
    ),
    "images and bars": lambda: plotting.show_image_and_bars(
        torch.linspace(0, 1, 3 * 784).view(3, 1, 28, 28),
        {"teacher": torch.eye(10)[:3], "alone": torch.full((3, 10), 0.1, requires_grad=True),
         "distilled": torch.eye(10)[3:6]},
        labels=[0, 1, 5], colours=["teacher", "baseline", "student"],
    ),
    "matrix": lambda: plotting.show_matrix(
        100 * torch.eye(10) - 40 * torch.eye(10).roll(1, 0) - 0.2, label="correlation, %", digits=0,
        xlabel="student", ylabel="teacher", limits=(-100, 100), cmap="RdBu",
    ),
    "small matrix": lambda: plotting.show_matrix(
        torch.tensor([[1.0, 0.5, -0.5]]), ["KD"], ["T = 1", "T = 2", "T = 4"], digits=2
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


PAGE = 350 / 96  # inches that a telephone of 390 has for a figure


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_every_word_is_legible_on_a_telephone_and_lies_on_the_sheet(draw):
    draw()
    figure = plt.gcf()
    figure.draw_without_rendering()
    shrunk = min(1, PAGE / figure.get_figwidth())
    words = [t for t in figure.findobj(matplotlib.text.Text) if t.get_visible() and t.get_text()]
    assert words or draw is FIGURES["one image"]
    for word in words:
        assert word.get_fontsize() * 96 / 72 * shrunk >= 9, word
    drawn = figure.get_tightbbox(figure.canvas.get_renderer())
    assert drawn.x0 >= -0.02 and drawn.x1 <= figure.get_figwidth() + 0.02, drawn
    assert drawn.y0 >= -0.02 and drawn.y1 <= figure.get_figheight() + 0.02, drawn


@pytest.mark.parametrize("kind", ["matrix", "small matrix", "intervals with numbers"])
def test_words_do_not_overlap(kind):
    FIGURES[kind]()
    figure = plt.gcf()
    figure.draw_without_rendering()
    words = [text for ax in figure.axes for text in ax.texts if text.get_text()]
    boxes = [word.get_window_extent(figure.canvas.get_renderer()) for word in words]
    assert len(boxes) > 1
    for i, box in enumerate(boxes):
        for other in boxes[:i]:
            width = min(box.x1, other.x1) - max(box.x0, other.x0)
            height = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert width <= 0 or height <= 3, [word.get_text() for word in words]  # 3: leading


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


def test_images_stand_four_in_a_row_and_all_are_drawn():
    plotting.show_images(torch.rand(6, 1, 8, 8), "abcdef")
    axes = plt.gcf().axes
    assert len(axes) == 8 and [ax.get_title() for ax in axes] == [*"abcdef", "", ""]
    assert [len(ax.images) for ax in axes] == [1] * 6 + [0] * 2
    with pytest.raises(ValueError, match="6 images, 2 titles"):
        plotting.show_images(torch.rand(6, 1, 8, 8), "ab")


def test_each_image_stands_beside_its_own_bars():
    FIGURES["images and bars"]()
    lines = [plt.gcf().axes[4 * i : 4 * i + 4] for i in range(3)]
    pictures = torch.linspace(0, 1, 3 * 784).view(3, 28, 28)
    for i, (picture, teacher, alone, distilled) in enumerate(lines):
        assert (picture.images[0].get_array() == pictures[i].numpy()).all()
        widths = [[bar.get_width() for bar in ax.patches] for ax in (teacher, alone, distilled)]
        assert widths == [torch.eye(10)[i].tolist(), pytest.approx([0.1] * 10), torch.eye(10)[3 + i].tolist()]
        bold = [t.get_text() for t in teacher.get_yticklabels() if t.get_fontweight() == "bold"]
        assert bold == [FASHION_CLASSES[[0, 1, 5][i]]]
        drawn = [
            matplotlib.colors.to_hex(ax.patches[0].get_facecolor()) for ax in (teacher, alone, distilled)
        ]
        assert drawn == [plotting.TEACHER, plotting.BASELINE, plotting.STUDENT]
        assert teacher.yaxis_inverted() and not alone.get_yticks().size
    assert [ax.get_title() for ax in lines[0]] == ["", "teacher", "alone", "distilled"]


def test_a_matrix_has_its_names_numbers_and_a_bar_of_colours():
    FIGURES["small matrix"]()
    ax, colours = plt.gcf().axes
    assert colours.get_label() == "<colorbar>"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["T = 1", "T = 2", "T = 4"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["KD"]
    assert {t.get_position(): t.get_text() for t in ax.texts} == {
        (0, 0): "1.00",
        (1, 0): "0.50",
        (2, 0): "−0.50",
    }
    assert [t.get_color() for t in ax.texts] == ["black", "black", "white"]  # on light and on dark
    plotting.show_matrix(torch.tensor([[-0.001, 0.2], [0.3, 0.4]]), "ab", "cd", digits=1)
    assert [t.get_text() for t in plt.gcf().axes[0].texts] == ["0.0", "0.2", "0.3", "0.4"]  # no −0.0


def test_the_numbers_beside_intervals_are_theirs():
    FIGURES["intervals with numbers"]()
    (ax,) = plt.gcf().axes
    assert [(t.get_text(), t.xy[1], t.get_color()) for t in ax.texts] == [
        ("+4.4 ± 0.5", 0, plotting.STUDENT), ("−0.5 ± 0.5", 1, plotting.TEACHER)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "draw, message",
    [
        (
            lambda: plotting.show_image_and_bars(torch.rand(2, 1, 8, 8), {"p": torch.eye(10)}),
            r"'p' .*\(2, 10\)",
        ),
        (lambda: plotting.show_image_and_bars(torch.rand(1, 8, 8), {"p": torch.eye(9)[0]}), r"got \(9,\)"),
        (lambda: plotting.show_matrix(torch.rand(2, 3), "ab"), "2 and 2 names"),
        (lambda: plotting.show_matrix(torch.tensor([[torch.nan]]), "a"), "finite"),
        (lambda: plotting.show_matrix(torch.rand(10, 10), digits=4), "fewer digits"),
        (
            lambda: plotting.show_intervals({"a": Interval(1, 0, 2, 3)}, "x", "student"),
            "one colour per entry",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_colours_are_given_by_name_by_row_or_by_role():
    rows = {"a": Interval(1, 0, 2, 3), "b": Interval(1, 0, 2, 3)}
    for colours in (
        {"b": "article", "other": "x"},
        [plotting.STUDENT, "article"],
        ("student", plotting.ARTICLE),
    ):
        plt.close("all")
        plotting.show_intervals(rows, "x", colours)
        lines = plt.gcf().axes[0].lines
        assert (lines[0].get_color(), lines[2].get_color()) == (plotting.STUDENT, plotting.ARTICLE)


def test_the_four_colours_differ():
    assert len({plotting.TEACHER, plotting.STUDENT, plotting.BASELINE, plotting.ARTICLE}) == 4
