"""Losses on tokens against their definitions, written here in float64 with numpy and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from scipy.stats import norm

from companion.losses import kd_loss
from companion.tokens import (
    forward_kl_loss,
    generalized_jsd_loss,
    reverse_kl_loss,
    skew_kl_loss,
    sparse_kd_loss,
)  # fmt: skip
from tests.test_losses import gradient, logits


def kl(p, q):
    return rel_entr(p, q).sum(-1).mean()


def probabilities(z, v, T):
    """q and p."""
    return (softmax(x.detach().numpy() / T, -1) for x in (z, v))


MASK = torch.tensor([[True, False, True], [False, True, True]])
CALLS = {
    "forward": lambda z, v, mask=None: forward_kl_loss(z, v, 2.0, mask),
    "reverse": lambda z, v, mask=None: reverse_kl_loss(z, v, 2.0, mask),
    "jsd 0": lambda z, v, mask=None: generalized_jsd_loss(z, v, 0, 2.0, mask),
    "jsd 0.2": lambda z, v, mask=None: generalized_jsd_loss(z, v, 0.2, 2.0, mask),
    "jsd 0.5": lambda z, v, mask=None: generalized_jsd_loss(z, v, 0.5, 2.0, mask),
    "jsd 1": lambda z, v, mask=None: generalized_jsd_loss(z, v, 1, 2.0, mask),
    "skew 0": lambda z, v, mask=None: skew_kl_loss(z, v, 0, 2.0, mask),
    "skew 0.1": lambda z, v, mask=None: skew_kl_loss(z, v, 0.1, 2.0, mask),
    "skew 0.9": lambda z, v, mask=None: skew_kl_loss(z, v, 0.9, 2.0, mask),
}
DEFINITIONS = {
    "forward": lambda q, p: kl(p, q),
    "reverse": lambda q, p: kl(q, p),
    "jsd 0": lambda q, p: kl(p, q),
    "jsd 0.2": lambda q, p: 0.2 * kl(p, 0.2 * p + 0.8 * q) + 0.8 * kl(q, 0.2 * p + 0.8 * q),
    "jsd 0.5": lambda q, p: 0.5 * kl(p, (p + q) / 2) + 0.5 * kl(q, (p + q) / 2),
    "jsd 1": lambda q, p: kl(q, p),
    "skew 0": lambda q, p: kl(p, q),
    "skew 0.1": lambda q, p: kl(p, 0.1 * p + 0.9 * q),
    "skew 0.9": lambda q, p: kl(p, 0.9 * p + 0.1 * q),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 7), (3, 300)])
def test_each_loss_is_its_definition(name, shape):
    z, v = logits(*shape)
    q, p = probabilities(z, v, 2.0)
    assert CALLS[name](z, v).item() == pytest.approx(4 * DEFINITIONS[name](q, p), rel=1e-10)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_gradcheck_with_and_without_a_mask(call):
    z, v = logits(2, 3, 5)
    assert torch.autograd.gradcheck(lambda z: call(z, v), z)
    assert torch.autograd.gradcheck(lambda z: call(z, v, MASK), z)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_zero_at_agreement_and_no_gradient_to_the_teacher(call):
    z, v = logits(4, 5)
    assert call(v, v).item() == 0 and not call(z.detach(), v.requires_grad_()).requires_grad
    assert call(v.detach() - 3, v).item() == pytest.approx(0, abs=1e-13)
    call(z, v).backward()
    assert v.grad is None and z.grad.any()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("T", [1.0, 30.0])
def test_float32_keeps_its_accuracy_near_agreement(call, T):
    z, v = logits(16, 100)
    v = v.float() / T
    z = (v + 1e-3 * z.detach().float() / T).requires_grad_()
    loss, exact = call(z, v), call(z.detach().double().requires_grad_(), v.double())
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)


def test_the_mixture_bounds_the_loss_however_far_the_two_are_apart():
    v = torch.zeros(1, 6, dtype=torch.double)
    v[0, 0] = 500
    z = v.roll(1, -1).requires_grad_()
    for beta in (0.1, 0.5, 0.9):
        jsd, skew = generalized_jsd_loss(z, v, beta), skew_kl_loss(z, v, beta)
        most = -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
        assert jsd.item() == pytest.approx(most, rel=1e-9) and skew.item() == pytest.approx(
            -math.log(beta), rel=1e-9
        )
        assert np.isfinite(gradient(jsd, z)).all() and np.isfinite(gradient(skew, z)).all()


def test_the_jsd_formula_itself_tends_to_zero_at_its_ends():
    """Over β it is KL(p‖q), over 1 − β it is KL(q‖p): the convention at 0 and 1 is a jump."""
    z, v = logits(6, 5)
    assert generalized_jsd_loss(z, v, 1e-7).item() / 1e-7 == pytest.approx(
        forward_kl_loss(z, v).item(), rel=1e-3
    )
    assert generalized_jsd_loss(z, v, 1 - 1e-7).item() / 1e-7 == pytest.approx(
        reverse_kl_loss(z, v).item(), rel=1e-3
    )
    assert generalized_jsd_loss(z, v, 1.0).item() == reverse_kl_loss(z, v).item()


def test_reverse_kl_refuses_a_token_that_the_teacher_alone_rules_out():
    z, v = logits(6, 5)
    v[:, -1] = -math.inf
    with pytest.raises(ValueError, match="infinitely far"):
        reverse_kl_loss(z, v)
    z = z.detach()
    z[0, 0] = -math.inf  # the student may leave out what the teacher says
    v[:, -1] = 0
    assert reverse_kl_loss(z, v).isfinite() and skew_kl_loss(z, v).isfinite()


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_a_beta_that_is_no_share_is_refused(beta):
    z, v = logits(6, 5)
    for loss in (generalized_jsd_loss, skew_kl_loss):
        with pytest.raises(ValueError, match="beta"):
            loss(z, v, beta)
    with pytest.raises(ValueError, match="below 1"):
        skew_kl_loss(z, v, 1.0)


def test_one_gaussian_for_two_forward_covers_and_reverse_chooses():
    """0.6·N(−3, .8) + 0.4·N(3, .8): forward KL keeps the moments, reverse KL sits on the heavier one."""
    x = np.linspace(-12, 12, 4001)
    target = torch.tensor(np.log(0.6 * norm.pdf(x, -3, 0.8) + 0.4 * norm.pdf(x, 3, 0.8)))[None]

    def at(mean, std):
        return torch.tensor(norm.logpdf(x, mean, std))[None]

    moments, mode = at(-0.6, 3.0463), at(-2.999, 0.801)
    assert forward_kl_loss(moments, target) < forward_kl_loss(mode, target)
    assert reverse_kl_loss(mode, target) < reverse_kl_loss(moments, target)
    assert reverse_kl_loss(mode, target).item() == pytest.approx(0.5106, abs=2e-4)


# ------------------------------------------------------------------------------------------ stored outputs


def everything(v, T=1.0):
    return torch.arange(v.shape[-1]).expand(v.shape), (v / T).softmax(-1)


def test_storing_all_tokens_is_forward_kl():
    z, v = logits(2, 3, 5)
    sparse, dense = sparse_kd_loss(z, *everything(v, 2.0), 2.0, MASK), forward_kl_loss(z, v, 2.0, MASK)
    assert sparse.item() == pytest.approx(dense.item(), rel=1e-11)
    np.testing.assert_allclose(gradient(sparse, z), gradient(dense, z), rtol=1e-9, atol=1e-15)


def test_sparse_gradcheck_and_padding():
    z, v = logits(4, 9)
    p, index = v.softmax(-1).topk(3, -1)
    assert torch.autograd.gradcheck(lambda z: sparse_kd_loss(z, index, p, 2.0), z)
    padded = sparse_kd_loss(z, torch.cat([index, index[:, :1]], -1), torch.cat([p, 0 * p[:, :1]], -1))
    assert padded.item() == pytest.approx(sparse_kd_loss(z, index, p).item(), rel=1e-13)


def test_draws_from_the_teacher_give_its_gradient_on_average_and_the_top_does_not():
    z, v = logits(1, 12)
    p = v.softmax(-1)
    truth = gradient(forward_kl_loss(z, v), z)
    draws = torch.multinomial(
        p[0].repeat(4000, 1), 5, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    share = torch.zeros(4000, 12, dtype=torch.double).scatter_add_(
        1, draws, torch.full_like(draws, 0.2, dtype=torch.double)
    )
    many = z.detach().repeat(4000, 1).requires_grad_()
    each = 4000 * gradient(sparse_kd_loss(many, torch.arange(12).expand(4000, 12), share), many)
    error = np.abs(each.mean(0) - truth) / (each.std(0) / 4000**0.5 + 1e-4)
    assert error.max() < 4
    top, index = p.topk(5, -1)
    biased = gradient(sparse_kd_loss(z, index, top / top.sum()), z)
    assert np.abs(biased - truth).max() > 3 * np.abs(each.mean(0) - truth).max()


@pytest.mark.parametrize(
    "index, p, match",
    [
        (torch.zeros(5, 2).long(), torch.full((5, 2), 0.5), r"\(4, 9\), \(5, 2\)"),
        (torch.zeros(4, 2).long(), torch.full((4, 3), 0.3), r"\(4, 2\) and \(4, 3\)"),
        (torch.zeros(2).long(), torch.full((2,), 0.5), r"\(2,\)"),
        (torch.full((4, 2), 9), torch.full((4, 2), 0.5), r"0 … 8"),
        (torch.full((4, 2), -1), torch.full((4, 2), 0.5), r"0 … 8"),
        (torch.zeros(4, 2).long(), torch.full((4, 2), 0.6), "sum to at most 1"),
        (torch.zeros(4, 2).long(), torch.full((4, 2), -0.1), "0 or more"),
        (torch.zeros(4, 2).long(), torch.full((4, 2), math.nan), "0 or more"),
    ],
)
def test_stored_outputs_that_do_not_fit_are_refused(index, p, match):
    with pytest.raises(ValueError, match=match):
        sparse_kd_loss(logits(4, 9)[0], index, p)


def test_forward_kl_is_kd_by_another_name():
    z, v = logits(2, 3, 5)
    assert forward_kl_loss(z, v, 3.0, MASK).item() == kd_loss(z, v, 3.0, MASK).item()
