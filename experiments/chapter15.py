"""Chapter 15: a small student learns to pronounce, on the teacher's words or on its own.

python -m experiments.chapter15 writes chapters/results/15_words.csv, half a minute to two minutes each; it may be stopped
and goes on. The teacher's answers to the 20,000 words without labels are asked once and kept in _build/chapter15.pt.

Each of five ways has its own learning rate, chosen on validation words with three seeds. Words, labels, steps and student
are the same. A sixth way, the control, is given what this setting lacks: the dictionary's labels of the 20,000 words.
The shortest runs, of 200 steps and on 3,000 words without labels, are those that the chapter runs again.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from companion.teachers import AttentivePronouncer, answers, pronouncer, spell, to_ids, to_text, words
from companion.tokens import forward_kl_loss, reverse_kl_loss
from experiments.common import TUNING, run_all

UNLABELLED, LABELLED, BATCH = 20_000, 2_000, 64
STEPS, LONG, WARM = 1_000, 4_000, 0.3  # own words from 30 % of the steps on
SHORT, POOL, AGAIN = 200, 3_000, ("labels", "off_policy")  # what the chapter can run again
RATES, REPORTED = (2.5e-3, 5e-3, 1e-2, 2e-2), range(5)
WAYS, CONTROL = ("labels", "answers", "off_policy", "on_policy", "mixed"), "dictionary"
REVERSE, OFF_REVERSE = (
    "on_policy_reverse",  # as on_policy, with KL(student‖teacher) along own answers; see chapter15_reverse
    "off_policy_reverse",  # the same KL from the same step on, along the teacher's answers
)
LONGER = ("labels", "off_policy", CONTROL)
KEPT = Path("_build/chapter15.pt")
TEACHER = pronouncer()
TRAIN, VAL, TEST = words("train"), words("val"), words("test")
EVALUATED = 3_000


def trim(ids):
    """Without the columns in which no row has anything."""
    return ids[:, : int((ids != 0).sum(1).max())]


@torch.no_grad()
def teacher_answers():
    """Spellings without labels, the teacher's greedy answers (N, 22), its logits along them (N, 21, 74), float16."""
    if not KEPT.exists():
        spelled = spell(list(TRAIN)[:UNLABELLED])
        said, logits = (
            torch.zeros(UNLABELLED, 22, dtype=torch.long),
            torch.zeros(UNLABELLED, 21, 74, dtype=torch.half),
        )
        for part in torch.arange(UNLABELLED).split(500):
            x = trim(spelled[part])
            found = answers(TEACHER, x)
            said[part, : found.shape[1]] = found
            logits[part, : found.shape[1] - 1] = TEACHER(x, found[:, :-1]).half()
        KEPT.parent.mkdir(exist_ok=True)
        torch.save({"spelled": spelled, "said": said, "logits": logits}, KEPT)
    return torch.load(KEPT, weights_only=True).values()


