"""Micro-batches against the batch, and what a mask leaves out."""

import torch

from ._identify import batches, measured
from ._means import CLOSE, masked_as, masked_text, value
from ._properties import Known, change
from ._reduction import Reductions
from ._report import Finding


def micro_batch(known: Known, of: Reductions) -> Finding:
    name = "micro-batch"
    if known.relation:
        return Finding(name, None, "it relates the examples of a batch: larger batches are another loss")
    if of.rows.startswith("mean, "):
        return Finding(
            name, False, "it divides by the examples twice, so that equal parts add up to more than the whole"
        )
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
