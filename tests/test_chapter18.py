"""Chapter 18: the numbers of its worked examples and exercises; runs are in test_scaling."""

import numpy as np
import pytest
import torch

from companion import checks
from companion.costs import Plan, bill, bytes_a_token, flops, loss_alone, loss_taught
from companion.scaling import Reader
from experiments.chapter18 import RATES, drawn_one, resumed_one
from experiments.common import stored


@pytest.mark.equation("eq-process-share")
def test_two_processes_of_six_and_two_tokens():
    nats = [torch.tensor([1.0] * 6), torch.tensor([3.0] * 2)]
    n = sum(map(len, nats))
    assert sum(2 / n * x.sum() for x in nats) / 2 == torch.cat(nats).mean() == 1.5
    assert sum(x.mean() for x in nats) / 2 == 2
    say = (
        torch.tensor([len(nats[1]), len(nats[0])]).double() ** -1 / 2
    )  # of a token of the second, of the first
    assert (say[0] / say[1]).item() == pytest.approx(3)


@pytest.mark.equation("eq-surcharge")
def test_a_teacher_of_three_times_the_size_doubles_the_bill():
    assert bill(Plan(teacher=3e9, student=1e9))["surcharge"] == 1
    ten = bill(Plan(teacher=1e10, student=1e9))
    assert ten["surcharge"] / (1 + ten["surcharge"]) == pytest.approx(10 / 13)
    assert ten["money_live"] == pytest.approx(ten["hours_trained"] * 13 / 3)


@pytest.mark.equation("eq-checkpoint-interval")
def test_youngs_interval_costs_least_and_is_three_and_a_half_hours_in_the_example():
    write, between = 60.0, 1000 * 86_400 / 64  # 64 GPUs, each of which fails once in a thousand days
    best = (2 * write * between) ** 0.5
    assert between == 1_350_000 and round(between / 86_400) == 16
    assert round(best, -2) == 12_700 and round(best / 3600, 1) == 3.5 and best / 2 < 2 * 3600

    days = bill(Plan())["days_live"]
    failures, written = days * 86_400 / between, days * 86_400 / best
    assert round(failures) == 16 and round(failures * best / 2 / 3600) == round(written * write / 3600) == 28
    assert round(100 * 2 * 28 / (days * 24)) == 1
    assert failures / 2 == pytest.approx(8, abs=0.5)  # hours, if a restart takes half of one
    assert round(16_384 * 54 / 419, -2) == 2_100  # of the cited run: days of a GPU between two stops

    write, between = 90.0, 500 * 86_400 / 256  # the exercise's
    best = (2 * write * between) ** 0.5
    assert best / 3600 == pytest.approx(1.53, abs=0.01)
    assert 100 * (write / best + best / 2 / between) == pytest.approx(3.27, abs=0.01)
    write, between = 60.0, 1_350_000.0
    best = (2 * write * between) ** 0.5

    def cost(interval):  # of an hour's share: writing, and half an interval lost at each failure
        return write / interval + interval / 2 / between

    assert cost(best) == pytest.approx(min(cost(best * k / 100) for k in range(50, 201)))


def test_the_shares_of_the_second_figure():
    for m in range(1, 7):  # tokens of process 2, which cost 3 nats each; process 1 has 6 of 1 nat
        own = [1 / (2 * 6)] * 6 + [1 / (2 * m)] * m
        nats = [1.0] * 6 + [3.0] * m
        assert sum(own) == pytest.approx(1)
        assert sum(w * x for w, x in zip(own, nats, strict=True)) == pytest.approx(2)
        assert (own[0] == pytest.approx(own[-1])) == (m == 6)


def test_sixteen_bytes_a_parameter_and_two():
    whole = 16 * 7 + 2 * 70  # GB
    assert [round(whole / n) for n in (1, 4, 8, 16)] == [252, 63, 32, 16]
    assert whole / 5 < 0.7 * 80 < whole / 4  # five GPUs are the least
    found = bill(Plan())
    assert (found["memory_weights"], found["memory_once"]) == (252e9, 140e9)
    # GB on each of eight GPUs, of the run that asks and of the one that trains
    assert (2 * 70 / 8, 16 * 7 / 8) == (17.5, 14)


@pytest.mark.equation("eq-flops")
def test_another_case_of_the_calculator():
    plan = Plan(teacher=30e9, student=3e9, tokens=2e11, passes=4, gpus=16)
    found = bill(plan)
    assert found["hours_once"] == pytest.approx(8333, rel=1e-3) and found["hours_trained"] == pytest.approx(
        10_000
    )
    assert found["days_live"] == pytest.approx(112.8, abs=0.1) and found["days_once"] == pytest.approx(
        47.7, abs=0.1
    )
    assert found["memory_weights"] / 8 == 13.5e9
    one = bill(Plan(teacher=30e9, student=3e9, tokens=2e11, passes=1, gpus=16))
    assert one["days_live"] == pytest.approx(28.2, abs=0.1)
    assert (found["hours_live"] / 384, found["hours_trained"] / 384) == pytest.approx((86.8, 26.0), abs=0.1)


