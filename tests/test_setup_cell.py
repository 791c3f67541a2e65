"""A chapter opened alone, as in Colab: its set-up cell runs in an empty virtual environment."""

import os
import subprocess
import sys

import nbformat

from tests.test_notebooks import CHAPTERS, ROOT, cells, tags


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


def test_published_setup_cell_names_the_repository(tmp_path):
    """`scripts/colab.py` changes the source of the installation and nothing else; without an address, it stops."""
    command = [sys.executable, ROOT / "scripts/colab.py", tmp_path]
    env = {k: v for k, v in os.environ.items() if not k.startswith("GITHUB_") and k != "BOOK_REPOSITORY"}
    assert subprocess.run(command, env=env, capture_output=True).returncode == 1
    url = "https://example.org/somebody/book"
    subprocess.run(command, env=env | {"BOOK_REPOSITORY": url}, check=True, capture_output=True)
    for path in CHAPTERS:
        made = nbformat.read(tmp_path / path.relative_to(ROOT), as_version=4).cells
        changed = [(a.source, b.source) for a, b in zip(cells(path), made, strict=True) if a != b]
        assert len(changed) == 1
        assert changed[0][1] == changed[0][0].replace('"..[book]"', f'"companion[book] @ git+{url}"')
