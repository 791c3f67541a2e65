"""Chapter 10: its equations, written once more without `companion`, and a regressor that leaves nothing behind."""

import copy
import re

import nbformat
import numpy as np
import pytest
import torch
from torch import nn

from companion import data
from companion.features import (
    attention_transfer_loss,
    contrastive_loss,
    hint_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_preserving_loss,
)
from companion.models import ConvNet
from companion.training import fit, hard_loss, predict
from experiments import chapter10, chapter10_controls, chapter10_longer
from experiments.common import stored
from tests.test_notebooks import ROOT

NOTEBOOK = nbformat.read(ROOT / "chapters/10_features.ipynb", as_version=4)


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.double)


def said(formula: str) -> bool:
    """Whether a number stands in the chapter's text."""
    return any(formula in cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown")


def named(name: str):
    """A function or class of the notebook, alone with what it needs."""
    source = next(c.source for c in NOTEBOOK.cells if c.cell_type == "code" and f"{name}(" in c.source[:60])
    scope = {"nn": nn, "torch": torch}
    exec(source, scope)
    return scope[name]


@pytest.mark.equation("eq-with-features")
def test_the_weight_scales_the_gradient_of_the_inner_loss_alone():
    """The gradient of L is that of the base and w times that of what is added."""
    torch.manual_seed(0)
    z, y = torch.randn(4, 3, dtype=torch.double, requires_grad=True), torch.tensor([0, 1, 2, 0])
    target = torch.randn(4, 3, dtype=torch.double)

    def slope(weight, base):
        loss = base * hard_loss(z, None, y) + weight * hint_loss(z, target)
        return torch.autograd.grad(loss, z)[0]

    assert torch.allclose(slope(0.7, 1), slope(0, 1) + 0.7 * slope(1, 0), atol=1e-12)
    assert not torch.allclose(slope(0.7, 1), slope(0, 1), atol=1e-3)


@pytest.mark.equation("eq-hint")
def test_the_hint_in_small_numbers_and_its_gradient_on_the_way_back():
    W = tensor([2, 0], [0, 1], [1, 1])
    h_t, h_s = tensor([4, 0, 2]), tensor([1, 2]).requires_grad_()
    loss = hint_loss(h_s @ W.T, h_t)
    (slope,) = torch.autograd.grad(loss, h_s)
    assert loss.item() == pytest.approx(4.5) and said("(4 + 4 + 1)/2 = 4.5")
    assert slope.tolist() == [[-3.0, 3.0]] and said("$(-3, 3)$")
    two = hint_loss(torch.cat([h_s @ W.T, h_t]), torch.cat([h_t, h_t]))
    assert two.item() == pytest.approx(4.5 / 2)  # the mean over images


@pytest.mark.equation("eq-attention")
def test_attention_in_small_numbers():
    t, s = tensor([2, 0, 0, 1], [2, 0, 0, 1], [0, 0, 0, 2]), tensor([0, 0, 0, 3])
    Q_t, Q_s = (np.square(x.numpy()).sum(0) for x in (t, s))
    assert Q_t.tolist() == [8, 0, 0, 6]
    by_hand = np.linalg.norm(Q_s / np.linalg.norm(Q_s) - Q_t / np.linalg.norm(Q_t))
    assert by_hand == pytest.approx(0.8**0.5) and said(r"\sqrt{0.8} = 0.894")
    found = attention_transfer_loss(s.reshape(1, 1, 2, 2), t.reshape(1, 3, 2, 2))
    assert found.item() == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.equation("eq-similarity")
def test_similarity_in_small_numbers():
    t, s = np.array([[1, 0], [1, 0], [0, 2.0]]), np.eye(3)

    def table(f):
        G = f @ f.T
        return G / np.linalg.norm(G, axis=1, keepdims=True)

    by_hand = ((table(s) - table(t)) ** 2).sum() / 9
    assert by_hand == pytest.approx(0.130, abs=5e-4) and said("that makes 0.130")
    found = similarity_preserving_loss(torch.tensor(s), torch.tensor(t))
    assert found.item() == pytest.approx(by_hand, abs=1e-12)


def huber(d):
    return np.where(abs(d) <= 1, d**2 / 2, abs(d) - 0.5)


TRIANGLE, LINE = np.array([[0, 0], [3, 0], [0, 4.0]]), np.array([[0], [1], [3.0]])


@pytest.mark.equation("eq-rkd-distance")
def test_distances_in_small_numbers_and_no_line_is_that_triangle():
    def psi(f):
        d = np.linalg.norm(f[:, None] - f, axis=-1)
        return d / (d.sum() / 6)

    by_hand = huber(psi(LINE) - psi(TRIANGLE)).mean()
    assert by_hand == pytest.approx(0.0417, abs=5e-5) and said(r"2 \cdot 0.1875/9 = 0.0417")
    found = rkd_distance_loss(torch.tensor(LINE), torch.tensor(TRIANGLE))
    assert found.item() == pytest.approx(by_hand, abs=1e-12)
    places = np.linspace(0, 1, 101)
    best = min(huber(psi(np.array([[0], [x], [1.0]])) - psi(TRIANGLE)).mean() for x in places)
    assert best > 1e-3  # whatever the order, one distance is the sum of the others


@pytest.mark.equation("eq-rkd-angle")
def test_angles_in_small_numbers():
    def psi(f):
        towards = f - f[:, None]  # at j, towards i
        length = np.linalg.norm(towards, axis=-1, keepdims=True)
        towards = towards / np.where(length > 0, length, 1)
        return towards @ towards.transpose(0, 2, 1)

    assert psi(TRIANGLE)[0, 1, 2] == pytest.approx(0) and psi(LINE)[0, 1, 2] == pytest.approx(1)
    by_hand = huber(psi(LINE) - psi(TRIANGLE)).mean()
    found = rkd_angle_loss(torch.tensor(LINE), torch.tensor(TRIANGLE))
    assert found.item() == pytest.approx(by_hand, abs=1e-12)
    assert by_hand == pytest.approx(0.12) and said(r"2 \cdot 1.62/27 = 0.12")


@pytest.mark.equation("eq-contrastive")
def test_contrast_in_small_numbers():
    cosine = np.array([[0.9, 0.7], [0.6, 0.8]])
    e = np.exp(cosine / 0.1)
    costs = [-np.log(np.diag(e) / e.sum(axis)) for axis in (1, 0)]
    assert np.round(costs, 3).tolist() == [[0.127, 0.127], [0.049, 0.313]] and said(
        "the mean of the four is 0.154"
    )
    assert np.mean(costs) == pytest.approx(0.154, abs=5e-4)
    rng = np.random.default_rng(0)
    s, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 4, 3)))
    e = np.exp(s @ t.T / 0.1)
    by_hand = np.mean([-np.log(np.diag(e) / e.sum(axis)) for axis in (1, 0)])
    found = contrastive_loss(torch.tensor(2 * s), torch.tensor(3 * t), T=0.1)
    assert found.item() == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.equation("eq-cka")
