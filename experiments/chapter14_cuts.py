"""Two small runs for chapter 14: where a cut costs least, and the first steps of a healing, which the page repeats.

    python -m experiments.chapter14_cuts     # about a minute

Twelve neighbouring blocks of SmolLM2's thirty are left out, at each place where that is possible, and nothing is
trained: bits a character of the Bible's validation part.
"""

import math

import torch
import torch.nn.functional as F

from experiments import chapter14 as runs
from experiments.common import run_all

N, WINDOWS, FIRST_STEPS, LR = runs.CUT - runs.FIRST, 4, 4, 1e-3


@torch.no_grad()
def without(first: int, after: int) -> dict:
    """Bits a character of the model without blocks first … after − 1; of the whole one where the two are equal."""
    model = runs.model()
    ids = runs.windows("scripture", "val", WINDOWS, 0)
    z = runs.exact([*model.blocks[:first], *model.blocks[after:]], model.embedding(ids))[:, :-1]
    nats = F.cross_entropy(z.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").item()
    characters = sum(len(model.tokenizer.decode(row[1:])) for row in ids.tolist())
    return {"bits": nats / math.log(2) / characters}


def first_steps(target: str, lr: float, seed: int) -> dict:
    """The loss of each of the first steps of the run that `chapter14` makes."""
    ids = runs.windows("scripture", "train", runs.PER_STEP * runs.STEPS, seed)[: runs.PER_STEP * FIRST_STEPS]
    x = runs.below(ids)
    with torch.no_grad():
        h = runs.features(runs.model().blocks[runs.FIRST :], x)
    losses = runs.train(runs.cut(), ids, x, h, target, lr, runs.STEPS)
    return {f"step_{i}": loss for i, loss in enumerate(losses)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    steps = [{"target": target, "lr": LR, "seed": 0} for target in ("teacher", "text")]
    run_all(
        "14_first_steps", "The loss (nats a token) of the first four steps on scripture", steps, first_steps
    )
    places = [(0, 0)] + [(first, first + N) for first in range(len(runs.model().blocks) - N + 1)]
    about = "Bits a character of scripture without blocks first to after − 1, four windows"
    run_all("14_cuts", about, [{"first": a, "after": b} for a, b in places], without)
