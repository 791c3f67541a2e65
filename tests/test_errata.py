"""The errata page: its rows against the tests that bear them out and against the chapters that name them."""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
PAGE = nbformat.read(ROOT / "reference/errata.ipynb", as_version=4)
TEXT = "\n".join(c.source for c in PAGE.cells if c.cell_type == "markdown")
ROWS = {m[1]: m[2] for m in re.finditer(r"^\| ([FCTR]\d+) \| (.+) \|$", TEXT, re.M)}

# Rows that nothing can be run for.
READ = {
    "C7": "names that are used and never defined: an absence",
    "C10": "no version is named: an absence",
    "C11": "two packages are asked for and not used: an absence",
    "C12": "a value that no caller can set: seen in the signature",
    "C13": "the teacher is not evaluated: an absence",
    "T15": "a thing is said to merge with itself",
    "T19": "a circular definition",
    "T20": "three passages that contradict one another",
    "T21": "a list without an application in it",
    "T22": "predictions without a quantity",
    "T23": "two passages that contradict each other",
    "C14": "no weight, and a name: seen in the source",
    "F11": "a derivation that derives nothing: an absence",
    "F12": "two models of one size: seen in the formulas",
    "T25": "a state of research without research: an absence",
    "T26": "a list that holds two of its items twice",
    "T27": "two passages that contradict each other",
    "R1": "a reference",
    "R2": "a reference",
    "R3": "a reference",
    "R4": "a reference",
    "R5": "a reference",
    "R6": "a list in which the subject does not occur: an absence",
}


def marked():
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_chapter*.py"))
    return set(re.findall(r'mark\.erratum\("([FCTR]\d+)"\)', tests))


def test_every_row_that_can_be_run_is_run():
    assert sorted(set(ROWS) - set(READ) - marked()) == []


def test_no_test_shows_a_row_that_is_not_there():
    assert sorted(marked() - set(ROWS)) == []


def test_the_page_says_which_rows_are_read_only():
    assert {name for name, row in ROWS.items() if row.endswith("by reading")} == set(READ)


def test_rows_are_complete_and_unique():
    ids = re.findall(r"^\| ([FCTR]\d+) \|", TEXT, re.M)
    assert len(ids) == len(set(ids)) == len(ROWS) > 58
    for name, row in ROWS.items():
        cells = row.split(" | ")
        assert len(cells) == 4 and all(cells), name


def test_the_count_printed_is_the_count_of_rows():
    printed = "".join(o.text for c in PAGE.cells if c.cell_type == "code" for o in c.outputs)
    assert re.search(r"together\s+(\d+)", printed)[1] == str(len(ROWS))
    for letter in "FCTR":
        n = sum(name.startswith(letter) for name in ROWS)
        assert f"✓ {letter}1 to {letter}{n}, none missing" in printed


def links(row):
    """The sections a row leads to: ("4.2", "04_mathematics")."""
    return re.findall(r"\{doc\}`([\d.]+) <\.\./chapters/(\w+)>`", row.split(" | ")[-1])


def section(chapter, number):
    """The text of section "4.2" of a chapter, or of all of it for "4"."""
    path = ROOT / f"chapters/{chapter}.ipynb"
    text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
    if "." not in number:
        return text
    return re.search(rf"^## {re.escape(number)} .*?(?=^## |\Z)", text, re.M | re.S)[0]


def test_the_rows_say_no_more_than_the_article():
    """Its hedges are kept: 2.1 and 3.1 say "usually", 2.2 "can be regarded as"."""
    article_says = {name: row.split(" | ")[0] for name, row in ROWS.items()}
    for name, hedge in {"T1": "usually", "T6": "can be regarded as", "T7": "usually"}.items():
        assert hedge in article_says[name]
    assert "cannot be" not in TEXT


@pytest.mark.parametrize("name", ROWS)
def test_each_row_leads_to_the_section_that_shows_it(name):
    assert links(ROWS[name])
    for number, chapter in links(ROWS[name]):
        assert int(number.split(".")[0]) == int(chapter[:2])
        shown = re.search(rf"\b{name}\b", section(chapter, number))
        assert shown or name in READ, f"{chapter}, {number} does not name {name}"


def test_rows_that_chapters_name_are_there():
    named = 0
    for path in ROOT.glob("chapters/*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        text = "\n".join(c.source for c in cells if c.cell_type == "markdown")
        for group in re.findall(r"errat(?:um|a) ((?:[FCTR]\d+(?:, | and )?)+)", text):
            assert set(re.findall(r"[FCTR]\d+", group)) <= set(ROWS), (path.name, group)
            named += 1
    assert named > 0
