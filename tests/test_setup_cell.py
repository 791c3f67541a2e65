"""A chapter opened alone, as in Colab: its set-up cell runs in an empty virtual environment."""

import os
import re
import subprocess
import sys
from collections import Counter

import nbformat
import pytest

from tests.test_notebooks import CHAPTERS, NOTEBOOKS, ROOT, cells, tags


def test_setup_cell_in_an_empty_environment(tmp_path):
    """The cell finds no companion, installs it from the checkout with what chapters need, and imports it."""
    source = next(c for c in cells(CHAPTERS[0], "code") if "setup" in tags(c)).source
    after = "\nfrom companion import data\nprint(len(data.fashion('val')), data.fashion_teacher(0).classes)\n"
    script = tmp_path / "cell.py"
    script.write_text(source + after)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    # The pins keep pip from taking a newer PyTorch than the book's, several gigabytes of it.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env |= {"PIP_CONSTRAINT": str(ROOT / "requirements.txt"), "MPLBACKEND": "agg"}
    run = subprocess.run(
        [tmp_path / "env/bin/python", script], cwd=ROOT / "chapters", env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "5000 10"


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
    made = [c for c in copy.cells if c.cell_type == "code"]
    changed = [(a.source, b.source) for a, b in zip(cells(path, "code"), made, strict=True) if a != b]
    assert len(changed) == 1
    assert changed[0][1] == changed[0][0].replace('"..[book]"', f'"companion[book] @ git+{URL}"')

    def squeezed(text):
        return re.sub(r"\s", "", text)

    before = "\n\n".join(c.source for c in cells(path, "markdown"))
    after = "\n\n".join(c.source for c in copy.cells if c.cell_type == "markdown")
    assert not re.search(
        r"\{[\w:-]+\}`|^\s*(?:`{3,}|:{3,})\{|CODE-CELL|^:\w+:|\.ipynb#|\.md#|<a id", after, re.M
    )
    for formula in re.findall(r"^```\{math\}\n(?::label:.*\n)?(.*?)^```", before, re.M | re.S):
        assert squeezed(formula) in squeezed(after)
    inline = r"(?<![$\w])\$([^$\n]+)\$(?!\$)"
    assert Counter(re.findall(inline, after)) >= Counter(re.findall(inline, before))
    words = re.findall(r"\w{4,}", re.sub(r"\{[\w:-]+\}`[^`]*`|```\{.*|^:\w+:.*", "", before, flags=re.M))
    assert Counter(words) - Counter(re.findall(r"\w{4,}", after)) == Counter()
