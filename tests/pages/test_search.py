"""The search of the built pages, as a reader types into it: symbols, formulas and functions lead to their place."""

from urllib.parse import quote

import pytest

from tests.pages.conftest import PAGES

# what is typed → where the first answer leads
FIRST = {
    "KL": "reference/notation.html#symbol-kl",
    "T²": "reference/notation.html#symbol-t2",
    "α": "reference/notation.html#symbol-alpha",
    "alpha": "reference/notation.html#symbol-alpha",
    "kd_loss": "reference/api.html#api-losses-kd_loss",
    "eq-kd-loss": "chapters/03_algorithm.html#equation-eq-kd-loss",
    "ECE": "chapters/05_project.html#equation-eq-ece",
    "dark knowledge": "reference/glossary.html#term-dark-knowledge",
}


def answers(page, address: str, words: str) -> list[str]:
    page.goto(f"{address}/search.html?q={quote(words)}")
    page.wait_for_function(
        "/finished|did not match/.test(document.querySelector('.search-summary')?.innerText)"
    )
    return page.locator("ul.search li > a").evaluate_all("links => links.map(a => a.getAttribute('href'))")


@pytest.mark.parametrize("words", FIRST)
def test_first_answer(page, words):
    assert answers(page, PAGES.as_uri(), words)[0] == FIRST[words]


def test_a_word_of_the_text_finds_the_chapters_that_use_it(page):
    found = answers(page, PAGES.as_uri(), "softmax")
    assert {"chapters/02_concepts.html", "chapters/04_mathematics.html"} <= {a.split("#")[0] for a in found}


def test_what_a_page_keeps_on_one_line_is_found_as_it_is_typed(page):
    """The page has a no-break space before its "%" (theme/spaces.py)."""
    assert "94\N{NO-BREAK SPACE}% from one photograph" in (PAGES / "chapters/12_data.html").read_text(
        encoding="utf-8"
    )
    found = answers(page, PAGES.as_uri(), "94 % from one photograph")
    assert "chapters/12_data.html" in {a.split("#")[0] for a in found}


def test_what_is_not_in_the_book_is_not_found(page):
    assert answers(page, PAGES.as_uri(), "zebrafish") == []


@pytest.mark.parametrize("source", ["folder", "server"])
def test_the_search_is_quiet(page, heard, server, source):
    answers(page, PAGES.as_uri() if source == "folder" else server, "kd_loss")
    page.wait_for_timeout(300)
    assert heard["console"] == []


def test_the_place_found_exists(page):
    for target in FIRST.values():
        page.goto(f"{PAGES.as_uri()}/{target}")
        assert page.locator(f"[id='{target.split('#')[1]}']").count() == 1, target
