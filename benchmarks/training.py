"""Training: `fit` beside the usual loop, and `fit_many` beside `fit` in a loop, at the same result.

    python benchmarks/training.py [ROUNDS]

The usual loop takes batches from a DataLoader and asks the teacher at every step. It gets the very batches of
`fit`, so both must end at the same student, which is checked. The floor is the time that the multiplications of
the training itself (layers' outputs, gradients of weights and of inputs) need at the rate of a 512 × 512 matrix
product measured in the same run; what `fit` spends on asking its teacher once is in its time and not in the floor.
"""

import random
import sys
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from machine import in_turn, machine, multiply_rate, publish
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from companion._step import batches
from companion.data import digits, fashion, fashion_teacher
from companion.losses import distillation_loss
from companion.metrics import accuracy
from companion.models import MLP, ConvNet
from companion.training import fit, fit_many, predict, teacher_logits

T, ALPHA, LR = 4.0, 0.5, 2e-3
LOSS = partial(distillation_loss, T=T, alpha=ALPHA)


def usual(student, split, teacher, steps):
    """The loop of the tutorials."""
    order = list(batches(len(split), 100, steps, torch.Generator().manual_seed(0)))
    loader = DataLoader(TensorDataset(split.x, split.y), batch_sampler=[index.tolist() for index in order])
    optimiser = torch.optim.AdamW(student.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    teacher.eval()
    student.train()
    for x, y in loader:
        with torch.no_grad():
            v = teacher(x)
        z = student(x)
        soft = F.kl_div(F.log_softmax(z / T, -1), F.softmax(v / T, -1), reduction="batchmean") * T**2
        loss = ALPHA * soft + (1 - ALPHA) * F.cross_entropy(z, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    student.eval()


def ours(student, split, teacher, steps):
    fit(student, split, LOSS, teacher_logits(teacher, split.x), steps=steps, lr=LR)


def floor(make: Callable, x, rate: float) -> float:
    """Seconds a step at least, by its multiplications."""
    with FlopCounterMode(display=False) as counter:
        make()(x).sum().backward()
    return counter.get_total_flops() / rate


def apart(a, b) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max((p - q).abs().max().item() for p, q in pairs)


def beside_the_usual(rounds: int, rate: float, steps: int = 200) -> str:
    lines = [f"| student, {steps} steps of 100 | usual loop | `fit` | ratio | floor | accuracy | weights |"]
    lines.append("|---|---|---|---|---|---|---|")
    split, test, teacher = fashion("train")[:2000], fashion("test"), fashion_teacher(0)
    kinds = {
        "MLP(784, 128, 10)": lambda: MLP(784, 128, 10, seed=0),
        "ConvNet(4)": lambda: ConvNet(4, dropout=0.0, seed=0),
        "ConvNet(8)": lambda: ConvNet(8, dropout=0.0, seed=0),
    }
    for name, make in kinds.items():
        made = {}

        def run(loop, make=make, made=made, split=split):
            made[loop] = make()
            loop(made[loop], split, teacher, steps)

        times = in_turn({loop.__name__: partial(run, loop) for loop in (usual, ours)}, rounds)
        a, b = (1e3 * times[loop.__name__] / steps for loop in (usual, ours))
        right = [accuracy(predict(made[loop], test.x), test.y) for loop in (usual, ours)]
        # In double precision rounding does not grow to where one could not tell it from a difference.
        exact = [make().double() for _ in range(2)]
        wide = type(split)(split.x.double(), split.y)
        expert = fashion_teacher(0).double()
        for loop, student in zip((usual, ours), exact, strict=True):
            loop(student, wide, expert, 50)
        lines.append(
            f"| {name} | {a:.2f} ms | {b:.2f} ms | **{a / b:.1f}** | {1e3 * floor(make, split.x[:100], rate):.2f}"
            f" ms | {right[0]:.1f} %, {right[1]:.1f} % | {apart(*exact):.0e} |"
        )
    note = "Times are of one step; `weights`: largest difference of two weights after 50 steps in float64."
    return "\n".join([*lines, "", note])


def many_beside_one_by_one(rounds: int, rate: float, n: int = 10) -> str:
    lines = [f"| {n} students, steps of 100 | `fit`, {n} times | `fit_many` | ratio | floor | weights |"]
    lines.append("|---|---|---|---|---|---|")
    small, large = digits(0)[0], fashion("train")[:1000]
    kinds = {
        "MLP(64, 16, 10)": (lambda s: MLP(64, 16, 10, seed=s), small, 200),
        "MLP(64, 256, 10)": (lambda s: MLP(64, 256, 10, seed=s), small, 200),
        "MLP(784, 128, 10)": (lambda s: MLP(784, 128, 10, seed=s), large, 100),
        "ConvNet(4)": (lambda s: ConvNet(4, dropout=0.0, seed=s), large, 30),
        "ConvNet(8)": (lambda s: ConvNet(8, dropout=0.0, seed=s), large, 30),
    }
    for name, (make, split, steps) in kinds.items():
        run = {"steps": steps, "lr": LR}
        v = 3 * torch.randn(len(split), 10, generator=torch.Generator().manual_seed(0))

        def one_by_one(make=make, split=split, v=v, run=run):
            for s in range(n):
                fit(make(s), split, LOSS, v, seed=s, **run)

        def at_once(make=make, split=split, v=v, run=run):
            fit_many([make(s) for s in range(n)], split, LOSS, v, seeds=range(n), **run)

        times = in_turn({"one": one_by_one, "many": at_once}, rounds)
        a, b = (1e3 * times[key] / steps for key in ("one", "many"))
        # In double precision, as above: in float32 Adam makes a step of a gradient that is mere rounding.
        wide, run["steps"] = type(split)(split.x.double(), split.y), 20
        exact = [[make(s).double() for s in range(n)] for _ in range(2)]
        fit_many(exact[0], wide, LOSS, v.double(), seeds=range(n), **run)
        for s, student in enumerate(exact[1]):
            fit(student, wide, LOSS, v.double(), seed=s, **run)
        far = max(apart(*pair) for pair in zip(*exact, strict=True))
        least = 1e3 * n * floor(lambda make=make: make(0), split.x[:100], rate)
        lines.append(f"| {name} | {a:.2f} ms | {b:.2f} ms | **{a / b:.1f}** | {least:.2f} ms | {far:.0e} |")
    note = f"Times are of one step of all {n}; `weights`: largest difference of two weights after 20 steps in float64."
    return "\n".join([*lines, "", note])


def main(rounds: int = 7) -> None:
    torch.set_num_threads(1)
    random.seed(0)
    rate = multiply_rate()
    about = f"{machine()}; {rate / 1e9:.0f} GFLOP/s in a matrix product"
    publish("fit", f"{about}\n\n{beside_the_usual(rounds, rate)}")
    publish("fit_many", f"{about}\n\n{many_beside_one_by_one(rounds, rate)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
