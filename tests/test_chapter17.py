"""Chapter 17: its equations, its runs, its exercises."""

import ast
import csv

import pytest
import torch
from torch import nn

from companion import checks
from companion.compress import Rounded, pruned, quantized, rounded, settled
from companion.deploy import OnnxModel
from companion.models import MLP
from experiments import chapter17, chapter17_all, chapter17_times
from experiments.common import REPORTED, TUNING
from tests.drawn import seeded
from tests.test_notebooks import ROOT

DOUBLE = {"dtype": torch.double}


def logits(seed, *shape):
    return 2 * torch.randn(*shape, generator=seeded(seed), **DOUBLE)


@pytest.mark.equation("eq-rounded")
def test_rounding_by_hand():
    """The four weights of the chapter's table, at 3 bits."""
    w = torch.tensor([[0.9, -0.4, 0.1, -1.2]], **DOUBLE)
    assert torch.allclose(rounded(w, 3), torch.tensor([[0.8, -0.4, 0.0, -1.2]], **DOUBLE))
    assert torch.allclose(rounded(w, 2), torch.tensor([[1.2, 0.0, 0.0, -1.2]], **DOUBLE))
    for bits in (2, 3, 4, 8):
        values = rounded(torch.linspace(-1, 1, 10_001, **DOUBLE)[None], bits).mul(1e6).round().unique()
        assert len(values) == 2**bits - 1


@pytest.mark.equation("eq-straight-through")
def test_the_gradient_passes_straight_through():
    """The slope of any function of the rounded weights is that at the rounded weights; autograd's own would be 0."""
    w = torch.randn(3, 8, generator=seeded(), **DOUBLE).requires_grad_()
    at = rounded(w.detach(), 3).requires_grad_()
    hat = Rounded(3)(w)
    assert torch.allclose(hat, at)
    (there,) = torch.autograd.grad((at + 0.01).pow(2).sum(), at)
    (passed,) = torch.autograd.grad((hat + 0.01).pow(2).sum(), w)
    assert torch.allclose(passed, there) and there.abs().min() > 0
    scale = (w.abs().amax(1, keepdim=True) / 3).detach()
    (flat,) = torch.autograd.grad(((w / scale).round() * scale).sum(), w)
    assert (flat == 0).all()


# ------------------------------------------------------------------------------------------------ the stored runs


