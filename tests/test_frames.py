"""Figures of frames: what they hold, what they refuse, and those in the book."""

import json
import re
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch

from companion import frames, plotting
from companion.interactive import MIME, Bars, Curves, Images, Points, Table, show_frames
from companion.losses import soften

ROOT = Path(__file__).parent.parent
F, K = 5, 2
P = torch.softmax(3 * torch.randn(K, F, 3, generator=torch.Generator().manual_seed(1)), -1)
TS = [1, 2, 4, 8, 16]
REACHED = [False, False, True, True, False]
BARS = Bars("Answers", ["a", "b", "c"], {"teacher": P[0], "a student": P[1]}, target=1)
CURVES = Curves("Lines", "T", "loss", {"teacher": (TS, P[0, :, 0]), "student": ([1, 5, 16], P[0])}, logx=True)
CALL = {"slider": ("T", TS, 1), "panels": [BARS, CURVES], "say": [("first", 100 * P[0, :, 0], "%")]}
CALL |= {"how": "Move T.", "goal": ("Find it.", REACHED), "notes": ["", "low", "", "", "high"]}


@pytest.fixture
def shown(monkeypatch):
    """Call show_frames; get its output and the axes of its still picture."""
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: outputs.append(data))
    close = plt.close
    monkeypatch.setattr("companion._moving.plt.close", lambda: None)
    plotting.use_style()

    def show(**changed):
        show_frames(**{**CALL, **changed})
        return outputs.pop()

    yield show
    close("all")


def test_the_numbers_are_those_given_rounded_and_one_option_stands_where_there_is_no_choice(shown):
    bundle = shown()
    data = bundle[MIME]["data"]
    assert bundle[MIME]["kind"] == "frames" and bundle["image/svg+xml"].count("<svg") == 1
    assert data["slider"] == {
        "label": "T", "values": ["1", "2", "4", "8", "16"], "start": 1, "ticks": [0, 1, 2, 3, 4],
    }  # fmt: skip
    bars, curves = data["panels"]
    assert [s["c"] for s in bars["series"]] == ["t", "s"] and bars["target"] == 1
    assert np.abs(np.array([s["values"] for s in bars["series"]])[:, 0] - P.numpy()).max() <= 0.0005001
    still, moving = curves["lines"]
    assert np.abs(np.array(still["dots"][0]) - np.stack([TS, P[0, :, 0]], -1)).max() <= 0.0005001
    assert not still["moves"] and moving["moves"] and "dots" not in moving
    assert np.shape(moving["ys"]) == (1, F, 3)
    assert data["goal"]["reached"] == [[0, 0, 1, 1, 0]] and data["notes"] == [CALL["notes"]]
    assert data["say"][0]["digits"] == 1 and data["say"][0]["values"][0][2] == round(
        100 * P[0, 2, 0].item(), 1
    )
    assert bundle == shown()


def test_curves_unfold_on_the_page_only_and_need_a_point_a_frame(shown):
    line = {"teacher": (TS, P[0, :, 0])}
    (panel,) = shown(panels=[Curves("Lines", "T", "p", line, unfolds=True)])[MIME]["data"]["panels"]
    assert panel["unfolds"] and len(panel["lines"][0]["ys"][0]) == F
    assert (
        max(len(drawn.get_xdata()) for drawn in plt.gcf().axes[0].lines) == F
    )  # the still picture has them all
    assert "unfolds" not in shown(panels=[Curves("Lines", "T", "p", line)])[MIME]["data"]["panels"][0]
    with pytest.raises(ValueError, match="one point a frame"):
        shown(panels=[Curves("Lines", "T", "p", {"teacher": ([1, 5, 16], P[0])}, unfolds=True)])


