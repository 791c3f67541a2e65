"""The look: contrast of the colours on their pages, figures in two copies, formulas joined to tests; finding the way."""

import ast
import html
import re
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
from docutils import nodes
from docutils.utils import new_document
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

THEME = Path(__file__).parent.parent / "theme"
sys.path.insert(0, str(THEME))

import api  # noqa: E402
import book  # noqa: E402
import cards  # noqa: E402
import ebook  # noqa: E402
import figures  # noqa: E402
import finding  # noqa: E402
import folds  # noqa: E402
import numbering  # noqa: E402
import pagefacts  # noqa: E402
import report  # noqa: E402
import spaces  # noqa: E402

from companion import plotting  # noqa: E402
from tests.test_notebooks import NOTEBOOKS, cells  # noqa: E402

CSS = (THEME / "static/book.css").read_text()
PAPER = {False: ("#ffffff", "#f5f6f8"), True: ("#14181e", "#1d232b", "#121212")}


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_the_extremes():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("drawn", figures.COLOURS)
def test_every_colour_can_be_read_as_text(drawn, dark):
    for paper in PAPER[dark]:
        assert contrast(figures.COLOURS[drawn][dark], paper) >= 4.5


def test_plotting_and_style_sheet_have_the_same_colours():
    named = dict(zip(("teacher", "student", "baseline", "article", "book-ink"), figures.COLOURS, strict=True))
    drawn = (plotting.TEACHER, plotting.STUDENT, plotting.BASELINE, plotting.ARTICLE, plotting.INK)
    assert tuple(named.values()) == drawn
    for name, colour in named.items():
        light, dark = re.findall(rf"--{name}: (#\w{{6}});", CSS)[:2]
        assert (light, dark) == figures.COLOURS[colour]


def test_a_figure_becomes_two_of_which_each_keeps_its_alt_text():
    html = '<p><img alt="bars" src="../_images/a1.svg" /></p><img src="../_images/b.png" />'
    both = figures.IMAGE.sub(figures.pair, html)
    assert both.count('alt="bars"') == 2 and both.count("b.png") == 1
    assert 'class="only-light"' in both and 'src="../_images/a1.dark.svg"' in both


def test_recolouring_leaves_other_colours_and_does_not_repeat():
    once = figures.recoloured('<path style="fill: #2F7FC1; stroke: #123456"/>', dark=False)
    assert once == '<path style="fill: #1b66a8; stroke: #123456"/>'
    assert figures.recoloured(once, dark=False) == once


def test_a_formula_becomes_mathml_with_its_source_as_the_alternative():
    math = ElementTree.fromstring(ebook.mathml(r"p_c < \frac{e^{z_c/T}}{2}", "inline"))
    names = [element.tag.split("}")[1] for element in math.iter()]
    assert math.tag == "{http://www.w3.org/1998/Math/MathML}math" and "mfrac" in names and "msub" in names
    assert math.get("alttext") == r"p_c < \frac{e^{z_c/T}}{2}" and math.get("display") == "inline"


@pytest.mark.parametrize("latex", [r"a &= b \\ c &= d", r"\begin{aligned}a &= b \\ c &= d\end{aligned}"])
def test_lines_of_a_formula_become_rows(latex):
    rows = ElementTree.fromstring(ebook.mathml(latex, "block"))
    assert [element.tag.split("}")[1] for element in rows.iter()].count("mtr") == 2


@pytest.mark.parametrize("latex", [r"x + \nosuchmacro{y}", r"\begin{gathered}a &= b \\ c &= d\end{gathered}"])
def test_a_formula_that_the_converter_does_not_know_is_refused(latex):
    with pytest.raises(ValueError, match=r"latex2mathml left (.nosuchmacro|&) in the formula"):
        ebook.mathml(latex, "inline")


