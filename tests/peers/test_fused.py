"""Liger's fused loss and ours: one value and gradient, both products included; and where the two part."""

import importlib
from functools import partial

import pytest
import torch

from companion.fused import fused_linear_kd_loss
from companion.tokens import forward_kl_loss, generalized_jsd_loss, reverse_kl_loss
from tests.peers.conftest import need

need("liger-kernel", "liger_kernel.chunked_loss", allow_module_level=True)

T = 2.0
LOSSES = {0.0: forward_kl_loss, 0.3: partial(generalized_jsd_loss, beta=0.3), 1.0: reverse_kl_loss}


def sides(vocabulary=(11, 11), dtype=torch.double):
    generator = torch.Generator().manual_seed(0)
    shapes = (40, 5), (vocabulary[0], 5), (40, 7), (vocabulary[1], 7)
    made = [torch.randn(*shape, generator=generator, dtype=torch.double).to(dtype) for shape in shapes]
    made[0].requires_grad_(), made[1].requires_grad_()
    return made


def labels():
    y = torch.randint(11, (40,), generator=torch.Generator().manual_seed(1))
    return y.masked_fill(torch.arange(40) % 5 == 0, -100)


def liger(h, w, h_t, w_t, y, beta, hard=0.0, T=T, chunk_size=7):
    loss = importlib.import_module("liger_kernel.chunked_loss").LigerFusedLinearJSDLoss(
        hard, 1 - hard, beta, temperature=T, compiled=False, chunk_size=chunk_size
    )
    return loss(h, w, h_t, w_t, y)


@pytest.mark.parametrize("beta", LOSSES)
def test_the_soft_term_is_ours_without_T_squared(beta):
    h, w, h_t, w_t = sides()
    y = labels()
    ours = fused_linear_kd_loss(h, w, h_t, w_t, T, y != -100, loss=LOSSES[beta])
    theirs = liger(h, w, h_t, w_t, y, beta)
    assert ours.item() == pytest.approx(T * T * theirs.item(), rel=1e-6)  # it adds up in float32
    for a, b in zip(torch.autograd.grad(ours, (h, w)), torch.autograd.grad(theirs, (h, w)), strict=True):
        torch.testing.assert_close(a, T * T * b, rtol=1e-9, atol=1e-12)


def test_the_hard_term_is_ours():
    """At T = 1, where T² is 1; the hard term alone would be ours at any T."""
    h, w, h_t, w_t = sides()
    y = labels()
    ours = fused_linear_kd_loss(h, w, h_t, w_t, 1.0, y != -100, y=y, alpha=0.3)
    assert ours.item() == pytest.approx(liger(h, w, h_t, w_t, y, 0.0, hard=0.7, T=1.0).item(), rel=1e-5)


def test_a_larger_teacher_vocabulary_it_fills_up_with_zeros_and_ours_refuses():
    """The student is given 3 tokens with logit 0 that it does not have, and no word is said."""
    given = sides((11, 14))
    y = torch.zeros(40, dtype=torch.long)
    padded = torch.cat([given[0] @ given[1].T, torch.zeros(40, 3, dtype=torch.double)], 1)
    expected = forward_kl_loss(padded, given[2] @ given[3].T)
    assert liger(*given, y, 0.0, T=1.0).item() == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(ValueError, match=r"differ in size.*\(11, 5\).*\(14, 7\).*weight\[:V\]"):
        fused_linear_kd_loss(*given)


def test_near_agreement_in_bfloat16_ours_is_nearer_to_float64():
    """It takes the logarithms in the type of the logits."""
    h, w, _, _ = sides(dtype=torch.bfloat16)
    h_t = (h.detach().float() + 0.02).bfloat16()
    z, v = ((x @ w.T).double() for x in (h, h_t))  # the logits as both see them
    exact = forward_kl_loss(z, v).item()
    given = (h, w, h_t, w.detach())
    ours, theirs = (
        fused_linear_kd_loss(*given).item(),
        liger(*given, torch.zeros(40, dtype=torch.long), 0.0, T=1.0).item(),
    )
    assert ours == pytest.approx(exact, rel=1e-3)
    assert abs(theirs - exact) > 20 * abs(ours - exact)
