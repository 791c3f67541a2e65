"""Which divergence it is by value and by gradient, and whether that is what it says."""

import re

import torch

from ._calls import Subject
from ._candidates import HARD, RIGHT
from ._identify import batches, column, measured, observed, solve
from ._properties import SMALL, Known, numbers, shift_invariant, small
from ._report import Finding

NAME = "divergence"
ZERO = "; 0 at agreement"
# What may be declared, and how the names of what is found begin.
DECLARED = {
    "forward KL": ("forward KL",),
    "reverse KL": ("reverse KL",),
    "JSD": ("JSD",),
    "skew KL": ("skew KL",),
    "cross-entropy": ("cross-entropy of p and q",),
    "squared error": ("squared error",),
    "Bernoulli KL": ("Bernoulli KL",),
    "relation": (),
    "none": (),
}
BY_NAME = {
    "reverse KL": r"reverse_?kl|rkl(_|$)",
    "forward KL": r"forward_?kl|fkl(_|$)",
    "JSD": r"jsd|jensen",
    "squared error": r"mse(_|$|loss)",
}


def declared_by_name(name: str) -> str:
    """What a function's own name says it is; "" where it says nothing."""
    return next((kind for kind, pattern in BY_NAME.items() if re.search(pattern, name.lower())), "")


def divergence(known: Known, says: str) -> Finding:
    """`says` is what the loss is declared to be, or what its name says."""
    value, slope = small(known.loss)
    usual = observed(known.loss, batches(), 2.0)[0]
    if not usual.isfinite().all():
        value = usual[~usual.isfinite()][0]
        return Finding(
            NAME, False, f"its value is {float(value)} on ordinary logits", f"{SMALL}, T = 2: {float(value)}"
        )
    fit, example = known.fit, f"{SMALL}, T = 2: {numbers(value)}, gradient {numbers(slope)}"
    if known.silent:
        return Finding(NAME, None, "no gradient reaches the student")
    if fit is None:
        if known.matters:
            return unknown(known, example)
        return (on_average(known) if known.uses_y else None) or Finding(NAME, None, "no teacher in it")
    wrong = [why for prop, why in fit.faults if prop == NAME]
    if wrong:
        return Finding(NAME, False, wrong[0], example)
    if fit.candidate is None:
        return Finding(NAME, None if not fit.hard.startswith("teacher") else True, fit.name)
    if (
        known.declared in DECLARED
        and DECLARED[known.declared]
        and not fits_name(fit.name, known.declared, False)
    ):
        return Finding(
            NAME, False, f"declared {known.declared}, and it is {fit.name}, by value and gradient", example
        )
    if says and not fits_name(fit.name, says, True):
        return Finding(NAME, False, f"named {says}, and it is {fit.name}, by value and gradient", example)
    far = batches(scale=6.0)
    if not holds_far_apart(known, far):
        return Finding(
            NAME, False, f"{fit.name} for ordinary logits, and something else where probabilities are small",
            "s, t = 6 * torch.randn(2, 6, 5): value or gradient leaves the definition (a clamp, an ε within a log)",
        )  # fmt: skip
    fixed = f", T fixed at {fit.T:g}" if not known.uses_T and fit.T != 1 and fit.candidate.soft else ""
    where = at_agreement(known)
    if fit.candidate.fault and where and where != ZERO:  # the right formula of the wrong arguments
        why = f"{where}, so no divergence of the two sides (see {fit.candidate.fault})"
        return Finding(NAME, None, f"{fit.name}, by value and gradient{why}")
    return Finding(NAME, True, f"{fit.name}{fixed}, by value and gradient{where}")


def fits_name(found: str, kind: str, ends: bool) -> bool:
    """The generalised JSD may by convention be a KL at its ends (β = 0 and 1)."""
    allowed = DECLARED[kind] + (("forward KL", "reverse KL", "skew KL") if ends and kind == "JSD" else ())
    return found.startswith(allowed)


def at_agreement(known: Known) -> str:
    if known.uses_y:
        return ""
    z, _, y = batches()[0]
    value = float(measured(known.loss, z, z, y)[0])
    return ZERO if abs(value) < 1e-6 else f"; {value:.3g} at agreement"


def holds_far_apart(known: Known, data, tolerance: float = 1e-3) -> bool:
    fit = known.fit
    T = 2.0 if known.uses_T else fit.T
    parts = [*fit.candidate.parts] + ([] if not fit.hard else [HARD[fit.hard][0]])
    weights = torch.tensor([*fit.weights, *([fit.hard_weight] if fit.hard else [])], dtype=torch.double)
    columns = [column(part, data, T) for part in parts]
    for which, target in enumerate(observed(known.loss, data, 2.0)):
        made = sum(w * c[which] for w, c in zip(weights, columns, strict=True))
        if not float((made - target).norm()) < tolerance * float(target.norm()):
            return False
    return True