def tree_of_two_pages():
    """What Sphinx makes for one page of the whole book: two files, each with an id1, and a link to the second."""
    document = new_document("index")
    for page in ("chapters/a", "reference/b"):
        file = addnodes.start_of_file(docname=page)
        file += nodes.target(ids=["id1"])
        file += nodes.target(ids=[page[-1], "id1"])
        document += file
    document[0] += nodes.reference(refuri="#document-reference/b#id1")
    document[0] += nodes.reference(refuri="#document-reference/b#b")
    document[1] += nodes.reference(refid="id1")
    return document


def test_on_one_page_for_the_whole_book_ids_are_unique_and_links_follow():
    document = tree_of_two_pages()
    ebook.unique_ids(SimpleNamespace(builder=SimpleNamespace(name="singlehtml")), document, "index")
    ids = [i for node in document.findall(nodes.target) for i in node["ids"]]
    assert ids == ["chapters-a-id1", "a", "reference-b-id1", "b"]
    links = [node.get("refuri") or node["refid"] for node in document.findall(nodes.reference)]
    assert links == ["#document-reference/b#reference-b-id1", "#document-reference/b#b", "reference-b-id1"]


def test_the_front_page_offers_downloads_only_where_both_lie_beside_it(tmp_path):
    tags = set()
    app = SimpleNamespace(outdir=tmp_path, tags=tags)
    for name in ebook.DOWNLOADS:
        ebook.configure(app, SimpleNamespace(html_title="t", author="a"))
        assert not tags
        (tmp_path / name).touch()
    ebook.configure(app, SimpleNamespace(html_title="t", author="a"))
    assert tags == {"downloads"}


def test_a_figure_keeps_its_room_while_it_loads(tmp_path):
    (tmp_path / "a.svg").write_text('<svg xmlns="x" width="300pt" height="150.3pt" viewBox="0 0 1 1"/>')
    html = '<img alt="bars" src="../_images/a.svg" /><img src="_images/other.svg" />'
    found = figures.sized(html, {"a.svg": tmp_path / "a.svg"})
    assert '<img width="400" height="200" alt="bars"' in found and '<img src="_images/other.svg" />' in found


# ------------------------------------------------------------------------------------- pages, formulas, functions


@pytest.fixture
def nowhere(monkeypatch):
    """An environment that knows no address."""
    for name in ("BOOK_REPOSITORY", "BOOK_PAGES_URL", "GITHUB_SERVER_URL", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, ""),
        ({"BOOK_PAGES_URL": "https://book.example/kd"}, "https://book.example/kd/"),
        ({"BOOK_REPOSITORY": "https://github.com/Someone/book"}, "https://someone.github.io/book/"),
        ({"BOOK_REPOSITORY": "https://github.com/some/some.github.io/"}, "https://some.github.io/"),
        ({"BOOK_REPOSITORY": "https://git.example/some/book"}, ""),
        (
            {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "a/b"},
            "https://a.github.io/b/",
        ),
    ],
)
def test_the_pages_address_is_derived_and_never_invented(nowhere, environment, address):
    for name, value in environment.items():
        nowhere.setenv(name, value)
    assert book.pages_url() == address


@pytest.mark.parametrize(
    ("tex", "typed"),
    [
        (r"\alpha", ["α", "alpha"]),
        (r"\mathrm{KL}(p \Vert q)", ["KL"]),
        ("T^2", ["T²"]),
        (r"h_s,\ h_t", ["h_s", "h_t"]),
        (r"\tilde z,\ \tilde v", ["z", "v"]),
        (r"x + y", []),
    ],
)
def test_symbols_as_a_reader_types_them(tex, typed):
    assert finding.spellings(tex) == typed


def test_docstrings_become_lists_with_links_to_formulas():
    text = """Soft term, T² KL(p ‖ q) (eq-kd-loss).

Args:
    z: logits (N, C),
        finite.
    T: above 0 | *not* 1.

Returns:
    A number, 0 only where
    both agree.

Raises:
    ValueError: z_s `is_bad`."""
    lines = api.docstring(text)
    assert lines[0] == "Soft term, T² KL(p ‖ q) {eq}`eq-kd-loss`."
    assert "**Args**" in lines and "**Raises**" in lines
    assert "- z: logits (N, C)," in lines and "  finite." in lines
    assert "- A number, 0 only where" in lines and "  both agree." in lines  # one sentence, one item
    assert r"- T: above 0 \| \*not\* 1." in lines and r"- ValueError: z\_s `is_bad`." in lines


