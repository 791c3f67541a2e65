"""The plain copies beside the pages they were made from: the same words, numbers, formulas and links, in one order."""

import posixpath
import re
import sys
from itertools import zip_longest
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

from tests.pages.conftest import PAGES, PATHS, ROOT

sys.path.append(str(ROOT / "theme"))
from book import pages_url

COPIES = sorted(str(p.relative_to(PAGES / "_sources")) for p in (PAGES / "_sources").rglob("*.ipynb"))
CHAPTERS = [name for name in COPIES if name.startswith("chapters/")]
# What a page has and a copy shows in another way, or not at all: code cells, and what the theme and scripts add.
AROUND = ".cell, .headerlink, .page-facts, .equation-test, .toctree-wrapper, #progress, script"
# A role, a directive, an option, a doubled backslash before a letter, a key of `glue`, a label, a mark of the generator.
RAW = re.compile(
    r"\{[\w:+-]+\}`|^\s*(?:`{3,}|:{3,})\{|^\s*:\w+:|\\\\[a-zA-Z]|\bch\d+_\w+|\beq-[a-z]|\bex-[a-z]|[\x01\x02]",
    re.M,
)
FENCED = re.compile(r"^(`{3,})\w*\n.*?^\1$|(`+)(?!`).*?(?<!`)\2(?!`)", re.M | re.S)


def parsed(html):
    soup = BeautifulSoup(html, "html.parser")
    for caption in soup.select(".cell figcaption"):
        caption.find_parent(class_="cell").insert_before(caption.extract())
    for tag in soup.select(AROUND):
        tag.decompose()
    for formula in soup.select(".math"):
        formula.string = f" {squeezed(formula.get_text())} "
    return soup


def squeezed(formula):
    """Its number, then its TeX without what its surroundings ask for."""
    number = re.search(r"\\tag\{(\d+)\}|^\s*\((\d+)\)(?=\s*\\\[)", formula)
    tex = re.sub(r"\\tag\{\d+\}|^\s*\(\d+\)(?=\s*\\\[)|\\[()\[\]]|\\(?:begin|end)\{split\}", "", formula)
    tex = tex.replace("\\Vert ", "\\|").replace("\\vert ", "|")
    return (f"({number[1] or number[2]}) " if number else "") + re.sub(r"\s", "", tex)


def of_page(name):
    """The page's article without code cells; the captions of their figures stay."""
    return parsed((PAGES / name).with_suffix(".html").read_text(encoding="utf-8")).select_one("article")


def of_copy(name):
    """The copy's Markdown cells."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable("table")
    markdown.use(dollarmath_plugin, allow_space=True, double_inline=True)
    return parsed(markdown.render(text(name)))


def text(name):
    notebook = nbformat.read(PAGES / "_sources" / name, as_version=4)
    nbformat.validate(notebook)
    return "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def test_every_page_has_its_copy():
    assert len(CHAPTERS) >= 9
    made_by_sphinx = {"search.html", "genindex.html", "404.html"}
    assert {str(PAGES / p) for p in PATHS} - {str(PAGES / p) for p in made_by_sphinx} == {
        str((PAGES / name).with_suffix(".html")) for name in COPIES
    }


def test_the_patterns_see_what_they_look_for():
    raw = [
        "{cite:p}`hinton2015`",
        "```{math}",
        ":label: x",
        r"p = \\frac",
        "ch1_params:.0f",
        "eq-soften",
        "ex-soften",
    ]
    assert [RAW.search(text) is not None for text in raw] == [True] * len(raw)
    assert not RAW.search(r"$$ \begin{split}a \\ b\end{split} \tag{11} $$ {x} 3:1 exp-1")
    assert squeezed(r"(11) \[ a\|b \]") == squeezed("a \\Vert b \\tag{11}") == r"(11) a\|b"


@pytest.mark.parametrize("name", COPIES)
def test_nothing_raw_is_left(name):
    """Outside of code, and but for what the page itself shows (the labels on the page of the tests)."""
    shown = FENCED.sub("", text(name))
    assert len(shown.split()) > 20
    on_the_page = of_page(name).get_text()
    assert [found for found in RAW.findall(shown) if found not in on_the_page] == []


@pytest.mark.parametrize("name", COPIES)
def test_the_copy_says_what_the_page_says(name):
    """Every word, number, citation and formula of the text, in the page's order."""
    page, copy = (re.findall(r"[^\W_]+", soup.get_text(" ")) for soup in (of_page(name), of_copy(name)))
    assert len(page) > 20
    differs = [i for i, (a, b) in enumerate(zip_longest(page, copy)) if a != b][:1]
    assert differs == [], [
        " ".join(words[max(0, differs[0] - 5) : differs[0] + 10]) for words in (page, copy)
    ]


@pytest.mark.parametrize("name", CHAPTERS)
def test_formulas_keep_their_tex_and_their_numbers(name):
    page, copy = (
        [f.get_text().strip() for f in soup.select(".math")] for soup in (of_page(name), of_copy(name))
    )
    assert len(page) > 0
    assert copy == page


def target(name, address):
    """A link of a page or copy as the page that it leads to, and the anchor there."""
    path, anchor = urldefrag(address)
    whole = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
    return whole.rsplit(".", 1)[0], unquote(anchor)


def links(soup):
    return [
        (" ".join(a.get_text(" ").split()), a["href"])
        for a in soup.select("a[href]")
        if a.get_text(strip=True)
    ]


@pytest.mark.parametrize("name", COPIES)
def test_links_lead_where_the_page_s_do(name):
    """To the same page and, where a copy can say it, below the same heading; a citation leads to the work it cites."""
    page, copy = of_page(name), of_copy(name)
    for summary in page.select(".solution > .admonition-title a, .dropdown > .admonition-title a"):
        summary.unwrap()  # a copy's solution is folded under a title, in which nothing can be clicked
    for title in copy.select("strong a"):
        if title.parent.get_text().startswith("Solution"):
            title.unwrap()
    asked, given = links(page), links(copy)
    assert [words for words, _ in given] == [words for words, _ in asked]
    assert asked or name in ("reference/style.ipynb",)
    for (words, there), (_, here) in zip(asked, given, strict=True):
        where, anchor = target(name, there)
        if there.startswith("http"):
            assert here == there
        elif where == "reference/bibliography" and (works := sources(anchor)):
            assert here in works, words
        elif home := pages_url():
            assert here == f"{home}{where}.html" + (f"#{anchor}" if anchor else "")
        else:
            leads, heading = target(name, here)
            assert leads == where and (PAGES / "_sources" / f"{leads}.ipynb").exists(), (there, here)
            if where == "reference/bibliography":
                continue  # a work without an address
            assert bool(heading) == bool(anchor)
            assert not anchor or (
                heading in headings(f"{leads}.ipynb") and above(where, anchor) == heading
            ), here


def sources(anchor):
    """Where a cited work is found, as its entry on the page says."""
    entry = of_page("reference/bibliography.ipynb").find(id=anchor) if anchor else None
    return [a["href"] for a in entry.select("a[href]")] if entry else []


def headings(name):
    return {h.get_text().replace(" ", "-") for h in of_copy(name).select("h1, h2, h3, h4, h5")}


def above(page, anchor):
    """The heading under which an anchor stands on its page, as Jupyter writes it in an address."""
    place = of_page(f"{page}.ipynb").find(id=anchor)
    box = place.find_parent(class_="exercise") or (place if "exercise" in place.get("class", ()) else None)
    title = (
        box.select_one(".admonition-title")
        if box
        else place.find_parent("section").find(re.compile("h[1-6]"))
    )
    return title.get_text().strip().replace(" ", "-")
