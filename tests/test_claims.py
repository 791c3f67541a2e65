"""claim and glue: what they print, refuse and leave to nbval, and that each claim can fail."""

import json
import math
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from docutils import nodes
from docutils.utils import new_document
from nbformat import v4
from nbval.plugin import get_sanitize_patterns
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import docutils_namespace

from companion import checks
from companion.checks import _claims
from companion.metrics import Interval

THEME = Path(__file__).parent.parent / "theme"
sys.path.insert(0, str(THEME))
import glued  # noqa: E402

GAIN = Interval(2.1, 1.7, 2.5, 10)
LOSS = Interval(-2.1, -2.5, -1.7, 10)
NEAR = Interval(0.1, -0.2, 0.4, 10)


@pytest.fixture(autouse=True)
def the_book_as_it_is_stored(monkeypatch):
    monkeypatch.delenv("BOOK_SEED", raising=False)
    monkeypatch.delenv("BOOK_CLAIMS", raising=False)
    monkeypatch.setenv("BOOK_DEVICE", "cpu")
    monkeypatch.setenv("BOOK_SLACK", "2")


@pytest.mark.parametrize("holds", [True, np.bool_(True), torch.tensor(True), torch.tensor([[True]])])
def test_claim_prints_what_holds(holds, capsys):
    checks.claim("students learn", holds)
    assert capsys.readouterr().out == "✓ students learn\n"


@pytest.mark.parametrize("holds", [False, np.bool_(False), torch.tensor(False)])
def test_claim_raises_what_does_not(holds):
    with pytest.raises(AssertionError, match="✗ students learn"):
        checks.claim("students learn", holds)


@pytest.mark.parametrize(
    "holds", [1, 0.5, math.nan, None, "yes", torch.tensor(1.0), [True], (True, "message")]
)
def test_claim_refuses_what_is_no_truth_value(holds):
    with pytest.raises(TypeError, match="one truth value"):
        checks.claim("students learn", holds)


@pytest.mark.parametrize("holds", [torch.tensor([True, True]), np.array([True, False]), torch.zeros(0) > 0])
def test_claim_refuses_several_truth_values(holds):
    with pytest.raises(TypeError, match="one truth value"):
        checks.claim("students learn", holds)


@pytest.mark.parametrize(
    "value, plain",
    [(4.25, "(4.25)"), (torch.tensor(4.25), "(4.25)"), (np.float64(4.25), "(4.25)"), (3, "3"), ("a", "'a'")],
)
def test_glue_emits_the_metadata_that_the_book_reads(value, plain, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, raw, metadata: shown.append((data, raw, metadata))
    )
    checks.glue(ch4_gain=value)
    ((data, raw, metadata),) = shown
    assert data == {"application/papermill.record/text/plain": plain} and raw
    assert metadata["scrapbook"] == {"name": "ch4_gain", "mime_prefix": "application/papermill.record/"}


# --------------------------------------------------------------------------------------------- with a bound


