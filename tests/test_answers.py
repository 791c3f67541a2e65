"""The table of exercises against the notebooks, and `python -m companion.checks` on files of answers."""

import re
import subprocess
import sys

import pytest

from companion.checks import __main__ as command
from companion.checks._exercises import ALIASES, EXERCISES, KINDS, LEVELS
from tests.test_notebooks import CHAPTERS, ROOT, cells, tags


def solution(exercise) -> str:
    """The code of the exercise's chapter up to its solution, with the function under the exercise's name."""
    path = next(p for p in CHAPTERS if p.stem == exercise.chapter)
    following = False
    for cell in cells(path):
        if cell.cell_type == "markdown" and f"{{solution-start}} {exercise.label}\n" in cell.source:
            following = True
        if following and "solution" in tags(cell):
            code = re.split(r"^checks\.", cell.source, flags=re.M)[0]  # what follows is the page's use of it
            name = re.findall(r"^def (\w+)", code, re.M)[-1]
            return f"{code}\n{exercise.name} = {name}\n"
    raise AssertionError(f"{exercise.label}: no solution in {path.stem}")


IMPORTS = """
from math import log
import torch
import torch.nn.functional as F
from companion import metrics
from companion.losses import distillation_loss as _distillation_loss, soften as _soften
"""


def whole_file() -> str:
    parts = [IMPORTS]
    for exercise in EXERCISES:
        # An answer may use the package's function of the name that another answer defines.
        parts += ["soften, distillation_loss = _soften, _distillation_loss", solution(exercise)]
        parts.append(f"found_{exercise.name} = {exercise.name}")
    return "\n".join([*parts, *(f"{e.name} = found_{e.name}" for e in EXERCISES)])


def test_each_exercise_has_a_name_of_its_own():
    names = [exercise.name for exercise in EXERCISES]
    assert not {name for name in names if names.count(name) > 1}


def test_the_table_lists_every_exercise_in_its_order():
    listed = [(e.chapter, e.label) for e in EXERCISES]
    found = [
        (path.stem, label)
        for path in CHAPTERS
        for cell in cells(path, "markdown")
        for label in re.findall(r"\{exercise\}.*\n:label: (ex-[\w-]+)", cell.source)
    ]
    assert listed == found, "companion/checks/_exercises.py and the notebooks differ"


def test_levels_and_topics():
    assert {e.level for e in EXERCISES} == set(LEVELS)
    assert {e.kind for e in EXERCISES} <= set(KINDS)
    assert all(e.title and not e.title.endswith(".") for e in EXERCISES)
    assert len({e.title for e in EXERCISES}) == len({e.name for e in EXERCISES}) == len(EXERCISES)
    assert set(ALIASES.values()) <= {e.name for e in EXERCISES}
    assert len({e.topic for e in EXERCISES}) <= 8


def test_the_page_has_each_level():
    page = (ROOT / "reference/exercises.md").read_text()
    for level, text in LEVELS.items():
        assert f"## Level {level}: {text}\n\n```{{exercise-list}} {level}\n" in page


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
def test_the_notebook_checks_with_the_same_check(exercise, capsys):
    path = next(p for p in CHAPTERS if p.stem == exercise.chapter)
    stubs = [c for c in cells(path, "code") if "exercise" in tags(c)]
    called = [re.search(r"^checks\.(\w+)\(\w+(.*)\)$", c.source, re.M) for c in stubs]
    assert exercise.name in [call[1] for call in called]  # one name everywhere
    assert any(f"def {exercise.name}(" in c.source for c in stubs)

    def stub(*args):
        raise NotImplementedError

    exercise.check(stub)
    assert capsys.readouterr().out == f"○ {exercise.name}: not attempted\n"


