"""Drafts for a network that pronounces: how often the network keeps what they propose (chapter 24).

    python -m experiments.chapter24     # resumes where it stopped; about a minute on one core

A draft, MLP(293, 64, 74), guesses the next phoneme for the network of g2p-en. Its learning rate is chosen on validation
with seeds 100 to 102; seeds 0 to 9 meet the test words once. Seed s has its own initial weights and its own words.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F

from companion import teachers
from companion.data import Split
from companion.losses import kd_loss
from companion.metrics import agreement
from companion.models import MLP
from companion.speculative import acceptance
from companion.training import fit_many, hard_loss, predict
from experiments.chapter17 import examined
from experiments.common import group, widen_then_report

torch.set_num_threads(1)
KINDS = (
    "dictionary",
    "dictionary of 100 words",
    "the target's words",
    "the target's words and probabilities",
    "the target's words by total variation",
)


def contexts(spelled, said):
    """One row before each phoneme: the two phonemes before it and five letters around its place (N, 293), and it."""
    rows = torch.arange(said.shape[1] - 1)
    before = torch.stack([said[:, (rows - i).clamp(min=0)] for i in (0, 1)], -1)
    letters = F.pad(spelled, (1, said.shape[1] + 3))
    near = torch.stack([letters[:, rows + i] for i in range(5)], -1)
    x = torch.cat([F.one_hot(before, 74).flatten(2), F.one_hot(near, 29).flatten(2)], -1)
    kept = said[:, 1:] != teachers._pronouncer.PAD
    return x[kept].float(), said[:, 1:][kept], kept


@lru_cache(maxsize=1)
def target():
    return teachers.pronouncer()


@lru_cache(maxsize=3)
def dictionary(part: str) -> tuple:
    return tuple(teachers.words(part).items())


@lru_cache(maxsize=30)
def asked(seed: int, part: str, n: int, kind: str):
    """Contexts of n words of a part, what follows, and the target's logits there."""
    generator = torch.Generator().manual_seed(seed)
    known = dictionary(part)
    order = torch.randperm(len(known), generator=generator)[:n].tolist()
    spelled = teachers.spell([known[i][0] for i in order])
    said = teachers.to_ids([known[i][1][0] for i in order])
    if "dictionary" not in kind:
        said = teachers.answers(target(), spelled, generator)
    x, y, kept = contexts(spelled, said)
    with torch.no_grad():
        v = target()(spelled, said[:, :-1])[kept]
    return x, y, v


def apart(z, v, y):
    """The total variation of draft and target: the very share of proposals that is refused."""
    return (z.softmax(-1) - v.softmax(-1)).abs().sum(-1).mean() / 2


@lru_cache(maxsize=2)
def drafts(kind: str, lr: float, seeds: tuple) -> dict:
    sets = [asked(seed, "train", 100 if "100" in kind else 1000, kind) for seed in seeds]
    students = [MLP(293, 64, 74, seed=seed) for seed in seeds]
    loss, taught = hard_loss, None
    if "variation" in kind:
        loss, taught = apart, [v for _, _, v in sets]
    if "probabilities" in kind:
        loss, taught = (lambda z, v, y: kd_loss(z, v, T=1)), [v for _, _, v in sets]
    splits = [Split(x, y) for x, y, _ in sets]
    fit_many(students, splits, loss, taught, steps=1200, lr=lr, seeds=seeds)
    return dict(zip(seeds, students, strict=True))


def draft_one(kind: str, lr: float, seed: int) -> dict:
    part = examined(seed)[0]
    x, _, v = asked(seed, part, 300, "the target's words")
    z = predict(drafts(kind, lr, group(seed))[seed], x)
    return {"part": part, "accepted": 100 * acceptance(z, v).mean().item(), "same_first": agreement(z, v)}


def speculation() -> None:
    about = "A draft MLP(293 64 74): share of proposals that g2p-en's network keeps (%); other words"
    for kind in KINDS:
        widen_then_report("24_drafts", about, draft_one, (0.003, 0.01, 0.03), by="accepted", kind=kind)


if __name__ == "__main__":
    speculation()
