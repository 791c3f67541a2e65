"""Long runs into a CSV that can be resumed: each finished run is one line, written at once."""

import csv
import platform
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent.parent / "chapters/results"


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
    return np.genfromtxt(path, skip_header=3, delimiter=",", names=True, dtype=None, encoding="utf-8")


def _lines(path: Path) -> list[dict]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def _key(row: dict, config: dict) -> tuple:
    return tuple(row[k] for k in config)


def _header(about: str) -> str:
    versions = f"python {platform.python_version()}, torch {torch.__version__}, one thread"
    return f"# {about}\n# python scripts/{Path(sys.argv[0]).name}\n# {versions}\n"