def test_the_still_picture_is_the_frame_at_which_the_slider_starts(shown):
    shown()
    top, low = plt.gcf().axes
    assert [bar.get_width() for bar in top.containers[0]] == pytest.approx(P[0, 1].tolist(), abs=6e-4)
    dot = next(line for line in low.lines if line.get_marker() == "o")
    assert dot.get_xydata()[0] == pytest.approx([2, P[0, 1, 0].item()], abs=6e-4)
    assert plt.gcf().get_suptitle() == "T: 2"
    assert (
        min(text.get_fontsize() for text in plt.gcf().findobj(matplotlib.text.Text) if text.get_text()) >= 9
    )


def test_bars_may_mark_another_class_in_each_frame_and_have_strokes_where_they_ended_in_another_setting(
    shown,
):
    moving = Bars(
        "Answers", ["a", "b", "c"], {"teacher": P[0]}, target=[2, 0, 1, 1, 2], ghosts=("before", P[1, 0])
    )
    (panel,) = shown(panels=[moving])[MIME]["data"]["panels"]
    assert panel["target"] == [2, 0, 1, 1, 2] and panel["ghosts"]["name"] == "before"
    assert panel["ghosts"]["values"] == [pytest.approx(P[1, 0].tolist(), abs=6e-4)]
    (ax,) = plt.gcf().axes
    names = [(label.get_text(), label.get_fontweight()) for label in ax.get_yticklabels()]
    assert names == [
        ("▸ a", "bold"),
        ("b", "normal"),
        ("c", "normal"),
    ]  # the slider starts at its second value
    drawn = ax.collections[0].get_segments()
    assert [x for (x, _), _ in drawn] == pytest.approx(P[1, 0].tolist(), abs=6e-4)
    values = {"teacher": P}
    with_choice = Bars("Answers", ["a", "b", "c"], values, ghosts=("the other", P[:, 0].flip(0)))
    said = {"say": [("first", P[..., 0], "")], "goal": None, "notes": None}
    (panel,) = shown(panels=[with_choice], choice=("k", ["x", "y"]), **said)[MIME]["data"]["panels"]
    assert np.array(panel["ghosts"]["values"]) == pytest.approx(P[:, 0].flip(0).numpy(), abs=6e-4)


def test_with_a_choice_each_array_of_frames_has_an_axis_more(shown):
    bars = Bars("Answers", ["a", "b", "c"], {"teacher": P})
    curves = Curves("L", "T", "", {"teacher": (TS, P[:, :, 0]), "student": (TS, P[0, :, 1])}, logy=True)
    changed = {"panels": [bars, curves], "say": [("first", P[..., 0], "")], "choice": ("teacher", ["x", "y"])}
    data = shown(**changed, goal=("", [REACHED, REACHED]), notes=None)[MIME]["data"]
    assert np.shape(data["panels"][0]["series"][0]["values"]) == (K, F, 3)
    assert [np.shape(line["dots"]) for line in data["panels"][1]["lines"]] == [(K, F, 2), (1, F, 2)]
    assert data["panels"][1]["y"]["ticks"] == [] and plt.gcf().get_suptitle() == "T: 2, teacher: x"
    with pytest.raises(ValueError, match=r"needs shape \(K = 2, F = 5, C = 3\); got \(5, 3\)"):
        shown(**changed | {"panels": [BARS]}, goal=None, notes=None)


PLACES = torch.rand(F, 2, 2, generator=torch.Generator().manual_seed(2))
ROWS = [[["p", f"{i}"], ["q", "0"]] for i in range(F)]


def test_ticks_of_a_logarithmic_axis_stand_at_the_values_where_they_have_room(shown):
    def ticks(xs):
        line = Curves("L", "T", "loss", {"teacher": (xs, torch.ones(len(xs)))}, logx=True)
        (panel,) = shown(panels=[line])[MIME]["data"]["panels"]
        return panel["x"]["names"]

    assert ticks(TS) == ["1", "2", "4", "8", "16"]
    assert ticks([0.0003, 0.001, 0.003, 0.1]) == ["0.0003", "0.001", "0.003", "0.1"]
    assert ticks([1, 1.1, 1.2, 1.3, 10]) == ["1", "2", "5", "10"]
    assert ticks(range(1, 101)) == ["1", "10", "100"]


