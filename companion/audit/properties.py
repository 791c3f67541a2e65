"""The teacher matters, gradients reach one side only, both sides are softened, shapes are not broadcast."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .calls import Subject
from .faults import ONLY_N, WRONG
from .identify import FIXED, TEMPERATURES, Fit, Identity, batches, identify, measured, power
from .report import Finding

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


def temperature(known: Known) -> Finding:
    name, fit = "temperature", known.fit
    if "T" not in known.loss.takes:
        return Finding(name, None, "it takes no T")
    if known.silent or not known.finite:
        return Finding(
            name, None, "no gradient reaches the student" if known.silent else "its value is not finite"
        )
    wrong = [why for prop, why in (fit.faults if fit else []) if prop == name]
    example = f"{SMALL}: {numbers(small(known.loss, T=2.0)[0])} at T = 2, {numbers(small(known.loss, T=4.0)[0])} at T = 4"
    if wrong:
        return Finding(name, False, wrong[0], example)
    soft = fit.candidate is not None and fit.candidate.soft if fit else shift_invariant(known)
    if not known.uses_T:
        if not soft:
            return Finding(
                name, None, "it has no softmax, and T changes nothing" if known.fit else "T changes nothing"
            )
        return Finding(
            name, False,
            'T is taken and changes nothing: neither side is softened by it (if it has none, call="loss(s, t, y)")',
            example,
        )  # fmt: skip
    if fit is None:
        return unknown_temperature(known, example)
    return known_temperature(known, fit, soft, example)


def known_temperature(known: Known, fit: Fit, soft: bool, example: str) -> Finding:
    name = "temperature"
    weights = [f.hard_weight for f in known.fits]
    if (
        fit.hard
        and fit.candidate
        and len(weights) > 1
        and max(weights) - min(weights) > 1e-3 * max(map(abs, weights))
    ):
        ratio = weights[1] / weights[0]
        return Finding(
            name,
            False,
            f"the hard term's weight changes with T, by {ratio:.3g} from T = 2 to 3: T² is for the soft term",
            example,
        )
    if fit.candidate is None:
        return Finding(name, None, "it has no soft term")
    if known.k is None:
        return Finding(
            name, False, "softened by T, but the factor before the soft term is no power of T", example
        )
    if known.k not in (0, 1, 2) and soft:
        return Finding(
            name,
            False,
            f"the soft term is multiplied by T^{known.k:g}: its gradient fades as T grows",
            example,
        )
    return Finding(
        name,
        True,
        f"both sides are softened by T, factor {factor(known.k)}"
        if soft
        else f"T scales the loss, T^{known.k:g}",
    )


def factor(k: float | None) -> str:
    return {2.0: "T²", 0.0: "none", 1.0: "T", None: "none of T^k"}.get(k, f"T^{k:g}" if k is not None else "")


def unknown_temperature(known: Known, example: str) -> Finding:
    """A function of z/T and v/T keeps its direction where logits and T double, or where the logits alone do.

    What another teacher changes in the gradient is looked at, as no hard term has a part in it.
    """
    name = "temperature"
    if not known.matters:
        return Finding(name, None, "no teacher has a part in it")

    def gap(scale, T, z, v, w, y):
        return torch.sub(*(measured(known.loss, scale * z, scale * x, y, T)[1] for x in (v, w)))

    for scale, T in ((2.0, 4.0), (2.0, 2.0)):
        ones, others = [], []
        for (z, v, y), (_, w, _) in zip(batches()[:3], batches()[3:], strict=True):
            ones.append(gap(1.0, 2.0, z, v, w, y).flatten())
            others.append(gap(scale, T, z, v, w, y).flatten())
        one, other = torch.cat(ones), torch.cat(others)
        if (other - one * (one @ other) / (one @ one)).norm() < 1e-4 * other.norm():
            return Finding(name, True, "both sides are divided by T alike")
    return Finding(name, False, "the two sides are not divided by T alike", example)


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
