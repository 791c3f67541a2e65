"""The last layer fused with its loss: the same value and gradients as with the logits, without the logits."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from companion import fused
from companion._input import NotFinite
from companion.fused import fused_linear_kd_loss
from companion.losses import distillation_loss, logit_mse_loss
from companion.tokens import forward_kl_loss, generalized_jsd_loss, reverse_kl_loss, skew_kl_loss
from tests.test_memory import Peak

LOSSES = {
    "forward": forward_kl_loss,
    "reverse": reverse_kl_loss,
    "jsd": partial(generalized_jsd_loss, beta=0.3),
    "skew": partial(skew_kl_loss, beta=0.1),
}


def sides(n=40, vocabulary=11, dtype=torch.double, **how):
    """h_s, W_s, h_t, W_t, of widths 5 and 7."""
    generator = torch.Generator().manual_seed(0)
    shapes = (n, 5), (vocabulary, 5), (n, 7), (vocabulary, 7)
    made = [torch.randn(*shape, generator=generator, dtype=torch.double).to(dtype) for shape in shapes]
    made[0].requires_grad_(), made[1].requires_grad_()
    return made


def kept(n=40):
    return torch.rand(n, generator=torch.Generator().manual_seed(1)) > 0.4


def labels(n=40, vocabulary=11):
    return torch.randint(vocabulary, (n,), generator=torch.Generator().manual_seed(2))


def same(found, expected, inputs, rtol=1e-10):
    assert found.item() == pytest.approx(expected.item(), rel=rtol)
    for a, b in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=100 * rtol, atol=rtol)


@pytest.fixture(params=[(128, 1 << 17), (7, 1), (7, 25)])
def cut(request, monkeypatch):
    """Groups of all and of few tokens, and few rows of a group at a time."""
    monkeypatch.setattr(fused, "GROUP", request.param[0])
    monkeypatch.setattr(fused, "AT_ONCE", request.param[1])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_the_loss_on_the_logits(name, masked, cut):
    h, w, h_t, w_t = sides()
    mask = kept() if masked else None
    found = fused_linear_kd_loss(h, w, h_t, w_t, 2.0, mask, loss=LOSSES[name])
    same(found, LOSSES[name](h @ w.T, h_t @ w_t.T, T=2.0, mask=mask), (h, w))


def test_it_is_its_definition():
    """With numpy and scipy, in float64."""
    h, w, h_t, w_t = (x.detach().numpy() for x in sides())
    p, q = softmax(h_t @ w_t.T / 3, -1), softmax(h @ w.T / 3, -1)
    found = fused_linear_kd_loss(*sides(), T=3.0)
    assert found.item() == pytest.approx(9 * rel_entr(p, q).sum(-1).mean(), rel=1e-12)


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_the_term_of_the_labels(alpha, cut):
    h, w, h_t, w_t = sides()
    y, mask = labels(), kept()
    found = fused_linear_kd_loss(h, w, h_t, w_t, 2.0, mask, y=y.where(mask, -100), alpha=alpha)
    same(found, distillation_loss(h @ w.T, h_t @ w_t.T, y, 2.0, alpha, mask), (h, w))


def test_texts_of_several_tokens_and_a_loss_of_ones_own():
    h, w, h_t, w_t = sides()
    mask = kept().view(4, 10)
    found = fused_linear_kd_loss(h.view(4, 10, 5), w, h_t.view(4, 10, 7), w_t, mask=mask)
    same(found, forward_kl_loss(h @ w.T, h_t @ w_t.T, mask=mask.flatten()), (h, w))

    def mine(z, v, T, denominator):
        return logit_mse_loss(z, v, denominator=denominator)

    same(fused_linear_kd_loss(h, w, h_t, w_t, loss=mine), logit_mse_loss(h @ w.T, h_t @ w_t.T), (h, w))


def test_a_soft_cap_and_a_scale(cut):
    """Gemma 2's 30 · tanh(z / 30), and a model whose logits are divided by 8."""
    h, w, h_t, w_t = sides()
    h, h_t = (10 * x for x in (h, h_t))
    h.retain_grad()
    found = fused_linear_kd_loss(h / 8, w, h_t, w_t, cap_s=3.0, cap_t=30.0)
    z, v = 3 * torch.tanh(h / 8 @ w.T / 3), 30 * torch.tanh(h_t @ w_t.T / 30)
    same(found, forward_kl_loss(z, v), (h, w))
    assert found.item() != pytest.approx(fused_linear_kd_loss(h / 8, w, h_t, w_t).item(), rel=0.01)
    with pytest.raises(ValueError, match="soft cap must be a positive number; got 0"):
        fused_linear_kd_loss(h, w, h_t, w_t, cap_s=0)


