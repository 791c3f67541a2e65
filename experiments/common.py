"""What the long runs share: a CSV that can be resumed, and a choice on validation before a report on test.

Each finished run is one line of the CSV, written at once. Seeds 100 to 102 choose; seeds 0 to 9 are reported.
"""

import csv
import platform
import sys
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent.parent / "chapters/results"
TUNING, REPORTED = (100, 101, 102), range(10)
LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # learning rates


def group(seed: int) -> tuple[int, ...]:
    """The seeds that are trained together: those that choose, or those that are reported."""
    return TUNING if seed in TUNING else tuple(REPORTED)


def stored(name: str) -> np.ndarray:
    """The lines of chapters/results/<name>.csv, with their columns by name."""
    path = FOLDER / f"{name}.csv"
    return np.genfromtxt(path, skip_header=3, delimiter=",", names=True, dtype=None, encoding="utf-8")


def run_all(name: str, about: str, configs: Iterable[dict], one: Callable[..., dict]) -> np.ndarray:
    """Call one(**config) for each config that chapters/results/<name>.csv lacks; return all its lines.

    The keys of a config are the first columns, the keys of what `one` returns the others. The header says
    what the runs are, the command, and the versions that began the file.
    """
    path = FOLDER / f"{name}.csv"
    for config in configs:
        done = set() if not path.exists() else {_key(row, config) for row in _lines(path)}
        if tuple(map(str, config.values())) in done:
            continue
        row = {**config, **one(**config)}
        row = {k: f"{v:.4f}" if isinstance(v, float) and k not in config else v for k, v in row.items()}
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(_header(about) + ",".join(row) + "\n", encoding="utf-8")
        with path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row.values())
        print(*(f"{k}={v}" for k, v in row.items()), flush=True)
    return stored(name)


def choose_then_report(name: str, about: str, one, score: str, grid: dict, **fixed) -> dict:
    """The grid on the tuning seeds, then the setting with the best mean `score` there on the reported seeds.

    one(**fixed, <a value per key of grid>, seed) returns the columns of a run; with a tuning seed, `score` is measured
    on validation. Returns the setting. A grid of one setting is reported at once.
    """
    tried = [{**fixed, **dict(zip(grid, values, strict=True))} for values in product(*grid.values())]
    if len(tried) > 1:
        rows = run_all(name, about, [{**setting, "seed": s} for setting in tried for s in TUNING], one)
        rows = rows[np.isin(rows["seed"], TUNING)]

        def mean(setting):
            return rows[score][np.all([rows[k] == v for k, v in setting.items()], axis=0)].mean()

        tried = [max(tried, key=mean)]
    run_all(name, about, [{**tried[0], "seed": s} for s in REPORTED], one)
    return tried[0]


def widened(name: str, about: str, one, rates: tuple, by: str = "accuracy", ladder=LADDER, **fixed) -> tuple:
    """The learning rates, with the ladder's next at an end for as long as validation chooses that end by `by`."""
    while True:
        rows = run_all(name, about, [{**fixed, "lr": lr, "seed": s} for lr in rates for s in TUNING], one)
        rows = rows[np.isin(rows["seed"], TUNING)]
        score = {}
        for lr in rates:
            setting = {**fixed, "lr": lr}
            score[lr] = rows[by][np.all([rows[k] == v for k, v in setting.items()], axis=0)].mean()
        best = max(score, key=score.get)
        if best == rates[0] > ladder[0]:
            rates = (ladder[ladder.index(best) - 1], *rates)
        elif best == rates[-1] < ladder[-1]:
            rates = (*rates, ladder[ladder.index(best) + 1])
        else:
            return rates


def widen_then_report(name: str, about: str, one, rates: tuple, by: str = "accuracy", **fixed) -> dict:
    """`choose_then_report` over the rates, `widened`."""
    grid = {"lr": widened(name, about, one, rates, by, **fixed)}
    return choose_then_report(name, about, one, by, grid, **fixed)


def _lines(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def _key(row: dict, config: dict) -> tuple:
    return tuple(row[k] for k in config)


def _header(about: str) -> str:
    versions = f"python {platform.python_version()}, torch {torch.__version__}, one thread"
    return f"# {about}\n# python -m experiments.{Path(sys.argv[0]).stem}\n# {versions}\n"
