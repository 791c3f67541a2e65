"""Losses on features against their definitions, written here in float64 with numpy."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from companion.features import (
    attention_transfer_loss,
    contrastive_loss,
    hint_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_preserving_loss,
)  # fmt: skip
from tests.test_losses import logits

LOSSES = {
    "hint": (hint_loss, (6, 5)),
    "hint of maps": (hint_loss, (6, 3, 2, 2)),
    "attention": (attention_transfer_loss, (6, 3, 2, 2)),
    "similarity": (similarity_preserving_loss, (6, 5)),
    "distance": (rkd_distance_loss, (6, 5)),
    "angle": (rkd_angle_loss, (6, 5)),
    "contrastive": (contrastive_loss, (6, 5)),
}
RELATIONS = (similarity_preserving_loss, rkd_distance_loss, rkd_angle_loss)


def arrays(*tensors):
    return [x.detach().numpy().reshape(len(x), -1) for x in tensors]


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def huber(x):
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def test_hint_loss_is_its_definition():
    s, t = logits(6, 3, 2, 2)
    a, b = arrays(s, t)
    assert hint_loss(s, t).item() == pytest.approx(((a - b) ** 2).sum() / 2 / 6, rel=1e-12)


@pytest.mark.parametrize("power", [1.5, 2, 4])
def test_attention_transfer_loss_is_its_definition_whatever_the_channels(power):
    s, _ = logits(6, 3, 2, 4)
    _, t = logits(6, 7, 2, 4, seed=1)
    a, b = (unit((np.abs(x.detach().numpy()) ** power).sum(1).reshape(6, -1)) for x in (s, t))
    assert attention_transfer_loss(s, t, power).item() == pytest.approx(
        np.linalg.norm(a - b, axis=1).mean(), rel=1e-12
    )
    with pytest.raises(ValueError, match="power"):
        attention_transfer_loss(s, t, 1)


def test_similarity_preserving_loss_is_its_definition_whatever_the_size():
    s, _ = logits(6, 5)
    _, t = logits(6, 4, 3, 3, seed=1)
    a, b = (unit(x @ x.T) for x in arrays(s, t))
    assert similarity_preserving_loss(s, t).item() == pytest.approx(((a - b) ** 2).sum() / 36, rel=1e-12)


def test_rkd_distance_loss_is_its_definition():
    s, _ = logits(6, 5)
    _, t = logits(6, 9, seed=1)

    def relative(x):
        d = np.linalg.norm(x[:, None] - x, axis=-1)
        return d / (d.sum() / 30)

    a, b = (relative(x) for x in arrays(s, t))
    assert rkd_distance_loss(s, t).item() == pytest.approx(huber(a - b).mean(), rel=1e-11)
    assert rkd_distance_loss(3 * t + 1, t).item() == pytest.approx(0, abs=1e-15)


def test_rkd_angle_loss_is_its_definition():
    s, _ = logits(5, 3)
    _, t = logits(5, 9, seed=1)
    total = 0.0
    for a, b in [arrays(s, t)]:
        for j in range(5):
            for i in range(5):
                for k in range(5):
                    if i != j and k != j:
                        cosines = (unit(x[i] - x[j]) @ unit(x[k] - x[j]) for x in (a, b))
                        total += huber(np.subtract(*cosines))
    assert rkd_angle_loss(s, t).item() == pytest.approx(total / 125, rel=1e-11)
    assert rkd_angle_loss(3 * t + 1, t).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("T", [0.07, 1.0])
def test_contrastive_loss_is_its_definition(T):
    s, t = logits(6, 5)
    cosine = unit(arrays(s)[0]) @ unit(arrays(t)[0]).T / T
    both = logsumexp(cosine, axis=1) + logsumexp(cosine, axis=0) - 2 * np.diag(cosine)
    assert contrastive_loss(s, t, T).item() == pytest.approx(both.mean() / 2, rel=1e-12)
    assert contrastive_loss(s[:1], t[:1], T).item() == 0
    with pytest.raises(ValueError, match="temperature"):
        contrastive_loss(s, t, 0)


@pytest.mark.parametrize("loss, shape", LOSSES.values(), ids=LOSSES)
def test_gradcheck_and_no_gradient_to_the_teacher(loss, shape):
    s, t = logits(*shape)
    assert torch.autograd.gradcheck(lambda s: loss(s, t), s)
    loss(s, t.requires_grad_()).backward()
    assert t.grad is None and s.grad.any()


@pytest.mark.parametrize("loss, shape", LOSSES.values(), ids=LOSSES)
def test_zero_at_agreement_but_for_contrastive(loss, shape):
    s, t = logits(*shape)
    assert (loss(t, t).item() == 0) == (loss is not contrastive_loss)
    assert loss(s, t).item() > 0


@pytest.mark.parametrize("loss, shape", LOSSES.values(), ids=LOSSES)
def test_half_precision_is_computed_in_float32(loss, shape):
    s, t = (x.detach().bfloat16() for x in logits(*shape))
    found = loss(s.requires_grad_(), t)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(s.double(), t.double()).item(), rel=1e-4)


PAIR = pytest.mark.parametrize("loss, shape", LOSSES.values(), ids=LOSSES)


@PAIR
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1, 300])
def test_autocast_changes_neither_value_nor_gradient(loss, shape, half, scale):
    """Teacher and student within 1 %, where a product in half precision is far off, and squares beyond fp16's range."""
    _, t = logits(32, *[8 * d for d in shape[1:]])
    t = scale * t.detach().float()
    s = (t + 0.01 * scale * torch.randn(t.shape, generator=torch.Generator().manual_seed(1))).requires_grad_()
    expected = loss(s, t)
    (gradient,) = torch.autograd.grad(expected, s)
    with torch.autocast("cpu", half):
        assert (s.flatten(1) @ t.flatten(1).T).dtype == half  # it does what it does
        found = loss(s, t)
        (inside,) = torch.autograd.grad(found, s, retain_graph=True)
    (outside,) = torch.autograd.grad(found, s)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    assert torch.equal(inside, gradient) and torch.equal(outside, gradient)


