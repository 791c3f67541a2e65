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


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_never_negative_where_the_two_agree_but_for_the_last_digits(call):
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(500, 1, 5, generator=generator)
    z = v + 1e-7 * torch.randn(500, 1, 5, generator=generator)
    assert min(call(*pair).item() for pair in zip(z, v, strict=True)) >= 0


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


# ------------------------------------------------------------------- what broke other losses, in public threads

FOUR = {
    "forward": forward_kl_loss,
    "reverse": reverse_kl_loss,
    "jsd": generalized_jsd_loss,
    "skew": skew_kl_loss,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_far_apart_at_a_low_temperature_value_and_gradient_are_finite(dtype):
    """T = 0.05, where F.kl_div with the student as target has NaN gradients."""
    z = torch.tensor([[4.0, -6.0, 1.0, 0.0]], dtype=dtype, requires_grad=True)
    v = torch.tensor([[-3.0, 5.0, 2.0, 0.0]], dtype=dtype)
    wanted = {"forward": 0.5, "reverse": 0.4, "jsd": 0.00173287, "skew": 0.00575646}
    for name, loss in FOUR.items():
        value = loss(z, v, T=0.05)
        assert value.item() == pytest.approx(wanted[name], rel=1e-5)
        assert torch.autograd.grad(value, z)[0].isfinite().all()


@pytest.mark.parametrize("beta", [0.01, 0.3, 0.5, 0.99])
def test_tokens_that_underflow_on_both_sides(beta):
    """Below −104 nats, where float32 has no probability left; the reference is float64."""
    z, v = torch.tensor([[[0.0, -1, -120, -150]], [[0.5, 0, -130, -140]]])
    q, p = probabilities(z.double(), v.double(), 1.0)
    m = beta * p + (1 - beta) * q
    z.requires_grad_()
    jsd, skew = generalized_jsd_loss(z, v, beta), skew_kl_loss(z, v, beta)
    assert jsd.item() == pytest.approx(beta * kl(p, m) + (1 - beta) * kl(q, m), rel=1e-5)
    assert skew.item() == pytest.approx(kl(p, m), rel=1e-5)
    assert np.isfinite(gradient(jsd, z)).all() and np.isfinite(gradient(skew, z)).all()


@pytest.mark.parametrize("loss", FOUR.values(), ids=FOUR)
def test_a_large_vocabulary_in_bfloat16(loss):
    """248,320 tokens, nearly identical: sums in bfloat16 make a KL negative there."""
    generator = torch.Generator().manual_seed(0)
    v = (3 * torch.randn(3, 248_320, generator=generator)).bfloat16()
    z = (v.float() + 0.02 * torch.randn(v.shape, generator=generator)).bfloat16()
    assert loss(v, v).item() == 0
    assert loss(z, v).item() == pytest.approx(loss(z.double(), v.double()).item(), rel=1e-4)


@pytest.mark.parametrize("loss", FOUR.values(), ids=FOUR)
def test_a_batch_padded_with_minus_infinity_and_one_that_is_masked_altogether(loss):
    z, v = logits(2, 4, 6)
    padded = v.clone()
    padded[1, 2:] = -math.inf
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[1, 2:] = False
    found = loss(z, padded, mask=mask)
    assert found.item() == pytest.approx(loss(z[mask], v[mask]).item(), rel=1e-12)
    assert not gradient(found, z)[1, 2:].any()
    with pytest.raises(ValueError, match="mask positions"):
        loss(z, padded)
    nothing = loss(z, padded, mask=torch.zeros_like(mask))
    assert nothing.item() == 0 and not gradient(nothing, z).any()


def test_a_sure_student_and_probabilities_that_do_not_sum_to_one():
    z = torch.zeros(1, 8, dtype=torch.double)
    z[0, 0] = 60
    z.requires_grad_()
    p = torch.tensor([[0.9, 0.05, 0.03]], dtype=torch.double)
    loss = sparse_kd_loss(z, torch.tensor([[0, 1, 2]]), p)
    log_q = z.detach().log_softmax(-1)[0, :3]
    assert loss.item() == pytest.approx((p * (p.log() - log_q)).sum().item(), rel=1e-12)
    assert loss.item() == pytest.approx(4.450192, abs=1e-6) and np.isfinite(gradient(loss, z)).all()


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


def test_a_token_stored_twice_is_refused_and_padding_may_repeat():
    """A public thread's case: the token that was drawn stands in the stored top-k once more."""
    z = torch.zeros(1, 4, dtype=torch.double)
    index, p = torch.tensor([[1, 1, 2]]), torch.tensor([[0.3, 0.3, 0.2]])
    with pytest.raises(ValueError, match=r"token 1 is stored twice.*scatter_add_"):
        sparse_kd_loss(z, index, p)
    with pytest.raises(ValueError, match="twice"):  # also where it does not stand side by side
        sparse_kd_loss(z, torch.tensor([[3, 0, 3]]), torch.tensor([[0.25, 0.5, 0.25]]))
    right = sparse_kd_loss(z, torch.tensor([[1, 2]]), torch.tensor([[0.3, 0.2]]))
    assert right.item() == pytest.approx(0.010068, abs=1e-6)
    for padded in ([[1, 2, 1, 1]], [[1, 2, 0, 0]]):
        filled = sparse_kd_loss(z, torch.tensor(padded), torch.tensor([[0.3, 0.2, 0.0, 0.0]]))
        assert filled.item() == pytest.approx(right.item(), rel=1e-12)
    masked = sparse_kd_loss(z, index, p, mask=torch.tensor([False]))  # what does not count may be anything
    assert masked.item() == 0


def test_draws_that_were_added_up_give_the_kl_they_stand_for():
    """Four draws with replacement, 3, 3, 5, 3: 0.25 each is refused, ¾ and ¼ is a KL, 0 at agreement."""
    p = torch.zeros(1, 8, dtype=torch.double).scatter_add_(
        -1, torch.tensor([[3, 3, 5, 3]]), torch.full((1, 4), 0.25, dtype=torch.double)
    )
    value, index = p.topk(4)
    agreeing = p.log().clamp_min(-800)
    assert sparse_kd_loss(agreeing, index, value).item() == pytest.approx(0, abs=1e-12)


def grouped_kl(q, p, index):
    """KL with all that is not stored as one class, by scipy."""
    total = 0
    for q_i, p_i, kept in zip(q, p, index.numpy(), strict=True):
        rest = np.setdiff1d(np.arange(len(q_i)), kept)
        total += rel_entr([*p_i[kept], p_i[rest].sum()], [*q_i[kept], q_i[rest].sum()]).sum()
    return total / len(q)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_tail_is_the_kl_with_the_rest_as_one_class(k):
    z, v = logits(6, 9)
    q, p = probabilities(z, v, 2.0)
    value, index = torch.tensor(p).topk(k, -1)
    found = sparse_kd_loss(z, index, value, 2.0, tail=True)
    assert found.item() == pytest.approx(4 * grouped_kl(q, p, index), rel=1e-10)
    assert torch.autograd.gradcheck(lambda z: sparse_kd_loss(z, index, value, 2.0, tail=True), z)
    padded = (
        torch.cat([index, torch.zeros(6, 2, dtype=torch.long)], -1),
        torch.cat([value, 0 * value[:, :1].repeat(1, 2)], -1),
    )
    filled = sparse_kd_loss(z, *padded, 2.0, tail=True)
    assert filled.item() == pytest.approx(found.item(), rel=1e-12)
    np.testing.assert_allclose(gradient(filled, z), gradient(found, z), rtol=1e-10, atol=1e-16)


def test_the_tail_is_never_negative_where_the_sum_without_it_is():
    """One stored token of 0.7, the student at 0.9: a public thread's case, −0.1759 and a gradient of −0.07."""
    z = torch.tensor([[0.9, 0.1]], dtype=torch.double).log().requires_grad_()
    stored = torch.tensor([[0]]), torch.tensor([[0.7]], dtype=torch.double)
    without, with_tail = sparse_kd_loss(z, *stored), sparse_kd_loss(z, *stored, tail=True)
    assert without.item() == pytest.approx(-0.175920, abs=1e-6)
    assert without.item() > 0.7 * math.log(0.7)  # the bound of the docstring
    assert gradient(without, z)[0, 0] == pytest.approx(-0.07)
    assert gradient(with_tail, z)[0, 0] == pytest.approx(0.2)  # of the full KL: q − p
    assert with_tail.item() == pytest.approx(kl(np.array([[0.7, 0.3]]), np.array([[0.9, 0.1]])), rel=1e-12)


def test_the_tail_of_a_full_store_and_of_a_sure_student():
    z, v = logits(4, 5)
    all_of_it = sparse_kd_loss(z, *everything(v), tail=True)
    assert all_of_it.item() == pytest.approx(forward_kl_loss(z, v).item(), rel=1e-11)
    assert sparse_kd_loss(v, *everything(v.float()), tail=True).item() == pytest.approx(0, abs=1e-6)
    sure = torch.tensor(
        [[2000.0, 0.0, 0.0]], requires_grad=True
    )  # its rest underflows, its logarithm does not
    loss = sparse_kd_loss(sure, torch.tensor([[0]]), torch.tensor([[0.5]]), tail=True)
    assert loss.item() == pytest.approx(0.5 * (2000 - math.log(2)) - math.log(2), rel=1e-5)
    np.testing.assert_allclose(gradient(loss, sure), [[0.5, -0.25, -0.25]], rtol=1e-5)


def test_indices_and_probabilities_of_the_wrong_kind_are_refused():
    z, _ = logits(4, 9)
    index, p = torch.zeros(4, 1).long(), torch.full((4, 1), 0.5)
    for given in ((index.int(), p), (index, index)):
        with pytest.raises(ValueError, match="int64 and probabilities"):
            sparse_kd_loss(z, *given)


def test_forward_kl_is_kd_by_another_name():
    z, v = logits(2, 3, 5)
    assert forward_kl_loss(z, v, 3.0, MASK).item() == kd_loss(z, v, 3.0, MASK).item()
