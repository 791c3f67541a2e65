"""Chapter 14's long runs, on a tiny model: each condition trains what it says and nothing else, and a run resumes."""

import math
from types import SimpleNamespace

import pytest
import torch

from companion.generation import generate
from companion.teachers import SmolLM2
from experiments import chapter14 as runs
from experiments import common

LETTERS = "abcdefghijklmnopqrstuvwxyz \n"


def tiny() -> SmolLM2:
    """Six blocks of width 16 over letters, each token one character."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SmolLM2(6, 16, 4, 2, 24, len(LETTERS)).eval().requires_grad_(False)
    model.tokenizer = SimpleNamespace(
        encode=lambda text: SimpleNamespace(ids=[LETTERS.index(c) for c in text]),
        decode=lambda ids: "".join(LETTERS[i] for i in ids),
    )
    return model


@pytest.fixture
def small(monkeypatch, tmp_path):
    model = tiny()
    lines = ("the cat sat on the mat\n" * 300, "a b c d e f g h i j k\n" * 300)
    monkeypatch.setattr(runs, "model", lambda: model)
    monkeypatch.setattr(runs, "text", lambda name, part: lines[name == "dictionary"])
    monkeypatch.setattr(runs, "BEGINNING", "the cat")
    for name, value in {
        "FIRST": 2,
        "CUT": 4,
        "STEPS": 8,
        "RATES": (1e-3, 1e-2),
        "REPORTED": range(2),
    }.items():
        monkeypatch.setattr(runs, name, value)
    monkeypatch.setattr(common, "FOLDER", tmp_path)
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    caches = (runs.lesson, runs.taught, runs.examined, runs.head)
    for cached in caches:
        cached.cache_clear()
    yield model
    for cached in caches:
        cached.cache_clear()


@pytest.mark.parametrize("target", ["teacher", "text", "both"])
def test_only_what_stands_above_the_cut_is_trained_and_it_learns(small, target):
    before = {name: p.clone() for name, p in small.named_parameters()}
    blocks = runs.cut()
    ids, x, h = runs.lesson("scripture", "as it is", 0)
    first = runs.score(blocks, "scripture", "test")
    losses = runs.train(blocks, ids, x, h, target, 1e-2)
    assert len(losses) == 8 and losses[-1] < losses[0]
    assert all(torch.equal(p, before[name]) for name, p in small.named_parameters())  # the teacher stays
    after = runs.score(blocks, "scripture", "test")
    assert after["bits"] < first["bits"] if target != "teacher" else after["agreement"] >= first["agreement"]


def test_bits_a_character_are_those_of_the_whole_model(small):
    """One token is one character here; the two halves are the model in one piece."""
    found = runs.score(runs.taught("scripture", "as it is"), "scripture", "val")
    ids = runs.windows("scripture", "val", 16, 0)
    log_q = small(ids)[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])
    assert found["bits"] == pytest.approx(
        -log_q.mean().item() / math.log(2), rel=0.02
    )  # blocks run in bfloat16
    assert found["agreement"] == 100


def test_the_runs_are_written_once_and_resumed(small, tmp_path):
    chosen = runs.healing()
    table = (tmp_path / "14_healing.csv").read_text().splitlines()
    assert len(table) == 3 + 1 + 4 + 1 + 8 * (2 + 2) and set(chosen) == set(runs.CONDITIONS)
    assert runs.healing() == chosen and (tmp_path / "14_healing.csv").read_text().splitlines() == table
    corrected = [line for line in table if line.startswith("dictionary,corrected,uncut")]
    as_it_is = [line for line in table if line.startswith("dictionary,as it is,uncut")]
    assert float(corrected[0].split(",")[5]) < float(as_it_is[0].split(",")[5])
    runs.samples(chosen)
    kinds = [line.split(": ")[0] for line in (tmp_path / "14_samples.txt").read_text().splitlines()]
    assert kinds == ["teacher", "cut out", "healed by the text", "healed by the teacher"]


def test_a_model_writes_the_same_with_its_cache_and_without(small):
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    draws = [
        generate(small, ids, 6, generator=torch.Generator().manual_seed(1), cache=cache)
        for cache in (True, False)
    ]
    assert torch.equal(*draws)
    whole = runs.Whole(runs.taught("scripture", "as it is"))
    assert torch.equal(draws[0], generate(whole, ids, 6, generator=torch.Generator().manual_seed(1)))
