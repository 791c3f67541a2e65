"""Where the time of a check goes: into fetching SmolLM2's matrices, or into multiplying them (chapter 24).

    python -m experiments.chapter24_fetching     # resumes where it stopped; under a minute on one core

The 210 matrices of SmolLM2's blocks multiply 1 to 9 tokens, each matrix twice in a row. Before the first product the
matrix lies in memory, because all others have been used since its last turn, and they are larger than the cache. At the
second product it is still in the cache. Medians of 15 turns, the numbers of tokens in an order drawn anew.
"""

import random
import time

import torch
import torch.nn.functional as F

from experiments.chapter24_drafted import in_format
from experiments.common import run_all

TOKENS, TURNS = range(1, 10), range(15)


def matrices(numbers: str) -> list:
    """Of the blocks alone: the table of tokens is larger than the cache."""
    return [w for w in in_format(numbers).blocks.parameters() if w.dim() == 2]


@torch.no_grad()
def products(weights: list, n: int, clock=time.thread_time) -> tuple[float, float]:
    """Milliseconds of the first products and of the second ones, summed over the matrices."""
    first = second = 0.0
    inputs = {w.shape[1]: torch.ones(1, n, w.shape[1], dtype=w.dtype) for w in weights}
    for w in weights:
        x = inputs[w.shape[1]]
        start = clock()
        F.linear(x, w)
        between = clock()
        F.linear(x, w)
        first, second = first + between - start, second + clock() - between
    return 1e3 * first, 1e3 * second


def fetch_times(numbers: str, turn: int) -> dict:
    weights = matrices(numbers)
    row = {n: products(weights, n) for n in random.Random(turn).sample(list(TOKENS), len(TOKENS))}
    return {f"{place}_{n}": row[n][i] for i, place in enumerate(("memory", "cache")) for n in TOKENS}


if __name__ == "__main__":
    torch.set_num_threads(1)
    about = (
        "SmolLM2's blocks times 1 to 9 tokens: milliseconds of CPU time, from memory and again from the cache"
    )
    for numbers in ("float32", "bfloat16"):
        fetch_times(numbers, 100)  # the warm-up
        configs = [{"numbers": numbers, "turn": turn} for turn in TURNS]
        run_all("24_fetching", about, configs, fetch_times)
