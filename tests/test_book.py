"""The book as a whole: contents against files, headings, equations against tests, functions against chapters."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from tests.test_notebooks import CHAPTERS, NOTEBOOKS, ROOT, cells

TESTS = {path.name: path.read_text() for path in Path(__file__).parent.glob("test_*.py")}
PAGES = {path: "\n\n".join(c.source for c in cells(path, "markdown")) for path in NOTEBOOKS}
MARKDOWN = {path: path.read_text() for path in [ROOT / "index.md", *ROOT.glob("reference/*.md")]}


def headings(path):
    return re.findall(r"^#+ (.+)$", PAGES[path], re.M)


def test_contents_and_files_agree():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = {toc["root"]} | {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    found = {str(p.relative_to(ROOT).with_suffix("")) for p in [*NOTEBOOKS, *MARKDOWN]}
    assert listed == found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_required_headings(path):
    found = headings(path)
    number = int(path.stem[:2])
    assert found[0].startswith(f"{number} ")
    for heading in ("What you will learn", "Exercises", "Summary", "Further reading"):
        assert heading in found, f"{path.stem} lacks “{heading}”"
    assert found.index("What you will learn") < found.index("Exercises") < found.index("Summary")
    assert "**Article:**" in PAGES[path] and "**Time:**" in PAGES[path]


def gaps(number, text):
    """Numbered headings of a chapter that do not follow the one before: 3.1, 3.2, 3.2.1, 3.2.2, 3.3 do."""
    last = []
    for found in re.findall(rf"^#+ {number}\.(\d+(?:\.\d+)*) ", text, re.M):
        now = [int(n) for n in found.split(".")]
        depth = len(now) - 1
        if now != [*last[:depth], *(0,) * (depth - len(last)), last[depth] + 1 if depth < len(last) else 1]:
            yield f"{number}.{found} after {'.'.join(map(str, [number, *last]))}"
        last = now


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_numbered_sections_run_without_gaps(path):
    """A section whose heading is lost is read as part of the one before."""
    number = int(path.stem[:2])
    assert list(gaps(number, PAGES[path])) == []
    assert re.search(rf"^## {number}\.1 ", PAGES[path], re.M)


@pytest.mark.parametrize(
    "text", ["## 3.2 A", "## 3.1 A\n## 3.3 B", "## 3.1 A\n### 3.1.2 B", "## 3.1 A\n## 3.1 B"]
)
def test_a_gap_between_sections_is_seen(text):
    assert list(gaps(3, text))
    assert not list(gaps(3, "## 3.1 A\n### 3.1.1 B\n### 3.1.2 C\n## 3.2 D\n### 3.2.1 E"))


def test_every_equation_has_its_test():
    text = "\n".join(PAGES.values()) + "\n".join(MARKDOWN.values())
    labels = re.findall(r":label:\s*(eq-[\w-]+)", text) + re.findall(r"\$\$\s*\((eq-[\w-]+)\)", text)
    tested = set(re.findall(r'mark\.equation\("(eq-[\w-]+)"\)', "".join(TESTS.values())))
    assert len(labels) == len(set(labels)), "a label is defined twice"
    assert set(labels) == tested


def test_docstrings_name_equations_that_exist():
    labels = set(re.findall(r":label:\s*(eq-[\w-]+)", "\n".join(PAGES.values())))
    named = {
        path.name: set(re.findall(r"\beq-[a-z-]*[a-z]", path.read_text()))
        for path in (ROOT / "companion").rglob("*.py")
    }
    assert (
        named["losses.py"] and {name: found - labels for name, found in named.items() if found - labels} == {}
    )


def public(path):
    """Functions and classes without a leading underscore, of modules without one."""
    if path.stem.startswith("_") and path.stem != "__init__":
        return []
    nodes = ast.parse(path.read_text()).body
    return [n for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]


def test_every_public_function_is_used_in_a_chapter():
    """Or by a script that makes what the chapters ship with. (A class that a function returns needs no name.)"""
    code = "\n".join(c.source for path in NOTEBOOKS for c in cells(path, "code"))
    code += "\n".join(
        path.read_text() for folder in ("scripts", "experiments") for path in ROOT.glob(f"{folder}/*.py")
    )
    code += (ROOT / "companion/__init__.py").read_text()  # setup() is in every chapter
    unused = [
        f"{path.stem}.{node.name}"
        for path in sorted((ROOT / "companion").rglob("*.py"))
        for node in public(path)
        if isinstance(node, ast.FunctionDef) and not re.search(rf"\b{node.name}\b", code)
    ]
    assert unused == []


def test_every_public_function_is_documented():
    for path in sorted((ROOT / "companion").rglob("*.py")):
        assert ast.get_docstring(ast.parse(path.read_text()))
        for node in public(path):
            assert ast.get_docstring(node), f"{path.stem}.{node.name}"


def test_every_citation_is_listed_and_every_entry_cited():
    text = "\n".join(PAGES.values()) + "\n".join(MARKDOWN.values())
    cited = {
        key.strip() for found in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text) for key in found.split(",")
    }
    entries = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "reference/references.bib").read_text(), re.M))
    assert cited == entries


def mapped():
    """The rows of the front page's map: chapter → its subsections, number and name."""
    rows = re.findall(
        r"^\| \d [^|:]+: ([^|]+) \| \{doc\}`chapters/(\w+)`", (ROOT / "index.md").read_text(), re.M
    )
    return {stem: names.strip().split("; ") for names, stem in rows}


def test_the_map_names_every_section_of_every_chapter_of_part_one():
    """What the map says is what the chapters' headings say, for the article's nine sections."""
    found = {
        path.stem: re.findall(r"^## (\d\.\d .+)$", PAGES[path], re.M) for path in CHAPTERS if path.stem < "10"
    }
    assert mapped() == found


def test_no_chapter_of_part_one_needs_a_later_one():
    """Its "Needs" and "What to know first" name earlier chapters only."""
    found = 0
    for path in CHAPTERS:
        own = int(path.stem[:2])
        needs = "\n".join(re.findall(r"(?:\*\*Needs:\*\*|What to know first:).*", PAGES[path]))
        named = [
            int(n) for n in re.findall(r"\{doc\}`(\d\d)_", needs) + re.findall(r"chapters? (\d+)", needs)
        ]
        assert all(n < own for n in named), (path.stem, needs)
        found += len(named)
    assert found > 0


def test_each_figure_has_a_name_of_its_own():
    """Sphinx numbers figures by their names, which are the book's, not the chapter's."""
    names = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in NOTEBOOKS
        for cell in cells(path, "code")
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert len(names) > 20
    assert [name for name in set(names) if names.count(name) > 1] == []
