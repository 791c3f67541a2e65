"""The book's losses as the fault suite calls them; the cases themselves are in `companion.audit._faults`.

python -m tests.fault_table     # prints the table, cases × losses
"""

import torch

from companion import features, fused, losses, tokens, vocabulary
from companion.audit import _definitions as definitions
from companion.audit import _faults as faults
from companion.audit._faults import CASES, MAPS, ONLY_N, Loss, draw

__all__ = ["CASES", "LOSSES", "Loss", "draw", "outcome", "table"]


def _eye(x):
    """Weights of a last layer that hands its features on, as logits."""
    return torch.eye(x.shape[-1], dtype=x.dtype).to(x.device)


_MASKED, _ALL = frozenset({"mask", "tokens"}), frozenset({"T", "mask", "tokens"})
_BOTH = frozenset({"both", "teacher"})
LOSSES = {
    "kd": Loss(lambda z, v, T, mask, y: losses.kd_loss(z, v, T, mask), definitions.kd, _ALL, ruled_out=_BOTH),
    "distillation": Loss(
        lambda z, v, T, mask, y: losses.distillation_loss(z, v, y, T, 0.9, mask),
        definitions.distillation, _ALL | {"y"}, divergence=False, ruled_out=_BOTH,
    ),
    "logit mse": Loss(lambda z, v, T, mask, y: losses.logit_mse_loss(z, v, mask=mask), definitions.square, _MASKED),
    "logit mse, centred": Loss(
        lambda z, v, T, mask, y: losses.logit_mse_loss(z, v, True, mask), definitions.centred, _MASKED
    ),
    "DKD": Loss(
        lambda z, v, T, mask, y: losses.dkd_loss(z, v, y, T, mask=mask), definitions.dkd, _ALL | {"y"}, ruled_out=_BOTH
    ),
    "DIST": Loss(lambda z, v, T, mask, y: losses.dist_loss(z, v, T), definitions.dist, frozenset({"T"})),
    "standardized": Loss(
        lambda z, v, T, mask, y: losses.standardized_kd_loss(z, v, T, mask), definitions.standardized, _ALL
    ),
    "WTTM": Loss(
        lambda z, v, T, mask, y: losses.wttm_loss(z, v, T, mask), definitions.wttm, _ALL, divergence=False,
        ruled_out=_BOTH,
    ),
    "NormKD": Loss(lambda z, v, T, mask, y: losses.normkd_loss(z, v, T, mask), definitions.normkd, _ALL),
    "RLD": Loss(
        lambda z, v, T, mask, y: losses.rld_loss(z, v, y, T, mask=mask), definitions.rld, _ALL | {"y"},
        divergence=False, ruled_out=_BOTH,
    ),
    "forward KL": Loss(
        lambda z, v, T, mask, y: tokens.forward_kl_loss(z, v, T, mask), definitions.kd, _ALL, ruled_out=_BOTH
    ),
    "reverse KL": Loss(
        lambda z, v, T, mask, y: tokens.reverse_kl_loss(z, v, T, mask), definitions.reverse, _ALL,
        ruled_out=frozenset({"both"}),
    ),
    "JSD, β = 0.3": Loss(
        lambda z, v, T, mask, y: tokens.generalized_jsd_loss(z, v, 0.3, T, mask), definitions.jsd(0.3), _ALL,
        ruled_out=_BOTH,
    ),
    "skew KL": Loss(
        lambda z, v, T, mask, y: tokens.skew_kl_loss(z, v, 0.1, T, mask), definitions.skew, _ALL, ruled_out=_BOTH
    ),
    "sparse": Loss(
        lambda z, v, T, mask, y: tokens.sparse_kd_loss(z, *definitions.stored(v, T), T, mask), definitions.sparse, _ALL,
        divergence=False, ruled_out=_BOTH, wrong={},
    ),
    "fused": Loss(
        lambda z, v, T, mask, y: fused.fused_linear_kd_loss(z, _eye(z), v, _eye(v), T, mask), definitions.kd, _ALL
    ),
    "ULD": Loss(
        lambda z, v, T, mask, y: vocabulary.uld_loss(z, v, mask), definitions.uld, _MASKED, ruled_out=_BOTH, wrong=ONLY_N
    ),
    "hint": Loss(
        lambda z, v, T, mask, y: features.hint_loss(z, v), lambda z, v, T, y: definitions.square(z, v, T, y) / 2
    ),
    "attention transfer": Loss(
        lambda z, v, T, mask, y: features.attention_transfer_loss(z, v), definitions.attention,
        shape=(8, 5, 3, 2), wrong=MAPS,
    ),
    "similarity": Loss(
        lambda z, v, T, mask, y: features.similarity_preserving_loss(z, v), definitions.similarity, wrong=ONLY_N
    ),
    "RKD distance": Loss(
        lambda z, v, T, mask, y: features.rkd_distance_loss(z, v), definitions.rkd_distance, wrong=ONLY_N
    ),
    "RKD angle": Loss(lambda z, v, T, mask, y: features.rkd_angle_loss(z, v), definitions.rkd_angle, wrong=ONLY_N),
    "contrastive": Loss(
        lambda z, v, T, mask, y: features.contrastive_loss(z, v, T),
        definitions.contrastive, frozenset({"T"}), divergence=False,
    ),
}  # fmt: skip


def outcome(case: str, loss: str) -> str | None:
    """None where the loss passes, the empty string where the case does not apply, else what is wrong."""
    return faults.outcome(case, LOSSES[loss])


def table() -> str:
    names = list(LOSSES)
    width = max(map(len, CASES)) + 2
    lines = [" " * width + " ".join(f"{i + 1:2}" for i in range(len(names)))]
    for case in CASES:
        marks = ({None: "✓", "": "·"}.get(outcome(case, name), "✗") for name in names)
        lines.append(f"{case:{width}}" + " ".join(f"{mark:>2}" for mark in marks))
    return "\n".join(
        [*lines, "", *(f"{i + 1:2} {name}" for i, name in enumerate(names)), "", "· does not apply"]
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table())
