"""The plain copies beside the pages they were made from: the same words, numbers, formulas and links, in one order."""

import posixpath
import re
import sys
from functools import lru_cache
from itertools import zip_longest
from urllib.parse import unquote, urldefrag

import nbformat
import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbconvert import HTMLExporter

from tests.pages.conftest import PAGES, PATHS, ROOT

sys.path.append(str(ROOT / "theme"))
from book import pages_url

COPIES = sorted(str(p.relative_to(PAGES / "_sources")) for p in (PAGES / "_sources").rglob("*.ipynb"))
CHAPTERS = [name for name in COPIES if name.startswith("chapters/")]
# What a page has and a copy shows in another way, or not at all: code cells, and what the theme and scripts add.
AROUND = ".cell, .book-cards, .headerlink, .page-facts, .equation-test, .toctree-wrapper, #progress, script"
# A role, a directive, an option, a doubled backslash before a letter, a key of `glue`, a label, a mark of the generator.
RAW = re.compile(
    r"\{[\w:+-]+\}`|^\s*(?:`{3,}|:{3,})\{|^\s*:\w+:|\\\\[a-zA-Z]|\bch\d+_\w+|\beq-[a-z]|\bex-[a-z]|[\x01\x02]",
    re.M,
)
FENCED = re.compile(r"^(`{3,})\w*\n.*?^\1$|(`+)(?!`).*?(?<!`)\2(?!`)", re.M | re.S)


def each(names):
    """One process has all tests of a page and its copy, so that they can be read once."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names]
    )


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
    number = re.search(r"\\tag\{([\d.]+[a-z]?)\}|^\s*\(([\d.]+[a-z]?)\)(?=\s*\\\[)", formula)
    tex = re.sub(
        r"\\tag\{[\d.]+[a-z]?\}|^\s*\([\d.]+[a-z]?\)(?=\s*\\\[)|\\[()\[\]]|\\(?:begin|end)\{split\}",
        "",
        formula,
    )
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


# For looking only.
page_of, copy_of = lru_cache(maxsize=2)(of_page), lru_cache(maxsize=2)(of_copy)


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


@each(COPIES)
def test_nothing_raw_is_left(name):
    """Outside of code, and but for what the page itself shows (the labels on the page of the tests)."""
    shown = FENCED.sub("", text(name))
    assert len(shown.split()) > 20
    on_the_page = page_of(name).get_text()
    assert [found for found in RAW.findall(shown) if found not in on_the_page] == []


@each(COPIES)
def test_the_copy_says_what_the_page_says(name):
    """Every word, number, citation and formula of the text, in the page's order."""
    page, copy = (re.findall(r"[^\W_]+", soup.get_text(" ")) for soup in (page_of(name), copy_of(name)))
    assert len(page) > 20
    differs = [i for i, (a, b) in enumerate(zip_longest(page, copy)) if a != b][:1]
    assert differs == [], [
        " ".join(words[max(0, differs[0] - 5) : differs[0] + 10]) for words in (page, copy)
    ]


@each(CHAPTERS)
def test_formulas_keep_their_tex_and_their_numbers(name):
    page, copy = (
        [f.get_text().strip() for f in soup.select(".math")] for soup in (page_of(name), copy_of(name))
    )
    assert copy == page


def test_the_chapters_have_formulas():
    assert sum('class="math' in (PAGES / name).with_suffix(".html").read_text() for name in CHAPTERS) >= 8


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


@each(COPIES)
def test_links_lead_where_the_page_s_do(name):
    """To the same page and, where a copy can say it, below the same heading; a citation leads to the work it cites."""
    page, copy = of_page(name), of_copy(name)
    for summary in page.select(".solution > .admonition-title a, .dropdown > .admonition-title a"):
        summary.unwrap()  # a copy's solution is folded under a title, in which nothing can be clicked
    for label in page.select(".citation .label a"):
        label.unwrap()  # it leads back to where the work is cited
    for title in copy.select("strong a"):
        if title.parent.get_text().startswith("Solution"):
            title.unwrap()
    for file in page.select('a[href="book.pdf"], a[href="book.epub"]'):
        file.unwrap()  # they lie beside the pages, where `make downloads` put them, and not beside a copy
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


@lru_cache
def bibliography():
    return of_page("reference/bibliography.ipynb")


