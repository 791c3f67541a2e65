"""Response losses against their definitions, written here in float64 with numpy and scipy."""

import inspect
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, rel_entr, softmax

from companion import tokens
from companion._core import NotFinite
from companion._input import LEARN_T
from companion.losses import (
    dist_loss,
    distillation_loss,
    dkd_loss,
    kd_loss,
    logit_mse_loss,
    normkd_loss,
    rld_loss,
    soften,
    standardized_kd_loss,
    wttm_loss,
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


@pytest.mark.parametrize("T", [101.0, 1e3, 1e5, 1e8, 1e12])
def test_kd_loss_in_float32_keeps_its_digits_at_any_temperature(T):
    """At large T it is the centred logit MSE over 2C, and a row's KL itself falls below 1e-20."""
    z, v = (x.detach().float() for x in logits(16, 100))
    z.requires_grad_()
    loss = kd_loss(z, v, T)
    z_ = z.detach().double().requires_grad_()
    exact = kd_loss(z_, v.double(), T)
    if T >= 1e8:
        limit = logit_mse_loss(z_, v.double(), centred=True).item() / 200
        assert exact.item() == pytest.approx(limit, rel=1e-6)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    np.testing.assert_allclose(gradient(loss, z), gradient(exact, z_), rtol=1e-3, atol=1e-7)


def test_one_row_that_is_far_apart_costs_the_others_no_accuracy():
    """e^u overflows in it; its neighbours in the chunk nearly agree."""
    z, v = logits(8, 100)
    v = v.float()
    z = v + 1e-4 * z.detach().float()
    z[3, 5] = 500.0
    z.requires_grad_()
    found, exact = (torch.autograd.grad(kd_loss(a, b), z)[0] for a, b in ((z, v), (z.double(), v.double())))
    near = torch.arange(8) != 3
    assert (found[near] - exact[near]).norm() < 1e-4 * exact[near].norm()


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


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_dist_refuses_negative_weights(weights):
    with pytest.raises(ValueError, match="beta and gamma are weights of 0 or more"):
        dist_loss(*logits(7, 5), 2.0, *weights)


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
    slope = torch.tensor([[0.0, 1.0, 2.0, 3.0]], dtype=torch.double, requires_grad=True)
    for s, t in ((flat, slope), (slope, flat)):
        assert dist_loss(s, t).item() == pytest.approx(0.5)
    assert dist_loss(flat, flat.detach() + 1).item() == 0 and not gradient(dist_loss(flat, flat), flat).any()


def test_dist_loss_of_rows_constant_but_for_rounding_counts_a_half():
    """softmax over 0.1-like numbers: their mean is off in the last digit, and that is no correlation."""
    noise = torch.tensor([[0.1, 0.1, 0.1]]) + torch.tensor([[0.0, 6e-8, -6e-8]])
    assert dist_loss(noise, torch.tensor([[0.0, 1.0, 2.0]]), gamma=0).item() == pytest.approx(0.5)


def test_standardized_kd_loss_is_kd_of_z_scores_and_blind_to_shift_and_scale():
    z, v = logits(7, 5)
    z_, v_ = (
        (x - x.mean(-1, keepdims=True)) / (x.std(-1, ddof=1, keepdims=True) + 1e-7) for x in numbers(z, v)
    )
    assert standardized_kd_loss(z, v, 2.0).item() == pytest.approx(kd_rows(z_, v_, 2.0).mean(), rel=1e-11)
    assert standardized_kd_loss(3 * v - 5, v, 2.0).item() == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize("loss", ["DKD", "RLD"])
def test_the_target_is_left_out_however_far_below_it_the_student_ranks_the_others(loss):
    """1000 T below the teacher's least is not below the student's: both sides have a say in what is out of reach."""
    z = torch.tensor([[0.0, -5000.0, -5002.0]], dtype=torch.double, requires_grad=True)
    v, y = torch.tensor([[3.0, 1.0, 0.0]], dtype=torch.double), torch.tensor([0])
    value = {"DKD": dkd_loss, "RLD": rld_loss}[loss](z, v, y, 1.0, 0.0, 1.0)
    p, q = softmax([1.0, 0.0]), softmax([2.0, 0.0])
    assert value.item() == pytest.approx(rel_entr(p, q).sum(), rel=1e-9)
    np.testing.assert_allclose(gradient(value, z), [[0, *(q - p)]], rtol=1e-9)


# ------------------------------------------------------------------------------------ WTTM, NormKD and RLD


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_wttm_loss_is_its_definition_with_no_T_on_the_student(shape, T):
    """As in the authors' code: powers γ = 1/T of the teacher's probabilities, their sum the weight."""
    z, v = logits(*shape)
    z_, v_ = numbers(z, v)
    powers = softmax(v_, -1) ** (1 / T)
    weight = powers.sum(-1)
    p, q = powers / weight[:, None], softmax(z_, -1)
    loss = wttm_loss(z, v, T)
    assert loss.item() == pytest.approx((weight * rel_entr(p, q).sum(-1)).mean(), rel=1e-10)
    np.testing.assert_allclose(gradient(loss, z), weight[:, None] * (q - p) / shape[0], rtol=1e-8, atol=1e-14)


def test_wttm_loss_is_zero_where_the_student_is_the_softened_teacher_and_kd_at_T_1():
    z, v = logits(6, 5)
    for T in TEMPERATURES:
        assert wttm_loss(v / T, v, T).item() == 0
        assert not gradient(wttm_loss(z, z.detach() * T, T), z).round(14).any()
        assert wttm_loss(v / T + 2.5, v, T).item() == pytest.approx(0, abs=1e-14)
    assert wttm_loss(v, v, 4.0).item() > 0.01
    assert wttm_loss(z, v, 1.0).item() == pytest.approx(kd_loss(z, v, 1.0).item(), rel=1e-13)


def test_the_weight_of_wttm_goes_from_1_to_C_to_the_power_1_minus_1_over_T():
    z, _ = logits(1, 8)
    for v, weight in ((torch.zeros(1, 8), 8**0.75), (1e3 * torch.eye(8)[:1], 1.0)):
        found = wttm_loss(z, v.double(), 4.0)
        assert found.item() == pytest.approx(weight * kd_loss(z, v.double() / 4).item(), rel=1e-12)


@pytest.mark.parametrize("T", TEMPERATURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_normkd_loss_is_its_definition(shape, T):
    """As in the authors' code, 1e-7 apart: both sides over T times their own σ, the KL times the teacher's squared."""
    z, v = logits(*shape)
    z_, v_ = numbers(z, v)
    own, own_t = (T * (x.std(-1, ddof=1, keepdims=True) + 1e-7) for x in (z_, v_))
    kl = rel_entr(softmax(v_ / own_t, -1), softmax(z_ / own, -1)).sum(-1)
    expected = (kl * (T * v_.std(-1, ddof=1)) ** 2).mean()
    assert normkd_loss(z, v, T).item() == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_normkd_loss_is_standardized_kd_by_the_teachers_variance_and_blind_to_the_students_scale():
    z, v = logits(1, 5)
    weighed = v.var(-1) * standardized_kd_loss(z, v, 2.0)
    assert normkd_loss(z, v, 2.0).item() == pytest.approx(weighed.item(), rel=1e-12)
    assert normkd_loss(3 * v - 5, v, 2.0).item() == pytest.approx(0, abs=1e-13)
    assert normkd_loss(z, 10 * v).item() == pytest.approx(100 * normkd_loss(z, v).item(), rel=1e-6)
    flat = torch.ones_like(v)
    assert normkd_loss(z, flat).item() == 0 and not gradient(normkd_loss(z, flat), z).any()


def rld_parts(z, v, y, T):
    """SCD and MCD of each example, after the paper: from probabilities, example by example."""
    scd, mcd = [], []
    for z_i, v_i, y_i in zip(z / T, v / T, y, strict=True):
        p, q, below = softmax(v_i), softmax(z_i), v_i < v_i[y_i]
        scd.append(rel_entr([p.max(), 1 - p.max()], [q[y_i], 1 - q[y_i]]).sum())
        mcd.append(rel_entr(softmax(v_i[below]), softmax(z_i[below])).sum() if below.any() else 0.0)
    return np.array(scd), np.array(mcd)


@pytest.mark.parametrize("alpha, beta", [(1.0, 8.0), (1.0, 0.0), (0.0, 1.0), (2.0, 0.5)])
@pytest.mark.parametrize("shape", [(7, 5), (9, 2), (40, 4)])
def test_rld_loss_is_its_definition(shape, alpha, beta):
    (z, v), y = logits(*shape), labels(*shape)
    scd, mcd = rld_parts(*numbers(z, v), y.numpy(), 3.0)
    expected = 9 * (alpha * scd + beta * mcd).mean()
    assert rld_loss(z, v, y, 3.0, alpha, beta).item() == pytest.approx(expected, rel=1e-10, abs=1e-14)
    assert shape[1] == 2 or ((mcd == 0).any() and (mcd > 0).any()), "a label that ranks last, and others"


def test_rld_loss_is_dkd_where_the_teacher_is_right_and_only_there():
    z, v = logits(6, 5)
    right, wrong = v.argmax(-1), v.argmin(-1)
    same, dkd = rld_loss(z, v, right), dkd_loss(z, v, right)
    assert same.item() == pytest.approx(dkd.item(), rel=1e-11)
    np.testing.assert_allclose(gradient(same, z), gradient(dkd, z), rtol=1e-8, atol=1e-13)
    assert rld_loss(z, v, wrong).item() != pytest.approx(dkd_loss(z, v, wrong).item(), rel=0.01)


def test_rld_loss_at_agreement_is_zero_for_a_teacher_that_is_right_and_asks_for_more_of_one_that_is_wrong():
    _, v = logits(6, 5)
    right, wrong = v.argmax(-1), v.argmin(-1)
    for T in TEMPERATURES:
        assert rld_loss(v, v, right, T).item() == 0
        assert rld_loss(v, v, wrong, T).item() > 0
    same = v.clone().requires_grad_()
    slope = gradient(rld_loss(same, v, wrong), same)
    assert (slope[range(6), wrong] < 0).all(), "descending it raises the label"


def test_rld_loss_leaves_out_what_the_teacher_ranks_above_the_label_and_ties_with_it():
    """Only the two last classes stand below the label: the loss is blind to how the student ranks the others, α = 0."""
    v = torch.tensor([[3.0, 1.0, 1.0, 0.5, 0.0]], dtype=torch.double)
    z, y = logits(1, 5)[0], torch.tensor([1])
    value = rld_loss(z, v, y, 1.0, 0.0, 1.0)
    p, q = softmax([0.5, 0.0]), softmax(numbers(z)[0][0, 3:])
    assert value.item() == pytest.approx(rel_entr(p, q).sum(), rel=1e-12)
    np.testing.assert_allclose(gradient(value, z)[0], [0, 0, 0, *(q - p)], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("y", [0, 1, 2])
def test_rld_loss_of_two_classes_one_of_them_ruled_out_by_the_teacher(y):
    """Below the label no class has any probability: MCD is 0, and nothing is NaN."""
    v = torch.tensor([[1.0, 0.0, -math.inf]], dtype=torch.double)
    z = logits(1, 3)[0]
    value = rld_loss(z, v, torch.tensor([y]), 1.0, 0.0, 1.0)
    below = [1] if y == 0 else []
    expected = -math.log(softmax(numbers(z)[0][0, 1:])[0]) if below else 0.0
    assert value.item() == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert np.isfinite(gradient(value, z)).all()


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (1.0, -1.0), (math.nan, 1.0)])
def test_rld_refuses_negative_weights(weights):
    (z, v), y = logits(5, 2), labels(5, 2)
    with pytest.raises(ValueError, match="alpha and beta"):
        rld_loss(z, v, y, 2.0, *weights)


# ------------------------------------------------------------------------------ what holds for all of them

CALLS = {
    "kd_loss": lambda z, v, mask=None: kd_loss(z, v, 3.0, mask),
    "distillation_loss": lambda z, v: distillation_loss(z, v, labels(len(z), z.shape[-1]), 3.0, 0.7),
    "logit_mse_loss": lambda z, v, mask=None: logit_mse_loss(z, v, mask=mask),
    "logit_mse_loss, centred": lambda z, v, mask=None: logit_mse_loss(z, v, True, mask),
    "dkd_loss": lambda z, v: dkd_loss(z, v, labels(len(z), z.shape[-1]), 3.0, 1.5, 2.5),
    "dist_loss": lambda z, v: dist_loss(z, v, 3.0, 1.0, 2.0),
    "standardized_kd_loss": lambda z, v, mask=None: standardized_kd_loss(z, v, 3.0, mask),
    "wttm_loss": lambda z, v, mask=None: wttm_loss(z, v, 3.0, mask),
    "normkd_loss": lambda z, v, mask=None: normkd_loss(z, v, 3.0, mask),
    "rld_loss": lambda z, v: rld_loss(z, v, labels(len(z), z.shape[-1]), 3.0, 1.5, 2.5),
}
UNLABELLED = ("kd_loss", "standardized_kd_loss", "wttm_loss", "normkd_loss")
MASKED = {name: call for name, call in CALLS.items() if "mse" in name or name in UNLABELLED}


EVERY = {
    "kd_loss": lambda z, v, y, **more: kd_loss(z, v, **more),
    "distillation_loss": distillation_loss,
    "logit_mse_loss": lambda z, v, y, **more: logit_mse_loss(z, v, **more),
    "dkd_loss": dkd_loss,
    "dist_loss": lambda z, v, y, **more: dist_loss(z, v, **more),
    "standardized_kd_loss": lambda z, v, y, **more: standardized_kd_loss(z, v, **more),
    "wttm_loss": lambda z, v, y, **more: wttm_loss(z, v, **more),
    "normkd_loss": lambda z, v, y, **more: normkd_loss(z, v, **more),
    "rld_loss": rld_loss,
    "forward_kl_loss": lambda z, v, y, **more: tokens.forward_kl_loss(z, v, **more),
    "reverse_kl_loss": lambda z, v, y, **more: tokens.reverse_kl_loss(z, v, **more),
    "generalized_jsd_loss": lambda z, v, y, **more: tokens.generalized_jsd_loss(z, v, **more),
    "skew_kl_loss": lambda z, v, y, **more: tokens.skew_kl_loss(z, v, **more),
    "sparse_kd_loss": lambda z, v, y, **more: tokens.sparse_kd_loss(z, *stored(v), **more),
}
BY_ROW = {name: call for name, call in EVERY.items() if name != "dist_loss"}


def stored(v):
    p, index = v.softmax(-1).topk(min(3, v.shape[-1]), -1)
    return index, p


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
    with pytest.raises(ValueError, match="temperature"):
        soften(v, T)
    for call in EVERY.values():
        if call is not EVERY["logit_mse_loss"]:
            with pytest.raises(ValueError, match="temperature"):
                call(z, v, y, T=T)


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
def test_the_gradient_of_a_weighted_loss_is_weighted(call):
    (z, v), y = logits(4, 5), labels(4, 5)
    once, thrice = gradient(call(z, v, y), z), gradient(3 * call(z, v, y), z)
    np.testing.assert_allclose(thrice, 3 * once, rtol=1e-13)


def test_a_second_derivative_is_refused_and_not_wrong():
    z, v = logits(4, 5)
    with pytest.raises(RuntimeError, match=r"once.*F\.kl_div"):
        torch.autograd.grad(kd_loss(z, v), z, create_graph=True)


# --------------------------------------------------------------------------------- defaults, and their reasons


def test_the_defaults_are_the_documented_ones():
    """Of the papers or of the book; whoever changes one changes results everywhere."""
    wanted = {
        soften: {"T": 1.0},
        kd_loss: {"T": 1.0},
        distillation_loss: {"T": 4.0, "alpha": 0.9},
        logit_mse_loss: {"centred": False},
        dkd_loss: {"T": 4.0, "alpha": 1.0, "beta": 8.0},
        dist_loss: {"T": 1.0, "beta": 1.0, "gamma": 1.0},
        standardized_kd_loss: {"T": 2.0},
        wttm_loss: {"T": 4.0},
        normkd_loss: {"T": 2.0},
        rld_loss: {"T": 4.0, "alpha": 1.0, "beta": 8.0},
        tokens.forward_kl_loss: {"T": 1.0},
        tokens.reverse_kl_loss: {"T": 1.0},
        tokens.generalized_jsd_loss: {"beta": 0.5, "T": 1.0},
        tokens.skew_kl_loss: {"beta": 0.1, "T": 1.0},
        tokens.sparse_kd_loss: {"T": 1.0, "tail": False},
    }
    for loss, numbers_ in wanted.items():
        found = inspect.signature(loss).parameters.values()
        found = {p.name: p.default for p in found if p.default is not p.empty}
        assert found == {"mask": None, "denominator": None} | numbers_ or found == numbers_, loss.__name__


# ------------------------------------------------------------------------------- numbers in tensors, learnt ones


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
def test_a_tensor_of_one_element_is_a_number(call):
    (z, v), y = logits(6, 5), labels(6, 5)
    names = inspect.signature(call).parameters
    if call is EVERY["logit_mse_loss"]:
        return
    for T in (torch.tensor(3.0), torch.tensor([3.0]), torch.tensor(3), np.float32(3)):
        assert call(z, v, y, T=T).item() == call(z, v, y, T=3.0).item()
    if "alpha" in names:
        assert call(z, v, y, alpha=torch.tensor(0.5)).item() == call(z, v, y, alpha=0.5).item()


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
def test_a_temperature_that_is_to_be_learnt_is_refused_with_the_way_round(call):
    (z, v), y = logits(6, 5), labels(6, 5)
    T = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.double))
    name = "denominator" if call is EVERY["logit_mse_loss"] else "T"
    with pytest.raises(ValueError, match=r"gets no gradient.*F\.kl_div"):
        call(z, v, y, **{name: T})
    with pytest.raises(ValueError, match="gets no gradient"):
        torch.func.jvp(lambda T: call(z, v, y, **{name: T}), (T.detach(),), (torch.ones_like(T.detach()),))