@pytest.mark.parametrize(
    "measured, bound, line",
    [
        (GAIN, {"above": 1.5}, "✓ it gains: +2.1 ± 0.4, 10 seeds"),
        (
            GAIN,
            {"above": 1.5, "unit": " points", "per": "splits"},
            "✓ it gains: +2.1 ± 0.4 points, 10 splits",
        ),
        (GAIN, {"above": 0}, "✓ it gains: +2.1 ± 0.4, 10 seeds"),
        (GAIN, {"between": (1, 4)}, "✓ it gains: +2.1 ± 0.4, 10 seeds"),
        (LOSS, {"below": -1}, "✓ it gains: −2.1 ± 0.4, 10 seeds"),
        (NEAR, {"between": (-5, 0.8)}, "✓ it gains: +0.1 ± 0.3, 10 seeds"),
        (
            Interval(82.94, 82.91, 82.97, 5),
            {"above": 80, "unit": " %"},
            "✓ it gains: 82.94 ± 0.03 %, 5 seeds",
        ),
        (Interval(120, 100, 140, 5), {"above": 90}, "✓ it gains: +120 ± 20, 5 seeds"),
        (Interval(2.0, 2.0, 2.0, 2), {"above": 1.5}, "✓ it gains: +2.0 ± 0.0, 2 seeds"),
        (3.21, {"above": 2}, "✓ it gains: 3.21"),
        (torch.tensor(3.0), {"below": 4, "unit": " ms"}, "✓ it gains: 3 ms"),
        (np.float64(-0.0321), {"between": (-0.04, -0.02)}, "✓ it gains: −0.0321"),
        (27_648, {"above": 27_000, "unit": " bytes"}, "✓ it gains: 27,648 bytes"),
        (0.0, {"exact": 0}, "✓ it gains (exact)"),
        (torch.tensor([1e-16, -1e-13]), {"exact": 1e-12}, "✓ it gains (exact)"),
        (np.array([2e-6, -3e-5]), {"exact": 1e-4}, "✓ it gains (exact to 0.0001)"),
    ],
)
def test_claim_prints_what_was_measured(measured, bound, line, capsys):
    checks.claim("it gains", measured, **bound)
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(
    "measured, bound, said",
    [
        (GAIN, {"above": 1.7}, "✗ it gains: +2.1 ± 0.4, 10 seeds, claimed above=1.7"),  # the mean is above it
        (GAIN, {"below": 2.5}, "claimed below=2.5"),
        (GAIN, {"between": (1, 2.4)}, "claimed between=(1, 2.4)"),
        (GAIN, {"between": (1.8, 3)}, "claimed between=(1.8, 3)"),
        (LOSS, {"above": 0}, "−2.1 ± 0.4"),
        (3.2, {"above": 3.2}, "✗ it gains: 3.2, claimed above=3.2"),
        (1e-11, {"exact": 1e-12}, "the error is 1e-11, claimed exact=1e-12"),
        (torch.tensor([0.0, -1.0]), {"exact": 1e-12}, "the error is 1,"),
    ],
)
def test_a_failing_claim_names_text_measured_and_bound(measured, bound, said, capsys):
    with pytest.raises(AssertionError, match=re.escape(said)):
        checks.claim("it gains", measured, **bound)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "measured, bound",
    [
        (GAIN, {"above": 0.8}),  # 1.7 is more than twice 0.8
        (GAIN, {"above": -1}),
        (GAIN, {"below": 6}),
        (GAIN, {"between": (0.5, 3)}),
        (GAIN, {"between": (1, 6)}),
        (GAIN, {"between": (0, 6)}),
        (LOSS, {"below": -0.5}),
        (LOSS, {"below": 1}),
        (NEAR, {"between": (-1, 1)}),
        (28.0, {"above": 2}),
        (1e-5, {"exact": 1e-2}),
    ],
)
def test_a_bound_far_from_what_was_measured_is_refused(measured, bound, monkeypatch, capsys):
    with pytest.raises(ValueError, match=r"further than a factor of 2|no identity"):
        checks.claim("it gains", measured, **bound)
    monkeypatch.setenv("BOOK_SEED", "1")  # another seed moves what is measured, not the sentence
    checks.claim("it gains", measured, **bound)
    assert capsys.readouterr().out.startswith("✓ it gains")


def test_readers_are_not_asked_to_draw_bounds(monkeypatch, capsys):
    """Another processor moves a live measurement; the claim holds there or fails, and says nothing of its width."""
    monkeypatch.setenv("BOOK_SLACK", "3")
    checks.claim("it gains", GAIN, above=0.8)
    with pytest.raises(ValueError, match="further than a factor of 3"):
        checks.claim("it gains", GAIN, above=0.5)
    monkeypatch.delenv("BOOK_SLACK")
    checks.claim("it gains", GAIN, above=0.5)
    checks.claim("it gains", GAIN, above=-1)
    with pytest.raises(AssertionError):
        checks.claim("it gains", GAIN, above=1.8)
    with pytest.raises(ValueError, match="the other verdict"):
        checks.claim("no difference seen between the two", GAIN, between=(-9, 9))
    with pytest.raises(ValueError, match="no identity"):
        checks.claim("both are one", 0.1, exact=1)


def test_another_device_may_measure_something_else(monkeypatch):
    monkeypatch.setenv("BOOK_DEVICE", "meta")
    checks.claim("it gains", GAIN, above=0.8)


