"""Does the teacher matter? Any distillation loss, put through the checks of the book.

    from companion.audit import audit, check

    print(audit(my_loss))                          # called as my_loss(logits_s, logits_t, y, T)
    print(audit(my_loss, "loss(s, t, T=T)"))       # or as told
    check(my_loss)                                 # in a test: raises AssertionError with the table

From a shell: python -m companion.audit package.module:function, with --help for more.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from . import _divergence, _masks, _properties, _reduction, _suite, _temperature
from ._calls import full_name, made, subject
from ._faults import CASES
from ._report import EXPLAINED, Finding, Report

__all__ = ["CASES", "Finding", "Report", "audit", "check"]


def audit(
    loss: Callable[..., Any],
    call: str | None = None,
    *,
    divergence: str | None = None,
    factor: int | None = None,
    ignore: Sequence[str] = (),
    name: str | None = None,
) -> Report:
    """Whether a distillation loss does what it says, found from the numbers that it returns.

    Args:
        loss: any callable that returns one number, from student logits and teacher logits (N, C), labels (N,)
            and a temperature, called as loss(logits_s, logits_t, y, T). Where its parameters' names say another
            order (logits_s, student, T, temperature, mask, …), they are followed; of an nn.Module, forward's. A class
            is made without arguments.
        call: how it is called instead, a Python expression of `loss`, s, t, y, T, mask and n (how many
            positions count in the whole batch), e.g. "loss(s, t, T=T)" or "loss(t, s, alpha=0.5)". What it does
            not name, the loss does not claim to have: it "does not apply".
        divergence: what the loss is meant to be: "forward KL", "reverse KL", "JSD", "skew KL", "cross-entropy",
            "squared error", "Bernoulli KL", "relation" (it relates the examples of a batch) or "none" (it is no
            divergence). If it is something else, that is a fault. Without it the function's own name may say so
            (reverse_kl_loss).
        factor: the k of T^k that the soft term is meant to be multiplied by: 0, 1 or 2. If it is another, that is a
            fault. Without it none and T² are conventions that are reported, and every other power is a fault.
        ignore: names of properties whose faults you accept, e.g. ("shapes", "faults"). They are printed, marked ○,
            and count neither in `ok` nor in `failed`. With "shapes" ignored, what the loss makes of (B, L, V) is no
            fault of its reduction either.
        name: what to print for it; else its module and name.

    Returns:
        A frozen `Report`: `ok`, `failed`, one finding for each property, and the twenty cases of the fault _suite.

    Raises:
        ValueError: the loss cannot be called so, or `divergence`, `factor` or a name in `ignore` is none of these;
            says the remedy.
    """
    if divergence is not None and divergence not in _divergence.DECLARED:
        raise ValueError(f"divergence is one of {', '.join(_divergence.DECLARED)}; got {divergence!r}.")
    if factor not in (None, 0, 1, 2):
        raise ValueError(f"factor is the k of T^k: 0, 1 or 2; got {factor!r}.")
    ignored = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    unknown = [each for each in ignored if each not in EXPLAINED]
    if unknown:
        raise ValueError(
            f"ignore names properties among {', '.join(EXPLAINED)}; got {', '.join(map(repr, unknown))}."
        )
    found, distribution = full_name(loss)
    loss = made(loss)
    name = name or found
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        taken = subject(loss, call)
        known = _properties.know(taken, divergence or "")
        of = _reduction.reductions(known)
        cases = _suite.cases(known, of)
        findings = (
            _properties.teacher_matters(known),
            _properties.student_gradient(known),
            _properties.teacher_gradient(known),
            _temperature.temperature(known, factor),
            _divergence.divergence(known, "" if divergence else _divergence.declared_by_name(found)),
            _reduction.reduction(known, of, "shapes" not in ignored),
            _masks.micro_batch(known, of),
            _masks.mask(known),
            _properties.shapes(known),
            _suite.faults(known, cases),
        )
    fit = known.fit
    soft = fit is not None and fit.candidate is not None
    rows = 6 if of.rows == "mean" else 1
    return Report(
        name,
        distribution,
        taken.call,
        findings,
        cases,
        divergence=fit.name if fit else "none known",
        factor=_temperature.factor(known.k) if known.uses_T and soft else "does not apply",
        hard=fit.hard_weight * rows if fit and fit.hard else None,
        soft=max(fit.weights, key=abs) * rows / (2.0**known.k)
        if soft and known.k is not None and known.uses_T
        else None,
        rows=of.rows,
        classes=of.classes,
        tokens=of.tokens,
        ignored=ignored,
    )


def check(loss: Callable[..., Any], call: str | None = None, **how: Any) -> Report:
    """`audit` for a test: the report, if nothing is at fault but what `ignore` names.

    Args:
        loss, call: as for `audit`. how: its divergence, factor, ignore and name.

    Raises:
        AssertionError: something is; its text is the report.
    """
    report = audit(loss, call, **how)
    if not report.ok:
        raise AssertionError(f"\n{report}")
    return report
