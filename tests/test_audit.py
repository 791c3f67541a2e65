"""companion.audit: no alarm over the book's own losses, and every wrong one is caught under the right name."""

from pathlib import Path

import pytest

from companion import features, losses, tokens
from companion.audit import audit, check
from tests.audit_seeds import FREE, SEEDS

ROOT = Path(__file__).parent.parent


def sparse(s, t, y, T, mask):
    """The three most probable tokens, stored."""
    p, index = (t.float() / T).nan_to_num(0).softmax(-1).topk(3)
    return tokens.sparse_kd_loss(s, index, p, T, mask)


OURS = {
    "kd": (losses.kd_loss, {}, "forward KL(p‖q)"),
    "distillation": (losses.distillation_loss, {}, "forward KL(p‖q) and cross-entropy with the labels"),
    "distillation, α = 0.5": (
        lambda s, t, y, T: losses.distillation_loss(s, t, y, T, 0.5), {},
        "forward KL(p‖q) and cross-entropy with the labels",
    ),
    "logit mse": (losses.logit_mse_loss, {}, "squared error of logits"),
    "logit mse, centred": (losses.logit_mse_loss, {"call": "loss(s, t, True, mask)"}, "squared error of centred logits"),
    "DKD": (losses.dkd_loss, {}, "DKD"),
    "DIST": (losses.dist_loss, {}, "DIST"),
    "standardized": (losses.standardized_kd_loss, {}, "standardized KL(p‖q)"),
    "forward KL": (tokens.forward_kl_loss, {}, "forward KL(p‖q)"),
    "reverse KL": (tokens.reverse_kl_loss, {}, "reverse KL(q‖p)"),
    "JSD": (tokens.generalized_jsd_loss, {}, "JSD, β = 0.5"),
    "JSD, β = 0.37": (tokens.generalized_jsd_loss, {"call": "loss(s, t, 0.37, T, mask)"}, "JSD, β = 0.37"),
    "JSD, β = 0": (tokens.generalized_jsd_loss, {"call": "loss(s, t, 0, T, mask)"}, "forward KL(p‖q)"),
    "skew KL": (tokens.skew_kl_loss, {}, "skew KL(p‖m), β = 0.1"),
    "sparse": (sparse, {"divergence": "none"}, "none known"),
    "hint": (features.hint_loss, {}, "squared error of logits"),
    "similarity": (features.similarity_preserving_loss, {}, "similarity-preserving"),
    "RKD distance": (features.rkd_distance_loss, {}, "RKD, distances"),
    "RKD angle": (features.rkd_angle_loss, {}, "RKD, angles"),
    "contrastive": (features.contrastive_loss, {}, "contrastive"),
}  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_no_alarm_over_our_losses(name):
    loss, how, divergence = OURS[name]
    report = audit(loss, **how)
    assert report.ok, report
    assert report.divergence == divergence
    check(loss, **how)


def test_every_public_loss_on_logits_is_audited():
    tried = {getattr(loss, "__name__", "") for loss, _, _ in OURS.values()} | {"sparse_kd_loss"}
    public = {name for module in (losses, tokens) for name in vars(module) if name.endswith("_loss")}
    assert public and public <= tried


@pytest.mark.parametrize("name", SEEDS)
def test_a_wrong_loss_is_caught_under_the_right_name(name):
    loss, wrong, how = SEEDS[name]
    report = audit(loss, **how)
    assert set(wrong) <= set(report.failed), report
    assert set(report.failed) <= {*wrong, *FREE}, report