@lru_cache
def sources(anchor):
    """Where a cited work is found, as its entry on the page says."""
    entry = bibliography().find(id=anchor) if anchor else None
    return [a["href"] for a in entry.select("a[href]")] if entry else []


@lru_cache
def headings(name):
    return {h.get_text().replace(" ", "-") for h in of_copy(name).select("h1, h2, h3, h4, h5")}


@lru_cache
def whole(page):
    soup = BeautifulSoup((PAGES / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
    for tag in soup.select(".headerlink"):
        tag.decompose()
    return soup


@lru_cache
def above(page, anchor):
    """The heading under which an anchor stands on its page, as Jupyter writes it in an address."""
    place = whole(page).find(id=anchor)
    near = [place, *place.parents]
    box = next((tag for tag in near if "exercise" in tag.get("class", ())), None)
    section = next(
        tag for tag in near if tag.name == "section" and tag.find(re.compile("h[1-6]"), recursive=False)
    )
    title = box.select_one(".admonition-title") if box else section.find(re.compile("h[1-6]"))
    return "-".join(title.get_text().split())


@each([name for name in COPIES if not (PAGES / "_sources" / name).with_suffix(".md").exists()])
def test_code_and_outputs_are_the_source_s(name):
    """But for the set-up's beginning; folded where the page folds; a GPU is asked for where something trains."""
    copy = nbformat.read(PAGES / "_sources" / name, as_version=4)
    source = nbformat.read(ROOT / name, as_version=4)
    before, after = ([c for c in n.cells if c.cell_type == "code"] for n in (source, copy))
    setup = [c for c in after if "setup" in c.metadata.get("tags", ())]
    assert len(setup) == 1 and setup[0].source.startswith("# @title") and len(before) > 1
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a.source != b.source]
    assert [b for _, b in changed] == setup
    imports = changed[0][0].source.partition('"..[book]"])')[2]
    assert "import companion" in imports and setup[0].source.endswith(imports.lstrip("\n"))
    assert [(c.execution_count, c.outputs) for c in after] == [(c.execution_count, c.outputs) for c in before]
    folds = {"setup", "solution", "hide-input", "hide-cell"}
    assert [
        c.metadata.get("cellView") == "form" for c in after if folds & set(c.metadata.get("tags", ()))
    ] != []
    for cell in after:
        expected = bool(folds & set(cell.metadata.get("tags", ())))
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == expected
    trains = any(re.search(r"\bfit(_many)?\(", c.source) for c in before)
    assert copy.metadata.get("accelerator") == ("GPU" if trains else None)


OTHERWISE = """<!doctype html><meta charset=utf-8><body>{}<script>MathJax = {{
  tex: {{inlineMath: [['$', '$']], displayMath: [['$$', '$$']], processEscapes: true}},
  options: {{skipHtmlTags: ['script', 'style', 'pre', 'code']}}}}</script><script src="{}"></script>"""


@each(CHAPTERS)
def test_a_second_reader_of_markdown_shows_the_same(page, tmp_path, name):
    """nbconvert, as nbviewer uses it, reads Markdown otherwise than Jupyter; Colab and GitHub are like one of the two."""
    body, _ = HTMLExporter(template_name="basic", exclude_input=True, exclude_output=True).from_filename(
        str(PAGES / "_sources" / name)
    )
    sheet = tmp_path / "copy.html"
    sheet.write_text(OTHERWISE.format(body, (PAGES / "_static/tex-svg.js").as_uri()), encoding="utf-8")
    page.goto(sheet.as_uri())
    page.evaluate("MathJax.startup.promise")
    article = of_page(name)
    formulas = [f.get_text().strip() for f in article.select(".math")]
    assert page.locator("mjx-container").count() == len(formulas)
    assert page.locator("[data-mjx-error], mjx-merror").all_inner_texts() == []
    numbers = page.locator("mjx-container mlabeledtr > mtd:first-child").all_text_contents()
    assert numbers == [f[0] for formula in formulas if (f := re.match(r"\([\d.]+[a-z]?\)", formula))]
    page.evaluate("document.querySelectorAll('mjx-container').forEach(e => e.remove())")
    for formula in article.select(".math"):
        formula.extract()
    shown = page.evaluate("document.body.textContent").split("MathJax = {")[0]
    assert "$" not in shown and RAW.findall(shown) == []
    found, asked = ("".join(re.findall(r"[^\W_]+", text)) for text in (shown, article.get_text(" ")))
    assert len(asked) > 1000 and found == asked
