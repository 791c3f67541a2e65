"""The PDF and the EPUB: what make pdf refuses to print, and epubcheck's word on the EPUB that lies beside the pages."""

import subprocess
import sys
import zipfile
from pathlib import Path
from shutil import which

import pytest
from bs4 import BeautifulSoup

from tests.pages.conftest import PAGES, ROOT, chromium

EPUB, PDF = PAGES / "book.epub", PAGES / "book.pdf"
EPUBCHECK = Path("/usr/share/java/epubcheck.jar")  # where Debian's and Ubuntu's package puts it
made = pytest.mark.skipif(not EPUB.exists(), reason="make downloads puts PDF and EPUB beside the pages")
PAGE = "<script>MathJax = {{startup: {{promise: Promise.resolve()}}}}</script><article class=bd-article>{}</article>"


def printed(folder, body):
    page, pdf = folder / "page.html", folder / "book.pdf"
    page.write_text(PAGE.format(body), encoding="utf-8")
    command = [sys.executable, ROOT / "scripts/print_pdf.py", page, pdf, chromium()]
    return subprocess.run(command, capture_output=True, text=True), pdf


def test_a_page_that_fits_is_printed(tmp_path):
    run, pdf = printed(tmp_path, "<h1>A page</h1><pre>a line</pre>")
    assert (run.returncode, run.stderr) == (0, "")
    assert pdf.read_bytes().startswith(b"%PDF-")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("<pre>" + "w" * 300 + "</pre>", "wider than the sheet: <pre> www"),
        ("<table><tr><td style='min-width: 900px'>cell</table>", "wider than the sheet: <table> cell"),
        ("<img src=nothing.svg>", "no image: file:"),
        ("<span class=math>x^2</span>", "not set: x^2"),
    ],
)
def test_what_is_cut_off_or_missing_is_named(tmp_path, body, fault):
    run, _ = printed(tmp_path, body)
    assert run.returncode == 1 and fault in run.stderr


@made
@pytest.mark.skipif(not EPUBCHECK.exists() or not which("java"), reason="epubcheck is not installed")
def test_epubcheck_finds_nothing():
    run = subprocess.run(["java", "-jar", EPUBCHECK, EPUB], capture_output=True, text=True)
    assert run.returncode == 0 and "0 fatals / 0 errors / 0 warnings" in run.stdout, run.stdout + run.stderr


@made
def test_the_epub_holds_every_page_and_each_figure_once():
    with zipfile.ZipFile(EPUB) as book:
        names = book.namelist()
        pages = {
            name: BeautifulSoup(book.read(name), "html.parser") for name in names if name.endswith(".xhtml")
        }
        opf = book.read("content.opf").decode()
    assert {"index.xhtml", "chapters/04_mathematics.xhtml", "reference/errata.xhtml"} <= set(pages)
    assert "<dc:title>Knowledge Distillation, Checked</dc:title>" in opf and "<dc:language>en<" in opf
    assert [name for name in names if name.endswith((".js", ".dark.svg"))] == []
    assert [name for name, page in pages.items() if page.find("script")] == []
    assert len(pages["chapters/04_mathematics.xhtml"].find_all("math")) > 50
    images = [image for page in pages.values() for image in page.find_all("img")]
    assert images and all(len(image.get("alt", "").split()) > 2 for image in images)


@made
def test_the_pdf_has_its_chapters_as_bookmarks():
    content = PDF.read_bytes()
    assert content.startswith(b"%PDF-") and content.count(b"/Type /Page\n") > 100 and b"/Outlines" in content