def test_points_images_and_a_table(shown):
    images = torch.rand(F, 4, 4)
    images[3] = images[0]  # kept once
    points = Points("Places", "", "", ["a", ""], {"teacher": PLACES, "student": PLACES / 2}, ghosts=PLACES[4])
    panels = [points, Images("Seen", images, alt="A shirt, {value}"), Table("By hand", ["", "p"], ROWS)]
    points, seen, table = shown(panels=panels)[MIME]["data"]["panels"]
    assert np.abs(np.array(points["groups"][0]["at"][0]) - PLACES.numpy()).max() <= 0.0005001
    assert np.abs(np.array(points["ghosts"]) - PLACES[4].numpy()).max() <= 0.0005001
    assert points["x"]["ticks"] == [] and points["labels"] == ["a", ""]
    assert seen["places"] == [[0, 1, 2, 0, 3]] and len(seen["sources"]) == 4 and table["rows"] == [ROWS]
    drawn, image, cells = plt.gcf().axes
    ghosts, (teacher, _) = drawn.lines[:4], drawn.lines[4:]
    assert np.abs(teacher.get_xydata() - PLACES[1].numpy()).max() <= 0.0005001 and len(ghosts) == 4
    assert len(image.images) == 1 and cells.tables[0][1, 1].get_text().get_text() == "1"


def test_closed_points_form_their_figure_and_the_ghosts_theirs(shown):
    """Two closed lines instead of a stroke from each ghost to its point."""
    labels = [""] * PLACES.shape[1]
    panels = [Points("P", "", "", labels, {"student": PLACES}, ghosts=PLACES[4], closed=True)]
    (panel,) = shown(panels=panels)[MIME]["data"]["panels"]
    assert panel["closed"] is True
    dashed, solid = plt.gcf().axes[0].lines[:2]
    for line, places in [(dashed, PLACES[4]), (solid, PLACES[1])]:
        want = torch.cat([places, places[:1]]).numpy()
        assert np.abs(line.get_xydata() - want).max() <= 0.0005001
    assert (dashed.get_linestyle(), solid.get_linestyle()) == ("--", "-")
    assert len(plt.gcf().axes[0].lines) == 2 + len(labels) + 1  # circles, and the student's points


def test_the_example_in_the_docstring_runs(shown, monkeypatch):
    drawn = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: drawn.append(data[MIME]["data"]))
    blocks = re.split(r"\n\n(?! )|\n\n(?=    \S)", show_frames.__doc__)
    code = next(block for block in blocks if "Ts = [" in block)
    code = textwrap.dedent(code[code.index("        Ts") :])
    v = torch.tensor([6.0, 4, 3, 1, 1, 0, 0, 0, 0, 0])
    names = ("Bars", "Curves", "show_frames", "torch")
    exec(
        code,
        {name: globals()[name] for name in names}
        | {"v": v, "soften": soften, "FASHION_CLASSES": "abcdefghij"},
    )
    (entropy,) = drawn[0]["say"][0]["values"]
    assert entropy[0] < 2 < entropy[-1] and drawn[0]["goal"]["reached"] == [[int(h > 2) for h in entropy]]


def bars(values=P[0], name="teacher", **more):
    return {"panels": [Bars("Answers", ["a", "b", "c"], {name: values}, **more)]}