def edits(a: list[str], b: list[str]) -> int:
    """Phonemes to insert, delete or exchange on the way from a to b (Levenshtein)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, old = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(old[j] + 1, row[-1] + 1, old[j - 1] + (x != y)))
    return row[-1]


def score(model, part: dict, n: int = EVALUATED):
    """Words said as the dictionary has them, and phoneme errors, in percent, on the first n words of a part."""
    chosen = list(part)[:n]
    said = [
        text
        for group in range(0, n, 500)
        for text in to_text(answers(model, spell(chosen[group : group + 500])))
    ]
    right = wrong = total = 0
    for text, word in zip(said, chosen, strict=True):
        right += text in part[word]
        errors, length = min((edits(text.split(), p.split()), len(p.split())) for p in part[word])
        wrong, total = wrong + errors, total + length
    return 100 * right / n, 100 * wrong / total


@torch.no_grad()
def distance(student, generator, n: int = 1000):
    """KL(teacher‖student), nats a phoneme, on test words: after the teacher's sampled phonemes, after the student's."""
    spelled, found = spell(list(TEST)[:n]), []
    for speaker in (TEACHER, student):
        said = answers(speaker, spelled, generator)
        z, v = student(spelled, said[:, :-1]), TEACHER(spelled, said[:, :-1])
        found.append(forward_kl_loss(z, v, mask=said[:, 1:] != 0).item())
    return found


def batch_of(way: str, student, early: bool, data, generator):
    """Spellings, phonemes to condition on and to predict, and the teacher's logits there (None: learn the phonemes)."""
    spelled, said, logits = data
    rows = torch.randint(len(spelled), (BATCH,), generator=generator)
    x = trim(spelled[rows])
    if way in ("labels", "answers", "off_policy", OFF_REVERSE, CONTROL) or early:
        y = trim(said[rows])
        return x, y, None if logits is None else logits[rows, : y.shape[1] - 1].float()
    own = answers(student, x, generator)
    if way == "mixed":
        half = trim(said[rows[BATCH // 2 :]])
        width = max(own.shape[1], half.shape[1])
        own = trim(torch.cat([F.pad(part, (0, width - part.shape[1])) for part in (own[: BATCH // 2], half)]))
    with torch.no_grad():
        return x, own, TEACHER(x, own[:, :-1])


def train(way: str, steps: int, lr: float, seed: int, late=None):
    """A student trained one of the five ways, as the control, or one of the two ways with the other KL.

    `late` takes the place of the way's divergence after the start.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    spelled, said, logits = (part[: POOL if steps == SHORT else None] for part in teacher_answers())
    if way == "labels":
        order = torch.randperm(len(TRAIN), generator=generator)[:LABELLED].tolist()
        known = list(TRAIN.items())
        spelled, said = spell([known[i][0] for i in order]), to_ids([known[i][1][0] for i in order])
    if way == CONTROL:  # the words are the first of the dictionary's part for training, as in teacher_answers
        said = to_ids([sayings[0] for sayings in list(TRAIN.values())[: len(spelled)]])
    data = spelled, said, None if way in ("labels", "answers", CONTROL) else logits
    student = AttentivePronouncer()
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        early = step < WARM * steps
        x, y, v = batch_of(way, student, early, data, generator)
        turned = late or (reverse_kl_loss if way in (REVERSE, OFF_REVERSE) else forward_kl_loss)
        divergence = forward_kl_loss if early else turned
        z, counted = student(x, y[:, :-1]), y[:, 1:] != 0
        loss = F.cross_entropy(z[counted], y[:, 1:][counted]) if v is None else divergence(z, v, mask=counted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return student, generator


def made(way: str, steps: int, lr: float, seed: int):
    """The student of a run, and its accuracy and phoneme errors in percent, on validation words for a tuning seed."""
    began = time.process_time()
    student, generator = train(way, steps, lr, seed)
    seconds = time.process_time() - began
    right, wrong = score(student, VAL if seed in TUNING else TEST)
    on_teachers, on_own = distance(student, generator)
    return student, {
        "right": right, "phoneme_errors": wrong, "kl_on_teachers": on_teachers, "kl_on_own": on_own, "seconds": seconds,
    }  # fmt: skip


def one(way: str, steps: int, lr: float, seed: int):
    """What a run measures."""
    return made(way, steps, lr, seed)[1]


def main():
    about = (
        "A student of 206346 parameters taught with 64 words a step; right and phoneme_errors in percent of 3000 words "
        "(validation for seeds 100 to 102; else test); seconds of CPU"
    )
    ways, name = sys.argv[1:] or (*WAYS, CONTROL), "15_words"

    def configs(chosen, steps, seeds):
        return [
            {"way": w, "steps": steps, "lr": lr, "seed": s}
            for s in seeds
            for w, rates in chosen.items()
            for lr in rates
        ]

    rows = run_all(name, about, configs(dict.fromkeys(ways, RATES), STEPS, TUNING), one)
    best = {}
    for way in ways:
        tried = rows[(rows["way"] == way) & np.isin(rows["seed"], TUNING)]
        means = {lr: tried["right"][tried["lr"] == lr].mean() for lr in RATES}
        best[way] = [max(means, key=means.get)]
    print("chosen on validation", best, flush=True)  # at an edge of RATES: widen them
    run_all(name, about, configs(best, STEPS, REPORTED), one)
    run_all(name, about, configs({w: r for w, r in best.items() if w in LONGER}, LONG, REPORTED), one)
    run_all(name, about, configs({w: r for w, r in best.items() if w in AGAIN}, SHORT, REPORTED), one)
    print("teacher", score(TEACHER, TEST), "on validation", score(TEACHER, VAL))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