@PAIR
def test_of_two_precisions_the_wider_counts(loss, shape):
    s, t = (x.detach() for x in logits(*shape))
    for other in (torch.float32, torch.float16, torch.bfloat16):
        narrow = s.to(other)
        expected = loss(narrow.double(), t)
        for pair in [(narrow, t), (t, narrow)]:
            found = loss(*pair)
            assert found.dtype == torch.double
            assert found.item() == pytest.approx(loss(*(x.double() for x in pair)).item(), rel=1e-12)
        narrow.requires_grad_()
        loss(narrow, t).backward()
        assert narrow.grad.dtype == other and expected.isfinite()


@PAIR
@pytest.mark.parametrize("power", [-40, 40])
def test_large_and_small_features_give_the_right_value_in_float32(loss, shape, power):
    s, t = (x.detach().float() for x in logits(*shape))
    if loss is not hint_loss:  # which is not blind to scale
        expected = loss(s, t).item()
        found = loss(s * 2.0**power, t * 2.0**-power).item()
        assert expected > 0 and found == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="too large to square"):
        loss(s * 1e38, t)


@PAIR
def test_second_derivative_and_forward_mode_are_right(loss, shape):
    s, t = logits(*shape)
    call = lambda s: loss(s, t)  # noqa: E731
    assert torch.autograd.gradgradcheck(call, s, check_fwd_over_rev=False)
    assert torch.autograd.gradcheck(call, s, check_forward_ad=True)


@PAIR
def test_second_derivative_is_finite_where_examples_coincide_or_sides_agree(loss, shape):
    s, t = logits(*shape)
    twins = torch.cat([s.detach()[:3], s.detach()[:1], torch.zeros(2, *shape[1:], dtype=torch.double)])
    for start in (t.detach(), twins):
        student = start.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(student, t), student, create_graph=True)
        slope.square().sum().backward()
        assert student.grad.isfinite().all()


