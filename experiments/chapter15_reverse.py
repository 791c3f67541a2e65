"""Chapter 15: the on-policy student with the other divergence, KL(student‖teacher), along its own answers.

python -m experiments.chapter15_reverse writes chapters/results/15_reverse.csv, about a minute a run; it may be stopped
and goes on. Words, steps, seeds, rates and the off-policy start, with KL(teacher‖student), are those of on_policy in
chapters/results/15_words.csv; slips are counted as in chapters/results/15_slips.csv. The four rates were tried with one
tuning seed, and the best two of them with the other two tuning seeds as well.
"""

import numpy as np
import torch

from experiments.chapter15 import RATES, REPORTED, REVERSE, STEPS, made
from experiments.chapter15_slips import track
from experiments.common import TUNING, run_all


def one(way: str, steps: int, lr: float, seed: int) -> dict:
    """A run as in chapter15, and its slips."""
    student, row = made(way, steps, lr, seed)
    return {**row, **track(student, seed)}


def main():
    about = (
        "On-policy students of 1000 steps with KL(student‖teacher) along their own answers; columns as in 15_words, then "
        "as in 15_slips"
    )

    def configs(rates, seeds):
        return [{"way": REVERSE, "steps": STEPS, "lr": lr, "seed": s} for s in seeds for lr in rates]

    def best(count, rates):
        """The rates with the most words right on validation, on average."""
        means = {lr: tried["right"][tried["lr"] == lr].mean() for lr in rates}
        return sorted(means, key=means.get)[-count:]

    tried = run_all("15_reverse", about, configs(RATES, TUNING[:1]), one)
    tried = tried[tried["seed"] == TUNING[0]]  # later lines are there when it goes on
    two = best(2, RATES)
    rows = run_all("15_reverse", about, configs(two, TUNING[1:]), one)
    tried = rows[np.isin(rows["seed"], TUNING)]
    chosen = best(1, two)
    print("chosen on validation", chosen, flush=True)  # at an edge of RATES: widen them
    run_all("15_reverse", about, configs(chosen, REPORTED), one)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
