"""The teacher matters, gradients reach one side only, shapes are not broadcast."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ._calls import Subject
from ._faults import ONLY_N, WRONG
from ._identify import FIXED, TEMPERATURES, Fit, Identity, batches, identify, measured, power
from ._report import Finding

S, T_, Y = [[0.0, 1.0, 3.0], [1.0, 0.0, 0.0]], [[2.0, 0.0, 1.0], [0.0, 4.0, 1.0]], [2, 0]
SMALL = f"s = {S}, t = {T_}, y = {Y}".replace(".0", "")


@dataclass(frozen=True)
class Known:
    """What is measured once, and used by every check."""

    loss: Subject
    declared: str
    uses_y: bool
    uses_T: bool
    identity: Identity
    matters: bool  # the teacher, to the student's gradient
    silent: bool  # no gradient reaches the student, or one of rounding
    finite: bool  # its values on ordinary logits
    k: float | None  # of T^k, where the fit holds at every T
    fits: tuple[Fit, ...]

    @property
    def fit(self) -> Fit | None:
        return self.identity.fit

    @property
    def relation(self) -> bool:
        fit = self.fit
        return self.declared == "relation" or bool(
            fit and fit.candidate and fit.candidate.relation and not fit.faults
        )


def know(loss: Subject, declared: str) -> Known:
    (z, v, y), *_ = batches()
    other = (y + 1) % z.shape[-1]
    uses_y = "y" in loss.takes and moves(measured(loss, z, v, y), measured(loss, z, v, other))
    uses_T = "T" in loss.takes and moves(measured(loss, z, v, y, 2.0), measured(loss, z, v, y, 5.0))
    identity = identify(loss, uses_y, TEMPERATURES[:1] if uses_T else FIXED)
    k, fits = (
        power(loss, identity.fit)
        if identity.fit and uses_T
        else (0.0, [identity.fit] if identity.fit else [])
    )
    w = batches()[1][1]
    matters = moves(measured(loss, z, v, y)[1:], measured(loss, z, w, y)[1:])
    found = [measured(loss, *batch) for batch in batches()]
    silent = all(float(g.norm()) <= 1e-9 * (1 + float(a.abs())) for a, g in found)  # NaN is no silence
    finite = all(bool(a.isfinite()) for a, _ in found)
    return Known(
        loss, declared, uses_y, uses_T, identity, matters and not silent, silent, finite, k, tuple(fits)
    )


def moves(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], least: float = 1e-6) -> bool:
    return any(change(a, b) > least for a, b in zip(one, other, strict=True))


def change(a: Tensor, b: Tensor) -> float:
    """‖a − b‖ over the larger norm; NaN on one side is a change."""
    size = max(float(a.norm()), float(b.norm()))
    gap = float((a - b).norm())
    return 0.0 if gap == 0 or size == 0 else (gap / size if gap == gap else 1.0)


def small(loss: Subject, t=T_, T: float = 2.0) -> tuple[Tensor, Tensor]:
    s, t = (torch.tensor(x, dtype=torch.double) for x in (S, t))
    return measured(loss, s, t, torch.tensor(Y), T)


def numbers(x: Tensor) -> str:
    def show(x):
        return f"[{', '.join(map(show, x))}]" if isinstance(x, list) else f"{x:.4g}"

    return show(x.tolist())


def student_gradient(known: Known) -> Finding:
    slopes = [measured(known.loss, z, v, y)[1] for z, v, y in batches()]
    name = "student-gradient"
    if not all(g.isfinite().all() for g in slopes):
        return Finding(name, False, "the gradient is not finite on ordinary logits", SMALL)
    if known.silent:
        return Finding(
            name,
            False,
            "no gradient reaches the student",
            f"{SMALL}, T = 2: the gradient in s is 0 or missing",
        )
    return Finding(name, True, "a gradient reaches the student")


def teacher_matters(known: Known) -> Finding:
    name, most, value = "teacher-matters", 0.0, 0.0
    for (z, v, y), (_, w, _) in zip(batches()[:3], batches()[3:], strict=True):
        one, other = measured(known.loss, z, v, y), measured(known.loss, z, w, y)
        value, most = max(value, change(one[0], other[0])), max(most, change(one[1], other[1]))
    if known.silent:
        return Finding(name, None, "no gradient reaches the student at all")
    if most > 1e-6:
        return Finding(name, True, f"another teacher moves the student's gradient by {min(most, 1):.0%}")
    slope = small(known.loss)[1]
    say = "only the value moves" if value > 1e-6 else "neither value nor gradient moves"
    return Finding(
        name, False, f"with another teacher the student's gradient stays what it was: {say}",
        f"{SMALL}, T = 2: the gradient is {numbers(slope)}, and the same with t = 0",
    )  # fmt: skip


def teacher_gradient(known: Known) -> Finding:
    z, v, y = batches()[0]
    z, v = z.requires_grad_(), v.requires_grad_()
    value = known.loss(z.clone(), v, y)
    slope = torch.autograd.grad(value, v, allow_unused=True)[0] if value.requires_grad else None
    if slope is None or not slope.any():
        return Finding("teacher-gradient", True, "none reaches the teacher")
    return Finding(
        "teacher-gradient", False, f"a gradient reaches the teacher, {float(slope.norm()):.3g} in norm",
        f"{SMALL}, T = 2, t.requires_grad_(): after backward t.grad is not None. Detach the teacher's logits.",
    )  # fmt: skip


def shift_invariant(known: Known) -> bool:
    """A constant added to all logits of a row changes no probability, and should change no softmax's loss."""
    for z, v, y in batches():
        if known.relation or moves(
            measured(known.loss, z, v, y), measured(known.loss, z + 1, v - 2, y), 1e-5
        ):
            return False
    return True


def shapes(known: Known) -> Finding:
    if not known.matters:
        return Finding("shapes", None, "no teacher has a part in it")
    wrong = ONLY_N if known.relation else WRONG
    pairs = [((8, 10), shape) for case in wrong.values() for shape in case] + [((1, 10), (8, 10))]
    pairs += [] if known.relation else [((8, 1), (8, 10))]
    taken = []
    for one, other in pairs:
        generator = torch.Generator().manual_seed(0)
        s, t = (torch.randn(shape, generator=generator) for shape in (one, other))
        try:
            taken.append((one, other, float(known.loss(s, t, torch.arange(8) % 10))))
        except Exception:  # whatever it raises, it refuses
            continue
    if not taken:
        return Finding("shapes", True, f"{len(pairs)} pairs of shapes that do not fit are refused")
    one, other, value = taken[0]
    listed = "; ".join(f"{a} against {b}" for a, b, _ in taken)
    return Finding(
        "shapes",
        False,
        f"taken without a word: {listed}",
        f"s of shape {one}, t of shape {other}: returns {value:.4g}",
    )