@pytest.mark.parametrize("word", ["at least", "at most", "no more than"])
def test_a_wide_bound_says_so(word, capsys):
    checks.claim(f"it is faster, {word} twice as fast", 28.0, above=2)
    assert capsys.readouterr().out == f"✓ it is faster, {word} twice as fast: 28\n"


@pytest.mark.parametrize(
    "text, right, wrong",
    [
        ("T = 4 beats T = 1", (GAIN, (-9, 9)), (NEAR, (-9, 9))),
        ("T = 1 loses to T = 4", (LOSS, (-9, 9)), (NEAR, (-9, 9))),
        ("the gain is clear of 0", (GAIN, (-9, 9)), (NEAR, (-9, 9))),
        ("no difference seen between the two", (NEAR, (-9, 9)), (GAIN, (-9, 9))),
    ],
)
def test_a_verdict_has_its_rule(text, right, wrong):
    checks.claim(text, right[0], between=right[1])
    with pytest.raises(ValueError, match="the other verdict"):
        checks.claim(text, wrong[0], between=wrong[1])


@pytest.mark.parametrize(
    "measured, bound, error",
    [
        (True, {"above": 0}, TypeError),
        (torch.tensor([1.0, 2.0]), {"above": 0}, TypeError),
        ("3", {"above": 0}, TypeError),
        (GAIN, {}, TypeError),
        (math.nan, {"above": 0}, ValueError),
        (Interval(math.nan, math.nan, math.nan, 3), {"above": 0}, ValueError),
        (torch.tensor([0.0, math.nan]), {"exact": 1e-9}, ValueError),
        (torch.zeros(0), {"exact": 1e-9}, ValueError),
        (torch.tensor([True]), {"exact": 1e-9}, TypeError),
        (True, {"exact": 1e-9}, TypeError),
        (GAIN, {"exact": 1e-9}, TypeError),
        (GAIN, {"above": 0, "below": 3}, ValueError),
        (GAIN, {"above": -math.inf}, ValueError),
        (GAIN, {"below": math.nan}, ValueError),
        (GAIN, {"between": (3, 1)}, ValueError),
        (GAIN, {"between": (-math.inf, 3)}, ValueError),
        (0.0, {"exact": math.inf}, ValueError),
        (0.0, {"exact": -1}, ValueError),
    ],
)
def test_claim_refuses_what_says_nothing(measured, bound, error, monkeypatch):
    monkeypatch.setenv("BOOK_SEED", "1")  # not for the width of the bound
    with pytest.raises(error):
        checks.claim("it gains", measured, **bound)


def test_a_run_can_write_its_claims_down_and_each_can_fail(tmp_path, monkeypatch):
    """From the file alone: what was measured holds, and moved beyond a bound it does not."""
    monkeypatch.setenv("BOOK_CLAIMS", str(tmp_path / "claims.jsonl"))
    checks.claim("a", GAIN, above=1.5)
    checks.claim("b", LOSS, between=(-3, -1))
    checks.claim("c", 3.2, below=4)
    checks.claim("d", 1e-14, exact=1e-12)
    checks.claim("e", True)
    lines = [json.loads(line) for line in (tmp_path / "claims.jsonl").read_text("utf-8").splitlines()]
    assert [line["kind"] for line in lines] == ["above", "between", "below", "exact", "logic"]
    assert lines[0] == {"text": "a", "kind": "above", "measured": [1.7, 2.5], "bounds": [1.5, None], "n": 10}
    for line in lines[:-1]:
        lower, upper = (
            x if x is not None else s * math.inf for x, s in zip(line["bounds"], (-1, 1), strict=True)
        )
        low, high = line["measured"]
        assert _claims._holds(low, high, lower, upper)
        for bound in (x for x in (lower, upper) if math.isfinite(x)):
            assert not _claims._holds(low - high + bound, bound, lower, upper) or bound == upper
            assert not _claims._holds(bound, bound + high - low, lower, upper)


# ------------------------------------------------------------------------------------------ what nbval compares

PATTERNS = get_sanitize_patterns((Path(__file__).parent / "nbval.cfg").read_text("utf-8"))


