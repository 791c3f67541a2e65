"""How an exercise is checked: the reader's function beside the right one and beside the foreseen mistakes."""

import torch
from torch import Tensor


def random_cases(pick) -> list[tuple]:
    """Random inputs in float64, one with a single class of large logit; `pick` chooses the arguments."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for n, classes, T in [(5, 3, 2.0), (8, 10, 4.0), (7, 4, 0.5)]:
        z, v = torch.randn(2, n, classes, generator=generator, dtype=torch.double) * 3
        made.append(pick(z, v, torch.randint(0, classes, (n,), generator=generator), T))
    return made


def compare(name, attempt, right, cases, mistakes, teacher: int | None = None, rtol: float = 1e-4) -> None:
    """Compare attempt and right on all cases; name the mistake that explains a difference, if one does."""
    results = []
    for case in cases:
        case = [
            x.clone().requires_grad_() if x.__class__ is Tensor and x.is_floating_point() else x for x in case
        ]
        result = result_of(name, attempt, *case)
        if result is None:
            return
        results.append(result)
        if teacher is not None and result.requires_grad:
            leak = torch.autograd.grad(result.sum(), case[teacher], allow_unused=True, retain_graph=True)[0]
            if leak is not None and leak.abs().max() > 1e-12:
                return say(name, "a gradient reaches the teacher: detach its logits.")
    if agree(right, cases, results, rtol):
        return say(name, None)
    for hint, wrong in mistakes.items():
        if agree(wrong, cases, results, rtol):
            return say(name, hint)
    expected, got = right(*cases[0]), results[0].detach()
    return say(name, f"the result differs. For the first case it should be\n{expected}\nand it is\n{got}")


def result_of(name, attempt, *case) -> Tensor | None:
    """What the reader's function returns, as a tensor; None, with a word, where there is nothing to compare."""
    try:
        result = attempt(*case)
    except NotImplementedError:
        result = None
    if result is None or result is Ellipsis:
        print(f"○ {name}: not attempted")
        return None
    if isinstance(result, tuple | list):
        return torch.stack([torch.as_tensor(part) for part in result])
    return torch.as_tensor(result)


def agree(function, cases, results, rtol) -> bool:
    expected = [function(*case) for case in cases]
    return all(
        e.shape == r.shape
        and torch.allclose(r.detach().double(), e.double(), rtol=rtol, atol=1e-6, equal_nan=True)
        for e, r in zip(expected, results, strict=True)
    )


def say(name: str, hint: str | None) -> None:
    print(f"✓ {name}" if hint is None else f"✗ {name}: {hint}")
