"""Errata: each row of the errata's tables is a place that text and boxes can link to.

The row `| F1 | …` gets the label `erratum-f1`, so that a chapter writes [F1](#erratum-f1) or {ref}`F1 <erratum-f1>`; the
search finds it by "erratum F1". Where a text says "erratum F1" or "errata F1, C2 and R3" without a link, it becomes one.
"""

import re

from docutils import nodes
from finding import entry
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

PAGE = "reference/errata"
NAME = re.compile(r"[FCTR]\d+")
NAMED = re.compile(r"\b[Ee]rrat(?:um|a) [FCTR]\d+(?:(?:, | and )[FCTR]\d+)*\b")


def label(name: str) -> str:
    """ "F1" → "erratum-f1"."""
    return f"erratum-{name.lower()}"


class Rows(SphinxTransform):
    """Each row of the page under its label."""

    default_priority = 799  # before the domains collect (850)

    def apply(self, **kwargs):
        if self.env.docname != PAGE:
            return
        for row in list(self.document.findall(nodes.row)):
            name = row[0].astext()
            if NAME.fullmatch(name):
                row["names"].append(label(name))
                self.document.note_explicit_target(row)
                table = next(node for node in ancestors(row) if isinstance(node, nodes.table))
                table.parent.insert(table.parent.index(table), entry([f"erratum {name}"], row["ids"][0]))


class Links(SphinxTransform):
    """ "erratum F1" in a text, as a link to its row."""

    default_priority = 798

    def apply(self, **kwargs):
        for text in list(self.document.findall(nodes.Text)):
            if NAMED.search(text) and not any(isinstance(node, CLOSED) for node in ancestors(text)):
                text.parent.replace(text, linked(text, self.env.docname))


CLOSED = (nodes.literal, nodes.literal_block, nodes.reference, addnodes.pending_xref, nodes.raw, nodes.math)


def ancestors(node):
    while node := node.parent:
        yield node


def linked(text: str, docname: str) -> list[nodes.Node]:
    """The text in pieces, of which each name of a row is a reference."""
    made, end = [], 0
    for phrase in NAMED.finditer(text):
        for found in NAME.finditer(text, *phrase.span()):
            made += [nodes.Text(text[end : found.start()]), reference(found[0], docname)]
            end = found.end()
    return [*made, nodes.Text(text[end:])]


def reference(name: str, docname: str) -> addnodes.pending_xref:
    """What {ref}`F1 <erratum-f1>` gives."""
    asked = {"refdomain": "std", "reftype": "ref", "refexplicit": True, "refwarn": True}
    shown = nodes.inline(name, name, classes=["std", "std-ref"])
    return addnodes.pending_xref("", shown, reftarget=label(name), refdoc=docname, **asked)


def to_sections(app, doctree, docname: str) -> None:
    """The last column: "4.2", which names a chapter, leads to that section of it."""
    if docname != PAGE or app.builder.name != "html":
        return
    for link in doctree.findall(nodes.reference):
        found = re.search(r"(chapters/\w+)\.html$", link.get("refuri", ""))
        if found and re.fullmatch(r"\d+\.\d+", link.astext()):
            link["refuri"] += section(app.env, found[1], link.astext())


def section(env, chapter: str, number: str) -> str:
    """ "#…", the place of section "4.2" in a chapter."""
    for heading in env.tocs[chapter].findall(nodes.reference):
        if heading.astext().startswith(f"{number} "):
            return heading["anchorname"]
    raise ValueError(f"{PAGE} leads to {number}, and {chapter} has no section of that number.")


def setup(app) -> dict:
    app.add_transform(Rows)
    app.add_transform(Links)
    app.connect("doctree-resolved", to_sections)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
