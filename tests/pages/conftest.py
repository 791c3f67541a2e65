"""The built pages in a real browser: `make test-pages` builds them, BOOK_PAGES names another folder.

`page` is pytest-playwright's: a fresh one for each test, in the Chromium or Chrome that the machine has.
"""

import os
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
PAGES = Path(os.environ.get("BOOK_PAGES", ROOT / "_build/html")).resolve()
PATHS = sorted(str(p.relative_to(PAGES)) for p in PAGES.rglob("*.html") if "_static" not in p.parts)
TELEPHONE, SCREEN = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# No sandbox, as CI may be root; nothing of the browser's own goes out to the network.
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def pytest_configure(config):
    if not chromium():
        raise pytest.UsageError(
            f"None of {', '.join(BROWSERS)} is installed. On Debian: sudo apt-get install chromium"
        )
    if not PATHS:
        raise pytest.UsageError(f"No pages in {PAGES}. Build them first: make book")


def pytest_generate_tests(metafunc):
    """One process has all tests of a page, so that what only looks at it can share it (`opened`)."""
    if "path" in metafunc.fixturenames:
        groups = [pytest.param(path, marks=pytest.mark.xdist_group(path)) for path in PATHS]
        metafunc.parametrize("path", groups, scope="session")


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    return {**browser_type_launch_args, "executable_path": chromium(), "args": ARGUMENTS}


@pytest.fixture(scope="session")
def pages() -> Path:
    """The folder of built pages."""
    return PAGES


@pytest.fixture(scope="session")
def server():
    """The pages served at a port of this machine; the address without a slash at its end."""
    handler = partial(Silent, directory=str(PAGES))
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def opened(browser, path):
    """The page from its folder, loaded once for all tests that only look at it; what it said, its milliseconds."""
    with browser.new_context(viewport=SCREEN, reduced_motion="reduce") as context:
        page = context.new_page()
        heard = listen(page)
        page.goto((PAGES / path).as_uri(), wait_until="load")
        loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        rendered(page)
        page.wait_for_timeout(300)  # scripts that start after the page has loaded
        yield page, heard, loaded


def rendered(page):
    """Wait until MathJax, where the page has it, has set every formula."""
    page.evaluate("() => window.MathJax?.startup?.promise")


def in_scheme(page, scheme):
    """The page as a system with light or dark colours shows it: it follows the system, or does once it is loaded again.

    One page in a run of CI never heard of the change; why is not known. So this asks whether the page can be seen in
    both; that an open page follows is a test of its own.
    """
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.bring_to_front()  # a page behind another may get no frames
    root = page.locator("html")
    try:
        expect(root).to_have_attribute("data-theme", scheme)
    except AssertionError:
        page.reload(wait_until="load")
        rendered(page)
        expect(root).to_have_attribute("data-theme", scheme)


@pytest.fixture
def heard(page) -> dict[str, list[str]]:
    """What the page says in the console and asks for, from now on."""
    return listen(page)


def listen(page) -> dict[str, list[str]]:
    heard = {"console": [], "requests": []}
    page.on("console", lambda m: m.type in ("error", "warning") and heard["console"].append(m.text))
    page.on("pageerror", lambda error: heard["console"].append(str(error)))
    page.on("requestfailed", lambda r: heard["console"].append(f"{r.url}: {r.failure}"))
    page.on("request", lambda request: heard["requests"].append(request.url))
    return heard


def pytest_terminal_summary(terminalreporter):
    """How long each page took to load from disk."""
    passed = terminalreporter.getreports("passed")
    times = sorted((p["load_ms"], p["path"]) for r in passed if "load_ms" in (p := dict(r.user_properties)))
    if times:
        slow = ", ".join(f"{path} {ms:.0f} ms" for ms, path in times[-3:])
        terminalreporter.write_line(f"{len(times)} pages loaded from disk, the slowest: {slow}")
