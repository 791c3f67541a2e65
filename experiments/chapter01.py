"""The long runs of chapter 1: networks of four sizes, trained alone and taught, on the same 1,000 images.

    python -m experiments.chapter01 [FOLDER]    # resumes where it stopped; about an hour and a half on one core

Each side has a learning rate of its own, chosen on validation with seeds 100 to 102. The reported seeds, 0 to 9, meet
the test images once. Seed s draws its own 1,000 images and its own initial weights, and asks shipped teacher s mod 10.
Three of the sides are trained again with 1,000 steps, to see whether more of them would help.
Four of the teachers are asked how many of their student's images they get right.
In the end the small network learns from the 45,000 images of the shipped teachers, from their labels or from a teacher's
answers to them. The package leaves these images out: FOLDER holds the official files, and without it they are downloaded.
"""

import sys

import torch

from companion.data import fashion, fashion_full, fashion_teacher
from companion.losses import kd_loss
from companion.metrics import accuracy
from companion.models import ConvNet
from companion.training import fit, hard_loss, teacher_logits
from experiments.common import REPORTED, TUNING, choose_then_report, run_all

RATES = (0.001, 0.003, 0.01, 0.03, 0.1)
INNER = RATES[
    1:4
]  # for the widest student: no other side was best at either end, and this one is best in the middle
# side → width of the network that is trained
SIDES = {
    "alone 4": 4, "alone 8": 8, "alone 16": 16, "alone 32": 32,
    "more labels": 4, "wider": 4, "equal": 4, "twin": 4, "equal few": 4,
    "taught 8": 8, "taught 16": 16, "taught 32": 32, "word": 4, "word equal": 4, "word equal few": 4, "plain": 4,
}  # fmt: skip
torch.set_num_threads(1)
TRAIN, VAL, TEST = fashion("train"), fashion("val"), fashion("test")
RATE = {}  # (side, steps) → the learning rate that validation chose


def soft_loss(logits_s, logits_t, y):
    """The teacher alone: no label."""
    return kd_loss(logits_s, logits_t, T=4)


def plain_loss(logits_s, logits_t, y):
    """The teacher's ten numbers as they are, not softened."""
    return kd_loss(logits_s, logits_t, T=1)


def one_word(logits_s, logits_t, y):
    """The class that the teacher puts first, learned as if it were the label."""
    return hard_loss(logits_s, None, logits_t.argmax(-1))


def split(seed: int):
    """The 1,000 images of this seed, and the other 9,000."""
    order = torch.randperm(len(TRAIN), generator=torch.Generator().manual_seed(seed))
    return TRAIN[order[:1000]], TRAIN[order[1000:]]


def trained(side: str, seed: int, steps: int, lr: float) -> ConvNet:
    """A network of this side. The teachers "equal", "equal few" and "twin" are trained on the way, with their own rates.

    "equal few" is taught by the twin's counterpart, which has learned from 1,000 others of the labels.
    "word …" learns from the class alone that the same teacher puts first, "plain" from the ten numbers at T = 1.
    """
    mine, others = split(seed)
    teacher, start = None, seed
    if side in ("wider", "taught 8", "taught 16", "taught 32", "word", "plain"):
        teacher = fashion_teacher(seed % 10)
    elif side in ("equal", "word equal"):
        teacher = trained("more labels", seed, steps, RATE["more labels", steps])
    elif side in ("equal few", "word equal few"):
        teacher = trained("other labels", seed, steps, RATE["alone 4", steps])
    elif side == "twin":
        teacher, start = trained("alone 4", seed, steps, RATE["alone 4", steps]), seed + 500
    elif side == "other labels":
        mine, start = others[:1000], seed + 500
    elif side == "more labels":
        mine, start = others, seed + 500
    student = ConvNet(SIDES.get(side, 4), dropout=0.0, seed=start)
    answers = None if teacher is None else teacher_logits(teacher, mine.x)
    loss = hard_loss if teacher is None else soft_loss
    if side.startswith("word"):
        loss = one_word
    elif side == "plain":
        loss = plain_loss
    fit(student, mine, loss, answers, steps=steps, lr=lr, seed=start)
    return student


def one(side: str, steps: int, lr: float, seed: int) -> dict:
    """Accuracy on validation while choosing, on test once chosen."""
    part = VAL if seed in TUNING else TEST
    student = trained(side, seed, steps, lr)
    return {
        "part": "val" if part is VAL else "test",
        "accuracy": accuracy(teacher_logits(student, part.x), part.y),
    }


def of_the_students_images(teacher: str, seed: int) -> dict:
    """How many of the student's 1,000 images a teacher gets right; the twin has learned from their labels."""
    mine, _ = split(seed)
    if teacher == "larger":
        network = fashion_teacher(seed % 10)
    else:
        rate = RATE["more labels" if teacher == "more labels" else "alone 4", 300]
        network = trained("alone 4" if teacher == "twin" else teacher, seed, 300, rate)
    return {"accuracy": accuracy(teacher_logits(network, mine.x), mine.y)}


def with_all_images(folder: str | None) -> None:
    """The small network on the 45,000 images of the shipped teachers, for chapter 5's steps and for the teachers'."""
    images = fashion_full(folder)[0][:45_000]

    def train_one(learns_from: str, steps: int, lr: float, seed: int) -> dict:
        student, answers, loss = ConvNet(4, dropout=0.0, seed=seed), None, hard_loss
        if learns_from == "answers":
            answers, loss = teacher_logits(fashion_teacher(seed % 10), images.x), soft_loss
        fit(student, images, loss, answers, steps=steps, lr=lr, seed=seed)
        part = VAL if seed in TUNING else TEST
        return {
            "part": "val" if part is VAL else "test",
            "accuracy": accuracy(teacher_logits(student, part.x), part.y),
        }

    about = "Accuracy (%) of ConvNet(4) on the 45,000 images of the shipped teachers; seeds 0 to 9"
    for learns_from, steps in (("labels", 1500), ("answers", 1500), ("labels", 3600), ("answers", 3600)):
        fixed, grid = {"learns_from": learns_from, "steps": steps}, {"lr": RATES[1:]}
        choose_then_report("01_all_images", about, train_one, "accuracy", grid, **fixed)


def runs(side: str, steps: int, rates, seeds):
    """The lines of these runs, made where they are missing."""
    configs = [{"side": side, "steps": steps, "lr": lr, "seed": seed} for lr in rates for seed in seeds]
    about = "Accuracy (%) of ConvNets on 1,000 images, alone or taught; seeds 0 to 9"
    rows = run_all("01_sizes", about, configs, one)
    return rows[(rows["side"] == side) & (rows["steps"] == steps)]


def main(folder: str | None = None) -> None:
    for steps, sides in ((300, SIDES), (1000, ("alone 4", "alone 8", "alone 16"))):
        for side in sides:
            rates = INNER if side == "taught 32" else RATES
            rows = runs(side, steps, rates, TUNING)
            rows = rows[rows["part"] == "val"]
            RATE[side, steps] = max(
                rates, key=lambda lr, rows=rows: rows["accuracy"][rows["lr"] == lr].mean()
            )
            runs(side, steps, [RATE[side, steps]], REPORTED)
            print(f"{side}, {steps} steps: learning rate {RATE[side, steps]}")
    about = "Accuracy (%) of four teachers on the 1,000 images of their student; seeds 0 to 9"
    asked = [
        {"teacher": teacher, "seed": seed}
        for teacher in ("other labels", "more labels", "larger", "twin")
        for seed in REPORTED
    ]
    run_all("01_teachers", about, asked, of_the_students_images)
    with_all_images(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