def curves(xs, ys, **more):
    return {"panels": [Curves("Lines", "T", "loss", {"teacher": (xs, ys)}, **more)]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"slider": ("T", [1])}, "two values at least"),
        ({"slider": ("T", TS, 5)}, "5 values, start 5"),
        ({"panels": []}, "one to three panels; got 0"),
        ({"choice": ("which", ["one"])}, r"two options at least; got \['one'\]"),
        ({"say": [("first", P[0, :4, 0], "%")]}, r"'first' needs shape \(F = 5\); got \(4,\)"),
        ({"say": [("first", [1, 2, 3, torch.nan, 5], "")]}, "'first' holds NaN"),
        ({"notes": ["", "low"]}, r"notes needs 5 entries \(F\)"),
        ({"notes": ["", "low", 3, "", ""]}, r"notes takes strings; got \[3\]"),
        ({"goal": ("", [False] * 5)}, "reached in no frame"),
        ({"goal": ("", [True] * 5)}, "reached where the figure starts"),
        (bars(P[0, :, :2]), r"'Answers', 'teacher' needs shape \(F = 5, C = 3\); got \(5, 2\)"),
        (bars([[1, 2], [1], [1], [1], [1]]), "rows of one length"),
        (bars(100 * P[0]), "bars go from 0 to maximum = 1"),
        (bars(name="KD"), r"'KD' has role None. Roles are teacher, student.*colours=\{'KD': …\}"),
        (bars(colours={"teacher": "red"}), "has role 'red'"),
        (bars(target=3), "3 classes; target is 3"),
        (bars(target=[0, 1, 2, 3, 0]), "3 classes; target is"),
        (bars(target=[0, 1]), "5 targets, one a frame; got 2"),
        (bars(ghosts=("before", [0.1, 0.2])), r"'before' needs shape \(C = 3\); got \(2,\)"),
        (bars(ghosts=("before", [0.1, 0.2, 1.3])), "ghosts stand from 0 to maximum = 1"),
        ({"panels": [Bars("Answers", ["c" * 25], {"teacher": P[0, :, :1]})]}, "at most 24 letters"),
        ({"panels": [Bars("Answers", ["a"], {})]}, "'Answers' is empty"),
        ({"panels": [Bars("Answers", ["a", "b", "c"], {f"student {i}": P[0] for i in range(4)})]}, "more than 3"),
        ({"panels": [Points("Places", "", "", ["a"], {"teacher": PLACES})]}, r"n = 1, x and y = 2\); got \(5, 2, 2\)"),
        ({"panels": [Images("Seen", torch.ones(F, 4, 4), alt="")]}, "'Seen' is 1 everywhere"),
        ({"panels": [Table("By hand", ["", "p"], ROWS[:4])]}, r"By hand needs 5 entries \(F\)"),
        ({"panels": [Table("By hand", ["p"], ROWS)]}, "two to four columns"),
        (curves([1, 2], [1, 2, 3]), r"ys needs shape \(n = 2\); got \(3,\)"),
        (curves([1, 2], torch.ones(4, 2)), r"ys needs shape \(F = 5, n = 2\)"),
        (curves([0, 2], [1, 2], logx=True), "'T' holds 0; a logarithmic axis"),
        (curves([1, 2], [1, 2], ylim=(0, 1.5)), r"runs over 1 … 2.*Give wider limits"),
        (curves([1, 2], [1, 2], dots={"student": P[0, :, :2]}), r"dots of \['student'\]; its curves are"),
        (curves(range(3000), torch.rand(5, 3000)), r"weighs [\d,]+ bytes, [\d,]+ of them 'Lines'.*fewer points"),
    ],
)  # fmt: skip
def test_what_is_refused(shown, changed, message):
    with pytest.raises(ValueError, match=message):
        shown(**changed)


def in_the_book():
    for path in [*ROOT.glob("chapters/*.ipynb"), *ROOT.glob("reference/*.ipynb")]:
        outputs = [o for c in nbformat.read(path, 4).cells for o in c.get("outputs", ())]
        found = [o.data[MIME] for o in outputs if MIME in o.get("data", ())]
        yield from ((path.stem, figure["data"]) for figure in found if figure["kind"] == "frames")


def test_each_figure_of_the_book_has_a_goal_to_move_to_and_weighs_little():
    found = list(in_the_book())
    assert found
    for name, data in found:
        assert data["goal"], name
        reached = np.array(data["goal"]["reached"])
        assert reached.any() and not reached[0, data["slider"]["start"]], name
        assert len(json.dumps(data, ensure_ascii=False).encode()) <= frames.LIMIT == 30_000, name
