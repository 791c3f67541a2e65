"""What a distillation costs: each rule of thumb against a count, a file, a measured peak, or a published run."""

import dataclasses

import matplotlib

matplotlib.use("agg")

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from companion import costs, interactive, plotting
from companion.costs import NAMES, Plan, bill, bytes_a_token, flops, gpu_hours, loss_memory
from companion.fused import fused_linear_kd_loss
from companion.scaling import Reader
from companion.stored import Stored, halved, largest, store
from tests.test_memory import Peak


def counted(model, training):
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        out = model(torch.zeros(2, 24, dtype=torch.long)) @ model.head.weight.T
        if training:
            out.sum().backward()
    return counter.get_total_flops()


@pytest.mark.equation("eq-flops")
@pytest.mark.parametrize("training", [False, True], ids=["read", "trained"])
def test_two_and_six_operations_a_weight_and_token(training):
    """Counted by PyTorch on a small transformer: the weights that are multiplied, and attention on top."""
    model = Reader(512, 64).train()
    looked_up = ("words", "places")
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and not n.startswith(looked_up)]
    multiplied = sum(p.numel() for p in matrices)
    ours = flops(multiplied, 2 * 24, training)
    assert ours == (6 if training else 2) * multiplied * 48
    assert 1 <= counted(model, training) / ours < 1.1


@pytest.mark.parametrize("billions, hours", [(7, 184_320), (13, 368_640), (70, 1_720_320)])
def test_published_gpu_hours_follow_with_a_plausible_utilisation(billions, hours):
    """Llama 2's model card: 2 · 10¹² tokens on A100s, whose dense bf16 peak is 312 · 10¹² operations a second."""
    work = flops(billions * 1e9, 2e12, training=True)
    reached = gpu_hours(work, 312e12, 1) / hours
    assert 0.35 < reached < 0.45
    assert gpu_hours(work, 312e12, reached) == pytest.approx(hours)


@pytest.mark.equation("eq-stored-bytes")
def test_bytes_on_disk_are_those_of_the_files(tmp_path):
    x = torch.arange(512)
    v, h = torch.randn(512, 300), torch.randn(512, 64).half()
    kept = {
        "logits": lambda i: halved(v[i]), "features": lambda i: {"features": h[i]},
        "largest": lambda i: largest(v[i], 20),
        "draws": lambda i: {"index": v[i].softmax(-1).multinomial(20, replacement=True).to(torch.uint16)},
    }  # fmt: skip
    for form, size in bytes_a_token(300, 64, 20).items():
        store(kept[form], x, tmp_path / form, rows=256)
        assert 0 <= Stored(tmp_path / form).bytes() / (512 * size) - 1 < 0.01
    assert bytes_a_token(128_000, 8192, 50) == {
        "logits": 256_000, "features": 16_384, "largest": 300, "draws": 200,
    }  # fmt: skip
    for vocabulary, largest_, drawn in ((65_536, 200, 100), (65_537, 300, 200)):
        found = bytes_a_token(vocabulary, 8192, 50)
        assert (found["largest"], found["draws"]) == (largest_, drawn)


def naive(h, w, h_t, w_t):
    return F.kl_div((h @ w.T).log_softmax(-1), (h_t @ w_t.T).softmax(-1), reduction="batchmean")


@pytest.mark.parametrize("group, loss", [(None, naive), (128, fused_linear_kd_loss)])
def test_memory_of_the_logits_is_what_a_loss_takes(group, loss):
    h, h_t, w, w_t = (torch.randn(n, 4) for n in (256, 256, 32768, 32768))
    h.requires_grad_(), w.requires_grad_()
    with Peak(h, w, h_t, w_t) as peak:
        loss(h, w, h_t, w_t).backward()
    of_weight = 0 if group is None else 4 * w.numel()  # at its peak the usual way has not made it yet
    assert (peak.most - of_weight) / loss_memory(256, 32768, group) == pytest.approx(1, abs=0.1)


