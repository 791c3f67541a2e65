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


TRAINED = {  # how each recipe shows that its student was trained
    "loop": lambda names: names["optimiser"].state,
    "trainer": lambda names: names["taught"].state.global_step == 210,
    "causal": lambda names: names["history"][-1] < 0.8 * names["history"][0],
    "fabric": lambda names: names["resumed"].state_dict()["stages.0.1.num_batches_tracked"] == 60,
    "features": lambda names: names["regressor"].weight.grad.abs().sum() > 0,
    "stored": lambda names: names["optimiser"].state,
}


@pytest.mark.parametrize("source, name", zip(RECIPES, TRAINED, strict=True), ids=list(TRAINED))
def test_a_recipe_is_complete(source, name, tmp_path, monkeypatch):
    """It imports what it uses, marks what is the reader's, trains a student and leaves the teacher as it was."""
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(source, "recipe", "exec"), names)
    assert source.count("# ←") >= 2
    assert TRAINED[name](names)
    if name != "stored":
        assert not names["teacher"].training
        assert not any(p.requires_grad for p in names["teacher"].parameters())


@pytest.mark.parametrize("question", ASKED)
def test_each_question_has_its_heading(question):
    assert re.search(rf"^### .*{question}", TEXT, re.M)
