"""What is divided by what: over rows, classes and tokens."""

from dataclasses import dataclass

import torch

from ._calls import Subject
from ._identify import batches, fitted, observed
from ._means import close, masked_as, text, value
from ._properties import Known
from ._report import Finding


@dataclass(frozen=True)
class Reductions:
    """rows: mean, sum, relation or other; classes: sum, mean or unknown; tokens: mean, …, refused."""

    rows: str
    classes: str
    tokens: str


def reductions(known: Known) -> Reductions:
    return Reductions(over_rows(known), over_classes(known), over_tokens(known))


def over_rows(known: Known) -> str:
    if not known.finite:
        return "not finite"
    whole = batches()[1]
    halves = [tuple(x[i : i + 3] for x in whole) for i in (0, 3)]
    try:
        total, parts = value(known.loss, *whole), [value(known.loss, *half) for half in halves]
        twice = value(known.loss, *(torch.cat([x, x]) for x in whole))
    except Exception:
        return "unknown"
    if close(total, sum(parts) / 2) and close(twice, total):
        return "mean"
    if close(total, sum(parts)) and close(twice, 2 * total):
        return "sum"
    if close(total, sum(parts) / 4) and close(twice, total / 2):
        return "mean, divided by the rows once more"
    return "relation"


def over_classes(known: Known) -> str:
    """From the weights of the fit at 5 and at 10 classes."""
    fit = known.fit
    if fit is None or fit.candidate is None:
        return "unknown"
    shape, T = (6, 6, 10), 2.0 if known.uses_T else fit.T
    values, _ = observed(known.loss, batches(*shape), 2.0)
    wide = fitted(fit.candidate, fit.hard, values, 0, shape, T)
    if wide is None:
        return "unknown"
    ratio = max(wide.weights, key=abs) / max(fit.weights, key=abs)
    return (
        "sum" if close(ratio, 1) else "mean" if close(ratio, 0.5) else f"× {ratio:.3g} from 5 to 10 classes"
    )


def over_tokens(known: Known) -> str:
    z, v, y = text()
    try:
        found = value(known.loss, z, v, y)
        flat = value(known.loss, z.flatten(0, 1), v.flatten(0, 1), y.flatten())
    except Exception:
        return "refused"
    if close(found, flat):
        return "mean"
    if close(found, 6 * flat) or close(found, flat * 24):
        return "sum over a text's tokens" if close(found, 6 * flat) else "sum"
    return "none of mean and sum"


def reduction(known: Known, of: Reductions, texts: bool = True) -> Finding:
    """`texts`: whether the loss is meant to take (B, L, V)."""
    name = "reduction"
    if of.rows in ("relation", "not finite", "unknown"):
        why = {
            "relation": "it relates the examples of a batch, and is no mean over them",
            "not finite": "not finite",
        }
        return Finding(name, None, why.get(of.rows, "it does not take halves of a batch"))
    wrong = []
    if of.rows.startswith("mean, "):
        wrong.append("it divides by the examples twice: twice the batch is half the loss")
    if of.rows == "sum":
        wrong.append("it sums over the examples: twice the batch is twice the loss")
    convention = (
        known.fit is not None
        and known.fit.candidate is not None
        and not divides_wrongly(known.fit.candidate.name)
    )
    if of.classes == "mean" and not convention:
        wrong.append(
            "it divides by the classes too (reduction='mean'): of 32,000 tokens almost nothing is left"
        )
    if texts and of.tokens not in ("mean", "refused") and of.rows != "sum":
        wrong.append(
            "for (B, L, V) it divides by the texts alone: the loss grows with their length"
            if of.tokens.startswith("sum")
            else "for (B, L, V) it is neither the mean nor the sum over tokens: the softmax runs over another dimension, "
            "or the sum does"
        )
    if "mask" in known.loss.takes and masked_as(known) == "mean of the texts' means":
        wrong.append("it is the mean of the texts' means: a token of a short text weighs more")
    said = f"{of.rows} over rows, {of.classes} over classes, {of.tokens} over tokens"
    if wrong:
        return Finding(name, False, "; ".join(wrong), example(known.loss, of))
    if not texts:
        said = f"{of.rows} over rows, {of.classes} over classes, (B, L, V) left aside"
    return Finding(name, True, said.replace("refused over tokens", "(B, L, V) refused"))


def divides_wrongly(name: str) -> bool:
    """A mean over classes is a convention for squared errors and sigmoids, and a mistake for a divergence's sum."""
    return not name.startswith(("squared", "total variation", "cosine", "Bernoulli"))


def example(loss: Subject, of: Reductions) -> str:
    z, v, y = batches()[0]
    one = value(loss, z[:1], v[:1], y[:1]) if of.rows != "relation" else 0.0
    two = value(loss, *(torch.cat([x[:1], x[:1]]) for x in (z, v, y)))
    said = f"one row {one:.4g}, the same row twice {two:.4g}"
    if of.tokens not in ("mean", "refused"):
        z, v, y = text()
        flat = value(loss, z.flatten(0, 1), v.flatten(0, 1), y.flatten())
        said += f"; 24 rows (24, 5) {flat:.4g}, as four texts (4, 6, 5) {value(loss, z, v, y):.4g}"
    return said
