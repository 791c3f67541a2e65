"""Print the book on one page (Sphinx's singlehtml) as a PDF: make pdf.

Waits until every formula is set and every figure is there, and stops where something is missing or wider than the sheet.

    python scripts/print_pdf.py PAGE.html BOOK.pdf BROWSER
"""

import sys
from pathlib import Path
from shutil import which

from playwright.sync_api import sync_playwright

# No sandbox, as CI may be root; nothing of the browser's own goes out to the network.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDTH = 672  # of the text on A4, in CSS pixels (96 an inch): 210 mm less two margins of 16 mm
MARGIN = {"top": "18mm", "bottom": "18mm", "left": "16mm", "right": "16mm"}
FOOT = '<div style="font: 8px sans-serif; width: 100%; text-align: center"><span class="pageNumber"></span></div>'
FAULTS = """async () => {
    document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; });
    await MathJax.startup.promise;
    const shown = [...document.images].filter(image => !image.classList.contains('only-dark'));
    await Promise.all(shown.map(image => image.decode().catch(() => null)));
    const inFormula = (e) => e.closest('mjx-container, svg') && !e.matches('mjx-container');
    const cut = (e) => e.getBoundingClientRect().right > innerWidth + 1
        || e.matches('pre, div.math') && e.scrollWidth > e.clientWidth + 1;
    const wide = [...document.querySelectorAll('.bd-article *')].filter(e => !inFormula(e) && cut(e));
    return [
        ...shown.filter(image => !image.naturalWidth).map(image => `no image: ${image.src}`),
        ...[...document.querySelectorAll('.math:not(:has(mjx-container))')].map(e => `not set: ${e.textContent}`),
        ...[...document.querySelectorAll('mjx-merror, [data-mjx-error]')].map(e => `formula: ${e.textContent}`),
        ...wide.map(e => `wider than the sheet: <${e.tagName.toLowerCase()}> ${e.textContent.trim().slice(0, 80)}`),
    ];
}"""


def print_pdf(source: Path, target: Path, browser: str) -> list[str]:
    """Write `target`; return what is missing or cut off on it, an empty list if nothing is."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=which(browser), args=ARGUMENTS)
        page = chromium.new_page(viewport={"width": WIDTH, "height": 1000})
        page.emulate_media(media="print", color_scheme="light")
        page.goto(source.resolve().as_uri(), timeout=180_000)
        faults = page.evaluate(FAULTS)
        page.pdf(path=target, format="A4", margin=MARGIN, outline=True, tagged=True,
                 display_header_footer=True, header_template="<span></span>", footer_template=FOOT)  # fmt: skip
        chromium.close()
        return faults


if __name__ == "__main__":
    if faults := print_pdf(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]):
        sys.exit("The PDF has faults:\n" + "\n".join(faults))
