"""Where and how models are asked: on the GPU and back, in half precision, in eval mode; and what they answer."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

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


def half_type(where: torch.device, precision: torch.dtype | None) -> torch.dtype | None:
    """What models are to compute in: `precision`, else that of an autocast around the call, else None."""
    around = torch.amp.is_autocast_available(where.type) and torch.is_autocast_enabled(where.type)
    return torch.get_autocast_dtype(where.type) if precision is None and around else precision


def autocast(
    where: torch.device, half: torch.dtype | None, enabled: bool = True
) -> Callable[[], AbstractContextManager]:
    """Makes `torch.autocast` contexts that keep no cast of a weight: it would be stale after the next step."""
    return (
        nullcontext
        if half is None
        else partial(torch.autocast, where.type, half, enabled=enabled, cache_enabled=False)
    )


def ask(model: nn.Module, x: Tensor, run: Callable | None = None):
    """What a model answers to x, in the type of its weights: so it gets x, and so autocast's answer is widened.

    Of an output object or a dict with logits, as Hugging Face's models return, it is the logits. Anything else
    that is no tensor is given as it is: a loss may unpack it. `run`: what to call in the model's place.
    """
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    output = (run or model)(x.to(kind) if kind and x.is_floating_point() else x)
    if isinstance(output, Mapping):
        output = output.get("logits", output)
    elif not isinstance(output, Tensor):
        output = getattr(output, "logits", output)
    if kind and isinstance(output, Tensor) and output.is_floating_point():
        output = output.to(torch.promote_types(output.dtype, kind))
    return output


def one_tensor(output) -> Tensor:
    """The model's answer, where only a tensor will do."""
    if isinstance(output, Tensor):
        return output
    keys = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    raise TypeError(
        f"the model returns a {type(output).__name__}{keys}, and its logits are not told apart: wrap it in an "
        "nn.Module whose forward returns them alone."
    )


def moved(output, where: torch.device):
    """An answer with the tensors in it on a device; what is neither tensor, tuple nor dict stays as it is."""
    if isinstance(output, Tensor):
        return output.to(where)
    if isinstance(output, Mapping):
        return {key: moved(x, where) for key, x in output.items()}
    return tuple(moved(x, where) for x in output) if isinstance(output, tuple | list) else output


def joined(parts: list):
    """The answers to several batches as one: tensors one after the other, in tuples and dicts entry by entry."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts) if first.dim() else torch.stack(parts)
    if isinstance(first, Mapping):
        return {key: joined([part[key] for part in parts]) for key in first}
    return tuple(map(joined, map(list, zip(*parts, strict=True)))) if isinstance(first, tuple) else parts


def _devices(model: nn.Module) -> list[torch.device]:
    return [x.device for x in [*model.parameters(), *model.buffers()]]


def _away(model: nn.Module) -> bool:
    return any(d.type != "cpu" for d in _devices(model))
