"""Metrics against scipy, scikit-learn and values worked by hand."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats
from sklearn.metrics import accuracy_score

from companion.metrics import (
    Interval,
    _t_quantile,
    accuracy,
    agreement,
    calibration_error,
    gap_recovered,
    paired_interval,
    temperature_scale,
)  # fmt: skip
from tests.drawn import seeded


def draw(n=500, classes=10, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator)
    return logits, torch.randint(0, classes, (n,), generator=generator)


def test_accuracy_is_scikit_learns_in_per_cent():
    logits, y = draw()
    assert accuracy(logits, y) == pytest.approx(100 * accuracy_score(y, logits.argmax(-1)), rel=1e-6)
    assert accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0])) == 75


def test_accuracy_is_exact_in_its_last_digit():
    assert (
        accuracy(torch.eye(100), torch.tensor([0] * 50 + [*range(50, 64)] + [0] * 36)) == 15
    )  # 1 + 14 of 100


def test_agreement_is_the_share_of_equal_predictions_and_symmetric():
    s, t = torch.eye(4), torch.eye(4)[[0, 1, 2, 0]]
    assert agreement(s, t) == agreement(t, s) == 75
    assert agreement(s, 3 * s - 1) == 100
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(4, 3\)"):
        agreement(s, t[:, :3])


def test_arrays_are_told_how_to_become_tensors():
    logits, y = torch.eye(4), torch.arange(4)
    for score in (accuracy, calibration_error, temperature_scale):
        for z, labels in ((logits.numpy(), y), (logits, y.numpy()), (logits, y.tolist())):
            with pytest.raises(TypeError, match=r"as tensors; got .*torch\.as_tensor"):
                score(z, labels)
    with pytest.raises(TypeError, match="as tensors"):
        agreement(logits.tolist(), logits)


def ece(logits, y, bins):
    """Guo et al. 2017, eq. 3, written with intervals ((b−1)/B, b/B] as the paper does."""
    q = special.softmax(logits.double().numpy(), -1)
    confidence, right = q.max(-1), q.argmax(-1) == y.numpy()
    total = 0.0
    for b in range(1, bins + 1):
        inside = ((b - 1) / bins < confidence) & (confidence <= b / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return 100 * total


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("scale", [0.3, 2.0, 8.0])
def test_calibration_error_is_its_definition(bins, scale):
    logits, y = draw(scale=scale)
    assert calibration_error(logits, y, bins) == pytest.approx(ece(logits, y, bins), rel=1e-9)


def test_calibration_error_by_hand():
    """Four examples at confidence ¾: three right, none off; one right, ½ off."""
    logits = torch.tensor([[math.log(3), 0.0]], dtype=torch.double).repeat(4, 1)
    assert calibration_error(logits, torch.tensor([0, 0, 0, 1])) == pytest.approx(0, abs=1e-12)
    assert calibration_error(logits, torch.tensor([0, 1, 1, 1])) == pytest.approx(50, rel=1e-12)
    assert calibration_error(100 * logits, torch.ones(4).long()) == pytest.approx(100, rel=1e-6)


def test_a_confidence_on_a_bin_s_edge_belongs_to_the_lower_bin():
    """½ right, in (¼, ½]; 0.6 wrong, in (½, ¾]: gaps of 0.5 and −0.6, which in one bin would nearly cancel."""
    logits, y = torch.tensor([[0.0, 0.0], [math.log(1.5), 0.0]], dtype=torch.double), torch.tensor([0, 1])
    assert calibration_error(logits, y, bins=4) == pytest.approx(55, rel=1e-12)


def test_calibration_error_has_fifteen_bins_unless_said():
    logits, y = draw()
    values = [calibration_error(logits, y, bins) for bins in (14, 15, 16)]
    assert calibration_error(logits, y) == values[1] and len(set(values)) == 3


def nll(logits, y, T):
    return -special.log_softmax(logits.double().numpy() / T, -1)[range(len(y)), y.numpy()].mean()


@pytest.mark.parametrize("scale", [1e-3, 0.5, 3.0, 1e4])
def test_temperature_scale_is_scipys_minimum_of_the_loss(scale):
    """Labels drawn from softmax(2z): then T = scale/2 is nearly right, and exactly what scipy finds."""
    z = draw(n=2000, scale=1.0)[0].double()
    y = torch.multinomial((2 * z).softmax(-1), 1, generator=torch.Generator().manual_seed(5))[:, 0]
    found = temperature_scale(scale * z, y)
    best = optimize.minimize_scalar(lambda k: nll(scale * z, y, 1 / k), (0.5 / scale, 4 / scale), tol=1e-12)
    assert found == pytest.approx(1 / best.x, rel=1e-5) and found == pytest.approx(scale / 2, rel=0.05)
    assert nll(scale * z, y, found) <= min(nll(scale * z, y, t * found) for t in (0.99, 1.01))
    assert temperature_scale(7 * scale * z, y) == pytest.approx(7 * found, rel=1e-11)
    assert temperature_scale(scale * z + 5, y) == pytest.approx(found, rel=1e-6)


def test_temperature_scale_by_hand_and_what_it_mends():
    """Three of four right at one logit's difference d: q = ¾ where d/T = log 3."""
    logits, y = torch.tensor([[5.0, 0.0]]).repeat(4, 1), torch.tensor([0, 0, 0, 1])
    T = temperature_scale(logits, y)
    assert pytest.approx(5 / math.log(3), rel=1e-12) == T
    assert calibration_error(logits, y) > 24 and calibration_error(logits / T, y) < 1e-4
    assert accuracy(logits / T, y) == accuracy(logits, y)


