"""Figures, formulas and exercises are numbered within their chapter: Fig. 3.2 is the second figure of chapter 3.

What stands in a closed fold takes the number before it and a letter, 3.2a, so that a reader who opens no fold misses no
number. Sphinx counts through the whole book; its count is replaced here, before the pages and the plain copies use it.
"""

import re
from collections.abc import Callable
from functools import wraps

from docutils import nodes
from sphinx.environment.collectors.toctree import TocTreeCollector

CHAPTER = re.compile(r"chapters/(\d+)_")


def in_fold(node: nodes.Node) -> bool:
    """Whether it stands in a box, or in a cell's output, that is closed until the reader opens it."""
    while node is not None:
        at = getattr(node, "attributes", {})
        if "dropdown" in at.get("classes", ()) or at.get("hide_mode") in ("all", "output", "input+output"):
            return True
        node = node.parent
    return False


def numbered(folded: list[bool], chapter: int | None) -> list[tuple]:
    """The numbers of things in a row, of which some stand in folds: (3, 1), (3, "1a"), (3, "1b"), (3, 2)."""
    found, shown, letters = [], 0, 0
    for hidden in folded:
        shown, letters = (shown, letters + 1) if hidden else (shown + 1, 0)
        if letters > 26:
            raise ValueError(
                f"chapter {chapter}: more than 26 in folds after number {shown}: a letter is wanted for each"
            )
        own = f"{shown}{chr(ord('a') + letters - 1)}" if letters else shown
        found.append((own,) if chapter is None else (chapter, own))
    return found


def by_chapter(assign: Callable) -> Callable:
    @wraps(assign)
    def assign_figure_numbers(self, env) -> list[str]:
        before = env.toc_fignumbers
        assign(self, env)
        for docname, kinds in env.toc_fignumbers.items():
            chapter = CHAPTER.match(docname)
            hidden = {
                i
                for node in env.get_doctree(docname).findall(nodes.Element)
                if node.get("ids") and in_fold(node)
                for i in node["ids"]
            }
            for ids in kinds.values():
                new = numbered([i in hidden for i in ids], int(chapter[1]) if chapter else None)
                ids.update(zip(list(ids), new, strict=True))
        # A page that names another page's figure has to be written anew with it.
        return [] if env.toc_fignumbers == before else sorted(env.found_docs)

    return assign_figure_numbers


def setup(app) -> dict:
    if not hasattr(TocTreeCollector.assign_figure_numbers, "__wrapped__"):
        TocTreeCollector.assign_figure_numbers = by_chapter(TocTreeCollector.assign_figure_numbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
