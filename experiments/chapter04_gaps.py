"""Chapter 4: what students of digits get right, by size, by temperature and by the direction of KL.

    python -m experiments.chapter04_gaps     # resumes where it stopped; about two minutes on one core

The students of experiments.chapter04, again: with the forward KL at T = 1, 4 and 16, at the learning rates chosen
there, and those with 2 units with the reverse KL at T = 1, too, whose rate is chosen here in the same way. Measured at
T = 1 on the test images (while choosing: on the validation images), where k is a class's place in the teacher's order:

    behind_k   how far the teacher's logit of class k lies behind its first, mean over the images
    off_k      by how much the student gets this distance wrong, root mean square over the images
    near_k     by how much it puts the class too near to the first, mean over the images (too far counts as 0)
    far_k      by how much it puts the class too far from the first, mean over the images (too near counts as 0)
    ahead_k    share (%) of the images on which the student has the class ahead of the teacher's first
    forward, reverse   both KLs
    left_out   share (%) of the images on which the teacher's first class has less than 1 % from the student
    nonsense   the student's probability (%) for classes that have less than 0.1 % from the teacher
"""

from functools import partial
from itertools import product

import torch
from torch import nn

from companion.losses import kd_loss
from companion.metrics import accuracy
from companion.tokens import forward_kl_loss, reverse_kl_loss
from companion.training import fit, predict, teacher_logits
from experiments.chapter04 import RATES, UNITS, lesson, teacher_of
from experiments.common import TUNING, choose_then_report, stored

TEMPERATURES = (1, 4, 16)


def trained(kl: str, units: int, T: float, lr: float, seed: int) -> nn.Module:
    """A linear student that saw the teacher's answers, and no label."""

    def loss(logits_s, logits_t, y):
        if kl == "forward":
            return kd_loss(logits_s, logits_t, T)
        return T**2 * reverse_kl_loss(logits_s, logits_t, T=T)

    (train, _, _), answers = lesson(seed)
    torch.manual_seed(seed)
    student = nn.Sequential(nn.Linear(64, units), nn.Linear(units, 10))
    fit(student, train, loss, answers, steps=600, lr=lr, seed=seed)
    return student


def measured(z, v) -> dict:
    """Student and teacher logits of the same images, compared at T = 1."""
    order = v.argsort(-1, descending=True)
    ranked = v.gather(-1, order)
    behind = ranked[:, :1] - ranked
    ours = z.gather(-1, order)
    error = ours[:, :1] - ours - behind
    wrong, near, far = (
        error.square().mean(0).sqrt(),
        (-error).clamp(min=0).mean(0),
        error.clamp(min=0).mean(0),
    )
    ahead = 100 * (ours > ours[:, :1]).double().mean(0)
    p, q = v.softmax(-1), z.softmax(-1)
    return {
        **{f"behind_{k + 1}": behind[:, k].mean().item() for k in range(1, 10)},
        **{f"off_{k + 1}": wrong[k].item() for k in range(1, 10)},
        **{f"near_{k + 1}": near[k].item() for k in range(1, 10)},
        **{f"far_{k + 1}": far[k].item() for k in range(1, 10)},
        **{f"ahead_{k + 1}": ahead[k].item() for k in range(1, 10)},
        "forward": forward_kl_loss(z, v).item(),
        "reverse": reverse_kl_loss(z, v).item(),
        "left_out": 100 * (q.gather(-1, order[:, :1]) < 0.01).double().mean().item(),
        "nonsense": 100 * q[p < 0.001].sum().item() / len(q),
    }


def one(kl: str, units: int, T: float, lr: float, seed: int) -> dict:
    """Validation while choosing, test once chosen."""
    part = "val" if seed in TUNING else "test"
    parts, _ = lesson(seed)
    split = parts[1 if part == "val" else 2]
    teacher, student = teacher_of(seed), trained(kl, units, T, lr, seed)
    z, v = predict(student, split.x).double(), teacher_logits(teacher, split.x).double()
    return {"part": part, "accuracy": accuracy(z, split.y), **measured(z, v)}


def chosen_rate(units: int, T: float) -> float:
    """The rate that experiments.chapter04 chose."""
    rows = stored("04_temperatures")
    return rows["lr"][(rows["units"] == units) & (rows["T"] == T) & (rows["part"] == "test")][0].item()


def main() -> None:
    torch.set_num_threads(1)
    about = (
        "What linear students get right, by size, temperature and direction of KL; digits, soft term alone"
    )
    report = partial(choose_then_report, "04_gaps", about, one, "accuracy")
    for units, T in product(UNITS, TEMPERATURES):
        report({"lr": [chosen_rate(units, T)]}, kl="forward", units=units, T=T)
    print(report({"lr": RATES}, kl="reverse", units=2, T=1))


if __name__ == "__main__":
    main()
