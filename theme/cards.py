"""Cards: what a word of the glossary means, or which work a citation names, beside the link and without leaving the page.

Each page carries, hidden at its end, a card for each term and each work that it links to; the link names its card as its
description, so that a screen reader says it too. static/cards.js shows the card on hover, focus and tap. Without the
script the links are links.
"""

import re
from html import escape, unescape

from docutils import nodes
from ebook import mathml

GLOSSARY = "reference/glossary"
# A link to a term, from any page; a link to a work, which sphinxcontrib-bibtex gives the entry's text as its title.
TERM = re.compile(r'<a class="reference internal" href="(?:[^"#]*glossary\.html)?#(?P<id>term-[^"]+)"')
WORK = re.compile(
    r'<a class="reference internal" href="[^"#]*bibliography\.html#(?P<id>[^"]+)" title="(?P<text>[^"]+)"'
)


def markup(node: nodes.Node) -> str:
    """The HTML of a definition: its words, code and formulas, no link within."""
    if isinstance(node, nodes.Text):
        return escape(node.astext(), quote=False)
    if isinstance(node, nodes.math):
        return mathml(node.astext(), "inline") + "&#8288;"  # a comma stays with it
    inner = "".join(map(markup, node.children))
    tag = {nodes.literal: "code", nodes.emphasis: "em", nodes.strong: "strong"}.get(type(node))
    return f"<{tag}>{inner}</{tag}>" if tag else inner


def definitions(glossary: nodes.document) -> dict[str, str]:
    """Id of a term → the term and its definition."""
    found = {}
    for item in glossary.findall(nodes.definition_list_item):
        body = " ".join(markup(node) for node in item.findall(nodes.paragraph))
        for term in item.findall(nodes.term):
            for name in term["ids"]:
                found[name] = f"<strong>{escape(term.astext())}</strong> {body}"
    return found


def with_cards(body: str, terms: dict[str, str]) -> str:
    """The page with its links described, and the cards at its end."""
    shown: dict[str, str] = {}

    def describe(found: re.Match) -> str:
        name = f"card-{found['id']}"
        if found["id"] in terms:
            shown[name] = terms[found["id"]]
        elif "text" in found.groupdict():
            shown[name] = escape(unescape(found["text"]), quote=False)
        else:
            return found[0]
        return f'{found[0].split(" title=")[0]} aria-describedby="{name}"'

    body = WORK.sub(describe, TERM.sub(describe, body))
    if not shown:
        return body
    cards = "".join(
        f'<div class="card-text" role="tooltip" id="{name}">{text}</div>' for name, text in shown.items()
    )
    return f'{body}\n<div class="book-cards" hidden>{cards}</div>\n'


def add_cards(app, pagename, templatename, context, doctree) -> None:
    if app.builder.name != "html" or doctree is None or "body" not in context:
        return
    if not hasattr(app, "book_terms"):
        known = GLOSSARY in app.env.found_docs
        app.book_terms = definitions(app.env.get_doctree(GLOSSARY)) if known else {}
    context["body"] = with_cards(context["body"], app.book_terms)
    if "book-cards" in context["body"]:
        app.add_js_file("cards.js", loading_method="defer")
        app.add_css_file("cards.css")


def setup(app) -> dict:
    app.connect("html-page-context", add_cards)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
