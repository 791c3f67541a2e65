"""For tests/test_chapter16.py, when the section stands in chapter 16: its two equations."""

import math

import pytest
import torch

from companion.remote import top_k_targets


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
    assert exact.item() == pytest.approx(
        (p.var(unbiased=False) + (p * (1 - p)).mean() / m).item(), rel=1e-12
    )


def test_two_reviews_and_one_draw_each():
    """The worked numbers: 0.6 and 0.5 come in the right order in 30 % of all cases, in the wrong one in 20 %."""
    p, q = 0.6, 0.5
    assert [p * (1 - q), (1 - p) * q] == pytest.approx([0.3, 0.2])
