"""Chapter 19: its equations, what its stored answers and students rest on, and one of each made again."""

import csv
import math

import numpy as np
import pytest
import torch

from companion.remote import read, top_k_targets
from companion.teachers import smollm2
from experiments import chapter19
from experiments.common import FOLDER, TUNING, stored


@pytest.mark.equation("eq-answer-classes")
def test_tokens_of_one_class_add_up_and_the_rest_is_the_tail():
    """p_c is the sum of e^ℓ over the tokens that mean c; what is missing to 1 is the tail."""
    places = [
        [("Ġgood", math.log(0.5)), ("Good", math.log(0.2)), ("x", math.log(0.1))],
        [("Ġbad", math.log(0.9))],
    ]
    index, p = top_k_targets(places, {"Ġgood": 1, "Good": 1, "Ġbad": 0})
    assert index.tolist() == [[1], [0]]
    torch.testing.assert_close(p, torch.tensor([[0.7], [0.9]]))
    torch.testing.assert_close(1 - p.sum(1), torch.tensor([0.3, 0.1]))


@pytest.mark.equation("eq-answer-noise")
@pytest.mark.parametrize("m", [1, 2, 7])
def test_the_variance_of_a_share_is_the_teachers_and_that_of_chance(m):
    """Every possible number of "positive" among m draws, with its probability, for each of five reviews."""
    p = torch.tensor([0.1, 0.5, 0.55, 0.6, 0.9], dtype=torch.double)
    k = torch.arange(m + 1, dtype=torch.double)
    ways = torch.tensor([math.comb(m, j) for j in range(m + 1)], dtype=torch.double)
    weight = ways * p[:, None] ** k * (1 - p[:, None]) ** (m - k)
    mean = (weight * k / m).sum(1).mean()
    exact = (weight * (k / m - mean) ** 2).sum(1).mean()
    assert exact.item() == pytest.approx((p.var(unbiased=False) + (p * (1 - p)).mean() / m).item(), rel=1e-12)


@pytest.mark.equation("eq-answer-worth")
@pytest.mark.parametrize("m", [1, 4, 16])
def test_draws_are_worth_as_many_answers_as_their_variance_is_larger(m):
    """Of n reviews the mean of the draws varies as that of n* opinions does."""
    p, n = torch.tensor([0.3, 0.5, 0.6, 0.7], dtype=torch.double), 120
    of_draws = (p.var(unbiased=False) + (p * (1 - p)).mean() / m) / n
    worth = n / (1 + (p * (1 - p)).mean() / (m * p.var(unbiased=False)))
    assert (p.var(unbiased=False) / worth).item() == pytest.approx(of_draws.item(), rel=1e-12)


def test_the_stored_opinions_are_whole_and_those_of_the_server():
    with (FOLDER / "19_opinions.csv").open(encoding="utf-8") as file:
        rows = [*csv.DictReader(line for line in file if line[0] != "#")]
    for part, n in chapter19.SIZES.items():
        assert sorted(int(r["review"]) for r in rows if r["part"] == part) == list(range(n))
    assert all(0.5 < float(r["negative"]) + float(r["positive"]) <= 1.0001 for r in rows)
    assert len(read(FOLDER / "19_answers.jsonl")) == chapter19.ASKED


def test_two_opinions_are_the_stored_ones_alone_and_together():
    model, texts = smollm2(), chapter19.short_reviews("test")[:2]
    together = chapter19.opinions(model, texts)
    alone = torch.cat([chapter19.opinions(model, [text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-4)
    assert torch.allclose(together, chapter19.told("test")[:2], atol=2e-4)


def test_the_stored_students_are_whole_and_one_is_made_again():
    table = stored("19_students")
    for kind in chapter19.KINDS:
        for n in chapter19.NUMBERS:
            here = table[(table["kind"] == kind) & (table["n"] == n)]
            assert sorted(here["seed"][here["seed"] < 100]) == list(range(10)), (kind, n)
            assert sorted(here["seed"][here["seed"] >= 100]) == sorted(TUNING * len(chapter19.DECAYS))
            assert len({*here["decay"][here["seed"] < 100]}) == 1
    row = table[(table["kind"] == "4 draws") & (table["n"] == 100) & (table["seed"] == 3)][0]
    again = chapter19.student("4 draws", 100, float(row["decay"]), 3)
    for name, value in again.items():
        assert value == pytest.approx(row[name], abs=1.0), name


def test_students_of_few_answers_and_of_both_are_whole_and_one_of_each_is_made_again():
    few, both = stored("19_few"), stored("19_both")
    for n in chapter19.FEW:
        here = few[few["n"] == n]
        assert sorted(here["seed"][here["seed"] < 100]) == list(range(40))
        assert sorted(here["seed"][here["seed"] >= 100]) == sorted(TUNING * len(chapter19.DECAYS))
    assert sorted(both["seed"][both["seed"] < 100]) == list(range(10))
    tried = {(r["share"], r["decay"]): [] for r in both if r["seed"] in TUNING}
    for r in both[both["seed"] >= 100]:
        tried[r["share"], r["decay"]].append(r["pairs"])
    assert {(r["share"], r["decay"]) for r in both if r["seed"] < 100} == {
        max(tried, key=lambda k: np.mean(tried[k]))
    }
    row = few[(few["n"] == 5) & (few["seed"] == 3)][0]
    for name, value in chapter19.few_student(5, float(row["decay"]), 3).items():
        assert value == pytest.approx(row[name], abs=1.0), name
    row = both[both["seed"] == 3][0]
    for name, value in chapter19.both_student(float(row["share"]), float(row["decay"]), 3).items():
        assert value == pytest.approx(row[name], abs=1.0), name


def test_right_answers_pull_by_their_share():
    x = torch.eye(2)
    here, there = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    W = chapter19.layer([(0.7, x[:1], here), (0.3, x[:1], there)], 0.0)
    assert (x[:1] @ W).softmax(-1)[0, 0].item() == pytest.approx(0.7, abs=0.03)


def test_a_moved_line_leaves_as_many_above_it_as_are_positive():
    scores = torch.tensor([0.1, 0.4, 0.2, 0.9, 0.5])
    above = chapter19.moved(scores.double(), scores, torch.tensor([1, 0, 0, 1, 0])) > 0
    assert above.tolist() == [False, False, False, True, True]
    assert chapter19.right_pairs(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1, 0, 1])) == 100
    assert chapter19.right_pairs(torch.tensor([2.0, 3.0, 1.0]), torch.tensor([1, 0, 0])) == 50


def test_a_sample_is_right_on_average_and_a_label_names_the_larger():
    pick, g = torch.arange(300), torch.Generator().manual_seed(0)
    p = chapter19.told("train")[pick]
    assert torch.equal(chapter19.targets("top k", pick, g), p)
    assert torch.equal(chapter19.targets("label", pick, g).argmax(1), p.argmax(1))
    assert set(chapter19.targets("1 draws", pick, g).flatten().tolist()) == {0.0, 1.0}
    many = chapter19.targets("64 draws", pick, g)
    assert np.abs((many - p).mean(0)).max() < 0.01
