"""The long runs of chapter 2: an even rest at T = 1, and the class that the teacher names, smoothed like a label.

    python -m experiments.chapter02     # resumes where it stopped; about two minutes on one core

All as in 05_controls, from which the other rows of the figure come: 100 images, 400 steps, the rate chosen on
validation with seeds 100 to 102, the reported seeds 0 to 9. The even rest changes the teacher's p at T = 1 and is
learned at T = 1, like one class alone; the smoothed name is one class alone with nine tenths for it and the rest even.
"""

from functools import partial

from companion.data import Split
from companion.models import ConvNet
from companion.training import fit, teacher_logits
from experiments.chapter05 import MORE_RATES, TEACHERS, TRAIN, best, measure, smoothed_loss, tempered_one
from experiments.common import REPORTED, TUNING, run_all


def one(control: str, seed: int, lr: float) -> dict:
    if control == "even rest":
        return tempered_one("uniform", 1, seed, lr)
    images, student = TRAIN.sample(10, seed), ConvNet(4, dropout=0.0, seed=seed)
    names = teacher_logits(TEACHERS[seed % 10], images.x).argmax(-1)
    loss = partial(smoothed_loss, epsilon=0.1)
    fit(student, Split(images.x, names), loss, None, steps=400, lr=lr, seed=seed)
    return measure(student, seed)


def steps_at_one() -> None:
    """What lies between the even rest at T = 4 and one class alone at T = 1, and a smoothed label's other half."""
    about = "Accuracy and ECE (%) of ConvNet(4) on 100 images, 400 steps, all learned at T = 1; seeds 0 to 9"
    for control in ("even rest", "smoothed name"):

        def run(lrs, seeds, control=control):
            grid = [{"control": control, "seed": s, "lr": lr} for lr in lrs for s in seeds]
            return run_all("02_at_one", about, grid, one)

        run([best(run(MORE_RATES, TUNING), "lr", control=control)], REPORTED)


if __name__ == "__main__":
    steps_at_one()