def run(*arguments, cwd=None):
    command = [sys.executable, "-m", "companion.checks", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def test_the_solutions_pass(tmp_path):
    file = tmp_path / "answers.py"
    file.write_text(whole_file())
    done = run(file)
    assert done.returncode == 0, done.stdout + done.stderr
    n = len(EXERCISES)
    assert done.stdout.splitlines()[-1] == f"{n} of {n} solved, 0 wrong, 0 not attempted"
    assert done.stdout.count("✓") == n


def test_a_wrong_answer_gets_its_hint_and_exit_code_1(tmp_path, capsys):
    file = tmp_path / "answers.py"
    file.write_text(
        "def soften(z, T):\n    print('✓ cheat')\n    return z.softmax(-1)\n"
        "def kd_loss(z, v):\n    return 0\n"
        "def entropy(p):\n    raise NotImplementedError\n"
        "credit = 3\n"
    )
    assert command.main([str(file)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "✗ soften: T is ignored: divide the logits by T." in said
    assert any(line.startswith("✗ kd_loss: it stops with TypeError:") for line in said)
    assert "○ entropy: not attempted" in said and "○ credit: not attempted" in said
    assert said[-1] == f"0 of {len(EXERCISES)} solved, 2 wrong, {len(EXERCISES) - 2} not attempted"


def test_what_is_not_attempted_counts_and_is_not_solved(tmp_path, capsys):
    n = len(EXERCISES)
    (tmp_path / "answers.py").write_text("")
    assert command.main([str(tmp_path / "answers.py")]) == 1
    said = capsys.readouterr().out
    assert said.count("○") == n and said.endswith(f"\n0 of {n} solved, 0 wrong, {n} not attempted\n")


def test_functions_of_other_names_get_a_word(tmp_path, capsys):
    (tmp_path / "answers.py").write_text(
        "from math import sqrt\n"
        "def my_soften(z, T):\n    return (z / T).softmax(-1)\n"
        "def my_step(*args):\n    return 1\n"
        "def softn(z, T):\n    return z\n"
        "def credit():\n    return -9.5, 4.4\n"
        "def my_credit():\n    return 0, 0\n"
        "def quite_another():\n    pass\n"
        "def _helper():\n    pass\n"
    )
    assert command.main([str(tmp_path / "answers.py")]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "✓ soften (your my_soften)" in said and "✓ credit" in said
    assert any(line.startswith("✗ training_step (your my_step): ") for line in said)
    assert "softn: no exercise is called so; did you mean soften?" in said
    assert "quite_another: no exercise is called so." in said
    assert any(line.startswith("my_credit: no exercise is called so") for line in said)
    assert not [line for line in said if line.startswith(("sqrt", "_helper"))]


def test_a_module_beside_the_answers_is_found(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "helper_of_answers.py").write_text("def parts():\n    return -9.5, 4.4\n")
    (tmp_path / "answers.py").write_text("from helper_of_answers import parts as credit\n")
    command.main([str(tmp_path / "answers.py")])
    assert "✓ credit\n" in capsys.readouterr().out


def test_help_says_what_is_run_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--help"])
    said = capsys.readouterr().out
    assert (
        stopped.value.code == 0
        and "check only files that you trust" in said
        and "Exit code: 0 if every" in said
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "there is no such file"),
        ("def soften(:\n", "line 1: invalid syntax"),
        ("x = 1\nimport no_such_module\n", "(line 2), ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0\n", "(line 1), ZeroDivisionError"),
        ("import sys\nsys.exit(0)\n", "ends the program by itself (exit) before it could be checked"),
        ("exit('done')\n", "ends the program by itself"),
    ],
)
def test_a_file_that_cannot_run_says_why(tmp_path, capsys, text, reason):
    file = tmp_path / "answers.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        command.main([str(file)])
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err


def test_an_answer_that_exits_is_wrong_and_the_others_are_checked(tmp_path, capsys):
    (tmp_path / "answers.py").write_text("def soften(z, T):\n    raise SystemExit(0)\n")
    assert command.main([str(tmp_path / "answers.py")]) == 1
    said = capsys.readouterr().out
    assert "✗ soften: it stop" in said and "SystemExit" in said
    assert said.endswith(f"0 of {len(EXERCISES)} solved, 1 wrong, {len(EXERCISES) - 1} not attempted\n")


def test_an_answer_that_prints_without_an_end_of_line_is_judged(tmp_path, capsys):
    text = "def soften(z, T):\n    print('✗ soft', end='')\n    return (z / T).softmax(-1)\n"
    (tmp_path / "answers.py").write_text(text + "def nearest():\n    print('…', end='')\n    return 'A'\n")
    assert command.main([str(tmp_path / "answers.py")]) == 1
    said = capsys.readouterr().out
    assert "✓ soften\n" in said and "✗ nearest: subtract each teacher's own entropy" in said


def test_list_names_them_all(capsys):
    assert command.main(["--list"]) == 0
    said = capsys.readouterr().out
    assert all(e.name in said and e.title in said for e in EXERCISES)
    assert len(said.splitlines()) == len(EXERCISES)
