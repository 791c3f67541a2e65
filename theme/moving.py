"""Figures that move: the part of the book's Sphinx extension that puts them into the pages.

companion.interactive gives an output two forms, a still picture and the numbers it was drawn from. On a page of the web,
both stand in one <figure>, and static/moving.js draws from the numbers; a book on paper keeps the picture.
"""

import json
from html import escape

from docutils import nodes
from myst_nb.core import render
from sphinx.transforms.post_transforms import SphinxPostTransform

MIME = "application/vnd.companion.figure+json"


class moving(nodes.General, nodes.Element):  # lower case, as docutils names its nodes
    """The numbers of one figure, as `json`; its children are the still picture."""


class Renderer:
    """myst-nb's plugin for one kind of output: keeps the numbers, which it would drop."""

    mime_priority_overrides = ()

    @staticmethod
    def handle_mime(renderer, data, inline):
        if inline or data.mime_type != MIME:
            return None
        alt = data.cell_metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        return [moving("", json=json.dumps(data.content, ensure_ascii=False), alt=alt)]


class Join(SphinxPostTransform):
    """Before myst-nb chooses one form of an output: put the picture into the figure, or drop the numbers."""

    default_priority = 3

    def run(self, **kwargs):
        for node in list(self.document.findall(moving)):
            numbers = node.parent
            picture = next(c for c in numbers.parent if c.get("mime_type") == "image/svg+xml")
            numbers.parent.remove(numbers)
            if self.app.builder.name in ("html", "dirhtml"):
                node += picture.children
                picture.children = []
                picture += node


def visit_html(self, node):
    numbers = node["json"].replace("</", "<\\/")  # "</" could end the script; JSON may write it so
    self.body.append(
        f'<figure class="moving" role="group" aria-label="{escape(node["alt"])}">'
        f'<script type="application/json">{numbers}</script><div class="moving-still">'
    )


def depart_html(self, node):
    self.body.append("</div></figure>")


def add_script(app, pagename, templatename, context, doctree):
    """The script and its style only where a figure needs them."""
    if doctree is not None and next(doctree.findall(moving), None) is not None:
        app.add_js_file("moving.js", loading_method="defer")
        app.add_css_file("moving.css")


def setup(app) -> dict:
    loaded = render.load_mime_renders()  # plugins come from installed packages only, which this folder is not
    if Renderer not in loaded:
        loaded.append(Renderer)
    app.add_node(moving, html=(visit_html, depart_html))
    app.add_post_transform(Join)
    app.connect("html-page-context", add_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
