"""What a call of chapter 17's files takes, and how much of that depends on what runs between two calls.

    python -m experiments.chapter17_times     # about a minute on one core

Teacher and student, each in 32 bits and in ONNX Runtime's eight, for 1 to 256 images. In each of 40 repeats all files are
timed in three ways: in a row (nothing runs between two calls of a file), in turn (the others do), and after other work
(a sum over 32 MB, which is not timed). A line of the table is one repeat: the median of its calls, in ms of CPU time of
the thread. A repeat goes through all sizes, so that a slow minute of the machine falls on all files and ways.
"""

import tempfile
from pathlib import Path
from time import thread_time

import numpy as np
import torch

from companion.data import fashion, fashion_teacher
from companion.deploy import export_onnx, int8
from companion.models import MLP
from experiments.common import run_all

COUNTS, REPEATS, CALLS = (1, 4, 16, 64, 256), 40, {1: 40, 4: 40, 16: 20, 64: 10, 256: 6}
BESIDE = np.ones(4_000_000)  # 32 MB
draw = np.random.default_rng(0)


def files(folder: str) -> dict:
    x = fashion("train").x[:256]
    made = {}
    for name, network in (("teacher", fashion_teacher(0)), ("student", MLP(784, 64, 10, seed=0).eval())):
        made[name] = export_onnx(network, x[:100], f"{folder}/{name}.onnx")
        made[f"{name}8"] = int8(made[name], f"{folder}/{name}8.onnx", x if name == "teacher" else None)
    return made


def once(call, x) -> float:
    start = thread_time()
    call(x)
    return 1e3 * (thread_time() - start)


def ways(calls: dict, x, n: int) -> dict:
    """Medians in ms, "file way": each way has two calls of warming up, and then n that count."""
    found = {}
    for name in draw.permutation(list(calls)):
        found[f"{name}_row"] = [once(calls[name], x) for _ in range(n + 2)]
        found[f"{name}_work"] = []
        for _ in range(n + 2):
            BESIDE.sum()
            found[f"{name}_work"].append(once(calls[name], x))
    for _ in range(n + 2):
        for name in draw.permutation(list(calls)):
            found.setdefault(f"{name}_turn", []).append(once(calls[name], x))
    return {key: float(np.median(found[key][2:])) for key in sorted(found)}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    named = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
    return named[0] if named else "unknown"


def main() -> None:
    torch.set_num_threads(1)
    x = fashion("test").x
    about = f"Milliseconds of CPU time a call, a repeat in each line; one thread of {processor()}"
    with tempfile.TemporaryDirectory() as folder:
        calls = files(folder)

        def one(repeat: int, images: int) -> dict:
            return ways(calls, x[:images], CALLS[images])

        grid = [{"repeat": r, "images": n} for r in range(REPEATS) for n in COUNTS]
        run_all("17_times", about, grid, one)


if __name__ == "__main__":
    main()