def test_the_way_round_is_the_loss_and_has_the_gradient_in_T():
    z, v = logits(6, 5)
    T = torch.tensor(2.0, dtype=torch.double, requires_grad=True)
    loss = eval(LEARN_T, {"T": T, "z": z, "v": v, "F": F})
    assert loss.item() == pytest.approx(kd_loss(z, v, 2.0).item(), rel=1e-12)
    step = (kd_loss(z, v, 2.001) - kd_loss(z, v, 1.999)).item() / 0.002
    assert gradient(loss, T) == pytest.approx(step, rel=1e-5)
    assert gradient(soften(v, T)[0, 0], T) != 0


@pytest.mark.parametrize(
    "loss, weight",
    [
        (lambda z, v, y, w: distillation_loss(z, v, y, alpha=w), "alpha"),
        (lambda z, v, y, w: dkd_loss(z, v, y, alpha=w), "alpha"),
        (lambda z, v, y, w: dkd_loss(z, v, y, beta=w), "beta"),
        (lambda z, v, y, w: rld_loss(z, v, y, alpha=w), "alpha"),
        (lambda z, v, y, w: rld_loss(z, v, y, beta=w), "beta"),
        (lambda z, v, y, w: dist_loss(z, v, beta=w), "beta"),
        (lambda z, v, y, w: dist_loss(z, v, gamma=w), "gamma"),
        (lambda z, v, y, w: tokens.generalized_jsd_loss(z, v, w), "beta"),
        (lambda z, v, y, w: tokens.skew_kl_loss(z, v, w), "beta"),
    ],
)
def test_a_weight_in_a_tensor_is_a_number_or_refused(loss, weight):
    (z, v), y = logits(6, 5), labels(6, 5)
    assert loss(z, v, y, torch.tensor(0.3)).item() == pytest.approx(loss(z, v, y, 0.3).item(), rel=1e-6)
    with pytest.raises(ValueError, match=f"{weight} gets no gradient"):
        loss(z, v, y, torch.tensor(0.3, requires_grad=True))


