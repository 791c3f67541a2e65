"""A model writes: greedily, drawn with the stated distribution, the same with a cache and without."""

import pytest
import torch
from torch import nn

from companion.generation import generate
from tests.drawn import seeded


class Markov(nn.Module):
    """The next token depends on the last one; what it was called with is kept."""

    def __init__(self, logits):
        super().__init__()
        self.logits, self.calls = logits, []

    def forward(self, ids, cache=None):
        self.calls.append((ids.shape[1], self.training))
        if cache is not None:
            cache.append(ids)
        return self.logits[ids]


def chain(seed=0, v=6):
    return Markov(2 * torch.randn(v, v, generator=torch.Generator().manual_seed(seed)))


def test_greedy_takes_the_likeliest_each_time():
    model, ids = chain(), torch.tensor([[0, 1], [3, 2]])
    out = generate(model, ids, 5, T=0)
    assert out.shape == (2, 7) and torch.equal(out[:, :2], ids)
    for t in range(1, 6):
        assert torch.equal(out[:, t + 1], model.logits[out[:, t]].argmax(-1))


def test_with_the_cache_only_new_tokens_are_given():
    model = chain().train()
    cached = generate(model, torch.tensor([[0, 1, 2]]), 4, generator=seeded())
    assert [n for n, _ in model.calls] == [3, 1, 1, 1] and not any(training for _, training in model.calls)
    assert model.training  # left as it was
    model.calls.clear()
    plain = generate(model, torch.tensor([[0, 1, 2]]), 4, generator=seeded(), cache=False)
    assert [n for n, _ in model.calls] == [3, 4, 5, 6] and torch.equal(cached, plain)


@pytest.mark.parametrize("T, top_k", [(1.0, None), (0.5, None), (2.0, 3), (1.0, 99)])
def test_tokens_are_drawn_with_the_stated_probabilities(T, top_k):
    model, n = chain(), 20_000
    drawn = generate(model, torch.zeros(n, 1, dtype=torch.long), 1, T, top_k, seeded())[:, 1]
    z = model.logits[0] / T
    if top_k == 3:
        z = z.masked_fill(z < z.topk(3).values[-1], -torch.inf)
    p = z.softmax(-1)
    share = drawn.bincount(minlength=6) / n
    assert ((share - p).abs() < 4 * (p * (1 - p) / n).sqrt() + 1e-9).all()


def test_the_generator_decides_and_the_global_one_is_left_alone():
    before = torch.get_rng_state()
    a, b, c = (generate(chain(), torch.zeros(2, 1).long(), 9, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(before, torch.get_rng_state())


def test_a_text_that_has_ended_stays_so_and_all_ended_stops():
    table = torch.full((3, 3), -9.0)
    table[0, 1] = table[1, 2] = table[2, 0] = 9.0
    out = generate(Markov(table), torch.tensor([[0], [1]]), 8, T=0, end=2)
    assert out.tolist() == [[0, 1, 2], [1, 2, 2]]


def test_a_low_temperature_is_greedy_and_does_not_overflow():
    model = Markov(300 * chain().logits)
    out = generate(model, torch.zeros(3, 1).long(), 4, T=1e-6, generator=seeded())
    assert torch.equal(out, generate(model, torch.zeros(3, 1).long(), 4, T=0))


@pytest.mark.parametrize(
    "how, match",
    [
        ({"ids": torch.zeros(3).long()}, r"ids\[None\]"),
        ({"ids": torch.zeros(1, 3)}, "int64"),
        ({"ids": torch.zeros(1, 0).long()}, "at least one"),
        ({"T": -1.0}, "T = -1.0"),
        ({"T": float("nan")}, "T = nan"),
        ({"top_k": 0}, "top_k = 0"),
        ({"n": -1}, "n = -1"),
        ({"generator": None}, "pass generator="),
    ],
)
def test_what_cannot_be_written_is_refused(how, match):
    with pytest.raises(ValueError, match=match):
        generate(chain(), **{"ids": torch.zeros(1, 2).long(), "n": 2, "generator": seeded()} | how)


def test_nothing_more_to_write():
    ids = torch.zeros(1, 2).long()
    assert torch.equal(generate(chain(), ids, 0, T=0), ids)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_no_token_is_told_from_logits_that_name_none(bad):
    class Broken(torch.nn.Module):
        def forward(self, ids, cache=None):
            return torch.full((*ids.shape, 5), bad)

    for T in (0, 1.0):
        with pytest.raises(ValueError, match="no token can be told"):
            generate(Broken(), torch.zeros(2, 3, dtype=torch.long), 2, T, generator=torch.Generator())


def test_the_least_likely_token_is_left_out_and_a_tiny_temperature_takes_the_likeliest():
    class Fixed(torch.nn.Module):
        def forward(self, ids):
            return torch.tensor([3.0, 2.9, -1.0]).expand(*ids.shape, 3)

    def written(**settings):
        start, draws = torch.zeros(400, 1, dtype=torch.long), torch.Generator().manual_seed(0)
        return set(generate(Fixed(), start, 1, generator=draws, cache=False, **settings)[:, 1].tolist())

    assert written(T=1.0, top_k=2) == {0, 1} and written(T=1.0) == {0, 1, 2} and written(T=1e-45) == {0}
