"""Chapter 7: its equations, its tables, its exercises."""

import csv
import inspect
import json
import re
import warnings
import weakref
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from companion import checks
from companion.audit import CASES, audit
from companion.checks import conventions
from companion.losses import distillation_loss
from companion.tokens import generalized_jsd_loss
from experiments.chapter07 import PER_CLASS, RATES, READINGS, SEEDS
from experiments.chapter07_conventions import measure
from experiments.chapter07_memory import careful_loss as memory_loss
from experiments.chapter07_memory import measured_alone
from experiments.chapter07_memory import step as memory_step

ROOT = Path(__file__).parent.parent


def lines(name):
    with (ROOT / f"chapters/results/{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def normal(*shape):
    return 2 * torch.randn(2, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.double)


def kl(z, v, T):
    """From the definition, one value a row."""
    log_p, log_q = (v / T).log_softmax(-1), (z / T).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@pytest.mark.equation("eq-conventions")
def test_the_form_holds_this_books_loss():
    (z, v), y = normal(8, 5), torch.arange(8) % 5
    theirs = 0.3 * F.cross_entropy(z, y) + 0.7 * 3.0**2 / 1 * kl(z, v, 3.0).mean()
    assert torch.isclose(theirs, distillation_loss(z, v, y, 3.0, 0.7))


@pytest.mark.equation("eq-conventions")
@pytest.mark.parametrize("mean, m", [("batchmean", 1), ("mean", 5)])
@pytest.mark.parametrize("k", [0, 2])
def test_the_form_holds_pytorchs_two_averages_with_and_without_t2(mean, m, k):
    (z, v), y = normal(8, 5), torch.arange(8) % 5
    soft = F.kl_div((z / 3).log_softmax(-1), (v / 3).softmax(-1), reduction=mean) * 3.0**k
    theirs = 0.2 * F.cross_entropy(z, y) + 0.7 * soft
    form = 0.2 * F.cross_entropy(z, y) + 0.7 * 3.0**k / m * kl(z, v, 3.0).mean()
    assert torch.isclose(theirs, form)


@pytest.mark.equation("eq-kl-div-mean")
@pytest.mark.parametrize("shape", [(8, 5), (2, 3, 7)])
def test_mean_is_smaller_by_the_classes(shape):
    z, v = normal(*shape)
    mean = F.kl_div(z.log_softmax(-1), v.softmax(-1), reduction="mean")
    assert torch.isclose(kl(z, v, 1.0).mean() / mean, torch.tensor(float(shape[-1]), dtype=torch.double))


@pytest.mark.equation("eq-same-training")
@pytest.mark.parametrize(
    "hard, soft, k, T, m", [(0.3, 0.7, 2, 4.0, 1), (1, 2, 0, 4.0, 1), (0.5, 0.5, 2, 2.0, 5)]
)
def test_the_converted_setting_has_the_same_gradient_up_to_the_scale(hard, soft, k, T, m):
    (z, v), y = normal(8, 5), torch.arange(8) % 5
    z.requires_grad_()
    theirs = hard * F.cross_entropy(z, y) + soft * T**k / m * kl(z, v, T).mean()
    weight = soft * T ** (k - 2) / m
    ours = (hard + weight) * distillation_loss(z, v, y, T, weight / (hard + weight))
    assert torch.isclose(theirs, ours)
    torch.testing.assert_close(*(torch.autograd.grad(loss, z)[0] for loss in (theirs, ours)))


def answers(mends, loss):
    """What a loss returns to the three calls of 7.2."""
    students = (mends[name] for name in ("SHIRT", "KNOWS_NOTHING", "MISTAKEN"))
    return [float(loss(z, mends["SHIRT"], torch.tensor([2]))) for z in students]


@pytest.mark.parametrize(
    "library, form",
    [
        ("torchdistill", lambda ce, z, v: 0.9 * ce + 1.6 * kl(z, v, 4.0)),
        ("Keras", lambda ce, z, v: 0.9 * ce + 1.6 * kl(z, v, 4.0)),
        ("ModelOpt", lambda ce, z, v: 0.1 * ce + 14.4 * kl(z, v, 4.0) / 3),
        ("Liger, beta=0", lambda ce, z, v: 0.1 * ce + 0.9 * kl(z, v, 4.0)),
        ("Liger, beta=0, both weights sent", lambda ce, z, v: 0.1 * ce + 14.4 * kl(z, v, 4.0)),
        ("Liger, beta=0, shares sent", lambda ce, z, v: 0.1 / 14.5 * ce + 14.4 / 14.5 * kl(z, v, 4.0)),
        ("Liger, beta=0, a vocabulary", lambda ce, z, v: 0.1 * ce + 0.9 * kl(z, v, 4.0)),
        ("Liger, default", lambda ce, z, v: 0.1 * ce + 0.9 * generalized_jsd_loss(z, v, T=4, beta=0.5) / 16),
    ],
)
def test_the_stored_answers_are_those_of_the_librarys_formula(mends, library, form):
    row = next(row for row in lines("07_calls") if row["library"] == library)
    stored = [float(row[key]) for key in ("agrees", "knows_nothing", "mistaken")]
    assert answers(mends, lambda z, v, y: form(F.cross_entropy(z, y), z, v)) == pytest.approx(
        stored, abs=2e-5
    )


@pytest.fixture(scope="module")
def three_calls(mends, faults):
    """The lines of the page as a function."""
    source = next(s for s in cells("code") if "def three_calls" in s)
    names = {"F": F, "torch": torch, "SHIRT": mends["SHIRT"], "mended_loss": faults["mended_loss"]}
    names["KNOWS_NOTHING"] = mends["KNOWS_NOTHING"]
    exec(source[: source.index("def weights_in")], names)
    return names["three_calls"]


@pytest.mark.equation("eq-same-training")
@pytest.mark.parametrize(
    "hard, soft, k, divided, alpha",
    [(0.9, 0.1, 2, False, 0.1), (0.1, 0.9, 0, False, 0.36), (0.1, 0.9, 2, True, 0.75)],
)
def test_the_calls_of_the_chapter_find_alpha(three_calls, hard, soft, k, divided, alpha):
    """Of any loss of the form, not only of the one that stands there, at any T and number of classes."""
    for T, C in ((4.0, 3), (1.0, 3), (2.0, 10), (7.0, 32_000)):
        m = C if divided else 1

        def stranger(z, v, y, T=T, m=m):
            return hard * F.cross_entropy(z, y) + soft * T**k / m * kl(z, v, T).mean()

        labels, second, third = (float(w) for w in three_calls(stranger, T, C))
        w = soft * T ** (k - 2) / m
        assert [labels, second, third] == pytest.approx([hard, w, w], rel=1e-6)
        if (T, C) == (4.0, 3):
            assert round(second / (labels + second), 2) == alpha


@pytest.mark.parametrize("T, C", [(4, 3), (2, 10), (1, 151_936)])
def test_the_lines_that_are_read_find_the_same(mends, faults, capsys, T, C):
    """With the sum that stands there, and with a loss of one's own in its place."""
    source = "\n".join(s for s in cells("code") if s.startswith(("T, C = 4, 3", "labels, bag = 0")))
    names = {"F": F, "torch": torch, "SHIRT": mends["SHIRT"], "KNOWS_NOTHING": mends["KNOWS_NOTHING"]}
    names["mended_loss"] = faults["mended_loss"]
    names["loss"] = lambda z, v, y: 0.1 * F.cross_entropy(z, y) + 0.9 * kl(z, v, T).mean()
    source = source.replace("T, C = 4, 3", f"T, C = {T}, {C}")
    own = re.sub(r"answer = .*", "answer = loss(z, v, bag)", source)
    assert own != source and "or your own loss(z, v, bag)" in source
    for lines_read in (source, own):
        exec(lines_read, dict(names))
        weight = f"teacher {0.9 / T**2:.3f}\n"
        assert capsys.readouterr().out == "labels  0.100\n" + 2 * weight


@pytest.mark.parametrize("T", [1, 4])
def test_at_a_vocabulary_the_calls_bear_single_precision(three_calls, T):
    """The further classes' low logit keeps the KL large, so that float32 finds even a mean over the vocabulary."""
    C = 151_936

    def bare(z, v, y):
        z, v = z.float(), v.float()
        mean = F.kl_div((z / T).log_softmax(-1), (v / T).softmax(-1), reduction="mean")
        return 0.1 * F.cross_entropy(z, y) + 0.9 * T**2 * mean

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, *found = (float(w) for w in three_calls(bare, T, C))
    assert found == pytest.approx([0.9 / C] * 2, rel=0.01)


def test_the_calls_worked_by_hand_are_the_stored_ones():
    row = next(row for row in lines("07_calls") if row["library"] == "Liger, beta=0")
    one, two, three = (float(row[key]) for key in ("agrees", "knows_nothing", "mistaken"))
    text = "".join(cells("markdown"))
    assert f"labels: {one:.3f}/8.018 = 0.10" in text
    assert f"teacher: ({two:.3f} − 0.10 · 1.099)/4.26 = {(0.349 - 0.1099) / 4.26:.3f}" in text
    assert f"teacher: ({three:.3f} − 0.10 · 0.018)/18.41 = {(1.037 - 0.0018) / 18.41:.3f}" in text
    assert [round(x, 3) for x in (one, two, three)] == [0.802, 0.349, 1.037]


@pytest.mark.parametrize("C", [3, 151_936])
def test_the_adapter_of_the_chapter_hands_liger_the_three_students(mends, C):
    """What it returns is what is stored; and the inputs are left as they were."""
    pytest.importorskip("liger_kernel")
    text = next(s for s in cells("markdown") if "W = torch.zeros(C, 4)" in s)
    names = {"torch": torch, "F": F, "T": 4, "C": C}
    exec(text.split("```python\n")[1].split("```")[0], names)
    row = next(row for row in lines("07_calls") if row["library"] == "Liger, beta=0")
    stored = [float(row[key]) for key in ("agrees", "knows_nothing", "mistaken")]
    assert answers(mends, names["loss"]) == pytest.approx(stored, abs=2e-5)
    assert mends["SHIRT"].tolist() == [[8, 4, 0]]


@pytest.mark.parametrize(
    "soft, two, three",
    [
        (lambda z, v: kl(z, v, 4.0), 0.056, 0.056),
        (lambda z, v: 16 * kl(v, z, 4.0), 1.045, 0.9),
        (lambda z, v: generalized_jsd_loss(z, v, T=4, beta=0.5) / 16, 0.0145, 0.0121),
    ],
    ids=["KL(p‖q), no T²", "KL(q‖p)", "JSD"],
)
def test_the_third_call_of_the_chapter_tells_another_divergence(three_calls, soft, two, three):
    """Of KL(p‖q) both students find one weight, of another divergence two."""

    def backwards(z, v, y):
        return 0.1 * F.cross_entropy(z, y) + 0.9 * soft(z, v).mean()

    _, *found = (float(w) for w in three_calls(backwards))
    assert found == pytest.approx([two, three], rel=0.01)


@pytest.mark.equation("eq-their-weight")
@pytest.mark.parametrize("k, T, m, written", [(2, 4.0, 1, 0.9), (2, 4.0, 10, 0.989), (0, 4.0, 1, 0.993)])
def test_the_weight_written_there_trains_as_alpha_does_here(faults, k, T, m, written):
    (z, v), y = normal(8, 5), torch.arange(8) % 5
    z.requires_grad_()
    w = faults["their_weight"](0.9, T, k, m)
    assert round(w, 3) == written
    theirs = (1 - w) * F.cross_entropy(z, y) + w * T**k / m * kl(z, v, T).mean()
    push, ours = (torch.autograd.grad(loss, z)[0] for loss in (theirs, distillation_loss(z, v, y, T, 0.9)))
    torch.testing.assert_close(push / push.norm(), ours / ours.norm())


def test_the_table_says_what_to_write(faults):
    """0.1 on the labels, 0.989 where ten classes divide; no number for another divergence or without a weight."""
    rows = dict(zip(faults["library"], faults["functions"], strict=True))
    assert {name: faults["own_weight"](name, row)[1] for name, row in rows.items()} == {
        **dict.fromkeys(rows, "–"), "torchdistill": "0.1", "Keras": "0.1",
        "ModelOpt, bare": "0.989", "Liger, β = 0.5": "no equal",
    }  # fmt: skip
    assert faults["own_weight"]("Liger, β = 0", faults["forward"]) == ("both, by name", "0.1 and 14.4")


@pytest.mark.parametrize("name", ["F.kl_div, batchmean", "F.kl_div, mean"])
def test_pytorchs_lines_of_the_table_are_still_true(name):
    """The others are measured again by tests/peers, where they are installed."""
    written = next(row for row in lines("07_conventions") if row["library"] == name)
    assert {k: v for k, v in measure(name).items() if k != "version"} == {
        k: v for k, v in written.items() if k != "version"
    }


def cells(kind):
    notebook = json.loads((ROOT / "chapters/07_tools.ipynb").read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == kind]


@pytest.fixture(scope="module")
def faults():
    """The names that the cell of the fault table makes, of which it draws."""
    names = {
        "F": F,
        "torch": torch,
        "audit": audit,
        "read": lines,
        "plt": Ignored(),
        "plotting": Ignored(),
        "CASES": CASES,
        "Markdown": str,
        "display": str,
    }
    for part in ("def forum_loss", "def mended_loss", "def careful_loss", "shown = [", "PREVENTED = "):
        exec(next(source for source in cells("code") if part in source), names)
    return names


class Ignored:
    """Whatever is drawn with it."""

    def __getattr__(self, name):
        return self

    def __call__(self, *given, **named):
        return self

    def __iter__(self):
        return iter((self, self))


def test_the_fault_table_has_every_case_once_and_full_names(faults):
    assert sorted(faults["ORDER"]) == sorted(CASES)
    assert len(faults["functions"]) == 8
    for row in faults["functions"]:
        assert row["loss"].count(".") >= 2 and row["version"]


def test_a_convention_is_no_fault(faults):
    """batchmean's division by the texts, and the mean of nothing."""
    assert faults["functions"][0]["tokens"] == "sum over a text's tokens"
    assert faults["outcome"](1, "(B, L, V)") == "○"
    assert "✗" not in faults["table"]["empty batch"]
    assert faults["outcome"](2, "(N, C) against (N, 1)") == "✗"  # and a fault is none


def test_no_trainer_is_blamed_for_what_it_prevents(faults):
    for i, cases in faults["PREVENTED"].items():
        assert any("✗" in row["cases"] for row in faults["functions"][i - 1 : i])
        assert all(faults["outcome"](i, case) != "✗" for case in cases)
        assert any(faults["outcome"](i, case) == "–" for case in cases)


def test_the_readings_hold_the_stored_grid_and_the_alphas_of_the_chapter():
    rows = lines("07_readings")
    assert len(rows) == len(READINGS) * len(PER_CLASS) * len(RATES) * len(SEEDS)
    assert {
        (row["reading"], int(row["per_class"]), float(row["lr"]), int(row["seed"])) for row in rows
    } == set(product(READINGS, PER_CLASS, RATES, SEEDS))
    alphas = [round(soft / (hard + soft), 2) for hard, soft in READINGS.values()]
    assert alphas == [0.9, 0.1, 0.36, 0.47]


def test_every_tool_of_the_table_has_a_version_or_date_and_a_link():
    head = "| your case | tool | looked at |"
    tables = [part.split("\n\n")[0] for part in "\n\n".join(cells("markdown")).split(head)[1:]]
    rows = [line for table in tables for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(tables) == 2  # with a language model, and without one
    assert len(rows) >= 12
    for row in rows:
        _, case, tool, seen, _ = (part.strip() for part in row.split("|"))
        assert case and "https://" in tool and re.match(r"(\*\*run\*\*|\*read\*), .*\d", seen)


def test_the_table_of_faults_groups_each_kind_of_input(faults):
    """Eleven of the cases, none twice, and its four marks are what was found."""
    drawn = [case for cases in faults["GROUPS"].values() for case in cases]
    assert len(drawn) == len(set(drawn)) == 11 and set(drawn) <= set(faults["ORDER"])
    assert {"(N, C) against (N, C+8)", "fp16, near-converged", "all positions masked"} <= set(drawn)
    assert {mark for case in drawn for mark in faults["table"][case]} == {"✓", "✗", "–", "·"}
    without = {
        column
        for case in faults["GROUPS"]["ruled out, masked"][1:]
        for column, mark in enumerate(faults["table"][case])
        if mark == "·"
    }
    assert without == set(range(5))  # the five that take no mask
    crosses = {case for case, mark in faults["mended"].items() if mark == "✗" and case in drawn}
    assert crosses == {"bf16, near-converged", "fp16, near-converged", "−inf in both"}
    assert {case for case in drawn if faults["careful"][case] == "✗"} == {"fp16, near-converged"}


@pytest.fixture(scope="module")
def mends():
    """What the cell of the first mend defines: the lines, the loss made of them, the push."""
    source = next(s for s in cells("code") if "def show_mend" in s)
    names = {"F": F, "torch": torch, "warnings": warnings, "plt": None, "plotting": None}
    exec(next(s for s in cells("code") if s.startswith("SHIRT = ")), names)
    names["MISTAKEN"] = names["SHIRT"].flip(1)
    exec(source[: source.index("forum = [")], names)
    return names


def test_the_lines_of_the_figures_are_the_two_losses_that_are_read(faults, mends):
    (z, v), of = normal(8, 5), mends["loss_of"]
    wrong = of([mends[line] for line in ("LOG_Q", "P", "MEAN")])
    right = of([mends[line] for line in ("REFUSE", "ERROR", "LOG_Q", "P_ALONE", "SUM", "ROWS")])
    assert torch.equal(wrong(z, v, 4), faults["forum_loss"](z, v, 4))
    assert torch.equal(right(z, v, 4), faults["mended_loss"](z, v, 4))
    with pytest.raises(ValueError):
        right(z, v[:1], 4)


def test_the_pushes_of_the_text_from_the_gradient_by_hand(mends):
    """T(p − q) for the student; −T p(log p/q − KL) for the teacher; the forum's T(softmax v − q)/C."""
    v, z, T = mends["SHIRT"], mends["KNOWS_NOTHING"], 4
    p, q = (v / T).softmax(-1), (v / T).softmax(-1)
    assert [round(x, 3) for x in p[0].tolist()] == [0.665, 0.245, 0.09]
    step = [mends[line] for line in ("LOG_Q", "P", "MEAN")]
    value, moved = mends["push"](mends["loss_of"](step), v, v)
    assert round(value, 2) == 1.78
    torch.testing.assert_close(moved, (T * (v.softmax(-1) - q) / 3)[0])
    step = [mends[line] for line in ("LOG_Q", "P_SOFT", "SUM", "ROWS")]
    value, moved = mends["push"](mends["loss_of"](step), z, v)
    assert round(value, 2) == 4.26
    torch.testing.assert_close(moved, (T * (p - 1 / 3))[0])
    _, moved = mends["push"](mends["loss_of"](step), z, v, "teacher")
    torch.testing.assert_close(moved, (-T * p * ((3 * p).log() - value / T**2))[0])
    _, bag = mends["push"](mends["loss_of"](step), z.repeat(2, 1), v)
    torch.testing.assert_close(bag, (T * (p - 1 / 3))[0] / 2)


def test_the_memory_sum_by_hand():
    """14 + 27 + 33 bytes for 8,192 × 151,936 + activations: 109 GB; the other three bars of the figure."""
    tables = 33 * 8192 * 151_936 / 1e9
    layer = 30 * 1536 + 4 * 256 + 8 * 8960 + 56
    whole, kept = 8192 * 28 * layer / 1e9, 8192 * (28 * 4 * 1536 + layer) / 1e9
    assert [layer, round(28 * layer / 1e6, 1), round(kept, 1)] == [118_840, 3.3, 2.4]
    assert [round(x) for x in (7 * 2, 1.5 * 18, tables, whole)] == [14, 27, 41, 27]
    bars = (41 + tables + whole, 41 + tables + kept, 41 + 4 * tables + 4 * kept, 41 + tables / 8 + 4 * kept)
    assert [round(x) for x in bars] == [109, 84, 215, 56]
    text = "".join(cells("markdown"))
    for said in (
        "14 + 27 + 41 + 27 = 109 GB",
        "3.3 MB for each token",
        "= 118,840 bytes",
        "fall from 27 GB to 2.4. But that leaves 84 GB",
        "The tables then take 5 GB",
        "four times 41 is 164 GB",
        "a step of 32,768 tokens takes 56 GB",
    ):
        assert said in text
    assert memory()["together"] == pytest.approx(dict(zip(memory()["needs"], bars, strict=True)))
    models, whole, pieces = 2 * 7 + 18 * 3, 33 * 16_384 * 151_936 / 1e9, 33 * 512 * 151_936 / 1e9
    assert [round(x, 1) for x in (models, whole, models + pieces + 7)] == [68, 82.1, 77.6]


class Peak(TorchDispatchMode):
    """Bytes of the tensors that live at once, at most."""

    def __init__(self):
        super().__init__()
        self.live, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and (key := x.untyped_storage()._cdata) not in self.live:
                self.live[key] = x.untyped_storage().nbytes()
                self.now += self.live[key]
                self.peak = max(self.peak, self.now)
                weakref.finalize(x.untyped_storage(), self.drop, key)
        return out

    def drop(self, key):
        self.now -= self.live.pop(key, 0)


def loop():
    """The three steps that are read, and what stands above them."""
    above = "\n".join(
        s for s in cells("code") if s.startswith(("student, teacher = (", "ids = torch.randint"))
    )
    return above, next(
        source for source in cells("code") if "h_s.backward(h.grad)" in source and "def" not in source
    )


@pytest.mark.parametrize("n, size", [(512, 512), (2048, 512)])
def test_a_step_holds_33_bytes_for_each_entry_of_a_piece(n, size):
    """Under autocast, and not of all tokens: the chapter's count, but for the small tensors."""
    V = 1000
    head_s, head_t = (
        torch.nn.Linear(4, V, False),
        torch.nn.Linear(8, V, False).bfloat16().requires_grad_(False),
    )
    h_s, h_t = torch.randn(n, 4, requires_grad=True) * 1.0, torch.randn(n, 8).bfloat16()
    with Peak() as held:
        memory_step(h_s, head_s, h_t, head_t, torch.arange(n) % V, size)
    assert 33 <= held.peak / (size * V) < 34


@pytest.mark.parametrize("size", [128, 100, 512, 1000])
def test_pieces_do_not_change_the_gradient(faults, size):
    """The page's own lines, without autocast, for one step; the teacher in bf16 gets no gradient."""
    above, steps = loop()
    names = {"torch": torch, "F": F, "careful_loss": faults["careful_loss"]}
    torch.manual_seed(0)
    exec(above.replace("bfloat16)", "bfloat16, enabled=False)"), names)
    names["teacher"].float()
    steps = steps.replace("range(3)", "range(1)").replace("    optimizer.step()\n", "")
    exec(steps.replace("128", str(size)), names)
    student, x, counts = names["student"], names["x"], names["counts"]
    assert not counts.all()
    found = [p.grad.clone() for p in student.parameters()]
    z, v = (model[1](model[0](x))[counts] for model in (student, names["teacher"]))
    whole = torch.autograd.grad(
        distillation_loss(z, v, names["y"][counts], 1.0, 0.9), list(student.parameters())
    )
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_the_measured_step_is_that_of_the_page(faults):
    """experiments/chapter07_memory.py: its loss, and the lines from the hidden states on."""
    _, steps = loop()
    for line in (
        "h = h_s.detach().requires_grad_()",
        "z, v = head_s(h_i), head_t(g_i)",
        "h_s.backward(h.grad)",
    ):
        assert line in steps and line in inspect.getsource(memory_step)
    z, v = normal(8, 5)
    assert torch.equal(memory_loss(z, v, 1), faults["careful_loss"](z, v, 1))


@pytest.mark.parametrize("tokens, size", [(128, 128), (256, 128)])
def test_a_stored_peak_is_found_again(tokens, size):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux")
    stored = {(int(r["tokens"]), int(r["size"])): float(r["peak_gb"]) for r in lines("07_memory")}
    assert measured_alone(tokens, size) == pytest.approx(stored[tokens, size], rel=0.15)


def test_the_whole_step_for_qwen_runs_and_is_that_of_whole_tables(faults):
    """On a tiny Qwen2, the CPU for the GPU: autocast, checkpointing, a teacher in bf16 with eight rows of padding."""
    transformers = pytest.importorskip("transformers")
    text = next(s for s in cells("markdown") if "The whole step for Qwen2.5" in s)
    block = text.split("The whole step for Qwen2.5")[1].split("```python\n")[1].split("```")[0]
    assert '"cuda"' in block and "split(1024)" in block

    def model(width, V):
        sizes = {
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "vocab_size": V,
        }
        config = transformers.Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=2)
        return transformers.Qwen2ForCausalLM(config)

    torch.manual_seed(0)
    student, teacher = model(16, 50), model(32, 58).bfloat16().eval().requires_grad_(False)
    ids = torch.randint(50, (4, 13))
    counts = ids[:, 1:] % 5 > 0
    names = {"torch": torch, "F": F, "careful_loss": faults["careful_loss"], "ids": ids, "counts": counts}
    names |= {
        "student": student,
        "teacher": teacher,
        "optimizer": torch.optim.SGD(student.parameters(), lr=0),
    }
    exec(block.replace('"cuda"', '"cpu"').replace("1024", "7"), names)
    assert student.training and student.is_activation_checkpointing
    assert names["h_t"].dtype == torch.bfloat16 and student.lm_head.weight.dtype == torch.float32
    assert all(p.grad is None for p in teacher.parameters())
    found = {name: p.grad.clone() for name, p in student.named_parameters()}
    student.zero_grad()
    z = student(ids[:, :-1], use_cache=False).logits[counts]
    v = teacher(ids[:, :-1], use_cache=False).logits[counts][:, :50].float()
    distillation_loss(z, v, ids[:, 1:][counts], 1.0, 0.9).backward()
    for name, p in student.named_parameters():  # bf16 keeps two or three digits
        if p.ndim > 1:
            assert (found[name] - p.grad).norm() < 0.03 * p.grad.norm(), name


def test_the_visible_table_is_that_of_the_audit(faults):
    """Liger at beta=0 fails the three inputs, the careful loss none of them, the mended two."""
    source = next(source for source in cells("code") if "def marks_of" in source)
    names = dict(faults)
    exec(source, names)
    shown = [[*(found[case] for found in names["both"]), names["of_liger"][case]]
             for case in names["three_inputs"].values()]  # fmt: skip
    assert shown == [["✗", "✓", "✗"], ["✗", "✓", "✗"], ["select first", "select first", "✗"]]


def memory():
    """The names of the cell that draws the memory."""
    names = {"plt": Ignored(), "plotting": Ignored()}
    exec(next(source for source in cells("code") if "def kept_by_layer" in source), names)
    return names


@pytest.mark.parametrize("h, f, heads, groups", [(256, 640, 4, 2), (128, 512, 4, 1)])
def test_a_layer_keeps_as_much_as_the_chapter_estimates(h, f, heads, groups):
    """Two layers less one, so that the embedding and the last norm drop out; with checkpointing one input."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": h, "intermediate_size": f, "num_attention_heads": heads, "vocab_size": 8}
    sizes |= {"num_key_value_heads": groups, "attn_implementation": "sdpa"}

    def kept(layers, checkpointing):
        """Bytes for a token that the backward pass will need, parameters not counted."""
        config = transformers.Qwen2Config(num_hidden_layers=layers, **sizes)
        model = transformers.Qwen2Model(config).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        found = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own and 61 in tensor.shape:  # no copies of weights
                found[storage.data_ptr()] = storage  # held, so that no address is used twice
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", torch.bfloat16):
            model(input_ids=torch.arange(61)[None] % 8, use_cache=False)
        return sum(storage.nbytes() for storage in found.values()) / 61

    estimate = memory()["kept_by_layer"](h, keys=groups * h // heads, f=f, heads=heads)
    with warnings.catch_warnings():  # the name of the switch is about to change
        warnings.simplefilter("ignore", FutureWarning)
        assert kept(2, False) - kept(1, False) == estimate
        assert kept(2, True) - kept(1, True) == 4 * h


def test_the_chapter_names_the_errata_of_the_references():
    text = "".join(cells("markdown"))
    assert all(f"erratum R{i}" in text for i in range(1, 7))


def said(check, attempt, capsys):
    check(attempt)
    return capsys.readouterr().out


def untouched(*case):
    raise NotImplementedError


NUMBERS = {
    "✓ three_numbers": lambda: (0.0589, 12.8 / 13),
    "answer 2: that is for α = 0.9": lambda: (0.0588, 0.993),
    "not attempted": untouched,
} | {
    f"answer {place + 1}: {hint}": lambda place=place, wrong=wrong: tuple(
        wrong if i == place else right for i, right in enumerate((0.0588, 0.985))
    )
    for (place, wrong), hint in conventions.WRONG_WEIGHTS.items()
}


@pytest.mark.parametrize("hint", NUMBERS)
def test_check_of_the_three_numbers(hint, capsys):
    assert hint in said(checks.three_numbers, NUMBERS[hint], capsys)


def test_the_three_numbers_of_the_exercise_are_what_such_a_loss_returns(mends):
    """0.5 on each, without T²; and 0.985 there is α = 0.8."""
    for soft, hard, back in ((0.5, 0.5, [4.0092, 0.6824, 0.5845]), (12.8 / 13, 0.2 / 13, None)):
        found = answers(mends, lambda z, v, y, w=soft, h=hard: h * F.cross_entropy(z, y) + w * kl(z, v, 4.0))
        assert back is None or [round(x, 4) for x in found] == back
        weight = (found[1] - hard * 1.0986) / 4.2595
        assert weight / (hard + weight) == pytest.approx(0.8 if back is None else 0.0588, rel=2e-3)


def tokens_loss(dim=-1, power=2, count=lambda z: z.shape[0] * z.shape[1]):
    def loss(z, v, T):
        log_q, log_p = (z / T).log_softmax(dim), (v.detach() / T).log_softmax(dim)
        return T**power * (log_p.exp() * (log_p - log_q)).sum() / count(z)

    return loss


def as_the_stranger(dim, reduction, detached=True):
    """The lines of the exercise, with one or both mistakes mended."""

    def loss(z, v, T):
        p = F.softmax((v.detach() if detached else v) / T, dim=dim)
        return T**2 * F.kl_div(F.log_softmax(z / T, dim=dim), p, reduction=reduction)

    return loss


def flattened(z, v, T):
    return as_the_stranger(-1, "batchmean")(z.flatten(0, 1), v.flatten(0, 1), T)


MEND = {
    "✓ mend_loss": flattened,
    "both mistakes": as_the_stranger(1, "batchmean"),
    "texts alone": as_the_stranger(-1, "batchmean"),
    "positions of a text": tokens_loss(1),
    "all entries": as_the_stranger(-1, "mean"),
    "tokens of one text alone": tokens_loss(count=lambda z: z.shape[1]),
    "sum over all tokens": as_the_stranger(-1, "sum"),
    "runs over the texts": tokens_loss(0),
    "missing now": tokens_loss(power=0),
    "teacher": lambda z, v, T: as_the_stranger(-1, "batchmean", False)(z.flatten(0, 1), v.flatten(0, 1), T),
    "not attempted": untouched,
}


@pytest.mark.parametrize("hint", MEND)
def test_check_of_the_mended_loss(hint, capsys):
    assert hint in said(checks.mend_loss, MEND[hint], capsys)


CHOOSE = {
    "✓ choose_tool": lambda: ("easydistill", "TRL DistillationTrainer", "TRL GOLDTrainer"),
    "3 answers are due": lambda: "EasyDistill",
    "none of the answers": lambda: ("TRL", "TRL DistillationTrainer", "TRL GOLDTrainer"),
    "not attempted": untouched,
} | {
    f"answer {place + 1}: {hint}": lambda place=place, tool=tool: tuple(
        tool if i == place else right
        for i, right in enumerate(("EasyDistill", "TRL DistillationTrainer", "TRL GOLDTrainer"))
    )
    for (place, tool), hint in conventions.WRONG_TOOLS.items()
}


@pytest.mark.parametrize("hint", CHOOSE)
def test_check_of_the_tools(hint, capsys):
    assert hint in said(checks.choose_tool, CHOOSE[hint], capsys)


FITS = {
    "✓ will_it_fit": lambda: (68, 82, 78),
    "answer 2: 300 is too large": lambda: (68, 300, 78),
    "not attempted": untouched,
} | {
    f"answer {place + 1}: {hint}": lambda place=place, wrong=wrong: tuple(
        wrong if i == place else right for i, right in enumerate((68, 82.1, 77.6))
    )
    for (place, wrong), hint in conventions.WRONG_GIGABYTES.items()
}


@pytest.mark.parametrize("hint", FITS)
def test_check_of_the_gigabytes(hint, capsys):
    assert hint in said(checks.will_it_fit, FITS[hint], capsys)


def test_the_rounded_products_alone_double_the_sum_in_bf16():
    """p log p and p log q of the nearly agreeing pair; the numbers that the text gives for coat."""
    z, v = torch.tensor([[8, 4.5, 0], [8, 4, 0]]).double() / 4
    p = v.softmax(-1)
    products = torch.stack([p * v.log_softmax(-1), p * z.log_softmax(-1)])
    rounded = products.bfloat16().double()
    assert [round(x, 4) for x in products[:, 1].tolist()] == [-0.3445, -0.3217]
    assert [round(x, 4) for x in rounded[:, 1].tolist()] == [-0.3438, -0.3223]
    right, found = (a - b for a, b in (products, rounded))
    assert found[1] - right[1] > 0.001
    assert found.sum() / right.sum() == pytest.approx(2, abs=0.05)
