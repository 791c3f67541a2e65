"""Why KD leads hard labels by more in chapter 10 than in chapter 13: passes, weight decay and T in turn.

    python -m experiments.chapter13_budget     # resumes where it stopped; about a minute on one core

ConvNet(4), clothes, images and teachers of chapter 13, seeds 0 to 9 on test. The learning rates are those that the
two chapters chose on validation for the same loss and budget; of the one row that neither has, it is chosen here.
"""

import torch

from companion.metrics import accuracy
from companion.training import predict
from experiments.chapter13 import RESPONSES, data, for_all, lesson, network
from experiments.common import REPORTED, TUNING, choose_then_report
from experiments.stacked import fit_stacked

torch.set_num_threads(1)
ABOUT = (
    "Accuracy (%) of ConvNet(4) on 1000 images of clothes: hard labels and KD in the budgets of two chapters"
)
ROWS = (  # steps, batch, method, weight decay, T, learning rates
    (150, 50, "hard", 0.01, 1.0, (0.03,)),  # chapter 13's budget, chapter 10's decay and T
    (150, 50, "kd", 0.01, 4.0, (0.03,)),
    (200, 100, "hard", 1.0, 1.0, (0.003, 0.01, 0.03, 0.1)),  # chapter 10's budget, chapter 13's decay
    (200, 100, "hard", 0.01, 1.0, (0.003,)),  # chapter 10's budget, decay and T
    (200, 100, "kd", 0.01, 4.0, (0.03,)),
)
made = {}


def one(steps: int, batch: int, method: str, decay: float, T: float, lr: float, seed: int) -> dict:
    """The line of one student; those of a group of seeds are trained together."""
    key, group = (steps, batch, method, decay, T, lr), list(TUNING if seed in TUNING else REPORTED)
    if (key, seed) not in made:
        lessons = [lesson("fashion", s) for s in group]
        nets = [network("conv", 10, s) for s in group]
        fit_stacked(
            nets, [images for images, _, _ in lessons],
            for_all(lambda z, s, r, told, y: RESPONSES[method](z, told, y, T), method),
            [v for _, v, _ in lessons], regressors=None, steps=steps, batch_size=batch, lr=lr, weight_decay=decay,
            seeds=group,
        )  # fmt: skip
        made.clear()
        made.update({(key, s): net for s, net in zip(group, nets, strict=True)})
    part = data("fashion")[1 if seed in TUNING else 2]
    return {"accuracy": accuracy(predict(made[key, seed], part.x), part.y)}


if __name__ == "__main__":
    for steps, batch, method, decay, T, rates in ROWS:
        fixed = {"steps": steps, "batch": batch, "method": method, "decay": decay, "T": T}
        choose_then_report("13_budget", ABOUT, one, "accuracy", {"lr": rates}, **fixed)
