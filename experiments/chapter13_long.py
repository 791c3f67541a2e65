"""Is contrast still ahead of KD in a long lesson, if KD may choose its T and has as much time?

    python -m experiments.chapter13_long     # resumes where it stopped; about a quarter of an hour on one core

Clothes, ConvNet(4), images and teachers of chapter 13; 1,200 steps of 100 images with contrast, as in chapter 10, and
as many with KD alone as take the same time. Nine tries each: KD tries T = 4, half and twice that, then the next lower
rate, less and more weight decay, one step of decay further, the other rate at the best decay, and at the furthest;
contrast takes the rate and T of KD's first four, and tries two weights, the other rate, and the decays 0.1 and 1.
Seeds 100 to 102 choose; five seeds are reported (an argument of 2: ten), of KD's two best tries, which lie close.
"""

import sys

from experiments import chapter13_longer
from experiments.chapter13_longer import CONTRAST, at_equal_time
from experiments.common import REPORTED, TUNING, run_all

NAME, STEPS, BATCH = "13_long", 1200, 100
ABOUT = (
    "Accuracy (%) of ConvNet(4) on 1000 images of clothes: KD and contrast in equal time, in a long lesson"
)
FIVES = REPORTED[:5], REPORTED[5:]


def one(seed: int, **setting) -> dict:
    groups = (TUNING, *FIVES)
    return chapter13_longer.one(**setting, seed=seed, together=tuple(next(g for g in groups if seed in g)))


def rows(method: str, T: float, decay: float, weight: float, lr: float, seeds):
    steps = STEPS if method == CONTRAST else at_equal_time(STEPS)
    setting = {"set": "fashion", "steps": steps, "batch": BATCH, "method": method}
    setting |= {"T": T, "decay": decay, "weight": weight, "lr": lr}
    table = run_all(NAME, ABOUT, [{**setting, "seed": s} for s in seeds], one)
    for column, value in setting.items():
        table = table[table[column] == value]
    return table[[s in seeds for s in table["seed"]]]


def score(method: str, *place) -> float:
    return rows(method, *place, TUNING)["accuracy"].mean()


def best(method: str, places) -> tuple:
    return max(places, key=lambda place: score(method, *place))


def main() -> None:
    first = best("kd", [(T, 0.01, 0.0, 0.03) for T in (4.0, 2.0, 8.0)])
    T, _, _, lr = first = best("kd", [first, (first[0], 0.01, 0.0, 0.01)])
    other = 0.01 if lr == 0.03 else 0.03
    kd = best("kd", [first, *((T, decay, 0.0, lr) for decay in (0.001, 0.1))])
    onward = {0.1: 1.0}.get(kd[1], 0.0001)
    last = [kd, (T, onward, 0.0, lr), (T, kd[1], 0.0, other), (T, onward, 0.0, other)]
    kd = best("kd", last)
    second = best("kd", [place for place in last if place != kd])
    contrast = best(CONTRAST, [(T, 0.01, weight, lr) for weight in (1.0, 3.0)])
    contrast = best(CONTRAST, [contrast, (T, 0.01, contrast[2], other), (T, 0.1, contrast[2], lr)])
    contrast = best(CONTRAST, [contrast, (T, 1.0, contrast[2], contrast[3])])
    for seeds in FIVES[: int(sys.argv[1]) if sys.argv[1:] else 1]:
        rows("kd", *kd, seeds)
        rows("kd", *second, seeds)
        rows(CONTRAST, *contrast, seeds)


if __name__ == "__main__":
    main()