def test_parts_of_a_batch_add_up():
    h, w, h_t, w_t = sides()
    parts = slice(0, 13), slice(13, 40)
    found = sum(fused_linear_kd_loss(h[i], w, h_t[i], w_t, denominator=40) for i in parts)
    same(found, fused_linear_kd_loss(h, w, h_t, w_t), (h, w))


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name):
    h, w, h_t, w_t = sides(6)
    y = labels(6)

    def call(h, w):
        return fused_linear_kd_loss(
            h, w, h_t, w_t, 2.0, kept(6), loss=LOSSES[name], y=y, alpha=0.7, cap_s=4.0
        )

    assert torch.autograd.gradcheck(call, (h, w))


def test_no_gradient_reaches_the_teacher_and_a_frozen_layer_gets_none():
    h, w, h_t, w_t = sides()
    h_t.requires_grad_(), w_t.requires_grad_()
    fused_linear_kd_loss(h, w.detach(), h_t, w_t).backward()
    assert h_t.grad is None and w_t.grad is None and w.grad is None and h.grad.any()
    nudged = fused_linear_kd_loss(h, w, h_t + 0.1, w_t)
    assert not torch.equal(torch.autograd.grad(nudged, h)[0], h.grad)  # the teacher matters
    loss = fused_linear_kd_loss(h, w, h_t, w_t)
    (slope,) = torch.autograd.grad(3 * loss, w)
    np.testing.assert_allclose(slope, 3 * torch.autograd.grad(fused_linear_kd_loss(h, w, h_t, w_t), w)[0])
    assert not fused_linear_kd_loss(h.detach(), w.detach(), h_t, w_t).requires_grad


