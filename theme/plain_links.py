"""Where the links of a plain copy lead, and what the page calls its formulas, figures and exercises (see plain.py)."""

import posixpath
from pathlib import Path
from urllib.parse import quote, urldefrag

from book import pages_url
from docutils import nodes
from sphinx_exercise.nodes import exercise_enumerable_node, exercise_subtitle


def address(app, docname: str, link: nodes.reference) -> str:
    """Where a reference leads: a cited work to its source, another place to its page or to the neighbouring copy."""
    if not link.get("internal") and "refuri" in link:
        return link["refuri"]
    target, anchor = urldefrag(link.get("refuri") or f"#{link.get('refid', '')}")
    if work := cited(app).get(anchor):
        return work
    target = (
        posixpath.normpath(posixpath.join(posixpath.dirname(docname), target))
        if target
        else f"{docname}.html"
    )
    if home := pages_url():
        return home + target + (f"#{anchor}" if anchor else "")
    name = target.removesuffix(".html")
    place = heading(app, name, anchor) if anchor else ""
    here = "" if name == docname else posixpath.relpath(f"{name}.ipynb", posixpath.dirname(docname) or ".")
    return here + (f"#{quote(place)}" if place else "") or f"{posixpath.basename(name)}.ipynb"


def cited(app) -> dict[str, str]:
    """A citation's id → where the work is found."""
    found = {}
    for citation in app.env.get_domain("cite").citations:
        fields = citation.entry.fields
        doi, arxiv = fields.get("doi"), fields.get("eprint")
        found[citation.citation_id] = (
            f"https://doi.org/{doi}"
            if doi
            else f"https://arxiv.org/abs/{arxiv}"
            if arxiv
            else fields.get("url", "")
        )
    return found


def heading(app, docname: str, anchor: str) -> str:
    """The heading above a place, as Jupyter names it in an address: no front end keeps other anchors."""
    if docname not in app.plain_headings:
        places, doctree = {}, app.env.get_doctree(docname)
        for section in doctree.findall(nodes.section):
            if section.children and isinstance(section[0], nodes.title):
                places.update(
                    (i, section[0].astext()) for n in section.findall(nodes.Element) for i in n["ids"]
                )
        for exercise in doctree.findall(exercise_enumerable_node):
            name = "".join(f" ({part.astext()})" for part in exercise[0].findall(exercise_subtitle))
            places.update((i, number(app, docname, exercise) + name) for i in exercise["ids"])
        app.plain_headings[docname] = places
    return app.plain_headings[docname].get(anchor, "").replace(" ", "-")


def number(app, docname: str, node) -> str:
    """ "Exercise 5", "Fig. 2", or a formula's "11": what the page calls it."""
    if isinstance(node, nodes.math_block):
        kind, form = "displaymath", "%s"
    else:
        kind = "figure" if isinstance(node, nodes.figure) else "exercise"
        form = app.config.numfig_format[kind]
    numbers = app.env.toc_fignumbers.get(docname, {}).get(kind, {})
    found = next((numbers[i] for i in node["ids"] if i in numbers), None)
    return form % ".".join(map(str, found)) if found else ""


def picture(app, path: str) -> str:
    """An image's name in the cell that shows it, to which `text_cell` attaches it: a copy needs no other file."""
    name = Path(path).name
    app.plain_pictures[name] = Path(app.srcdir, path)
    return f"attachment:{name}"
