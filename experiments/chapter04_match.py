"""Chapter 4: how near do the students of its sweeps come to their teacher? The soft loss that is left after training.

    python -m experiments.chapter04_match     # resumes where it stopped; about a minute on one core

The students at T = 1 of experiments.chapter04 (digits), chapter04_fashion (clothes) and chapter04_factor (few: 200
images of clothes, 32 hidden units, the teacher's answers alone), again, at the learning rates chosen there. A seed
decides what it decides there. Measured at T = 1, in nats:

    left   KL from the teacher's answers to the student's, mean over the student's own training images
"""

import torch

from companion.losses import kd_loss
from companion.training import predict
from experiments import chapter04, chapter04_factor, chapter04_fashion
from experiments.common import REPORTED, group, run_all, stored

STUDENTS = (
    *(("digits", units) for units in (2, 3, 4, 6, 32)),
    *(("clothes", units) for units in chapter04_fashion.UNITS),
    ("few", 32),
)


def chosen_rate(task: str, units: int) -> float:
    """The rate that the task's own experiment chose at T = 1."""
    name = {"digits": "04_temperatures", "clothes": "04_fashion", "few": "04_factor"}[task]
    rows = stored(name)
    rows = rows[(rows["part"] == "test") & (rows["T"] == 1)]
    rows = rows[rows["alpha"] == 1] if task == "few" else rows[rows["units"] == units]
    return rows["lr"][0].item()


def one(task: str, units: int, lr: float, seed: int) -> dict:
    """What is left of the soft loss at T = 1 on the images that the student was trained on."""
    if task == "digits":
        (images, _, _), answers = chapter04.lesson(seed)
        student = chapter04.trained(units, 1, lr, seed)
    elif task == "clothes":
        images, answers = chapter04_fashion.lesson(seed)
        student = chapter04_fashion.trained(units, 1, lr, group(seed))[seed]
    else:
        images, answers = chapter04_factor.lesson(seed)
        student = chapter04_factor.trained(1, 1, 1, lr, group(seed))[seed]
    return {"left": kd_loss(predict(student, images.x).double(), answers.double(), 1).item()}


def main() -> None:
    torch.set_num_threads(1)
    about = "Soft loss at T = 1 that is left on a student's own training images; soft term alone"
    for task, units in STUDENTS:
        settings = {"task": task, "units": units, "lr": chosen_rate(task, units)}
        run_all("04_match", about, [{**settings, "seed": seed} for seed in REPORTED], one)


if __name__ == "__main__":
    main()
