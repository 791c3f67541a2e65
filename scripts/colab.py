"""Chapters as they are published for Colab: plain Markdown, and a set-up cell that installs from the repository.

    python scripts/colab.py OUT    # writes OUT/chapters/*.ipynb and OUT/reference/*.ipynb

Sphinx reads the book as it does for the pages, so that citations, references, equation numbers and glued values
are resolved; sphinx-markdown-builder writes the text as Markdown. Code cells go back into their places untouched.
The repository's address comes from the environment (see theme/book.py). Without one there is nothing to publish.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from docutils import nodes
from jupyter_book.config import get_final_config
from nbformat.v4 import new_markdown_cell
from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "theme"))
from book import repository_url  # noqa: E402

LOCAL = '    check_call([executable, "-m", "pip", "install", "-q", "..[book]"])\n'
MISSING = 'if not find_spec("companion"):'
# The checkout brings the stored runs that a chapter draws, so it is fetched where `companion` is installed too. After a
# restart of the kernel it is there already, and when the cell is run again we are in it.
FETCH = """if not (path.isdir("book") or path.isdir("../companion")):
    check_call(["git", "clone", "-q", "--depth", "1", "{url}", "book"])
"""
PUBLISHED = """    check_call([executable, "-m", "pip", "install", "-q", "./book[book]"])
if path.isdir("book"):
    chdir("book/{folder}")
"""
PLACE = "CODE-CELL-{}-STANDS-HERE"


def to_markdown(out: Path) -> None:
    """The whole book as one Markdown file a page, a mark in the place of each code cell."""
    overrides = {"latex_individualpages": False}
    config, _ = get_final_config(
        user_yaml=ROOT / "_config.yml", cli_config=overrides, sourcedir=ROOT, use_external_toc=True
    )
    extensions = [name for name in config["extensions"] if name != "sphinx_book_theme"]  # no page is drawn
    config |= {"extensions": [*extensions, "sphinx_markdown_builder"], "html_theme": "basic"}
    app = Sphinx(ROOT, None, out, out / ".trees", "markdown", config, status=None, warning=None)
    app.connect("doctree-resolved", plain, priority=900)
    app.build(force_all=True)


def plain(app, doctree, docname: str) -> None:
    """Replace what Markdown has no word for by what it has."""
    for cell in list(doctree.findall(lambda n: isinstance(n, nodes.container) and "cell_index" in n)):
        place = PLACE.format(cell["cell_index"])
        cell.replace_self(nodes.raw("", place + "\n\n", format="markdown"))
    for math in list(doctree.findall(nodes.math_block)):
        tag = f" \\tag{{{math['number']}}}" if math.get("number") else ""
        math.replace_self(nodes.raw("", f"\n\n$$\n{math.astext().strip()}{tag}\n$$\n\n", format="markdown"))
    for code in list(doctree.findall(lambda n: isinstance(n, nodes.literal | nodes.literal_block))):
        if "`" in code.astext():
            code.replace_self(nodes.raw("", fenced(code), format="markdown"))
    sources = {c.citation_id: source(c.entry.fields) for c in app.env.get_domain("cite").citations}
    for link in list(doctree.findall(nodes.reference)):
        anchor = link.get("refid") or link.get("refuri", "").partition("#")[2]
        if sources.get(anchor):
            link["refuri"], link["internal"] = sources[anchor], False
            link.attributes.pop("refid", None)
        elif link.get("internal") or "refid" in link:
            link.replace_self(link.children)  # the page it leads to is not in Colab
    for target in list(doctree.findall(nodes.target)):
        target.parent.remove(target)
    for node in list(doctree.findall(nodes.admonition)):  # with a title of its own
        flatten(node, ())
    for node in list(doctree.findall(lambda n: type(n).__name__.startswith(("exercise_", "solution_")))):
        numbers = app.env.toc_fignumbers.get(docname, {}).get("exercise", {})
        flatten(node, numbers.get(node.get("label"), ()))


def fenced(code) -> str:
    """Code that has backticks in it, between more of them."""
    text = code.astext()
    fence = "`" * (1 + max(map(len, re.findall("`+", text))))
    if isinstance(code, nodes.literal):
        return f"{fence} {text} {fence}"
    return f"\n\n{fence}{code.get('language', '')}\n{text}\n{fence}\n\n"


def source(fields) -> str:
    """Where the cited work is found."""
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    if "eprint" in fields:
        return f"https://arxiv.org/abs/{fields['eprint']}"
    return fields.get("url", "")


def flatten(node, number: tuple) -> None:
    """An exercise, a solution or an aside: its title as a heading of its own, its text below."""
    if "title" in type(node).__name__ or node.parent is None:
        return
    title, *rest = node.children
    text = title.astext().strip() or f"Exercise {'.'.join(map(str, number))}"
    heading = nodes.raw("", f"#### {text}\n\n", format="markdown")
    node.replace_self([heading, *(c for child in rest for c in (child.children or [child]))])


def for_colab(notebook: nbformat.NotebookNode, text: str, url: str, folder: str) -> nbformat.NotebookNode:
    """Put `text` between the code cells and point the set-up cell at the repository."""
    parts = re.split(PLACE.format(r"(\d+)"), text)
    before = dict(zip(map(int, parts[1::2]), parts[0::2], strict=False))
    made = []
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            made += [*markdown(before.get(i, ""), i), cell]
    notebook.cells = made + markdown(parts[-1], len(notebook.cells))
    setup = [cell for cell in made if LOCAL in cell.source]
    if len(setup) != 1:
        raise ValueError(f"one set-up cell must install the checkout; found {len(setup)}.")
    installed = setup[0].source.replace(LOCAL, PUBLISHED.format(folder=folder))
    fetched = installed.replace(MISSING, FETCH.format(url=url) + MISSING, 1)
    setup[0].source = fetched.replace("from subprocess", "from os import chdir, path\nfrom subprocess", 1)
    if any(
        re.search(r"\bfit(_many)?\(", cell.source) for cell in made if cell.cell_type == "code"
    ):  # Colab then offers a GPU, and `fit` trains on it
        notebook.metadata |= {"accelerator": "GPU", "colab": {"gpuType": "T4"}}
    return notebook


def markdown(text: str, i: int) -> list:
    text = (
        re.sub(r"\n{3,}", "\n\n", text).strip().replace("\\`", "`")
    )  # the builder escapes those of `fenced`
    return [new_markdown_cell(text, id=f"text-{i}")] if text else []


def main(out: str) -> None:
    url = repository_url()
    if not url:
        sys.exit("No repository address: set BOOK_REPOSITORY, or run this in the CI that publishes.")
    with tempfile.TemporaryDirectory() as folder:
        made = (
            Path(folder) / "markdown"
        )  # myst-nb writes beside this folder, so it is not the temporary one itself
        to_markdown(made)
        for page in sorted(made.rglob("*.md")):
            name = page.relative_to(made).with_suffix(".ipynb")
            if not (ROOT / name).exists():
                continue
            target = Path(out) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            notebook = nbformat.read(ROOT / name, as_version=4)
            nbformat.write(for_colab(notebook, page.read_text(encoding="utf-8"), url, name.parent), target)
            print(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
