"""The stored runs of chapter 18: two divisions of a loss; resumes that lack something; draws; a teacher asked or stored.

    python -m experiments.chapter18     # resumes where it stopped; about fifteen minutes on one core

Nothing is tuned but the learning rates of the third: what is compared runs with the settings that the chapter shows. The
first two are in float64. The fourth has a real teacher, SmolLM2-135M, in float32, and counts seconds of one core
(process time).
"""

from copy import deepcopy
from functools import lru_cache
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import torch
from torch import Tensor

from companion import scaling
from companion.scaling import Lesson, Reader, batch, by_length, models, share, text, two_kinds
from companion.stored import Stored, largest, store
from companion.teachers import king_james, smollm2
from companion.tokens import forward_kl_loss
from experiments.common import REPORTED, TUNING, run_all

torch.set_num_threads(1)


def ready(student, lr: float, steps: int):
    """A lesson, its optimiser and its schedule."""
    lesson = Lesson(student)
    optimiser = torch.optim.AdamW(lesson.parameters(), lr=lr)
    return lesson, optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)


def descend(loss: Tensor, optimiser, schedule) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()


@torch.no_grad()
def left(teacher, student, ids: Tensor, mask: Tensor) -> float:
    """Nats a counted token between teacher and student."""
    z, v = (model(ids) @ model.head.weight.T for model in (student, teacher))
    return forward_kl_loss(z, v, mask=mask).item()


# -------------------------------------------------------------------------------------------- lines of two kinds


def kinds_one(division: str, seed: int) -> dict:
    """What two processes compute, in one: batches sorted by length, a share each, the average of their losses."""
    (ids, mask), (teacher, student) = two_kinds(seed), (m.double() for m in models(seed))
    lesson, optimiser, schedule = ready(student, 3e-3, scaling.STEPS)
    for step in range(scaling.STEPS):
        rows, loss = by_length(batch(len(ids), 16, step, seed), mask, 2), 0
        for mine in (share(rows, rank, 2) for rank in range(2)):
            own, n = mask[mine].sum().item(), mask[rows].sum().item()
            answers = {"features": teacher(ids[mine]), "head": teacher.head.weight}
            divisor = own if division == "own" else n / 2
            loss = loss + lesson(ids[mine], mask[mine], answers, divisor) / 2
        descend(loss, optimiser, schedule)
    ids, mask = two_kinds(seed + 500)
    short = mask.sum(1) == 4
    parts = {"short": short, "long": ~short, "all": short | ~short}
    return {part: left(teacher, student, ids[at], mask[at]) for part, at in parts.items()}


# ---------------------------------------------------------------------------------------- what a checkpoint lacks

LINES, SIZE, ALL, KEPT, RATE = 960, 4, 240, 120, 3e-2
AFTER = (0, 1, 2, 5, 10, 20, 30, 40, 60, 80, 100)


class Resume:
    """One run until its checkpoint, and what goes on from it."""

    def __init__(self, seed: int):
        self.seed, (self.teacher, student) = seed, (m.double() for m in models(seed))
        self.ids, self.mask = text(seed, LINES)
        self.fresh = text(seed + 500, 48)
        with torch.no_grad():
            self.features = self.teacher(self.ids)
        parts = ready(student, RATE, ALL)
        self.train(*parts, 0, KEPT, 0, ())
        self.kept = [deepcopy(part.state_dict()) for part in parts]

    def train(self, lesson, optimiser, schedule, start: int, stop: int, back: int, look: tuple):
        """Steps start … stop, with the examples of `back` steps before; fresh loss where to look, losses of all."""
        fresh, losses = {}, []
        for step in range(start, stop + 1):
            if step - start in look:
                fresh[step - start] = left(self.teacher, lesson.student, *self.fresh)
            if step == stop:
                break
            rows = batch(LINES, SIZE, step - back, self.seed)
            answers = {"features": self.features[rows], "head": self.teacher.head.weight}
            loss = lesson(self.ids[rows], self.mask[rows], answers, self.mask[rows].sum().item())
            descend(loss, optimiser, schedule)
            losses.append(loss.item())
        return fresh, losses

    @lru_cache(maxsize=4)  # noqa: B019
    def without(self, missing: str):
        """The second half, from a checkpoint that lacks one thing."""
        lesson, optimiser, schedule = ready(models(self.seed)[1].double(), RATE, ALL)
        lesson.load_state_dict(self.kept[0])
        if missing != "optimiser":
            optimiser.load_state_dict(
                deepcopy(self.kept[1])
            )  # it keeps the tensors it is given, and changes them
        if missing != "schedule":
            schedule.load_state_dict(self.kept[2])
        # one thing at a time: AdamW's state holds the rate, too, so it is set right here, unless it is what is lost
        rate = RATE if missing == "schedule" else schedule.get_last_lr()[0]
        for group in optimiser.param_groups:
            group["lr"], group["initial_lr"] = rate, RATE
        return self.train(
            lesson, optimiser, schedule, KEPT, ALL, KEPT if missing == "order" else 0, (*AFTER, ALL - KEPT)
        )


