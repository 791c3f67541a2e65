"""The notebooks' form: run, in order, described, short. nbval compares what they say; it passes a cleared
notebook and looks at no picture, so this does."""

import ast
import re
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted([*ROOT.glob("chapters/*.ipynb"), *ROOT.glob("reference/*.ipynb")])
CHAPTERS = [path for path in NOTEBOOKS if path.parent.name == "chapters"]


def cells(path, kind=None):
    return [c for c in nbformat.read(path, as_version=4).cells if kind in (None, c.cell_type)]


def defined(path, start, first=""):
    """The names that the path's code cells with this start define, after the line `first`."""
    names = {}
    for cell in cells(path, "code"):
        if cell.source.startswith(start):
            exec(first + "\n" + cell.source, names)
    return names


def tags(cell):
    return set(cell.metadata.get("tags", ()))


def lines(cell):
    """Lines of code: no blank lines, no comments, and not the bookkeeping of `glue` and `claim`."""
    written = [line.strip() for line in cell.source.splitlines()]
    return [line for line in written if line and not line.startswith(("#", "glue(", "claim("))]


def per_notebook(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda p: p.stem)


def test_there_are_notebooks():
    """And in them what the tests below go through: figures, streams, claims."""
    code = [cell for path in NOTEBOOKS for cell in cells(path, "code")]
    outputs = [output for cell in code for output in cell.outputs]
    assert len(CHAPTERS) >= 9
    assert sum("image/svg+xml" in output.get("data", ()) for output in outputs) > 20
    assert sum(output.output_type == "stream" for output in outputs) > 100
    assert sum("claim(" in cell.source for cell in code) > 50


def unread(cells_of_code):
    """What such cells compute and nobody reads: names of the folded ones that no cell uses, and their numbers (as
    "glue: name") that stand in no text."""
    trees = [(ast.parse(cell.source), tags(cell)) for cell in cells_of_code]
    named = [node for tree, _ in trees for node in ast.walk(tree) if isinstance(node, ast.Name)]
    read = {node.id for node in named if isinstance(node.ctx, ast.Load)}
    found = set()
    for tree, folded in trees:
        made = [statement for statement in tree.body if isinstance(statement, ast.Assign | ast.FunctionDef)]
        for statement in made if folded & {"hide-input", "hide-cell"} else ():
            names = ast.walk(statement) if isinstance(statement, ast.Assign) else ()
            stored = {n.id for n in names if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            found |= (stored or {getattr(statement, "name", "_")}) - read
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id == "glue":
                found |= {f"glue: {word.arg}" for word in call.keywords if word.arg and not in_text(word.arg)}
                found |= {
                    f"glue: {key}" for word in call.keywords if not word.arg for key in families(word.value)
                }
    return {name for name in found if not name.startswith("_")}


def in_text(name):
    """Does any page print this number, or a part of this interval?"""
    return any(name + part in printed() for part in ("", "_mean", "_low", "_high", "_half", "_n"))


def families(given):
    """Of glue(**{f"ch8_{name}_{n}": …}) the patterns of which no page prints a single name."""
    made = (node for node in ast.walk(given) if isinstance(node, ast.Dict | ast.DictComp))
    for key in (key for node in made for key in (node.keys if isinstance(node, ast.Dict) else [node.key])):
        parts = key.values if isinstance(key, ast.JoinedStr) else [key]
        pattern = "".join(
            re.escape(part.value) if isinstance(part, ast.Constant) else r"\w+" for part in parts
        )
        if pattern.startswith("ch") and not any(re.fullmatch(pattern, name) for name in printed()):
            yield pattern


@cache
def printed():
    texts = [cell.source for path in NOTEBOOKS for cell in cells(path, "markdown")]
    # captions and alternative texts of figures
    texts += [str(cell.metadata.get("mystnb")) for path in NOTEBOOKS for cell in cells(path, "code")]
    texts += [path.read_text() for path in (*ROOT.glob("*.md"), *ROOT.glob("reference/*.md"))]
    return {name for text in texts for name in re.findall(r"\{glue:\w+\}`(\w+)", text)}


@per_notebook(CHAPTERS)
def test_nothing_is_computed_for_nobody(path):
    assert not unread(cells(path, "code"))


def test_what_nobody_reads_is_found():
    source = "a, b = 1, 2\nc = a\ndef d():\n    e = 1\nglue(ch17_none=b, ch17_whole=b)\n"
    source += 'glue(**{f"ch17_none_{n}": b for n in (a, b)}, **{f"ch17_ms_{b}": b, "ch17_no": b})\n'
    hidden = nbformat.v4.new_code_cell(source, metadata={"tags": ["hide-input"]})
    assert unread([hidden]) == {"c", "d", "glue: ch17_none", r"glue: ch17_none_\w+", "glue: ch17_no"}


@per_notebook(NOTEBOOKS)
def test_executed_in_order_and_without_errors(path):
    code = [c for c in cells(path, "code") if c.source.strip()]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]