@pytest.mark.equation("eq-surcharge")
def test_the_teacher_s_share_of_the_bill():
    plan = Plan(passes=1)
    found = bill(plan)
    assert found["surcharge"] == pytest.approx(plan.teacher / (3 * plan.student)) == pytest.approx(10 / 3)
    assert found["teacher_live"] == 1.4e23 and found["trained"] == pytest.approx(4.2e22)
    assert found["hours_live"] == pytest.approx(1.4e23 / (1e15 * 0.4 * 3600))
    three = bill(Plan())
    assert three["surcharge"] == pytest.approx(
        found["surcharge"]
    )  # live, each pass pays for the teacher again
    assert three["teacher_once"] == found["teacher_live"]
    assert three["money_once"] == pytest.approx(found["hours_live"] + 3 * found["hours_trained"])
    once = bill(
        Plan(teacher=9 * plan.student)
    )  # asked once for three passes: half of the bill at 3 · 3 the size
    assert once["hours_once"] == pytest.approx(once["hours_trained"])
    assert (found["disk_logits"], found["disk_features"]) == (2.56e17, 1.6384e16)
    assert (found["disk_largest"], found["disk_draws"]) == (3e14, 2e14)
    assert (
        found["memory_usual"] == 5 * 8192 * 128_000 * 4 and found["memory_groups"] == 2 * 1024 * 128_000 * 4
    )


def test_days_are_the_hours_dealt_out_and_the_weights_take_sixteen_bytes_and_two():
    found = bill(Plan(gpus=8))
    assert found["days_live"] == pytest.approx((found["hours_live"] + found["hours_trained"]) / 8 / 24)
    assert found["days_once"] == pytest.approx((found["hours_once"] + found["hours_trained"]) / 192)
    assert found["memory_weights"] == pytest.approx(16 * 7e9 + 2 * 70e9) == 252e9
    assert found["memory_once"] == 2 * 70e9 and bill(Plan(teacher=7e9))["memory_once"] == 16 * 7e9


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: flops(0, 1), "number of parameters must be a positive number; got 0"),
        (lambda: flops(1, float("nan")), "number of tokens must be a positive number"),
        (lambda: gpu_hours(1, 1e15, 40), "a share of the peak, above 0 and at most 1; got 40"),
        (lambda: gpu_hours(1, 0, 0.4), "peak must be a positive number"),
        (lambda: gpu_hours(-1, 1e15, 0.4), "number of operations must be a positive number; got -1"),
        (lambda: loss_memory(-5, 100), "number of tokens must be a positive number; got -5"),
        (lambda: loss_memory(5, 0), "vocabulary must be a positive number; got 0"),
        (lambda: loss_memory(5, 100, group=-1), "group must be a positive number; got -1"),
        (lambda: bytes_a_token(100, -8, 1), "width must be a positive number; got -8"),
        (lambda: bill(Plan(gpus=0)), "number of GPUs must be a positive number; got 0"),
        (lambda: bytes_a_token(100, 8, 101), "how many of 100 tokens are kept; got 101"),
    ],
)
def test_what_is_no_plan_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_the_calculator_opens_with_the_plan(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    plotting.use_style()
    costs.show_costs()
    costs.show_costs(Plan(teacher=5e9))
    inputs = [{i["key"]: i["value"] for i in s[interactive.MIME]["data"]["inputs"]} for s in shown]
    assert inputs[0] == dataclasses.asdict(Plan()) and inputs[1]["teacher"] == 5e9
    assert [i["key"] for i in shown[0][interactive.MIME]["data"]["inputs"] if not i["more"]] == [
        "teacher", "student", "tokens", "passes", "gpus",
    ]  # fmt: skip
    assert set(NAMES) == set(inputs[0]) and len(set(NAMES.values())) == len(NAMES)
    assert all("example" in NAMES[key] for key in ("peak", "utilisation", "price", "gpus"))
    assert "<svg" in shown[0]["image/svg+xml"]


@pytest.mark.parametrize("field", ["price", "batch", "group", "width", "vocabulary", "peak"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_plan_has_positive_numbers(field, value):
    with pytest.raises(ValueError, match=r"must be a positive number"):
        bill(Plan(**{field: value}))


def test_a_group_is_no_larger_than_the_step():
    assert loss_memory(5, 100, group=8) == loss_memory(5, 100, group=5) == 4 * 100 * 2 * 5
