"""The anatomy of a chapter: its first screen, what is read and what is folded, figures, boxes, claims, exercises.

Each rule is a function that gives the faults of a list of cells. It is held over the chapters on the list REWRITTEN and,
as far as one cell is concerned, over the page that shows the style; below, each is shown a chapter that breaks it.
"""

import ast
import re
import statistics

import pytest

from companion.checks._exercises import EXERCISES
from tests.test_notebooks import CHAPTERS, REWRITTEN, ROOT, cells, lines, tags

FOLDED = {"hide-input", "remove-input", "hide-cell", "remove-cell"}
HIDDEN = FOLDED | {"setup", "exercise", "solution"}
STYLE = ROOT / "reference/style.ipynb"
TITLE = re.compile(r"# \S.*\n\n(?:\S[^\n]*\n)*[^\n]*\?\**$")  # and the question, which ends the cell
FACTS = re.compile(r"^\*\*Article:\*\* .+ · \*\*Time:\*\* .+ · \*\*Needs:\*\* .+$", re.M)
LEARN = re.compile(r"^## What you will learn\n\n((?:- .+\n?){3,5})", re.M)
BOX = re.compile(r"^`{3,}\{admonition\} (.+)\n:class: ([\w, -]+)\n\n([\s\S]*?)^`{3,}$", re.M)


def code(of):
    return [cell for cell in of if cell.cell_type == "code"]


def visible(of):
    """Code that a reader reads."""
    return [cell for cell in code(of) if not tags(cell) & HIDDEN]


def prose(of):
    return "\n\n".join(cell.source for cell in of if cell.cell_type == "markdown")


def start(cell):
    return repr(cell.source[:60])


def pictured(cell):
    return any({"image/svg+xml", "image/png"} & set(o.get("data", ())) for o in cell.get("outputs", ()))


def budget(of):
    """Ten lines in the median and fifteen at most, of 80 columns; comments count, blank lines do not."""
    sizes = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in visible(of)]
    if sizes and statistics.median(sizes) > 10:
        yield f"the median of the visible cells is {statistics.median(sizes)} lines, and 10 is the most"
    for cell, size in zip(visible(of), sizes, strict=True):
        if size > 15:
            yield f"{size} lines, and 15 are the most: {start(cell)}"
        for line in cell.source.splitlines():
            if len(line) > 80:
                yield f"{len(line)} columns, and 80 are the most: {line}"


def folding(of):
    """Glue, claims and set-up are folded, in the pages and in JupyterLab; what is read is not."""
    for cell in code(of):
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        if "setup" in tags(cell) and "hide-input" not in tags(cell):
            yield f"the set-up cell has no tag hide-input: {start(cell)}"
        if bool(tags(cell) & FOLDED) != hidden:
            yield f"folded in one place only (tag hide-input, metadata jupyter.source_hidden): {start(cell)}"
        if cell in visible(of) and (
            called := re.search(r"\b(claim|glue|paired_interval_plot)\(", cell.source)
        ):
            yield f"{called[1]}( in a cell that is read: {start(cell)}"


def figures(of):
    """A caption, a name and a text for those who do not see it."""
    names = []
    for cell in filter(pictured, code(of)):
        about = cell.metadata.get("mystnb", {})
        figure = about.get("figure", {})
        if len(figure.get("caption", "").split()) < 5:
            yield f"no caption (metadata mystnb.figure.caption): {start(cell)}"
        if not re.fullmatch(r"fig-[a-z0-9-]+", figure.get("name", "")):
            yield f"no name fig-… (metadata mystnb.figure.name): {start(cell)}"
        if len(about.get("image", {}).get("alt", "").split()) < 5:
            yield f"no alternative text (metadata mystnb.image.alt): {start(cell)}"
        names.append(figure.get("name"))
    if len(names) != len(set(names)):
        yield f"two figures of one name: {names}"


def opening(of):
    """Title and question; set-up, folded; picture, folded; answer, facts, and what one will learn."""
    kinds = [cell.cell_type for cell in of[:4]]
    if kinds != ["markdown", "code", "code", "markdown"]:
        yield f"it opens with {kinds}: title and question, set-up, picture, answer are due"
        return
    title, setup, picture, answer = of[:4]
    if not TITLE.fullmatch(title.source.strip()):
        yield "the first cell is the title, a blank line and the question, which ends with “?”"
    if "setup" not in tags(setup):
        yield "the second cell is the set-up"
    if not pictured(picture) or not tags(picture) & FOLDED:
        yield "the third cell draws the strongest result, folded"
    first = answer.source.split("\n\n")[0]
    if first.startswith(("#", "*", "-")) or first.endswith("?") or not 8 <= len(first.split()) <= 60:
        yield f"the answer is a sentence or two, of 60 words at most: {first!r}"
    if not FACTS.search(answer.source):
        yield "a line says **Article:** … · **Time:** … · **Needs:** …"
    if not LEARN.search(answer.source):
        yield "“## What you will learn” has three to five points"


