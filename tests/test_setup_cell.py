"""A chapter opened alone, as in Colab: its set-up cell runs in an empty virtual environment."""

import os
import re
import subprocess
import sys
from collections import Counter
from importlib import metadata

import nbformat
import pytest
from packaging.requirements import Requirement

from tests.test_notebooks import CHAPTERS, NOTEBOOKS, ROOT, cells, tags

sys.path.append(str(ROOT / "scripts"))
from colab import for_colab


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Run a cell's source in a virtual environment that holds nothing, from a folder; give its output's lines."""
    place = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", place / "env"], check=True)
    # The pins keep pip from taking a newer PyTorch than the book's, several gigabytes of it.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    # As an address: pip takes the variable for a list and would part a path at its spaces.
    env |= {"PIP_CONSTRAINT": (ROOT / "requirements.txt").as_uri(), "MPLBACKEND": "agg"}

    def run(source, folder):
        python, script = place / "env/bin/python", place / "cell.py"
        subprocess.run([python, "-m", "pip", "uninstall", "-qy", "companion"], check=True, env=env)
        script.write_text(source)
        done = subprocess.run([python, script], cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_setup_cell_in_an_empty_environment(empty):
    """The cell finds no companion, installs it from the checkout with what chapters need, and imports it."""
    source = next(c for c in cells(CHAPTERS[0], "code") if "setup" in tags(c)).source
    after = "\nfrom companion import data\nprint(len(data.fashion('val')), data.fashion_teacher(0).classes)\n"
    assert empty(source + after, ROOT / "chapters")[-1] == "5000 10"


def test_published_set_up_brings_the_stored_runs(empty, tmp_path):
    """As in Colab: an empty folder, and a repository to clone, for which this checkout stands."""
    notebook = nbformat.read(ROOT / "chapters/05_project.ipynb", as_version=4)
    cell = next(c for c in notebook.cells if "setup" in tags(c))
    for_colab(notebook, "", str(ROOT), "chapters")
    after = "\nprint(path.exists('results/05_controls.csv'), companion.__version__)\n"
    again = "\n" + cell.source.split("import copy")[0]
    assert empty(cell.source + again + after, tmp_path)[-1].startswith("True ")
    once = cell.source.replace('check_call(["git"', '1 / 0 and check_call(["git"')  # after a restart
    assert once != cell.source and empty(once + after, tmp_path)[-1].startswith("True ")


def test_the_installation_leaves_colabs_ipython_alone():
    """Colab runs on IPython 7.34; pip would replace it under the running session for a later one."""
    needed = [Requirement(text) for text in metadata.requires("companion")]
    (ipython,) = (r for r in needed if r.name == "ipython")
    assert ipython.specifier.contains("7.34.0")


URL = "https://example.org/somebody/book"


def publish(out, **address):
    env = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB_") and k != "BOOK_REPOSITORY"}
    command = [sys.executable, ROOT / "scripts/colab.py", out]
    return subprocess.run(command, env=env | address, capture_output=True, text=True)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    out = tmp_path_factory.mktemp("colab")
    done = publish(out, BOOK_REPOSITORY=URL)
    assert done.returncode == 0, done.stderr
    return out


def test_nothing_is_published_without_an_address(tmp_path):
    assert publish(tmp_path).returncode == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_published_copy(published, path):
    """Code as it was but for the set-up's source of the installation; text in plain Markdown, formulas intact."""
    copy = nbformat.read(published / path.relative_to(ROOT), as_version=4)
    nbformat.validate(copy)
    trains = any(re.search(r"\bfit(_many)?\(", c.source) for c in cells(path, "code"))
    assert copy.metadata.get("accelerator") == ("GPU" if trains else None)
    made = [c for c in copy.cells if c.cell_type == "code"]
    changed = [(a.source, b.source) for a, b in zip(cells(path, "code"), made, strict=True) if a != b]
    assert len(changed) == 1
    added = [line for line in changed[0][1].splitlines() if line not in changed[0][0].splitlines()]
    assert [line.strip() for line in added] == [
        "from os import chdir, path",
        'if not (path.isdir("book") or path.isdir("../companion")):',
        f'check_call(["git", "clone", "-q", "--depth", "1", "{URL}", "book"])',
        'check_call([executable, "-m", "pip", "install", "-q", "./book[book]"])',
        'if path.isdir("book"):',
        f'chdir("book/{path.parent.name}")',
    ]

    def squeezed(text):
        return re.sub(r"\s", "", text)

    before = "\n\n".join(c.source for c in cells(path, "markdown"))
    after = "\n\n".join(c.source for c in copy.cells if c.cell_type == "markdown")
    shown = re.compile(
        r"^(`{4,})\w*\n.*?^\1$|(?<!`)(`{2,}) .*? \2(?!`)", re.M | re.S
    )  # code with backticks in it
    assert not re.search(
        r"\{[\w:-]+\}`|^\s*(?:`{3,}|:{3,})\{|CODE-CELL|^:\w+:|\.ipynb#|\.md#|<a id",
        shown.sub("", after),
        re.M,
    )
    for formula in re.findall(r"^```\{math\}\n(?::label:.*\n)?(.*?)^```", before, re.M | re.S):
        assert squeezed(formula) in squeezed(after)
    inline = r"(?<![$\w])\$([^$\n]+)\$(?!\$)"
    assert Counter(re.findall(inline, after)) >= Counter(re.findall(inline, before))
    words = re.findall(r"\w{4,}", re.sub(r"\{[\w:-]+\}`[^`]*`|```\{.*|^:\w+:.*", "", before, flags=re.M))
    assert Counter(words) - Counter(re.findall(r"\w{4,}", after)) == Counter()
