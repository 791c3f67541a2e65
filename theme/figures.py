"""Each SVG figure in two copies, one for light pages and one for dark ones.

`companion.plotting` draws in middle tones, which Jupyter can show on either background. As text they are too
pale for one of the two, so the book substitutes the five colours: darker ones in the light copy, lighter ones
in the dark copy. They are those of static/book.css.
"""

import re
from pathlib import Path

# drawn → on a light page, on a dark page
COLOURS = {
    "#2f7fc1": ("#1b66a8", "#6cb4ee"),  # teacher
    "#d55e00": ("#b34700", "#ff9a4d"),  # student
    "#7f7f7f": ("#666666", "#a9a9a9"),  # baseline
    "#b4559b": ("#9a3f82", "#e08fcb"),  # article
    "#767676": ("#4c545f", "#b9c1cc"),  # ink
}
DRAWN = re.compile("|".join(COLOURS), re.I)
SIZE = re.compile(r'<svg\b[^>]*?\bwidth="([\d.]+)pt" height="([\d.]+)pt"')
IMAGE = re.compile(r'<img\b[^>]*\bsrc="[^"]*_images/[^"/]+(\.svg)"[^>]*>')


def recoloured(svg: str, dark: bool) -> str:
    """The figure with each of the book's colours replaced by its light or dark page's tone."""
    return DRAWN.sub(lambda found: COLOURS[found[0].lower()][dark], svg)


def pair(found: re.Match) -> str:
    """One <img> as two, of which the theme shows one."""
    tag, start = found[0], found.start()
    dark = tag[: found.start(1) - start] + ".dark.svg" + tag[found.end(1) - start :]
    return _classed(tag, "only-light") + _classed(dark, "only-dark")


def _classed(tag: str, name: str) -> str:
    lazy = tag.replace("<img", '<img loading="lazy"', 1)
    if 'class="' in lazy:
        return lazy.replace('class="', f'class="{name} ', 1)
    return lazy.replace("<img", f'<img class="{name}"', 1)


def sized(html: str, files: dict[str, Path]) -> str:
    """Each figure with its width and height, so that the page keeps the room while it loads. files: name → source."""

    def with_size(found: re.Match) -> str:
        source = files.get(found[0].rsplit("_images/", 1)[1].split('"')[0])
        size = source and SIZE.search(source.read_text(encoding="utf-8"))
        if not size or " width=" in found[0] or " style=" in found[0]:
            return found[0]
        width, height = (round(float(points) * 4 / 3) for points in size.groups())
        return found[0].replace("<img", f'<img width="{width}" height="{height}"', 1)

    return IMAGE.sub(with_size, html)


def show_both(app, pagename, templatename, context, doctree) -> None:
    if app.builder.format == "html" and app.builder.name != "epub" and "body" in context:
        files = {name: Path(app.srcdir, uri) for uri, name in app.builder.images.items()}
        context["body"] = IMAGE.sub(pair, sized(context["body"], files))


def write_both(app, exception) -> None:
    if exception or app.builder.format != "html" or app.builder.name == "epub":
        return
    for path in (Path(app.outdir) / "_images").glob("*.svg"):
        svg = path.read_text(encoding="utf-8")
        # A copy made by an earlier build has no drawn colour left, and its dark sister stands beside it.
        sister = path.with_suffix(".dark.svg")
        if path.name.endswith(".dark.svg") or (sister.exists() and not DRAWN.search(svg)):
            continue
        sister.write_text(recoloured(svg, dark=True), encoding="utf-8")
        path.write_text(recoloured(svg, dark=False), encoding="utf-8")


def setup(app) -> dict:
    app.connect("html-page-context", show_both)
    app.connect("build-finished", write_both)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
