"""`companion.deploy`: what leaves a notebook is what was in it, and what cannot leave is refused."""

import importlib
import math

import pytest
import torch
from torch import nn

from companion.compress import quantized, settled
from companion.deploy import (
    Latency,
    OnnxModel,
    export,
    export_onnx,
    int8,
    latency,
    size_on_disk,
)
from companion.metrics import agreement
from companion.models import MLP, ConvNet, parameters
from companion.training import predict
from tests.drawn import seeded


def images(n=40, seed=0):
    return torch.randn(n, 1, 28, 28, generator=seeded(seed))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Two networks with their files: a ConvNet, whose batch norms have seen something, and an MLP."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("onnx")
    conv = ConvNet(4, seed=0)
    conv(images(200, 1))  # moves the averages of batch norm
    made = {"conv": conv.eval(), "mlp": MLP(784, 16, 10, seed=0).eval()}
    return {
        name: (model, export_onnx(model, images(), folder / f"{name}.onnx")) for name, model in made.items()
    }


# ------------------------------------------------------------------------------------------------ the same answers


@pytest.mark.parametrize("name", ["conv", "mlp"])
@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_onnx_runtime_answers_as_the_model_does_for_any_batch(exported, name, n):
    """To 1e-5 of the largest answer, for inputs that the export has not seen."""
    model, written = exported[name]
    x = images(n, seed=5)
    with torch.no_grad():
        right = model(x)
    assert written(x).shape == right.shape
    assert (written(x) - right).abs().max() < 1e-5 * right.abs().max()


def test_the_exported_program_answers_as_the_model_does_and_can_be_stored(tmp_path):
    model = MLP(784, 16, 10, seed=0).eval()
    torch.export.save(export(model, images(1)), tmp_path / "student.pt2")
    again = torch.export.load(tmp_path / "student.pt2").module()
    with torch.no_grad():
        for n in (1, 3, 50):
            assert torch.allclose(again(images(n, 3)), model(images(n, 3)), rtol=0, atol=1e-6)


def test_a_view_that_is_not_contiguous_is_answered_too(exported):
    model, written = exported["conv"]
    turned = images(8).transpose(2, 3)
    with torch.no_grad():
        assert not turned.is_contiguous() and torch.allclose(written(turned), model(turned), atol=1e-5)


def test_int8_is_smaller_and_mostly_agrees(exported, tmp_path):
    model, written = exported["mlp"]
    x = images(500, 2)
    for calibration in (None, images(50, 4)):
        small = int8(written, tmp_path / "small.onnx", calibration)
        assert size_on_disk(small.path) < 0.5 * size_on_disk(written.path)
        assert agreement(small(x), predict(model, x)) > 90
        off = (small(x) - predict(model, x)).std() / predict(model, x).std()
        assert 1e-3 < off < 0.05  # it is another network, and a near one
    with pytest.raises(ValueError, match="finite inputs"):
        int8(written, tmp_path / "small.onnx", images(3) * torch.nan)


def test_int8_takes_a_file_in_which_the_weights_shapes_are_noted(exported, tmp_path):
    """ONNX Runtime up to 1.23 (tried: 1.22.0 and 1.23.2) turns the weights, and refuses its own file for such a note."""
    import onnx

    model, written = exported["mlp"]
    network = onnx.load(written.path)
    weight = next(w for w in network.graph.initializer if len(w.dims) == 2 and w.dims[0] != w.dims[1])
    network.graph.value_info.append(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
    )
    onnx.save(network, tmp_path / "older.onnx")
    small = int8(OnnxModel(tmp_path / "older.onnx"), tmp_path / "small.onnx")
    assert agreement(small(images(500, 2)), predict(model, images(500, 2))) > 90


# ---------------------------------------------------------------------------------------------------- refusals


