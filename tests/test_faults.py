"""Every loss on every case of the fault suite."""

import pytest

from tests.fault_table import CASES, LOSSES, outcome, table


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", CASES)
def test_fault(case, loss):
    wrong = outcome(case, loss)
    if wrong == "":
        pytest.skip("does not apply")
    assert wrong is None, wrong


def test_there_are_twenty_cases_and_the_table_prints():
    assert len(CASES) == 20
    assert len(table().splitlines()) == 20 + len(LOSSES) + 4