def test_labels_in_the_place_of_the_temperature_are_named():
    (z, v), y = logits(6, 5), labels(6, 5)
    with pytest.raises(ValueError, match=r"\(6,\).*labels.*lambda z, v, y: kd_loss"):
        kd_loss(z, v, y)
    with pytest.raises(ValueError, match="labels"):
        kd_loss(z[:1], v[:1], y[:1])
    with pytest.raises(ValueError, match=r"\(6, 1\)"):
        kd_loss(z, v, torch.full((6, 1), 2.0))


# -------------------------------------------------------------------------------------------------- labels

WITH_LABELS = {name: EVERY[name] for name in ("distillation_loss", "dkd_loss", "rld_loss")}
ALPHAS = [0.0, 0.5, 1.0]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("call", WITH_LABELS.values(), ids=WITH_LABELS)
@pytest.mark.parametrize("wrong", [-100, -1, 5, 255])
def test_a_label_that_is_no_class_is_refused_whatever_alpha(call, alpha, wrong):
    (z, v), y = logits(6, 5), labels(6, 5)
    y[2] = wrong
    with pytest.raises(ValueError, match=rf"0 … 4; got .*{wrong}.*mask=\(y != -100\)"):
        call(z, v, y, alpha=alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("call", WITH_LABELS.values(), ids=WITH_LABELS)
def test_under_the_mask_a_row_without_a_label_is_left_out(call, alpha):
    (z, v), y = logits(6, 5), labels(6, 5)
    y[2], y[4] = -100, 255
    z, keep = z.detach(), (y >= 0) & (y < 5)
    z[2] = math.nan
    z.requires_grad_()
    found, expected = call(z, v, y, alpha=alpha, mask=keep), call(z[keep], v[keep], y[keep], alpha=alpha)
    assert found.item() == pytest.approx(expected.item(), rel=1e-13) and found.item() > 0
    np.testing.assert_allclose(gradient(found, z), gradient(expected, z), rtol=1e-12)
    assert call(z, v, y, alpha=alpha, mask=torch.zeros(6, dtype=torch.bool)).item() == 0


@pytest.mark.parametrize("call", WITH_LABELS.values(), ids=WITH_LABELS)
def test_token_labels_and_any_kind_of_whole_number(call):
    (z, v), y = logits(2, 3, 5), labels(6, 5).view(2, 3)
    flat = call(z.flatten(0, 1), v.flatten(0, 1), y.flatten()).item()
    assert call(z, v, y).item() == pytest.approx(flat, rel=1e-13)
    for kind in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert call(z, v, y.to(kind)).item() == call(z, v, y).item()
    for kind in (torch.float32, torch.bool):
        with pytest.raises(ValueError, match=rf"{kind}.*y\.long"):
            call(z, v, y.to(kind))


@pytest.mark.parametrize("call", WITH_LABELS.values(), ids=WITH_LABELS)
def test_soft_and_several_labels_are_refused_with_the_way_round(call):
    (z, v), y = logits(6, 5), labels(6, 5)
    with pytest.raises(ValueError, match=r"soft labels.*F\.cross_entropy"):
        call(z, v, F.one_hot(y, 5).double())
    with pytest.raises(TypeError, match=r"list.*as_tensor"):
        call(z, v, y.tolist())
    with pytest.raises(ValueError, match=r"\(6, 5\) and \(6, 1\)"):
        call(z, v, y[:, None])


def test_the_way_round_for_soft_labels_and_for_several_labels():
    (z, v), y = logits(6, 5), labels(6, 5)
    soft = 0.5 * F.cross_entropy(z, F.one_hot(y, 5).double()) + 0.5 * kd_loss(z, v, 4.0)
    assert soft.item() == pytest.approx(distillation_loss(z, v, y, 4.0, 0.5).item(), rel=1e-13)
    q, p = (torch.sigmoid(x) for x in (z.detach(), v))
    bernoulli = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    pairs = [torch.stack([x, torch.zeros_like(x)], -1).flatten(0, 1) for x in (z, v)]
    assert kd_loss(*pairs).item() == pytest.approx(bernoulli.item(), rel=1e-11)


def test_alpha_0_does_not_ask_the_teacher():
    """A student that rules a class out would be infinitely far from it."""
    (z, v), y = logits(6, 5), labels(6, 4)
    z = z.detach()
    z[:, 4] = -math.inf
    found = distillation_loss(z, v, y, alpha=0)
    assert found.item() == pytest.approx(F.cross_entropy(z, y).item(), rel=1e-13)


def test_alpha_1_does_not_ask_the_labels():
    """A class that both sides rule out, and the label names, would be infinitely far."""
    (z, v), y = logits(6, 5), labels(6, 5)
    z = z.detach()
    z[:, 4] = v[:, 4] = -math.inf
    y[0] = 4
    assert distillation_loss(z, v, y, 3.0, 1.0).item() == kd_loss(z, v, 3.0).item()


# ------------------------------------------------------------------------------------- what people bring along


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
def test_one_logit_says_nothing_to_a_softmax(call):
    z, v = torch.randn(2, 6, 1)
    if call is EVERY["logit_mse_loss"]:
        assert call(z, v, None).item() == pytest.approx((z - v).square().mean().item(), rel=1e-6)
        call = lambda z, v, y: logit_mse_loss(z, v, centred=True)  # noqa: E731
    with pytest.raises(ValueError, match=r"1 logit.*torch\.cat"):
        call(z, v, torch.zeros(6, dtype=torch.long))


def test_the_way_round_for_one_logit_is_the_sigmoid():
    """The numbers of a public thread: (2, −1, 0.3) against (−3, 4, 1)."""
    z, v = torch.tensor([[[2.0], [-1.0], [0.3]], [[-3.0], [4.0], [1.0]]], dtype=torch.double)
    pairs = [torch.cat([x, torch.zeros_like(x)], -1) for x in (z, v)]
    assert kd_loss(*pairs).item() == pytest.approx(1.033076, abs=1e-6)


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize(
    "shape, remedy", [((5,), r"z\[None\]|takes logits"), ((2, 5, 3, 3), r"movedim\(1, -1\)")]
)
def test_one_example_and_maps_are_refused_with_the_way_round(call, shape, remedy):
    z, v = torch.randn(2, *shape)
    with pytest.raises(ValueError, match=remedy):
        call(z, v, torch.zeros(shape[:1] + shape[2:], dtype=torch.long))


def test_the_way_round_for_maps_is_the_mean_over_pixels():
    z, v = torch.randn(2, 2, 5, 3, 4, dtype=torch.double)
    found = kd_loss(*(x.movedim(1, -1).flatten(0, -2) for x in (z, v)), 2.0)
    pixels = [kd_rows(*(x[i, :, j, k].numpy() for x in (z, v)), 2.0) for i, j, k in np.ndindex(2, 3, 4)]
    assert found.item() == pytest.approx(np.mean(pixels), rel=1e-12)


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("kinds", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_float32_goes_with_float64_and_is_computed_in_it(call, kinds):
    (z, v), y = logits(6, 5), labels(6, 5)
    z, v = z.detach().to(kinds[0]).requires_grad_(), v.to(kinds[1])
    found, exact = call(z, v, y), call(z.double(), v.double(), y)
    assert found.dtype == kinds[0] and found.item() == pytest.approx(exact.item(), rel=1e-7)
    np.testing.assert_allclose(gradient(found, z), gradient(exact, z), rtol=1e-5, atol=1e-8)


class Output(dict):
    """Like Hugging Face's: a dict with attributes."""

    @property
    def logits(self):
        return self["logits"]


@pytest.mark.parametrize("call", [EVERY[name] for name in EVERY if name != "sparse_kd_loss"])
def test_what_is_no_tensor_of_logits_is_refused_by_its_name(call):
    (z, v), y = logits(6, 5), labels(6, 5)
    cases = [
        (Output(logits=v), r"teacher logits must be a tensor; got Output.*output\.logits"),
        ({"logits": v}, r"got dict.*output\['logits'\]"),
        ((v, None), r"got tuple.*output\[0\]"),
        (v.numpy(), r"got ndarray.*torch\.as_tensor"),
        (v.tolist(), r"got list.*torch\.as_tensor"),
        (None, "no teacher logits"),
        (v.long(), "int64"),
    ]
    for given, message in cases:
        with pytest.raises(TypeError, match=message):
            call(z, given, y)
    with pytest.raises(TypeError, match="student logits must be a tensor; got dict"):
        call({"logits": z}, v, y)


# -------------------------------------------------------------------------- the parts of one batch, added up


def cuts(n):
    """All ways to cut n rows into consecutive parts."""
    for inside in itertools.product([False, True], repeat=n - 1):
        ends = [i + 1 for i, cut in enumerate(inside) if cut] + [n]
        yield [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("call", BY_ROW.values(), ids=BY_ROW)
def test_with_the_batchs_denominator_the_parts_add_up_to_the_batch(call):
    """However it is cut, also where parts hold 0, 1 or 3 of the tokens that count."""
    (z, v), y = logits(5, 3, 4, seed=1), labels(15, 4).view(5, 3)
    mask = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0]]).bool()
    whole = call(z, v, y, mask=mask)
    slope = gradient(whole, z)
    ways = list(cuts(5))
    assert len(ways) == 16
    for parts in ways:
        losses = [call(z[i], v[i], y[i], mask=mask[i], denominator=mask.sum()) for i in parts]
        assert sum(losses).item() == pytest.approx(whole.item(), rel=1e-12)
        np.testing.assert_allclose(gradient(sum(losses), z), slope, rtol=1e-11, atol=1e-16)
    means = [call(z[i], v[i], y[i], mask=mask[i]).item() for i in (slice(0, 2), slice(2, 5))]
    assert np.mean(means) != pytest.approx(whole.item(), rel=1e-3)  # what the argument is for


