"""Chapter 17: its equations, its runs, its exercises."""

import csv

import pytest
import torch
from torch import nn

from companion import checks
from companion.compress import Rounded, rounded
from companion.deploy import OnnxModel
from companion.speculative import acceptance, tokens_per_call, verify
from companion.teachers import SmolLM2
from experiments import chapter17, chapter17_drafted
from experiments.common import REPORTED, TUNING
from tests.test_notebooks import ROOT

DOUBLE = {"dtype": torch.double}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


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


@pytest.mark.equation("eq-acceptance")
def test_acceptance_is_one_minus_the_total_variation_and_what_the_rule_keeps():
    s, t = logits(0, 200, 12), logits(1, 200, 12)
    q, p = s.softmax(-1), t.softmax(-1)
    a = acceptance(s, t)
    assert torch.allclose(a, 1 - (p - q).abs().sum(-1) / 2)
    assert torch.allclose(a, (q * (p / q).clamp(max=1)).sum(-1))  # proposed by q, kept with min(1, p/q)
    assert torch.allclose(a, acceptance(t, s)) and torch.allclose(acceptance(t, t), torch.ones(200, **DOUBLE))
    assert torch.allclose(
        acceptance(torch.tensor([[0.2, 0.5, 0.3]]).log(), torch.tensor([[0.5, 0.3, 0.2]]).log()),
        torch.tensor(0.7),
    )


@pytest.mark.equation("eq-speculative")
def test_what_comes_out_is_the_target_s():
    """Exactly, from the rule; and counted, from the code."""
    s, t = logits(2, 50, 9), logits(3, 50, 9)
    q, p = s.softmax(-1), t.softmax(-1)
    kept = torch.minimum(p, q)
    rest = (p - q).clamp(min=0)
    out = kept + (1 - kept.sum(-1, keepdim=True)) * rest / rest.sum(-1, keepdim=True)
    assert torch.allclose(out, p)

    s, t, generator = logits(4, 1, 3), logits(5, 2, 3), seeded(6)
    q, p, counts, n = s.softmax(-1), t.softmax(-1), torch.zeros(3), 6000
    for _ in range(n):
        proposed = q[0].multinomial(1, generator=generator)
        counts[verify(proposed, s, t, generator)[0]] += 1
    assert (counts / n - p[0]).abs().max() < 4 * (p[0] * (1 - p[0]) / n).sqrt().max()
    assert (q[0] - p[0]).abs().max() > 0.1  # the draft's own would be far off


@pytest.mark.equation("eq-tokens-per-call")
def test_tokens_per_call_is_the_mean_of_a_cut_geometric():
    for a, n in ((0.7, 4), (0.5, 1), (0.9, 8), (0.0, 3), (1.0, 3)):
        kept = [a**k * (1 - a) for k in range(n)] + [a**n]  # k proposals kept, then one token more
        assert tokens_per_call(a, n) == pytest.approx(sum((k + 1) * chance for k, chance in enumerate(kept)))
    assert tokens_per_call(0.7, 4) == pytest.approx((1 - 0.7**5) / 0.3)

    a, n, generator = 0.6, 3, seeded(7)  # tokens of which the draft gets the share a right, counted
    q, p = torch.tensor([1.0, 0.0]), torch.tensor([a, 1 - a])
    s, t = q.log().expand(n, 2), p.log().expand(n + 1, 2)
    lengths = [len(verify(torch.zeros(n, dtype=torch.long), s, t, generator)) for _ in range(3000)]
    assert sum(lengths) / 3000 == pytest.approx(tokens_per_call(a, n), abs=0.08)


# ------------------------------------------------------------------------------------------------ the stored runs


