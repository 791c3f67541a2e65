"""Time and memory of `fused_linear_kd_loss`, forward and backward, beside the matrix products alone and the usual lines.

    python benchmarks/fused.py [WIDTH]     # one thread, float32; Liger's too, if it is there; about 3 minutes
    python benchmarks/fused.py cuda        # on a GPU in bfloat16: 8,192 tokens, features of 2,048 numbers; half a minute

On the CPU 1,024 tokens, features of 576 numbers on both sides (SmolLM2's); three sizes of the vocabulary. The floor is
the four matrix products that nobody can spare: both sides' logits, and the gradient's products with weights and
features, group by group and written to the same place. Memory is what is alive at most above the inputs, with gradients.
"""

import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from machine import in_turn, machine, publish, synchronized

sys.path.insert(0, str(Path(__file__).parent.parent))  # the tests' meter of memory
from companion.fused import GROUP, GROUP_OFF_CPU, fused_linear_kd_loss
from companion.tokens import generalized_jsd_loss

TOKENS, SIZES = 1024, {32_768: 3, 65_536: 2, 131_072: 1}
ON_GPU = {"tokens": 8192, "width": 2048, "repeats": 10}
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


def liger(group: int) -> dict:
    """Liger Kernel's chunked loss in plain PyTorch, forward KL, with our groups' size and not compiled."""
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss
    except ImportError:
        print("liger-kernel is not installed (pip install liger-kernel): its row is left out.\n")
        return {}
    loss = LigerFusedLinearJSDLoss(0.0, 1.0, beta=0.0, compiled=False, chunk_size=group)
    return {f"Liger, chunks of {group:,}": lambda *given: loss(*given)}


def floor(h, w, h_t, w_t, room):
    z, v, of_weight = room
    with torch.no_grad():
        for i in range(0, len(h), len(z)):
            x = h[i : i + len(z)]
            torch.mm(x, w.T, out=z), torch.mm(h_t[i : i + len(z)], w_t.T, out=v)
            torch.mm(z, w), of_weight.addmm_(z.T, x)


class PeakOnGPU:
    """As the tests' meter of memory, read off the GPU's own allocator."""

    def __enter__(self):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *error):
        self.most = torch.cuda.max_memory_allocated() - self.before


def peak_of(given):
    if given[0].is_cuda:
        return PeakOnGPU()
    from tests.test_memory import Peak  # it registers a second device, beside which CUDA does not run

    return Peak(*given)


def column(vocabulary: int, width: int, repeats: int, tokens: int = TOKENS, gpu: bool = False) -> dict:
    """Of each way: seconds, and bytes at most above the inputs."""
    group = GROUP_OFF_CPU if gpu else GROUP
    form = {"device": "cuda", "dtype": torch.bfloat16} if gpu else {}
    generator = torch.Generator().manual_seed(0)
    h, h_t = torch.randn(2, tokens, width, generator=generator).to(**form)
    w, w_t = (torch.randn(2, vocabulary, width, generator=generator) / width**0.5).to(**form)
    y = torch.randint(vocabulary, (tokens,), generator=generator).to(h.device)
    given = h.requires_grad_(), w.requires_grad_(), h_t, w_t, y
    ways = {
        NAIVE: naive,
        "fused": fused,
        "fused, with labels": fused_with_labels,
        "fused, JSD": fused_jsd,
        **liger(group),
    }
    memory = {}

    def step(name):
        h.grad = w.grad = None
        if name in memory:
            return ways[name](*given).backward()
        with peak_of(given) as peak:  # the first time, which is not timed
            ways[name](*given).backward()
        memory[name] = peak.most

    room = [
        torch.zeros(shape, **form)
        for shape in ((group, vocabulary), (group, vocabulary), (vocabulary, width))
    ]
    calls = {name: partial(step, name) for name in ways} | {FLOOR: partial(floor, h, w, h_t, w_t, room)}
    times = in_turn(calls, repeats, clock=synchronized if gpu else time.thread_time)
    return {name: (times[name] / times[FLOOR], memory[name]) for name in ways} | {FLOOR: (times[FLOOR], 0)}


def table(columns: dict) -> str:
    lines = [
        "| time over the floor; memory | " + " | ".join(f"V = {v:,}" for v in columns) + " |",
        "|---|" + "---|" * len(columns),
        f"| {FLOOR} | " + " | ".join(f"{c[FLOOR][0]:.3g} s" for c in columns.values()) + " |",
    ]
    for name in [name for name in next(iter(columns.values())) if name != FLOOR]:
        cells = []
        for c in columns.values():
            time, size = c[name]
            share = "" if name == NAIVE else f", {size / c[NAIVE][1]:.2f} of it"
            cells.append(f"{time:.2f}; {size / 1e6:,.0f} MB{share}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def on_gpu() -> None:
    tokens, width, repeats = ON_GPU.values()
    columns = {v: column(v, width, repeats, tokens, gpu=True) for v in SIZES}
    about = f"{machine(gpu=True)}; bfloat16, {tokens:,} tokens, width {width:,}"
    publish("fused on a GPU", f"{about}\n\n{table(columns)}")


def main(width: int = 576) -> None:
    torch.set_num_threads(1)
    columns = {v: column(v, width, repeats) for v, repeats in SIZES.items()}
    publish("fused", f"{machine()}; {TOKENS:,} tokens, width {width}\n\n{table(columns)}")


if __name__ == "__main__":
    if sys.argv[1:] == ["cuda"]:
        on_gpu()
    else:
        main(*map(int, sys.argv[1:]))
