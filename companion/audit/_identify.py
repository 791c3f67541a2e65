"""Which divergence a loss is: its values and its gradients, each fitted by every candidate on six batches."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from ._calls import Subject
from ._candidates import BOTH, HARD, RIGHT, TEACHER, WRONG, Candidate, Definition, jsd, skew, skew_reverse

TOLERANCE = 1e-4  # of the norm; the candidates differ by per cents, and some peers compute in float32
TEMPERATURES = (2.0, 3.0, 5.0)
FIXED = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 0.5)  # where a loss has a temperature of its own
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Fit:
    """weights · parts + hard_weight · hard term, sums over the rows of the batches it was fitted on."""

    candidate: Candidate | None
    hard: str  # "" or one of HARD
    T: float
    weights: tuple[float, ...] = ()
    hard_weight: float = 0.0

    @property
    def name(self) -> str:
        if self.candidate is None:
            return {"teacher's labels": "cross-entropy with the teacher's labels"}.get(
                self.hard, "cross-entropy with the labels, no teacher"
            )
        if not self.hard:
            return self.candidate.name
        whose = "the teacher's labels" if self.hard == "teacher's labels" else "the labels"
        return f"{self.candidate.name} and cross-entropy with {whose}"

    @property
    def faults(self) -> list[tuple[str, str]]:
        """(property, what is wrong) of the form itself."""
        found = [HARD[self.hard][1:]] if self.hard else []
        if self.candidate is not None:
            found.append((self.candidate.fault, self.candidate.why))
            if not self.hard and self.weights and max(self.weights) < 0:
                found.append(
                    ("divergence", "its sign is turned round: descending it drives the student away")
                )
        return [f for f in found if f[0]]


@dataclass(frozen=True)
class Identity:
    """The first candidate that is both value and gradient, or the first of each alone."""

    fit: Fit | None = None
    value: Fit | None = None
    gradient: Fit | None = None


def batches(n: int = 6, rows: int = 6, classes: int = 5, scale: float = 1.5) -> list[Batch]:
    made = []
    for seed in range(n):
        generator = torch.Generator().manual_seed(seed)
        z, v = scale * torch.randn(2, rows, classes, generator=generator, dtype=torch.double)
        made.append((z, v, torch.randint(0, classes, (rows,), generator=generator)))
    return made


def measured(loss: Callable[..., Tensor], z: Tensor, v: Tensor, *more) -> tuple[Tensor, Tensor]:
    """Value and gradient in the student's side; a gradient of 0 where none reaches it."""
    leaf = z.detach().clone().requires_grad_()
    value = loss(leaf.clone(), v.detach().clone(), *more)  # clones: some losses change what they are given
    (slope,) = torch.autograd.grad(value, leaf, allow_unused=True) if value.requires_grad else (None,)
    return value.detach(), torch.zeros_like(z) if slope is None else slope


def observed(loss: Subject, data: list[Batch], T: float) -> tuple[Tensor, Tensor]:
    """The loss's values (n,) and gradients (n, rows · classes) on the batches, in float64."""
    found = [measured(loss, z, v, y, T) for z, v, y in data]
    return torch.stack([a.double() for a, _ in found]), torch.stack([g.double().flatten() for _, g in found])


def column(part: Definition, data: list[Batch], T: float) -> tuple[Tensor, Tensor]:
    def total(z, v, y):
        return part(z, v, T, y).sum()

    found = [measured(total, z, v, y) for z, v, y in data]
    return torch.stack([a for a, _ in found]), torch.stack([g.flatten() for _, g in found])


@lru_cache(maxsize=2048)
def cached_column(part: Definition, shape: tuple, T: float) -> tuple[Tensor, Tensor]:
    return column(part, batches(*shape), T)


def candidates(searched: bool = True) -> Iterator[Candidate | None]:
    yield None
    yield from RIGHT
    yield from WRONG


def solve(columns: list[Tensor], target: Tensor) -> tuple[Tensor, float]:
    """The weights of the columns, and what they leave of the target."""
    if not target.isfinite().all():
        return torch.full((len(columns),), math.nan), math.nan
    A = torch.stack([c.flatten() for c in columns], -1)
    x = torch.linalg.lstsq(A, target.flatten()).solution
    left = (A @ x - target.flatten()).norm() / target.norm().clamp_min(1e-30)
    return x, float(left)


