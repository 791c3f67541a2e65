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
from experiments import (
    chapter10,
    chapter10_controls,
    chapter10_decay,
    chapter10_longer,
    chapter10_temperature,
    chapter10_tuned,
)
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
    one = s.clone()
    one[3, 0] += 1
    assert notice(one) == {"hint", "attention", "similarity", "rkd"}


def reported(table, **wanted):
    """The ten reported runs of a setting in the order of their seeds, and that setting's three on validation."""
    rows = stored(table)
    rows = rows[np.all([rows[k] == v for k, v in wanted.items()], axis=0)]
    ten, tried = rows[rows["seed"] < 10], rows[rows["seed"] >= 100]
    assert sorted(ten["seed"]) == list(range(10))
    return ten[np.argsort(ten["seed"])], tried


def test_what_another_image_leaves_of_the_gain_follows_from_the_stored_runs():
    """The gains under the two bags, over KD trained for as long; both students have the weight and rate of the first."""
    alone, _ = reported("10_longer", method="none", base="kd", steps=1200)
    own, _ = reported("10_longer", method="contrastive", base="kd", steps=1200)
    other, _ = reported("10_controls", method="contrastive", base="kd", target="same class", steps=1200)
    (cell,) = [c for c in NOTEBOOK.cells if "given-{j}" in c.source]
    drawn = "".join(o["data"].get("image/svg+xml", "") for o in cell.outputs)
    for student in (own, other):
        gain = student["accuracy"] - alone["accuracy"]
        mean, half = gain.mean(), 2.262 * gain.std(ddof=1) / 10**0.5  # Student's t, 9 degrees of freedom
        assert f"+{mean:.1f} ± {half:.1f}" in drawn
        assert (student is own) == (mean > half)
        assert set(student["weight"]) == {1.0} and set(student["lr"]) == {0.03}  # as in the cell that is read
    assert said("(w is 1)") and any('"steps": 1200, "lr": 0.03,' in c.source for c in NOTEBOOK.cells)


def test_a_student_of_another_images_features_comes_back_as_stored():
    """One run of short training; another processor may move some of the 10,000 test images."""
    ten, _ = reported("10_controls", method="contrastive", base="labels", target="same class")
    row = {name: float(ten[3][name]) for name in ("weight", "lr")}
    found = chapter10_controls.one("contrastive", "labels", "same class", 200, seed=3, **row)
    assert found["accuracy"] == pytest.approx(ten[3]["accuracy"], abs=0.5)


@pytest.mark.parametrize("method", ["none", "contrastive"])
@pytest.mark.parametrize("base", ["labels", "kd"])
def test_a_new_last_layer_comes_back_as_stored_with_what_validation_chose(base, method):
    wanted = {"method": method} if base == "labels" else {"method": method, "base": base}
    table = "10_tuned_layers" if base == "labels" else "10_layers_decay"
    for layer in ("labels", "kd"):
        ten, tried = reported(table, layer=layer, **wanted)
        keys = ("steps", "decay", "lr")
        means = {}
        for row in tried:
            means.setdefault(tuple(row[k] for k in keys), []).append(row["accuracy"])
        assert all(len(found) == 3 for found in means.values())
        setting = tuple(ten[3][k] for k in keys)
        assert np.mean(means[setting]) == max(map(np.mean, means.values()))
    setting = {"steps": int(ten[3]["steps"])} | {k: float(ten[3][k]) for k in ("decay", "lr")}
    if base == "labels":
        found = chapter10_tuned.relearned(method, "kd", seed=3, **setting)
    else:  # a student of the default decay
        of = {k: float(ten[3][k]) for k in ("weight", "rate")}
        found = chapter10.relearned(method, base, layer="kd", seed=3, **of, **setting)
    assert found["accuracy"] == pytest.approx(ten[3]["accuracy"], abs=0.5)
    other, _ = reported(table, layer="labels", **wanted)
    assert abs(other[3]["accuracy"] - ten[3]["accuracy"]) > 0.5  # so what it learned from shows


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


@pytest.mark.parametrize("method", ["none", "contrastive"])
def test_a_new_last_layer_after_longer_training_comes_back_as_stored(method):
    rows = stored("10_longer_layers")
    rows = rows[(rows["method"] == method) & (rows["trained"] == 1200)]
    ten = rows[rows["seed"] < 10]
    assert sorted(ten["seed"]) == list(range(5))
    keys = ("steps", "decay", "lr")
    (setting,) = {tuple(row[k].item() for k in keys) for row in ten}
    tried = {}
    for row in rows[rows["seed"] >= 100]:
        tried.setdefault(tuple(row[k].item() for k in keys), []).append(row["accuracy"])
    if method == "none":
        assert np.mean(tried[setting]) == max(map(np.mean, tried.values()))
        (row,) = ten[ten["seed"] == 3]
        found = chapter10_longer.relearned(
            method, "kd", 1200, **dict(zip(keys, setting, strict=True)), seed=3
        )
        assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.5)
    else:  # the layer as it was chosen for the student of 200 steps
        short, _ = reported("10_layers_decay", method=method, layer="kd")
        assert not tried and setting == tuple(short[0][k].item() for k in keys)