def compared(text: str) -> str:
    """What is left of an output for nbval to compare."""
    assert len(PATTERNS) == 7
    for regex, replace in PATTERNS:
        text = re.sub(regex, replace, text)
    return text


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("✓ it gains: +2.1 ± 0.4, 10 seeds", "✓ it gains: −0.12 ± 0.04, 10 seeds", True),
        ("✓ it gains: +2.1 ± 0.4 points, 10 seeds", "✓ it gains: +2.2 ± 0.3 points, 10 seeds", True),
        ("✓ at T = 4: it gains: +2.1 ± 0.4, 10 seeds", "✓ at T = 2: it gains: +2.1 ± 0.4, 10 seeds", False),
        ("✓ it gains: +2.1 ± 0.4, 10 seeds", "✓ it gains: +2.1 ± 0.4, 5 seeds", False),
        ("✓ it gains: +2.1 ± 0.4, 10 seeds", "✓ it loses: +2.1 ± 0.4, 10 seeds", False),
        ("✓ it gains: +2.1 ± 0.4 points, 10 seeds", "✓ it gains: +2.1 ± 0.4 %, 10 seeds", False),
        ("✓ a: +2.1 ± 0.4, 10 seeds\n✓ b: 3.2\n", "✓ a: +2.0 ± 0.5, 10 seeds\n✓ b: 3.24\n", True),
        ("✓ a: 3.2\n✓ b 1: 4", "✓ a: 3.2\n✓ b 2: 4", False),
        ("✓ one step: 3.2 ± 0.1 ms, 7 runs", "✓ one step: 4 ± 1 ms, 7 runs", True),
        ("✓ a: −3.2e−05", "✓ a: 0.0001", True),
        ("✓ a: 27,648 bytes", "✓ a: 27,652 bytes", True),
        ("✓ a: 27,648 bytes", "✓ a: 27,648 bits", False),
        ("✓ width 2: 6,912 parameters, 13,799 bytes", "✓ width 2: 6,912 parameters, 13,800 bytes", False),
        ("✓ it gains (exact)", "✓ it gains (exact to 1e-05)", False),
        ("it gains: 3.2", "it gains: 3.3", False),  # no claim
        ("'2.1 ± 0.4'", "'−2.2 ± 0.5'", True),
        ("(2.0999)", "(-1.1e-05)", True),
        ("2.0999", "2.1", False),
    ],
)
def test_nbval_compares_all_of_a_claim_but_its_digits(one, other, same):
    assert (compared(one) == compared(other)) == same


@pytest.mark.parametrize("measured", [GAIN, LOSS, NEAR, 3.2, -1e-5, 27_648, Interval(1e-5, 9e-6, 2e-5, 3)])
@pytest.mark.parametrize("unit", ["", " points", " %", " ms"])
def test_nbval_finds_what_claim_measured(measured, unit, capsys):
    checks.claim("at least at T = 2: so much", measured, above=-99, unit=unit)
    assert "MEASURED" in compared(capsys.readouterr().out)


def test_an_interval_is_glued_whole_and_in_parts(monkeypatch):
    shown = {}

    def display(data, raw, metadata):
        shown[metadata["scrapbook"]["name"]] = data["application/papermill.record/text/plain"]

    monkeypatch.setattr("IPython.display.display", display)
    checks.glue(gain=LOSS, more=GAIN)
    assert [*shown][:6] == ["gain", "gain_mean", "gain_low", "gain_high", "gain_half", "gain_n"]
    assert shown["gain"] == "'−2.1 ± 0.4'" and shown["more"] == "'2.1 ± 0.4'"
    assert shown["gain_mean"] == "(-2.1)" and shown["gain_n"] == "10"
    assert [name for name in shown if compared(shown[name]) != "GLUED"] == ["gain_n", "more_n"]


def notebook_that_glues(path, text, **values):
    """A notebook whose only run called glue(**values), with `text` below it."""
    outputs = []
    for name, value in values.items():
        for key, plain in _claims._plain(name, value):
            scrapbook = {"name": key, "mime_prefix": "application/papermill.record/"}
            data = {"application/papermill.record/text/plain": plain}
            outputs.append(v4.new_output("display_data", data, metadata={"scrapbook": scrapbook}))
    cells = [v4.new_markdown_cell("# A page"), v4.new_code_cell("glue()", outputs=outputs, execution_count=1)]
    python = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    notebook = v4.new_notebook(cells=[*cells, v4.new_markdown_cell(text)], metadata=python)
    nbformat.write(notebook, path)


