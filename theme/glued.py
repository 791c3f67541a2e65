"""Numbers that a run gave to the prose: a minus is a minus there, not the hyphen that Python's format writes."""

import re

from docutils import nodes


def true_minus(app, doctree, docname: str) -> None:
    """In {glue:text}`…` and nowhere else: "-2.9" and "1e-05" get the sign that the formulas beside them have."""
    for number in doctree.findall(lambda n: isinstance(n, nodes.inline) and "pasted-text" in n["classes"]):
        for text in list(number.findall(nodes.Text)):
            number.replace(text, nodes.Text(re.sub(r"(?<![^\We])-(?=\d)", "−", text)))


def setup(app) -> dict:
    app.connect("doctree-resolved", true_minus)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
