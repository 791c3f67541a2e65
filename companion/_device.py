"""Models that lie on the CPU are taken to the GPU for a run, and brought back after it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from . import device


@contextmanager
def on_device(*models: nn.Module | Tensor | None) -> Iterator[torch.device]:
    """Where the first model runs: where it lies if that is not the CPU, else `companion.device()`.

    Those of the models that lie on the CPU are there inside the `with`, and on the CPU again after it, also
    after an error.
    """
    where = next((d for d in _devices(models[0]) if d.type != "cpu"), device())
    guests = [m for m in models if isinstance(m, nn.Module) and not _away(m)] if where.type != "cpu" else []
    try:
        for model in guests:
            model.to(where)
        yield where
    finally:
        for model in guests:
            model.to("cpu")


@contextmanager
def evaluated(*models: nn.Module | Tensor | None) -> Iterator[None]:
    """The models in eval mode inside the `with`; after it each of their modules has its own mode back."""
    asked = [m for m in models if isinstance(m, nn.Module)]
    modes = [(part, part.training) for model in asked for part in model.modules()]
    whole = [(model, model.training) for model in asked]
    try:
        for model in asked:
            model.eval()
        yield
    finally:
        for model, mode in whole:  # first by the module's own `train`, which may do more than set the flags
            model.train(mode)
        for part, mode in modes:
            part.training = mode


def forked(where: torch.device):
    """As `torch.random.fork_rng`: the generators of the CPU and of `where` are afterwards as they were."""
    if where.type == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[where], device_type=where.type)


def _devices(model: nn.Module) -> list[torch.device]:
    return [x.device for x in [*model.parameters(), *model.buffers()]]


def _away(model: nn.Module) -> bool:
    return any(d.type != "cpu" for d in _devices(model))
