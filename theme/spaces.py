"""What belongs together stays on one line: "84 %", "0.7 ± 0.3", "T = 4" and "Tian et al." get no-break spaces.

On the pages only, in running text, captions and tables; never in code, formulas and titles (the search compares a title
with what is typed, space by space; words in a text it finds one by one, whatever stands between them).
"""

import re

from docutils import nodes

NO_BREAK = "\N{NO-BREAK SPACE}"
TOGETHER = re.compile(
    r"(?<=\d) (?=%)"  # 84 %
    r"|(?<=[\d%]) (?=±)|(?<=±) (?=\d)"  # 0.7 ± 0.3
    r"|(?<=\b[A-Za-zα-ωΑ-Ω]) (?=[=<>≤≥] [−+]?[\d½])|(?<=\b[A-Za-zα-ωΑ-Ω] [=<>≤≥]) (?=[−+]?[\d½])"  # T = 4
    r"|(?<=\w) (?=et al\b)|(?<=\bet) (?=al\b)"  # Tian et al.
    r"|(?<=\b[Cc]hapter) (?=\d)"  # chapter 8
)
APART = (
    nodes.literal,
    nodes.math,
    nodes.math_block,
    nodes.FixedTextElement,
    nodes.raw,
    nodes.Invisible,
    nodes.title,
)


def joined(text: str) -> str:
    """The text with no-break spaces, as long as before."""
    return TOGETHER.sub(lambda found: found[0].replace(" ", NO_BREAK), text)


def pieces(block: nodes.Element) -> list[nodes.Text | None]:
    """The texts of a paragraph in their order, with None for what stays as it is."""
    found: list[nodes.Text | None] = []
    for child in block.children:
        if isinstance(child, APART):
            found.append(None)
        else:
            found += [child] if isinstance(child, nodes.Text) else pieces(child)
    return found


def join(block: nodes.Element) -> None:
    """A number that a run gave is a node of its own, so a paragraph is read as a whole and cut up again."""
    texts = pieces(block)
    whole = joined("".join("\0" if text is None else text.astext() for text in texts))
    at = 0
    for text in texts:
        length = 1 if text is None else len(text.astext())
        if text is not None and (new := whole[at : at + length]) != text.astext():
            text.parent.replace(text, nodes.Text(new))
        at += length


def keep_together(app, doctree, docname: str) -> None:
    if app.builder.format == "html":
        blocks = doctree.findall(lambda node: isinstance(node, (nodes.paragraph, nodes.caption)))
        for block in list(blocks):
            join(block)


def setup(app) -> dict:
    app.connect("doctree-resolved", keep_together, priority=950)  # after theme/plain.py has made its copies
    return {"parallel_read_safe": True, "parallel_write_safe": True}