def rows(name):
    lines = (ROOT / f"chapters/results/17_{name}.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def chosen_by(row):
    """A repair by own former answers chooses without a label."""
    return "as_before" if row.get("how") in chapter17.OF_ITSELF else "accuracy"


@pytest.mark.parametrize("name", ["whole", "repaired", "all", "all_bits"])
def test_each_reported_setting_was_chosen_on_validation_and_lies_within_its_grid(name):
    groups = {}
    for row in rows(name):
        if float(row["lr"]):
            groups.setdefault(tuple(row.get(k) for k in ("damage", "bits", "how")), []).append(row)
    assert groups
    for setting, found in groups.items():
        means = {}
        for row in found:
            assert row["part"] == ("val" if int(row["seed"]) in TUNING else "test")
            if row["part"] == "val":
                means.setdefault(float(row["lr"]), []).append(float(row[chosen_by(row)]))
        best = max(means, key=lambda lr: sum(means[lr]))
        told = [row for row in found if row["part"] == "test"]
        assert {float(row["lr"]) for row in told} == {best}, setting
        assert sorted(int(row["seed"]) for row in told) == list(REPORTED)
        assert all(len(values) == 3 for values in means.values())
        assert min(means) < best < max(means), (setting, means)


def test_the_student_of_all_images_is_the_one_that_is_rounded():
    known = {
        r["seed"]: float(r["accuracy"])
        for r in rows("all")
        if r["how"] == "distilled" and r["part"] == "test"
    }
    found = [row for row in rows("all_bits") if row["part"] == "test"]
    told = {(row["bits"], row["how"]) for row in found}
    assert told == {("8", "file"), ("4", "rounded"), ("3", "rounded"), ("3", "1000 new images")}
    assert len(found) == 10 * len(told)
    for row in found:
        assert abs(float(row["before"]) - known[row["seed"]]) < 0.05, row
    teachers = {r["seed"]: r["teacher"] for r in rows("whole") if r["part"] == "test"}
    assert all(r["teacher"] == teachers[r["seed"]] for r in rows("all") if r["part"] == "test")


def test_the_student_has_its_teachers_conditions(monkeypatch):
    recipe = defined_in(ROOT / "scripts/train_teachers.py", "RECIPES")["fashion"]
    seen = {}
    monkeypatch.setattr(chapter17_all, "fashion_full", lambda folder: (chapter17.TEST, None))
    monkeypatch.setattr(chapter17_all, "IMAGES", 300)
    monkeypatch.setattr(
        chapter17_all,
        "fit_many",
        lambda nets, images, loss, said, **k: seen.update(images=images, said=said, **k),
    )
    for cached in (chapter17_all.everything, chapter17_all.answers, chapter17_all.taught):
        cached.cache_clear()
    chapter17_all.taught("distilled", 0.01, (3, 14))
    assert seen["steps"] == recipe["steps"] == 3600
    assert torch.equal(seen["images"].x, chapter17.TEST.x[:300])
    for index, said in zip((3, 4), seen["said"], strict=True):
        right = chapter17.predict(chapter17.fashion_teacher(index), chapter17.TEST.x[:300])
        assert torch.allclose(said, right, atol=1e-5)
    for cached in (chapter17_all.everything, chapter17_all.answers, chapter17_all.taught):
        cached.cache_clear()


def defined_in(path, name):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (value,) = (s.value for s in tree.body if isinstance(s, ast.Assign) and s.targets[0].id == name)
    return eval(compile(ast.Expression(value), str(path), "eval"))


def test_a_repair_learns_from_the_images_of_its_name(monkeypatch):
    seen = []
    monkeypatch.setattr(
        chapter17, "wholes", lambda how, lr, seeds: {s: MLP(784, 64, 10, seed=s) for s in seeds}
    )
    monkeypatch.setattr(
        chapter17, "fit_many", lambda nets, images, loss, said, **k: seen.append((images, loss, said))
    )
    for how in ("1000 new images", "1000 old images", "9000 images", "1000 old labels"):
        chapter17.repaired.__wrapped__("3 bits", how, 0.01, 0.001, (0,))
    (new, _, own), (old, _, _), (all_, _, _), (labelled, loss, nothing) = seen
    assert torch.equal(new.x, chapter17.NEW.x) and torch.equal(all_.x, chapter17.OWN.x)
    assert torch.equal(old.x, chapter17.OWN.x[:1000]) and torch.equal(labelled.x, old.x)
    assert loss is chapter17.hard_loss and nothing is None
    assert torch.allclose(own[0], chapter17.predict(MLP(784, 64, 10, seed=0), new.x))


def test_three_ways_to_time_a_file(monkeypatch):
    """In a row nothing runs between two calls of a file; after other work, the work; in turn, each file once a round."""
    log = []

    class Beside:
        def sum(self):
            log.append("work")

    monkeypatch.setattr(chapter17_times, "BESIDE", Beside())
    calls = {name: lambda x, name=name: log.append(name) for name in "abc"}
    found = chapter17_times.ways(calls, None, 4)
    assert set(found) == {f"{name}_{way}" for name in "abc" for way in ("row", "work", "turn")}
    alone, turns = log[: 3 * 18], log[3 * 18 :]
    for i in range(3):
        part = alone[18 * i : 18 * (i + 1)]
        (name,) = set(part) - {"work"}
        assert part == [name] * 6 + ["work", name] * 6
    assert len(turns) == 18 and all(sorted(turns[3 * i : 3 * i + 3]) == list("abc") for i in range(6))


def test_stored_times_have_forty_repeats_of_each_number_of_images():
    found = rows("times")
    told = sorted((int(row["images"]), int(row["repeat"])) for row in found)
    assert told == sorted((n, r) for n in chapter17_times.COUNTS for r in range(40))
    assert all(
        float(value) > 0 for row in found for key, value in row.items() if key not in ("repeat", "images")
    )


def test_images_of_the_repair_are_new_to_the_student():
    assert len(chapter17.OWN) == 9000 and len(chapter17.NEW) == 1000
    seen = {image.numpy().tobytes() for image in chapter17.OWN.x[:, :, 10:18]}
    again = sum(image.numpy().tobytes() in seen for image in chapter17.NEW.x[:, :, 10:18])
    assert again < 10  # the set repeats a few images


def test_fewer_labels_alone_are_tried_with_the_teachers_own_kind(monkeypatch):
    asked = []
    monkeypatch.setattr(chapter17, "fit", lambda net, split, loss, *rest, **k: asked.append((net, split, k)))
    found = chapter17.wholes.__wrapped__("ConvNet(16) alone", 0.003, (5, 6))
    assert [type(net).__name__ for net in found.values()] == ["ConvNet"] * 2 and list(found) == [5, 6]
    assert all(split is chapter17.OWN and k["steps"] == chapter17.STEPS for _, split, k in asked)


def test_zipped_networks_are_those_that_were_repaired():
    for damage in chapter17.ZIPPED:
        here = {r["seed"]: r for r in rows("zipped") if r["damage"] == damage}
        known = [r for r in rows("repaired") if r["damage"] == damage and r["how"] == "1000 new images"]
        known = {r["seed"]: r for r in known if r["part"] == "test"}
        assert sorted(here, key=int) == sorted(known, key=int) == [str(s) for s in REPORTED]
        for seed, row in here.items():
            assert row["lr"] == known[seed]["lr"] and row["part"] == "test"
        most = 2 if damage == "2 bits" else 0.2  # two bits learned on another processor
        for column in ("accuracy", "as_before"):
            off = [abs(float(here[seed][column]) - float(known[seed][column])) for seed in here]
            assert max(off) < most, (damage, column)


def test_whole_numbers_lead_back_to_the_weights():
    for bits in (2, 3):
        layer = settled(quantized(MLP(784, 64, 10, seed=0), bits)).layers[0]
        found = chapter17.whole_numbers(layer, bits)
        most = 2 ** (bits - 1) - 1
        assert found.unique().tolist() == list(range(-most, most + 1))
        s = layer.weight.abs().amax(1, keepdim=True) / most
        assert torch.allclose(found * s, layer.weight, atol=1e-7)


def test_a_zipped_file_has_eight_bits_and_all_that_is_needed(monkeypatch):
    """Zeros take hardly anything, and three bits less than the eight of a file."""
    net = MLP(784, 64, 10, seed=0).eval()
    made = {"3 bits": settled(quantized(net, 3)), "80 % out": settled(pruned(net, 0.8)), "0 % out": net}
    monkeypatch.setattr(chapter17, "wholes", lambda how, lr, seeds: dict.fromkeys(seeds, net))
    monkeypatch.setattr(chapter17, "repaired", lambda damage, how, a, b, seeds: {0: made[damage]})
    monkeypatch.setattr(chapter17, "examined", lambda seed: ("val", chapter17.VAL[:200]))
    found = {damage: chapter17.zipped_one(damage, 0.01, 0.01, 0) for damage in made}
    size = {damage: row["kilobytes"] for damage, row in found.items()}
    assert max(size["3 bits"], size["80 % out"]) < 25 < 40 < size["0 % out"] < 56
    assert found["0 % out"]["as_before"] > 97


# ----------------------------------------------------------------------------------------------- exercises


def said(check, attempt, capsys):
    check(attempt)
    return capsys.readouterr().out.strip()


def grid(w, bits, steps=None, largest=None):
    steps = steps or 2 ** (bits - 1) - 1
    scale = (w.abs().max(1, keepdim=True).values if largest is None else largest) / steps
    return scale * (w / scale).round()


def through(w, bits):
    return w - w.detach() + grid(w.detach(), bits)


THROUGH = {
    "✓ straight_through": through,
    "these are whole numbers": lambda w, b: grid(w, b) / (w.abs().amax(1, keepdim=True) / (2 ** (b - 1) - 1)),
    "one scale for the whole matrix": lambda w, b: grid(w, b, largest=w.abs().max()),
    "each column has a scale": lambda w, b: grid(w, b, largest=w.abs().amax(0)),
    "are one too many": lambda w, b: grid(w, b, steps=2 ** (b - 1)),
    "both sides together": lambda w, b: grid(w, b, steps=2**b - 1),
    "the largest weight without its sign": lambda w, b: grid(w, b, largest=w.amax(1, keepdim=True)),
    "the gradient is that of rounding": grid,
    "no gradient reaches the student": lambda w, b: grid(w.detach(), b),
    "the result differs": lambda w, b: w,
    "not attempted": lambda w, b: None,
}


@pytest.mark.parametrize("hint", THROUGH)
def test_check_of_the_gradient_that_passes(hint, capsys):
    assert hint in said(checks.straight_through, THROUGH[hint], capsys)


def test_diagnosis_of_three_exports(capsys):
    assert said(checks.way_out, lambda: ("mode", "batch", "warm-up"), capsys) == "✓ way_out"
    assert "What is different in the first?" in said(
        checks.way_out, lambda: ("mode", "batch", "batch"), capsys
    )


def test_batch_norm_in_training_mode_answers_by_the_company_it_keeps():
    """The first diagnosis of the exercise, as it looks."""
    norm, x = nn.BatchNorm1d(4), torch.randn(6, 4, generator=seeded())
    assert not torch.allclose(norm(x)[:2], norm(x[:2])[:2])
    assert torch.allclose(norm.eval()(x)[:2], norm(x[:2]))


def test_the_record_keeps_dropout_and_the_step_to_onnx_switches_it_off(tmp_path):
    """As the page says; whoever exports a network in training mode must not build on the second half."""
    model = nn.Sequential(nn.Linear(6, 64), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 4)).train()
    x = torch.randn(8, 6, generator=seeded())
    record = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    right = model.eval()(x).detach()
    torch.onnx.export(record, (), str(tmp_path / "m.onnx"), dynamo=True, external_data=False, verbose=False)
    assert torch.allclose(OnnxModel(tmp_path / "m.onnx")(x), right, atol=1e-5)
    assert (record.module()(x) - right).abs().max() > 0.1  # last, as it moves the averages


