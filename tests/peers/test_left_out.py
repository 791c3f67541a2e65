"""A peer that is missing is left out with the reason, and fails where it should be there."""

import pytest

from tests.peers import conftest
from tests.peers.conftest import need, promised, why_not


@pytest.fixture
def extras(monkeypatch):
    """BOOK_PEERS set anew; both caches empty before and after."""

    def name(text):
        monkeypatch.setenv("BOOK_PEERS", text)
        promised.cache_clear()
        return promised()

    yield name
    promised.cache_clear()


def test_what_imports_is_tested(extras):
    extras("peers")
    assert why_not("torch") is None and need("torch", "torch") is None


def test_a_peer_that_is_left_out_says_why(extras):
    extras("")
    with pytest.raises(
        pytest.skip.Exception,
        match=r"no_such does not import: ModuleNotFoundError: No module named 'no_such'",
    ):
        need("no-such", "no_such")


def test_a_peer_that_should_be_there_fails(extras, monkeypatch):
    extras("peers")
    monkeypatch.setattr(conftest, "why_not", lambda module: "ModuleNotFoundError: No module named 'requests'")
    with pytest.raises(pytest.fail.Exception, match=r"torchdistill belongs to BOOK_PEERS=peers .*'requests'"):
        need("torchdistill", "torchdistill.losses.mid_level")


def test_the_extras_hold_what_the_tests_need(extras):
    from experiments.chapter07_conventions import PEERS

    assert extras("peers") == {"torchdistill"}
    assert {peer.package for peer in PEERS.values()} - {"torch"} <= extras("peers,peers-llm")
    assert "requests" in extras("peers-llm")  # ModelOpt imports it and does not ask for it


def test_an_extra_that_does_not_exist_is_refused(extras):
    with pytest.raises(pytest.UsageError, match=r"does not have: peer$"):
        extras("peer")