def test_cka_is_the_cosine_of_the_centred_tables_and_blind_to_turning_and_scaling():
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(20, 3)), rng.normal(size=(20, 5))
    s, t = s - s.mean(0), t - t.mean(0)

    def cka(s, t):
        norm = np.linalg.norm
        return norm(s.T @ t) ** 2 / (norm(s.T @ s) * norm(t.T @ t))

    a, b = (s @ s.T).ravel(), (t @ t.T).ravel()
    assert cka(s, t) == pytest.approx(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), abs=1e-12)
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert cka(t, 3 * t @ turn) == pytest.approx(1)
    assert cka(np.array([[1], [0], [-1.0]]), np.array([[1], [-2], [1.0]])) == pytest.approx(0)


def test_the_exported_student_is_what_it_would_be_without_a_regressor():
    """Names, shapes and answers; and with weight 0 the weights themselves, since the regressor touches nothing."""
    Learner = named("Learner")
    train = data.fashion("train").sample(5, 0)
    alone, inside = (ConvNet(4, dropout=0.0, seed=1) for _ in range(2))
    before = copy.deepcopy(inside.state_dict())
    fit(alone, train, steps=5, lr=0.01, seed=0)
    fit(Learner(inside), train, lambda out, v, y: hard_loss(out[0], None, y), steps=5, lr=0.01, seed=0)
    assert inside.state_dict().keys() == alone.state_dict().keys() == before.keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(inside.state_dict().values(), alone.state_dict().values(), strict=True)
    )
    assert not torch.equal(before["head.weight"], inside.state_dict()["head.weight"])
    assert torch.equal(predict(alone, train.x), predict(inside, train.x))


def test_who_notices_what_happens_to_a_students_maps():
    """The answers of the second exercise, and what fig-unnoticed shows."""
    torch.manual_seed(0)
    s, t = torch.rand(6, 4, 2, 2, dtype=torch.double), torch.rand(6, 4, 2, 2, dtype=torch.double)
    shift = torch.rand(1, 4, 2, 2, dtype=torch.double)
    translate = nn.Conv2d(4, 4, 1).double()
    losses = {
        "hint": lambda s: hint_loss(translate(s), t),
        "attention": lambda s: attention_transfer_loss(s, t),
        "similarity": lambda s: similarity_preserving_loss(s, t),
        "rkd": lambda s: rkd_distance_loss(s, t) + 2 * rkd_angle_loss(s, t),
    }

    def notice(changed):
        return {name for name, loss in losses.items() if abs(loss(changed) - loss(s)) > 1e-6}

    each = torch.linspace(0.5, 3, 6, dtype=torch.double).view(6, 1, 1, 1)
    assert notice(each * s) == {"hint", "similarity", "rkd"}  # all but attention
    assert notice(s[:, [2, 0, 3, 1]]) == {"hint"}
    assert notice(2 * s) == {"hint"}
    assert notice(s + shift) == {"hint", "attention", "similarity"}


