"""Chapter 15: the other divergence, KL(student‖teacher), along the student's own answers and along its teacher's.

python -m experiments.chapter15_reverse [WAY ...] writes chapters/results/15_reverse.csv, half a minute to a minute a run;
it may be stopped and goes on. Words, steps, seeds, rates and the off-policy start, with KL(teacher‖student), are those
of on_policy in 15_words.csv; slips are counted as in 15_slips.csv. The four rates were tried with one
tuning seed, and the best two of them with the other two tuning seeds as well. The runs of 200 steps are those that the
chapter makes again.
"""

import sys

import numpy as np
import torch

from experiments.chapter15 import OFF_REVERSE, RATES, REPORTED, REVERSE, SHORT, STEPS, made
from experiments.chapter15_slips import track
from experiments.common import TUNING, run_all


def one(way: str, steps: int, lr: float, seed: int) -> dict:
    """A run as in chapter15, and its slips."""
    student, row = made(way, steps, lr, seed)
    return {**row, **track(student, seed)}


def main():
    about = (
        "Students with KL(student‖teacher) along their own answers, or (off_policy_reverse) along their teacher's; "
        "columns as in 15_words, then as in 15_slips"
    )

    def configs(rates, seeds, steps=STEPS):
        return [{"way": way, "steps": steps, "lr": lr, "seed": s} for s in seeds for lr in rates]

    def best(count, rates):
        """The rates with the most words right on validation, on average."""
        means = {lr: tried["right"][tried["lr"] == lr].mean() for lr in rates}
        return sorted(means, key=means.get)[-count:]

    for way in sys.argv[1:] or (REVERSE, OFF_REVERSE):
        rows = run_all("15_reverse", about, configs(RATES, TUNING[:1]), one)
        tried = rows[
            (rows["way"] == way) & (rows["seed"] == TUNING[0])
        ]  # later lines are there when it goes on
        two = best(2, RATES)
        rows = run_all("15_reverse", about, configs(two, TUNING[1:]), one)
        tried = rows[(rows["way"] == way) & np.isin(rows["seed"], TUNING)]
        chosen = best(1, two)
        print("chosen on validation", way, chosen, flush=True)  # at an edge of RATES: widen them
        run_all("15_reverse", about, configs(chosen, REPORTED), one)
        if way == OFF_REVERSE:
            run_all("15_reverse", about, configs(chosen, REPORTED, SHORT), one)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
