"""Chapters as they are published for Colab: the set-up cell installs `companion` from the repository.

    python scripts/colab.py OUT    # writes OUT/chapters/*.ipynb and OUT/reference/*.ipynb

The address comes from the environment (see theme/book.py). Without one there is nothing to publish.
"""

import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "theme"))
from book import repository_url  # noqa: E402

LOCAL = '"..[book]"'


def for_colab(notebook: nbformat.NotebookNode, url: str) -> nbformat.NotebookNode:
    """Point the set-up cell at the repository; an error if no cell, or more than one, names the checkout."""
    cells = [cell for cell in notebook.cells if LOCAL in cell.source]
    if len(cells) != 1:
        raise ValueError(f"one set-up cell must install {LOCAL}; found {len(cells)}.")
    cells[0].source = cells[0].source.replace(LOCAL, f'"companion[book] @ git+{url}"')
    return notebook


def main(out: str) -> None:
    url = repository_url()
    if not url:
        sys.exit("No repository address: set BOOK_REPOSITORY, or run this in the CI that publishes.")
    for path in sorted([*ROOT.glob("chapters/*.ipynb"), *ROOT.glob("reference/*.ipynb")]):
        target = Path(out) / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(for_colab(nbformat.read(path, as_version=4), url), target)
        print(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
