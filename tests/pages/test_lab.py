"""`make lab` as a reader meets it, in a Jupyter without extensions: every chapter opens, nothing asks, nothing is raw,
every formula is set, and the text says what the page says."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbclient import NotebookClient

from tests.pages.conftest import PAGES, ROOT
from tests.pages.test_copies import CHAPTERS, RAW, of_page
from theme.plain import FIGURE, whole

WAIT = 120  # seconds; about ten are enough where nothing else runs
SETTINGS = {  # what only the test needs: no saving by itself, and every cell drawn at once
    "docmanager-extension/plugin": {"autosave": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """`make lab` in an empty home: the address that it would open in the reader's browser, and the working folder."""
    home = tmp_path_factory.mktemp("home")
    config, opened, browser, work = home / "jupyter", home / "opened", home / "browser", home / "my work"
    for name, settings in SETTINGS.items():
        place = config / f"lab/user-settings/@jupyterlab/{name}.jupyterlab-settings"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps(settings))
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    # a port of its own: two labs that start together may both find 8888 free
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    env = {**os.environ, "HOME": str(home), "JUPYTER_CONFIG_DIR": str(config), "BROWSER": f"{browser} %s"}
    env["JUPYTER_PORT"] = port
    index, installed = os.path.relpath(PAGES / "index.html", ROOT), home / "installed"
    installed.symlink_to(sys.prefix)  # a target of make may have no spaces in its name
    command = [
        "make", f"VENV={installed}", f"--old-file={installed}/ready", f"PAGES={index}", f"--old-file={index}",
        f"WORK={work}", "lab",
    ]  # fmt: skip
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + WAIT
        while not (opened.exists() and opened.read_text().endswith("\n")):
            assert process.poll() is None and time.monotonic() < end, (home / "log").read_text()
            time.sleep(0.2)
        yield opened.read_text().strip(), work
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(WAIT)


def opened(page, lab, name: str) -> None:
    """Open a copy, and wait until all of it is drawn. (What `make lab` opens is a file that leads on with a token.)"""
    page.set_default_timeout(1000 * WAIT)
    start = re.search(r"(http://[^/]+)/[^\"]*?token=(\w+)", Path(unquote(urlsplit(lab[0]).path)).read_text())
    page.goto(f"{start[1]}/lab/tree/{name}?reset&token={start[2]}")
    cells = [c.source for c in nbformat.read(lab[1] / name, as_version=4).cells if c.cell_type == "markdown"]
    formulas = sum(len(re.findall(r"^\$\$", cell, re.M)) // 2 for cell in cells)
    drawn = f"document.querySelectorAll('.jp-MarkdownCell .jp-RenderedMarkdown').length == {len(cells)}"
    filled = "[...document.querySelectorAll('.jp-MarkdownCell .jp-RenderedMarkdown')].every(e => e.textContent.trim())"
    page.wait_for_function(
        f"{drawn} && {filled} && document.querySelectorAll('mjx-container[display=true]').length >= {formulas}"
    )


def test_chapter_1_opens_and_nothing_asks(page, lab):
    page.set_default_timeout(1000 * WAIT)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(lab[0])
    page.wait_for_url("**/lab/tree/chapters/01_background.ipynb*")
    page.locator(".jp-MarkdownCell h1", has_text="Background").wait_for()
    page.locator(".jp-RenderedSVG").first.wait_for()  # a stored figure: the notebook is trusted
    page.locator(".jp-MarkdownCell h3", has_text="Exercise 1.1").wait_for()
    page.wait_for_timeout(2000)
    assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0
    allowed = r"(file|data|blob):|(http|ws)://(localhost|127\.0\.0\.1)[:/]"
    assert len(asked) > 10
    assert [url for url in asked if not re.match(allowed, url)] == []


# What is shown of the text, its formulas apart; their TeX as MathJax read it, with its number; what it could not set.
SHOWN = """() => {
  const cells = [...document.querySelectorAll('.jp-MarkdownCell .jp-RenderedMarkdown')].map(e => e.cloneNode(true))
  const formulas = cells.flatMap(e => [...e.querySelectorAll('mjx-container')])
  const numbers = formulas.flatMap(e => [...e.querySelectorAll('mlabeledtr > mtd:first-child')].map(n => n.textContent))
  const wrong = formulas.filter(e => e.querySelector('mjx-merror, [data-mjx-error]')).map(e => e.textContent)
  const display = formulas.filter(e => e.getAttribute('display') === 'true').length
  formulas.forEach(e => e.remove())
  const links = cells.flatMap(e => [...e.querySelectorAll('a[href]:not(.jp-InternalAnchorLink)')])
  return {text: cells.map(e => e.textContent).join('\\n'), numbers, wrong, display, formulas: formulas.length,
          links: links.map(a => a.textContent.replace(/\\s+/g, ' ').trim())}
}"""


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_in_jupyter_says_what_its_page_says(page, lab, name):
    opened(page, lab, name)
    article = of_page(name)
    formulas = [f.extract().get_text() for f in article.select(".math")]
    assert formulas
    # Those within a line, too: a chapter may have no other, and they are set after the text.
    page.wait_for_function(f"document.querySelectorAll('mjx-container').length >= {len(formulas)}")
    shown = page.evaluate(SHOWN)
    assert shown["wrong"] == []
    assert shown["formulas"] == len(formulas)
    assert shown["numbers"] == [n[0] for f in formulas if (n := re.match(r"\([\d.]+[a-z]?\)", f.strip()))]
    found, asked = (re.findall(r"[^\W_]+", text) for text in (shown["text"], article.get_text(" ")))
    assert len(asked) > 100
    assert "".join(found) == "".join(asked)
    assert RAW.findall(shown["text"]) == []
    assert "$" not in shown["text"]
    assert [words for words in shown["links"] if not words.startswith("Exercise")] == [
        " ".join(a.get_text().split())
        for a in article.select("a[href]")
        if not a.get_text().strip().startswith("Exercise")
    ]


def test_a_link_to_a_formula_opens_the_chapter_that_has_it(page, lab):
    opened(page, lab, "chapters/03_algorithm.ipynb")
    exercise = page.locator(".jp-RenderedMarkdown", has_text="(Soften logits)")
    exercise.get_by_role("link", name=re.compile(r"^\([\d.]+[a-z]?\)$")).first.click()
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) h2", has_text="2.1 ").wait_for()