def rows(name):
    lines = (ROOT / f"chapters/results/17_{name}.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.mark.parametrize(
    "name, score", [("whole", "accuracy"), ("repaired", "accuracy"), ("drafts", "accepted")]
)
def test_each_reported_setting_was_chosen_on_validation_and_lies_within_its_grid(name, score):
    groups = {}
    for row in rows(name):
        groups.setdefault(tuple(row.get(k) for k in ("damage", "how", "kind")), []).append(row)
    assert groups
    for setting, found in groups.items():
        means = {}
        for row in found:
            assert row["part"] == ("val" if int(row["seed"]) in TUNING else "test")
            if row["part"] == "val":
                means.setdefault(float(row["lr"]), []).append(float(row[score]))
        best = max(means, key=lambda lr: sum(means[lr]))
        told = [row for row in found if row["part"] == "test"]
        assert {float(row["lr"]) for row in told} == {best}, setting
        assert sorted(int(row["seed"]) for row in told) == list(REPORTED)
        assert all(len(values) == 3 for values in means.values())
        assert min(means) < best < max(means), (setting, means)


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


def test_a_short_dictionary_has_a_hundred_words_of_the_long_one(monkeypatch):
    sets = []
    monkeypatch.setattr(
        chapter17, "asked", lambda seed, part, n, kind: sets.append((n, kind)) or (torch.zeros(2, 293), 0, 0)
    )
    monkeypatch.setattr(chapter17, "Split", lambda x, y: x)
    monkeypatch.setattr(chapter17, "fit_many", lambda *a, **k: None)
    for kind in chapter17.KINDS:
        chapter17.drafts.__wrapped__(kind, 0.01, (0,))
    assert [n for n, _ in sets] == [1000, 100, 1000, 1000]


def test_a_context_is_two_phonemes_and_five_letters():
    spelled, said = torch.tensor([[5, 6, 7, 2, 0]]), torch.tensor([[2, 30, 31, 3]])
    x, y, kept = chapter17.contexts(spelled, said)
    assert x.shape == (3, 2 * 74 + 5 * 29) and y.tolist() == [30, 31, 3] and kept.all()
    blocks = [row.nonzero()[:, 0].tolist() for row in x]
    starts = [0, 74, 148, 177, 206, 235, 264]
    found = [[i - start for i, start in zip(row, starts, strict=True)] for row in blocks]
    assert found == [[2, 2, 0, 5, 6, 7, 2], [30, 2, 5, 6, 7, 2, 0], [31, 30, 6, 7, 2, 0, 0]]
    x, y, kept = chapter17.contexts(spelled.repeat(2, 1), torch.tensor([[2, 30, 31, 3], [2, 30, 3, 0]]))
    assert len(x) == len(y) == 5 and kept.sum(1).tolist() == [3, 2]


def small_target():
    """Six tokens, two blocks, weights drawn at random and large enough that a token matters."""
    torch.manual_seed(0)
    target = SmolLM2(layers=2, width=8, heads=2, heads_kv=1, inner=16, vocabulary=6)
    return target.requires_grad_(False).eval()


def test_what_is_drafted_is_the_target_s_two_tokens_long():
    """Both tokens together, counted; a cache cut at the wrong place would show in the second."""
    target, ids, n = small_target(), torch.tensor([[1, 4, 2, 0, 3]]), 1500
    draft = chapter17_drafted.Draft(target.embedding.weight, torch.tensor([0, 2, 3, 5]), seed=1)
    pairs = torch.cat([ids.repeat(6, 1), torch.arange(6)[:, None]], 1)
    first, second = target(ids)[0, -1].softmax(-1), target(pairs)[:, -1].softmax(-1)
    p, counts, generator = first[:, None] * second, torch.zeros(6, 6), seeded(3)
    for _ in range(n):
        new, took = chapter17_drafted.written(target, ids, 2, generator, draft)
        counts[new[0], new[1]] += 1
        assert len(new) == 2 and 1 <= took["runs"] <= 2 <= took["tokens"] <= 6
    assert ((counts / n - p).abs() < 4.5 * (p * (1 - p) / n).sqrt() + 1e-3).all()