def test_a_second_derivative_is_refused():
    h, w, h_t, w_t = sides()
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(fused_linear_kd_loss(h, w, h_t, w_t), h, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    """Near agreement too: the loss of each group is float32, the products are in the features' type."""
    h, w, _, _ = sides(dtype=dtype)
    h_t = (h.detach().float() + 0.05).to(dtype)
    for cast in (False, True):
        with torch.autocast("cpu", dtype, enabled=cast):
            found = fused_linear_kd_loss(h, w, h_t, w.detach())
        assert found.dtype == torch.float32
        z, v = ((x @ w.T).double() for x in (h, h_t))
        assert found.item() == pytest.approx(forward_kl_loss(z, v).item(), rel=1e-4)
        assert [x.dtype for x in torch.autograd.grad(found, (h, w))] == [dtype, dtype]
    master = w.detach().float().requires_grad_()
    (slope,) = torch.autograd.grad(fused_linear_kd_loss(h, master, h_t, w.detach()), master)
    assert slope.dtype == torch.float32 and slope.isfinite().all()


def test_what_is_masked_may_be_nan_and_nothing_may_count():
    h, w, h_t, w_t = sides()
    mask, broken = kept(), h.detach().clone()
    broken[~mask], h_t[~mask] = math.nan, math.nan
    broken.requires_grad_()
    found = fused_linear_kd_loss(broken, w, h_t, w_t, mask=mask)
    (slope,) = torch.autograd.grad(found, broken)
    assert found.isfinite() and not slope[~mask].any() and slope[mask].isfinite().all()
    with pytest.raises(ValueError, match="NaN"):
        fused_linear_kd_loss(broken, w, h_t, w_t)
    for none in (
        fused_linear_kd_loss(h, w, h_t, w_t, mask=torch.zeros(40, dtype=torch.bool)),
        fused_linear_kd_loss(h[:0], w, h_t[:0], w_t),
    ):
        assert none.item() == 0 and not torch.autograd.grad(none, w)[0].any()


def test_sizes_that_do_not_fit_are_refused_with_the_remedy():
    h, w, h_t, w_t = sides()
    cases = [
        ((h, w, h_t, w_t[:9]), r"\(11, 5\).*\(9, 7\).*weight\[:V\]"),
        ((h, w, h_t[:9], w_t), r"\(40, 5\).*\(9, 7\)"),
        ((h, w.T, h_t, w_t), r"\(V, d\).*\(5, 11\)"),
        ((h[0], w, h_t[0], w_t), r"\(5,\)"),
        ((h, w[0], h_t, w_t), r"\(5,\)"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError, match=message):
            fused_linear_kd_loss(*given)
    with pytest.raises(TypeError, match=r"teacher's weight.*int64"):
        fused_linear_kd_loss(h, w, h_t, w_t.long())
    with pytest.raises(TypeError, match=r"student's features.*list"):
        fused_linear_kd_loss(h.tolist(), w, h_t, w_t)


def test_labels_and_weights_that_do_not_fit_are_refused():
    h, w, h_t, w_t = sides()
    y = labels()
    with pytest.raises(ValueError, match=r"leaves 0.5 for the labels"):
        fused_linear_kd_loss(h, w, h_t, w_t, alpha=0.5)
    with pytest.raises(ValueError, match=r"0 … 1; got 1.5"):
        fused_linear_kd_loss(h, w, h_t, w_t, y=y, alpha=1.5)
    with pytest.raises(ValueError, match=r"0 … 10.*mask=\(y != -100\)"):
        fused_linear_kd_loss(h, w, h_t, w_t, y=y.where(kept(), -100), alpha=0.5)
    with pytest.raises(ValueError, match="labels"):
        fused_linear_kd_loss(h, w, h_t, w_t, y=y[:9], alpha=0.5)


@pytest.mark.parametrize("vocabulary", [2000, 8000])
def test_the_logits_are_never_there_at_once(vocabulary):
    """A quarter of what the usual lines take above their inputs, gradients counted on both sides."""
    generator = torch.Generator().manual_seed(0)
    h, w, h_t, w_t = (torch.randn(n, 16, generator=generator) for n in (1024, vocabulary) * 2)
    h.requires_grad_(), w.requires_grad_()

    def naive():
        q, p = (h @ w.T).log_softmax(-1), (h_t @ w_t.T).softmax(-1)
        return torch.nn.functional.kl_div(q, p, reduction="batchmean")

    most = []
    for call in (partial(fused_linear_kd_loss, h, w, h_t, w_t), naive):
        with Peak(h, w, h_t, w_t) as peak:
            call().backward()
        most.append(peak.most / (4 * 1024 * vocabulary))
        h.grad = w.grad = None
    assert most[0] < most[1] / 4 and most[1] > 3
    few = max(fused.AT_ONCE, vocabulary)
    assert (
        most[0] <= (2 * 128 * vocabulary + 6 * few) / (1024 * vocabulary) + 0.02
    )  # two tables of a group, and few rows


def test_a_loss_of_labels_alone_is_finite_too():
    h, w, y = torch.full((3, 4), torch.nan), torch.ones(5, 4), torch.tensor([0, 1, 2])
    with pytest.raises(NotFinite, match="the loss is nan"):
        fused_linear_kd_loss(h, w, torch.ones(3, 2), torch.ones(5, 2), y=y, alpha=0)
