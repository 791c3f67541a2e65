"""Links to the rows of the errata: a small book of two pages, built by Sphinx with this part of the theme."""

import re
import sys
from pathlib import Path

import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

sys.path.append(str(Path(__file__).parent.parent / "theme"))
from errata import NAMED, linked

ROWS = """---
orphan: true
---

# Errata

| id | what is wrong |
|---|---|
| F1 | the sum |
| C12 | the default, erratum F1 |
"""
FORMS = {
    "an inline link": "see [F1](#erratum-f1)",
    "a reference with its text": "see {ref}`F1 <erratum-f1>`",
    "the title of a box": ":::{admonition} The article, 4.2 ([F1](#erratum-f1))\n:class: note\nText.\n:::",
    "the word and the name": "it sums to τ (erratum F1)",
    "in bold": "**It sums to τ (erratum F1).**",
    "the first of two": "see errata F1 and C12",
}


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """One chapter of that text beside the errata: its HTML and what Sphinx warned of."""

    def run(text):
        place = tmp_path_factory.mktemp("book")
        for name, content in {"reference/errata.md": ROWS, "chapters/a.md": f"# A\n\n{text}\n"}.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(content)
        settings = {
            "extensions": ["myst_parser", "errata"],
            "source_suffix": {
                ".md": "markdown"
            },  # its own: Sphinx adds to the default, which all builds of a run share
            "myst_enable_extensions": ["colon_fence"],
            "nitpicky": True,
            "root_doc": "chapters/a",
        }
        warned = place / "warnings"
        with docutils_namespace(), warned.open("w") as log:
            out, trees = place / "build/html", place / "build/trees"
            app = Sphinx(place, None, out, trees, "html", settings, status=None, warning=log)
            app.build()
        return (
            (out / "chapters/a.html").read_text(),
            (out / "reference/errata.html").read_text(),
            warned.read_text(),
        )

    return run


@pytest.mark.parametrize("form", FORMS)
def test_each_form_leads_to_the_row(build, form):
    chapter, page, warned = build(FORMS[form])
    assert warned == ""
    assert re.search(r'href="\.\./reference/errata\.html#erratum-f1"', chapter)
    assert re.search(r'<tr[^>]* id="erratum-f1"', page) and 'href="#erratum-f1"' in page
    assert chapter.count("erratum-c12") == (form == "the first of two")


def test_a_row_that_is_not_there_is_a_warning(build):
    for text in ("see [F7](#erratum-f7)", "see erratum F7"):
        assert "erratum-f7" in build(text)[2]


@pytest.mark.parametrize(
    "text", ["see `erratum F1`", "see [erratum F1](https://example.org)", "F1 and T1 alone"]
)
def test_code_links_and_bare_names_stay_as_they_are(build, text):
    assert "errata.html#" not in build(text)[0]


def test_a_list_of_names_is_cut_at_its_names():
    text = "see errata F1, C2 and R3. T4"
    made = linked(text, "chapters/a")
    assert "".join(node.astext() for node in made) == text
    assert [node["reftarget"] for node in made[1::2]] == ["erratum-f1", "erratum-c2", "erratum-r3"]
    assert not NAMED.search("erratum X1") and not NAMED.search("erratum F1a")
