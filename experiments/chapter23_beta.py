"""Chapter 23: the generalised Jensen-Shannon divergence between its ends, on words, along the teacher's answers.

python -m experiments.chapter23_beta writes chapters/results/23_beta.csv, a quarter of a minute a run; it may be stopped
and goes on. The runs are the shortest of chapter15, of 200 steps on 3,000 words, with β = 0 (as off_policy there), 1/2
and 1 (as off_policy_reverse). The ends have the rates of 15_words.csv and 15_reverse.csv; β = 1/2 has the best of the
three upper rates, by words right on validation with three seeds.
"""

from functools import partial

import torch

from companion.tokens import generalized_jsd_loss
from experiments.chapter15 import OFF_REVERSE, RATES, REPORTED, SHORT, TEST, VAL, score, train
from experiments.chapter15_parts import EVALUATED, parts
from experiments.chapter15_slips import track
from experiments.common import TUNING, run_all, stored


def one(beta: float, lr: float, seed: int) -> dict:
    """Words right, greedy and sampled, and the slips; on validation words only the first, for a tuning seed."""
    student, _ = train("off_policy", SHORT, lr, seed, partial(generalized_jsd_loss, beta=beta))
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
    about = (
        "Students of 200 steps with the generalised Jensen-Shannon divergence: right and sampled_right in percent of "
        "3000 words (validation for seeds 100 to 102, else test); slips and back in percent, entropy in nats"
    )
    ends = {
        beta: rows["lr"][(rows["way"] == way) & (rows["seed"] == 0)][0].item()
        for beta, way, rows in (
            (0.0, "off_policy", stored("15_words")), (1.0, OFF_REVERSE, stored("15_reverse"))
        )
    }  # fmt: skip
    tried = [{"beta": 0.5, "lr": lr, "seed": s} for s in TUNING for lr in RATES[1:]]
    rows = run_all("23_beta", about, tried, one)
    rows = rows[rows["seed"] >= TUNING[0]]
    means = {lr: rows["right"][rows["lr"] == lr].mean() for lr in RATES[1:]}
    chosen = {**ends, 0.5: max(means, key=means.get)}
    run_all(
        "23_beta",
        about,
        [{"beta": b, "lr": chosen[b], "seed": s} for s in REPORTED for b in sorted(chosen)],
        one,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