def boxes(of):
    """What the article says wrong in boxes that lead to the errata; a guess before its answer; the take-aways."""
    found = {}
    for title, kinds, body in BOX.findall(prose(of)):
        kinds = set(re.split(r"[, ]+", kinds))
        for kind in kinds & {"article", "guess", "takeaway"}:
            found.setdefault(kind, []).append(title)
        if "article" in kinds and not re.fullmatch(r"The article, [\d.]+ \([FCTR]\d+(, [FCTR]\d+)*\)", title):
            yield f"an article's box is called “The article, 4.2 (F1)”: {title!r}"
        if "article" in kinds and not re.search(r"erratum-[fctr]\d|[Ee]rrat(um|a) [FCTR]\d", body):
            yield f"no link to the row of the errata: {title!r}"
        if kinds & {"article", "guess"} and "dropdown" not in kinds:
            yield f"it stands open: {title!r}"
        if "guess" in kinds and not re.fullmatch(r"Guess first: .*\?", title):
            yield f"a guess is called “Guess first: …?”: {title!r}"
    if not found.get("guess"):
        yield "the reader guesses nothing"
    if len(found.get("takeaway", ())) != 1:
        yield "one box of class takeaway says what to do on Monday"


def words(of):
    """Eight words of prose for each line of code that is read; three functions; never three visible cells in a row."""
    read = [line for cell in visible(of) for line in lines(cell)]
    if len(prose(of).split()) < 8 * len(read):
        yield f"{len(prose(of).split())} words for {len(read)} lines of code"
    if sum(len(re.findall(r"^\s*def ", cell.source, re.M)) for cell in visible(of)) > 3:
        yield "more than three functions are read"
    kinds = "".join("m" if c.cell_type == "markdown" else "c" if c in visible(of) else "" for c in of)
    if "ccc" in kinds:
        yield "three visible cells stand in a row"


def calls(of, name):
    return [
        node
        for cell in code(of)
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name
    ]


def claims(of):
    """Most say what was measured: at most two of five are logic alone."""
    made = calls(of, "claim")
    logic = [c for c in made if not {k.arg for k in c.keywords} & {"above", "below", "between", "exact"}]
    if len(made) < 3:
        yield f"{len(made)} claims"
    if 5 * len(logic) > 2 * len(made):
        yield f"{len(logic)} of {len(made)} claims have no bound: " + "; ".join(ast.unparse(c) for c in logic)


def exercises(of):
    """Two to four, with the titles of the list, and one at least that is not written down from an equation."""
    found = re.findall(r"^`{3,}\{exercise\}(?: (.+))?\n:label: (ex-[\w-]+)", prose(of), re.M)
    table = {e.label: e for e in EXERCISES}
    if not 2 <= len(found) <= 4:
        yield f"{len(found)} exercises"
    for title, label in found:
        if label not in table:
            yield f"{label} is not in companion/checks/_exercises.py"
        elif title != table[label].title:
            yield f"{label} is called {title!r} here and {table[label].title!r} in the list"
        elif not re.search(rf"^def {table[label].name}\(", "\n".join(c.source for c in code(of)), re.M):
            yield f"no stub is called {table[label].name}"
    if found and not any(table[label].kind != "write" for _, label in found if label in table):
        yield "none of them predicts, diagnoses or chooses"


OF_A_CELL = (folding, figures)
OF_A_CHAPTER = (budget, *OF_A_CELL, opening, boxes, words, claims, exercises)
NEW = [path for path in CHAPTERS if path.stem in REWRITTEN]


@pytest.mark.parametrize("rule", OF_A_CHAPTER)
@pytest.mark.parametrize("path", NEW, ids=lambda p: p.stem)
def test_a_rewritten_chapter_keeps_the_rule(path, rule):
    assert list(rule(cells(path))) == []


@pytest.mark.parametrize("rule", [budget, *OF_A_CELL, boxes])
def test_the_style_page_keeps_the_rule(rule):
    assert list(rule(cells(STYLE))) == []
