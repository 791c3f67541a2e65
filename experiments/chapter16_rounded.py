"""Chapter 14's healed SmolLM2, its blocks rounded as the downloaded file rounds them.

    python -m experiments.chapter16_rounded     # about two minutes on one core

The file holds each matrix of a block as Q4_1: 32 neighbours share a smallest value and a step, both in half precision,
and each is one of 16 values. Healing changes only the nine blocks above the cut, so the others are as in the file.
"""

import torch
from gguf import GGMLQuantizationType, dequantize, quantize
from torch import Tensor, nn

from experiments.chapter14 import REPORTED, cut, lesson, score, train
from experiments.common import run_all

LIKE = GGMLQuantizationType.Q4_1


def as_in_the_file(w: Tensor) -> Tensor:
    """The numbers (out, in) as they come back from 4 bits each and two half-precision numbers for every 32."""
    return torch.from_numpy(dequantize(quantize(w.numpy(), LIKE), LIKE).copy())


def rounded(blocks: nn.ModuleList) -> nn.ModuleList:
    """Rounds every matrix in place; the norms' weights stay, as in the file."""
    for p in blocks.parameters():
        if p.ndim == 2:
            p.data = as_in_the_file(p.data)
    return blocks


def one(target: str, lr: float, seed: int) -> dict:
    blocks = cut()
    if target != "none":
        ids, x, h = lesson("scripture", "as it is", seed)
        train(blocks, ids, x, h, target, lr)
    before = score(blocks, "scripture", "test")
    after = score(rounded(blocks), "scripture", "test")
    return {"bits": before["bits"], "bits_rounded": after["bits"], "agreement_rounded": after["agreement"]}


def main() -> None:
    about = (
        "Bits a character of chapter 14's cut and healed model, before and after it is rounded as in the file"
    )
    runs = [("none", 0.0, 0), *(("teacher", 1e-3, seed) for seed in REPORTED)]
    run_all("16_rounded", about, [dict(zip(("target", "lr", "seed"), run, strict=True)) for run in runs], one)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
