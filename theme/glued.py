"""Numbers that a run gave to the prose: with a true minus there, and in the words that stand for a figure, too."""

import json
import re
from pathlib import Path

from docutils import nodes
from myst_nb.core.variables import format_plain_text
from sphinx.errors import ExtensionError

ROLE = re.compile(r"\{glue:text\}`(\w+)(?::(?!:)([^`]*))?`")
HYPHEN = re.compile(r"(?<![^\We])-(?=\d)")
RECORD = "application/papermill.record/text/plain"


def given(notebook: dict) -> dict[str, str]:
    """What the cells of a notebook gave: name → the literal."""
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
                found[name] = "".join(output["data"][RECORD])
    return found


def filled(alt: str, numbers: dict[str, str]) -> str:
    """A figure's alternative text with its numbers: myst-nb fills them into captions, but not here.

    Raises:
        KeyError: no cell of the notebook gave a number of that name.
        ValueError: it cannot be written so, or is asked for in a way that is filled in captions alone.
    """

    def number(found: re.Match) -> str:
        return HYPHEN.sub("−", format_plain_text(numbers[found[1]], found[2] or "s"))

    text = ROLE.sub(number, alt)
    if "{glue" in text:
        raise ValueError("it takes {glue:text}`name` and {glue:text}`name:.1f`, of its own page")
    return text


def fill(app, doctree) -> None:
    wanting = [node for node in doctree.findall(nodes.Element) if "{glue" in str(node.get("alt", ""))]
    if wanting:
        path = Path(app.env.doc2path(app.env.docname))
        numbers = given(json.loads(path.read_text(encoding="utf-8")))
        for node in wanting:
            try:
                node["alt"] = filled(node["alt"], numbers)
            except KeyError as missing:
                raise ExtensionError(
                    f"{path.name}: no cell glues {missing}, which an alternative text prints"
                ) from None
            except ValueError as error:
                raise ExtensionError(f"{path.name}: the alternative text “{node['alt']}”: {error}") from None


def true_minus(app, doctree, docname: str) -> None:
    """In {glue:text}`…` and nowhere else: "-2.9" and "1e-05" get the sign that the formulas beside them have."""
    for number in doctree.findall(lambda n: isinstance(n, nodes.inline) and "pasted-text" in n["classes"]):
        for text in list(number.findall(nodes.Text)):
            number.replace(text, nodes.Text(HYPHEN.sub("−", text)))


def setup(app) -> dict:
    app.connect("doctree-read", fill)
    app.connect("doctree-resolved", true_minus)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
