"""The anatomy of a chapter: its first screen, what is read and what is folded, figures, boxes, claims, exercises.

Each rule is a function that gives the faults of a list of cells. It is held over the chapters and,
as far as one cell is concerned, over the page that shows the style; below, each is shown a chapter that breaks it.
"""

import ast
import re
import statistics

import pytest
from nbformat import v4

from companion.checks._exercises import EXERCISES
from tests.test_notebooks import CHAPTERS, ROOT, cells, lines, tags

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
    """The text, without what it shows as source."""
    text = "\n\n".join(cell.source for cell in of if cell.cell_type == "markdown")
    return re.sub(r"^(`{4,})\{code-block\}[\s\S]*?^\1$", "", text, flags=re.M)


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
    """Glue, claims, plots and set-up are folded, in the pages and in JupyterLab; what is read is not."""
    for cell in code(of):
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        if "setup" in tags(cell) and "hide-input" not in tags(cell):
            yield f"the set-up cell has no tag hide-input: {start(cell)}"
        if bool(tags(cell) & FOLDED) != hidden:
            yield f"folded in one place only (tag hide-input, metadata jupyter.source_hidden): {start(cell)}"
        if cell in visible(of) and (
            called := re.search(r"\b(claim|glue|plt\.\w+|plotting\.\w+)\(", cell.source)
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
        alt = about.get("image", {}).get("alt", "")
        if len(alt.split()) < 5 or not re.search(
            r"\w+ \w+ \w+", alt
        ):  # numbers alone tell nobody what is drawn
            yield f"no alternative text in words (metadata mystnb.image.alt): {start(cell)}"
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
        for tag in ("exercise", "solution") if label in table else ():
            if not any(f"def {table[label].name}(" in cell.source for cell in code(of) if tag in tags(cell)):
                yield f"no {tag} cell defines {table[label].name}"
    if found and not any(table[label].kind != "write" for _, label in found if label in table):
        yield "none of them predicts, diagnoses or chooses"


OF_A_CELL = (folding, figures)
OF_A_CHAPTER = (budget, *OF_A_CELL, opening, boxes, words, claims, exercises)


@pytest.mark.parametrize("rule", OF_A_CHAPTER)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_keeps_the_rule(path, rule):
    assert list(rule(cells(path))) == []


@pytest.mark.parametrize("rule", [budget, *OF_A_CELL, boxes])
def test_the_style_page_keeps_the_rule(rule):
    assert list(rule(cells(STYLE))) == []


# ---------------------------------------------------------------------------------- each rule, and what breaks it


def markdown(text):
    return v4.new_markdown_cell(text)


def read(source="x = 1", *names, **metadata):
    return v4.new_code_cell(source, metadata={"tags": list(names), **metadata})


def folded(source="x = 1", *names, **metadata):
    return read(source, "hide-input", *names, jupyter={"source_hidden": True}, **metadata)


def drawn(caption="What one sees in it, in words.", name="fig-one", alt="Two bars, of which one is longer."):
    about = {"figure": {"caption": caption, "name": name}, "image": {"alt": alt}}
    cell = folded("plotting.show()", mystnb=about)
    cell.outputs = [v4.new_output("display_data", {"image/svg+xml": "<svg/>"})]
    return cell


FIRST = "# 3 The algorithm\n\nWhat does a student learn from its teacher?"
ANSWER = """How much the wrong classes resemble the right one, which labels do not say.

**Article:** section 3 · **Time:** 1 minute · **Needs:** chapter 2

## What you will learn

- One.
- Two.
- Three.
"""
BOXES = """```{admonition} The article, 4.2 (F1)
:class: dropdown, article

It is wrong (erratum F1).
```

```{admonition} Guess first: which of the two?
:class: dropdown, guess

The other.
```

```{admonition} Take away
:class: takeaway

- Begin with T = 4.
```"""
PROSE = "word " * 100
CLAIMS = "claim('a', x, above=1)\nclaim('b', x, exact=1e-9)\nclaim('c', x > 1)"


def chapter(first=FIRST, answer=ANSWER, **cells):
    """A chapter that keeps all rules but that on exercises, which needs the book's own."""
    made = {
        "first": markdown(first), "setup": folded("companion.setup()", "setup"), "picture": drawn(),
        "answer": markdown(answer), "prose": markdown(PROSE), "code": read("y = soften(v, T)\nz = y.sum()"),
        "claims": folded(CLAIMS), "boxes": markdown(BOXES),
    }  # fmt: skip
    return list((made | cells).values())


KEPT = [rule for rule in OF_A_CHAPTER if rule is not exercises]


@pytest.mark.parametrize("rule", KEPT)
def test_a_good_chapter_has_no_fault(rule):
    assert list(rule(chapter())) == []


@pytest.mark.parametrize(
    "rule, made, fault",
    [
        (budget, chapter(code=read("x = 1\n" * 16)), "16 lines, and 15 are the most"),
        (budget, chapter(code=read("x = 1\n\n" * 11)), "the median of the visible cells is 11"),
        (budget, chapter(code=read("# " + "x" * 79)), "81 columns"),
        (folding, chapter(setup=read("companion.setup()", "setup")), "the set-up cell has no tag hide-input"),
        (folding, chapter(claims=read(CLAIMS, "hide-input")), "folded in one place only"),
        (folding, chapter(code=read("x", jupyter={"source_hidden": True})), "folded in one place only"),
        (folding, chapter(claims=read(CLAIMS)), "claim( in a cell that is read"),
        (folding, chapter(code=read("glue(x=1)")), "glue( in a cell that is read"),
        (folding, chapter(code=read("plt.plot(x)")), "plt.plot( in a cell that is read"),
        (figures, chapter(picture=drawn(caption="")), "no caption"),
        (figures, chapter(picture=drawn(name="one")), "no name fig-…"),
        (figures, chapter(picture=drawn(alt="Bars.")), "no alternative text"),
        (figures, chapter(prose=drawn()), "two figures of one name"),
        (opening, chapter(prose=markdown("x"))[1:], "it opens with ['code', 'code', 'markdown', 'markdown']"),
        (opening, chapter(first="# 3 The algorithm\n\nIt is ordinary training."), "the question, which ends with"),
        (opening, chapter(first=FIRST + "\n\nOf course."), "the question, which ends with"),
        (opening, chapter(setup=folded()), "the second cell is the set-up"),
        (opening, chapter(picture=folded()), "the third cell draws"),
        (opening, chapter(answer="## Now\n\n" + ANSWER), "the answer is a sentence or two"),
        (opening, chapter(answer="Really, what is it that it learns from its teacher?\n\n" + ANSWER), "the answer is"),
        (opening, chapter(answer=ANSWER.replace("**Needs:**", "needs")), "a line says **Article:**"),
        (opening, chapter(answer=ANSWER.replace("- Three.\n", "")), "has three to five points"),
        (boxes, chapter(boxes=markdown(BOXES.replace("(F1)\n", "\n"))), "an article's box is called"),
        (boxes, chapter(boxes=markdown(BOXES.replace("erratum F1", "it is"))), "no link to the row"),
        (boxes, chapter(boxes=markdown(BOXES.replace("dropdown, guess", "guess"))), "it stands open"),
        (boxes, chapter(boxes=markdown(BOXES.replace("two?", "two."))), "a guess is called"),
        (boxes, chapter(boxes=markdown(BOXES.replace(", guess", ""))), "the reader guesses nothing"),
        (boxes, chapter(boxes=markdown(BOXES + "\n\n" + BOXES)), "one box of class takeaway"),
        (words, chapter(prose=markdown(""), boxes=read("x = 1\n" * 15)), "words for 17 lines of code"),
        (words, chapter(code=read("def f():\n    pass\n" * 4)), "more than three functions"),
        (words, chapter(claims=read(), boxes=read()), "three visible cells"),
        (claims, chapter(claims=folded("claim('a', x, above=1)")), "1 claims"),
        (claims, chapter(claims=folded(CLAIMS.replace(", above=1", ""))), "2 of 3 claims have no bound: claim('a', x)"),
        (exercises, [markdown("```{exercise} Soften logits\n:label: ex-soften\n```")], "1 exercises"),
        (exercises, [markdown("```{exercise} Soften logits\n:label: ex-soften\n```")], "no exercise cell defines soften"),
        (exercises, [markdown("```{exercise} Soften\n:label: ex-soften\n```")], "is called 'Soften' here and"),
        (exercises, [markdown("```{exercise}\n:label: ex-other\n```")], "ex-other is not in"),
        (exercises, [markdown("```{exercise} Soften logits\n:label: ex-soften\n```")], "none of them predicts"),
    ],
)  # fmt: skip
def test_each_rule_names_what_breaks_it(rule, made, fault):
    assert any(fault in found for found in rule(made)), list(rule(made))