def test_the_differences_beside_the_control_follow_from_the_stored_runs():
    """Own image's features over another's, row by row in the table: bold where the interval is clear of 0."""
    table, anew = stored("10_methods"), stored("10_controls")

    def runs(method, base, target):
        if target == "same class" and base == "labels" and method != "hint":  # the weight chosen anew
            found = anew[
                np.all(
                    [
                        anew[k] == v
                        for k, v in zip(("method", "base", "target"), (method, base, target), strict=True)
                    ],
                    axis=0,
                )
            ]
            found = found[found["seed"] < 10]
            return found[np.argsort(found["seed"])]["accuracy"]
        columns = {"method": method, "base": base, "target": target}
        found = table[np.all([table[k] == v for k, v in columns.items()], axis=0) & (table["seed"] < 10)]
        assert sorted(found["seed"]) == list(range(10))
        return found[np.argsort(found["seed"])]["accuracy"]

    shown = [
        re.fullmatch(r"\| (labels|KD): .+ \| (?:\*\*)?([^|*]+?)(?:\*\*)? \|", line)
        for cell in NOTEBOOK.cells
        for output in cell.get("outputs", ())
        for line in output.get("data", {}).get("text/markdown", "").splitlines()
        if "own ahead by" in output["data"]["text/markdown"] and line.startswith(("| labels:", "| KD:"))
    ]
    rows = [(m, "labels") for m in ("hint", "attention", "similarity", "rkd", "contrastive")]
    rows += [("attention", "kd"), ("contrastive", "kd")]
    for (method, base), found in zip(rows, shown, strict=True):
        ahead = runs(method, base, "teacher") - runs(method, base, "same class")
        mean, half = ahead.mean(), 2.262 * ahead.std(ddof=1) / 10**0.5  # Student's t, 9 degrees of freedom
        assert found[1].lower() == base
        assert found[2] == f"{mean:.2f} ± {half:.2f}".replace("-", "−")
        assert ("**" in found[0]) == (abs(mean) > half)


def test_a_student_of_another_images_features_comes_back_as_stored():
    """One run of short training; another processor may move some of the 10,000 test images."""
    rows = stored("10_controls")
    here = (rows["method"] == "contrastive") & (rows["target"] == "same class") & (rows["base"] == "labels")
    (row,) = rows[here & (rows["seed"] == 3)]
    found = chapter10_controls.one(
        "contrastive", "labels", "same class", 200, float(row["weight"]), float(row["lr"]), 3
    )
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.5)


def test_a_new_last_layer_comes_back_as_stored():
    rows = stored("10_layers_decay")
    here = (rows["method"] == "contrastive") & (rows["base"] == "labels") & (rows["layer"] == "labels")
    (row,) = rows[here & (rows["seed"] == 3)]
    setting = {name: float(row[name]) for name in ("weight", "rate", "lr", "decay")} | {
        "steps": int(row["steps"])
    }
    found = chapter10.relearned("contrastive", "labels", layer="labels", seed=3, **setting)
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.5)


@pytest.mark.parametrize("method", ["none", "contrastive"])
def test_labels_in_longer_training_come_back_as_stored_with_what_validation_chose(method):
    rows = stored("10_longer")
    rows = rows[(rows["method"] == method) & (rows["base"] == "labels") & (rows["steps"] == 1200)]
    reported = rows[rows["seed"] < 10]
    assert sorted(reported["seed"]) == list(range(10))
    keys = ("decay", "weight", "lr")
    (setting,) = {tuple(float(row[k]) for k in keys) for row in reported}
    tried = {}
    for row in rows[rows["seed"] >= 100]:
        tried.setdefault(tuple(float(row[k]) for k in keys), []).append(row["accuracy"])
    assert all(len(found) == 3 for found in tried.values())
    assert np.mean(tried[setting]) == max(map(np.mean, tried.values()))
    (row,) = reported[reported["seed"] == 3]
    found = chapter10_longer.one(method, "labels", 1200, **dict(zip(keys, setting, strict=True)), seed=3)
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=1)


def test_the_answer_to_the_layer_swap_follows_from_its_table():
    (text,) = [c.source for c in NOTEBOOK.cells if ":label: ex-swap-layers" in c.source]
    rows = re.findall(r"^\| (?:labels \+ new loss|KD) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    (own, by_labels, by_kd), (own_kd, _, kd_by_kd) = [tuple(map(float, row)) for row in rows]
    scope = {"checks": type("", (), {"swap_layers": staticmethod(lambda attempt: None)})}
    (solution,) = [
        c.source
        for c in NOTEBOOK.cells
        if "solution" in c.metadata.get("tags", ()) and "swap_layers" in c.source
    ]
    exec(solution, scope)
    reading, ahead, lacks = scope["swap_layers"]()
    assert (reading, ahead) == pytest.approx((by_kd - by_labels, by_kd - kd_by_kd))
    assert f"{own_kd - own:.1f} points" in text
    assert lacks == "features" and -ahead > (own_kd - own) / 2
