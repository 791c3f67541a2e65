"""A resolved page as plain Markdown: what any Jupyter, Colab, VS Code and GitHub show without an extension.

`write(page, link)` gives the text with marks in it: CELL parts it into cells, CODE says which code cell stands there.
Numbers, citations and glued values are in the tree already, as Sphinx resolved it for the page; here they are only
written down. Formulas stay TeX between dollars, with the page's number as \\tag. Boxes become block quotes; what folds on
the page folds here, as <details>.
"""

import re

from docutils import nodes
from spans import SILENT, Page, display, escaped, inline, picture, span

CELL, CODE = "\x01", "\x02"


def write(node: nodes.Node, page: Page) -> str:
    """The page's text."""
    return re.sub(r"\n{3,}", "\n\n", blocks(node, page, 0)).strip()


# --------------------------------------------------------------------------------------------------------- blocks


def blocks(node: nodes.Node, page: Page, level: int, nested: bool = False) -> str:
    """The children of a node, one block below the other; `level` is the last heading's."""
    parts = (block(child, page, level, nested) for child in node.children)
    return "\n\n".join(part for part in parts if part.strip())


def block(node: nodes.Node, page: Page, level: int, nested: bool) -> str:
    kind = type(node).__name__
    if isinstance(node, nodes.Text):
        return escaped(node.astext())
    if isinstance(node, nodes.section):
        return section(node, page, level, nested)
    if "cell_index" in getattr(node, "attributes", {}):
        return code_cell(node, page)
    if kind in SILENT or kind == "title":
        return ""
    if kind.startswith(("exercise_", "solution_")):
        return exercise(node, page, level)
    if isinstance(node, nodes.Admonition | nodes.topic | nodes.sidebar):
        return box(node, page, level, nested)
    if isinstance(node, nodes.math_block):
        return display(node, page, nested)
    if isinstance(node, nodes.literal_block | nodes.doctest_block):
        return listing(node)
    if isinstance(node, nodes.bullet_list | nodes.enumerated_list):
        return items(node, page, level)
    if isinstance(node, nodes.definition_list_item):
        term, *rest = node.children
        text = "\n\n".join(blocks(child, page, level, True) for child in rest)
        return "- " + indented(f"**{inline(term, page)}**: {text}", 2)
    if isinstance(node, nodes.table):
        return table(node, page)
    if isinstance(node, nodes.block_quote):
        return prefixed(blocks(node, page, level, True))
    if isinstance(node, nodes.figure):
        image = "".join(
            block(child, page, level, nested) for child in node.children if child.tagname != "caption"
        )
        return f"{image}\n\n{caption(node, page)}"
    if isinstance(node, nodes.image):
        return picture(node, page)
    if isinstance(node, nodes.citation):
        label, *rest = node.children
        return f"**{inline(label, page)}** " + "\n\n".join(block(part, page, level, nested) for part in rest)
    if isinstance(node, nodes.TextElement):
        return line(inline(node, page))
    if isinstance(node, nodes.transition):
        return "---"
    return blocks(node, page, level, nested)


def line(text: str) -> str:
    """A paragraph that begins no list, heading or quotation."""
    return re.sub(r"^(\s*)(?:([#>+-])|(\d+)([.)]))(?=\s|$)", r"\1\3\\\2\4", text)


def section(node: nodes.section, page: Page, level: int, nested: bool) -> str:
    """A heading and what stands below; the two upper levels begin a cell. (The text of an exercise has no title.)"""
    if not node.children or not isinstance(node[0], nodes.title):
        return blocks(node, page, level, nested)
    level += 1
    start = CELL if level <= 2 and not nested else ""
    return f"{start}{'#' * min(level, 6)} {inline(node[0], page)}\n\n{blocks(node, page, level, nested)}"


def code_cell(node: nodes.container, page: Page) -> str:
    """Its place, and the caption of a figure that it draws."""
    captions = [caption(figure, page) for figure in node.findall(nodes.figure)]
    return "\n\n".join([f"{CODE}{node['cell_index']}{CODE}", *filter(None, captions)])


