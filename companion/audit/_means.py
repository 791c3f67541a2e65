"""Values on the texts and rows that the reductions are told from."""

import torch
from torch import Tensor

from ._calls import Subject
from ._identify import batches, measured
from ._properties import Known

CLOSE = 1e-4


def close(a: float, b: float) -> bool:
    return abs(a - b) <= CLOSE * max(abs(a), abs(b)) + 1e-12


def value(loss: Subject, *batch) -> float:
    return float(measured(loss, *batch)[0])


def text(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Four texts of six tokens, a vocabulary of five."""
    z, v, y = batches(seed + 1, rows=24)[seed]
    return z.view(4, 6, 5), v.view(4, 6, 5), y.view(4, 6)


def masked_text(known: Known) -> tuple[tuple, Tensor]:
    """Texts with 6, 6, 1 and 1 counted tokens; as rows where the loss takes no texts."""
    z, v, y = text()
    mask = torch.arange(6) < torch.tensor([6, 6, 1, 1])[:, None]
    try:
        known.loss(z, v, y, 2.0, mask)
    except Exception:
        z, v, y, mask = z.flatten(0, 1), v.flatten(0, 1), y.flatten(), mask.flatten()
    return (z, v, y), mask


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
