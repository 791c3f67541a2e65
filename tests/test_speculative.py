"""`companion.speculative`: what is kept, and that what comes out is the target's."""

import pytest
import torch

from companion.speculative import acceptance, tokens_per_call, verify
from tests.drawn import seeded


def pair(seed, *shape):
    return torch.randn(2, *shape, generator=seeded(seed), dtype=torch.double) * 2


def test_verify_keeps_all_of_a_perfect_draft_and_replaces_the_first_that_the_target_rules_out():
    z = torch.randn(4, 9, generator=seeded())
    proposed = z[:3].argmax(-1)
    kept = verify(proposed, z[:3], z, seeded())
    assert len(kept) == 4 and torch.equal(kept[:3], proposed)
    v = z.clone()
    v[1, proposed[1]] = -torch.inf
    kept = verify(proposed, z[:3], v, seeded())
    assert len(kept) == 2 and kept[0] == proposed[0] and kept[1] != proposed[1]


def test_what_cannot_be_verified_is_refused():
    z = torch.randn(3, 9)
    with pytest.raises(ValueError, match=r"\(n \+ 1, V\); got \(3,\), \(3, 9\) and \(3, 9\)"):
        verify(torch.zeros(3, dtype=torch.long), z, z, seeded())
    with pytest.raises(ValueError, match="same shape"):
        verify(torch.zeros(3, dtype=torch.long), z, torch.randn(4, 8), seeded())
    with pytest.raises(ValueError, match="NaN"):
        acceptance(z, z / 0 * 0)
    with pytest.raises(ValueError, match="same shape"):
        acceptance(z, z[:1])
    for a, n in ((-0.1, 2), (1.1, 2), (0.5, 0)):
        with pytest.raises(ValueError, match="share a from 0 to 1"):
            tokens_per_call(a, n)


def test_acceptance_takes_texts_and_ruled_out_tokens():
    s, t = pair(0, 2, 3, 7)
    assert acceptance(s, t).shape == (2, 3)
    t[..., 0] = -torch.inf
    assert acceptance(s, t).isfinite().all() and torch.allclose(acceptance(t, t), torch.ones(2, 3).double())


def test_a_chance_is_at_most_one_in_every_precision():
    z = torch.randn(2000, 500, generator=seeded())
    assert acceptance(z, z).max() <= 1 and tokens_per_call(acceptance(z, z).max().item(), 3) <= 4
    flat = torch.zeros(1, 100_000, dtype=torch.half)
    assert acceptance(flat, flat).dtype == torch.float32 and abs(acceptance(flat, flat) - 1) < 1e-4


@pytest.mark.parametrize("proposed", [[0, -1], [0, 9], [0.0, 1.0], [True, False]])
def test_a_proposal_is_a_token(proposed):
    z = torch.randn(3, 5, generator=seeded())
    with pytest.raises(ValueError, match="proposals"):
        verify(torch.tensor(proposed), z[:2], z, seeded())


@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_what_stands_behind_the_last_proposal_is_looked_at_too(bad):
    z = torch.randn(3, 5, generator=seeded())
    v = torch.cat([torch.full((2, 5), -20.0).index_fill(1, torch.tensor([4]), 20), torch.full((1, 5), bad)])
    with pytest.raises(ValueError, match="no distribution"):
        verify(torch.tensor([0, 0]), z[:2], v, seeded())  # refused at the first, whatever stands behind


def test_where_nothing_is_left_of_the_target_it_is_drawn_itself():
    z = torch.tensor([[-torch.inf, 0.0, 0.0]])
    kept = verify(torch.tensor([0]), z, torch.cat([z, z]), seeded())
    assert len(kept) == 1 and kept[0] > 0
