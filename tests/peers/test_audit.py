"""Each line of chapters/results/07_audit.csv, audited again; and a peer that should be there is there, or says why not.

What cannot be imported is skipped, with the reason. make test-peers sets BOOK_PEERS to the extras that it
installed: of these nothing may be missing (conftest.py).
"""

import csv
import importlib
from pathlib import Path

import pytest
import torch

from companion import features, tokens
from experiments.chapter07_audit import OURS, PEERS, PROPERTIES, config, find, line
from tests.peers.conftest import promised

ROOT = Path(__file__).parent.parent.parent
with (ROOT / "chapters/results/07_audit.csv").open(encoding="utf-8") as file:
    LINES = list(csv.DictReader(row for row in file if not row.startswith("#")))
WRITTEN = {(row["package"], row["loss"], row["setting"]): row for row in LINES}
# Losses in which the teacher does nothing in this setting.
NO_OPS = {
    ("torchdistill.losses.mid_level.AuxSSKDLoss", ""),
    (
        "trl.experimental.iw_opd.iw_opd_trainer.IWOPDTrainer.generalized_jsd_loss",
        "beta=0; top_k=1; add_tail=False",
    ),
    (
        "trl.experimental.iw_opd.iw_opd_trainer.IWOPDTrainer.generalized_jsd_loss",
        "beta=1; top_k=1; add_tail=False",
    ),
    (
        "trl.experimental.sdft.loss_utils.compute_topk_self_distillation_loss",
        "distillation_topk=1; distillation_add_tail=False; mean over tokens",
    ),
}


def key(peer):
    return peer.package, peer.full_name, config(peer)["setting"]


def name(peer):
    return f"{peer.full_name} {peer.setting}"


def need(peer):
    """As conftest's, for one loss: a package may import and lack it."""
    try:
        find(peer)
    except Exception as error:
        why = f"{peer.full_name} cannot be had: {type(error).__name__}: {error}"
        (pytest.fail if peer.package in promised() else pytest.skip)(why)


def test_the_file_holds_every_loss():
    assert len(LINES) == len(WRITTEN) >= 80
    assert {row["package"] for row in LINES} == {p.package for p in (*OURS, *PEERS)}
    assert all(set(PROPERTIES) < set(row) for row in LINES)


@pytest.mark.parametrize("peer", (*OURS, *PEERS), ids=name)
def test_a_line_is_still_true(peer):
    need(peer)
    written = WRITTEN[key(peer)]
    assert line(peer) == {k: written[k] for k in line(peer)}


def test_each_known_no_op_is_found_and_only_those():
    found = {
        (row["loss"], row["setting"])
        for row in LINES
        if "fault" in (row["teacher-matters"], row["student-gradient"])
    }
    assert found == NO_OPS


def test_none_of_ours_is_at_fault():
    ours = [row for row in LINES if row["package"] == "companion"]
    assert len(ours) == len(OURS)
    assert not [row["loss"] for row in ours if "fault" in row.values()]


# --------------------------------------------------------------------------- pinned in value and in gradient


def both(call, z):
    z = z.clone().requires_grad_()
    value = call(z)
    return value.detach(), torch.autograd.grad(value, z)[0]


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.8])
def test_jsd_at_several_beta_as_in_trl(beta):
    """TRL has no T²; its mixture weighs the teacher by β, as here."""
    module = "trl.experimental.gkd"
    try:
        theirs = importlib.import_module(module).GKDTrainer.generalized_jsd_loss
    except Exception as error:
        pytest.skip(f"{module} cannot be imported: {type(error).__name__}: {error}")
    z, v = 2 * torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    one = both(lambda z: tokens.generalized_jsd_loss(z, v, beta, 2.0), z)
    other = both(lambda z: 4 * theirs(z, v, None, beta, 2.0), z)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_similarity_as_in_torchdistill_but_for_its_L1():
    """With the rows' L1 norm made their L2 norm, torchdistill's number and gradient are ours."""
    module = "torchdistill.losses.mid_level"
    try:
        peer = importlib.import_module(module).SPKDLoss("m", "m", reduction="batchmean")
    except Exception as error:
        pytest.skip(f"{module} cannot be imported: {type(error).__name__}: {error}")
    peer.matmul_and_normalize = lambda z: torch.nn.functional.normalize(z @ z.T, p=2, dim=1)
    z, v = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    one = both(lambda z: features.similarity_preserving_loss(z, v), z)
    other = both(lambda z: peer({"m": {"output": z}}, {"m": {"output": v}}), z)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
