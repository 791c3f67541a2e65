"""Every page of the built book, as a reader's browser sees it: from a folder and from a server, on a telephone
and on a screen, in light and dark."""

import re
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import expect

from tests.pages.conftest import PAGES, PATHS, SCREEN, TELEPHONE, in_scheme, rendered


def test_every_file_of_the_contents_is_a_page():
    assert "index.html" in PATHS
    assert len(PATHS) > 10


def test_quiet_and_alone(opened):
    """No error or warning in the console; no request that leaves this machine."""
    _, heard, _ = opened
    assert heard["requests"]
    assert [url for url in heard["requests"] if not url.startswith(("file://", "data:", "blob:"))] == []
    assert heard["console"] == []


def test_quiet_and_alone_from_a_server(page, heard, server, path):
    page.goto(f"{server}/{path}", wait_until="load")
    rendered(page)
    page.wait_for_timeout(300)
    assert heard["requests"]
    assert [url for url in heard["requests"] if not url.startswith((server + "/", "data:", "blob:"))] == []
    assert heard["console"] == []


def test_nothing_to_scroll_sideways(opened):
    page, _, _ = opened
    for size in (SCREEN, TELEPHONE):
        page.set_viewport_size(size)
        beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert beyond <= 0, (size, page.evaluate(WIDE))


# Which elements reach beyond the window, and are not in a box that scrolls by itself.
WIDE = """() => [...document.querySelectorAll('article *, main *, header *, footer *')]
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .filter(e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
        if (getComputedStyle(p).overflowX !== 'visible') return false; return true })
    .slice(0, 5).map(e => e.outerHTML.slice(0, 160))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_caption_is_seen(opened, scheme):
    page, _, _ = opened
    in_scheme(page, scheme)
    hidden = "[...document.querySelectorAll('figcaption')].filter(e => !e.offsetHeight).map(e => e.innerText)"
    assert page.evaluate(hidden) == []


def test_an_open_page_follows_the_system(page):
    page.goto((PAGES / "index.html").as_uri())
    for scheme in ("dark", "light", "dark"):
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("html")).to_have_attribute("data-theme", scheme)


def test_the_style_page_has_captions(page):
    page.goto((PAGES / "reference/style.html").as_uri())
    assert page.locator("figcaption").count() >= 3


def test_who_opens_no_fold_misses_no_number(opened, path):
    """Fig. 3.1, 3.2, 3.3 … and (3.1), (3.2) …: a letter is only where a fold is, and there always."""
    page, _, _ = opened
    found = page.evaluate(NUMBERS)
    for kind in ("figcaption .caption-number", ".eqno"):
        open_ones = [n for name, n, folded in found if name == kind and not folded]
        assert all(n[-1].isalpha() for name, n, folded in found if name == kind and folded), found
        chapter = re.match(r"chapters/(\d+)_", path)
        before = f"{int(chapter[1])}." if chapter else ""
        assert open_ones == [f"{before}{i + 1}" for i in range(len(open_ones))]
        assert len(open_ones) >= 3 or not chapter or kind == ".eqno"


# Each number, without its word and its brackets, and whether the reader has to open something to see it.
NUMBERS = r"""() => ['figcaption .caption-number', '.eqno'].flatMap(kind =>
    [...document.querySelectorAll(kind)].map(e => [kind, e.textContent.match(/\d[\d.]*[a-z]?/)[0],
        !!e.closest('details:not([open]), .toggle-hidden')]))"""


def test_a_number_of_a_run_is_no_bolder_than_its_sentence(opened):
    page, _, _ = opened
    bolder = """[...document.querySelectorAll('span.pasted-text')].filter(e =>
        getComputedStyle(e).fontWeight !== getComputedStyle(e.parentElement).fontWeight).map(e => e.innerText)"""
    assert page.evaluate(bolder) == []


def test_formulas_are_set_without_a_network(opened):
    page, _, _ = opened
    assert page.locator(".math:not(:has(mjx-container))").all_inner_texts() == []
    assert page.locator("[data-mjx-error]").all_inner_texts() == []


def test_a_page_asks_for_little(opened, path, record_property):
    """Files and bytes, which are the same on each machine; the summary prints how long they took on this one.

    The heaviest page asked for 35 files and 5.4 MB when this was written (half of it MathJax).
    """
    _, heard, loaded = opened
    record_property("load_ms", loaded)
    record_property("path", path)
    files = {Path(unquote(urlsplit(url).path)) for url in heard["requests"] if url.startswith("file:")}
    files = [file for file in files if file.is_file()]
    assert PAGES / path in files
    assert len(files) <= 50 and sum(file.stat().st_size for file in files) <= 7e6
    assert loaded > 0


WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# Dark pages differ from light ones by their colours and by which copy of a figure is shown, by nothing else.
DARK = ["color-contrast", "link-in-text-block", "image-alt", "svg-img-alt", "role-img-alt"]


def test_axe_finds_nothing(opened):
    page, _, _ = opened
    page.set_viewport_size(SCREEN)
    places = []
    for scheme, rules in [("light", WCAG), ("dark", DARK)]:
        in_scheme(page, scheme)
        found = Axe().run(page, options={"runOnly": rules, "resultTypes": ["violations"]})
        places += [
            f"{scheme}: {v['id']} ({v['impact']}): {n['html'][:150]} {n.get('failureSummary', '')[:300]}"
            for v in found.response["violations"]
            for n in v["nodes"][:4]
        ]
    assert places == [], "\n".join(places)


# --------------------------------------------------------------------------------------------- without a browser


@lru_cache(maxsize=4)  # for looking only: one process has all tests of a page
def soup(path):
    return BeautifulSoup((PAGES / path).read_text(encoding="utf-8"), "html.parser")


class Anchors(HTMLParser):
    """The places of a page that a link can lead to. (A soup of every page takes a hundred times as long.)"""

    def __init__(self, page):
        super().__init__()
        self.found = set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found |= {v for name, v in attributes if name == "id" or (name, tag) == ("name", "a")}


@pytest.fixture(scope="session")
def anchors():
    """The places a link can lead to, by page."""
    return {path: Anchors((PAGES / path).read_text(encoding="utf-8")).found for path in PATHS}


def test_links_lead_somewhere(path, anchors):
    """Every address of a page, file or anchor inside the book exists."""
    wrong, page = [], soup(path)
    for tag in page.find_all(href=True) + page.find_all(src=True):
        address = tag.get("href") or tag.get("src")
        url = urlsplit(address)
        if url.scheme or url.netloc:
            continue
        target = (PAGES / path).parent / unquote(url.path) if url.path else PAGES / path
        target = target.resolve()
        known = anchors.get(str(target.relative_to(PAGES)), set()) if target.is_relative_to(PAGES) else set()
        anchor = unquote(url.fragment) if target.suffix == ".html" else ""
        if not target.is_file() or (anchor and anchor not in known):
            wrong.append(address)
    assert wrong == []


def test_there_is_what_the_tests_go_through():
    """Formulas, captions, links and pictures: not on each page, but in the book, by the same selectors."""
    counts = dict.fromkeys(
        (".math", "figcaption", "[href]", "[src]", "article img, main img", ".pasted-text"), 0
    )
    for path in PATHS:
        page = soup(path)
        counts = {selector: count + len(page.select(selector)) for selector, count in counts.items()}
        if min(counts.values()) >= 5:
            return
    assert counts == {}


def test_every_picture_says_what_it_shows(path):
    pictures = soup(path).select("article img, main img")
    assert [str(p)[:200] for p in pictures if not re.search(r"\w+ \w+ \w+", p.get("alt", ""))] == []
