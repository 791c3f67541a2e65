"""Chapter 15: its formulas against sums in full, its runs by the rules of their choice, its exercises."""

import csv
from itertools import product

import numpy as np
import pytest
import torch

from companion.tokens import forward_kl_loss, reverse_kl_loss
from experiments.common import stored
from tests.test_notebooks import ROOT

V, L = 3, 3
EVERY = list(product(range(V), repeat=L))


def chain(seed):
    """Logits of the next word after every beginning."""
    generator = torch.Generator().manual_seed(seed)
    heads = [h for n in range(L) for h in product(range(V), repeat=n)]
    return dict(
        zip(
            heads,
            torch.randn(len(heads), V, generator=generator, dtype=torch.double),
            strict=True,
        )
    )


def whole(side):
    """log-probabilities of all answers, by multiplying the probabilities along each."""
    return torch.stack(
        [torch.stack([side[y[:t]].softmax(-1)[y[t]] for t in range(L)]).prod() for y in EVERY]
    ).log()


def along(weights, loss, z, v):
    return sum(
        w * sum(loss(z[y[:t]][None], v[y[:t]][None]) for t in range(L))
        for w, y in zip(weights, EVERY, strict=True)
    )


@pytest.mark.equation("eq-sequence-kl")
def test_a_divergence_of_answers_is_read_along_one_sides_words():
    v, z = chain(0), chain(1)
    P, Q = whole(v), whole(z)
    assert P.exp().sum().item() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(
        (P.exp() * (P - Q)).sum(),
        along(P.exp(), forward_kl_loss, z, v),
        rtol=1e-10,
        atol=0,
    )
    torch.testing.assert_close(
        (Q.exp() * (Q - P)).sum(),
        along(Q.exp(), reverse_kl_loss, z, v),
        rtol=1e-10,
        atol=0,
    )
    assert abs((Q.exp() * (Q - P)).sum() - along(P.exp(), reverse_kl_loss, z, v)) > 1e-3


@pytest.mark.equation("eq-lost")
@pytest.mark.parametrize("eps, back", [(0.05, 0.1), (0.2, 0.9), (0.01, 0.0)])
def test_the_lost_share_is_a_two_state_chains(eps, back):
    step = torch.tensor([[1 - eps, eps], [back, 1 - back]], dtype=torch.double)
    for t in (0, 1, 2, 20):
        lost = torch.linalg.matrix_power(step, t)[0, 1].item()
        assert eps / (eps + back) * (1 - (1 - eps - back) ** t) == pytest.approx(lost, abs=1e-12)


# ---------------------------------------------------------------------------------------------------- the runs


@pytest.fixture(scope="module")
def runs():
    """experiments.chapter15 asks the teacher when it is imported."""
    try:
        from experiments import chapter15
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return chapter15


def test_each_way_had_four_rates_and_five_reported_runs_with_the_best(runs):
    with (ROOT / "chapters/results/15_words.csv").open() as file:
        lines = list(csv.DictReader(line for line in file if not line.startswith("#")))
    steps = {"1000": (*runs.WAYS, runs.CONTROL), "4000": runs.LONGER, "200": runs.AGAIN}
    for way in (*runs.WAYS, runs.CONTROL):
        tuning = [r for r in lines if r["way"] == way and int(r["seed"]) in runs.TUNING]
        assert sorted((float(r["lr"]), int(r["seed"])) for r in tuning) == sorted(
            product(runs.RATES, runs.TUNING)
        )
        tried = {lr: sum(float(r["right"]) for r in tuning if float(r["lr"]) == lr) for lr in runs.RATES}
        best = max(tried, key=tried.get)
        assert best not in (min(runs.RATES), max(runs.RATES)), f"{way}: the best rate is an edge of the grid"
        for n, ways in steps.items():
            mine = [r for r in lines if (r["way"], r["steps"]) == (way, n) and r not in tuning]
            assert [r["seed"] for r in mine] == ([str(s) for s in runs.REPORTED] if way in ways else [])
            assert {float(r["lr"]) for r in mine} <= {best}


