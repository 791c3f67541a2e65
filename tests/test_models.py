"""Shapes, sizes and seeds of the small models."""

import pytest
import torch

from companion.models import MLP, ConvNet, StaticEncoder, _seeded, parameters


def same(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_mlp_shapes_and_size():
    model = MLP(784, 128, 10)
    x = torch.randn(3, 1, 28, 28)
    assert model(x).shape == (3, 10)
    assert model.features(x).shape == (3, 128) and (model.features(x) >= 0).all()
    assert parameters(model) == 784 * 128 + 128 + 128 * 10 + 10 == 101_770


def test_mlp_without_a_hidden_layer_is_linear():
    model = MLP(6, 3)
    x = torch.randn(4, 6)
    torch.testing.assert_close(model(x), x @ model.layers[0].weight.T + model.layers[0].bias)


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0), (3, -1, 2)])
def test_mlp_refuses_sizes_that_make_no_network(sizes):
    with pytest.raises(ValueError, match=r"sizes?"):
        MLP(*sizes)


@pytest.mark.parametrize("width", [1, 4, 8, 16])
def test_convnet_shapes_and_size(width):
    model = ConvNet(width).eval()
    x = torch.randn(2, 1, 28, 28)
    assert model(x).shape == (2, 10)
    w = width
    assert [m.shape[1:] for m in model.features(x)] == [(w, 14, 14), (2 * w, 7, 7), (4 * w, 4, 4)]
    convolutions = 25 * w + 9 * w * 2 * w + 9 * 2 * w * 4 * w
    assert parameters(model) == convolutions + 2 * 7 * w + 64 * w * 10 + 10


def test_convnet_has_as_many_parameters_as_its_docstring_says():
    assert f"`ConvNet(8)` has {parameters(ConvNet(8)):,} parameters" in ConvNet.__doc__


def test_convnet_drops_out_in_training_only_and_takes_other_classes():
    model, x = ConvNet(2, classes=4), torch.randn(5, 1, 28, 28)
    assert model.eval()(x).shape == (5, 4)
    assert torch.equal(model(x), model(x))
    assert not torch.equal(model.train()(x), model(x))


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 3, 28, 28), (2, 784)])
def test_convnet_refuses_what_is_no_batch_of_grey_images(shape):
    with pytest.raises(ValueError, match=r"\(N, 1, 28, 28\)"):
        ConvNet(2)(torch.zeros(shape))


@pytest.mark.parametrize("make", [
    lambda seed: MLP(5, 4, 3, seed=seed), lambda seed: ConvNet(2, seed=seed),
    lambda seed: StaticEncoder(7, 3, 4, seed=seed),
])  # fmt: skip
def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone(make):
    before = torch.random.get_rng_state()
    assert same(make(1), make(1)) and not same(make(1), make(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not same(make(None), make(None))


def test_seeded_gives_what_the_global_seed_would():
    torch.manual_seed(7)
    expected = torch.rand(3)
    assert torch.equal(_seeded(lambda: torch.rand(3), 7), expected)


def test_a_hidden_layer_may_have_one_unit():
    assert MLP(3, 1, 2)(torch.randn(4, 3)).shape == (4, 2) and parameters(MLP(3, 1, 2)) == 3 + 1 + 2 + 2
    assert MLP(1, 1)(torch.randn(4, 1)).shape == (4, 1)


def test_convnet_s_defaults_and_the_momentum_of_its_batch_norm():
    model = ConvNet()
    assert (model.width, model.classes, model.dropout.p) == (8, 10, 0.2)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 3
    assert {(m.momentum, m.eps, m.affine, m.track_running_stats) for m in norms} == {(0.1, 1e-5, True, True)}
    model.train()(torch.randn(6, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    assert all(m.num_batches_tracked == 1 and m.running_mean.any() for m in norms)


def test_a_convolution_halves_the_map_and_has_the_kernels_of_the_docstring():
    convolutions = [m for m in ConvNet(2).modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(m.kernel_size, m.stride, m.bias) for m in convolutions] == [
        ((5, 5), (2, 2), None), ((3, 3), (2, 2), None), ((3, 3), (2, 2), None)
    ]  # fmt: skip


def test_parameters_leaves_buffers_out():
    assert parameters(torch.nn.BatchNorm1d(6)) == 12


def test_a_static_encoder_has_one_vector_and_one_weight_a_token():
    model = StaticEncoder(30_522)
    assert parameters(model) == 30_522 * 128 + 30_522 + 128 * 384 == 3_986_490
    assert (model.weight.weight == 1).all() and model.weight.weight.requires_grad


def test_a_static_encoder_reads_each_text_alone_and_in_any_order_of_its_tokens():
    model = StaticEncoder(9, 3, 4, seed=0).double()
    ids, starts = torch.tensor([1, 2, 3, 8, 8, 0]), torch.tensor([0, 3, 3, 5])
    v = model(ids, starts)
    assert v.shape == (4, 4) and not v[1].any()  # the second text is empty
    torch.testing.assert_close(v[[0, 2, 3]].norm(dim=1), torch.ones(3).double())
    torch.testing.assert_close(v[0], model(torch.tensor([3, 1, 2]), torch.tensor([0]))[0])
    torch.testing.assert_close(
        v[2], model(torch.tensor([8]), torch.tensor([0]))[0]
    )  # twice the same: the same direction


@pytest.mark.parametrize("ids, starts, said", [
    (torch.tensor([[1]]), torch.tensor([0]), r"got \(1, 1\)"),
    (torch.tensor([1.0]), torch.tensor([0]), "float32"),
    (torch.tensor([1, 2]), torch.tensor([1]), "begin at 0"),
    (torch.tensor([1, 2]), torch.tensor([0, 2, 1]), "never fall"),
    (torch.tensor([1, 2]), torch.tensor([0, 3]), "within the 2 tokens"),
    (torch.tensor([1, 9]), torch.tensor([0]), "0 … 8; got 1 … 9"),
])  # fmt: skip
def test_what_a_static_encoder_cannot_read_is_refused(ids, starts, said):
    with pytest.raises(ValueError, match=said):
        StaticEncoder(9, 3, 4)(ids, starts)
