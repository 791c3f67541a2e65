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