def test_the_slips_are_those_of_the_stored_runs():
    words, slips = (stored(f"15_{name}") for name in ("words", "slips"))
    for way in ("off_policy", "on_policy"):
        mine = slips[slips["way"] == way]
        assert sorted(mine["seed"]) == list(range(5))
        for run in mine:
            same = words[
                (words["way"] == way) & (words["steps"] == run["steps"]) & (words["seed"] == run["seed"])
            ]
            assert same["lr"] == run["lr"] and abs(same["right"] - run["right"]) < 1
            assert 0 < run["slips"] < 100 - run["back"] and run["kl_on_track"] < run["kl_after_slip"]


def test_the_runs_judged_by_phonemes_are_the_stored_ones(runs):
    parts, words, reverse = (stored(f"15_{name}") for name in ("parts", "words", "reverse"))
    wanted = {("off_policy", 200), ("off_policy", 1000), ("on_policy", 1000)}
    wanted |= {(way, runs.STEPS) for way in (runs.REVERSE, runs.OFF_REVERSE)}
    assert {(r["way"], r["steps"]) for r in parts} == wanted and len(parts) == 5 * len(wanted)
    for run in parts:
        source = reverse if run["way"] in (runs.REVERSE, runs.OFF_REVERSE) else words
        same = source[
            (source["way"] == run["way"])
            & (source["steps"] == run["steps"])
            & (source["seed"] == run["seed"])
        ]
        assert same["lr"] == run["lr"] and abs(same["right"] - run["right"]) < 1
        assert abs(same["phoneme_errors"] - run["phoneme_errors"]) < 1


def test_new_words_are_met_in_no_lesson(runs):
    lines = (ROOT / "chapters/results/15_new_words.csv").read_text(encoding="utf-8").splitlines()
    found, lessons = lines[4:], set(list(runs.TRAIN)[: runs.UNLABELLED])
    assert lines[3] == "word" and len(found) == len(set(found)) > 1_500
    assert not lessons & set(found) and set(found) <= runs.TRAIN.keys() | runs.VAL.keys() | runs.TEST.keys()


def test_parts_are_counted_by_hand(runs, monkeypatch):
    from experiments import chapter15_parts

    said = {"status": "S T AE1", "data": "D EY1 T AH0", "route": "R AW1"}
    part = {"status": ("S T AE1 T",), "data": ("D AE1 T AH0", "D EY1 T AH0"), "route": ("R UW1 T", "R AW1 T")}
    monkeypatch.setattr(chapter15_parts, "answers", lambda *a: list(said.values()))
    monkeypatch.setattr(chapter15_parts, "to_text", lambda texts: texts)
    right, errors, each = chapter15_parts.parts(None, part)
    assert (right, errors, each) == pytest.approx((100 / 3, 100 * 2 / 11, 1))


def test_a_sharper_softmax_divides_the_logits_and_gives_the_student_back(runs, monkeypatch):
    from experiments import chapter15_sharper

    torch.manual_seed(0)
    student, seen = runs.AttentivePronouncer().requires_grad_(False), []
    spelled, said = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 4, 5]])
    before = student(spelled, said)

    def look(model, *_):
        seen.append(model(spelled, said))
        return (50.0,)

    monkeypatch.setattr(chapter15_sharper, "student_of", lambda lr, seed: student)
    monkeypatch.setattr(chapter15_sharper, "parts", look)
    monkeypatch.setattr(chapter15_sharper, "track", lambda model, seed: {})
    assert chapter15_sharper.one(0.5, lr=0.01, seed=0) == {"sampled_right": 50.0}
    assert torch.allclose(seen[0], 2 * before, atol=1e-5) and not torch.allclose(seen[0], before)
    assert torch.equal(student(spelled, said), before)


