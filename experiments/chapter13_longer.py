"""Does contrast keep its lead if KD has as much time, and does it in a longer lesson?

    python -m experiments.chapter13_longer     # resumes where it stopped; about ten minutes on one core

ConvNet(4), images and teachers of chapter 13. In the long lesson of 200 steps of 100 images both are searched anew. KD
alone also takes the trial's lesson and the long one in more steps, for as much time as KD with contrast takes there.
The searches are those of the trial: nine tries of rate and T; then nine of rate and weight decay for KD, or of rate
and weight for contrast, at that T. Seeds 100 to 102 choose, seeds 0 to 9 are reported on test.
"""

import csv
import sys

import torch

from companion.metrics import accuracy
from companion.training import predict
from experiments import chapter13
from experiments.chapter13 import (
    KNOBS,
    SETS,
    SETTINGS,
    STUDENTS,
    TENS,
    data,
    for_all,
    lesson,
    network,
    regressor,
    walk,
)
from experiments.common import FOLDER, REPORTED, TUNING, group, run_all
from experiments.stacked import fit_stacked

torch.set_num_threads(1)
ABOUT = "Accuracy (%) of ConvNet(4) on 1000 images: KD in as much time as contrast takes, and both in a longer lesson"
CONTRAST = "kd+contrastive"
LONG = (200, 100)  # steps, batch
made = {}


def at_equal_time(steps: int) -> int:
    """As many steps of KD as take the time of these with contrast, by the stored costs."""
    with (FOLDER / "13_costs.csv").open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        time = {r["method"]: float(r["time"]) for r in rows if r["student"] == "conv"}
    return round(steps * time[CONTRAST] / time["kd"])


def one(
    set: str, steps: int, batch: int, method: str, T: float, decay: float, weight: float, lr: float, seed: int,
    together: tuple[int, ...] = (),
):  # fmt: skip
    """The line of one student; those of a group of seeds are trained together."""
    key = set, steps, batch, method, T, decay, weight, lr
    if (key, seed) not in made:
        seeds, classes = together or group(seed), SETS[set][2]
        lessons = [lesson(set, s) for s in seeds]
        nets = [network("conv", classes, s) for s in seeds]
        contrast = method == CONTRAST
        loss = chapter13.loss_of(method, weight if contrast else T, T, classes)
        fit_stacked(
            nets, [images for images, _, _ in lessons], for_all(loss, method),
            [inside if contrast else v for _, v, inside in lessons],
            regressors=[regressor("conv", s) for s in seeds] if contrast else None,
            steps=steps, batch_size=batch, lr=lr, weight_decay=decay, seeds=seeds,
        )  # fmt: skip
        made.clear()
        made.update({(key, s): net for s, net in zip(seeds, nets, strict=True)})
    part = data(set)[1 if seed in TUNING else 2]
    return {"accuracy": accuracy(predict(made[key, seed], part.x), part.y)}


def search(name: str, steps: int, batch: int, rivals=("kd", CONTRAST)) -> None:
    """KD's nine tries of rate and T, nine more for each of the rivals at that T, and ten reported runs of each."""
    fixed = {"set": name, "steps": steps, "batch": batch}

    def rows(method, T, decay, weight, lr, seeds):
        setting = {**fixed, "method": method, "T": T, "decay": decay, "weight": weight, "lr": lr}
        table = run_all("13_longer", ABOUT, [{**setting, "seed": s} for s in seeds], one)
        for column, value in setting.items():
            table = table[table[column] == value]
        return table[[s in seeds for s in table["seed"]]]

    means = {}

    def of_kd(lr, T, decay=0.01):
        if (lr, T, decay) not in means:
            means[lr, T, decay] = rows("kd", T, decay, 0.0, lr, TUNING)["accuracy"].mean()
        return means[lr, T, decay]

    lr, T = walk(of_kd, STUDENTS["conv"], KNOBS["kd"][0], 4.0, SETTINGS)
    known = {(a, d): mean for (a, t, d), mean in means.items() if t == T}
    for method in rivals:
        if method == "kd":
            own, decay = walk(lambda a, d: of_kd(a, T, d), lr, TENS, 0.01, SETTINGS, known)
            rows("kd", T, decay, 0.0, own, REPORTED)
        else:
            knobs, start = KNOBS[CONTRAST]
            own, weight = walk(
                lambda a, w: rows(CONTRAST, T, 0.01, w, a, TUNING)["accuracy"].mean(),
                lr, knobs, start, SETTINGS,
            )  # fmt: skip
            rows(CONTRAST, T, 0.01, weight, own, REPORTED)


if __name__ == "__main__":
    for name in sys.argv[1:] or SETS:
        search(name, at_equal_time(chapter13.STEPS), chapter13.BATCH, rivals=("kd",))
    for name in sys.argv[1:] or SETS:
        search(name, *LONG)
    for name in sys.argv[1:] or SETS:
        search(name, at_equal_time(LONG[0]), LONG[1], rivals=("kd",))
