"""What is divided by what: over rows, classes and tokens, in micro-batches and under a mask."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .calls import Subject
from .identify import batches, fitted, measured, observed
from .properties import Known, change
from .report import Finding

CLOSE = 1e-4


@dataclass(frozen=True)
class Reductions:
    """rows: mean, sum, relation or other; classes: sum, mean or unknown; tokens: mean, …, refused."""

    rows: str
    classes: str
    tokens: str


def close(a: float, b: float) -> bool:
    return abs(a - b) <= CLOSE * max(abs(a), abs(b)) + 1e-12


def value(loss: Subject, *batch) -> float:
    return float(measured(loss, *batch)[0])


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


def text(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Four texts of six tokens, a vocabulary of five."""
    z, v, y = batches(seed + 1, rows=24)[seed]
    return z.view(4, 6, 5), v.view(4, 6, 5), y.view(4, 6)


def reduction(known: Known, of: Reductions) -> Finding:
    name = "reduction"
    if of.rows in ("relation", "not finite", "unknown"):
        why = {
            "relation": "it relates the examples of a batch, and is no mean over them",
            "not finite": "not finite",
        }
        return Finding(name, None, why.get(of.rows, "it does not take halves of a batch"))
    wrong = []
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
    if of.tokens not in ("mean", "refused") and of.rows != "sum":
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
    return Finding(name, True, said.replace("refused over tokens", "(B, L, V) refused"))


def divides_wrongly(name: str) -> bool:
    """A mean over classes is a convention for squared errors, and a mistake for a divergence's sum."""
    return not name.startswith(("squared", "total variation", "cosine"))


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


# ------------------------------------------------------------------------------------- micro-batches and masks


def masked_text(known: Known) -> tuple[tuple, Tensor]:
    """Texts with 6, 6, 1 and 1 counted tokens; as rows where the loss takes no texts."""
    z, v, y = text()
    mask = torch.arange(6) < torch.tensor([6, 6, 1, 1])[:, None]
    try:
        known.loss(z, v, y, 2.0, mask)
    except Exception:
        z, v, y, mask = z.flatten(0, 1), v.flatten(0, 1), y.flatten(), mask.flatten()
    return (z, v, y), mask


def micro_batch(known: Known, of: Reductions) -> Finding:
    name = "micro-batch"
    if known.relation:
        return Finding(name, None, "it relates the examples of a batch: larger batches are another loss")
    if known.silent or of.rows in ("not finite", "unknown"):
        return Finding(name, None, "no gradient to accumulate" if known.silent else of.rows)
    masked = "mask" in known.loss.takes
    if masked:
        batch, mask = masked_text(known)
    else:
        batch, mask = batches()[0], torch.ones(6, dtype=torch.bool)
    cut = len(mask) // 3 if not masked else len(mask) // 2
    parts = [slice(0, cut), slice(cut, None)]
    whole, n = measured(known.loss, *batch, 2.0, mask, int(mask.sum())), float(mask.sum())
    each = [measured(known.loss, *(x[p] for x in batch), 2.0, mask[p]) for p in parts]
    shares = {
        "exact where each part is weighed by its share of what counts": [
            float(mask[p].sum()) / n for p in parts
        ],
        "exact where each part is weighed by its share of the texts": [
            len(mask[p]) / len(mask) for p in parts
        ],
        "exact: the parts sum up": [1.0, 1.0],
    }
    if "n" in known.loss.takes:
        each_n = [measured(known.loss, *(x[p] for x in batch), 2.0, mask[p], int(n)) for p in parts]
        if off(whole, each_n, [1.0, 1.0]) < CLOSE:
            return Finding(name, True, "exact: each part divided by the whole batch's denominator")
    for said, weights in shares.items():
        if off(whole, each, weights) < CLOSE:
            alike = off(whole, each, [0.5, 0.5])
            return Finding(
                name,
                True,
                said + (f" (weighed alike the gradient is off by {alike:.0%})" if alike > CLOSE else ""),
            )
    alike = off(whole, each, [0.5, 0.5])
    return Finding(
        name, False, "no weights make two micro-batches the batch: the examples influence each other (if they are "
        'meant to, say divergence="relation")',
        f"{len(mask)} rows at once, and {cut} and {len(mask) - cut}: the gradient is off by {alike:.0%}",
    )  # fmt: skip


def off(whole, parts, weights) -> float:
    """Relative error of the weighted parts, value and gradient."""
    made = sum(w * a for w, (a, _) in zip(weights, parts, strict=True))
    slope = torch.cat([w * g for w, (_, g) in zip(weights, parts, strict=True)])
    return max(change(whole[0], made), change(whole[1], slope))


def masked_as(known: Known) -> str:
    """What the masked value is, among the usual ways of averaging."""
    (z, v, y), mask = masked_text(known)
    found = value(known.loss, z, v, y, 2.0, mask)
    kept = value(known.loss, z[mask], v[mask], y[mask])
    n, total = int(mask.sum()), mask.numel()
    ways = {"mean over what counts": kept, "mean over all positions": kept * n / total}
    ways["the mask is ignored"] = value(known.loss, z.flatten(0, -2), v.flatten(0, -2), y.flatten())
    if mask.dim() == 2:
        ways["sum over a text's tokens"] = kept * n / len(mask)
        each = [value(known.loss, z[i][mask[i]], v[i][mask[i]], y[i][mask[i]]) for i in range(len(mask))]
        ways["mean of the texts' means"] = sum(each) / len(each)
    ways["sum over what counts"] = kept * n
    return next((way for way, right in ways.items() if close(found, right)), "none of the usual means")


def mask(known: Known) -> Finding:
    name = "mask"
    if "mask" not in known.loss.takes:
        return Finding(name, None, "it takes none")
    (z, v, y), keep = masked_text(known)
    wrong = []
    way = masked_as(known)
    if way not in ("mean over what counts", "sum over what counts"):
        wrong.append(f"with a mask it is: {way}" if way != "the mask is ignored" else way)
    one = measured(known.loss, z, v, y, 2.0, keep)
    moved = [torch.where(keep[..., None], x, x + 1 + x.flip(-1)) for x in (z, v)]
    if change(one[0], measured(known.loss, *moved, y, 2.0, keep)[0]) > CLOSE and way != "the mask is ignored":
        wrong.append("what is masked changes the value")
    if one[1][~keep].any():
        wrong.append("a masked position gets a gradient")
    hidden = [torch.where(keep[..., None], x, float("nan")) for x in (z, v)]
    try:
        other = measured(known.loss, *hidden, y, 2.0, keep)
        if not (other[0].isfinite() and other[1].isfinite().all()):
            wrong.append(
                "NaN in a masked position becomes NaN in the loss: choose with torch.where, do not multiply by 0"
            )
    except Exception as error:
        wrong.append(f"NaN in a masked position raises {type(error).__name__}")
    if not wrong:
        return Finding(name, True, "mean over what counts; what is masked has no say, even NaN")
    counts = keep.sum(-1).tolist() if keep.dim() == 2 else int(keep.sum())
    return Finding(
        name, False, "; ".join(wrong),
        f"logits {tuple(z.shape)} with {counts} counted: {float(one[0]):.4g}; the counted rows alone "
        f"{value(known.loss, z[keep], v[keep], y[keep]):.4g}",
    )  # fmt: skip
