"""A second device made of CPU memory: what a GPU refuses, it refuses, also on a machine without one.

Its tensors reach the CPU only by a copy, and no operation takes tensors from both sides. Matrix products and
convolutions are rounded once, from double precision, so that the last bits are others than the CPU's. It is no
faster than the CPU, and what a GPU's own kernels do it cannot show.

It stands on an experimental part of PyTorch for devices written in Python, so it goes with the pinned release.
"""

import torch
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "second"
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._copy_from.default}
TAKES_CPU_INDEX = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._index_put_impl_.default,
}
ROUNDED = {
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default,
    aten.convolution.default, aten.convolution_backward.default,
}  # fmt: skip


class Module(_DummyBackendModule):
    """What `torch.second` offers, as `torch.cuda` does: here the generator of the CPU serves."""

    def get_rng_state(self, device=None):
        return torch.get_rng_state()

    def set_rng_state(self, state, device=None):
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self):  # torch.utils.checkpoint asks, once this device is known
        return [torch.bfloat16, torch.float16]


_setup_privateuseone_for_python_backend(NAME, Module())


class Second(torch.Tensor):
    """A tensor on the second device; `held` is what it holds, in CPU memory."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"Second({self.held!r})"

    def tolist(self):
        return self.cpu().tolist()

    def __tensor_flatten__(self):
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return Second(inner["held"])

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        target = kwargs.get("device")
        if op not in COPIES:
            check_one_device(op, args[:1] + args[2:] if op in TAKES_CPU_INDEX else args)
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        held, named = tree_map(unwrap, (args, kwargs))
        if op in ROUNDED:
            held = to(torch.double, held)
        out = op(*held, **named)
        if op in ROUNDED:
            out = to(args[0].dtype, out)
        if target is not None and torch.device(target).type == "cpu":
            return out
        out = tree_map(lambda x: Second(x) if isinstance(x, torch.Tensor) else x, out)
        return return_and_correct_aliasing(op, args, kwargs, out)


def unwrap(x):
    return x.held if isinstance(x, Second) else x


def to(dtype, tree):
    return tree_map(
        lambda x: x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x, tree
    )


def check_one_device(op, args):
    for x in tree_leaves(args):
        if isinstance(x, torch.Tensor) and not isinstance(x, Second) and x.dim():
            raise RuntimeError(f"{op}: tensors on {x.device} and on {NAME}.")


@torch.library.impl("aten::empty.memory_format", "PrivateUse1")
def empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    return Second(torch.empty(size, dtype=dtype, memory_format=memory_format))


@torch.library.impl("aten::empty_strided", "PrivateUse1")
def empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return Second(torch.empty_strided(size, stride, dtype=dtype))


@torch.library.impl("aten::_copy_from", "PrivateUse1")  # where PyTorch copies below __torch_dispatch__
def copy_from(source, target, non_blocking=False):
    unwrap(target).copy_(unwrap(source))
    return target
