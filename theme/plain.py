"""Plain copies: every page as a notebook that reads well without an extension, made from the very trees of the pages.

They replace the sources under _build/html/_sources, so that the pages' download button hands them out; `make lab` takes
them from there into work/, and CI publishes them for Colab and GitHub. Their links lead to the pages where the pages have
an address (see book.py), otherwise to the neighbouring copies.
"""

import base64
import inspect
import os
import posixpath
import re
import subprocess
from functools import partial
from mimetypes import guess_type
from pathlib import Path

import nbformat
from as_markdown import CELL, CODE, Page, write
from book import pages_url, repository_url
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelspec import get_kernel_dict
from nbformat.v4 import new_markdown_cell, new_notebook
from plain_links import address, number, picture
from prepare import prepare

SOURCES = "_sources"
FOLDED = {"setup", "solution", "hide-input", "hide-cell", "remove-input", "remove-cell"}
# The lines of a source's set-up cell that prepare() takes the place of.
LOCAL = re.compile(r'\Afrom importlib\.util.*?"\.\.\[book\]"\]\)\n', re.S)
# What a notebook reads that lies beside it in the clone: the stored runs, or a page of the book.
READ = re.compile(r"""["']((?:\.\./chapters/)?results|\w+\.ipynb)["'/]""")
TITLE = "# @title Set-up: run this first\n"
FIGURE = "application/vnd.companion.figure+json"


def collect(app, doctree, docname: str) -> None:
    """Write a page down while its tree is whole; the links wait for the other pages."""
    if app.builder.name == "html":
        page = Page(
            link=partial(address, app, docname),
            number=partial(number, app, docname),
            picture=partial(picture, app),
        )
        app.plain_pages[docname] = write(doctree, page), page.hidden, moving_cells(doctree)


def moving_cells(doctree) -> set[int]:
    cells = doctree.findall(lambda node: "cell_index" in getattr(node, "attributes", {}))
    return {int(c["cell_index"]) for c in cells if any(type(n).__name__ == "moving" for n in c.findall())}


# --------------------------------------------------------------------------------------------------------- notebooks


def notebook(source: nbformat.NotebookNode | None, text: str, hidden: set[int], moves: dict[int, str], setup: str,
             pictures: dict[str, Path]):  # fmt: skip
    """The text in Markdown cells, and between them the source's code cells with what they gave."""
    made = []
    for i, piece in enumerate(re.split(f"{CODE}(\\d+){CODE}", text)):
        if i % 2:
            cell = code_cell(source.cells[int(piece)], int(piece) in hidden, setup)
            made.append(cell)
            if note := moves.get(int(piece)):
                made.append(note)
        else:
            made += [part.strip() for part in piece.split(CELL) if part.strip()]
    cells = [text_cell(c, i, pictures) if isinstance(c, str) else c for i, c in enumerate(joined(made))]
    kernel = {"name": "python3"} | {k: get_kernel_dict()[k] for k in ("display_name", "language")}
    # What Jupyter would write when it saves: then saving changes outputs, and those only where they differ.
    return new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": IPythonKernel.language_info}
    )


def text_cell(text: str, i: int, pictures: dict[str, Path]) -> nbformat.NotebookNode:
    cell = new_markdown_cell(text, id=f"text-{i}")
    for name in re.findall(r"\]\(attachment:([^)]+)\)", text):
        content = base64.b64encode(pictures[name].read_bytes()).decode()
        kind = guess_type(name)[0] or "application/octet-stream"
        cell.setdefault("attachments", {})[name] = {kind: content}
    return cell


def joined(made: list) -> list:
    """A note about a figure and the text below it in one cell, unless that text begins with a heading."""
    result = []
    for cell in made:
        if (
            isinstance(cell, str)
            and result
            and isinstance(result[-1], str)
            and cell[0] != "#"
            and CELL not in cell
        ):
            result[-1] += f"\n\n{cell}"
        else:
            result.append(cell)
    return result


def code_cell(cell: nbformat.NotebookNode, hidden: bool, setup: str) -> nbformat.NotebookNode:
    """As it stands in the chapter; folded where the page folds it, and whole numbers as every front end saves them."""
    tags = set(cell.metadata.get("tags", ()))
    if hidden or tags & FOLDED:
        cell.metadata["jupyter"] = {"source_hidden": True} | cell.metadata.get("jupyter", {})
        cell.metadata["cellView"] = "form"  # Colab's word for it
    if "setup" in tags:
        cell.source, replaced = LOCAL.subn(lambda _: setup, cell.source)
        if replaced != 1:
            raise ValueError(f"The set-up cell does not begin as the others do: {cell.source[:200]}")
    for output in cell.outputs:
        if FIGURE in output.get("data", {}):
            output.data[FIGURE] = whole(output.data[FIGURE])
    return cell


def whole(value):
    """-3.0 → -3, as JavaScript writes it."""
    if isinstance(value, dict):
        return {key: whole(v) for key, v in value.items()}
    if isinstance(value, list):
        return [whole(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def set_up(docname: str, code: str) -> str:
    """The beginning of a copy's set-up cell: prepare() and its call, tied to this repository and commit."""
    read = READ.search(code)
    given = posixpath.dirname(docname), read[1] if read else "", repository_url(), commit()
    call = f"prepare({', '.join(map(repr, given))})\n"
    return f"{TITLE}{inspect.getsource(prepare)}\n\n{call}del prepare\n"


def commit() -> str:
    """The commit that the copies are made from, where they can be fetched from somewhere."""
    if not repository_url():
        return ""
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return os.environ.get("GITHUB_SHA") or done.stdout.strip() or "HEAD"


def write_all(app, exception) -> None:
    if exception or app.builder.name != "html":
        return
    for docname, (text, hidden, moving) in app.plain_pages.items():
        path, source, code = Path(app.env.doc2path(docname)), None, ""
        if path.suffix == ".ipynb":
            source = nbformat.read(path, as_version=4)
            code = "\n".join(c.source for c in source.cells if c.cell_type == "code")
        note = f"*This figure moves on [its page]({pages_url()}{docname}.html).*"
        moves = dict.fromkeys(moving, note) if pages_url() else {}
        copy = notebook(source, text, hidden, moves, set_up(docname, code), app.plain_pictures)
        if re.search(r"\bfit(_many)?\(", code):  # Colab then offers a GPU, and `fit` trains on it
            copy.metadata |= {"accelerator": "GPU", "colab": {"gpuType": "T4"}}
        target = Path(app.outdir, SOURCES, f"{docname}.ipynb")
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.validate(copy)
        nbformat.write(copy, target)


def setup(app) -> dict:
    app.plain_pages, app.plain_headings, app.plain_pictures = {}, {}, {}
    app.connect("doctree-resolved", collect, priority=900)
    app.connect("build-finished", write_all, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