def fitted(candidate, hard, target, which, shape, T) -> Fit | None:
    """The fit of values (which = 0) or gradients (1), if it leaves nothing and the candidate has a share."""
    parts = [] if candidate is None else list(candidate.parts)
    terms = parts + ([HARD[hard][0]] if hard else [])
    if not terms:
        return None
    columns = [cached_column(part, shape, T)[which] for part in terms]
    if not all(c.isfinite().all() for c in columns):
        return None
    x, left = solve(columns, target)
    shares = [
        float(w.abs() * c.norm() / target.norm().clamp_min(1e-30)) for w, c in zip(x, columns, strict=True)
    ]
    needed = ([max(shares[: len(parts)])] if parts else []) + (shares[len(parts) :])
    if not left < TOLERANCE or min(needed) < 10 * TOLERANCE:
        return None
    weights = x.tolist()
    return Fit(candidate, hard, T, tuple(weights[: len(parts)]), weights[-1] if hard else 0.0)


def same(a: Fit, b: Fit) -> bool:
    one, other = (torch.tensor([*f.weights, f.hard_weight], dtype=torch.double) for f in (a, b))
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


def identify(
    loss: Subject, uses_y: bool, temperatures: tuple[float, ...], shape: tuple = (6, 6, 5)
) -> Identity:
    """Try every candidate, with and without a hard term, at each of the temperatures that it might have."""
    values, slopes = observed(loss, batches(*shape), 2.0)
    hards = ["", "at T = 1", "softened", "softmax twice"] if uses_y else ["", "teacher's labels"]
    value = gradient = None
    if not slopes.any():  # nothing to follow: what its value is can be told, and not at every temperature
        temperatures = temperatures[:1]
    for T in temperatures:
        for candidate in candidates():
            for hard in hards:
                one = fitted(candidate, hard, values, 0, shape, T)
                other = fitted(candidate, hard, slopes, 1, shape, T)
                if one and other and same(one, other):
                    return Identity(one, one, other)
                value, gradient = value or one, gradient or other
        found = searched(values, slopes, hards, shape, T) if temperatures[0] == T else None
        if found:
            return Identity(found, found, found)
    return Identity(None, value, gradient)


def searched(values, slopes, hards, shape, T) -> Fit | None:
    """JSD and skewed KL of any β: the best of a grid, and then between its neighbours."""
    data = batches(*shape)
    if not slopes.any():
        return None
    for family, name in (
        (jsd, "JSD"),
        (partial(partial, skew), "skew KL(p‖m)"),
        (partial(partial, skew_reverse), "skew KL(q‖m)"),
    ):
        for hard in hards:
            more = [cached_column(HARD[hard][0], shape, T)] if hard else []

            def left(beta, more=more, family=family):
                columns = [column(family(beta), data, T), *more]
                return solve([c[1] for c in columns], slopes)[1]

            low, high = 0.0, 1.0
            for _ in range(9):
                grid = (
                    torch.linspace(low, high, 9)[1:-1].tolist()
                    if low == 0 and high == 1
                    else torch.linspace(low, high, 5).tolist()
                )
                best = min(grid, key=left)
                if (low, high) == (0.0, 1.0) and left(best) > 0.2:
                    break
                step = grid[1] - grid[0]
                low, high = max(best - step, 1e-4), min(best + step, 1 - 1e-4)
            else:
                beta = min(max(round(best, 3), 0.001), 0.999)
                candidate = Candidate(
                    f"{name}, β = {beta:g}",
                    (family(beta),),
                    ruled_out=TEACHER if name != "skew KL(q‖m)" else BOTH,
                )
                one = fitted(candidate, hard, values, 0, shape, T)
                other = fitted(candidate, hard, slopes, 1, shape, T)
                if one and other and same(one, other):
                    return one
    return None


def power(loss: Subject, fit: Fit, shape: tuple = (6, 6, 5)) -> tuple[float | None, list[Fit]]:
    """k of T^k before the soft term, from the fits at several temperatures; None if it is no power."""
    fits = []
    for T in TEMPERATURES:
        values, _ = observed(loss, batches(*shape), T)
        found = fitted(fit.candidate, fit.hard, values, 0, shape, T)
        if found is None:
            return None, fits
        fits.append(found)
    logs = [math.log(abs(max(f.weights, key=abs, default=1.0))) for f in fits]
    slopes = [
        (b - a) / (math.log(t) - math.log(s))
        for a, b, s, t in zip(logs, logs[1:], TEMPERATURES, TEMPERATURES[1:], strict=False)
    ]
    return (round(slopes[0], 2) if abs(slopes[0] - slopes[1]) < 0.01 else None), fits
