"""Chapter 14's long runs, on a tiny model: each condition trains what it says and nothing else, and a run resumes."""

import csv
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from companion.generation import generate
from companion.teachers import SmolLM2
from companion.tokens import forward_kl_loss
from companion.vocabulary import uld_loss
from experiments import chapter14 as runs
from experiments import chapter14_cuts as cuts
from experiments import chapter14_stored as kept
from experiments import chapter14_texts as texts
from experiments import common
from tests.test_notebooks import ROOT, defined

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
        "LONGER": 12,
        "RATES": (1e-3, 1e-2),
        "REPORTED": range(2),
        "TUNING": (100, 101),
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


def lines(path) -> list[dict]:
    return list(csv.DictReader(line for line in path.read_text().splitlines() if line[0] != "#"))


def test_the_runs_are_written_once_and_resumed(small, tmp_path):
    chosen = runs.healing()
    path = tmp_path / "14_healing.csv"
    table, tuned = lines(path), 0
    assert set(chosen) == set(runs.CONDITIONS)
    for way in runs.CONDITIONS:
        mine = [row for row in table if (row["text"], row["teacher"], row["target"]) == way]
        tuning = [(float(row["lr"]), float(row["bits"])) for row in mine if int(row["seed"]) in runs.TUNING]
        tried = {lr: sum(bits for of, bits in tuning if of == lr) for lr, _ in tuning}
        assert len(tuning) == len(tried) * len(runs.TUNING)
        pure = {chosen[way[0], way[1], "teacher"], chosen[way[0], "as it is", "text"]}
        if way[2] == "both" and len(pure) == 1:  # taken over from the pure lessons
            assert tried == {} and {chosen[way]} == pure
        else:
            first = min(runs.RATES, key=tried.get)  # at an edge one step further is tried
            further = {runs.RATES[0]: 1e-4, runs.RATES[-1]: 1e-2}[first]
            assert set(tried) == {*runs.RATES, further} and chosen[way] == min(tried, key=tried.get)
        reported = [(float(row["lr"]), int(row["seed"])) for row in mine if int(row["seed"]) in runs.REPORTED]
        assert reported == [(chosen[way], seed) for seed in runs.REPORTED]
        tuned += len(tuning)
    assert len(table) == 4 + 1 + tuned + 8 * 2  # four ends, a corrected teacher
    assert runs.healing() == chosen and lines(path) == table
    # cut off among the corrected teacher's runs, and gone on where that teacher is not kept
    (tmp_path / "build/chapter14_dictionary.pt").unlink()
    for cached in (runs.taught, runs.lesson):
        cached.cache_clear()
    left = [
        line
        for line in path.read_text().splitlines()
        if not re.match("dictionary,corrected,teacher,.*,1,", line)
    ]
    path.write_text("\n".join(left) + "\n")
    assert len(lines(path)) == len(table) - 1
    assert runs.healing() == chosen and sorted(map(str, lines(path))) == sorted(map(str, table))
    uncut = {
        row["teacher"]: float(row["bits"])
        for row in table
        if row["text"] == "dictionary" and row["target"] == "uncut"
    }
    assert uncut["corrected"] < uncut["as it is"]
    runs.samples(chosen)
    kinds = [line.split(": ")[0] for line in (tmp_path / "14_samples.txt").read_text().splitlines()]
    assert kinds == ["teacher", "cut out", "healed by the text", "healed by the teacher"]


def test_the_longer_lesson_has_the_rates_of_the_shorter_one(small, tmp_path):
    chosen = {("scripture", "as it is", target): lr for target, lr in (("teacher", 1e-2), ("text", 1e-3))}
    runs.longer(chosen)
    found = [(row["target"], float(row["lr"]), row["seed"]) for row in lines(tmp_path / "14_longer.csv")]
    assert found == [(t, lr, s) for t, lr in (("teacher", 1e-2), ("text", 1e-3)) for s in "01"]


def test_a_model_writes_the_same_with_its_cache_and_without(small):
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    draws = [
        generate(small, ids, 6, generator=torch.Generator().manual_seed(1), cache=cache)
        for cache in (True, False)
    ]
    assert torch.equal(*draws)
    whole = runs.Whole(runs.taught("scripture", "as it is"))
    assert torch.equal(draws[0], generate(whole, ids, 6, generator=torch.Generator().manual_seed(1)))


