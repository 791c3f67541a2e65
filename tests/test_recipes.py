"""The recipes of reference/recipes.ipynb: each cell is complete, and runs alone in a namespace of its own."""

import re

import pytest

from tests.test_notebooks import ROOT, cells, tags

PAGE = ROOT / "reference/recipes.ipynb"
RECIPES = [c.source for c in cells(PAGE, "code") if "recipe" in tags(c)]
TEXT = "\n".join(c.source for c in cells(PAGE, "markdown"))
ASKED = (
    "accumulation", "−100", "prompts", "one sigmoid", "Regression", "Segmentation", "temperature that is learnt",
    "exactly 0", "negative", "Class weights", "autocast", "Resume",
)  # fmt: skip


def test_there_are_five_recipes():
    assert len(RECIPES) == 5


@pytest.mark.parametrize("source", RECIPES, ids=["loop", "trainer", "fabric", "features", "stored"])
def test_a_recipe_is_complete(source, tmp_path, monkeypatch):
    """It imports what it uses, marks what is the reader's, and leaves a student behind that was trained."""
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(source, "recipe", "exec"), names)
    assert source.count("# ←") >= 3 or "bert" in names
    student = names.get("student") or names["resumed"]
    assert any(p.grad is not None for p in student.parameters()) or "resumed" in names
    teacher = names.get("teacher")
    if teacher is not None:
        assert not any(p.requires_grad for p in teacher.parameters())
        assert not teacher.training


@pytest.mark.parametrize("question", ASKED)
def test_each_question_has_its_heading(question):
    assert re.search(rf"^### .*{question}", TEXT, re.M)
