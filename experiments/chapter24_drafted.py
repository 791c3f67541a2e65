"""A draft for SmolLM2, and what it does to the time: tokens a second with it and without.

    python -m experiments.chapter24_drafted     # resumes where it stopped; about 20 minutes on one core

The draft reads the last four tokens and guesses the next of the 2,048 that are commonest in the King James Bible. In and
out it uses SmolLM2's own table of tokens; between them lie 0.9 million weights, trained for 800 steps on 1,200 stretches
of the Bible: on its next token, or on SmolLM2's probabilities. The rate is chosen on validation with seeds 100 to 102.
Then drafts 0 to 4 meet 15 beginnings of the test part, each of which SmolLM2 goes on from by 96 tokens drawn at random,
alone and with either draft in turn, in one process and one thread; the first beginning is a warm-up and not counted.
Last, runs that check 0 to 8 proposals are timed, without a draft.
"""

import math
import random
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from companion.speculative import acceptance, verify
from companion.teachers import SmolLM2, king_james, smollm2
from experiments.chapter14 import half, windows
from experiments.common import FOLDER, TUNING, run_all

VOCABULARY, BACK, WIDTH, PROPOSED = 2048, 4, 320, 4
STRETCHES, STEPS, BATCH, SKIP = 1200, 800, 256, 16
BEGINNING, NEW, PASSAGES, REPORTED = 32, 96, range(15), range(5)
RATES = (0.0003, 0.001, 0.003)
CHECKED, TURNS = range(9), range(15)
KINDS = ("text", "probabilities")
KEPT = Path("build/chapter24_drafted")


class Draft(nn.Module):
    """Logits of the commonest tokens (N, 2048) from the last tokens (N, 4), newest last; `table` is the target's."""

    def __init__(self, table: Tensor, common: Tensor, seed: int = 0):
        super().__init__()
        self.table, self.common, self.head = table, common, table[common].clone()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.read, self.write = (
                nn.Linear(BACK * table.shape[1], WIDTH),
                nn.Linear(WIDTH, table.shape[1]),
            )
        self.norm, self.shift = nn.LayerNorm(WIDTH), nn.Parameter(torch.zeros(len(common)))

    def forward(self, recent: Tensor) -> Tensor:
        x = self.read(5 * self.table[recent].flatten(-2))
        return F.linear(self.write(F.gelu(self.norm(x))), self.head, self.shift)


def over_all(z: Tensor, common: Tensor, size: int) -> Tensor:
    """The same logits over the target's whole vocabulary: −∞ for a token that the draft does not know."""
    return z.new_full((*z.shape[:-1], size), -torch.inf).index_copy(-1, common, z)


@torch.no_grad()
def written(
    target: SmolLM2,
    ids: Tensor,
    n: int,
    generator: torch.Generator,
    draft=None,
    clock=time.thread_time,
    proposed: int = PROPOSED,
):
    """n tokens after ids (1, L), drawn from the target, alone or with a draft; and what that took.

    Returns:
        The tokens (n,), and a dict: runs of the target, seconds for runs with their draws and for proposals.
    """
    cache, common, size = [], getattr(draft, "common", None), target.embedding.num_embeddings
    target(ids[:, :-1], cache=cache)
    said, end, runs, guessing = ids[0], ids.shape[1] + n, 0, 0.0
    start = clock()
    while len(said) < end:
        before, guess, z = clock(), said, []
        for _ in range(proposed if draft else 0):
            z.append(draft(guess[None, -BACK:]))
            guess = torch.cat([guess, common[z[-1].softmax(-1)[0].multinomial(1, generator=generator)]])
        guessing += clock() - before
        v = target(guess[None, len(said) - 1 :], cache=cache)[0].float()
        if draft:
            kept = verify(guess[len(said) :], over_all(torch.cat(z), common, size), v, generator)
        else:
            kept = v[-1].softmax(-1).multinomial(1, generator=generator)
        said, runs = torch.cat([said, kept]), runs + 1
        cache = [(k[:, :, : len(said) - 1], w[:, :, : len(said) - 1]) for k, w in cache]
    took = clock() - start
    new = len(said) - ids.shape[1]
    return said[ids.shape[1] : end], {"tokens": new, "runs": runs, "seconds": took, "guessing": guessing}


# ---------------------------------------------------------------------------------------------------- drafts


@lru_cache(1)
def model() -> SmolLM2:
    return smollm2()


@lru_cache(1)
def common_tokens() -> Tensor:
    counts = Counter(model().tokenizer.encode(king_james("train")).ids)
    return torch.tensor(sorted(i for i, _ in counts.most_common(VOCABULARY)))


@lru_cache(4)
@torch.no_grad()
def lesson(part: str) -> tuple[Tensor, Tensor]:
    """Stretches of the Bible (N, 128), and SmolLM2's last layer at each token of them."""
    n, seed = {"train": (STRETCHES, 7), "val": (24, 8), "test": (48, 9)}[part]
    ids = windows("scripture", part, n, seed)
    kept = KEPT / f"{part}.pt"
    if not kept.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        with half():
            torch.save(torch.cat([model().features(x).bfloat16() for x in ids.split(8)]), kept)
    return ids, torch.load(kept, weights_only=True)


