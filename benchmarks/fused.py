"""Time and memory of `fused_linear_kd_loss`, forward and backward, beside the matrix products alone and the usual lines.

    python benchmarks/fused.py [WIDTH]     # one thread, float32; Liger's too, if it is there; about 3 minutes

1,024 tokens, features of 576 numbers on both sides (SmolLM2's), three sizes of the vocabulary. The floor is the four
matrix products that nobody can spare: both sides' logits, and the gradient's products with weights and features, group
by group and written to the same place. Memory is what is alive at most above the inputs, gradients included.
"""

import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import in_turn, machine, publish

sys.path.insert(0, str(Path(__file__).parent.parent))  # the tests' meter of memory
from companion.fused import GROUP, fused_linear_kd_loss
from companion.tokens import generalized_jsd_loss
from tests.test_memory import Peak

TOKENS, SIZES = 1024, {32_768: 3, 65_536: 2, 131_072: 1}
NAIVE, FLOOR = "`F.kl_div` on the logits", "floor: four matrix products"


def naive(h, w, h_t, w_t, y):
    q, p = (h @ w.T).log_softmax(-1), (h_t @ w_t.T).softmax(-1)
    return F.kl_div(q, p, reduction="batchmean")


def fused(h, w, h_t, w_t, y):
    return fused_linear_kd_loss(h, w, h_t, w_t)


def fused_with_labels(h, w, h_t, w_t, y):
    return fused_linear_kd_loss(h, w, h_t, w_t, y=y, alpha=0.5)


def fused_jsd(h, w, h_t, w_t, y):
    return fused_linear_kd_loss(h, w, h_t, w_t, loss=partial(generalized_jsd_loss, beta=0.5))


def liger() -> dict:
    """Liger Kernel's chunked loss in plain PyTorch, forward KL, with our groups' size and not compiled."""
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss
    except ImportError:
        print("liger-kernel is not installed (pip install liger-kernel): its row is left out.\n")
        return {}
    loss = LigerFusedLinearJSDLoss(0.0, 1.0, beta=0.0, compiled=False, chunk_size=GROUP)
    return {"Liger, chunks of 128": lambda *given: loss(*given)}


def floor(h, w, h_t, w_t, room):
    z, v, of_weight = room
    with torch.no_grad():
        for i in range(0, TOKENS, GROUP):
            x = h[i : i + GROUP]
            torch.mm(x, w.T, out=z), torch.mm(h_t[i : i + GROUP], w_t.T, out=v)
            torch.mm(z, w), of_weight.addmm_(z.T, x)


def column(vocabulary: int, width: int, repeats: int) -> dict:
    """Of each way: seconds, and bytes at most above the inputs."""
    generator = torch.Generator().manual_seed(0)
    h, h_t = torch.randn(2, TOKENS, width, generator=generator)
    w, w_t = torch.randn(2, vocabulary, width, generator=generator) / width**0.5
    y = torch.randint(vocabulary, (TOKENS,), generator=generator)
    given = h.requires_grad_(), w.requires_grad_(), h_t, w_t, y
    ways = {
        NAIVE: naive,
        "fused": fused,
        "fused, with labels": fused_with_labels,
        "fused, JSD": fused_jsd,
        **liger(),
    }
    memory = {}

    def step(name):
        h.grad = w.grad = None
        if name in memory:
            return ways[name](*given).backward()
        with Peak(*given) as peak:  # the first time, which is not timed
            ways[name](*given).backward()
        memory[name] = peak.most

    room = torch.empty(GROUP, vocabulary), torch.empty(GROUP, vocabulary), torch.zeros(vocabulary, width)
    calls = {name: partial(step, name) for name in ways} | {FLOOR: partial(floor, h, w, h_t, w_t, room)}
    times = in_turn(calls, repeats)
    return {name: (times[name] / times[FLOOR], memory[name]) for name in ways} | {FLOOR: (times[FLOOR], 0)}


def table(columns: dict) -> str:
    lines = [
        "| time over the floor; memory | " + " | ".join(f"V = {v:,}" for v in columns) + " |",
        "|---|" + "---|" * len(columns),
        f"| {FLOOR} | " + " | ".join(f"{c[FLOOR][0]:.2f} s" for c in columns.values()) + " |",
    ]
    for name in [name for name in next(iter(columns.values())) if name != FLOOR]:
        cells = []
        for c in columns.values():
            time, size = c[name]
            share = "" if name == NAIVE else f", {size / c[NAIVE][1]:.2f} of it"
            cells.append(f"{time:.2f}; {size / 1e6:,.0f} MB{share}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(width: int = 576) -> None:
    torch.set_num_threads(1)
    columns = {v: column(v, width, repeats) for v, repeats in SIZES.items()}
    publish("fused", f"{machine()}; {TOKENS:,} tokens, width {width}\n\n{table(columns)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