def test_what_is_glued_stands_in_the_page(tmp_path):
    """Through Sphinx, as `make book` does it."""
    text = """It gains {glue:text}`gain` points, or {glue:text}`gain_mean:.2f` of {glue:text}`gain_n` runs;
it loses {glue:text}`loss`, from {glue:text}`loss_low:.2f` to {glue:text}`loss_high:.1f`;
a float is {glue:text}`cold:.1f`, a small one {glue:text}`small:.0e`, a word {glue:text}`word`."""
    values = {"gain": GAIN, "loss": LOSS, "cold": -2.999, "small": 1e-5, "word": "a-1"}
    notebook_that_glues(tmp_path / "first.ipynb", text, **values)
    notebook_that_glues(tmp_path / "index.ipynb", "There: {glue:text}`first.ipynb::loss_low:.1f`.")
    settings = {"extensions": ["myst_nb", "glued"], "nb_execution_mode": "off"}
    with docutils_namespace(), (tmp_path / "warnings").open("w+") as warned:
        places = (tmp_path, None, tmp_path / "out", tmp_path / "trees")
        app = Sphinx(*places, "text", settings, status=None, warning=warned)
        app.build()
        warned.seek(0)
        warnings = [line for line in warned if "toctree" not in line]
    assert warnings == []
    page = " ".join((tmp_path / "out/first.txt").read_text("utf-8").split())
    assert "It gains 2.1 ± 0.4 points, or 2.10 of 10 runs; it loses −2.1 ± 0.4, from −2.50 to −1.7;" in page
    assert "a float is −3.0, a small one 1e−05, a word a-1." in page
    assert "There: −2.5." in (tmp_path / "out/index.txt").read_text("utf-8")


def drawing(alt):
    """A cell whose figure has this alternative text."""
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt"/>'
    outputs = [v4.new_output("display_data", {"image/svg+xml": svg})]
    return v4.new_code_cell("plot()", outputs=outputs, metadata={"mystnb": {"image": {"alt": alt}}})


def built(folder, alt):
    """The page of a notebook that gives numbers, and then draws."""
    path = folder / "index.ipynb"
    notebook_that_glues(path, "A figure.", gain=GAIN, cold=-2.999)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(drawing(alt))
    nbformat.write(notebook, path)
    with docutils_namespace():
        settings = {"extensions": ["myst_nb", "glued"], "nb_execution_mode": "off"}
        app = Sphinx(
            folder, None, folder / "out", folder / "trees", "html", settings, status=None, warning=None
        )
        app.build()
    return (folder / "out/index.html").read_text("utf-8")


def test_a_figure_s_alternative_text_has_the_numbers_of_the_run(tmp_path):
    page = built(
        tmp_path, "Bars, of {glue:text}`gain` and {glue:text}`gain_mean:.2f`, at {glue:text}`cold:.1f`."
    )
    assert 'alt="Bars, of 2.1 ± 0.4 and 2.10, at −3.0."' in page


def test_a_number_that_no_cell_gives_is_named(tmp_path):
    with pytest.raises(ExtensionError, match=r"index.ipynb: no cell glues 'gone'"):
        built(tmp_path, "Bars of {glue:text}`gone:.1f`.")


@pytest.mark.parametrize(
    "role, reason",
    [
        ("{glue:text}`gain:.1f`", "could not convert"),
        ("{glue:text}`other.ipynb::gain`", "of its own page"),
        ("{glue:text}`other::gain`", "of its own page"),
        ("{glue:}`gain`", "of its own page"),
    ],
)
def test_a_number_that_cannot_be_written_is_named(tmp_path, role, reason):
    with pytest.raises(ExtensionError, match=f"index.ipynb: the alternative text “Bars of .*: .*{reason}"):
        built(tmp_path, f"Bars of {role}.")


def test_only_what_is_glued_gets_a_minus():
    document = new_document("")
    document += nodes.inline("", "-1", classes=["pasted-text"])
    document += nodes.inline("", "-1")
    glued.true_minus(None, document, "page")
    assert [node.astext() for node in document.children] == ["−1", "-1"]