def test_signatures():
    function, kind = ast.parse("def f(a, b=2) -> float: pass\nclass A: pass").body
    assert (api.signature(function), api.signature(kind)) == ("f(a, b=2) → float", "class A")


def test_the_reference_finds_chapters_by_their_code():
    users = {page for page, code in api.chapter_code().items() if "kd_loss" in code}
    assert "04_mathematics" in users and len(api.chapter_code()) >= 9


def test_formulas_lead_to_their_tests():
    tests = pagefacts.equation_tests()
    files = {name for name, _ in tests["eq-kd-loss"]}
    assert files and all((THEME.parent / "tests" / name).exists() for name in files)
    assert all(source.startswith("def test_") for found in tests.values() for _, source in found)


def test_claims_are_marked_line_by_line():
    html = "<pre><span></span>✓ one\nn = 2\n✓ two\n✓ three\n</pre> and a ✓ in the text"
    marked = pagefacts.CLAIM.sub(lambda m: f"{m[1]}[{m[2]}]", html)
    assert marked == "<pre><span></span>[✓ one]n = 2\n[✓ two][✓ three]</pre> and a ✓ in the text"


def doctree(*children):
    document = new_document("page")
    document.extend(children)
    return document


def test_reading_time_counts_words_and_code_but_no_output():
    code = nodes.container("", nodes.literal_block("", "x = 1\n" * 39), classes=["cell_input"])
    printed = nodes.literal_block("", "1\n" * 900, classes=["output", "stream"])  # as MyST-NB makes it
    output = nodes.container("", printed, classes=["cell_output"])
    words = nodes.paragraph("", "word " * 400)
    assert pagefacts.minutes(doctree(words)) == 2
    assert pagefacts.minutes(doctree(words, code, output)) == 4
    folded = HideCodeCellNode()
    folded += code.deepcopy()
    assert pagefacts.minutes(doctree(words, folded, output)) == 2
    box = nodes.admonition("", nodes.title("", "By hand"), words.deepcopy(), classes=["dropdown"])
    assert pagefacts.minutes(doctree(words, box)) == 2
    assert pagefacts.minutes(doctree(nodes.paragraph("", "short"))) == 1


def test_description_is_the_first_paragraph_cut_between_words():
    assert pagefacts.description(doctree(nodes.paragraph("", "A  small\nbook."))) == "A small book."
    long = pagefacts.description(doctree(nodes.paragraph("", "word " * 100)))
    assert len(long) <= 300 and long.endswith("word…")
    assert pagefacts.description(doctree()) == ""


# "~" stands for a no-break space, "_" for the end of a node: a number that a run gave is one of its own.
@pytest.mark.parametrize(
    "text",
    [
        "right on 84~% of them", "_84_~% of them", "gains 0.7~±~0.3 points, _0.7_~±~_0.3_ points", "is wide (±~6.3)",
        "at T~=~4, α~=~0.5 and d~=~−1; k~=~_2_", "for w~>~0", "Tian~et~al., see chapter~8",
        "A “±” is an interval", "steps = 4, T = λ and A = b", "per cent of T", "the metal et alia",
    ],
)  # fmt: skip
def test_what_belongs_together_stays_on_one_line(text):
    block = nodes.paragraph()
    for piece in text.replace("~", " ").split("_"):
        block += nodes.inline("", piece)
    spaces.join(block)
    assert block.astext() == text.replace("~", spaces.NO_BREAK).replace("_", "")
    assert [len(node.astext()) for node in block.children] == [len(piece) for piece in text.split("_")]


