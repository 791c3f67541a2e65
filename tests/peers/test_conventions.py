"""Each line of chapters/results/07_conventions.csv and 07_calls.csv, measured again.

What does not import is left out, with the reason (conftest.py). torchdistill comes with the extra `peers`, the others
with `peers-llm`.
"""

import csv
import importlib

import pytest
import torch
import torch.nn.functional as F

from experiments.chapter07_conventions import FOLDER, PEERS, WEIGHTED, calls, draw, measure
from tests.peers import conftest


def lines(name):
    with (FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


ROWS = {row["library"]: row for row in lines("07_conventions")}


def need(name):
    conftest.need(PEERS[name].package, PEERS[name].module)


def test_the_files_hold_every_library():
    assert list(ROWS) == list(PEERS)


@pytest.mark.parametrize("name", PEERS)
def test_a_line_is_still_true(name):
    need(name)
    found, written = measure(name), ROWS[name]
    assert {k: v for k, v in found.items() if k != "version"} == {
        k: v for k, v in written.items() if k != "version"
    }


@pytest.mark.parametrize("name", WEIGHTED)
def test_the_calls_still_return_it(name):
    peer = WEIGHTED[name]
    conftest.need(peer.package, peer.module)
    found, written = calls(name), next(row for row in lines("07_calls") if row["library"] == name)
    assert found["setting"] == written["setting"]
    for key in ("agrees", "knows_nothing", "mistaken"):
        assert float(found[key]) == pytest.approx(float(written[key]), rel=1e-4)


def test_keras_with_its_default_compares_logits_as_if_they_were_probabilities():
    """The string "kl_divergence" becomes a function, and only the class KLDivergence is given a softmax."""
    name = "Keras LogitsDistillation, default"
    need(name)
    z, v = draw(8, 5)
    clipped = [(x / 2).clamp(1e-7, 1) for x in (z, v)]
    expected = (clipped[1] * (clipped[1] / clipped[0]).log()).sum(-1).mean()
    assert float(PEERS[name].soft(z, v, 2.0, None)) == pytest.approx(float(expected), rel=1e-4)
    assert float(PEERS[name].soft(z, z + 1, 2.0, None)) > 0.1  # one and the same distribution, and not 0


def test_liger_pads_a_smaller_vocabulary_with_logits_of_0():
    need("Liger fused JSD")
    z, v = draw(8, 5)
    more = torch.cat([v, v], 1)
    padded = torch.cat([z, torch.zeros_like(z)], 1)
    soft = PEERS["Liger fused JSD"].soft
    assert float(soft(z, more, 2.0, None)) == pytest.approx(float(soft(padded, more, 2.0, None)), rel=1e-6)


def test_trl_asks_for_labels_or_divides_by_the_sequences():
    """Without labels its "batchmean" divides by B; with labels, as in its own trainer, by the counted tokens."""
    need("TRL GKDTrainer")
    z, v = draw(2, 3, 5)
    call = PEERS["TRL GKDTrainer"].soft
    counted = call(z, v, 1.0, torch.ones(2, 3, dtype=torch.bool))
    assert float(call(z, v, 1.0, None)) == pytest.approx(3 * float(counted))
    trainer = importlib.import_module("trl.experimental.gkd").GKDTrainer
    mean = trainer.generalized_jsd_loss(z, v, None, 0.5, 1.0, "mean")
    assert float(mean) == pytest.approx(float(counted) / 5)


def test_with_further_logits_of_0_liger_cannot_tell_the_weight_at_a_vocabulary():
    """Why the chapter's lines take −25 T: T² KL would be 0.001 beside a cross-entropy of 12, in single precision."""
    need("Liger fused JSD")
    T, V, y = 4, 151_936, torch.tensor([2])
    criterion = importlib.import_module("liger_kernel.chunked_loss").LigerFusedLinearJSDLoss(
        0.1, 0.9, 0.0, temperature=T, compiled=False
    )
    head = torch.zeros(V, 3)
    head[:3] = torch.eye(3)
    v = torch.tensor([[8.0, 4.0, 0.0]])
    full, found = (v @ head.T).double(), []
    labels = criterion(v, head, v, head, y).item() / F.cross_entropy(full, y)
    for z in (0 * v, v.flip(1)):
        logits = (z @ head.T).double()
        soft = T**2 * F.kl_div((logits / T).log_softmax(-1), (full / T).softmax(-1), reduction="batchmean")
        assert 0.0009 < soft < 0.0014
        rest = criterion(z, head, v, head, y).item() - labels * F.cross_entropy(logits, y)
        found.append(float(rest / soft))
    assert abs(found[0] / found[1] - 1) > 0.02