@pytest.mark.parametrize(
    "logits, y, match",
    [
        (torch.eye(3), [0, 1, 2], "largest logit"),
        (-torch.eye(3), [0, 1, 2], "no higher"),
        (torch.zeros(3, 3), [0, 1, 2], "largest logit"),
        (torch.tensor([[0.0, -math.inf], [0.0, 1.0]]), [0, 0], "finite"),
        (torch.eye(3), [0, 1, 3], "labels"),
    ],
)
def test_where_no_temperature_is_best_it_says_so(logits, y, match):
    with pytest.raises(ValueError, match=match):
        temperature_scale(logits, torch.tensor(y))


@pytest.mark.parametrize("metric", [accuracy, calibration_error, temperature_scale])
@pytest.mark.parametrize(
    "logits, y, match",
    [
        (torch.zeros(3, 1), [0, 0, 0], r"two classes: torch\.cat"),
        (torch.eye(3), [0, -100, 1], r"0 … 2; got torch\.int64, -100 … 1.*keep = y != -100"),
        (torch.eye(3), [0, 1, 3], "0 … 2"),
        (torch.eye(3), [0.0, 1.0, 2.0], "float32"),
        (torch.eye(3), [True, False, True], "bool"),
    ],
)
def test_labels_that_are_no_classes_are_refused(metric, logits, y, match):
    with pytest.raises(ValueError, match=match):
        metric(logits, torch.tensor(y))


def test_a_sigmoid_s_logit_counts_as_two_classes():
    z, y = torch.tensor([[2.0], [-1.0], [0.3]]), torch.tensor([1, 1, 0])
    assert accuracy(torch.cat([0 * z, z], dim=1), y) == pytest.approx(100 / 3)


@pytest.mark.parametrize("metric", [accuracy, calibration_error, temperature_scale])
def test_inputs_that_do_not_fit_are_refused(metric):
    logits, y = draw()
    for bad in [(logits, y[:-1]), (logits[0], y[0]), (logits[:0], y[:0])]:
        with pytest.raises(ValueError, match="labels"):
            metric(*bad)
    logits[3, 0] = math.nan
    with pytest.raises(ValueError, match="1 of 500 rows"):
        metric(logits, y)


def test_gap_recovered_is_a_share():
    assert gap_recovered(80, 70, 90) == 0.5
    assert gap_recovered(70, 70, 90) == 0 and gap_recovered(90, 70, 90) == 1
    assert gap_recovered(60, 70, 90) == -0.5 and gap_recovered(100, 70, 90) == 1.5
    for teacher in (70, 60, math.nan):
        with pytest.raises(ValueError, match="no gap"):
            gap_recovered(80, 70, teacher)


@pytest.mark.parametrize(
    "values", [(math.nan, 70, 90), (math.inf, 70, 90), (80, 70, math.inf), (80, -math.inf, 90)]
)
def test_gap_recovered_refuses_what_is_not_finite(values):
    with pytest.raises(ValueError, match="accuracies are finite; got"):
        gap_recovered(*values)


@pytest.mark.parametrize("metric", [accuracy, calibration_error])
def test_infinite_logits_are_refused_unless_they_rule_out_a_class(metric):
    logits, y = draw()
    logits[3, 0] = -math.inf
    assert math.isfinite(metric(logits, y))
    for bad in (
        logits.index_fill(0, torch.tensor([3]), -math.inf),
        logits.masked_fill(logits == -math.inf, math.inf),
    ):
        with pytest.raises(ValueError, match=r"1 of 500 rows of logits hold \+∞, or −∞ only"):
            metric(bad, y)


@pytest.mark.parametrize("bins", [0, -3, 2.5, "15", None, True])
def test_calibration_error_refuses_bins_that_are_no_number_of_them(bins):
    with pytest.raises(ValueError, match="bins is a whole number, 1 or more; got"):
        calibration_error(*draw(), bins=bins)