@pytest.mark.parametrize("call", BY_ROW.values(), ids=BY_ROW)
@pytest.mark.parametrize("denominator", [0, -1, math.nan, math.inf, torch.ones(2)])
def test_a_denominator_that_is_no_count_is_refused(call, denominator):
    (z, v), y = logits(6, 5), labels(6, 5)
    with pytest.raises(ValueError, match="denominator"):
        call(z, v, y, denominator=denominator)


@pytest.mark.parametrize("call", BY_ROW.values(), ids=BY_ROW)
def test_a_batch_in_which_nothing_counts_has_a_denominator_of_zero(call):
    (z, v), y = logits(6, 5), labels(6, 5)
    mask = torch.zeros(6, dtype=torch.bool)
    z = z.clone().requires_grad_()
    loss = call(z, v, y, mask=mask, denominator=mask.sum())
    assert loss.item() == 0 and not gradient(loss, z).any()


# ------------------------------------------------------------------------------------- a student that starts at zero


@pytest.mark.parametrize("loss", [dist_loss, standardized_kd_loss, normkd_loss, wttm_loss])
@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_row_of_equal_logits_gets_a_gradient_of_the_usual_size(loss, value, dtype):
    _, v = logits(6, 5)
    z = torch.full((6, 5), value, dtype=dtype, requires_grad=True)
    first = torch.as_tensor(gradient(loss(z, v), z))
    assert 1e-3 < first.abs().max() < 10
    centred = v - v.mean(-1, keepdim=True)
    assert (torch.cosine_similarity(-first.double(), centred) > 0).all()  # towards the teacher