@pytest.mark.equation("eq-flops")
def test_the_case_that_is_worked_out_on_paper():
    """70 billion weights teach 7 billion on 10¹² tokens, read three times: 43 years, 247 days on 64 GPUs, or 120."""
    assert (flops(3, 4), flops(3, 4, training=True)) == (24, 72)
    one, three = bill(Plan(passes=1)), bill(Plan())
    trained, read = 6 * 7e9 * 1e12, 2 * 70e9 * 1e12
    assert (one["trained"], one["teacher_live"]) == (trained, read) == (4.2e22, 14e22)
    assert read / (read + trained) == pytest.approx(14 / 18.2) == pytest.approx(10 / 13)
    hour = 4e14 * 3600
    assert hour == pytest.approx(1.44e18)
    assert (round(trained / hour), round(read / hour)) == (29_167, 97_222)
    assert (one["hours_trained"], one["hours_live"]) == pytest.approx((trained / hour, read / hour))
    assert round(3 * (trained + read) / hour / 24 / 365.25) == 43
    days = [h / 64 / 24 for h in (3 * trained / hour, 3 * read / hour, read / hour)]
    assert [round(d) for d in days] == [57, 190, 63] and round(days[1] - days[2]) == 127
    assert [round(three[f"days_{way}"]) for way in ("live", "once")] == [247, 120]
    assert round(100 * (1 - three["money_once"] / three["money_live"])) == 51
    parts = [three[f"hours_{name}"] for name in ("trained", "live", "once")]
    assert parts == pytest.approx([87_500, 291_667, 97_222], abs=1)  # of the stacked bars


@pytest.mark.equation("eq-surcharge")
def test_the_small_case_has_nearly_the_ratio_of_the_large_one():
    student = Reader(49_152, 256, length=32, seed=0)
    weights = sum(
        p.numel()
        for n, p in student.named_parameters()
        if p.dim() == 2 and not n.startswith(("words", "places"))
    )
    teacher = 134_515_008  # of which the table of embeddings is the last layer, too
    assert (round(weights / 1e5), round(teacher / 1e5)) == (136, 1345)
    assert (
        round(teacher / weights / 3, 1) == 3.3
        and round(70e9 / teacher, -2) == round(7e9 / weights, -2) == 500
    )


def test_in_the_stored_runs_both_students_are_one_and_the_lines_cross_when_the_second_pass_begins():
    rows = stored("18_kept")
    assert not rows["differ"].any()
    assert (rows["kilobytes"] / (64 * 32 * bytes_a_token(49_152, 576, 50)["largest"] / 1000) < 1.01).all()
    for seed in set(rows["seed"]):
        run = np.sort(rows[rows["seed"] == seed], order="epoch")
        slope = [(run[way][-1] - run[way][0]) / run["epoch"][-1] for way in ("asked", "stored")]
        assert 1 < run["stored"][0] / (slope[0] - slope[1]) < 1.2
        assert run["reading"][-1] < 0.01 * run["stored"][-1]


def test_what_goes_on_from_a_checkpoint_leaves_it_as_it_is():
    """AdamW works on the averages that it is given; the stored lines come back in an order that was not theirs."""
    rows = stored("18_resumed")
    for missing in ("order", "schedule", "nothing"):
        (row,) = rows[(rows["missing"] == missing) & (rows["seed"] == 0) & (rows["after"] == 10)]
        assert resumed_one(missing, 0, 10)["fresh"] == pytest.approx(row["fresh"], abs=1e-4)


@pytest.mark.parametrize(
    ("weights", "tokens", "nats"),
    [(7.75e9, 20 * 7.75e9, 2.004), (546e6, 20 * 546e6, 2.515), (70e9, 2e12, 1.721)],  # by hand, of table 6
)
def test_the_loss_of_a_model_that_learns_alone(weights, tokens, nats):
    assert loss_alone(weights, tokens) == pytest.approx(nats, abs=2e-3)
    assert loss_alone(weights, 2 * tokens) < loss_alone(weights, tokens) > loss_alone(2 * weights, tokens)


