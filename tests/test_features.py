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
