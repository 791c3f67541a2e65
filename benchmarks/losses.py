"""Time of every loss, forward and backward, as a multiple of F.kl_div's on the same logits.

    python benchmarks/losses.py [REPEATS]     # one thread, float32; torchdistill's too, if it is there

All are run in one process, in an order drawn anew each round; medians of CPU time. F.kl_div is the
usual T² · F.kl_div(log_softmax(z/T), softmax(v/T), "batchmean"); losses with labels stand against that and
F.cross_entropy together. The floor adds the two inputs: what reading both and writing a gradient costs.
"""

import random
import sys
from functools import cache, partial

import torch
import torch.nn.functional as F
from machine import in_turn, machine, publish

from companion import features, losses, tokens
from companion.vocabulary import uld_loss

T = 4.0
FLOOR = "floor: z + v, written once"
THEIRS = ("torchdistill: ", "ours: ")
SIZES = [(128, 10), (256, 1000), (64, 32000)]
HARD = ("F.kl_div + F.cross_entropy", lambda z, v, y: kl_div(z, v, y) + F.cross_entropy(z, y))


def kl_div(z, v, y):
    return T * T * F.kl_div(F.log_softmax(z / T, -1), F.softmax(v / T, -1), reduction="batchmean")


def kl_div_log_target(z, v, y):
    q, p = F.log_softmax(z / T, -1), F.log_softmax(v / T, -1)
    return T * T * F.kl_div(q, p, reduction="batchmean", log_target=True)


def ours(vocabulary: int) -> dict:
    k = min(8, vocabulary)
    every = {
        "KD": lambda z, v, y: losses.kd_loss(z, v, T),
        "distillation": lambda z, v, y: losses.distillation_loss(z, v, y, T),
        "logit mse": lambda z, v, y: losses.logit_mse_loss(z, v),
        "logit mse, centred": lambda z, v, y: losses.logit_mse_loss(z, v, True),
        "DKD": lambda z, v, y: losses.dkd_loss(z, v, y, T),
        "DIST": lambda z, v, y: losses.dist_loss(z, v, T),
        "standardized KD": lambda z, v, y: losses.standardized_kd_loss(z, v, T),
        "WTTM": lambda z, v, y: losses.wttm_loss(z, v, T),
        "NormKD": lambda z, v, y: losses.normkd_loss(z, v, T),
        "RLD": lambda z, v, y: losses.rld_loss(z, v, y, T),
        "reverse KL": lambda z, v, y: tokens.reverse_kl_loss(z, v, T),
        "generalized JSD": lambda z, v, y: tokens.generalized_jsd_loss(z, v, 0.5, T),
        "skew KL": lambda z, v, y: tokens.skew_kl_loss(z, v, 0.1, T),
        "sparse KD": lambda z, v, y: tokens.sparse_kd_loss(z, *_stored(v, k), T),
        "ULD": lambda z, v, y: uld_loss(z, v),
        "hint": lambda z, v, y: features.hint_loss(z, v),
        "similarity": lambda z, v, y: features.similarity_preserving_loss(z, v),
        "RKD distance": lambda z, v, y: features.rkd_distance_loss(z, v),
        "contrastive": lambda z, v, y: features.contrastive_loss(z, v),
    }
    return {f"ours: {name}": call for name, call in every.items()}


_STORE = {}


def _stored(v, k):
    """The teacher's k largest probabilities: stored once, as in use."""
    if (v.data_ptr(), k) not in _STORE:
        p, index = (v / T).softmax(-1).topk(k, -1)
        _STORE[v.data_ptr(), k] = index, p
    return _STORE[v.data_ptr(), k]


@cache
def theirs() -> dict:
    try:
        from torchdistill.losses import mid_level as peer
    except ImportError:
        print("torchdistill is not installed (pip install '.[peers]'): its columns are left out.\n")
        return {}
    both = {"student_module_path": "s", "student_module_io": "output"}
    both |= {"teacher_module_path": "t", "teacher_module_io": "output"}
    outputs = {"student_output_path": "s", "teacher_output_path": "t"}
    modules = {
        "KD": peer.KDLoss(**both, temperature=T, alpha=0),
        "distillation": peer.KDLoss(**both, temperature=T, alpha=0.1),
        "DIST": peer.DISTLoss(**both, tau=T),
        "standardized KD": peer.LogitStdKDLoss(**both, temperature=T, alpha=0),
        "similarity": peer.SPKDLoss(**outputs, reduction="batchmean"),
        "RKD distance": peer.RKDLoss(**outputs, dist_factor=1, angle_factor=0, reduction="mean"),
    }

    def call(module):
        return lambda z, v, y: module({"s": {"output": z}}, {"t": {"output": v}}, y)

    return {f"torchdistill: {name}": call(module) for name, module in modules.items()}


def measure(calls: dict, shape: tuple, repeats: int) -> dict:
    """Median seconds of each, forward and backward, taken in turn."""
    generator = torch.Generator().manual_seed(0)
    z, v = 3 * torch.randn(2, *shape, generator=generator)
    y = torch.randint(0, shape[1], shape[:1], generator=generator)
    z.requires_grad_()

    in_a_row = max(1, 20_000 // z.numel())  # too short to be timed alone

    def step(call):
        for _ in range(in_a_row):
            z.grad = None
            call(z, v, y).backward()

    def add():
        for _ in range(in_a_row):
            z.detach() + v

    times = in_turn({**{name: partial(step, call) for name, call in calls.items()}, FLOOR: add}, repeats, 3)
    times = {name: seconds / in_a_row for name, seconds in times.items()}
    return times


def table(columns: dict) -> str:
    """Multiples of F.kl_div; a torchdistill loss stands under ours of the same name."""
    lines = [
        "| forward and backward | " + " | ".join(map(str, columns)) + " |",
        "|---|" + "---|" * len(columns),
    ]
    times = [f"{1e6 * column['F.kl_div']:,.0f} µs" for column in columns.values()]
    lines.append(f"| `F.kl_div` | {' | '.join(times)} |")
    names = list(next(iter(columns.values())))
    order = sorted(names[1:], key=lambda name: (":" in name, names.index(name.replace(*THEIRS))))
    for name in order:
        hard = name.split(": ")[-1] in ("distillation", "DKD", "RLD")
        base = HARD[0] if hard else "F.kl_div"
        ratios = [f"{column[name] / column[base]:.2f}" for column in columns.values()]
        lines.append(f"| {name}{' ¹' if hard else ''} | {' | '.join(ratios)} |")
    return "\n".join([*lines, "", "¹ as a multiple of `F.kl_div` and `F.cross_entropy` together."])


def main(repeats: int = 100) -> None:
    torch.set_num_threads(1)
    random.seed(0)
    columns = {}
    for shape in SIZES:
        reference = {"F.kl_div": kl_div, "F.kl_div, log_target": kl_div_log_target, HARD[0]: HARD[1]}
        calls = {**reference, **ours(shape[1]), **theirs()}
        columns[shape] = measure(calls, shape, max(9, repeats * 20_000 // (shape[0] * shape[1] + 20_000)))
    publish("losses", f"{machine()}\n\n{table(columns)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
