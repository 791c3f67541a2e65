"""What the benchmarks share: the machine, its matrix-multiply rate, times taken in turn, the page of results."""

import platform
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch


def synchronized() -> float:
    """Seconds by the clock, when the GPU has done what it was asked."""
    torch.cuda.synchronize()
    return time.perf_counter()


def machine(gpu: bool = False) -> str:
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    if gpu:
        return f"{time.strftime('%Y-%m-%d')}, {torch.cuda.get_device_name()}; {versions}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = [line.split(":")[1].strip() for line in lines if "model name" in line]
    name = found[0] if found else platform.processor()
    return f"{time.strftime('%Y-%m-%d')}, {name}, {len(found) or '?'} cores, 1 thread; {versions}"


def in_turn(
    calls: dict[str, Callable[[], object]], repeats: int, warm: int = 1, clock=time.thread_time
) -> dict[str, float]:
    """Median seconds of each by this clock, CPU time if none is named, in an order drawn anew each round."""
    times = {name: [] for name in calls}
    for i in range(repeats + warm):
        for name in random.sample(list(calls), len(calls)):
            start = clock()
            calls[name]()
            if i >= warm:
                times[name].append(clock() - start)
    return {name: median(t) for name, t in times.items()}


def multiply_rate(n: int = 512) -> float:
    """Floating-point operations a second of an n × n matrix product."""
    a, b = torch.randn(2, n, n)
    return 2 * n**3 / in_turn({"mm": lambda: a @ b}, 20, 3)["mm"]


def publish(section: str, text: str) -> None:
    """Print the text, and put it into README.md between the section's two marks."""
    page = Path(__file__).parent / "README.md"
    before, rest = page.read_text(encoding="utf-8").split(f"<!-- {section} -->\n")
    after = rest.split(f"<!-- end of {section} -->")[1]
    print(text)
    marked = f"<!-- {section} -->\n\n{text}\n\n<!-- end of {section} -->"
    page.write_text(before + marked + after, encoding="utf-8")