def test_the_sharper_runs_at_one_are_those_of_the_parts():
    """Divided by 1, sampled with the same seeds, the same students say the same words right."""
    at_one, parts = (stored(name) for name in ("15_sharper", "15_parts"))
    at_one = at_one[at_one["temperature"] == 1]
    parts = parts[(parts["way"] == "off_policy") & (parts["steps"] == 1000)]
    assert len(at_one) == 5
    assert dict(zip(at_one["seed"], at_one["sampled_right"], strict=True)) == dict(
        zip(parts["seed"], parts["sampled_right"], strict=True)
    )


@pytest.mark.parametrize("way", ["on_policy_reverse", "off_policy_reverse"])
def test_the_other_divergence_had_its_own_rate_and_the_seeds_of_on_policy(runs, way):
    assert way in (runs.REVERSE, runs.OFF_REVERSE)
    lines = stored("15_reverse")
    assert set(lines["way"]) == {runs.REVERSE, runs.OFF_REVERSE}
    lines = lines[lines["way"] == way]
    short = lines[lines["steps"] == runs.SHORT]
    lines = lines[lines["steps"] == runs.STEPS]
    tuning = lines[np.isin(lines["seed"], runs.TUNING)]
    first = {float(r["lr"]): r["right"] for r in tuning if r["seed"] == runs.TUNING[0]}
    assert sorted(first) == sorted(runs.RATES)
    two = sorted(first, key=first.get)[-2:]
    assert sorted((r["lr"], r["seed"]) for r in tuning if r["seed"] != runs.TUNING[0]) == sorted(
        product(two, runs.TUNING[1:])
    )
    best = max(two, key=lambda lr: tuning["right"][tuning["lr"] == lr].mean())
    assert best not in (min(runs.RATES), max(runs.RATES))
    reported = lines[lines["seed"] < len(runs.REPORTED)]
    assert sorted(reported["seed"]) == list(runs.REPORTED) and set(reported["lr"]) == {best}
    assert sorted(short["seed"]) == (list(runs.REPORTED) if way == runs.OFF_REVERSE else [])
    assert set(short["lr"]) <= {best}


def test_the_other_divergence_begins_after_the_start(runs, monkeypatch):
    called = []
    for name in ("forward_kl_loss", "reverse_kl_loss"):
        loss = getattr(runs, name)
        monkeypatch.setattr(
            runs, name, lambda *a, loss=loss, name=name, **k: called.append(name) or loss(*a, **k)
        )
    spelled = runs.spell(["status", "data", "route", "either"])
    said = runs.answers(runs.TEACHER, spelled)
    logits = runs.TEACHER(spelled, said[:, :-1]).detach().half()
    monkeypatch.setattr(runs, "teacher_answers", lambda: (spelled, said, logits))
    for way, late in (
        (runs.REVERSE, "reverse_kl_loss"),
        (runs.OFF_REVERSE, "reverse_kl_loss"),
        ("on_policy", "forward_kl_loss"),
        ("off_policy", "forward_kl_loss"),
    ):
        called.clear()
        runs.train(way, 10, 1e-3, 0)
        assert called == ["forward_kl_loss"] * 3 + [late] * 7


def test_edits_are_counted_as_they_are_made(runs):
    status = ["S", "T", "AE1"]
    assert runs.edits(status, status) == 0
    assert runs.edits(status, ["T", "EY1", "P"]) == 3  # out, exchanged, in
    assert runs.edits([], status) == runs.edits(status, []) == 3


def bare(ids):
    """Rows without their padding."""
    return [[token for token in row if token] for row in ids.tolist()]


