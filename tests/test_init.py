"""What `import companion` gives: seeds, the device, a set-up that makes runs repeat, and the modules when asked for."""

import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import torch

import companion

ROOT = Path(companion.__file__).parent


@pytest.mark.parametrize("text, expected", [(None, 0), ("0", 0), ("7", 7), ("12", 12)])
def test_book_seed_is_the_environment_s(monkeypatch, text, expected):
    monkeypatch.delenv("BOOK_SEED", raising=False)
    if text is not None:
        monkeypatch.setenv("BOOK_SEED", text)
    assert companion.book_seed() == expected
    assert companion.seeds(3) == [1000 * expected, 1000 * expected + 1, 1000 * expected + 2]


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "", " 1"])
def test_a_seed_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv("BOOK_SEED", text)
    with pytest.raises(ValueError, match="whole number of 0 or more; got"):
        companion.seeds(2)


def test_setup_makes_a_chapter_repeatable(monkeypatch):
    monkeypatch.setenv("BOOK_SEED", "3")
    threads, cudnn = torch.get_num_threads(), torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic
    try:
        torch.set_num_threads(2)
        cudnn.allow_tf32, cudnn.deterministic = True, False
        mpl.rcdefaults()
        companion.setup()
        assert torch.get_num_threads() == 1
        assert not cudnn.allow_tf32 and cudnn.deterministic
        assert mpl.rcParams["svg.hashsalt"] == "companion"
        drawn = torch.rand(3)
        torch.manual_seed(3)
        assert torch.equal(drawn, torch.rand(3))
        torch.rand(5)
        companion.setup()
        assert torch.equal(drawn, torch.rand(3))
    finally:
        torch.set_num_threads(threads)
        cudnn.allow_tf32, cudnn.deterministic = before


def test_every_public_module_is_an_attribute():
    public = {p.stem for p in ROOT.glob("[!_]*.py")} | {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert "losses" in public and public == set(companion._MODULES)
    assert public <= set(dir(companion))
    for name in public:
        assert getattr(companion, name) is sys.modules[f"companion.{name}"]


def test_modules_are_imported_only_when_asked_for():
    code = """
import sys, companion
print(any(m.startswith(("companion.", "matplotlib")) for m in sys.modules))
print(companion.losses.kd_loss.__name__, "companion.losses" in sys.modules, "companion.plotting" in sys.modules)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=True
    )
    assert ran.stdout.splitlines() == ["False", "kd_loss True False"]


def test_what_is_in_no_module_is_refused_with_the_way_to_a_loss():
    with pytest.raises(AttributeError, match=r"'nothing'.*from companion\.losses import"):
        companion.nothing  # noqa: B018
    with pytest.raises(ImportError, match="distillation_loss"):
        from companion import distillation_loss  # noqa: F401


@pytest.mark.parametrize("n", [0, -1, 2.5])
def test_no_seeds_are_no_repetitions(n):
    with pytest.raises(ValueError, match="number of seeds is a whole number, 1 or more; got"):
        companion.seeds(n)
