"""Half precision, by argument or by an autocast around the call: the same student as in float32, near enough."""

from contextlib import nullcontext
from functools import cache, partial

import pytest
import torch
from torch import nn

from companion.data import fashion, fashion_teacher
from companion.losses import kd_loss
from companion.models import MLP, ConvNet
from companion.training import fit, fit_many, predict, teacher_logits
from tests.test_training import RUN, Noisy, blobs, weights

KINDS = {
    "mlp": lambda seed: MLP(784, 32, 10, seed=seed),
    "convnet": lambda seed: ConvNet(4, dropout=0.0, seed=seed),
}
HALVES = [torch.bfloat16, torch.float16]
LONG = {"steps": 80, "lr": 3e-3, "batch_size": 50}


def kd(z, v, y):
    assert z.dtype == torch.float32, "the loss gets float32"
    return kd_loss(z, v, T=4.0)


@cache
def taught():
    train = fashion("train")[:100]
    return train, teacher_logits(fashion_teacher(0), train.x)


@cache
def in_float32(kind, seed):
    train, v = taught()
    return fit(KINDS[kind](1), train, kd, v, seed=seed, **LONG).loss


def near(found, kind, seed):
    """As well learnt as in float32, and by another arithmetic."""
    whole = in_float32(kind, seed)
    assert whole[-1] < whole[0] / 5, "there is something to learn"
    assert found != whole and found[-1] == pytest.approx(whole[-1], rel=0.05)


@pytest.mark.parametrize("around", [False, True], ids=["argument", "autocast around"])
@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_ends_at_the_loss_of_float32(kind, half, around):
    """Inside an autocast, casts kept from the first step would leave the loss where it was."""
    train, v = taught()
    student = KINDS[kind](1)
    with torch.autocast("cpu", half) if around else nullcontext():
        found = fit(student, train, kd, v, seed=3, precision=None if around else half, **LONG).loss
    near(found, kind, 3)
    assert {p.dtype for p in student.parameters()} == {torch.float32}


@pytest.mark.parametrize("around", [False, True], ids=["argument", "autocast around"])
@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_many_at_once_in_half_precision_end_at_the_losses_of_float32(kind, half, around):
    train, v = taught()
    students = [KINDS[kind](1) for _ in range(2)]
    with torch.autocast("cpu", half) if around else nullcontext():
        found = fit_many(students, train, kd, v, seeds=[3, 4], precision=None if around else half, **LONG)
    near(found[0].loss, kind, 3)
    near(found[1].loss, kind, 4)


def test_what_an_autocast_around_the_run_had_cast_before_is_not_what_it_uses_after():
    train, v = taught()
    student, x = KINDS["mlp"](1), train.x
    with torch.autocast("cpu", torch.bfloat16):
        before = student(x)  # autocast keeps the cast of each weight from here on
        fit(student, train, kd, v, **LONG)
        after = student(x).float()
        asked = predict(student, x)
    assert (after - before).abs().max() > 1
    torch.testing.assert_close(after, asked)
    torch.testing.assert_close(asked, predict(student, x), rtol=0.05, atol=0.1)


def test_asking_inside_an_autocast_leaves_no_cast_without_a_gradient_behind():
    student, x = KINDS["mlp"](1), taught()[0].x
    with torch.autocast("cpu", torch.bfloat16):
        predict(student, x)
        student(x).sum().backward()
    assert all(p.grad is not None for p in student.parameters())


@pytest.mark.parametrize("size", [1e-5, 300])
@pytest.mark.parametrize("many", [False, True])
def test_in_float16_small_gradients_are_not_lost_and_large_ones_do_not_spoil_the_weights(size, many):
    train, v = taught()

    def last(precision):
        student, loss = KINDS["mlp"](1), lambda z, v, y: size * kd(z, v, y)
        if many:
            return fit_many([student], train, loss, v, seeds=[0], precision=precision, **LONG)[0].loss[-1]
        return fit(student, train, loss, v, precision=precision, **LONG).loss[-1]

    assert last(torch.float16) == pytest.approx(last(None), rel=0.15)


def test_gradients_that_overflow_float16_at_every_scale_are_an_error():
    with pytest.raises(FloatingPointError, match=r"overflow float16 even unscaled.*bfloat16"):
        fit(
            MLP(4, 2), blobs(), lambda z, v, y: 1e8 * z.sum(), precision=torch.float16, **{**RUN, "steps": 40}
        )


@pytest.mark.parametrize("precision", [torch.float32, torch.int8, "bf16"])
def test_a_precision_that_is_none_is_refused(precision):
    with pytest.raises(ValueError, match=r"precision is torch\.bfloat16"):
        fit(MLP(4, 2), blobs(), precision=precision, **RUN)


def test_float16_weights_are_refused_and_bfloat16_weights_train():
    with pytest.raises(ValueError, match=r"student\.float\(\), with precision=torch\.float16"):
        fit(MLP(4, 2).half(), blobs(), **RUN)
    student = MLP(4, 2, seed=0).bfloat16()
    before = weights(student)
    history = fit(student, blobs(), **RUN)
    assert history.loss[-1] < history.loss[0] and not torch.equal(before, weights(student))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("train", [fit, partial(fit_many, seeds=[0])])
def test_a_teacher_is_asked_in_the_type_of_its_weights(dtype, train):
    teacher, seen = Noisy().to(dtype), []

    def loss(z, v, y):
        seen.append(v.dtype)
        return kd_loss(z, v, T=2.0)

    student = MLP(4, 2, seed=0)
    train(student if train is fit else [student], blobs(), loss, teacher, **RUN)
    assert set(seen) == {dtype} and predict(teacher, blobs().x).dtype == dtype
    assert weights(student).dtype == torch.float32


def test_a_model_that_answers_in_a_wider_type_keeps_it():
    model = nn.Sequential(nn.Linear(4, 2).bfloat16(), Widen())
    assert predict(model, blobs().x).dtype == torch.float32


class Widen(nn.Module):
    def forward(self, x):
        return x.float() / 3
