"""Plain copies: what the writer makes of each kind of text; and the working folder, in which a reader's work stays."""

import json
import sys

import nbformat
import pytest
from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.utils import new_document
from myst_parser.config.main import MdParserConfig
from myst_parser.mdit_to_docutils.base import DocutilsRenderer
from myst_parser.parsers.docutils_ import Parser
from myst_parser.parsers.mdit import create_md_parser

from tests.test_notebooks import ROOT

sys.path += [str(ROOT / "theme"), str(ROOT / "scripts")]
import lab
import plain
from as_markdown import Page, write


def page(**given):
    asked = {"link": lambda node: node.get("refuri", ""), "number": lambda node: node.get("number", "") or ""}
    return Page(**(asked | {"picture": lambda path: f"attachment:{path}"} | given))


def written(markdown, **given):
    """A page from its MyST source, as a plain copy has it."""
    document = new_document("page", get_default_settings(Parser))
    config = MdParserConfig(enable_extensions={"dollarmath", "colon_fence", "amsmath"})
    parser = create_md_parser(config, DocutilsRenderer)
    parser.options["document"] = document
    parser.render(markdown)
    return write(document, page(**given)).replace("\x01", "").strip()


SAME = [
    "Text with *emphasis*, **weight**, `code` and a [link](https://example.org).",
    "- one\n- two $a_b$",
    "1. one\n2. two",
    "> a quotation",
    "```\nx = 1\n```",
    r"$\frac{a}{b}$ and $\lVert z \rVert$",
    "$$\n\\frac{a}{b} = \\{c\\}\n$$",
    "| a | b |\n| --- | --- |\n| 1 | $x$ |",
]


@pytest.mark.parametrize("text", SAME)
def test_what_is_plain_stays_as_it_is(text):
    assert written(text) == text


CHANGED = {
    r"3 \* 4, snake\_case, \_x\_, \$5": r"3 \* 4, snake_case, \_x\_, <span>$</span>5",
    "1\\. no list": "1\\. no list",
    "a \\<b> c": "a &lt;b> c",
    "$$\na &= b \\\\\nc\n$$": "$$\n\\begin{split}a &= b \\\\\nc\\end{split}\n$$",
    "\\begin{align}\na &= b\n\\end{align}": "$$\n\\begin{aligned}\na &= b\n\\end{aligned}\n$$",
    "- item\n\n  $$\n  x\n  $$": "- item\n\n  $$ x $$",
    "| a |\n|---|\n| $p\\|q$ |": "| a |\n| --- |\n| $p\\vert q$ |",
    ":::{note}\nRead $x$.\n\n$$\ny\n$$\n:::": "> **Note**\n>\n> Read $x$.\n>\n> $$ y $$",
    ":::{admonition} Why\nBecause.\n:::": "> **Why**\n>\n> Because.",
    ":::{admonition} Guess\n:class: dropdown\nYes.\n:::": "<details><summary>Guess</summary>\n\nYes.\n\n</details>",
    "```{image} a.svg\n:alt: A line\n```": "![A line](attachment:a.svg)",
    "```{figure} a.svg\n:alt: A line\n\nIt rises.\n```": "![A line](attachment:a.svg)\n\n**Fig. 2:** It rises.",
}


@pytest.mark.parametrize("text", CHANGED)
def test_what_is_not_becomes_so(text):
    made = written(text, number=lambda node: "Fig. 2" if isinstance(node, nodes.figure) else "")
    assert made == CHANGED[text]


def test_a_formula_has_the_page_s_number():
    formula = nodes.math_block("", "x", label="eq-x", number=1)
    assert write(nodes.container("", formula), page(number=lambda node: "11")) == "$$\nx \\tag{11}\n$$"


def test_a_figure_that_a_cell_draws_has_its_caption_below():
    image = nodes.figure("", nodes.image(uri="out.svg"), nodes.caption("", "It rises."))
    cell = nodes.container("", nodes.container("", image), cell_index=3)
    made = write(nodes.container("", cell), page(number=lambda node: "Fig. 2"))
    assert made == "\x023\x02\n\n**Fig. 2:** It rises."


def code_cell(tags=(), source="x = 1", **data):
    output = nbformat.v4.new_output("display_data", data)
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)}, outputs=[output])