resume = lru_cache(maxsize=1)(Resume)


def resumed_one(missing: str, seed: int, after: int) -> dict:
    """Nats a token on fresh lines `after` steps past the checkpoint, and of the twenty batches before that."""
    fresh, losses = resume(seed).without(missing)
    last = losses[max(after - 20, 0) : after] or losses[:1]
    return {"fresh": fresh[after], "batches": sum(last) / len(last)}


def resumed() -> None:
    about = "Nats a token after a resume that lacks something; 240 steps of 4 lines, checkpoint after 120; seeds 0 to 2"
    settings = [
        {"missing": m, "seed": s, "after": a}
        for s in range(3)
        for m in ("nothing", "optimiser", "schedule", "order")
        for a in (*AFTER, ALL - KEPT)
    ]
    run_all("18_resumed", about, settings, resumed_one)


def kinds() -> None:
    about = (
        "Nats a token on fresh short and long lines, by what each process divides by; 40 steps; seeds 0 to 9"
    )
    settings = [{"division": d, "seed": s} for s in REPORTED for d in ("batch", "own")]
    run_all("18_kinds", about, settings, kinds_one)


# ------------------------------------------------------------------------- a teacher asked at each step, or stored

# lines, tokens of each, lines a step, passes, what is kept
VERSES, LONG, ROWS, EPOCHS, TOP = 64, 32, 16, 5, 50
WIDTH, SPEED = 256, 1e-3  # 13.6 million multiplied weights, about a tenth of the teacher's


def verses(teacher, seed: int) -> Tensor:
    """VERSES lines of LONG tokens from the Bible of King James, others for each seed."""
    ids = torch.tensor(teacher.tokenizer.encode(king_james("train")[: 20_000 * (seed + 1)]).ids)
    return ids[seed * VERSES * LONG : (seed + 1) * VERSES * LONG].view(VERSES, LONG)


@lru_cache(maxsize=1)
def distilled(seed: int) -> list[dict]:
    """Two equal students step by turns, one asking the teacher, one reading from disk; the bill after each epoch."""
    teacher = smollm2()
    ids, steps = verses(teacher, seed), VERSES // ROWS

    @torch.no_grad()
    def ask(lines):
        return largest(teacher(lines), TOP)

    ways = {
        way: ready(
            Reader(len(teacher.embedding.weight), WIDTH, length=LONG, seed=seed), SPEED, EPOCHS * steps
        )
        for way in ("asked", "stored")
    }
    with TemporaryDirectory() as folder:
        start = process_time()
        store(ask, ids, folder, rows=ROWS)
        spent = {"asked": 0.0, "stored": process_time() - start, "asking": 0.0, "reading": 0.0}
        kept = Stored(folder, ids)
        answers = {"asked": lambda rows: ask(ids[rows]), "stored": kept.__getitem__}
        bills = [{**spent, "nats": float("nan"), "differ": 0, "kilobytes": kept.bytes() / 1000}]
        for epoch in range(EPOCHS):
            nats = 0.0
            for step in range(epoch * steps, (epoch + 1) * steps):
                rows = batch(VERSES, ROWS, step, seed)
                for way, part in (("asked", "asking"), ("stored", "reading")):
                    lesson, optimiser, schedule = ways[way]
                    start = process_time()
                    said = answers[way](rows)
                    spent[part] += process_time() - start
                    loss = lesson(ids[rows], torch.ones_like(ids[rows], dtype=torch.bool), said, ROWS * LONG)
                    descend(loss, optimiser, schedule)
                    spent[way] += process_time() - start
                nats += loss.item() / steps
            one, two = (torch.cat([w.flatten() for w in ways[way][0].parameters()]) for way in ways)
            bills.append(
                {**spent, "nats": nats, "differ": (one != two).sum().item(), "kilobytes": kept.bytes() / 1000}
            )
    return bills