def places(ids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The last tokens before each place (N, 4), newest last."""
    return torch.stack([ids[rows, columns - j] for j in range(BACK, 0, -1)], -1)


@lru_cache(40)
def trained(kind: str, lr: float, seed: int) -> Draft:
    """AdamW, warmed up over 50 steps, then down to 0 along a cosine."""
    ids, h = lesson("train")
    draft, generator = (
        Draft(model().embedding.weight, common_tokens(), seed),
        torch.Generator().manual_seed(seed),
    )
    number = torch.full((model().embedding.num_embeddings,), -100)  # of a token among the common ones
    number[common_tokens()] = torch.arange(VOCABULARY)
    optimizer = torch.optim.AdamW(draft.parameters(), lr, weight_decay=0.01)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 50) * (1 + math.cos(math.pi * step / STEPS)) / 2
        i = torch.randint(len(ids), (BATCH,), generator=generator)
        t = torch.randint(SKIP, ids.shape[1], (BATCH,), generator=generator)
        with half():
            z = draft(places(ids, i, t)).float()
            v = F.linear(h[i, t - 1], draft.head).float() if kind == "probabilities" else None
        if v is None:
            loss = F.cross_entropy(z, number[ids[i, t]], ignore_index=-100)
        else:
            loss = F.kl_div(z.log_softmax(-1), v.log_softmax(-1), log_target=True, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return draft.requires_grad_(False).eval()


@torch.no_grad()
def share(draft: Draft, ids: Tensor, h: Tensor) -> float:
    """Σ min(p, q) in per cent, the mean over the places of some stretches after the first 16 tokens."""
    found = []
    for row, features in zip(ids, h, strict=True):
        t = torch.arange(SKIP, len(row))
        z = draft(places(row[None], torch.zeros_like(t), t))
        v = F.linear(features[t - 1].float(), draft.table)
        found.append(acceptance(over_all(z, draft.common, len(draft.table)), v))
    return 100 * torch.cat(found).mean().item()


def draft_one(kind: str, lr: float, seed: int) -> dict:
    part = "val" if seed in TUNING else "test"
    return {"part": part, "accepted": share(trained(kind, lr, seed), *lesson(part))}


def drafts(kind: str) -> float:
    """The rate with the best mean on validation, after its drafts have met the test."""
    about, rates = (
        "A draft of 0.9 million weights for SmolLM2: share of proposals that are kept (%); the Bible",
        RATES,
    )
    while True:
        grid = [{"kind": kind, "lr": lr, "seed": seed} for lr in rates for seed in TUNING]
        rows = run_all("24_bible_drafts", about, grid, draft_one)
        rows = rows[(rows["kind"] == kind) & (rows["part"] == "val")]
        best = max(rates, key=lambda lr: rows["accepted"][rows["lr"] == lr].mean())
        if best not in (rates[0], rates[-1]):
            break
        rates = (best / 3, *rates) if best == rates[0] else (*rates, round(3.2 * best, 2))
    run_all("24_bible_drafts", about, [{"kind": kind, "lr": best, "seed": s} for s in REPORTED], draft_one)
    return best


# ------------------------------------------------------------------------------------------------------ times


@lru_cache(2)
def in_format(name: str) -> SmolLM2:
    return smollm2().to({"float32": torch.float32, "bfloat16": torch.bfloat16}[name])


@torch.no_grad()
def surprise(ids: Tensor, new: Tensor) -> float:
    """Nats a token, by the target in single precision: as many with a draft as without, or something is wrong."""
    z = model()(torch.cat([ids[0], new])[None])[0, ids.shape[1] - 1 : -1]
    return F.cross_entropy(z, new).item()


def timed(numbers: str, passage: int, rates: dict) -> dict:
    """One beginning, gone on with in the three ways, in an order drawn anew."""
    target = in_format(numbers)
    start = windows("scripture", "test", len(PASSAGES), 10)[passage, :BEGINNING][None]
    ways = {"alone": None} | {kind: trained(kind, rates[kind], passage % len(REPORTED)) for kind in KINDS}
    row = {}
    for way in random.Random(passage).sample(list(ways), len(ways)):
        new, took = written(target, start, NEW, torch.Generator().manual_seed(passage), ways[way])
        row |= {f"{way}_{k}": v for k, v in took.items()} | {f"{way}_nats": surprise(start, new)}
    return {k: row[k] for way in ways for k in row if k.startswith(way)}


def times(rates: dict) -> None:
    about = (
        "SmolLM2 goes on by 96 tokens alone and with either draft: tokens, runs, CPU seconds, nats a token"
    )
    for numbers in ("float32", "bfloat16"):
        timed(numbers, 0, rates)  # the warm-up
        configs = [{"numbers": numbers, "passage": p} for p in PASSAGES]
        run_all("24_drafted", about, configs, lambda **config: timed(**config, rates=rates))


@torch.no_grad()
def check_times(numbers: str, turn: int) -> dict:
    """Milliseconds of CPU time of one run after 80 tokens: of the last token written, with 0 to 8 proposals."""
    target, ids, cache, row = (
        in_format(numbers),
        windows("scripture", "test", len(TURNS), 10)[turn][None],
        [],
        {},
    )
    target(ids[:, :80], cache=cache)
    for n in random.Random(turn).sample(list(CHECKED), len(CHECKED)):
        before = time.thread_time()
        target(ids[:, 80 : 81 + n], cache=list(cache))
        row[n] = 1e3 * (time.thread_time() - before)
    return {f"proposals_{n}": row[n] for n in CHECKED}


def checks() -> None:
    about = "SmolLM2 checks 0 to 8 proposals in one run: milliseconds of CPU time, the sizes in an order drawn anew"
    for numbers in ("float32", "bfloat16"):
        check_times(numbers, 0)  # the warm-up
        run_all("24_checks", about, [{"numbers": numbers, "turn": turn} for turn in TURNS], check_times)


def keep(draft: Draft) -> None:
    """Draft 0, for the page: its own weights in half precision."""
    weights = {k: v.half() for k, v in draft.named_parameters() if k != "table"}
    save_file({**weights, "common": draft.common}, FOLDER / "24_draft.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    chosen = {kind: drafts(kind) for kind in KINDS}
    keep(trained("probabilities", chosen["probabilities"], 0))
    times(chosen)
    checks()
