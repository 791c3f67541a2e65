"""The look: contrast of the colours on their pages, figures in two copies, formulas joined to their tests."""

import re
import sys
from pathlib import Path

import pytest

THEME = Path(__file__).parent.parent / "theme"
sys.path.insert(0, str(THEME))

import figures  # noqa: E402

from companion import plotting  # noqa: E402

CSS = (THEME / "static/book.css").read_text()
PAPER = {False: ("#ffffff", "#f5f6f8"), True: ("#14181e", "#1d232b", "#121212")}


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_the_extremes():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("drawn", figures.COLOURS)
def test_every_colour_can_be_read_as_text(drawn, dark):
    for paper in PAPER[dark]:
        assert contrast(figures.COLOURS[drawn][dark], paper) >= 4.5


def test_plotting_and_style_sheet_have_the_same_colours():
    named = dict(zip(("teacher", "student", "baseline", "article", "book-ink"), figures.COLOURS, strict=True))
    drawn = (plotting.TEACHER, plotting.STUDENT, plotting.BASELINE, plotting.ARTICLE, plotting.INK)
    assert tuple(named.values()) == drawn
    for name, colour in named.items():
        light, dark = re.findall(rf"--{name}: (#\w{{6}});", CSS)[:2]
        assert (light, dark) == figures.COLOURS[colour]


def test_a_figure_becomes_two_of_which_each_keeps_its_alt_text():
    html = '<p><img alt="bars" src="../_images/a1.svg" /></p><img src="../_images/b.png" />'
    both = figures.IMAGE.sub(figures.pair, html)
    assert both.count('alt="bars"') == 2 and both.count("b.png") == 1
    assert 'class="only-light"' in both and 'src="../_images/a1.dark.svg"' in both


def test_recolouring_leaves_other_colours_and_does_not_repeat():
    once = figures.recoloured('<path style="fill: #2F7FC1; stroke: #123456"/>', dark=False)
    assert once == '<path style="fill: #1b66a8; stroke: #123456"/>'
    assert figures.recoloured(once, dark=False) == once
