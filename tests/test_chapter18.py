"""Chapter 18: the numbers of its worked examples and exercises; runs are in test_scaling, files in test_stored."""

import pytest
import torch

from companion.costs import Plan, bill, bytes_a_token


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


@pytest.mark.equation("eq-stored-bytes")
@pytest.mark.parametrize(
    "tokens, vocabulary, width, k, terabytes",
    [
        (1e8, 50_000, 2000, 50, (10, 0.4, None)),
        (1e10, 128_000, 4096, 30, (2560, 82, 1.8)),
        (1e6, 10, 512, 10, (2e-5, 1e-3, None)),
    ],
)  # fmt: skip
def test_what_the_three_teams_would_store(tokens, vocabulary, width, k, terabytes):
    sizes = [tokens * size / 1e12 for size in bytes_a_token(vocabulary, width, k).values()]
    for found, said in zip(sizes, terabytes, strict=True):
        assert said is None or found == pytest.approx(said, rel=0.03)


@pytest.mark.equation("eq-surcharge")
def test_a_teacher_of_three_times_the_size_doubles_the_bill():
    assert bill(Plan(teacher=3e9, student=1e9))["surcharge"] == 1
    ten = bill(Plan(teacher=1e10, student=1e9))
    assert ten["surcharge"] / (1 + ten["surcharge"]) == pytest.approx(10 / 13)
    assert ten["money_live"] == pytest.approx(ten["hours_trained"] * 13 / 3)


def test_sixteen_bytes_a_parameter_and_two():
    whole = 16 * 7 + 2 * 70  # GB
    assert [round(whole / n) for n in (1, 4, 8, 16)] == [252, 63, 32, 16]
