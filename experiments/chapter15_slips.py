"""Chapter 15: why own answers lose words. The off-policy and on-policy students of 1,000 steps, and where they slip.

python -m experiments.chapter15_slips writes chapters/results/15_slips.csv, half a minute to a minute a run; it may be
stopped and goes on. The runs are those of chapters/results/15_words.csv, made again with the rates chosen there.
"""

import sys

import torch

from companion.teachers import answers, spell
from experiments.chapter15 import REPORTED, STEPS, TEACHER, TEST, score, train
from experiments.common import run_all, stored

RARE, EVALUATED = 0.01, 3_000  # a slip is a token to which the teacher gives less


@torch.no_grad()
def track(model, seed: int) -> dict:
    """Along answers to test words that a model samples: slips and ways back in %, distances and entropy in nats."""
    spelled = spell(list(TEST)[:EVALUATED])
    said = answers(model, spelled, torch.Generator().manual_seed(seed))
    counted = said[:, 1:] != 0
    log_p, log_q = (m(spelled, said[:, :-1]).log_softmax(-1) for m in (TEACHER, model))
    slip = (log_p.gather(-1, said[:, 1:, None]).squeeze(-1).exp() < RARE) & counted
    after = torch.zeros_like(slip)
    after[:, 1:] = slip[:, :-1]
    after &= counted
    fine = counted & ~after
    nats, unsure = (log_p.exp() * (log_p - log_q)).sum(-1), -(log_q.exp() * log_q).sum(-1)
    return {
        "slips": 100 * slip[fine].float().mean().item(),
        "back": 100 * (~slip[after]).float().mean().item(),
        "kl_on_track": nats[fine].mean().item(),
        "kl_after_slip": nats[after].mean().item(),
        "entropy": unsure[fine].mean().item(),
    }


def one(way: str, steps: int, lr: float, seed: int) -> dict:
    """A run of chapter15, made again: its words right in percent, and its slips."""
    student, _ = train(way, steps, lr, seed)
    return {"right": score(student, TEST)[0], **track(student, seed)}


def main():
    about = (
        "Slips of students of 1000 steps: right in percent of 3000 test words; slips in percent of sampled tokens after "
        "a token that is none, back in percent of tokens after a slip; distances and entropy in nats"
    )
    words = stored("15_words")
    chosen = {
        w: words["lr"][(words["way"] == w) & (words["seed"] == 0)][0].item()
        for w in ("off_policy", "on_policy")
    }
    configs = [
        {"way": w, "steps": STEPS, "lr": chosen[w], "seed": s}
        for s in REPORTED
        for w in sys.argv[1:] or chosen
    ]
    run_all("15_slips", about, configs, one)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
