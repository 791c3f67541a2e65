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
    "s": {"s", "z", "student", "logits", "output", "outputs", "pred", "preds", "input"},
    "t": {"t", "v", "teacher", "soft_target", "soft_targets"},
    "y": {"y", "label", "labels", "y_true"},
    "T": {"T", "temperature", "tau", "temp"},
    "mask": {"mask", "loss_mask"},
    "n": {"denominator", "num_items_in_batch"},
    "0.5": {"alpha"},  # where it must be given
}
PARTS = {"s": {"s", "z", "student"}, "t": {"t", "v", "teacher"}}  # of a longer name


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
        values = self.values(s, t, y, T, mask, n)
        return one_number(self.evaluate(values), self.call)

    def values(self, s, t, y, T=2.0, mask=None, n=None) -> dict[str, Any]:
        """What the names stand for; copies, as some losses change what they are given."""
        if "n" in self.takes and n is None:
            n = s[..., 0].numel() if mask is None else int(mask.sum())
        if "mask" in self.takes and mask is None:
            mask = torch.ones(s.shape[:-1], dtype=torch.bool, device=s.device)
        if self.lifted and s.dim() == 2:
            s, t, y = s[None], t[None], y[None]
            mask = None if mask is None else mask[None]
        mask = None if mask is None else mask.clone()
        return {"s": s.clone(), "t": t.clone(), "y": y.clone(), "T": T, "mask": mask, "n": n}

    def evaluate(self, values: dict[str, Any]) -> Any:
        # the reader's own line, with the reader's rights
        return eval(self.call, {"torch": torch, "F": F, "loss": self.loss} | values)

    def changes(self, s: Tensor, t: Tensor, y: Tensor) -> list[str]:
        """Which of its inputs are not what they were, once it has been called."""
        given, before = self.values(s, t, y), self.values(s, t, y)
        self.evaluate(given)
        return [
            name
            for name in ("s", "t", "y", "mask")
            if given[name] is not None and not torch.equal(given[name], before[name])
        ]


def one_number(out: Any, call: str) -> Tensor:
    """What the loss returns, as a scalar.

    Raises:
        TypeError: it returns nothing, several things or a tensor of several numbers; says how to choose one.
    """
    if out is None:
        raise TypeError("the loss returns None, not one number: it needs a return.")
    if isinstance(out, (tuple, list, dict)):
        key = next(iter(out), "loss") if isinstance(out, dict) else 0
        raise TypeError(
            f"the loss returns a {type(out).__name__} of {len(out)}, not one number: choose, "
            f"call={call + f'[{key!r}]'!r}."
        )
    out = out if isinstance(out, Tensor) else torch.as_tensor(out)
    if out.numel() != 1:
        raise TypeError(
            f"the loss returns {tuple(out.shape)}, not one number: reduce it, call={call + '.mean()'!r}."
        )
    return out.reshape(())


def made(loss: Any) -> Callable[..., Any]:
    """The loss to call: a class is made without arguments, and what has a forward alone is called by it.

    Raises:
        ValueError: it can be neither made nor called.
    """
    if isinstance(loss, type):
        try:
            loss = loss()
        except Exception as error:
            raise ValueError(
                f"{loss.__name__} cannot be made without arguments: {error}. Give an instance."
            ) from None
    loss = loss if callable(loss) else getattr(loss, "forward", loss)
    if not callable(loss):
        raise ValueError(f"the loss is {type(loss).__name__}, and cannot be called.")
    return loss


def subject(loss: Callable[..., Any], call: str | None = None) -> Subject:
    """The loss and how it is called, tried once on ordinary logits.

    Raises:
        ValueError: it cannot be called so; says what it said, and how to say otherwise.
    """
    inferred = by_name(loss) if call is None else call
    assumed = "" if inferred else assumption(loss)
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
        f"{assumed}"
        'Say how it is called, e.g. call="loss(s, t, T=T)", or give an adapter, '
        "e.g. lambda s, t, y, T: my_loss(t, s)."
    )


def by_name(loss: Callable[..., Any]) -> str | None:
    """The call that the parameters' names tell; None where one that must be given has an unknown name."""
    listed = parameters(loss)
    if listed is None:
        return None
    usual, given = [known_name(p.name) for p in listed], []
    for i, (p, known) in enumerate(zip(listed, usual, strict=True)):
        if p.name in ("target", "targets"):  # the teacher's, where nothing else is
            known = "y" if "t" in usual else "t"
        if known == "0.5" and p.default is not p.empty:
            continue
        if known and p.kind is not p.VAR_KEYWORD:
            positional = len(given) == i and p.kind is not p.KEYWORD_ONLY
            given.append(known if positional else f"{p.name}={known}")
        elif p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            return None
    named = {part.split("=")[-1] for part in given}
    return f"loss({', '.join(given)})" if {"s", "t"} <= named and len(named) == len(given) else None


def parameters(loss: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Its parameters, or forward's where a call passes everything on; None where they cannot be read."""
    try:
        listed = list(inspect.signature(loss).parameters.values())
        if all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in listed) and hasattr(loss, "forward"):
            listed = list(inspect.signature(loss.forward).parameters.values())
    except (TypeError, ValueError):
        return None
    return listed


def assumption(loss: Callable[..., Any]) -> str:
    """Why the usual order was taken, as a line of an error."""
    names = ", ".join(p.name for p in parameters(loss) or [])
    whose = (
        f"its parameters ({names}) do not all have names that are known"
        if names
        else "it names no parameters"
    )
    return (
        f"Assumed were the student's logits, the teacher's, labels and temperature, in this order: {whose}.\n"
    )


def known_name(name: str) -> str | None:
    """s, t, y, T, mask, n or 0.5 (for α), where the name is a usual one; logits_s and student_logits are s."""
    for short, known in KNOWN.items():
        if name in known:
            return short
    parts = set(name.lower().split("_"))
    return next((short for short in PARTS if parts & PARTS[short]), None)


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
