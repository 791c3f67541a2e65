"""What a check prints: ✓, ✗ with a hint, and inputs short enough to retrace."""

import inspect

from torch import Tensor

CHANGED = "it changes its input, which the caller still needs: work on a copy, or with operations that make a new tensor."


def say(name: str, hint: str | None) -> None:
    print(f"✓ {name}" if hint is None else f"✗ {name}: {hint}")


def text(value) -> str:
    """A number, or a tensor as nested lists with four digits; a large tensor by its shape."""
    if isinstance(value, Tensor):
        return (
            str(_rounded(value.tolist()))
            if value.numel() <= 40
            else f"a tensor of shape {tuple(value.shape)}"
        )
    return str(_rounded(value)) if isinstance(value, float) else repr(value)


def _rounded(value):
    if isinstance(value, list):
        return [_rounded(x) for x in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def shown(function, case) -> str:
    """The arguments of a call, a line each, under the names that the function gives them."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    if len(names) != len(case):
        names = [f"argument {i + 1}" for i in range(len(case))]
    return "\n".join(f"  {name} = {text(x)}" for name, x in zip(names, case, strict=True))
