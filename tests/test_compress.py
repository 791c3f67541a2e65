"""`companion.compress`: rounded and left-out weights are what they say, learn, and are refused where they cannot be."""

import pytest
import torch
from torch import nn

from companion.compress import pruned, quantized, rounded, settled
from companion.data import Split
from companion.losses import kd_loss
from companion.models import MLP, ConvNet
from companion.training import fit, fit_many, hard_loss, predict
from tests.drawn import seeded


def images(n=40, seed=0):
    return torch.randn(n, 1, 28, 28, generator=seeded(seed))


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_rounded_weights_are_the_nearest_on_an_even_grid(bits):
    w = torch.randn(5, 40, generator=seeded(), dtype=torch.double)
    w[3] = 0
    q, steps = rounded(w, bits), 2 ** (bits - 1) - 1
    scale = w.abs().amax(1, keepdim=True) / steps
    assert (q - w).abs().max() <= scale.max() / 2 + 1e-12
    assert ((q - w).abs() <= scale / 2 + 1e-12).all() and (q[3] == 0).all()
    whole = q[scale[:, 0] > 0] / scale[scale[:, 0] > 0]
    assert torch.allclose(whole, whole.round(), atol=1e-9) and whole.abs().max() == pytest.approx(steps)
    grid = scale[:1] * torch.arange(-steps, steps + 1)
    nearest = grid[0, (w[0][:, None] - grid).abs().argmin(1)]
    assert torch.allclose(q[0], nearest)
    assert torch.equal(rounded(w[:, :, None, None], bits)[..., 0, 0], q)
    assert torch.allclose(rounded(q, bits), q)


def test_a_quantised_network_has_rounded_weights_and_the_gradient_of_plain_ones():
    model, x = MLP(784, 6, 3, seed=0), images(5)
    student = quantized(model, 3)
    plain = settled(student)
    assert torch.equal(plain.layers[0].weight, rounded(model.layers[0].weight, 3).detach())
    assert torch.equal(predict(student, x), predict(plain, x))
    student(x).square().sum().backward()
    plain(x).square().sum().backward()
    hidden = student.layers[0].parametrizations.weight.original
    assert torch.equal(
        hidden.grad, plain.layers[0].weight.grad
    )  # at the rounded weights, given to the hidden ones
    assert torch.equal(hidden, model.layers[0].weight) and student.layers[0].bias.grad is not None
    assert model.layers[0].weight.grad is None  # the original is left alone


@pytest.mark.parametrize(
    "make", [lambda m: quantized(m, 2), lambda m: pruned(m, 0.7)], ids=["2 bits", "70 % out"]
)
def test_what_is_made_smaller_learns_alone_and_among_many(make):
    x = images(200)
    train = Split(x, (x.mean((1, 2, 3)) > 0).long())
    start = [MLP(784, 8, 2, seed=s) for s in (0, 1)]
    v = 3 * torch.randn(200, 2, generator=seeded())
    losses = (hard_loss, None), (lambda s, t, y: kd_loss(s, t, T=2), v)
    for loss, teacher in losses:
        alone, together = [make(m) for m in start], [make(m) for m in start]
        for seed, student in enumerate(alone):
            history = fit(student, train, loss, teacher, steps=60, lr=1e-2, seed=seed)
            assert history.loss[-1] < 0.8 * history.loss[0]
        fit_many(together, train, loss, teacher, steps=60, lr=1e-2, seeds=(0, 1))
        for a, b in zip(alone, together, strict=True):
            # a rounding may fall to the other side, and then a few images' answers move
            assert (predict(a, x) - predict(b, x)).abs().mean() < 0.05
            assert len(settled(a).layers[1].weight[0].unique()) <= 8


def test_pruned_weights_are_the_smallest_stay_zero_and_are_settled():
    model, x = ConvNet(4, dropout=0.0, seed=0), images(100)
    student = pruned(model, 0.8)
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    kept = [m.weight for m in student.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    everything, left = (torch.cat([w.detach().flatten() for w in ws]) for ws in (weights, kept))
    assert (left == 0).sum() == round(0.8 * len(left)) and torch.equal(left[left != 0], everything[left != 0])
    assert everything[left == 0].abs().max() <= everything[left != 0].abs().min()
    fit(student, Split(x, torch.arange(100) % 10), steps=5, lr=1e-2)
    after = torch.cat([m.weight.flatten() for m in student.modules() if isinstance(m, nn.Linear | nn.Conv2d)])
    assert torch.equal(after == 0, left == 0) and not torch.equal(after, left)
    plain = settled(student)
    assert set(plain.state_dict()) == set(model.state_dict()) and not plain.training
    assert torch.equal(predict(plain, x), predict(student, x))


def test_smaller_networks_are_refused_with_the_remedy():
    model = MLP(784, 4, 3, seed=0)
    for bits in (1, 17, 2.5):
        with pytest.raises(ValueError, match="from 2 to 16"):
            quantized(model, bits)
    for share in (-0.1, 1):
        with pytest.raises(ValueError, match="0 or more and below 1"):
            pruned(model, share)
    for make in (lambda m: quantized(m, 4), lambda m: pruned(m, 0.5)):
        with pytest.raises(ValueError, match=r"settled\(model\) first"):
            make(quantized(model, 4))
        with pytest.raises(ValueError, match="no Linear or Conv2d"):
            make(nn.ReLU())
        broken = MLP(784, 4, 3, seed=0)
        broken.layers[1].weight.data[0, 0] = torch.inf
        with pytest.raises(ValueError, match="diverged"):
            make(broken)
    with pytest.raises(ValueError, match="diverged"):
        rounded(torch.tensor([[1.0, torch.nan]]), 4)
    assert torch.equal(predict(settled(model), images(3)), predict(model, images(3)))


def test_a_vector_is_no_matrix_of_weights():
    for w in (torch.ones(3), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"takes weights \(R, ...\)"):
            rounded(w, 4)


def test_settled_is_in_eval_mode():
    model = quantized(torch.nn.Sequential(torch.nn.Linear(4, 3)), 8).train()
    assert not settled(model).training and model.training
