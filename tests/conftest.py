"""One thread, so that numbers repeat; markers that bind tests to the book's equations and errata."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config):
    config.addinivalue_line("markers", "equation(label): checks the equation of that label in a chapter")
    config.addinivalue_line("markers", "erratum(id): shows what a row of reference/errata says")