def test_solutions_and_set_up_are_folded(page, lab):
    opened(page, lab, "chapters/03_algorithm.ipynb")
    folded = page.locator(".jp-CodeCell", has=page.locator(".jp-InputPlaceholder"))
    texts = folded.all_inner_texts()
    assert len(texts) >= 4 and "Set-up" in texts[0]
    for name in ("soften", "distillation_loss", "training_step", "diagnose_runs"):
        assert any(f"def {name}(" in text for text in texts), texts


def run_here(path: Path) -> None:
    """Bring a copy's outputs to this processor's last digits."""
    notebook = nbformat.read(path, as_version=4)
    stored = {**notebook.metadata}
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook, timeout=WAIT, record_timing=False, coalesce_streams=True, resources=place
    ).execute()
    notebook.metadata = nbformat.from_dict(stored)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if FIGURE in output.get("data", {}):
                output.data[FIGURE] = whole(output.data[FIGURE])
    nbformat.write(notebook, path)


@pytest.mark.parametrize("name", ["reference/errata.ipynb", "reference/style.ipynb"])
def test_run_all_and_save_change_nothing_where_nothing_changed(page, lab, name):
    run_here(lab[1] / name)
    before = (lab[1] / name).read_bytes()
    written = (lab[1] / name).stat().st_mtime_ns
    opened(page, lab, name)
    page.wait_for_function("/[|] Idle/.test(document.body.innerText)")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    end, quiet = time.monotonic() + WAIT, 0
    while (
        quiet < 15
    ):  # three seconds: between two cells the kernel is idle too, and a folded cell shows no star
        assert time.monotonic() < end
        page.wait_for_timeout(200)
        done = "/[|] Idle/.test(document.body.innerText) && !document.body.innerText.includes('[*]:')"
        quiet = quiet + 1 if page.evaluate(done) else 0
    page.keyboard.press("Control+s")
    end = time.monotonic() + WAIT
    while (lab[1] / name).stat().st_mtime_ns == written:
        assert time.monotonic() < end
        page.wait_for_timeout(200)
    page.wait_for_timeout(500)
    assert (lab[1] / name).read_text() == before.decode()