RIVAL = "ConvNet(16)"


def test_rivals_are_ten_runs_each_whose_rate_was_chosen_on_validation():
    found, tried = {}, {}
    for row in rows("rivals"):
        assert row["part"] == ("val" if int(row["seed"]) in TUNING else "test")
        if row["part"] == "test":
            setting = (row["network"], int(row["bits"]), row["how"])
            found.setdefault(setting, []).append((float(row["lr"]), int(row["seed"])))
        else:
            tried.setdefault(float(row["lr"]), []).append(float(row["as_before"]))
    mended = (RIVAL, 3, "1000 new images")
    assert {(RIVAL, 8, "file"), ("MLP(784 64 10)", 8, "file"), (RIVAL, 4, "rounded"), mended} <= set(found)
    best = max(tried, key=lambda lr: sum(tried[lr]))
    assert min(tried) < best < max(tried) and all(len(values) == 3 for values in tried.values())
    for setting, runs in found.items():
        assert sorted(seed for _, seed in runs) == list(REPORTED), setting
        assert {lr for lr, _ in runs} == {best if setting == mended else 0.0}, setting


def test_rivals_before_rounding_are_the_networks_of_the_other_tables():
    """The same ten teachers, and the same ten students, as those that the page compares them with."""
    whole = [row for row in rows("whole") if row["how"] == "distilled" and row["part"] == "test"]
    for network, column in ((RIVAL, "teacher"), ("MLP(784 64 10)", "accuracy")):
        known = {row["seed"]: float(row[column]) for row in whole}
        for row in rows("rivals"):
            if row["network"] == network and row["part"] == "test":
                assert abs(float(row["before"]) - known[row["seed"]]) < 0.05, row


def test_a_rival_is_repaired_on_new_images_by_its_own_answers(monkeypatch):
    seen = {}

    def fit(net, split, loss, taught, **settings):
        seen.update(net=net, split=split, taught=taught, **settings)

    monkeypatch.setattr(chapter17, "fit", fit)
    monkeypatch.setattr(chapter17, "examined", lambda seed: ("val", chapter17.VAL[:50]))
    got = chapter17.rival_one(RIVAL, 3, "1000 new images", 0.001, 101)
    assert seen["split"] is chapter17.NEW and seen["steps"] == chapter17.MORE and seen["lr"] == 0.001
    own = chapter17.predict(chapter17.fashion_teacher(1), chapter17.NEW.x)
    assert torch.equal(seen["taught"], own)
    values = seen["net"].stages[0][0].weight[0].detach().mul(1e5).round().unique()
    assert len(values) <= 7  # rounded while it learns
    assert got["part"] == "val"