def unknown(known: Known, example: str) -> Finding:
    identity = known.identity
    if known.declared == "none":
        return Finding(NAME, consistent(known.loss), "declared none; none known", example)
    if known.uses_y:
        sampled = on_average(known)
        if sampled is not None:
            return sampled
    if identity.value is not None:
        what = identity.gradient.name if identity.gradient else "none of the known ones"
        if not any(g.any() for g in observed(known.loss, batches(), 2.0)[1]):
            return Finding(NAME, None, f"{identity.value.name} by value, and no gradient")
        if identity.gradient and identity.gradient.name == identity.value.name:
            what += ", with other weights"
        return Finding(NAME, False, f"its value is {identity.value.name}, its gradient {what}", example)
    if not consistent(known.loss):
        what = f"{identity.gradient.name}'s" if identity.gradient else "not the value's own"
        return Finding(NAME, False, f"the gradient is {what}, and the value is none known", example)
    if identity.gradient is not None:
        return Finding(NAME, True, f"{identity.gradient.name} by gradient; its value differs by a constant")
    if not known.uses_y:
        z, _, y = batches()[0]
        value, slope = measured(known.loss, z, z, y)
        usual = measured(known.loss, *batches()[0])[1].norm()
        if slope.norm() > 1e-3 * usual:  # where it is NaN, the suite's constant logits say so
            return Finding(
                NAME,
                False,
                "none known, and its minimum is not where the two agree: the gradient there is not 0",
                example,
            )
        if any(
            float(measured(known.loss, v + 0.1 * (z - v), v, y)[0]) < value - 1e-6 * (1 + value.abs())
            for value, z, v, y in at_equal(known)
        ):
            return Finding(
                NAME,
                False,
                "none known, and where the two agree it is not smallest: it drives them apart",
                example,
            )
        softened = known.declared != "relation" and known.uses_T and not shift_invariant(known)
        if softened and not scale_free(known):
            return Finding(
                NAME, False, "none known: it is softened by T, and yet a constant added to a row's logits changes it, "
                "which changes no probability", example,
            )  # fmt: skip
        return Finding(NAME, True, f"none known; {float(value):.3g} at agreement, and its minimum there")
    return Finding(NAME, True, "none known")


def at_equal(known: Known) -> list[tuple]:
    """(the value at z = v, z, v, y) of three batches."""
    return [(measured(known.loss, v, v, y)[0], z, v, y) for z, v, y in batches(3)]


def scale_free(known: Known) -> bool:
    z, v, y = batches()[0]
    one, other = (measured(known.loss, a * z, a * v, y)[0] for a in (1, 2))
    return bool(torch.isclose(one, other))


def consistent(loss: Subject, step: float = 1e-3) -> bool:
    """The gradient is the derivative of the value, by central differences in one direction."""
    for z, v, y in batches(3):
        direction = torch.randn(z.shape, generator=torch.Generator().manual_seed(9), dtype=torch.double)
        slope = float((measured(loss, z, v, y)[1] * direction).sum())
        ahead, behind = (float(measured(loss, z + h * direction, v, y)[0]) for h in (step, -step))
        found = (ahead - behind) / (2 * step)
        rounding = 5e-7 * abs(ahead) / step  # of a loss that computes in float32
        if abs(found - slope) > 0.02 * max(abs(found), abs(slope)) + rounding:
            return False
    return True


def on_average(known: Known) -> Finding | None:
    """y taken as a token drawn from the student: the mean over q, of the value and of the gradient."""
    data = [(z[:1], v[:1], y[:1]) for z, v, y in batches(8)]
    values, slopes = [], []
    for z, v, _ in data:
        q = (z / 2.0).softmax(-1)[0] if known.uses_T else z.softmax(-1)[0]
        try:
            found = [measured(known.loss, z, v, torch.tensor([c])) for c in range(z.shape[-1])]
        except Exception:
            return None
        values.append(sum(w * a for w, (a, _) in zip(q, found, strict=True)))
        slopes.append(sum(w * g for w, (_, g) in zip(q, found, strict=True)).flatten())
    T, means = 2.0 if known.uses_T else 1.0, (torch.stack(values), torch.stack(slopes))
    names: list[str | None] = [None, None]
    for which, target in enumerate(means):
        if which and float(target.norm()) < 1e-6 * len(data):
            names[1] = "0"
        for candidate in RIGHT[:2]:
            columns = [column(part, data, T)[which] for part in candidate.parts]
            if names[which] is None and solve(columns, target)[1] < 1e-4:
                names[which] = candidate.name
    if names[0] is None:
        if names[1] in (None, "0"):
            return None
        text = f"over tokens y drawn from the student its gradient is the {names[1]}'s on average"
        return Finding(NAME, True, text)
    right = names[0] == names[1]
    text = f"over tokens y drawn from the student its value is the {names[0]} on average"
    text += ", and so is its gradient" if right else f", its gradient {names[1] or 'none known'}"
    return Finding(
        NAME, right, text, "" if right else "the mean over y ~ softmax(s/T) of the value, and of the gradient"
    )