class Branches(nn.Module):
    """Its answer depends on the module's memory of the last call: no export can have that."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(784, 3), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x.flatten(1)) * self.calls


def test_what_cannot_be_exported_is_refused(tmp_path):
    model = MLP(784, 4, 3, seed=0).eval()
    with pytest.raises(ValueError, match=r"training mode.*call .eval\(\)"):
        export(MLP(784, 4, 3), images(2))
    half = ConvNet(2).eval()
    half.dropout.train()
    with pytest.raises(ValueError, match="training mode"):
        export(half, images(2))
    with pytest.raises(TypeError, match=r"nn\.Module and a tensor; got function"):
        export(lambda x: x, images(2))
    with pytest.raises(TypeError, match="got MLP and list"):
        export(model, [1.0])
    with pytest.raises(ValueError, match="NaN"):
        export(model, images(2) / 0)
    with pytest.raises(ValueError, match="x is empty"):
        export(model, images(0))
    broken = MLP(784, 4, 3, seed=0).eval()
    broken.layers[0].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        export(broken, images(2))

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(TypeError, match="returns a tuple"):
        export(Pair().eval(), images(2))


def test_an_export_that_answers_differently_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match="branch on its input, or draw at random"):
        export_onnx(Branches().eval(), images(2), tmp_path / "a.onnx")


def test_a_missing_package_is_named_with_the_remedy(monkeypatch, tmp_path):
    found = importlib.import_module

    def gone(name, *rest):
        if name == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name=name)
        return found(name, *rest)

    monkeypatch.setattr(importlib, "import_module", gone)
    with pytest.raises(ImportError, match=r"onnxruntime is not installed: pip install .companion\[deploy\]"):
        OnnxModel(tmp_path / "a.onnx")
    with pytest.raises(ImportError, match="not installed"):
        export_onnx(MLP(784, 4, 3).eval(), images(2), tmp_path / "a.onnx")


def test_an_onnx_model_says_what_it_takes(exported, tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(FileNotFoundError, match="write it with export_onnx"):
        OnnxModel(tmp_path / "none.onnx")
    with pytest.raises(ValueError, match=r"float32 tensor on the CPU; got torch\.float64"):
        exported["mlp"][1](images(2).double())


# ------------------------------------------------------------------------------------------------- size and time


def test_size_is_counted_in_numbers_or_read_from_the_file(tmp_path):
    model = MLP(784, 16, 10)
    assert size_on_disk(model) == 4 * parameters(model)
    weights, rows = 784 * 16 + 16 * 10, 16 + 10
    assert (
        size_on_disk(model, 8) == weights + 4 * rows + 4 * 26
    )  # a scale for each row, the biases in 32 bits
    assert size_on_disk(model, 3) == math.ceil(784 * 16 * 3 / 8) + 160 * 3 // 8 + 4 * rows + 4 * 26
    conv = ConvNet(4)
    averages = 2 * (4 + 8 + 16)  # of three batch norms; their counters of steps are no real numbers
    assert size_on_disk(conv) == 4 * (parameters(conv) + averages)
    file = tmp_path / "x"
    file.write_bytes(bytes(123))
    assert size_on_disk(file) == size_on_disk(str(file)) == 123
    with pytest.raises(FileNotFoundError):
        size_on_disk(tmp_path / "none")
    for bits in (1, 33, 4.0, True):
        with pytest.raises(ValueError, match="whole number from 2 to 32"):
            size_on_disk(model, bits)


def test_latency_calls_in_turn_warms_up_and_has_quantiles():
    clock, called = [0.0], []

    def one(name, seconds):
        def run(x):
            called.append(name)
            clock[0] += seconds[min(called.count(name), len(seconds)) - 1]

        return run

    slow_at_first = [9.0, 9.0, *(0.001 * i for i in range(1, 12))]
    calls = {"a": one("a", slow_at_first), "b": one("b", [0.002])}
    found = latency(calls, images(1), rounds=11, warm_up=2, clock=lambda: clock[0])
    assert found["a"].median == pytest.approx(6) and found["a"].n == 11  # the two warm-up calls are not in it
    assert (found["a"].low, found["a"].high) == pytest.approx((2, 10))
    assert found["b"] == Latency(*[pytest.approx(2)] * 3, 11)
    assert called.count("a") == called.count("b") == 13
    rounds = [set(called[i : i + 2]) for i in range(0, 26, 2)]
    assert all(pair == {"a", "b"} for pair in rounds)  # in turn …
    assert len({tuple(called[i : i + 2]) for i in range(0, 26, 2)}) == 2  # … in either order


def test_latency_refuses():
    model = MLP(784, 4, 3)
    with pytest.raises(ValueError, match="student is in training mode"):
        latency({"student": model}, images(1))
    with pytest.raises(ValueError, match="10 rounds at least"):
        latency({"student": model.eval()}, images(1), rounds=3)
    with pytest.raises(ValueError, match="takes calls"):
        latency({}, images(1))


def test_the_size_of_what_is_still_rounded_is_not_guessed():
    model = quantized(torch.nn.Linear(4, 3), 8)
    with pytest.raises(ValueError, match="settled"):
        size_on_disk(model, 8)
    assert size_on_disk(settled(model), 8) == 12 + 4 * 3 + 4 * 3