def kept_one(seed: int, epoch: int) -> dict:
    return distilled(seed)[epoch]


def kept() -> None:
    about = (
        "Seconds of one core for a student whose teacher is asked at each step or read from disk; after each epoch; "
        "stored has the asking beforehand; differ: weights in which the two students are unequal; seeds 0 and 1"
    )
    run_all(
        "18_kept", about, [{"seed": s, "epoch": e} for s in range(2) for e in range(EPOCHS + 1)], kept_one
    )


# --------------------------------------------------------------------------- fifty draws, and the size of a step

DRAWN, SHORT, RATES = (
    50,
    60,
    (0.012, 0.024, 0.048, 0.096, 0.192),
)  # draws of each answer, steps, learning rates


def drawn_one(way: str, size: int, lr: float, seed: int) -> dict:
    """A student of SHORT steps of `size` fresh lines, by whole answers or by DRAWN draws of each; nats a token left."""
    teacher, student = models(seed)
    ids, mask = text(seed, size * SHORT)
    generator = torch.Generator().manual_seed(seed)
    lesson, optimiser, schedule = ready(student, lr, SHORT)
    for rows in torch.arange(len(ids)).split(size):
        counts, n = mask[rows], mask[rows].sum().item()
        with torch.no_grad():
            features = teacher(ids[rows])
            p = (features[counts] @ teacher.head.weight.T).softmax(-1)
            drawn = torch.multinomial(p, DRAWN, replacement=True, generator=generator)
        if way == "draws":
            log_q = (student(ids[rows])[counts] @ student.head.weight.T).log_softmax(-1)
            loss = -log_q.gather(-1, drawn).mean(-1).sum() / n
        else:
            loss = lesson(ids[rows], counts, {"features": features, "head": teacher.head.weight}, n)
        descend(loss, optimiser, schedule)
    return {"nats": left(teacher, student, *text(seed + 500, 128))}


def drawn() -> None:
    about = (
        "Nats a token on fresh lines after 60 steps of so many fresh lines, by whole answers or by fifty draws of each; "
        "own learning rate by validation (seeds 100 to 102), test: seeds 0 to 9"
    )
    for size in (2, 8, 32):
        for way in ("whole", "draws"):
            tried = {}
            for lr in (0.024, 0.048, 0.096):
                tried[lr] = drawn_mean(about, way, size, lr)
            while (best := min(tried, key=tried.get)) in (min(tried), max(tried)):
                at = RATES.index(best) + (1 if best == max(tried) else -1)
                if not 0 <= at < len(RATES):
                    break
                tried[RATES[at]] = drawn_mean(about, way, size, RATES[at])
            settings = [{"way": way, "size": size, "lr": best, "seed": s} for s in REPORTED]
            run_all("18_drawn", about, settings, drawn_one)


def drawn_mean(about: str, way: str, size: int, lr: float) -> float:
    """Mean over the seeds that choose."""
    settings = [{"way": way, "size": size, "lr": lr, "seed": s} for s in TUNING]
    rows = run_all("18_drawn", about, settings, drawn_one)
    here = (rows["way"] == way) & (rows["size"] == size) & (rows["lr"] == lr) & np.isin(rows["seed"], TUNING)
    return rows["nats"][here].mean()


if __name__ == "__main__":
    kinds()
    resumed()
    drawn()
    kept()
