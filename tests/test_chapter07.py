"""Chapter 7: its equations, its tables, its exercises."""

import csv
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from companion import checks
from companion.losses import distillation_loss
from scripts.chapter07_conventions import measure
from tests import fault_table

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


@pytest.mark.parametrize("name", ["F.kl_div, batchmean", "F.kl_div, mean"])
def test_pytorchs_lines_of_the_table_are_still_true(name):
    """The others are measured again by tests/peers, where they are installed."""
    written = next(row for row in lines("07_conventions") if row["library"] == name)
    assert {k: v for k, v in measure(name).items() if k != "version"} == {
        k: v for k, v in written.items() if k != "version"
    }


def test_this_books_column_of_faults_is_still_true():
    rows = lines("07_faults")
    assert [row["case"] for row in rows] == list(fault_table.CASES)
    for row in rows:
        found = {fault_table.outcome(row["case"], name) for name in fault_table.LOSSES} - {""}
        assert (found == {None}) == (row["this book"] == "pass")


def test_the_chapter_names_the_errata_of_the_references():
    text = "".join(
        "".join(c["source"]) for c in json.loads((ROOT / "chapters/07_tools.ipynb").read_text())["cells"]
    )
    assert all(f"erratum R{i}" in text for i in range(1, 6))


def said(check, attempt, capsys):
    check(attempt)
    return capsys.readouterr().out


def pair(hard, soft):
    return soft / (hard + soft), hard + soft


def weight(soft, k, T, m):
    return soft * T ** (k - 2) / m


def untouched(*case):
    raise NotImplementedError


SAME = {
    "✓ same_training": lambda h, s, k, T, m: pair(h, weight(s, k, T, m)),
    "hard term": lambda h, s, k, T, m: pair(weight(s, k, T, m), h),
    "T² is left out": lambda h, s, k, T, m: pair(h, s / m),
    "too large": lambda h, s, k, T, m: pair(h, s * T**k / m),
    "m is left out": lambda h, s, k, T, m: pair(h, weight(s, k, T, 1)),
    "divide by m": lambda h, s, k, T, m: pair(h, weight(s, k, T, 1) * m),
    "sum to 1": lambda h, s, k, T, m: (weight(s, k, T, m), 1.0),
    "scale is missing": lambda h, s, k, T, m: (pair(h, weight(s, k, T, m))[0], 1.0),
    "result differs": lambda *case: (0.0, 0.0),
    "not attempted": untouched,
}


@pytest.mark.parametrize("hint", SAME)
def test_check_of_the_conversion(hint, capsys):
    assert hint in said(checks.same_training, SAME[hint], capsys)


MEAN = {
    "✓ row_mean_over_mean": lambda s: float(s[-1]),
    "first dimension alone": lambda s: float(torch.Size(s).numel() / s[0]),
    "factor round": lambda s: 1 / s[-1],
    "number of rows": lambda s: float(torch.Size(s[:-1]).numel()),
    "all entries": lambda s: float(torch.Size(s).numel()),
    "result differs": lambda s: 0.5,
    "not attempted": untouched,
}


@pytest.mark.parametrize("hint", MEAN)
def test_check_of_the_factor(hint, capsys):
    assert hint in said(checks.row_mean_over_mean, MEAN[hint], capsys)
