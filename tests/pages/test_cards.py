"""Cards of the glossary and of the bibliography: by mouse, keyboard and touch; read out, dismissed, within the window."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import expect

from tests.pages.conftest import PAGES, PATHS
from tests.pages.test_pages import SCREEN, TELEPHONE

CARDS = "a[aria-describedby^='card-']"
LINKED = [path for path in PATHS if 'class="book-cards"' in (PAGES / path).read_text(encoding="utf-8")]
PATH = next(
    path
    for path in LINKED
    if re.search("card-term-.*card-id", (PAGES / path).read_text(encoding="utf-8"), re.S)
)


def test_chapters_and_glossary_have_cards():
    assert "reference/glossary.html" in LINKED and sum(path.startswith("chapters/") for path in LINKED) > 8


@pytest.mark.parametrize("shown", LINKED)
def test_each_link_has_its_card_and_each_card_its_link(shown):
    page = BeautifulSoup((PAGES / shown).read_text(encoding="utf-8"), "html.parser")
    named = {link["aria-describedby"] for link in page.select(CARDS)}
    cards = page.select(".book-cards > .card-text")
    assert named == {card["id"] for card in cards} and len(cards) == len(named) > 0
    assert all(len(card.text.split()) > 3 and card["role"] == "tooltip" for card in cards)
    assert page.select("a[title][aria-describedby]") == []  # else the browser shows a second one
    assert not page.select(".book-cards a")  # what is in a tooltip cannot be reached
    links = page.select("article a[href*='glossary.html#term-'], article a[href*='bibliography.html#id']")
    assert [str(link) for link in links if not link.get("aria-describedby")] == []


@pytest.fixture
def opened(page, heard):
    page.set_viewport_size(SCREEN)
    page.goto((PAGES / PATH).as_uri())
    yield page
    assert heard["console"] == []
    assert [url for url in heard["requests"] if not url.startswith(("file:", "data:", "blob:"))] == []


def card_of(page, link):
    return page.locator(f"#{link.get_attribute('aria-describedby')}")


@pytest.mark.parametrize("kind", ["card-term-", "card-id"])
def test_with_the_mouse_it_shows_and_stays_under_the_pointer(opened, kind):
    link = opened.locator(f"a[aria-describedby^='{kind}']").first
    card = card_of(opened, link)
    expect(card).to_be_hidden()
    link.hover()
    expect(card).to_be_visible()
    card.hover()
    opened.wait_for_timeout(500)
    expect(card).to_be_visible()
    opened.mouse.move(2, 2)
    expect(card).to_be_hidden()


def test_with_the_keyboard_it_shows_on_focus_and_escape_closes_it(opened):
    link = opened.locator(CARDS).first
    card = card_of(opened, link)
    opened.keyboard.press("Tab")  # from now on a focus is the keyboard's
    link.focus()
    expect(link).to_be_focused()
    expect(card).to_be_visible()
    expect(link).to_have_accessible_description(re.compile(re.escape(card.inner_text().split("\n")[0][:20])))
    opened.keyboard.press("Escape")
    expect(card).to_be_hidden()
    expect(link).to_be_focused()
    opened.keyboard.press("Shift+Tab")
    opened.keyboard.press("Tab")
    expect(card).to_be_visible()
    opened.keyboard.press("Tab")
    expect(card).to_be_hidden()


def test_by_touch_the_first_tap_shows_and_the_second_goes_there(browser):
    context = browser.new_context(has_touch=True, viewport=TELEPHONE)
    page = context.new_page()
    page.goto((PAGES / PATH).as_uri())
    links = page.locator("a[aria-describedby^='card-term-']")
    link = links.first
    card = card_of(page, link)
    link.tap()
    expect(card).to_be_visible()
    assert page.url.endswith(PATH)
    page.locator("article h1").tap()
    expect(card).to_be_hidden()
    link.tap()
    expect(card).to_be_visible()
    link.tap()
    page.wait_for_url("**/glossary.html#term-*")
    context.close()


@pytest.mark.parametrize("size", [SCREEN, TELEPHONE], ids=["screen", "telephone"])
def test_every_card_lies_within_the_window_and_covers_no_link_of_its_own(opened, size):
    opened.set_viewport_size(size)
    links = opened.locator(CARDS)
    assert links.count() > 5
    for link in links.all():
        link.scroll_into_view_if_needed()
        link.dispatch_event("pointerenter", {"pointerType": "mouse"})
        expect(card_of(opened, link)).to_be_visible()
        box = opened.locator(".book-cards").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
        assert box["y"] >= 0 and box["y"] + box["height"] <= size["height"]
        line = link.evaluate("e => { const r = e.getClientRects()[0]; return [r.top, r.bottom] }")
        assert box["y"] >= line[1] or box["y"] + box["height"] <= line[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_an_open_card(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto((PAGES / PATH).as_uri())
    link = page.locator(CARDS).first
    link.hover()
    expect(card_of(page, link)).to_be_visible()
    found = Axe().run(page, context={"include": [[".book-cards"]]})
    assert found.response["violations"] == []


def test_without_a_script_links_are_links(browser):
    page = browser.new_page(java_script_enabled=False)
    page.goto((PAGES / PATH).as_uri())
    assert not page.locator(".book-cards").is_visible()
    page.locator("a[aria-describedby^='card-term-']").first.click()
    assert "glossary.html#term-" in page.url
    page.close()