def test_a_draft_does_not_change_what_a_cached_run_sees():
    target, ids = small_target(), torch.tensor([[1, 4, 2, 0, 3]])
    draft = chapter17_drafted.Draft(target.embedding.weight, torch.tensor([0, 2, 3, 5]), seed=1)
    asked, forward = [], target.forward

    def watched(new, mask=None, cache=None):
        z = forward(new, mask, cache)
        asked.append((new, z, cache[0][0].shape[2]))
        return z

    target.forward = watched
    new, _ = chapter17_drafted.written(target, ids, 12, seeded(5), draft)
    text = torch.cat([ids[0], new])
    for part, z, length in asked[1:]:
        before = text[: length - part.shape[1]]
        assert torch.allclose(z, forward(torch.cat([before[None], part], 1))[:, -part.shape[1] :], atol=1e-5)


def test_the_stored_drafts_of_the_bible_were_chosen_on_validation():
    found = rows("bible_drafts")
    for kind in chapter17_drafted.KINDS:
        means = {}
        for row in found:
            if row["kind"] == kind and row["part"] == "val":
                means.setdefault(float(row["lr"]), []).append(float(row["accepted"]))
        best = max(means, key=lambda lr: sum(means[lr]))
        told = [row for row in found if row["kind"] == kind and row["part"] == "test"]
        assert {float(row["lr"]) for row in told} == {best} and min(means) < best < max(means)
        assert sorted(int(row["seed"]) for row in told) == list(chapter17_drafted.REPORTED)
        assert all(len(values) == len(TUNING) for values in means.values())


def test_each_size_of_a_check_is_timed_once_a_turn(monkeypatch):
    target, asked = small_target(), []
    monkeypatch.setattr(chapter17_drafted, "in_format", lambda numbers: target)
    monkeypatch.setattr(chapter17_drafted, "windows", lambda *_: torch.ones(15, 96, dtype=torch.long))
    forward = target.forward

    def watched(new, mask=None, cache=None):
        asked.append((new.shape[1], cache[0][0].shape[2] if cache else 0))
        return forward(new, mask, cache)

    target.forward = watched
    row = chapter17_drafted.check_times("float32", 3)
    assert asked[0] == (80, 0) and sorted(asked[1:]) == [(n + 1, 80) for n in range(9)]
    assert list(row) == [f"proposals_{n}" for n in range(9)] and min(row.values()) > 0
    found = rows("checks")
    assert len(found) == 30 and {row["numbers"] for row in found} == {"float32", "bfloat16"}


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


SHARE = {
    "✓ kept_share": lambda p, q: 1 - (p - q).abs().sum(-1) / 2,
    "this is the total variation": lambda p, q: (p - q).abs().sum(-1) / 2,
    "you took the whole": lambda p, q: 1 - (p - q).abs().sum(-1),
    "the larger of the two": lambda p, q: torch.maximum(p, q).sum(-1),
    "two independent draws": lambda p, q: (p * q).sum(-1),
    "mean over the tokens": lambda p, q: torch.minimum(p, q).mean(-1),
    "weigh it by how often": lambda p, q: (p / q).clamp(max=1).mean(-1),
    "one number for all rows": lambda p, q: torch.minimum(p, q).sum(-1).mean(),
    "the result differs": lambda p, q: p.sum(-1) * 0,
    "not attempted": lambda p, q: None,
}


@pytest.mark.parametrize("hint", SHARE)
def test_check_of_the_share_that_is_kept(hint, capsys):
    assert hint in said(checks.kept_share, SHARE[hint], capsys)


def test_what_comes_out_of_the_exercise_s_draft(capsys):
    p, q = torch.tensor([[0.6, 0.4]], **DOUBLE), torch.tensor([[0.9, 0.1]], **DOUBLE)
    kept = acceptance(q.log(), p.log()).item()
    second = 0.1 + (1 - kept) * 1.0  # proposed and kept; or put in the place of a refused first one
    assert said(checks.what_comes_out, lambda: (kept, second), capsys) == "✓ what_comes_out"
    assert "refused" in said(checks.what_comes_out, lambda: (0.3, 0.4), capsys)


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
