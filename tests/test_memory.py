"""How much memory a loss takes above its inputs, in float32 tables of the logits' size, here and off the CPU."""

import pytest
import torch
import torch.nn.functional as F
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from companion import _core
from tests.fault_table import LOSSES
from tests.second_device import NAME, Second

SHAPE = (256, 500)
RESPONSES = [name for name, of in LOSSES.items() if "T" in of.takes or "mse" in name]
RESPONSES.remove("contrastive")


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


if __name__ == "__main__":

    class MP:
        def setattr(self, o, n, v):
            setattr(o, n, v)

    for name in RESPONSES:
        print(
            name,
            [
                round(tables(LOSSES[name].call, d, dev, MP()), 2)
                for d in (torch.float32, torch.bfloat16)
                for dev in ("cpu", NAME)
            ],
        )
    kl = lambda z, v, T, mask, y: (
        T * T * F.kl_div((z / T).log_softmax(-1), (v / T).softmax(-1), reduction="batchmean")
    )
    print(
        "kl",
        [
            round(tables(kl, d, dev, MP()), 2)
            for d in (torch.float32, torch.bfloat16)
            for dev in ("cpu", NAME)
        ],
    )
