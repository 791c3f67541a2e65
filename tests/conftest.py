"""One thread on the CPU, so that numbers repeat; markers that bind tests to the book's equations and errata."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("BOOK_DEVICE", "cpu")


def pytest_configure(config):
    config.addinivalue_line("markers", "equation(label): checks the equation of that label in a chapter")
    config.addinivalue_line("markers", "erratum(id): shows what a row of reference/errata says")


def pytest_collection_modifyitems(items):
    """A name made of raw bytes may hold the time (gzip writes it), and then two workers do not agree on the tests."""
    raw = [item.nodeid[:90] for item in items if "\\x0" in item.nodeid or "\\x1" in item.nodeid]
    if raw:
        raise pytest.UsageError(f"Give these tests names (ids=…), theirs spell out bytes: {raw[:3]}")


def pytest_terminal_summary(terminalreporter):
    """Where the fault suite ran, its table stands below the dots: cases × losses."""
    ran = [r for key in ("passed", "failed") for r in terminalreporter.getreports(key)]
    if any("test_faults.py::test_fault[" in report.nodeid for report in ran):
        from tests.fault_table import table

        terminalreporter.section("fault suite")
        terminalreporter.write_line(table())
