"""A chapter opened alone, as in Colab: its set-up cell runs in an empty environment and brings what is missing."""

import os
import subprocess
import sys
import zipfile
from importlib import metadata
from shutil import which

import pytest
from packaging.requirements import Requirement

from tests.test_notebooks import CHAPTERS, ROOT, cells, tags

sys.path.append(str(ROOT / "theme"))
import plain
from prepare import prepare

CPU = "https://download.pytorch.org/whl/cpu"
INSTALL = ["-m", "pip", "install", "-q", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """Run a cell's source in a virtual environment without companion, from a folder; give its output's lines."""
    place = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", place / "env"], check=True)
    # The pins keep pip from taking a newer PyTorch than the book's, several gigabytes of it.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    # As an address: pip takes the variable for a list and would part a path at its spaces.
    env |= {"PIP_CONSTRAINT": (ROOT / "requirements.txt").as_uri(), "MPLBACKEND": "agg"}

    def run(source, folder, without=("companion",)):
        python, script = place / "env/bin/python", place / "cell.py"
        subprocess.run([python, "-m", "pip", "uninstall", "-qy", *without], check=True, env=env)
        script.write_text(source)
        done = subprocess.run([python, script], cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def setup_cell(path):
    return next(c for c in cells(path, "code") if "setup" in tags(c))


def of_copy(path):
    """The set-up cell of a plain copy as it is published from this checkout, which stands for the repository."""
    code = "\n".join(c.source for c in cells(path, "code"))
    beginning = plain.set_up(f"{path.parent.name}/{path.stem}", code)
    return plain.code_cell(setup_cell(path), False, beginning).source


@pytest.fixture
def repository(monkeypatch):
    monkeypatch.delenv("GITHUB_SHA", raising=False)
    monkeypatch.setenv("BOOK_REPOSITORY", str(ROOT))


def test_setup_cell_in_an_empty_environment(empty):
    """The cell finds no companion, installs it from the checkout with what chapters need, and imports it."""
    after = "\nfrom companion import data\nprint(len(data.fashion('val')), data.fashion_teacher(0).classes)\n"
    assert empty(setup_cell(CHAPTERS[0]).source + after, ROOT / "chapters")[-1] == "5000 10"


@pytest.mark.skipif(bool(which("nvidia-smi")), reason="with a GPU, pip takes PyTorch as it comes")
def test_without_a_gpu_pytorch_comes_from_its_cpu_index(empty, repository, tmp_path):
    """A package that is called torch and holds nothing stands for PyTorch's; the index is a folder."""
    index = tmp_path / "simple/torch"
    index.mkdir(parents=True)
    version = "2.13.0+cpu"  # as the pins have it
    about = f"torch-{version}.dist-info"
    with zipfile.ZipFile(index / f"torch-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("torch/__init__.py", "")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    (index / "index.html").write_text(f'<a href="torch-{version}-py3-none-any.whl">torch</a>')
    cell = of_copy(CHAPTERS[0]).split("del prepare")[0]
    assert cell.count(CPU) == 1
    cell = cell.replace(CPU, index.parent.as_uri())
    after = "\nfrom importlib.metadata import version\nprint(version('torch'), version('matplotlib'))\n"
    (tmp_path / "alone").mkdir()
    lines = empty(cell + after, tmp_path / "alone", without=("companion", "torch"))
    assert lines[-1].startswith(f"{version} ") and any("a few minutes" in line for line in lines)
    empty("", tmp_path, without=("companion", "torch"))


def test_a_copy_alone_in_a_folder_brings_the_stored_runs(empty, repository, tmp_path):
    """And again, as when the cell is run twice; and after a restart of the kernel. An index that fails is no obstacle."""
    source = of_copy(ROOT / "chapters/05_project.ipynb").replace(CPU, (tmp_path / "nothing").as_uri())
    after = (
        "\nfrom pathlib import Path\nprint(Path('results/05_controls.csv').exists(), companion.__version__)\n"
    )
    assert empty(source + source + after, tmp_path)[-1].startswith("True ")
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True)
    assert subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=tmp_path / "book", text=True) == head
    once = source.replace('check_call(["git"', '1 / 0 and check_call(["git"')
    assert once != source and empty(once + after, tmp_path)[-1].startswith("True ")


@pytest.fixture
def called(monkeypatch, tmp_path):
    """What prepare() would run, as it stands alone in a folder; `there` says which packages and programs are found."""
    calls, there = [], set()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in there else None)
    monkeypatch.setattr("shutil.which", lambda name: name if name in there else None)
    for name in ("run", "check_call"):
        monkeypatch.setattr(f"subprocess.{name}", lambda command, cwd=None: calls.append(command))
    return calls, there


def clone(folder):
    for name in ("companion", "chapters/results"):
        (folder / name).mkdir(parents=True)
    (folder / "companion/__init__.py").touch()
    return folder


def test_in_the_book_s_environment_nothing_is_run(called, tmp_path):
    calls, there = called
    there.add("companion")
    (tmp_path / "results").mkdir()
    prepare("chapters", "results", "", "")
    prepare("chapters", "", "", "")
    assert calls == [] and os.getcwd() == str(tmp_path)


@pytest.mark.parametrize("found", [(), ("nvidia-smi",), ("torch",)])
def test_what_is_fetched_and_installed(called, tmp_path, found):
    calls, there = called
    there.update(found)
    prepare("chapters", "", "https://example.org/somebody/book", "0123abc")
    git, pip = calls[:3], [command[1:] for command in calls[3:]]
    assert git[1][-2:] == ["https://example.org/somebody/book", "0123abc"]
    cpu = [] if found else [[*INSTALL, "torch", "--index-url", CPU]]
    assert pip == [*cpu, [*INSTALL, f"{tmp_path / 'book'}[book]"]]


def test_inside_the_clone_nothing_is_fetched(called, tmp_path, monkeypatch):
    calls, there = called
    there.add("torch")
    (clone(tmp_path / "the clone") / "work/chapters").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "the clone/work/chapters")
    prepare("chapters", "results", "https://example.org/somebody/book", "0123abc")
    assert [command[1:] for command in calls] == [[*INSTALL, f"{tmp_path / 'the clone'}[book]"]]
    assert os.getcwd() == str(tmp_path / "the clone/chapters")


@pytest.mark.parametrize("found", [(), ("companion",)])
def test_a_copy_without_an_address_says_what_to_do(called, found):
    calls, there = called
    there.update(found)
    with pytest.raises(FileNotFoundError, match=r"pip install \.\[book\]"):
        prepare("chapters", "results", "", "")
    assert calls == []


def test_a_copy_is_tied_to_its_commit(monkeypatch):
    monkeypatch.setenv("BOOK_REPOSITORY", "https://example.org/somebody/book/")
    monkeypatch.setenv("GITHUB_SHA", "0123abc")
    made = plain.set_up("reference/losses", 'stored = Path("../chapters/results/07_faults.csv")')
    assert (
        "prepare('reference', '../chapters/results', 'https://example.org/somebody/book', '0123abc')" in made
    )
    monkeypatch.delenv("BOOK_REPOSITORY")
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    assert "prepare('chapters', '', '', '')" in plain.set_up("chapters/01_background", "")


def test_the_installation_leaves_colabs_ipython_alone():
    """Colab runs on IPython 7.34; pip would replace it under the running session for a later one."""
    needed = [Requirement(text) for text in metadata.requires("companion")]
    (ipython,) = (r for r in needed if r.name == "ipython")
    assert ipython.specifier.contains("7.34.0")
