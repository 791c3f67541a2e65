"""Response losses against their definitions, written here in float64 with numpy and scipy."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, rel_entr, softmax

from companion.losses import (
    dist_loss,
    distillation_loss,
    dkd_loss,
    kd_loss,
    logit_mse_loss,
    soften,
    standardized_kd_loss,
)  # fmt: skip

TEMPERATURES = [0.5, 1.0, 2.0, 4.0, 20.0]
SHAPES = [(1, 2), (5, 3), (7, 10), (3, 200)]


def logits(*shape, seed=0, scale=3.0):
    """Student and teacher logits in float64; the student can be differentiated."""
    generator = torch.Generator().manual_seed(seed)
    z, v = scale * torch.randn(2, *shape, generator=generator, dtype=torch.double)
    return z.requires_grad_(), v


def labels(n, classes, seed=0):
    return torch.randint(0, classes, (n,), generator=torch.Generator().manual_seed(seed))


def gradient(loss, z):
    return torch.autograd.grad(loss, z)[0].numpy()


def kd_rows(z, v, T):
    """T² · Σ p (log p − log q), by scipy."""
    return T**2 * rel_entr(softmax(v / T, -1), softmax(z / T, -1)).sum(-1)


def numbers(*tensors):
    return [t.detach().double().numpy() for t in tensors]


# ------------------------------------------------------------------------------------------------ soften


@pytest.mark.parametrize("T", TEMPERATURES)
def test_soften_is_the_softmax_of_logits_over_T(T):
    _, v = logits(4, 6)
    np.testing.assert_allclose(soften(v, T), softmax(v.numpy() / T, -1), rtol=1e-12)


def test_soften_gives_zero_to_a_class_ruled_out_and_float32_for_half_precision():
    p = soften(torch.tensor([[1.0, -math.inf, 1.0]], dtype=torch.float16))
    assert p.dtype == torch.float32
    assert p.tolist() == [[0.5, 0.0, 0.5]]


# ----------------------------------------------------------------------------------------------- kd_loss


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kd_loss_is_its_definition_and_its_gradient_is_T_q_minus_p(shape, T):
    z, v = logits(*shape)
    loss = kd_loss(z, v, T)
    z_, v_ = numbers(z, v)
    np.testing.assert_allclose(loss.item(), kd_rows(z_, v_, T).mean(), rtol=1e-11)
    expected = T * (softmax(z_ / T, -1) - softmax(v_ / T, -1)) / shape[0]
    np.testing.assert_allclose(gradient(loss, z), expected, rtol=1e-9, atol=1e-15)


def test_kd_loss_by_hand():
    """Two classes, p = (¾, ¼), q = (½, ½): KL = ¾ ln 3/2 − ¼ ln 2."""
    z, v = torch.zeros(1, 2, dtype=torch.double), torch.tensor([[math.log(3), 0]], dtype=torch.double)
    by_hand = 0.75 * math.log(1.5) - 0.25 * math.log(2)
    assert kd_loss(z, v).item() == pytest.approx(by_hand, rel=1e-14)
    assert kd_loss(z, 2 * v, T=2).item() == pytest.approx(4 * by_hand, rel=1e-14)


def test_kd_loss_is_torch_kl_div_with_batchmean():
    z, v = logits(6, 5)
    torch_says = F.kl_div((z / 3).log_softmax(-1), (v / 3).softmax(-1), reduction="batchmean")
    torch.testing.assert_close(kd_loss(z, v, 3.0), 9 * torch_says, rtol=1e-12, atol=0)


@pytest.mark.parametrize("T", TEMPERATURES)
def test_kd_loss_is_zero_exactly_where_both_agree(T):
    z, v = logits(6, 5)
    assert kd_loss(v, v, T).item() == 0
    assert kd_loss(v + 2.5, v, T).item() == pytest.approx(0, abs=1e-14)
    assert kd_loss(z, v, T).item() > 0


def test_kd_loss_tends_to_the_centred_logit_mse_over_2C_with_an_error_like_1_over_T():
    z, v = logits(6, 5)
    limit = logit_mse_loss(z, v, centred=True).item() / 10
    errors = [abs(kd_loss(z, v, T).item() - limit) for T in (100.0, 1000.0, 10000.0)]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("distance", [1e-2, 1e-4])
@pytest.mark.parametrize("T", [1.0, 4.0, 1e4])
def test_kd_loss_in_float32_keeps_its_accuracy_near_agreement(distance, T):
    z, v = logits(16, 100)
    v = v.float()
    z = (v + distance * z.detach().float()).requires_grad_()
    loss = kd_loss(z, v, T)
    found = gradient(loss, z)
    z_ = z.detach().double().requires_grad_()
    exact = kd_loss(z_, v.double(), T)  # in float64, checked against scipy above
    expected = gradient(exact, z_)
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)
    if distance / T > 1e-7:  # below, a row's KL in float32 has no digits left; the gradient still has
        assert loss.item() == pytest.approx(exact.item(), rel=0.02)


@pytest.mark.parametrize("dtype, distance", [(torch.bfloat16, 1e-2), (torch.float32, 3e-5)])
def test_kd_loss_keeps_it_where_both_sides_rule_out_the_same_classes(dtype, distance):
    """A vocabulary padded with −inf, the student close to its teacher."""
    z, v = logits(64, 100)
    v = v.to(dtype)
    z = (v + distance * z.detach()).to(dtype)
    full = [torch.cat([x, torch.full((64, 8), -math.inf, dtype=x.dtype)], -1) for x in (z, v)]
    exact = kd_rows(*numbers(z, v), 1.0).mean()
    assert kd_loss(*full).item() == pytest.approx(exact, rel=0.01)


def test_kd_loss_of_tokens_is_the_mean_over_all_positions():
    z, v = logits(2, 3, 5)
    torch.testing.assert_close(kd_loss(z, v, 2.0), kd_loss(z.flatten(0, 1), v.flatten(0, 1), 2.0))


# ------------------------------------------------------------------------------------- distillation_loss


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
def test_distillation_loss_is_its_definition(alpha):
    (z, v), y = logits(7, 4), labels(7, 4)
    loss = distillation_loss(z, v, y, T=3.0, alpha=alpha)
    z_, v_ = numbers(z, v)
    hard = -log_softmax(z_, -1)[np.arange(7), y.numpy()]
    soft = kd_rows(z_, v_, 3.0)
    np.testing.assert_allclose(loss.item(), ((1 - alpha) * hard + alpha * soft).mean(), rtol=1e-12)
    onehot = np.eye(4)[y.numpy()]
    expected = (1 - alpha) * (softmax(z_, -1) - onehot)
    expected += alpha * 3 * (softmax(z_ / 3, -1) - softmax(v_ / 3, -1))
    np.testing.assert_allclose(gradient(loss, z), expected / 7, rtol=1e-9, atol=1e-15)


def test_distillation_loss_end_points_are_the_two_terms():
    (z, v), y = logits(7, 4), labels(7, 4)
    assert distillation_loss(z, v, y, 4.0, 0.0).item() == pytest.approx(
        F.cross_entropy(z, y).item(), rel=1e-14
    )
    assert distillation_loss(z, v, y, 4.0, 1.0).item() == kd_loss(z, v, 4.0).item()


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_distillation_loss_refuses_an_alpha_that_is_no_share(alpha):
    (z, v), y = logits(7, 4), labels(7, 4)
    with pytest.raises(ValueError, match="alpha"):
        distillation_loss(z, v, y, alpha=alpha)


def test_distillation_loss_refuses_labels_that_do_not_fit():
    z, v = logits(7, 4)
    with pytest.raises(ValueError, match=r"\(7, 4\) and \(6,\)"):
        distillation_loss(z, v, labels(6, 4))


# ---------------------------------------------------------------------------------------- logit_mse_loss


@pytest.mark.parametrize("centred", [False, True])
def test_logit_mse_loss_is_its_definition(centred):
    z, v = logits(7, 4)
    loss = logit_mse_loss(z, v, centred)
    gap = np.subtract(*numbers(z, v))
    if centred:
        gap = gap - gap.mean(-1, keepdims=True)
    np.testing.assert_allclose(loss.item(), (gap**2).sum(-1).mean(), rtol=1e-12)
    np.testing.assert_allclose(gradient(loss, z), 2 * gap / 7, rtol=1e-9, atol=1e-14)


def test_centred_logit_mse_does_not_see_a_constant_and_the_plain_one_does():
    _, v = logits(7, 4)
    assert logit_mse_loss(v + 2, v, centred=True).item() == pytest.approx(0, abs=1e-20)
    assert logit_mse_loss(v + 2, v).item() == pytest.approx(16, rel=1e-12)


# ------------------------------------------------------------------- DKD, DIST, standardised logits


def dkd_parts(z, v, y, T):
    """TCKD and NCKD of each row, by scipy, from the paper's definitions."""
    tckd, nckd = [], []
    for z_i, v_i, y_i in zip(z / T, v / T, y, strict=True):
        p, q, rest = softmax(v_i), softmax(z_i), np.arange(len(z_i)) != y_i
        tckd.append(rel_entr([p[y_i], p[rest].sum()], [q[y_i], q[rest].sum()]).sum())
        nckd.append(rel_entr(softmax(v_i[rest]), softmax(z_i[rest])).sum())
    return np.array(tckd), np.array(nckd)


