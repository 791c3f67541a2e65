"""Both sides are softened by T, and what T multiplies."""

import math

import torch

from ._identify import Fit, batches, measured
from ._properties import SMALL, Known, numbers, shift_invariant, small
from ._report import Finding


def temperature(known: Known, declared: int | None = None) -> Finding:
    """`declared` is the k of T^k that is meant."""
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
        return unknown_temperature(known, example, declared)
    return known_temperature(known, fit, soft, example, declared)


def known_temperature(known: Known, fit: Fit, soft: bool, example: str, declared: int | None) -> Finding:
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
    if soft or fit.candidate.softens or fit.candidate.name.startswith("standardized"):  # which is so before T
        wrong = wrong_power(known.k, declared)
        if wrong:
            return Finding(name, False, wrong, example)
    if fit.candidate.softens:
        return Finding(name, True, f"{fit.candidate.softens}; factor {factor(known.k)}")
    return Finding(
        name,
        True,
        f"both sides are softened by T, factor {factor(known.k)}"
        if soft
        else f"T scales the loss, T^{known.k:g}",
    )


def wrong_power(k: float, declared: int | None) -> str:
    """What is wrong with T^k before the soft term, or ""; none and T² are conventions."""
    if declared is not None:
        return "" if k == declared else f"declared factor {factor(declared)}, and it is {factor(k)}"
    if k in (0, 2):
        return ""
    fades = "its gradient fades" if k < 2 else "its gradient grows"
    return (
        f"the soft term is multiplied by {factor(k)}, where T² keeps its gradient's size: {fades} as T grows"
    )


def factor(k: float | None) -> str:
    return {2.0: "T²", 0.0: "none", 1.0: "T", None: "none of T^k"}.get(k, f"T^{k:g}" if k is not None else "")


def unknown_temperature(known: Known, example: str, declared: int | None) -> Finding:
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
            power = round(math.log2(abs(float(one @ other) / float(one @ one))), 2)
            k = power + 1 if T == 4 else None  # T^k f(z/T) has the gradient T^(k-1) f'(z/T)
            if declared is not None and k is not None and wrong_power(k, declared):
                return Finding(name, False, wrong_power(k, declared), example)
            return Finding(name, True, "both sides are divided by T alike")
    if known.declared in ("relation", "none"):
        return Finding(name, None, "not determined: T is not all that its scale depends on")
    return Finding(name, False, "the two sides are not divided by T alike", example)
