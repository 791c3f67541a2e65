"""How much longer does a step with contrast take than one of KD, in the lessons and on the sets of chapter 13?

    python -m experiments.chapter13_ratio     # a minute on one core; time it on an idle machine

ConvNet(4). The two kinds of step are taken in turns, and the median of their ratios is one measurement.
"""

import statistics
import time

import torch

from experiments.chapter13 import SETS, _step
from experiments.common import run_all

torch.set_num_threads(1)
ABOUT = "Time of a step of KD + contrastive over one of KD: ConvNet(4), medians of 200 pairs taken in turns"


def ratio(set: str, batch: int, time_no: int) -> dict:
    steps = [_step("conv", method, set, batch) for method in ("kd", "kd+contrastive")]
    taken = [[], []]
    for _ in range(220):
        for step, times in zip(steps, taken, strict=True):
            start = time.process_time()
            step()
            times.append(time.process_time() - start)
    kd, contrast = (times[20:] for times in taken)  # the first are warming up
    return {"ratio": statistics.median(c / k for k, c in zip(kd, contrast, strict=True))}


def main() -> None:
    configs = [{"set": s, "batch": b, "time_no": i} for s in SETS for b in (50, 100) for i in range(5)]
    run_all("13_ratio", ABOUT, configs, ratio)


if __name__ == "__main__":
    main()