@pytest.mark.parametrize("alpha, beta", [(1.0, 8.0), (1.0, 0.0), (0.0, 1.0), (2.0, 0.5)])
def test_dkd_loss_is_its_definition(alpha, beta):
    (z, v), y = logits(7, 5), labels(7, 5)
    tckd, nckd = dkd_parts(*numbers(z, v), y.numpy(), 3.0)
    expected = 9 * (alpha * tckd + beta * nckd).mean()
    assert dkd_loss(z, v, y, 3.0, alpha, beta).item() == pytest.approx(expected, rel=1e-10)


def test_dkd_with_the_teachers_own_weights_is_kd():
    """KL = TCKD + (1 − p_y)·NCKD: for one example β = 1 − p_y gives plain KD back, value and gradient."""
    for i in range(5):
        (z, v), y = logits(1, 6, seed=i), labels(1, 6, seed=i)
        rest = 1 - softmax(v.numpy() / 2, -1)[0, y]
        dkd, kd = dkd_loss(z, v, y, 2.0, 1.0, rest.item()), kd_loss(z, v, 2.0)
        assert dkd.item() == pytest.approx(kd.item(), rel=1e-12)
        np.testing.assert_allclose(gradient(dkd, z), gradient(kd, z), rtol=1e-9, atol=1e-14)