@PAIR
def test_functional_derivatives_agree_and_vmap_names_the_way_round(loss, shape):
    s, t = (x.detach() for x in logits(*shape))
    (expected,) = torch.autograd.grad(loss(start := s.clone().requires_grad_(), t), start)
    for derivative in (torch.func.grad, torch.func.jacrev):
        torch.testing.assert_close(derivative(loss)(s, t), expected)
    direction = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    _, change = torch.func.jvp(lambda s: loss(s, t), (s,), (direction,))
    assert change.item() == pytest.approx((expected * direction).sum().item(), rel=1e-9)
    with pytest.raises(RuntimeError, match=r"torch\.stack"):
        torch.vmap(loss, (0, None))(torch.stack([s, s]), t)


def test_a_temperature_that_learns_gets_its_gradient():
    s, t = (x.detach() for x in logits(6, 5))
    T = torch.tensor(0.3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda T: contrastive_loss(s, t, T), T)
    (slope,) = torch.autograd.grad(contrastive_loss(s, t, T), T)
    difference = contrastive_loss(s, t, 0.3001) - contrastive_loss(s, t, 0.2999)
    assert slope.item() == pytest.approx(difference.item() / 2e-4, rel=1e-5)
    with pytest.raises(ValueError, match=r"\(6, 1\)"):
        contrastive_loss(s, t, torch.ones(6, 1))
    with pytest.raises(ValueError, match="temperature"):
        contrastive_loss(s, t, torch.tensor(-1.0))


def test_contrastive_and_attention_have_their_papers_defaults():
    s, t = logits(6, 5)
    assert contrastive_loss(s, t) == contrastive_loss(s, t, 0.1) != contrastive_loss(s, t, 0.11)
    s, t = logits(6, 3, 2, 2)
    assert (
        attention_transfer_loss(s, t)
        == attention_transfer_loss(s, t, 2)
        != attention_transfer_loss(s, t, 2.1)
    )


@pytest.mark.parametrize("loss, shape", LOSSES.values(), ids=LOSSES)
def test_examples_that_coincide_or_vanish_leave_value_and_gradient_finite(loss, shape):
    s, t = logits(*shape)
    same, nothing = s.detach()[:1].expand(shape).clone(), torch.zeros(shape, dtype=torch.double)
    for start in (same, nothing):
        for teacher in (t, same, nothing):
            student = start.clone().requires_grad_()
            loss(student, teacher).backward()
            assert student.grad.isfinite().all()


@pytest.mark.parametrize("loss", RELATIONS)
def test_relations_of_one_example_or_none_are_zero(loss):
    s, t = logits(3, 5)
    for n in (0, 1):
        value = loss(s[:n], t[:n])
        value.backward()
        assert value.item() == 0


@pytest.mark.parametrize("loss, shape", LOSSES.values(), ids=LOSSES)
def test_shapes_that_do_not_fit_are_refused_by_name(loss, shape):
    s, _ = logits(*shape)
    others = [(7, *shape[1:]), (6,), (6, 4, 5)]
    if loss not in RELATIONS:
        others += [(*shape[:-1], shape[-1] + 8)]
    for other in others:
        with pytest.raises(ValueError) as error:
            loss(s, torch.zeros(other, dtype=torch.double))
        assert str(tuple(shape)) in str(error.value) and str(other) in str(error.value)


@pytest.mark.parametrize("loss, shape", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(loss, shape, value):
    s, t = logits(*shape)
    s.detach()[2] = value
    with pytest.raises(ValueError, match="NaN"):
        loss(s, t)


@pytest.mark.parametrize(
    "loss", [hint_loss, rkd_distance_loss, rkd_angle_loss, contrastive_loss, similarity_preserving_loss]
)
def test_features_are_real_numbers(loss):
    x = torch.ones(3, 4)
    for wrong, got in ((x.long(), "int64"), (x.cfloat(), "complex64"), (x.numpy(), "ndarray")):
        with pytest.raises(TypeError, match=f"the teacher's features .*{got}"):
            loss(x, wrong)
        with pytest.raises(TypeError, match=f"the student's features .*{got}"):
            loss(wrong, x)
