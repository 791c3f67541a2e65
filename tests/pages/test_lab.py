"""`make lab` as a reader meets it: chapter 1 opens, nothing asks, formulas, exercises and figures are there."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.pages.conftest import ROOT

WAIT = 120  # seconds; about ten are enough where nothing else runs


@pytest.fixture
def address(tmp_path):
    """`make lab` in an empty home; the address that it would open in the reader's browser."""
    config, opened, browser = tmp_path / "jupyter", tmp_path / "opened", tmp_path / "browser"
    config.mkdir()
    (config / "jupyter_server_config.json").write_text('{"ServerApp": {"allow_root": true}}')
    settings = config / "lab/user-settings/@jupyterlab/docmanager-extension/plugin.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"autosave": False}))
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    env = {**os.environ, "HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(config), "BROWSER": f"{browser} %s"}
    command = ["make", f"VENV={sys.prefix}", f"--old-file={sys.prefix}/ready", "lab"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + WAIT
        while not (opened.exists() and opened.read_text().endswith("\n")):
            assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
            time.sleep(0.2)
        yield opened.read_text().strip()
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(WAIT)


def test_chapter_1_opens_ready_to_read(page, address):
    page.set_default_timeout(1000 * WAIT)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_url("**/lab/tree/01_background.ipynb*")
    heading = page.locator(".jp-MarkdownCell h1", has_text="Background")
    heading.wait_for()
    page.locator(".jp-RenderedSVG").first.wait_for()  # a stored figure: the notebook is trusted
    exercise = page.locator(".jp-MarkdownCell aside", has_text="Exercise 1")
    text = ""
    for _ in range(200):
        if exercise.count():
            break
        text += "\n".join(page.locator(".jp-MarkdownCell .jp-RenderedMarkdown").all_inner_texts())
        page.locator(".jp-WindowedPanel-outer").evaluate("e => e.scrollBy(0, e.clientHeight / 2)")
        page.wait_for_timeout(300)
    assert exercise.count() and page.locator(".katex").count()
    assert re.findall(r"\{[\w:-]+\}`[^`\n]+`|^[`:]{3}.*|\$[^$\n]+\$", text, re.M) == []
    assert page.locator(".jp-Dialog, .Toastify__toast").count() == 0
    outside = [
        url
        for url in asked
        if not re.match(r"(file|data|blob):|(http|ws)://(localhost|127\.0\.0\.1)[:/]", url)
    ]
    assert outside == []
