"""How much has tuning gained KD? KD at its first setting, T = 4, on the ten reported runs of each cell.

    python -m experiments.chapter13_first     # resumes where it stopped; less than a minute on one core

Rate and T are those with which the searches on clothes begin; images, teachers, first weights and lesson are those of
experiments/chapter13.py.
"""

from companion.metrics import accuracy
from companion.training import predict
from experiments.chapter13 import KNOBS, SETS, STUDENTS, data, trained
from experiments.common import REPORTED, run_all

ABOUT = "Test accuracy (%) of KD at its first setting, T = 4: 1000 images, 150 steps of 50"
made = {}


def one(set: str, student: str, T: float, lr: float, seed: int) -> dict:
    key = set, student, T, lr
    if (key, seed) not in made:
        made.clear()
        nets = trained(set, student, "kd", lr, T, REPORTED)
        made.update({(key, s): net for s, net in zip(REPORTED, nets, strict=True)})
    test = data(set)[2]
    return {"accuracy": accuracy(predict(made[key, seed], test.x), test.y)}


if __name__ == "__main__":
    T = KNOBS["kd"][1]
    cells = [{"set": name, "student": s, "T": T, "lr": lr} for name in SETS for s, lr in STUDENTS.items()]
    run_all("13_first", ABOUT, [{**cell, "seed": s} for cell in cells for s in REPORTED], one)
