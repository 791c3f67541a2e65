"""`make` and the publishing where things are not as usual: half an installation, a busy port, a second user, spaces."""

import os
import re
import socket
import subprocess
import sys

import pytest
import yaml
from packaging.requirements import Requirement

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings the same under its older name
    import tomli as tomllib

from tests.test_notebooks import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOWS = {p.name: p.read_text(encoding="utf-8") for p in ROOT.glob(".github/workflows/*.yml")}


@pytest.fixture
def installed(tmp_path):
    """What is installed already, counted as made; under a name without spaces, which a target of make may not have."""
    (tmp_path / "installed").symlink_to(sys.prefix)
    return [f"VENV={tmp_path}/installed", f"--old-file={tmp_path}/installed/ready"]


@pytest.fixture
def python(tmp_path, installed):
    """PYTHON=…, by that name."""
    return f"PYTHON={tmp_path}/installed/bin/python"


def make(*arguments, folder=ROOT, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "GITHUB_"))} | environment
    done = subprocess.run(["make", *map(str, arguments)], cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


# ------------------------------------------------------------------------------------------ the environment


def has_pip(environment):
    return (
        subprocess.run([environment / "bin/python", "-m", "pip", "--version"], capture_output=True).returncode
        == 0
    )


def test_an_environment_without_pip_is_completed_and_not_emptied(tmp_path, python):
    """As Debian leaves it where python3-venv is missing."""
    place = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    (place / "kept").touch()
    assert not has_pip(place)
    code, said = make("environment", f"VENV={place}", python)
    assert code == 0 and has_pip(place) and (place / "kept").exists(), said


def test_an_environment_whose_python_is_gone_is_made_again(tmp_path, python):
    place = tmp_path / "env"
    (place / "bin").mkdir(parents=True)
    (place / "pyvenv.cfg").write_text("home = /no/where\n")
    (place / "bin/python").symlink_to("/no/where/python3")
    code, said = make("environment", f"VENV={place}", python)
    assert code == 0 and has_pip(place), said


def test_a_folder_that_is_no_environment_is_not_emptied(tmp_path):
    (tmp_path / "mine").touch()
    make("environment", f"VENV={tmp_path}", "PYTHON=false")
    assert (tmp_path / "mine").exists()
    code, said = make("environment", f"VENV={tmp_path / 'env'}", "PYTHON=false")
    assert code and "python3-venv" in said


# ------------------------------------------------------------------------------------------ place and port


def test_a_busy_port_is_named_with_the_remedy(installed):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = make(*installed, "--old-file=_build/html/index.html", "serve", f"PORT={port}")
    assert code and f"Port {port} is not free" in said and "PORT=8001" in said and "Traceback" not in said


def test_make_from_another_folder_says_where_to_run_it(tmp_path):
    code, said = make("-f", ROOT / "Makefile", "book", folder=tmp_path)
    assert code and "make -C FOLDER" in said


def test_the_books_folder_may_have_spaces_in_its_name():
    """Wherever its path goes to the shell, it stands between quotes."""
    lines = [line for line in MAKEFILE.splitlines() if "$(CURDIR)" in line]
    assert len(lines) > 3
    for line in lines:
        assert re.findall(r"\$\(CURDIR\)", re.sub(r'"[^"]*"', "", line)) == [], line


def test_copies_for_colab_leave_nothing_in_the_common_temporary_folder(tmp_path, installed):
    """A second user of the computer could not write there what the first one left."""
    common, out = tmp_path / "common", tmp_path / "out"
    common.mkdir()
    address = {"TMPDIR": str(common), "BOOK_REPOSITORY": "https://example.org/somebody/book"}
    code, said = make(*installed, "colab", f"COLAB={out}", **address)
    assert code == 0 and list(out.rglob("*.ipynb")), said
    assert list(common.iterdir()) == []


def test_the_peers_tests_are_collected_in_an_environment_of_torchdistill_alone(tmp_path):
    """What other extras bring does not import there: a test that needs it says so and is left out."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {
        Requirement(r).name for key, e in extras["optional-dependencies"].items() if key != "pages" for r in e
    }
    names = {
        {"scikit-learn": "sklearn"}.get(n, n.replace("-", "_")) for n in names - {"torchdistill", "ipython"}
    }
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nfrom importlib.abc import MetaPathFinder\n\nclass Refuse(MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {names}:\n            raise ModuleNotFoundError(name)\n\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "BOOK_PEERS": ""}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "tests/peers"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "test_left_out" in done.stdout and "error" not in done.stdout.lower(), done.stdout[-2000:]


# ------------------------------------------------------------------------------------------------ publishing


def steps(name):
    jobs = yaml.safe_load(WORKFLOWS[name])["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_commit(name):
    used = [step["uses"] for step in steps(name) if "uses" in step]
    assert (
        used and [action for action in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)] == []
    )
    assert len(re.findall(r"@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", WORKFLOWS[name], re.M)) == len(used)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_command_line_shows_a_token(name):
    commands = [step["run"] for step in steps(name) if "run" in step]
    assert commands and not [c for c in commands if re.search(r"token|secrets|\$\{\{", c)]