@pytest.mark.parametrize("n", [2, 3, 10, 40])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_paired_interval_is_scipys_t_interval_of_the_differences(n, level):
    rng = np.random.default_rng(n)
    a, b = rng.normal(1, 2, n), rng.normal(0, 2, n)
    found = paired_interval(a, b, level)
    d = a - b
    low, high = stats.t.interval(level, n - 1, loc=d.mean(), scale=stats.sem(d))
    assert (found.mean, found.n) == (pytest.approx(d.mean(), rel=1e-12), n)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6)
    assert found.half_width == pytest.approx((high - low) / 2, rel=1e-6)


def test_paired_interval_agrees_with_scipys_paired_test():
    a, b = [73.5, 74.1, 72.9, 75.0], [72.0, 73.9, 72.1, 73.2]
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    found = paired_interval(a, b)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-6)
    alone = paired_interval(torch.tensor(a) - torch.tensor(b))
    assert alone.mean == pytest.approx(found.mean, rel=1e-5)


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 30, 200])
@pytest.mark.parametrize("probability", [0.6, 0.95, 0.975, 0.995])
def test_t_quantile_is_scipys(freedom, probability):
    assert _t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=2e-6)


@pytest.mark.parametrize(
    "bad, match",
    [
        (([1.0],), "two pairs"),
        (([1.0, 2.0], [1.0]), "two pairs"),
        (([1.0, math.nan],), "finite"),
        (([[1.0, 2.0], [3.0, 4.0]],), r"one value per repetition, \(n,\); got \(2, 2\)"),
        (([1.0, 2.0], [[1.0], [2.0]]), r"got \(2,\) and \(2, 1\)"),
        ((3.0,), r"got \(\)"),
    ],
)
def test_paired_interval_refuses_what_has_no_interval(bad, match):
    with pytest.raises(ValueError, match=match):
        paired_interval(*bad)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5])
def test_paired_interval_refuses_a_level_that_is_no_share(level):
    with pytest.raises(ValueError, match="level"):
        paired_interval([1.0, 2.0], level=level)


def test_interval_prints_its_half_width():
    assert str(Interval(1.234, 0.734, 1.734, 10)) == f"{Interval(1.234, 0.734, 1.734, 10)}" == "+1.23 ± 0.50"
    assert str(Interval(-1.0, -2.0, 0.0, 3)) == "−1.00 ± 1.00"  # a minus sign, not a hyphen


@pytest.mark.parametrize(
    "spec, expected",
    [
        (".1f", "−2.1 ± 0.4"),
        ("+.0f", "−2 ± 0"),
        (".3g", "−2.12 ± 0.375"),
        ("6.1f", "  −2.1 ±    0.4"),
        (".1e", "−2.1e+00 ± 3.8e−01"),
    ],
)
def test_interval_is_formatted_number_by_number(spec, expected):
    assert format(Interval(-2.125, -2.5, -1.75, 10), spec) == expected


def test_an_interval_s_sign_may_be_left_out_where_it_is_no_difference():
    assert f"{Interval(91.25, 91.0, 91.5, 10):-.1f}" == "91.2 ± 0.2"


def test_a_default_device_elsewhere_disturbs_no_metric_and_no_sample():
    """In a process of its own, as the default is everybody's."""
    code = """
import torch, tests.second_device
torch.set_default_device("second")
from companion import data, metrics
z = torch.randn(40, 10, device="cpu", generator=torch.Generator().manual_seed(0))
y = torch.arange(40, device="cpu") % 10
metrics.calibration_error(z, y), metrics.accuracy(z, y), len(data.Split(z, y).sample(2, 0))
print(metrics.paired_interval([1.0, 2.0, 3.0]))
"""
    root = Path(__file__).parent.parent
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert ran.stdout.strip() == "+2.00 ± 2.48", ran.stderr


def test_agreement_with_what_names_no_class_is_refused():
    z = torch.randn(4, 5, generator=seeded())
    for bad in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(ValueError, match="4 of 4 rows of logits hold"):
            agreement(z, torch.full_like(z, bad))


def test_labels_may_be_small_whole_numbers():
    y = torch.arange(30) % 5
    z = 3 * torch.randn(30, 5, generator=seeded()) + 2 * torch.nn.functional.one_hot(y, 5)
    assert temperature_scale(z, y.to(torch.uint8)) == temperature_scale(z, y)


def test_an_interval_can_be_aligned():
    gain = Interval(2.1, 1.7, 2.5, 10)
    assert f"{gain:>8.1f}" == "    +2.1 ±      0.4" and f"{gain:*<6.1f}" == "+2.1** ± 0.4***"
    assert f"{gain: .1f}" == " 2.1 ± 0.4" and f"{gain:-.1f}" == "2.1 ± 0.4" and f"{gain}" == "+2.10 ± 0.40"


def test_a_level_near_nothing_has_hardly_a_width():
    assert 0 < paired_interval([1.0, 2.0, 4.0], level=1e-9).half_width < 1e-8
