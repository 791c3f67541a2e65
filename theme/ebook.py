"""The book as one file: an EPUB, and the single page that scripts/print_pdf.py prints.

Readers of an EPUB run no script, and the specification allows no stray file, so formulas become MathML, each figure comes
once, in its light tones, and nothing is packed that no page uses. `make epub` and `make pdf` build here.
"""

import re
from collections import Counter
from html import escape
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile
from uuid import NAMESPACE_URL, uuid5

from docutils import nodes
from figures import recoloured
from latex2mathml.converter import convert
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx import addnodes
from sphinx.builders.epub3 import Epub3Builder
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.math import get_node_equation_number

COVER = "_images/cover.svg"
STYLE = Path(__file__).parent / "static/ebook.css"
DOCTYPE = re.compile(r"<!DOCTYPE[^>]*>\s*")
DOWNLOADS = ("book.pdf", "book.epub")
REFERENCE = re.compile(r"^(\S*?#document-)(\S+?)#(\S+)$")


class Book(Epub3Builder):
    """Sphinx's EPUB, with only the files its pages use, and its formulas declared."""

    def copy_image_files(self) -> None:
        super().copy_image_files()
        for path in (Path(self.outdir) / self.imagedir).glob("*.svg"):
            svg = DOCTYPE.sub("", path.read_text(encoding="utf-8"))  # EPUB forbids the address in it
            path.write_text(recoloured(svg, dark=False), encoding="utf-8")

    def copy_static_files(self) -> None:
        static = Path(self.outdir) / "_static"
        static.mkdir(exist_ok=True)
        self.create_pygments_style_file()
        copyfile(STYLE, static / STYLE.name)

    def toc_metadata(self, level, navpoints) -> dict:
        return super().toc_metadata(level, navpoints) | {"uid": self.config.epub_identifier}

    def build_content(self) -> None:
        super().build_content()
        opf = Path(self.outdir) / "content.opf"
        text = opf.read_text(encoding="utf-8")
        for name in self.files:
            page = (Path(self.outdir) / name).read_bytes() if name.endswith(".xhtml") else b""
            math = b"<math" in page
            if math or name == COVER:
                property = "mathml" if math else "cover-image"
                text = text.replace(f'href="{name}" media', f'href="{name}" properties="{property}" media')
        opf.write_text(text, encoding="utf-8")


def mathml(latex: str, display: str) -> str:
    """A formula as MathML; its source stays readable as the alternative text."""
    if r"\\" in latex and r"\begin" not in latex:
        latex = rf"\begin{{split}}{latex}\end{{split}}"
    # It knows `split` and not `aligned`, which amsmath sets alike.
    markup = convert(re.sub(r"(\\(?:begin|end)){aligned}", r"\1{split}", latex), display=display)
    if lost := re.search(r"\\[a-zA-Z]+|>&<", markup):  # unknown to it, it passes a name or an & on as text
        raise ValueError(f"latex2mathml left {lost[0].strip('<>')} in the formula as it is: {latex}")
    return markup.replace("<math ", f'<math alttext="{escape(latex)}" ', 1)


def inline(self, node) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def displayed(self, node) -> None:
    number = f'<span class="eqno">({get_node_equation_number(self, node)})</span>' if node["number"] else ""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(f"{number}{mathml(node.astext(), 'block')}</div>\n")
    raise nodes.SkipNode


def configure(app, config) -> None:
    """What an EPUB says of itself; and the tag with which the front page links to both files where they lie beside it."""
    config.epub_title, config.epub_basename, config.epub_language = config.html_title, "book", "en"
    config.epub_description = (
        "A book on knowledge distillation whose formulas, claims and exercises are tested."
    )
    config.epub_contributor = config.epub_publisher = config.author
    config.epub_uid, config.epub_scheme = "book", "UUID"
    config.epub_identifier = f"urn:uuid:{uuid5(NAMESPACE_URL, config.html_title)}"
    config.epub_cover, config.epub_css_files = (COVER, ""), [STYLE.name]
    config.epub_show_urls, config.epub_use_index, config.epub_tocdup = "no", False, False
    config.epub_tocscope = "includehidden"
    if all((Path(app.outdir) / name).exists() for name in DOWNLOADS):
        app.tags.add("downloads")


def choose_mathml(app) -> None:
    if app.builder.name == "epub":
        app.config.version = version("companion")
        app.config.html_math_renderer = "mathml"
        app.add_html_math_renderer("mathml", (inline, None), (displayed, None))


def bare(app, pagename, templatename, context, doctree) -> None:
    """No script in an EPUB, and no style sheet of a web page."""
    if app.builder.name == "epub":
        styles = ("_static/pygments.css", "_static/ebook.css")
        context["script_files"] = []
        context["css_files"] = [s for s in context["css_files"] if s.filename in styles]


def unique_ids(app, doctree, docname) -> None:
    """An id once a page, where the first stands; and once in the book where that is one page, links following."""
    seen = set()
    for node in doctree.findall(nodes.Element):
        if isinstance(node, addnodes.start_of_file):
            seen = set()
        node["ids"] = [i for i in node["ids"] if i not in seen and not seen.add(i)]
    if app.builder.name != "singlehtml":
        return
    times = Counter(i for node in doctree.findall(nodes.Element) for i in node["ids"])

    def renamed(page: str, name: str) -> str:
        return f"{page.replace('/', '-')}-{name}" if times[name] > 1 else name

    for node in doctree.findall(nodes.reference):
        if found := REFERENCE.match(node.get("refuri", "")):
            node["refuri"] = f"{found[1]}{found[2]}#{renamed(found[2], found[3])}"
    for file in doctree.findall(addnodes.start_of_file):
        for node in file.findall(nodes.Element):
            for key in ("ids", "backrefs"):
                if key in node:
                    node[key] = [renamed(file["docname"], name) for name in node[key]]
            if "refid" in node:
                node["refid"] = renamed(file["docname"], node["refid"])


class Unfolded(SphinxPostTransform):
    """On paper nothing can be unfolded: a cell that the pages fold stands open."""

    default_priority = 200  # after myst-nb has folded

    def run(self, **kwargs):
        if self.app.builder.name in ("singlehtml", "epub"):
            # from the inside out; a fold around a whole cell, as myst-nb makes it, does not know its parent
            for parent in reversed(list(self.document.findall(nodes.Element))):
                if any(isinstance(child, HideCodeCellNode) for child in parent.children):
                    before, parent.children = parent.children, []
                    for child in before:
                        parent.extend(child.children if isinstance(child, HideCodeCellNode) else [child])


def setup(app) -> dict:
    app.add_post_transform(Unfolded)
    app.add_builder(Book, override=True)
    app.connect("config-inited", configure)
    app.connect("builder-inited", choose_mathml, priority=400)  # before Sphinx looks what is missing
    app.connect("html-page-context", bare, priority=900)
    app.connect("doctree-resolved", unique_ids)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
