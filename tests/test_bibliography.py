"""The bibliography passes scripts/lint_bib.py, and each fault that the script names is found."""

import pytest

from scripts.lint_bib import BIBLIOGRAPHY, citations, plain, problems

GOOD = """
@inproceedings{a2020,
  title = {First},
  author = {A, B.},
  booktitle = {Somewhere},
  pages = {1--9},
  year = {2020},
  eprint = {2001.00001},
  archiveprefix = {arXiv}
}

@misc{b2021,
  title = {Second},
  author = {C, D. and others},
  year = {2021},
  doi = {10.1000/x.y}
}
"""
FAULTS = {
    "booktitle is missing": ("  booktitle = {Somewhere},\n", ""),
    "author is missing": ("  author = {A, B.},\n", ""),
    "the field journall is unknown": ("booktitle", "journall"),
    "the type online is none of": ("@misc", "@online"),
    "a doi, an eprint or a url is missing": (",\n  doi = {10.1000/x.y}", ""),
    "pages = '1-9' is not of the form": ("1--9", "1-9"),
    "page 9 comes after page 1": ("1--9", "9--1"),
    "doi = 'https://doi.org/10.1000/x.y'": ("10.1000", "https://doi.org/10.1000"),
    "the year 2099 is yet to come": ("year = {2020}", "year = {2099}"),
    "does not fit the year": ("2001.00001", "2013.00001"),
    "eprint and archiveprefix go together": (",\n  archiveprefix = {arXiv}", ""),
    "b2021: has the title of a2020": ("{Second}", "{{F}irst.}"),
    "references.bib: ": ("{First},", "{First}"),
}


def test_the_bibliography_has_nothing_to_mend():
    assert problems(BIBLIOGRAPHY.read_text(encoding="utf-8"), citations()) == []
    assert len(citations()) > 40


def test_a_good_one_passes():
    assert problems(GOOD, {"a2020", "b2021"}) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(fault):
    old, new = FAULTS[fault]
    assert GOOD.count(old) == 1
    found = problems(GOOD.replace(old, new), {"a2020", "b2021"})
    assert any(fault in line for line in found), found


def test_an_entry_given_twice_is_found():
    assert any("a2020" in line for line in problems(GOOD + GOOD, {"a2020", "b2021"}))


def test_unused_and_missing_entries_are_found():
    assert problems(GOOD, {"a2020", "c"}) == ["b2021: is cited nowhere", "c: is cited and not listed"]


def test_titles_are_compared_without_braces_and_marks():
    assert plain("{DistiLLM}: Towards") == plain("Distillm -- towards")
