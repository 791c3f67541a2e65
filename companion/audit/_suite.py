"""The fault suite on a loss under audit, beside its own definition: a convention is no fault."""

from collections.abc import Callable

from torch import Tensor

from ._candidates import HARD
from ._faults import CASES, ONLY_N, WRONG, Loss, outcome
from ._identify import batches, measured
from ._properties import Known
from ._reduction import Reductions
from ._report import Finding

SHAPES = ("(N, C) against (N, 1)", "(N, C) against (1, C), (C,)", "(N, C) against (N, C+8)")


def definition(known: Known, of: Reductions) -> Callable[..., Tensor]:
    """What the loss is, in float64: the fit where there is one, else the loss itself on float64 inputs."""
    fit = known.fit
    scale_known = of.rows in ("mean", "sum") or (
        fit is not None and fit.candidate is not None and fit.candidate.relation
    )
    if fit is None or known.k is None or not scale_known or "×" in of.classes:
        return lambda z, v, T, y: known.loss(z.clone(), v, y, T)
    parts = () if fit.candidate is None else fit.candidate.parts

    def total(z, v, T, y):
        power = (T / fit.T) ** known.k if known.uses_T else 1.0
        T = T if known.uses_T else fit.T
        rows = 6 / max(z[..., 0].numel(), 1) if of.rows == "mean" else 1.0
        classes = 5 / z.shape[-1] if of.classes == "mean" else 1.0
        soft = sum(w * part(z, v, T, y).sum() for w, part in zip(fit.weights, parts, strict=True))
        whole = soft * power * classes
        return rows * (whole + fit.hard_weight * HARD[fit.hard][0](z, v, T, y).sum() if fit.hard else whole)

    return total


def as_fault_loss(known: Known, of: Reductions) -> Loss:
    fit, takes = known.fit, {"mask"} & known.loss.takes
    candidate = fit.candidate if fit else None
    z, _, y = batches()[0]
    try:
        agree = float(measured(known.loss, z, z, y)[0])
    except Exception:
        agree = 1.0
    takes |= {"T"} if known.uses_T else set()
    takes |= {"tokens"} if of.tokens != "refused" else set()
    return Loss(
        lambda z, v, T, mask, y: known.loss(z, v, y, T, mask),
        definition(known, of),
        frozenset(takes),
        divergence=abs(agree) < 1e-9,
        ruled_out=candidate.ruled_out
        if candidate and not candidate.fault and known.k is not None
        else frozenset(),
        wrong={} if not known.matters else ONLY_N if known.relation else WRONG,
    )


def cases(known: Known, of: Reductions) -> tuple[tuple[str, str | None], ...]:
    """Each case's name, and None where it passes, "" where it does not apply, else what is wrong."""
    loss = as_fault_loss(known, of)
    found = []
    for case in CASES:
        said = outcome(case, loss)
        if case in SHAPES or case == "(B, L, V)":
            refused = said and ("Error: " in said or "does not name" in said) and "not refused" not in said
            said = None if refused else said  # whatever it raises, it refuses
        found.append((case, said))
    return tuple(found)


def faults(known: Known, found: tuple[tuple[str, str | None], ...]) -> Finding:
    changed = known.loss.changes(*batches()[0])
    if changed:
        names = " and ".join(changed)
        return Finding(
            "faults", False, f"it changes its inputs: after the call {names} is not what it was given, so that whatever "
            "reads it next reads other numbers",
            f"before = {changed[0]}.clone(); the call; torch.equal({changed[0]}, before) is False. An operation in place "
            "(sub_, /=, masked_fill_) does this.",
        )  # fmt: skip
    if known.silent:
        return Finding("faults", None, "no gradient reaches the student")
    wrong = {case: said for case, said in found if said}
    n = sum(said != "" for _, said in found)
    if not wrong:
        return Finding("faults", True, f"{n} of {n} that apply are passed")
    case, said = next(iter(wrong.items()))
    return Finding(
        "faults", False, f"{n - len(wrong)} of {n} that apply are passed; not: {'; '.join(wrong)}",
        f"{case}: {said.strip().splitlines()[0][:160]}",
    )  # fmt: skip