@pytest.mark.parametrize(
    "way", ["labels", "answers", "off_policy", "off_policy_reverse", "on_policy", "mixed"]
)
def test_a_batch_has_the_words_of_whoever_speaks(runs, way):
    spelled = runs.spell(["status", "data", "route", "either"])
    said = runs.answers(runs.TEACHER, spelled)
    logits = None if way in ("labels", "answers") else runs.TEACHER(spelled, said[:, :-1]).half()
    torch.manual_seed(0)
    student = runs.AttentivePronouncer(16)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(4, (runs.BATCH,), generator=generator)
    given = bare(said[rows])
    own = bare(runs.answers(student, runs.trim(spelled[rows]), generator))
    half = runs.BATCH // 2
    expected = {"on_policy": own, "mixed": own[:half] + given[half:]}.get(way, given)
    for early, read in ((True, given), (False, expected)):
        generator = torch.Generator().manual_seed(0)
        x, y, v = runs.batch_of(way, student, early, (spelled, said, logits), generator)
        assert bare(x) == bare(spelled[rows]) and bare(y) == read
        assert (v is None) == (logits is None)
        if v is not None:  # the teacher is asked along what is read
            counted = y[:, 1:] != 0
            torch.testing.assert_close(v[counted], runs.TEACHER(x, y[:, :-1])[counted], rtol=0, atol=0.02)


def test_the_shortest_runs_keep_to_their_pool(runs, monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "teacher_answers", lambda: [range(5 * runs.POOL)] * 3)
    monkeypatch.setattr(
        runs, "batch_of", lambda way, student, early, data, generator: asked.append(data) or 1 / 0
    )
    for steps, known in ((runs.SHORT, runs.POOL), (runs.STEPS, 5 * runs.POOL)):
        with pytest.raises(ZeroDivisionError):
            runs.train("off_policy", steps, 1e-3, 0)
        assert len(asked[-1][0]) == known


def test_the_walks_had_their_own_rates_and_ten_paths_and_one_is_made_again():
    from experiments import chapter15_walk
    from experiments.common import REPORTED, TUNING

    lines = stored("15_walk")
    assert set(lines["way"]) == set(chapter15_walk.WAYS)
    for way in chapter15_walk.WAYS:
        mine = lines[lines["way"] == way]
        tuning = mine[np.isin(mine["seed"], TUNING)]
        rates = chapter15_walk.RATES + chapter15_walk.FURTHER.get(way, ())
        assert sorted(zip(tuning["lr"], tuning["seed"], strict=True)) == sorted(product(rates, TUNING))
        tried = {lr: tuning["on_path"][tuning["lr"] == lr].mean() for lr in rates}
        best = max(tried, key=tried.get)
        assert best not in (min(rates), max(rates)), way
        reported = mine[~np.isin(mine["seed"], TUNING)]
        assert sorted(reported["seed"]) == list(REPORTED) and set(reported["lr"]) == {best}
    for way in ("on_policy", "sampled"):
        kept = lines[(lines["way"] == way) & (lines["seed"] == 0)][0]
        found = chapter15_walk.one(way, kept["lr"].item(), 0)
        for column in ("slips", "lost", "lost_60"):
            assert found[column] == pytest.approx(kept[column], abs=4), (way, column)


def test_a_walks_teacher_leads_back_and_its_answers_keep_to_the_path():
    from experiments import chapter15_walk as walks

    generator = torch.Generator().manual_seed(0)
    path = walks.path_of(generator)
    assert len(path) == 61 and path.diff().abs().max() == 1 and path.min() >= 4 and path.max() < 13
    assert torch.equal(walks.walk(None, path, 3, generator), path.expand(3, -1))
    assert walks.wanted(torch.tensor([8, 8]), 0, torch.tensor([3, 7, 8, 9])).tolist() == [2, 2, 1, 0]
    noisy = walks.walk(None, path, 500, generator, noise=0.1)[:, 1:] != path[1:]
    assert 0.02 < noisy.float().mean() < 0.2  # two of three random steps are wrong
    p = torch.full((3,), walks.NOISE["sampled"] / 3)  # a random step in so many, else the one wanted
    p[1] += 1 - walks.NOISE["sampled"]
    torch.testing.assert_close(p, torch.tensor([0.005, 0.99, 0.005]))  # what the teacher gives