@pytest.mark.parametrize("tag", ["hide-input", "solution"])
def test_what_the_page_folds_is_folded(tag):
    for cell, hidden in [(code_cell([tag]), False), (code_cell(), True)]:
        made = plain.code_cell(cell, hidden, "")
        assert made.metadata["jupyter"] == {"source_hidden": True} and made.metadata["cellView"] == "form"
    assert "jupyter" not in plain.code_cell(code_cell(["exercise"]), False, "").metadata


def test_numbers_of_a_moving_figure_are_as_a_browser_saves_them():
    made = plain.code_cell(code_cell(**{plain.FIGURE: {"x": [-3.0, 0.5, 2], "on": True}}), False, "")
    assert json.dumps(made.outputs[0].data[plain.FIGURE]) == '{"x": [-3, 0.5, 2], "on": true}'


def test_a_set_up_cell_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="import torch"):
        plain.code_cell(code_cell(["setup"], "import torch"), False, "")


# ------------------------------------------------------------------------------------------------- the working folder


def notebook(text):
    return nbformat.writes(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text, id="a")])
    ).encode()


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    (tmp_path / "my work").mkdir()
    return tmp_path / "my work"


FIRST = {"chapters/01.ipynb": notebook("first"), "chapters/02.ipynb": notebook("first"), "answers.py": b""}
SECOND = {"chapters/01.ipynb": notebook("second"), "chapters/02.ipynb": notebook("second"), "answers.py": b""}


def content(work):
    return {
        str(p.relative_to(work)): p.read_bytes() for p in work.rglob("*") if p.is_file() and p.name[0] != "."
    }


def test_an_edition_replaces_what_nobody_changed_and_keeps_what_somebody_did(work):
    assert lab.refresh(work, FIRST) == [] and content(work) == FIRST
    assert lab.refresh(work, FIRST) == []
    mine = {"chapters/02.ipynb": notebook("mine"), "answers.py": b"def soften(): ..."}
    for name, text in mine.items():
        (work / name).write_bytes(text)
    assert lab.refresh(work, FIRST) == [] and content(work) == FIRST | mine  # no news, and no word of it
    assert lab.refresh(work, SECOND) == ["chapters/02.ipynb"]
    assert content(work) == SECOND | mine
    assert lab.refresh(work, SECOND) == ["chapters/02.ipynb"] and content(work) == SECOND | mine
    (work / "chapters/02.ipynb").rename(work / "chapters/02 mine.ipynb")
    assert lab.refresh(work, SECOND) == []
    assert content(work)["chapters/02.ipynb"] == SECOND["chapters/02.ipynb"]
    assert content(work)["chapters/02 mine.ipynb"] == mine["chapters/02.ipynb"]


def test_what_an_edition_drops_goes_unless_it_was_changed(work):
    lab.refresh(work, FIRST)
    (work / "chapters/02.ipynb").write_bytes(notebook("mine"))
    assert lab.refresh(work, {"answers.py": b""}) == []
    assert content(work) == {"answers.py": b"", "chapters/02.ipynb": notebook("mine")}


def test_a_folder_whose_record_is_lost_is_the_reader_s(work):
    lab.refresh(work, FIRST)
    (work / lab.RECORD).unlink()
    assert lab.refresh(work, SECOND) == ["chapters/01.ipynb", "chapters/02.ipynb"]
    assert content(work) == FIRST


def test_copies_are_trusted_and_a_stranger_s_notebook_is_not(work):
    lab.refresh(work, FIRST)
    notary = lab.NotebookNotary()
    given = nbformat.reads(FIRST["chapters/01.ipynb"].decode(), as_version=4)
    assert notary.check_signature(given)
    assert not notary.check_signature(nbformat.reads(SECOND["chapters/01.ipynb"].decode(), as_version=4))


@pytest.mark.parametrize(("user", "flag"), [(0, ["--allow-root"]), (1000, [])])
def test_root_is_told_and_let_in(work, monkeypatch, capsys, user, flag):
    started = []
    monkeypatch.setattr(lab, "edition", lambda pages: FIRST)
    monkeypatch.setattr(lab.os, "geteuid", lambda: user)
    monkeypatch.setattr(lab.os, "execv", lambda program, command: started.append(command))
    lab.main("pages", str(work))
    assert [argument for argument in started[0] if argument == "--allow-root"] == flag
    assert f"--ServerApp.root_dir={work}" in started[0]
    assert ("You are root" in capsys.readouterr().out) == bool(flag)