def test_dkd_with_two_classes_has_no_second_term_and_takes_a_target_in_any_place():
    (z, v), y = logits(5, 2), labels(5, 2)
    assert dkd_loss(z, v, y, 2.0, 0.0, 1.0).item() == 0
    assert dkd_loss(z, v, y, 2.0, 1.0, 8.0).item() == pytest.approx(kd_loss(z, v, 2.0).item(), rel=1e-12)


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (1.0, -1.0), (math.nan, 1.0)])
def test_dkd_refuses_negative_weights(weights):
    (z, v), y = logits(5, 2), labels(5, 2)
    with pytest.raises(ValueError, match="alpha and beta"):
        dkd_loss(z, v, y, 2.0, *weights)


@pytest.mark.parametrize("beta, gamma", [(1.0, 1.0), (2.0, 0.0), (0.0, 3.0)])
def test_dist_loss_is_numpys_correlation(beta, gamma):
    z, v = logits(7, 5)
    q, p = (softmax(x / 3, -1) for x in numbers(z, v))
    rows = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    columns = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])
    assert dist_loss(z, v, 3.0, beta, gamma).item() == pytest.approx(
        9 * (beta * rows + gamma * columns), rel=1e-11
    )


def test_dist_loss_counts_a_half_where_one_side_has_no_correlation():
    flat = torch.zeros(1, 4, dtype=torch.double, requires_grad=True)
    loss = dist_loss(flat, torch.tensor([[0.0, 1.0, 2.0, 3.0]], dtype=torch.double))
    assert loss.item() == pytest.approx(0.5) and not gradient(loss, flat).any()


def test_standardized_kd_loss_is_kd_of_z_scores_and_blind_to_shift_and_scale():
    z, v = logits(7, 5)
    z_, v_ = (
        (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + 1e-7) for x in numbers(z, v)
    )
    assert standardized_kd_loss(z, v, 2.0).item() == pytest.approx(kd_rows(z_, v_, 2.0).mean(), rel=1e-11)
    assert standardized_kd_loss(3 * v - 5, v, 2.0).item() == pytest.approx(0, abs=1e-13)


# ------------------------------------------------------------------------------ what holds for all of them

