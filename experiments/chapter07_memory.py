"""Measures what a step of 7.4 holds at its fullest moment: the loss of whole tables, and in pieces of 128 tokens.

    python -m experiments.chapter07_memory

Writes chapters/results/07_memory.csv, one line for a number of tokens and a size of pieces. Each is measured in a process
of its own, as the most memory that Linux saw it use (VmHWM), less what it used before the step. The vocabulary is
Qwen2.5's; hidden states of width 16, random, stand for both models, so that the tables are nearly all there is.
"""

import sys
from pathlib import Path
from subprocess import run

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))

from experiments.common import run_all

V, WIDTH = 151_936, 16
TOKENS = 128, 256, 512, 1024
PIECE = 128


def careful_loss(z, v, T=1):
    """The chapter's (7.3)."""
    z, v = z.float(), v.detach().float()
    log_q, log_p = F.log_softmax(z / T, dim=-1), F.log_softmax(v / T, dim=-1)
    kl = log_p.exp() * (log_p - log_q)
    kl = kl.where(log_p > -torch.inf, 0)
    return T**2 * kl.sum(-1).mean()


def step(h_s, head_s, h_t, head_t, y, size):
    """The chapter's lines from the hidden states on: each piece goes backward before the next is made."""
    h = h_s.detach().requires_grad_()
    for h_i, g_i, y_i in zip(*(a.split(size) for a in (h, h_t, y)), strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            z, v = head_s(h_i), head_t(g_i)
        soft, hard = careful_loss(z, v), F.cross_entropy(z.float(), y_i)
        ((0.1 * hard + 0.9 * soft) * len(y_i) / len(y)).backward()
    h_s.backward(h.grad)


def used(key):
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(key))
    return int(line.split()[1]) * 1024


def peak(tokens: int, size: int) -> float:
    """GB at the fullest moment of one step, less what was there before it."""
    torch.manual_seed(0)
    head_s, head_t = (torch.nn.Linear(WIDTH, V, False) for _ in "st")
    head_t.bfloat16().requires_grad_(False)

    def given(n):
        h_s, h_t = torch.randn(n, WIDTH, requires_grad=True), torch.randn(n, WIDTH).bfloat16()
        return h_s * 1.0, head_s, h_t, head_t, torch.arange(n)

    step(*given(1), size)  # what PyTorch loads once
    before = used("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    step(*given(tokens), size)
    return (used("VmHWM") - before) / 1e9


def measured_alone(tokens: int, size: int) -> float:
    lines = f"from experiments.chapter07_memory import peak; print(peak({tokens}, {size}))"
    return float(run([sys.executable, "-c", lines], capture_output=True, text=True, check=True).stdout)


def one(tokens, size):
    return {"peak_gb": measured_alone(tokens, size)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    grid = [{"tokens": n, "size": size} for n in TOKENS for size in dict.fromkeys((PIECE, n))]
    run_all(
        "07_memory",
        "GB that a step of 7.4 holds at its fullest moment, in pieces of `size` tokens",
        grid,
        one,
    )
