"""How much memory a loss takes above its inputs, in float32 tables of the logits' size, here and off the CPU."""

import pytest
import torch
import torch.nn.functional as F
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from companion import _core, tokens
from companion.audit._definitions import stored
from tests.fault_table import LOSSES
from tests.second_device import NAME, Second

SHAPE = (256, 500)
RESPONSES = [name for name, of in LOSSES.items() if "T" in of.takes or "mse" in name]
RESPONSES.remove("contrastive")
RESPONSES.remove("fused")  # in test_fused.py


class Peak(TorchDispatchMode):
    """The most bytes that were alive at once of what was made inside."""

    def __init__(self, *given):
        super().__init__()
        self.given = {_storage(x)._cdata for x in given}
        self.alive, self.most = {}, 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                storage = _storage(x)
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        self.most = max(
            self.most, sum(size for key, (_, size) in self.alive.items() if key not in self.given)
        )
        return out


def _storage(x):
    return (x.held if isinstance(x, Second) else x).untyped_storage()


def tables(call, dtype, device, monkeypatch, shape=SHAPE):
    """Peak of value and backward, in float32 tables, with chunks of a hundredth of the logits."""
    size = shape[0] * shape[1]
    monkeypatch.setattr(_core, "CHUNK" if device == "cpu" else "CHUNK_OFF_CPU", size // 100)
    z, v = 3 * torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    z, v, y = (x.to(device) for x in (z.to(dtype), v.to(dtype), torch.arange(shape[0]) % shape[1]))
    z.requires_grad_()
    with Peak(z, v) as peak:
        call(z, v, 2.0, None, y).backward()
    return peak.most / (4 * size)


def kl_div(z, v, T, mask, y):
    return T * T * F.kl_div((z / T).log_softmax(-1), (v / T).softmax(-1), reduction="batchmean")


@pytest.mark.parametrize("device", ["cpu", NAME])
@pytest.mark.parametrize("dtype, most", [(torch.float32, 2), (torch.bfloat16, 2.5)])
@pytest.mark.parametrize("name", RESPONSES)
def test_peak_above_the_inputs(name, dtype, most, device, monkeypatch):
    """The docstring of `losses`: two tables, two and a half for half precision, and seven and nine for DIST."""
    if name == "DIST":
        most = {2: 7, 2.5: 9}[most]
    assert tables(LOSSES[name].call, dtype, device, monkeypatch) == pytest.approx(most, abs=0.02)


def test_the_usual_line_takes_five(monkeypatch):
    assert tables(kl_div, torch.float32, "cpu", monkeypatch) == pytest.approx(5, abs=0.02)


def test_what_a_chunk_takes_off_the_cpu(monkeypatch):
    """Forward, in two chunks: what each further number of CHUNK_OFF_CPU costs."""
    monkeypatch.setattr(_core, "CHUNK_OFF_CPU", SHAPE[0] * SHAPE[1] // 2)
    found = {}
    for name in RESPONSES:
        z, v, y = (x.to(NAME) for x in (*torch.randn(2, *SHAPE), torch.arange(SHAPE[0])))
        with Peak(z, v) as peak:
            LOSSES[name].call(z, v, 2.0, None, y)
        found[name] = 2 * (peak.most / (4 * SHAPE[0] * SHAPE[1]) - 1)
    most = max(value for name, value in found.items() if name != "DIST")  # which takes no chunks
    assert 9 < most < 10, found


@pytest.mark.parametrize("name", RESPONSES)
def test_chunks_off_the_cpu_give_the_same(name, monkeypatch):
    """With a mask over all, some and none of a chunk's rows, and a row that is far apart."""
    z, v = 3 * torch.randn(2, 12, 10, generator=torch.Generator().manual_seed(0))
    if "both" in LOSSES[name].ruled_out:
        z[5, 0] = 500.0
    y, mask = torch.arange(12) % 10, torch.tensor([0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1, 1]).bool()
    for rows, keep in ((1, mask), (4, mask), (5, None), (12, mask)):
        monkeypatch.setattr(_core, "CHUNK_OFF_CPU", 10 * rows)
        monkeypatch.setattr(_core, "CHUNK", 10 * rows)
        there = [None if x is None else x.to(NAME) for x in (z, v, y, keep)]
        values, slopes = [], []
        for a, b, labels, m in ((z, v, y, keep), there):
            a = a.detach().clone().requires_grad_()
            value = LOSSES[name].call(a, b, 2.0, m, labels)
            value.backward()
            values.append(value.cpu())
            slopes.append(a.grad.cpu())
        torch.testing.assert_close(*values, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-7)


class Waits(TorchDispatchMode):
    """How often the program waits for the device: a number is read back."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.count += op is torch.ops.aten._local_scalar_dense.default or op is torch.ops.aten.nonzero.default
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", RESPONSES)
def test_a_call_waits_for_the_device_once_and_for_labels_and_stores_too(name, monkeypatch):
    """Once for the value, which is never returned unless it is finite; labels and indices are read before."""
    monkeypatch.setattr(_core, "CHUNK_OFF_CPU", 30)
    z, v = (3 * torch.randn(2, 8, 10)).to(NAME)
    y, mask = torch.arange(8).to(NAME), (torch.arange(8) != 2).to(NAME)
    call = LOSSES[name].call
    if name == "sparse":
        index, p = stored(v.cpu(), 2.0)
        index, p = index.to(NAME), p.to(NAME)

        def call(z, v, T, mask, y):
            return tokens.sparse_kd_loss(z, index, p, T, mask)

    with Waits() as waits:
        call(z, v, 2.0, mask, y)
    assert waits.count == 1 + 2 * ("y" in LOSSES[name].takes) + 5 * (name == "sparse")