def test_the_teacher_is_worth_its_price_to_four_students_and_a_better_one_to_fewer_tokens():
    teacher, ours = loss_alone(70e9, 2e12), 3e12
    taught, dearer = (
        loss_taught(7e9, ours, teacher),
        bill(Plan())["money_once"] / bill(Plan())["hours_trained"],
    )
    assert dearer == pytest.approx(1 + 10 / 9) and round(dearer * 3, 1) == 6.3
    assert loss_alone(7e9, ours) - taught == pytest.approx(0.0067, abs=1e-4)
    assert taught - loss_alone(7e9, dearer * ours) == pytest.approx(0.0092, abs=1e-4)
    wins = {m: loss_alone(7e9, ours * (1 + (dearer - 1) / m)) > taught for m in (3, 4)}
    assert wins == {3: False, 4: True}
    assert loss_alone(7e9, ours * (1 + (dearer - 1) / 4)) - taught == pytest.approx(0.00097, abs=1e-5)
    assert loss_alone(7e9, 1e11) - loss_taught(7e9, 1e11, teacher) == pytest.approx(0.071, abs=1e-3)
    assert loss_alone(7e9, 13e12) > loss_taught(7e9, 13e12, teacher)  # of the fold
    assert loss_alone(7e9, 13.3e12) < loss_taught(7e9, 13.3e12, teacher)
    better = loss_taught(7e9, ours, loss_alone(70e9, 15e12))  # the gap in capacity
    assert taught < better < loss_alone(7e9, ours)
    shared = [loss_alone(7e9, ours * (1 + (dearer - 1) / m)) > better for m in range(1, 40)]
    assert shared.index(True) == 34
    assert round(6 * 70e9 * 2e12 / (6 * 7e9 * ours), 1) == 6.7


def test_what_the_disk_must_do():
    step = 64 * 8192
    assert step == 524_288 and step * bytes_a_token(128_000, 8192, 50)["draws"] == pytest.approx(
        1.05e8, rel=0.01
    )
    assert bill(Plan())["disk_draws"] == 10 * 20e12
    assert round(6 * 7e9 * 8192 / 4e14, 2) == 0.86
    assert 12 * 7 / 60 == 1.4  # GB a second, a checkpoint in a minute


def test_traffic_and_computing_of_a_step():
    """The table of section 18.5: gigabytes, and seconds of computing, within a machine and between machines."""
    for size, gigabytes, computing, within, between in ((7, 42, 0.86, 0.1, 0.84), (70, 140, 2.9, 0.3, 2.8)):
        assert gigabytes == size * 2 * (3 if size == 7 else 1)
        assert (6 if size == 7 else 2) * size * 1e9 * 8192 / 4e14 == pytest.approx(computing, abs=0.05)
        assert (gigabytes / 450, gigabytes / 50) == pytest.approx((within, between), abs=0.02)


def test_half_way_through_the_plan_a_step_changes_the_rate_by_less_than_a_millionth():
    steps = 3e12 / (64 * 8192)
    assert round(steps / 1e5) == 57
    half, after = (0.5 + 0.5 * np.cos(np.pi * (steps / 2 + k) / steps) for k in (0, 1))
    assert 5e-7 < 1 - after / half < 6e-7


def test_a_stored_student_of_fifty_draws_can_be_trained_again_and_each_rate_lies_within_those_tried():
    rows = stored("18_drawn")
    for size, way in ((s, w) for s in (2, 8, 32) for w in ("whole", "draws")):
        ours = rows[(rows["size"] == size) & (rows["way"] == way)]
        tried = {
            lr: ours["nats"][(ours["lr"] == lr) & (ours["seed"] >= 100)].mean() for lr in set(ours["lr"])
        }
        best = min(tried, key=tried.get)
        assert min(tried) < best < max(tried) and set(tried) <= set(RATES)
        assert set(ours["lr"][ours["seed"] < 100]) == {best} and (ours["seed"] < 100).sum() == 10
    for way in ("whole", "draws"):
        (row,) = rows[(rows["way"] == way) & (rows["size"] == 2) & (rows["seed"] == 3)]
        assert drawn_one(way, 2, row["lr"], 3)["nats"] == pytest.approx(row["nats"], abs=2e-3)


def test_a_token_drawn_twice_that_is_counted_once_is_named(capsys):
    def scattered(z, drawn, mask, n, world):  # scatter where scatter_add is due
        p = torch.zeros_like(z).scatter(-1, drawn, 1 / drawn.shape[-1])
        return world / n * torch.where(mask, -(p * z.log_softmax(-1)).sum(-1), 0).sum()

    def added(z, drawn, mask, n, world):
        p = torch.zeros_like(z).scatter_add(-1, drawn, torch.full(drawn.shape, 1 / drawn.shape[-1]).double())
        return world / n * torch.where(mask, -(p * z.log_softmax(-1)).sum(-1), 0).sum()

    checks.draws_loss(scattered)
    assert "drawn twice counts twice" in capsys.readouterr().out
    checks.draws_loss(added)
    assert capsys.readouterr().out.startswith("✓ draws_loss")