def test_a_new_last_layer_on_kds_features_with_contrasts_decay_comes_back_as_stored():
    ten, tried = reported("10_decay_layers", method="none")
    assert set(ten["trained_decay"]) == {chapter10_tuned.chosen("contrastive")["decay"]} == {1.0}
    keys = ("steps", "decay", "lr")
    (setting,) = {tuple(row[k].item() for k in keys) for row in ten}
    usual, _ = reported("10_layers_decay", method="none", layer="kd")  # of students with a decay of 0.01
    means = {}
    for row in tried:
        means.setdefault(tuple(row[k].item() for k in keys), []).append(row["accuracy"])
    assert all(len(found) == 3 for found in means.values())
    assert np.mean(means[setting]) == max(map(np.mean, means.values()))
    found = chapter10_decay.relearned("none", 1.0, **dict(zip(keys, setting, strict=True)), seed=3)
    assert found["accuracy"] == pytest.approx(ten[3]["accuracy"], abs=0.25)
    assert ten[3]["accuracy"] - usual[3]["accuracy"] > 0.3  # so the student's decay shows


def test_kd_in_longer_training_with_its_own_temperature_and_decay_comes_back_as_stored():
    """All six pairs were tried, the pair and the rate reported are the best on validation; one run again."""
    ten, tried = reported("10_temperature", method="none")
    keys = ("T", "decay", "lr")
    means = {}
    for row in tried:
        means.setdefault(tuple(row[k].item() for k in keys), []).append(row["accuracy"])
    assert all(len(found) == 3 for found in means.values())
    assert {(T, d, 0.03) for T in (1, 2, 4) for d in (0.01, 1)} <= means.keys()
    (setting,) = {tuple(row[k].item() for k in keys) for row in ten}
    assert np.mean(means[setting]) == max(map(np.mean, means.values()))
    found = chapter10_temperature.one("none", weight=0.0, seed=3, **dict(zip(keys, setting, strict=True)))
    assert found["accuracy"] == pytest.approx(ten[3]["accuracy"], abs=1)


def test_the_recipes_time_is_counted_in_steps_of_kd():
    """Step times of chapter 13, a last layer's step and one reading of the features."""
    times = {r["method"]: r["time"] for r in stored("13_costs") if r["student"] == "conv"}
    of = stored("10_tuned_time")
    layers, _ = reported("10_tuned_layers", method="contrastive", layer="kd")
    swap = np.median(of["features"]) + layers[0]["steps"] * np.median(of["layer"])
    labels_contrast = (times["kd+contrastive"] - times["kd"] + times["hard"]) / times["kd"]
    glued = {}
    for cell in NOTEBOOK.cells:
        for output in cell.get("outputs", ()):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name", "")
            if name in ("ch10_both_time", "ch10_long_time", "ch10_kd_swap_time"):
                glued[name] = float(next(iter(output["data"].values())).strip("'()"))
    assert glued["ch10_both_time"] == pytest.approx(swap + 200 * labels_contrast, abs=1)
    of_kd, _ = reported("10_decay_layers", method="none")
    swap = np.median(of["features"]) + of_kd[0]["steps"] * np.median(of["layer"])
    assert glued["ch10_kd_swap_time"] == pytest.approx(200 + swap, abs=1)
    assert glued["ch10_long_time"] == pytest.approx(1200 * times["kd+contrastive"] / times["kd"], abs=1)


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


def test_the_table_of_what_each_loss_notices():
    """Its rows, again: four images with two features, as points."""
    corners = tensor([2.0, 0.2], [1.6, 1.4], [0.3, 1.9], [-0.9, 0.8])
    turn = torch.linalg.qr(tensor([1.0, 2.0], [-3.0, 1.0]))[0]
    one = tensor([0, 0], [0, 0], [0, 0], [2.0, 0])
    changes = [1.6 * corners, corners @ turn, corners + tensor([2.0, 0]), corners + one]

    def fitted(points):
        seen = torch.cat([points, torch.ones(4, 1, dtype=torch.double)], 1)
        return seen @ torch.linalg.lstsq(seen, corners).solution

    def learned_on(points):
        """Contrast after a long descent of a regressor with an offset."""
        W, b = torch.eye(2, dtype=torch.double), torch.zeros(2, dtype=torch.double)
        W.requires_grad_(), b.requires_grad_()
        descent = torch.optim.Adam([W, b], lr=0.02)
        for _ in range(2000):
            descent.zero_grad()
            loss = contrastive_loss(points @ W.T + b, corners)
            loss.backward()
            descent.step()
        return loss.item()

    risen = {
        "hint, regressor fixed": [hint_loss(p, corners) for p in changes],
        "hint, regressor learning on": [hint_loss(fitted(p), corners) for p in changes],
        "similarity": [similarity_preserving_loss(p, corners) for p in changes],
        "distances, angles": [rkd_distance_loss(p, corners) + rkd_angle_loss(p, corners) for p in changes],
    }
    (text,) = [c.source for c in NOTEBOOK.cells if c.source.count("| notices? |")]
    for name, losses in risen.items():
        row = " | ".join("yes" if loss > 1e-9 else "–" for loss in losses)
        assert f"| {name} | {row} |" in text
    at_first = learned_on(corners)
    assert at_first < contrastive_loss(corners, corners) - 0.01  # so the regressor does learn
    assert learned_on(changes[-1]) == pytest.approx(at_first, abs=1e-3)
    assert "| contrast, regressor learning on | – | – | – | – |" in text
