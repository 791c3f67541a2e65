"""The part of as_markdown.py within a paragraph: text, code, formulas, links and pictures."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from docutils import nodes

# What says nothing in a notebook: the outputs' nodes stand in the code cells themselves.
SILENT = ("comment", "compound", "index", "raw", "substitution_definition", "target", "toctree")
OPEN = {"emphasis": "*", "strong": "**"}


@dataclass
class Page:
    """What a page's text needs from around it."""

    link: Callable[[nodes.Element], str]  # where a reference leads
    number: Callable[[nodes.Element], str]  # "Exercise 5", "Fig. 2", "11" for a formula, as the page has it
    picture: Callable[[str], str]  # what a copy calls an image, from its path
    hidden: set[int] = field(default_factory=set)  # code cells inside solutions and other folds


def inline(node: nodes.Node, page: Page, table: bool = False) -> str:
    """The children of a node, as Markdown on one line."""
    return "".join(span(child, page, table) for child in node.children)


def span(node: nodes.Node, page: Page, table: bool) -> str:
    kind = type(node).__name__
    if isinstance(node, nodes.Text):
        return escaped(" ".join(re.split(r"\s*\n\s*", node.astext())), table)
    if kind in SILENT:
        return ""
    if kind in OPEN:
        text = inline(node, page, table)
        return f"{OPEN[kind]}{text}{OPEN[kind]}" if text else ""
    if isinstance(node, nodes.literal):
        return code(node.astext(), table)
    if isinstance(node, nodes.math):
        return f"${tex(node.astext(), table)}$"
    if isinstance(node, nodes.image):
        return picture(node, page)
    if isinstance(node, nodes.reference):
        text, address = inline(node, page, table), page.link(node)
        before, text, after = re.fullmatch(r"(\s*)(.*?)(\s*)", text, re.S).groups()
        return f"{before}[{text}]({address}){after}" if address and text else before + text + after
    return inline(node, page, table)


def escaped(text: str, table: bool = False) -> str:
    """Text whose characters mean themselves. Brackets stay, as `\\[` opens a formula in some front ends."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("\\", "&#92;").replace("<", "&lt;")
    text = re.sub(r"([*`~])|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text).replace("](", "]&#40;")
    text = text.replace("$", "<span>$</span>")
    return text.replace("|", "\\|") if table else text


def code(text: str, table: bool) -> str:
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    text = re.sub(r"\s*\n\s*", " ", text).strip()
    text = f" {text} " if "`" in text else text
    return f"{fence}{text.replace('|', chr(92) + '|') if table else text}{fence}"


def tex(formula: str, table: bool = False) -> str:
    """On one line; in a table without the bar that would end its cell."""
    formula = " ".join(formula.split())
    return formula.replace("\\|", "\\Vert ").replace("|", "\\vert ") if table else formula


def display(node: nodes.math_block, page: Page, nested: bool) -> str:
    """$$ … $$ as Sphinx sets it for the page, with the page's number. On one line where each line gets a prefix."""
    text, number = node.astext().strip(), page.number(node)
    if node.get("nowrap"):  # an environment of its own, which needs another name between dollars
        text = re.sub(r"\\(begin|end)\{(align|gather)\*?\}", r"\\\1{\2ed}", text)
        text = re.sub(r"\\(begin|end)\{equation\*?\}", "", text).strip()
    elif "\\\\" in text and "\\begin" not in text:
        text = f"\\begin{{split}}{text}\\end{{split}}"
    text = re.sub(r"\n\s*\n", "\n", text) + (f" \\tag{{{number}}}" if number else "")
    return f"$$ {tex(text)} $$" if nested else f"$$\n{text}\n$$"


def picture(node: nodes.image, page: Page) -> str:
    return f"![{escaped(node.get('alt', ''))}]({page.picture(node['uri'])})"