def test_code_formulas_and_titles_keep_their_spaces():
    block = nodes.paragraph("", "84 ")
    block += [nodes.literal("", "T = 4"), nodes.Text(" %, "), nodes.math("", "T = 4")]
    page = doctree(nodes.title("", "Why T = 4"), block)
    page += nodes.literal_block("", "T = 4")
    page += nodes.paragraph("", "T = 4")
    for builder, shown in [("latex", "T = 4"), ("html", "T = 4".replace(" ", spaces.NO_BREAK))]:
        spaces.keep_together(SimpleNamespace(builder=SimpleNamespace(format=builder)), page, "page")
        assert [node.astext() for node in page.findall(nodes.Text)][-1] == shown
    assert [node.astext() for node in page.findall(nodes.Text)][:-1] == [
        "Why T = 4",
        "84 ",
        "T = 4",
        " %, ",
        "T = 4",
        "T = 4",
    ]


def test_a_printed_table_is_told_from_sentences():
    assert pagefacts.is_table(" T   no T²\n 1   0.500\n16   0.031\n")
    assert not pagefacts.is_table("teacher: 91.0 % right\nstudent: 70.8 % right")
    assert not pagefacts.is_table("one line,  and spaces in it")
    assert not pagefacts.is_table("name   value\na      1\n" + 89 * "x")
    assert not pagefacts.is_table("")


@pytest.mark.parametrize("address", ["", "https://book.example/kd/"])
def test_addresses_stand_in_the_pages_only_where_they_are_known(nowhere, tmp_path, address):
    """A page built by Sphinx with this part of the theme."""
    if address:
        nowhere.setenv("BOOK_PAGES_URL", address)
    (tmp_path / "index.rst").write_text(
        "Title\n=====\n\nFirst *words*.\n\n.. math:: a = b\n   :label: eq-a\n"
    )
    settings = {"extensions": ["pagefacts", "finding"], "html_baseurl": address, "project": "A book"}
    with docutils_namespace():
        app = Sphinx(
            tmp_path, None, tmp_path / "out", tmp_path / "trees", "html", settings, status=None, warning=None
        )
        app.build()
    out = tmp_path / "out"
    page = (out / "index.html").read_text()
    assert bool(address) == (out / "404.html").exists() == (out / "sitemap.xml").exists()
    assert bool(address) == ("og:url" in page) == ("og:image" in page)
    assert '"eq-a": [[0, "equation-eq-a", true]]' in (out / "searchindex.js").read_text()
    if address:
        assert "<loc>https://book.example/kd/index.html</loc>" in (out / "sitemap.xml").read_text()
        assert 'content="https://book.example/kd/_static/cover.png"' in page
        assert 'href="https://book.example/kd/index.html"' in (out / "404.html").read_text()


def test_numbers_in_a_row_and_letters_in_folds():
    assert numbering.numbered([False, True, True, False, True], 3) == [
        (3, 1), (3, "1a"), (3, "1b"), (3, 2), (3, "2a")
    ]  # fmt: skip
    assert numbering.numbered([False, False], None) == [(1,), (2,)]
    with pytest.raises(ValueError, match="chapter 3: more than 26 in folds after number 1"):
        numbering.numbered([False, *[True] * 27], 3)


