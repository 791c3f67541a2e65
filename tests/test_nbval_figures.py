"""What counts as the same moving figure: another processor's last digits, and nothing else."""

import json
import subprocess
import sys
from copy import deepcopy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from companion._moving import MIME
from tests.nbval_figures import Figure, apart
from tests.test_notebooks import CHAPTERS, ROOT, cells


def moving():
    """A moving figure of curves, as it is stored."""
    for path in CHAPTERS:
        for output in (output for cell in cells(path, "code") for output in cell.outputs):
            figure = output.get("data", {}).get(MIME)
            if figure and any("lines" in panel for panel in figure["data"].get("panels", ())):
                return json.loads(json.dumps(figure))


def lines(figure):
    return next(panel for panel in figure["data"]["panels"] if "lines" in panel)["lines"]


def nudged(values, by):
    return [nudged(value, by) if isinstance(value, list) else value + by for value in values]


def flip(figure):
    line = lines(figure)[0]
    line["ys"] = nudged(line["ys"], 1e3)


def rename(figure):
    figure["data"]["slider"]["label"] += " anew"


def cut(figure):
    figure["data"]["slider"]["values"].pop()


def untold(figure):
    figure["data"]["say"].pop()


def other_units(figure):
    figure["data"]["say"][0]["unit"] = "furlongs"


def other_goal(figure):
    figure["data"]["goal"]["reached"] = [[1 - x for x in row] for row in figure["data"]["goal"]["reached"]]


def begin_elsewhere(figure):
    figure["data"]["slider"]["start"] += 1


def split(figure):
    line = lines(figure)[0]
    line["ys"] = [line["ys"]]


def test_last_digits_are_another_processors():
    other = deepcopy(moving())
    for line in lines(other):
        line["ys"] = nudged(line["ys"], 1e-4)
    other["data"]["slider"]["values"][0] = "123.4"
    assert Figure(moving()) == Figure(other) != moving()


@pytest.mark.parametrize(
    "change", [flip, rename, cut, untold, other_units, other_goal, begin_elsewhere, split]
)
def test_what_else_differs_is_another_figure(change):
    other = deepcopy(moving())
    change(other)
    assert Figure(moving()) != Figure(other)


def test_nbval_passes_the_first_and_finds_the_second(tmp_path):
    """A stored curve of a cell that draws another one: by its last digit, and by its height."""
    for name, height in (("digit", 1.001), ("height", 2.0)):
        stored = {"kind": "curve", "data": {"ys": [0.0, height, 0.5]}}
        drawn = {"kind": "curve", "data": {"ys": [0.0, 1.0, 0.5]}}
        cell = new_code_cell(
            f"from IPython.display import display\ndisplay({ {MIME: drawn}!r}, raw=True)",
            execution_count=1,
            outputs=[new_output("display_data", data={MIME: stored})],
        )
        nbformat.write(new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "-p", "tests.nbval_figures", "--nbval", "--nbval-current-env"]
    run = subprocess.run([*command, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert "1 failed, 1 passed" in run.stdout and "height.ipynb" in run.stdout
    assert "figure['data']['ys']: [0.0, 2.0, 0.5] is stored, and [0.0, 1.0, 0.5] came out" in run.stdout


def test_the_first_place_that_differs_is_named():
    figure = {"goal": [[0, 1], [1, 0]], "notes": ["one", "two"], "start": 3}
    assert apart(figure, {**figure, "start": 4}).startswith("figure['start']: 3 is stored, and 4")
    assert apart(figure, {**figure, "notes": ["one", "three"]}).startswith("figure['notes'][1]: two is")
    assert apart(figure, {**figure, "notes": ["one"]}).startswith("figure['notes']: ['one', 'two']")
    assert apart(figure, {"goal": 1}).startswith("figure: {")