@per_notebook(NOTEBOOKS)
def test_no_warnings_in_the_outputs(path):
    streams = [o for c in cells(path, "code") for o in c.outputs if o.output_type == "stream"]
    assert not [o.text for o in streams if o.name == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_drawing_is_sound_xml(path):
    """A name has no comma, and a path has points: an EPUB takes no other."""
    for cell in cells(path, "code"):
        for output in cell.outputs:
            drawing = "".join(output.get("data", {}).get("image/svg+xml", ""))
            names, paths = re.findall(r'\bid="([^"]*)"', drawing), re.findall(r"<path\b[^>]*>", drawing)
            assert [name for name in names if not re.fullmatch(r"[A-Za-z_][\w.-]*", name)] == []
            assert [one for one in paths if not re.search(r"\sd=", one)] == []


@per_notebook(NOTEBOOKS)
def test_each_name_stands_once_in_a_drawing(path):
    """One image drawn twice in a figure has one name in matplotlib's SVG, which an EPUB may not have: set_gid."""
    outputs = [o for c in cells(path, "code") for o in c.outputs]
    drawings = [o.data["image/svg+xml"] for o in outputs if "image/svg+xml" in o.get("data", ())]
    twice = [
        [name for name, n in Counter(re.findall(r'\bid="([^"]+)"', d)).items() if n > 1] for d in drawings
    ]
    assert [names for names in twice if names] == []


WHITE = re.compile(r"<(?:use|path)\b[^>]*\bfill: (?:#fff(?:fff)?|white)\b", re.I)


@per_notebook(NOTEBOOKS)
def test_what_is_open_is_not_filled_with_white(path):
    """An open marker is empty (mfc="none"): on a dark page white is the brightest fill of all."""
    drawn = [c for c in cells(path, "code") for o in c.outputs if "image/svg+xml" in o.get("data", ())]
    white = {
        c.source[:80]
        for c in drawn
        for o in c.outputs
        if WHITE.search(o.get("data", {}).get("image/svg+xml", ""))
    }
    assert white == set()


@per_notebook(NOTEBOOKS)
def test_no_value_is_shown_by_accident(path):
    """The value of a cell's last line is shown where nobody meant it: a History of two hundred losses, say."""
    assert not [c.source for c in cells(path, "code") for o in c.outputs if o.output_type == "execute_result"]


@per_notebook(NOTEBOOKS)
def test_what_a_cell_printed_is_stored_in_one_piece(path):
    """Not as the kernel happened to send it: then a re-run changes nothing that matters."""
    for cell in cells(path, "code"):
        streams = [o.get("name") for o in cell.outputs]  # None for what is no stream
        assert not [a for a, b in pairwise(streams) if a == b is not None]


@per_notebook(NOTEBOOKS)
def test_every_figure_says_what_it_shows(path):
    for cell in cells(path, "code"):
        drawn = [o for o in cell.outputs if {"image/svg+xml", "image/png"} & set(o.get("data", ()))]
        if drawn:
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt.split()) >= 5, f"alt text {alt!r} of the cell: {cell.source[:200]}"


@per_notebook(NOTEBOOKS)
def test_outputs_name_no_place_on_this_machine(path):
    text = path.read_text()
    assert not re.search(r"(?<![\w.])/(home|work|tmp|root|Users)/", text)


@per_notebook(NOTEBOOKS)
def test_one_setup_cell_that_all_share(path):
    setup = [c for c in cells(path, "code") if "setup" in tags(c)]
    assert len(setup) == 1
    reference = next(c for c in cells(CHAPTERS[0], "code") if "setup" in tags(c)).source
    assert setup[0].source.startswith(reference[: reference.index('"..[book]"') + 10])
    assert setup[0].source.rstrip().endswith("companion.setup()")


@per_notebook(CHAPTERS)
def test_claims_and_exercises(path):
    code = cells(path, "code")
    claimed = [o for c in code for o in c.outputs if o.output_type == "stream" and "✓ " in o.text]
    assert len(claimed) >= 3
    for cell in code:
        text = "".join(o.text for o in cell.outputs if o.output_type == "stream")
        if "exercise" in tags(cell):
            assert text.startswith("○ ") and "not attempted" in text
        if "solution" in tags(cell):
            assert text.startswith("✓ ")
    assert sum("exercise" in tags(c) for c in code) == sum("solution" in tags(c) for c in code) >= 2
    assert not [o for o in claimed if "✗" in o.text]


@per_notebook(NOTEBOOKS)
def test_claims_are_compared(path):
    for cell in cells(path, "code"):
        if "claim(" in cell.source:
            assert not tags(cell) & {"nbval-ignore-output", "nbval-skip"}, cell.source[:200]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_no_title_of_a_block_has_a_backtick(path):
    """After a fence of backticks its line may hold no other, or the block is printed as text."""
    opened = [
        line for c in cells(path, "markdown") for line in c.source.splitlines() if re.match(r"`{3,}\{", line)
    ]
    assert not [line for line in opened if "`" in line.lstrip("`")]