def test_a_gap_of_no_blocks_is_the_whole_model_and_the_first_steps_are_those_of_the_run(small):
    whole = runs.score(runs.taught("scripture", "as it is"), "scripture", "val")["bits"]
    assert cuts.without(0, 0)["bits"] == pytest.approx(whole, rel=0.1)  # four of its sixteen windows
    assert cuts.without(2, 4)["bits"] != cuts.without(0, 0)["bits"]
    ids, x, h = runs.lesson("scripture", "as it is", 0)
    losses = runs.train(runs.cut(), ids, x, h, "teacher", 1e-2)
    first = cuts.first_steps("teacher", 1e-2, 0)
    assert list(first.values()) == pytest.approx(losses[:4], rel=1e-3)


# -------------------------------------------------------------------------------------- what the page computes


@pytest.fixture(scope="module")
def page():
    """The names that the chapter's visible cells define, where these need no teacher."""
    return defined(ROOT / "chapters/14_tokens.ipynb", "def without", "import copy, torch")


def test_a_cut_on_the_page_leaves_out_these_blocks_and_copies_the_rest(page):
    model = tiny()
    short = page["without"](model, 2, 4)
    assert len(model.blocks) == 6 and len(short.blocks) == 4
    for i, j in enumerate((0, 1, 4, 5)):
        assert torch.equal(short.blocks[i].q.weight, model.blocks[j].q.weight)
        assert short.blocks[i].q.weight is not model.blocks[j].q.weight


def test_the_loss_on_the_page_leaves_out_the_last_row_and_spares_the_teacher():
    """A last row that predicts nothing must not count; the teacher gets no gradient."""
    first = "import torch\nfrom companion.tokens import forward_kl_loss"
    names = defined(ROOT / "chapters/14_tokens.ipynb", "def answers_loss", first)
    z, v = (x[None].float().requires_grad_() for x in two_sides(4, 6))
    names["teacher"] = lambda ids: v
    loss = names["answers_loss"](lambda ids: z, torch.zeros(1, 4).long())
    p, q = (softmax(x[0, :3].detach().double().numpy(), -1) for x in (v, z))
    assert loss.item() == pytest.approx(rel_entr(p, q).sum(-1).mean(), rel=1e-5)
    loss.backward()
    assert v.grad is None and z.grad[0, 3].abs().sum() == 0 and z.grad[0, :3].abs().sum() > 0


def test_the_loop_on_the_page_heals_what_stands_above_the_gap_and_leaves_the_rest():
    heal = defined(ROOT / "chapters/14_tokens.ipynb", "def heal", "import torch\nfrom torch import nn")[
        "heal"
    ]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = SmolLM2(11, 16, 4, 2, 24, len(LETTERS)).eval()
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    ids = torch.randint(len(LETTERS), (8, 2, 6), generator=torch.Generator().manual_seed(1))
    rates = []

    def loss_of(model, ids):
        return model(ids)[:, :-1].flatten(0, 1).logsumexp(-1).mean()

    losses = heal(student, ids, loss_of, lambda step: rates.append(step) or 1e-2)
    assert rates == list(range(8)) and len(losses) == 8 and losses[-1] < losses[0]
    for name, p in student.named_parameters():
        assert torch.equal(p, before[name]) != (name.split(".")[:2] in (["blocks", "9"], ["blocks", "10"])), (
            name
        )


# ------------------------------------------------------------------------------------------------ the equations


def two_sides(*shape):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.double)


@pytest.mark.equation("eq-bits-a-character")
def test_bits_a_character_are_the_logarithm_of_the_product_of_the_answers(small):
    """The chain rule: what a text costs is −log₂ of the product of its tokens' probabilities, over its characters."""
    ids = runs.windows("scripture", "val", 16, 0)
    blocks = runs.taught("scripture", "as it is")
    z = torch.cat([runs.exact(blocks, x) for x in runs.below(ids).split(4)])
    p = softmax(z[:, :-1].double().numpy(), -1)
    taken = np.take_along_axis(p, ids[:, 1:, None].numpy(), -1)[..., 0]
    wanted = -np.log2(taken).sum() / taken.size  # one character a token here
    assert runs.score(blocks, "scripture", "val")["bits"] == pytest.approx(wanted, rel=1e-5)
    few = taken[0, :6]
    assert -math.log2(np.prod(few)) == pytest.approx(-np.log2(few).sum())


@pytest.mark.equation("eq-token-kd")
def test_the_loss_of_a_batch_of_texts_is_the_masked_mean_over_its_rows():
    z, v = two_sides(3, 7, 5)
    mask = torch.rand(3, 7, generator=torch.Generator().manual_seed(5)) > 0.5
    p, q = (softmax(x.numpy() / 2, -1) for x in (v, z))
    wanted = 4 * (rel_entr(p, q).sum(-1) * mask.numpy()).sum() / mask.sum().item()
    assert forward_kl_loss(z, v, 2.0, mask).item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.equation("eq-uld")