def test_a_chapter_numbers_its_figures_and_formulas(tmp_path):
    """Two chapters built by Sphinx, with a box in one of them; then again, with a figure more in the first."""
    figure = "\n.. figure:: a.svg\n   :name: {0}\n\n   A line.\n\n"
    boxed = "\n.. admonition:: More\n   :class: dropdown\n\n   .. math:: a = b\n      :label: eq-folded\n\n"
    formula = "\n.. math:: b = c\n   :label: eq-open\n\n"
    (tmp_path / "chapters").mkdir()
    (tmp_path / "a.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt"/>')
    (tmp_path / "index.rst").write_text(
        "A book\n======\n\n.. toctree::\n\n   chapters/03_first\n   chapters/04_next\n"
    )
    last = "Next\n====\n\nSee :numref:`fig-one`, :eq:`eq-folded` and :eq:`eq-open`.\n" + figure.format(
        "fig-next"
    )
    (tmp_path / "chapters/04_next.rst").write_text(last.replace("a.svg", "/a.svg"))
    for before in ("", figure.format("fig-new")):
        first = "First\n=====\n" + before + figure.format("fig-one") + formula + boxed
        (tmp_path / "chapters/03_first.rst").write_text(first.replace("a.svg", "/a.svg"))
        with docutils_namespace():
            settings = {"extensions": ["numbering"], "numfig": True}
            app = Sphinx(tmp_path, None, tmp_path / "out", tmp_path / "trees", "html", settings, status=None)
            app.build()
        seen = re.sub("<[^>]+>", "", (tmp_path / "out/chapters/04_next.html").read_text())
        assert f"See Fig. 3.{2 if before else 1}, (3.1a) and (3.1)." in seen
        assert "Fig. 4.1" in seen


@pytest.mark.parametrize("forgets", [True, False])
def test_a_label_may_move_to_an_earlier_page(tmp_path, forgets):
    """Someone who has built the pages takes over a newer state, and builds again."""
    label = "\n\n.. math:: a = b\n   :label: eq-a\n"
    for a, b in (("", label), (label, "")):
        (tmp_path / "index.rst").write_text(f"A\n=\n\n.. toctree::\n\n   other\n{a}")
        (tmp_path / "other.rst").write_text(f"B\n=\n{b}")
        said = StringIO()
        with docutils_namespace():
            out, trees = tmp_path / "out", tmp_path / "trees"
            app = Sphinx(tmp_path, None, out, trees, "html", status=None, warning=said)
            if forgets:
                app.connect("env-before-read-docs", book.forget)
            app.build()
    assert ("duplicate label" in said.getvalue()) == (not forgets), said.getvalue()


def test_the_epub_can_set_each_displayed_formula():
    """Known here within seconds, and not only when the EPUB is made."""
    text = "\n".join(c.source for path in NOTEBOOKS for c in cells(path, "markdown"))
    displayed = re.findall(r"```\{math\}\n(?::\w+:[^\n]*\n)*(.*?)```", text, re.S)
    assert len(displayed) > 60
    for formula in displayed:
        assert "<math" in ebook.mathml(formula.strip(), "block")


@pytest.mark.parametrize(("builder", "open_"), [("html", False), ("singlehtml", True), ("epub", True)])
def test_folded_cells_stand_open_on_paper(builder, open_):
    document = doctree(HideCodeCellNode("", nodes.paragraph("", "code")))
    document.settings.env = SimpleNamespace(app=SimpleNamespace(builder=SimpleNamespace(name=builder)))
    ebook.Unfolded(document).run()
    assert isinstance(document[0], nodes.paragraph if open_ else HideCodeCellNode)
    assert document.astext() == "code"


def test_a_fold_around_a_whole_cell_opens_too_though_it_does_not_know_its_parent():
    whole = HideCodeCellNode()
    whole.children = [HideCodeCellNode("", nodes.paragraph("", "code")), nodes.paragraph("", "printed")]
    cell = nodes.container()
    cell.children = [whole]  # as myst-nb does it
    document = doctree(cell)
    document.settings.env = SimpleNamespace(app=SimpleNamespace(builder=SimpleNamespace(name="epub")))
    ebook.Unfolded(document).run()
    assert [type(child) for child in cell] == [nodes.paragraph, nodes.paragraph]
    assert all(child.parent is cell for child in cell)


def folded_cell(code, printed=""):
    """A cell as myst-nb leaves it for the pages: its code in a fold, and what it printed."""
    fold = HideCodeCellNode("", nodes.container("", nodes.paragraph("", code)), classes=["above-input"])
    output = nodes.literal_block(printed, printed, classes=["output", "stream"])
    return nodes.container("", fold, nodes.container("", *[output] * bool(printed)), nb_element="cell_code")


def folded(*children, builder="html"):
    section = nodes.section("", *children)
    document = doctree(section)
    document.settings.env = SimpleNamespace(app=SimpleNamespace(builder=SimpleNamespace(name=builder)))
    folds.OneFold(document).run()
    return section


def folds_in(section):
    return [fold.astext().split() for fold in section.findall(HideCodeCellNode)]


def test_cells_in_a_row_share_one_fold_and_text_begins_another():
    section = folded(folded_cell("a"), folded_cell("b", "1"), nodes.paragraph("", "x"), folded_cell("c", "2"))
    assert folds_in(section) == [["a", "b"], ["c"]]
    assert [cell["classes"] for cell in section.findall(folds.is_cell)] == [[], [], []]
    assert section.astext().split() == ["1", "a", "b", "x", "2", "c"]


def test_code_that_shows_nothing_joins_the_fold_before_it():
    section = folded(
        folded_cell("a", "1"), nodes.paragraph("", "x"), folded_cell("b"), nodes.paragraph("", "y")
    )
    assert folds_in(section) == [["a", "b"]]
    assert [cell["classes"] for cell in section.findall(folds.is_cell)] == [[], ["folded-above"]]


def test_a_cell_that_is_folded_whole_keeps_its_place():
    whole = folded_cell("b")
    whole["hide_mode"] = "all"
    section = folded(folded_cell("a", "1"), nodes.paragraph("", "x"), whole, nodes.paragraph("", "y"))
    assert folds_in(section) == [["a"], ["b"]]
    assert [cell["classes"] for cell in section.findall(folds.is_cell)] == [[], []]


def test_claims_stand_behind_one_line_and_the_code_beside_it_under_what_the_cells_show():
    printed = [["✓ 1", "n = 5", "✓ 2"], ["✓ 3"]]
    section = folded(*(folded_cell(f"c{i}", "\n".join(lines)) for i, lines in enumerate(printed)))
    code, claims = section.children[-1].children[-2:]
    assert claims["prompt_show"] == "✓ 3 claims checked" and claims.astext() == "✓ 1\n✓ 2\n✓ 3"
    assert code["prompt_show"] == "Code" and code.astext().split() == ["c0", "c1"]
    assert section.children[0].astext().split() == ["n", "=", "5"]  # what it printed is seen, and first


@pytest.mark.parametrize(
    ("most", "words", "shown"),
    [(1, "✓ 2 more claims checked", ["✓ 1"]), (2, "✓ 1 more claim checked", ["✓ 1", "✓ 2"])],
)
def test_a_tag_says_how_many_claims_show(most, words, shown):
    tagged = folded_cell("b", "✓ 2\n✓ 3")
    tagged["classes"].append(f"tag_claims-{most}")
    section = folded(folded_cell("a", "✓ 1"), tagged)
    more = section.children[-1].children[-1]
    assert more["prompt_show"] == words
    rest = section.astext().replace(more.astext(), "")
    assert [line for line in rest.splitlines() if line.startswith("✓")] == shown
    assert more.astext().split("\n") == ["✓ 1", "✓ 2", "✓ 3"][most:]


def test_an_exercises_tick_is_an_answer_and_stays():
    cell = folded_cell("check", "✓ soften")
    cell["classes"].append("tag_solution")
    assert len(folds_in(folded(cell))) == 1


def test_code_that_is_read_parts_the_folds():
    """The fold of what stands before it is not carried past it."""
    read = nodes.container(
        "", nodes.container("", nodes.paragraph("", "read"), classes=["cell_input"]), nb_element="cell_code"
    )
    section = folded(folded_cell("a", "1"), read, folded_cell("b", "2"))
    assert section.astext().split() == ["1", "a", "read", "2", "b"]


def test_claims_in_a_fold_of_their_own_stay_in_it():
    cell, claims = folded_cell("c"), "✓ 1\n✓ 2\n✓ 3\n✓ 4"
    cell += HideCodeCellNode(
        "", nodes.literal_block(claims, claims, classes=["output", "stream"]), classes=["below-input"]
    )
    section = folded(cell)
    assert folds_in(section) == [["c"], claims.split()]


def test_on_paper_cells_are_left_as_they_are():
    section = folded(folded_cell("a", "✓ 1\n✓ 2"), folded_cell("b", "✓ 3\n✓ 4"), builder="singlehtml")
    assert len(folds_in(section)) == 2 and section.astext().count("✓") == 4


# ------------------------------------------------------------------------------------------------------------ cards


def glossary():
    """Two terms as Sphinx has them: one with a formula, code and a link, one with a second name."""
    first = nodes.paragraph("", "", nodes.Text("5 < 6, "), nodes.math("", "x"), nodes.Text(", "))
    first += [nodes.literal("", "f()"), nodes.reference("", "", nodes.Text("linked"), refuri="#b")]
    items = [
        nodes.definition_list_item("", nodes.term("", "a", ids=["term-a"]), nodes.definition("", first)),
        nodes.definition_list_item(
            "", nodes.term("", "b", ids=["term-b"]), nodes.term("", "B", ids=["term-B"]),
            nodes.definition("", nodes.paragraph("", "Text.")),
        ),
    ]  # fmt: skip
    return doctree(nodes.definition_list("", *items))


def test_definitions_become_cards_without_links():
    found = cards.definitions(glossary())
    assert list(found) == ["term-a", "term-b", "term-B"] and found["term-B"] == "<strong>B</strong> Text."
    assert found["term-a"].startswith("<strong>a</strong> 5 &lt; 6, <math") and "<a" not in found["term-a"]
    assert found["term-a"].endswith("<code>f()</code>linked")


def test_links_to_terms_and_works_name_their_cards():
    term = '<a class="reference internal" href="../reference/glossary.html#term-a">a</a>'
    work = '<a class="reference internal" href="../reference/bibliography.html#id1" title="A &amp; B. C &lt; D.">2020</a>'
    body = cards.with_cards(f"<p>{term} {term} {work}</p>", cards.definitions(glossary()))
    assert body.count('aria-describedby="card-term-a"') == 2 and body.count('id="card-term-a"') == 1
    assert 'title="' not in body and 'role="tooltip" id="card-id1">A &amp; B. C &lt; D.</div>' in body


def test_other_links_have_no_card():
    for href in ("#terms", "glossary.html#term-unknown", "../reference/bibliography.html#id1"):
        body = f'<a class="reference internal" href="{href}">x</a>'
        assert cards.with_cards(body, cards.definitions(glossary())) == body


# ------------------------------------------------------------------------------------------------- report an error


def built_page(folder):
    """A page with the link's part of the theme, as HTML."""
    (folder / "index.rst").write_text("A & B\n=====\n\nText.\n")
    with docutils_namespace():
        out, trees = folder / "out/html", folder / "out/trees"
        settings = {"extensions": ["report"], "report_version": "1.2, commit abc"}
        Sphinx(folder, None, out, trees, "html", settings, status=None, warning=None).build()
    return (out / "index.html").read_text()


def test_an_error_is_reported_with_page_and_version(nowhere, tmp_path):
    nowhere.setenv("BOOK_REPOSITORY", "https://github.com/some/book")
    link = html.unescape(re.search(r'class="report-error"><a href="([^"]+)"', built_page(tmp_path))[1])
    assert link.startswith("https://github.com/some/book/issues/new?")
    asked = parse_qs(urlsplit(link).query)
    assert asked["title"] == ["Error in “A & B”"]
    assert asked["body"][0].startswith("Page: index\nVersion: 1.2, commit abc\n")


def test_without_an_address_there_is_no_link_to_report(nowhere, tmp_path):
    assert "report-error" not in built_page(tmp_path)


def test_the_version_names_the_commit_where_there_is_one(nowhere):
    nowhere.setenv("GITHUB_SHA", "0123456789abcdef")
    assert report.version() == f"{report.__version__}, commit 0123456"
    nowhere.delenv("GITHUB_SHA")
    nowhere.setattr(report, "ROOT", Path("/"))
    assert report.version() == report.__version__
    nowhere.setenv("PATH", "")
    assert report.version() == report.__version__
