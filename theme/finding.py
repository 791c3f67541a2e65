"""Finding the way: symbols, formulas and functions in the search; a map of the site and a page for wrong addresses.

The search of Sphinx offers an index entry first, with the place on the page. Each labelled formula gets one under
its label, each function of `companion` under its name (theme/api.py), each symbol under itself, its name and its code.
"""

import re
import unicodedata
from pathlib import Path
from string import Template

from book import pages_url
from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

NOTATION = "reference/notation"
NOT_FOUND = Path(__file__).parent / "404.html"
# A browser lets no page opened from a folder read another, so there the results show without their summaries.
FROM_A_FOLDER = "if (location.protocol === 'file:') DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false"


def entry(words: list[str], target: str) -> addnodes.index:
    """What the search finds `target` by."""
    return addnodes.index(entries=[("single", word, target, "main", None) for word in words])


def greek(name: str) -> str | None:
    """ "alpha" → "α"; None if no such letter exists."""
    try:
        return unicodedata.lookup(f"GREEK SMALL LETTER {'LAMDA' if name == 'lambda' else name}")
    except KeyError:
        return None


def spellings(tex: str) -> list[str]:
    """What a reader may type for the symbols in a cell of the notation: \\alpha → α, alpha; \\mathrm{KL}(…) → KL."""
    found = []
    for symbol in tex.split(","):
        symbol = re.sub(r"\\(tilde|bar|,| )", "", symbol).strip()
        if operator := re.match(r"\\mathrm\{(\w+)\}", symbol):
            found.append(operator[1])
        elif (name := re.fullmatch(r"\\([a-z]+)", symbol)) and greek(name[1]):
            found += [greek(name[1]), name[1]]
        elif re.fullmatch(r"[A-Za-z](\^2|_\w)?", symbol):
            found.append(symbol.replace("^2", "²"))
    return list(dict.fromkeys(found))


class Entries(SphinxTransform):
    default_priority = 800  # before the domains collect (850)

    def apply(self, **kwargs):
        for node in list(self.document.findall(nodes.math_block)):
            if label := node.get("label"):
                node.parent.insert(node.parent.index(node), entry([label], f"equation-{label}"))
        if self.env.docname == NOTATION:
            table = next(iter(self.document.findall(nodes.table)))
            for row in table.findall(nodes.row):
                if words := [w for m in row[0].findall(nodes.math) for w in spellings(m.astext())]:
                    row["ids"].append(f"symbol-{nodes.make_id(words[-1])}")
                    table.parent.insert(table.parent.index(table), entry(words, row["ids"][-1]))


def not_found(app, exception) -> None:
    """404.html: whole in itself, as it is shown at any depth of the site; only where the site's address is known."""
    if not exception and app.builder.name == "html" and (home := pages_url()):
        page = Template(NOT_FOUND.read_text(encoding="utf-8")).substitute(home=home, title=app.config.project)
        (Path(app.outdir) / "404.html").write_text(page, encoding="utf-8")


def write_all(app, env) -> set[str]:
    """Every page is written at each build: Sphinx's search keeps the index entries only of those that are."""
    return env.found_docs


def setup(app) -> dict:
    app.add_transform(Entries)
    app.connect("env-updated", write_all)
    app.add_js_file(None, body=FROM_A_FOLDER)
    app.connect("build-finished", not_found)
    if pages_url():
        app.setup_extension("sphinx_sitemap")
        app.config.sitemap_url_scheme, app.config.sitemap_excludes = (
            "{link}",
            ["search.html", "genindex.html"],
        )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