def test_uld_is_the_distance_of_two_sorted_lists():
    z, v = two_sides(4, 6)
    p, q = (np.sort(softmax(x.numpy(), -1), -1) for x in (v, z))
    assert uld_loss(z, v).item() == pytest.approx(np.abs(p - q).sum(-1).mean(), rel=1e-12)


# ----------------------------------------------------------------------------------------- students of stored answers


def test_draws_are_shares_and_each_token_has_its_share_once():
    p = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05]]).expand(3, 5)
    index, share = kept.drawn(p, 2000, torch.Generator().manual_seed(0))
    assert share.sum(-1).tolist() == pytest.approx([1, 1, 1])
    told = torch.zeros(3, 5).scatter_add_(1, index, share)
    assert torch.allclose(told, p, atol=0.04) and not torch.equal(told[0], told[1])
    assert (share > 0).sum(-1).tolist() == [5, 5, 5]


@pytest.mark.parametrize("rule", ["one for the rest", "as they are", "both renormalised"])
def test_with_all_tokens_kept_each_rule_pushes_as_the_whole_answer_does(rule):
    z, v = (x.float().requires_grad_() for x in two_sides(4, 6))
    p = v.detach().softmax(-1)
    slopes = [
        torch.autograd.grad(loss, z)[0]
        for loss in (kept.loss_of(rule, 6, z, p, None), forward_kl_loss(z, v.detach()))
    ]
    assert torch.allclose(*slopes, atol=1e-3)  # probabilities are stored in float16


@pytest.mark.parametrize("rule, n", [("one for the rest", 5), ("draws", 50), ("T = 2", 0), ("reverse KL", 0)])
def test_a_student_of_stored_answers_learns_and_leaves_the_run_as_it_was(small, rule, n):
    whole, first = runs.of_step, runs.score(runs.cut(), "scripture", "test")
    row = kept.one(rule, n, 1e-2, 0)
    assert runs.of_step is whole and row["agreement"] >= first["agreement"]
    assert [name for name in row if name.startswith("step_")] == ["step_0", "step_1", "step_2", "step_3"]
    assert row == kept.one(rule, n, 1e-2, 0)  # the same draws again


# ------------------------------------------------------------------------------------------------ two tokenizers


def test_uld_sorted_once_is_that_of_the_package():
    z, v = two_sides(4, 6)
    rows, share = torch.tensor([0, 2, 2]), torch.tensor([0.5, 0.25, 0.25], dtype=torch.double)
    wider = torch.cat([v[:3], v[1:]], -1)[:, :9]
    told = wider.softmax(-1).sort(-1, descending=True).values
    wanted = sum(
        s * uld_loss(z[r][None], w[None]) for s, r, w in zip(share, rows.tolist(), wider, strict=True)
    )
    assert texts.uld(z, rows, told, share).item() == pytest.approx(wanted.item(), rel=1e-9)


def test_the_sentence_on_the_page_is_cut_as_the_two_tokenizers_cut_it():
    cuts = defined(
        ROOT / "chapters/14_tokens.ipynb",
        "CUTS = {",
        "import matplotlib; matplotlib.use('agg')\nimport matplotlib.pyplot as plt, numpy as np\n"
        "from companion import plotting\nclaim = print",
    )["CUTS"]
    for (_, cut), who in zip(cuts.items(), ("teacher", "student"), strict=True):
        sentence = cut.replace("|", "")
        places = texts.models()[who][0].encode(sentence).offsets
        assert [sentence[a:b] for a, b in places] == cut.split("|")


def test_a_longer_text_begins_with_the_shorter_one_and_the_small_teacher_knows_nothing_else():
    short, long = texts.lesson(3), texts.lesson(3, 2)
    assert len(long) == 2 * len(short) == 2 * texts.CHARACTERS and long.startswith(short)
    assert texts.lesson(4, 2)[: len(short)] != short
    way = texts.SMALL, "as they are", 1.0, 0.03
    small, large = (texts.one(name, *way[1:], 3)["bits"] for name in (way[0], "text and its texts"))
    assert small > large + 0.05


@pytest.mark.parametrize(
    "way, words",
    [
        ("text and ULD", "exchanged"),
        ("text and ten times its texts", "as they are"),
        ("twice the text", "as they are"),
        ("text and texts of a small teacher", "as they are"),
    ],
)
def test_a_student_with_another_tokenizer_comes_back_as_stored(way, words):
    rows = common.stored("14_texts")
    (row,) = rows[(rows["way"] == way) & (rows["words"] == words) & (rows["seed"] == 3)]
    found = texts.one(way, words, float(row["weight"]), float(row["lr"]), 3)
    assert found["bits"] == pytest.approx(row["bits"], abs=0.01)
