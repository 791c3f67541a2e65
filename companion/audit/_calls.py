"""How a loss is called: as loss(s, t, y, T), by its parameters' names, or as it is told."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

DEFAULT = "loss(s, t, y, T)"
NAMES = {
    "s": "the student's logits",
    "t": "the teacher's logits",
    "y": "labels",
    "T": "the temperature",
    "mask": "boolean, True where a position counts",
    "n": "how many positions count in the whole batch, where the loss divides by it",
}
KNOWN = {
    "s": {"s", "z", "student"},
    "t": {"t", "v", "teacher"},
    "y": {"y", "label", "labels", "y_true"},
    "T": {"T", "temperature", "tau", "temp"},
    "mask": {"mask", "loss_mask"},
    "n": {"denominator", "num_items_in_batch"},
}


@dataclass(frozen=True)
class Subject:
    """The loss under audit: call(s, t, y, T, mask, n), and which of these names it takes."""

    loss: Callable[..., Any]
    call: str
    takes: frozenset[str]
    lifted: bool = False  # it takes (B, L, V) alone: rows are given to it as one text

    def __call__(
        self,
        s: Tensor,
        t: Tensor,
        y: Tensor,
        T: float = 2.0,
        mask: Tensor | None = None,
        n: int | None = None,
    ) -> Tensor:
        if "n" in self.takes and n is None:
            n = s[..., 0].numel() if mask is None else int(mask.sum())
        if "mask" in self.takes and mask is None:
            mask = torch.ones(s.shape[:-1], dtype=torch.bool, device=s.device)
        if self.lifted and s.dim() == 2:
            s, t, y = s[None], t[None], y[None]
            mask = None if mask is None else mask[None]
        values = {"loss": self.loss, "s": s, "t": t, "y": y, "T": T, "mask": mask, "n": n}
        out = eval(
            self.call, {"torch": torch, "F": F} | values
        )  # the reader's own line, with the reader's rights
        if not isinstance(out, Tensor):
            out = torch.as_tensor(out)
        if out.numel() != 1:
            raise TypeError(
                f"the loss returns {tuple(out.shape)}, not one number: reduce it, call={self.call + '.mean()'!r}."
            )
        return out.reshape(())


def subject(loss: Callable[..., Any], call: str | None = None) -> Subject:
    """The loss and how it is called, tried once on ordinary logits.

    Raises:
        ValueError: it cannot be called so; says what it said, and how to say otherwise.
    """
    inferred = by_name(loss) if call is None else call
    call = inferred or DEFAULT
    try:
        names = frozenset(compile(call, "call", "eval").co_names)
    except SyntaxError as error:
        raise ValueError(f"call={call!r} is not one expression, such as {DEFAULT!r}: {error.msg}.") from None
    if not {"loss", "s"} <= names:
        raise ValueError(f"call={call!r} names neither loss nor s; it may use {', '.join(NAMES)}.")
    z, v = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    said = []
    for lifted in (False, True):
        found = Subject(loss, call, names & set(NAMES), lifted)
        try:
            found(z.requires_grad_(), v, torch.arange(6) % 5)
            return found
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    raise ValueError(
        f"the loss cannot be called as {call} on logits (6, 5): {said[0].strip()[:300]}\n"
        'Say how it is called, e.g. call="loss(s, t, T=T)", or give an adapter, '
        "e.g. lambda s, t, y, T: my_loss(t, s)."
    )


def by_name(loss: Callable[..., Any]) -> str | None:
    """The call that the parameters' names tell; None where one that must be given has an unknown name."""
    try:
        parameters = list(inspect.signature(loss).parameters.values())
    except (TypeError, ValueError):
        return None
    given = []
    for i, p in enumerate(parameters):
        known = known_name(p.name)
        if known and p.kind is not p.VAR_KEYWORD:
            positional = len(given) == i and p.kind is not p.KEYWORD_ONLY
            given.append(known if positional else f"{p.name}={known}")
        elif p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            return None
    named = {part.split("=")[-1] for part in given}
    return f"loss({', '.join(given)})" if {"s", "t"} <= named and len(named) == len(given) else None


def known_name(name: str) -> str | None:
    """s, t, y, T, mask or n, where the name is one of those that are usual; logits_s and student_logits are s."""
    for short, known in KNOWN.items():
        if name in known:
            return short
    parts = set(name.lower().split("_"))
    return next((short for short in "st" if parts & KNOWN[short]), None)


def full_name(loss: Callable[..., Any]) -> tuple[str, str]:
    """module.function, and the distribution it comes with and its version; both empty where unknown."""
    target = inspect.unwrap(loss)
    if not hasattr(target, "__qualname__"):
        target = type(target)
    module = getattr(target, "__module__", "") or ""
    name = f"{module}.{target.__qualname__}".lstrip(".")
    for distribution in packages_distributions().get(module.split(".")[0], []):
        return name, f"{distribution} {version(distribution)}"
    return name, ""