CALLS = {
    "kd_loss": lambda z, v, mask=None: kd_loss(z, v, 3.0, mask),
    "distillation_loss": lambda z, v: distillation_loss(z, v, labels(len(z), z.shape[-1]), 3.0, 0.7),
    "logit_mse_loss": lambda z, v, mask=None: logit_mse_loss(z, v, mask=mask),
    "logit_mse_loss, centred": lambda z, v, mask=None: logit_mse_loss(z, v, True, mask),
    "dkd_loss": lambda z, v: dkd_loss(z, v, labels(len(z), z.shape[-1]), 3.0, 1.5, 2.5),
    "dist_loss": lambda z, v: dist_loss(z, v, 3.0, 1.0, 2.0),
    "standardized_kd_loss": lambda z, v, mask=None: standardized_kd_loss(z, v, 3.0, mask),
}
MASKED = {
    name: call for name, call in CALLS.items() if "mse" in name or name in ("kd_loss", "standardized_kd_loss")
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_gradcheck(call):
    z, v = logits(4, 5)
    assert torch.autograd.gradcheck(lambda z: call(z, v), z)


@pytest.mark.parametrize("call", MASKED.values(), ids=MASKED)
def test_gradcheck_with_a_mask_over_tokens(call):
    z, v = logits(2, 3, 5)
    mask = torch.tensor([[True, False, True], [False, True, True]])
    assert torch.autograd.gradcheck(lambda z: call(z, v, mask), z)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_teacher_never_receives_a_gradient(call):
    z, v = logits(4, 5)
    v.requires_grad_()
    call(z, v).backward()
    assert v.grad is None and z.grad.any()
    assert not call(z.detach(), v).requires_grad


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_half_precision_is_computed_in_float32(call):
    z, v = (x.detach().bfloat16() for x in logits(6, 50))
    assert call(z, v).dtype == torch.float32
    assert call(z, v).item() == pytest.approx(call(z.double(), v.double()).item(), rel=1e-5)
    z.requires_grad_()
    call(z, v).backward()
    assert z.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("shape", [(4, 1), (1, 5), (5,), (4, 13), (4, 5, 1)])
def test_shapes_that_differ_are_refused_by_name(call, shape):
    z, _ = logits(4, 5)
    with pytest.raises(ValueError) as error:
        call(z, torch.zeros(shape, dtype=torch.double))
    assert "(4, 5)" in str(error.value) and str(tuple(shape)) in str(error.value)


@pytest.mark.parametrize("call", MASKED.values(), ids=MASKED)
def test_a_mask_is_the_same_as_leaving_the_positions_out(call):
    z, v = logits(6, 5)
    mask = torch.tensor([True, False, True, True, False, True])
    masked, dropped = call(z, v, mask), call(z[mask], v[mask])
    torch.testing.assert_close(masked, dropped, rtol=1e-13, atol=0)
    np.testing.assert_allclose(gradient(masked, z), gradient(dropped, z), rtol=1e-13)


@pytest.mark.parametrize("call", MASKED.values(), ids=MASKED)
@pytest.mark.parametrize("mask", [torch.ones(6), torch.ones(5, dtype=torch.bool), torch.ones(6, 5) > 0])
def test_a_mask_that_does_not_fit_is_refused(call, mask):
    with pytest.raises(ValueError, match="mask"):
        call(*logits(6, 5), mask)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused_with_the_range(call, value):
    z, v = logits(6, 5)
    broken = z.detach().clone()
    broken[2, 3] = value
    with pytest.raises(ValueError, match=r"student .* …"):
        call(broken, v)


def test_a_class_that_only_the_student_rules_out_is_infinitely_far():
    z, v = logits(6, 5)
    z = z.detach()
    z[0, 0] = -math.inf
    with pytest.raises(ValueError, match="infinitely far"):
        kd_loss(z, v)


@pytest.mark.parametrize("T", [0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_not_positive_and_finite_is_refused(T):
    (z, v), y = logits(6, 5), labels(6, 5)
    for call in (lambda: soften(v, T), lambda: kd_loss(z, v, T), lambda: distillation_loss(z, v, y, T)):
        with pytest.raises(ValueError, match="temperature"):
            call()


def test_the_gradient_of_a_weighted_loss_is_weighted():
    z, v = logits(4, 5)
    np.testing.assert_allclose(gradient(3 * kd_loss(z, v), z), 3 * gradient(kd_loss(z, v), z), rtol=1e-13)


def test_a_second_derivative_is_refused_and_not_wrong():
    z, v = logits(4, 5)
    with pytest.raises(RuntimeError, match="once"):
        torch.autograd.grad(kd_loss(z, v), z, create_graph=True)