@pytest.mark.parametrize("loss", [dist_loss, standardized_kd_loss, kd_loss, normkd_loss, wttm_loss])
@pytest.mark.parametrize("optimiser, lr", [(torch.optim.Adam, 0.03), (torch.optim.SGD, 0.1)])
def test_a_last_layer_that_starts_at_zero_learns_as_one_that_does_not(loss, optimiser, lr):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 10, generator=generator)
    v = x @ torch.randn(10, 5, generator=generator)
    agreed = []
    for start in (0.0, 0.1):
        w = (start * torch.randn(10, 5, generator=generator)).requires_grad_()
        steps = optimiser([w], lr)
        for _ in range(200):
            steps.zero_grad()
            loss(x @ w, v).backward()
            steps.step()
        agreed.append(((x @ w).argmax(-1) == v.argmax(-1)).float().mean().item())
    assert min(agreed) > 0.9 and abs(agreed[0] - agreed[1]) < 0.05


def test_standardized_kd_loss_keeps_its_1e_7_where_a_row_has_next_to_no_spread():
    """Its gradient for rows of spread 1e-6 is that of the definition, 1e-7 and all."""
    z, v = logits(4, 5)
    z = (1e-6 * z.detach()).requires_grad_()
    q, p = ((x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-7) / 2.0 for x in (z, v))
    exact = 4 * F.kl_div(q.log_softmax(-1), p.softmax(-1), reduction="batchmean")
    found = standardized_kd_loss(z, v, 2.0)
    assert found.item() == pytest.approx(exact.item(), rel=1e-12)
    np.testing.assert_allclose(gradient(found, z), gradient(exact, z), rtol=1e-9)


# ------------------------------------------------------------------------------------ not finite, and autocast


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
def test_what_is_not_finite_can_be_told_from_other_errors(call):
    (z, v), y = logits(6, 5), labels(6, 5)
    z = z.detach()
    z[0, 0] = math.nan
    for kind in (NotFinite, ValueError, FloatingPointError):
        with pytest.raises(kind, match="lower the learning rate"):
            call(z, v, y)


@pytest.mark.parametrize("call", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(call, dtype):
    (z, v), y = logits(64, 50), labels(64, 50)
    z, v = z.detach().float().requires_grad_(), v.float()
    outside = call(z, v, y)
    with torch.autocast("cpu", dtype):
        inside = call(z, v, y)
        slope = gradient(inside, z)
    assert inside.dtype == torch.float32 and inside.item() == outside.item()
    np.testing.assert_array_equal(slope, gradient(outside, z))
