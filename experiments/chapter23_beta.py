"""Chapter 23: the generalised Jensen-Shannon divergence between its ends, on words, along the teacher's or own answers.

python -m experiments.chapter23_beta [WAY] writes chapters/results/23_beta.csv, along the teacher's answers, and
23_beta_own.csv, along the student's own from 30 % of the steps on; a quarter of a minute a run; it may be stopped and
goes on. The runs are the shortest of chapter15, of 200 steps on 3,000 words, with β = 0, 1/2 and 1. Each β has the best
of three learning rates, by words right on validation with three seeds.
"""

import sys
from functools import partial

import numpy as np
import torch

from companion.tokens import generalized_jsd_loss
from experiments.chapter15 import RATES, REPORTED, SHORT, TEST, VAL, score, train
from experiments.chapter15_parts import EVALUATED, parts
from experiments.chapter15_slips import track
from experiments.common import TUNING, run_all

BETAS, TRIED = (0.0, 0.5, 1.0), RATES[1:]
NAMES = {"off_policy": "23_beta", "on_policy": "23_beta_own"}


def best(rows: np.ndarray) -> dict:
    """For each β the rate with the most words right on validation, on average."""
    rows = rows[np.isin(rows["seed"], TUNING)]

    def mean(beta, lr):
        return rows["right"][(rows["beta"] == beta) & (rows["lr"] == lr)].mean()

    return {b: max(TRIED, key=partial(mean, b)) for b in BETAS}


def one(beta: float, lr: float, seed: int, way: str = "off_policy") -> dict:
    """Words right, greedy and sampled, and the slips; on validation words only the first, for a tuning seed."""
    student, _ = train(way, SHORT, lr, seed, partial(generalized_jsd_loss, beta=beta))
    if seed in TUNING:
        return {"right": score(student, VAL)[0]} | dict.fromkeys(
            ("sampled_right", "slips", "back", "entropy"), "nan"
        )
    sampled = parts(student, TEST, torch.Generator().manual_seed(seed), EVALUATED)[0]
    slips = track(student, seed)
    return {
        "right": score(student, TEST)[0], "sampled_right": sampled, **{c: slips[c] for c in ("slips", "back", "entropy")}
    }  # fmt: skip


def main():
    what = (
        "Students of 200 steps with the generalised Jensen-Shannon divergence along {}: right and sampled_right in "
        "percent of 3000 words (validation for seeds 100 to 102, else test); slips and back in percent, entropy in nats"
    )
    for way, whose in (("off_policy", "their teacher's answers"), ("on_policy", "their own answers")):
        if sys.argv[1:] not in ([], [way]):
            continue
        name, about, again = NAMES[way], what.format(whose), partial(one, way=way)
        tried = [{"beta": b, "lr": lr, "seed": s} for s in TUNING for lr in TRIED for b in BETAS]
        rows = run_all(name, about, tried, again)
        chosen = best(rows)
        print("chosen on validation", way, chosen, flush=True)
        reported = [{"beta": b, "lr": chosen[b], "seed": s} for s in REPORTED for b in BETAS]
        run_all(name, about, reported, again)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