def caption(node: nodes.figure, page: Page) -> str:
    found = next((child for child in node.children if isinstance(child, nodes.caption)), None)
    if found is None:
        return ""
    number = page.number(node)
    return f"**{number}:** {inline(found, page)}" if number else inline(found, page)


def exercise(node: nodes.Element, page: Page, level: int) -> str:
    """A heading with the book's number, and the text; a solution's text and code are folded."""
    title, rest = node[0], nodes.container("", *(child.deepcopy() for child in node.children[1:]))
    if type(node).__name__.startswith("solution_"):
        return f"{CELL}{folded(inline(title, page), rest, page, level)}{CELL}"
    subtitle = inline(title, page)
    return f"{CELL}{'#' * min(level + 1, 6)} {page.number(node)}{subtitle}\n\n{blocks(rest, page, level)}"


def box(node: nodes.Element, page: Page, level: int, nested: bool) -> str:
    """A block quote under its title in bold; folded where the page folds it."""
    has_title = node.children and isinstance(node[0], nodes.title)
    title = inline(node[0], page) if has_title else node.tagname.capitalize()
    if "dropdown" in node["classes"] and not nested:
        return folded(title, node, page, level)
    return prefixed(f"**{title}**\n\n{blocks(node, page, level, True)}")


def folded(title: str, node: nodes.Element, page: Page, level: int) -> str:
    """<details>; the code cells inside stand below, folded by themselves."""
    inside = [child for child in node.findall(nodes.container) if "cell_index" in child]
    page.hidden.update(int(child["cell_index"]) for child in inside)
    pieces = re.split(f"({CODE}\\d+{CODE})", blocks(node, page, level))
    summary = f"<summary>{html_title(title)}</summary>"
    made = [
        piece.strip() if CODE in piece else f"<details>{summary}\n\n{piece.strip()}\n\n</details>"
        for piece in pieces
        if piece.strip()
    ]
    if made and CODE in made[0]:
        made.insert(0, f"**{title}**")
    return "\n\n".join(made)


def html_title(text: str) -> str:
    """A title inside an HTML tag, where front ends differ about Markdown: its links and marks are dropped."""
    return re.sub(r"\[([^\[\]]*)\]\([^)]*\)|\*+", r"\1", text)


def listing(node: nodes.literal_block) -> str:
    text = node.astext().rstrip("\n")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    language = node.get("language", "")
    return (
        f"{fence}{'' if language in ('default', 'none', 'text', 'myst-ansi') else language}\n{text}\n{fence}"
    )


def items(node: nodes.Element, page: Page, level: int) -> str:
    made, start = [], node.get("start", 1)
    for i, item in enumerate(node.children):
        mark = "- " if isinstance(node, nodes.bullet_list) else f"{start + i}. "
        made.append(mark + indented(blocks(item, page, level, True), len(mark)))
    loose = any("\n\n" in text for text in made)
    return ("\n\n" if loose else "\n").join(made)


def indented(text: str, width: int) -> str:
    return re.sub(r"\n(?=[^\n])", "\n" + " " * width, text)


def prefixed(text: str) -> str:
    return "\n".join(f"> {row}".rstrip() for row in text.splitlines())


def table(node: nodes.table, page: Page) -> str:
    rows = [
        [" <br> ".join(cell(part, page) for part in entry.children) for entry in row.findall(nodes.entry)]
        for row in node.findall(nodes.row)
    ]
    rows.insert(1, ["---"] * len(rows[0]))
    title = next((f"**{inline(t, page)}**\n\n" for t in node.findall(nodes.title)), "")
    return title + "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(node: nodes.Node, page: Page) -> str:
    if isinstance(node, nodes.bullet_list):
        return " <br> ".join("• " + " ".join(cell(p, page) for p in item.children) for item in node.children)
    return span(node, page, table=True) if isinstance(node, nodes.Inline) else inline(node, page, table=True)
