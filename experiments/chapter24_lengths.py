"""Rounds of other lengths, and whether a check sees what single runs see (chapter 24).

    python -m experiments.chapter24_lengths     # resumes where it stopped; about ten minutes on one core

In 16 bits SmolLM2 goes on from the 15 beginnings of chapter24_drafted, alone and with 1 to 8 proposals a round, in an
order drawn anew for each beginning; the draft is the stored one, and the first beginning is a warm-up and not counted.
Then it reads what follows each beginning: token by token, and in runs of five, in 32 bits and in 16.
"""

import random

import torch
from safetensors.torch import load_file
from torch import Tensor

from experiments.chapter14 import windows
from experiments.chapter24_drafted import BEGINNING, NEW, PASSAGES, Draft, in_format, model, written
from experiments.common import FOLDER, run_all

LENGTHS, READ = (1, 2, 3, 4, 8), 40


def stored_draft() -> Draft:
    kept = load_file(FOLDER / "24_draft.safetensors")
    draft = Draft(model().embedding.weight, kept.pop("common"))
    for name, w in draft.named_parameters():
        if name != "table":
            w.data = kept[name].float()
    return draft.requires_grad_(False).eval()


def timed(passage: int, draft: Draft) -> dict:
    """One beginning, gone on with alone (0) and in rounds of each length: tokens, runs, CPU seconds."""
    target = in_format("bfloat16")
    start = windows("scripture", "test", len(PASSAGES), 10)[passage, :BEGINNING][None]
    row = {}
    for n in random.Random(passage).sample([0, *LENGTHS], 1 + len(LENGTHS)):
        chance = torch.Generator().manual_seed(passage)
        row[n] = written(target, start, NEW, chance, draft if n else None, proposed=n)[1]
    return {f"{k}_{n}": row[n][k] for n in (0, *LENGTHS) for k in ("tokens", "runs", "seconds")}


@torch.no_grad()
def read_in(target, ids: Tensor, size: int) -> Tensor:
    """The target's probabilities after each token behind the beginning, read in runs of `size` tokens (L, V)."""
    cache = []
    target(ids[:, :BEGINNING], cache=cache)
    parts = ids[:, BEGINNING:].split(size, dim=1)
    return torch.cat([target(part, cache=cache)[0].float().softmax(-1) for part in parts])


def same(passage: int) -> dict:
    """In per cent, between two ways to read: total variation, and how often the likeliest token is the same."""
    ids, row = windows("scripture", "test", len(PASSAGES), 10)[passage, : BEGINNING + READ][None], {}
    formats = {32: in_format("float32"), 16: in_format("bfloat16")}
    found = {(bits, size): read_in(target, ids, size) for bits, target in formats.items() for size in (1, 5)}
    for name, one, other in (
        ("32", found[32, 1], found[32, 5]),
        ("16", found[16, 1], found[16, 5]),
        ("rounded", found[32, 1], found[16, 1]),
    ):
        row[f"apart_{name}"] = 50 * (one - other).abs().sum(-1).mean().item()
        row[f"first_{name}"] = 100 * (one.argmax(-1) == other.argmax(-1)).float().mean().item()
    return row


if __name__ == "__main__":
    torch.set_num_threads(1)
    about = (
        "SmolLM2 in 16 bits goes on by 96 tokens, alone (0) and in rounds of 1 to 8 proposals: CPU seconds"
    )
    written_with = stored_draft()
    timed(0, written_with)  # the warm-up
    run_all(
        "24_lengths",
        about,
        [{"passage": p} for p in PASSAGES],
        lambda passage: timed(passage, written_with),
    )
    about = (
        "SmolLM2 reads in runs of five tokens, and token by token: total variation and same first choice (%)"
    )
    run_all("24_same", about, [{"passage": p} for p in PASSAGES], same)
