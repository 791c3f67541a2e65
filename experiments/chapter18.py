"""The stored runs of chapter 18: two divisions of a loss; resumes that lack something; a teacher asked or stored; how
far the mean push of stored answers is off; and students trained from each form.

    python -m experiments.chapter18     # resumes where it stopped; about half an hour on one core

Of the first four nothing is tuned: both of what is compared run with the settings that the chapter shows. The students
of the last have a learning rate each, chosen on validation. The first two are in float64. The others have a real
teacher, SmolLM2-135M, in float32; the third counts seconds of one core (process time).
"""

from copy import deepcopy
from functools import lru_cache
from tempfile import TemporaryDirectory
from time import process_time

import torch
from torch import Tensor

from companion import scaling
from companion.scaling import Lesson, Reader, batch, by_length, models, share, text, two_kinds
from companion.stored import Stored, largest, store
from companion.teachers import king_james, smollm2
from companion.tokens import forward_kl_loss, sparse_kd_loss
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


# ----------------------------------------------------- how far the mean push of what is kept is from the full one's

MANY, PART = (1, 4, 16, 64, 256, 1024, 4096, 8192), 256  # tokens in a mean; tokens that are computed at once


def taught(teacher, ids: Tensor, seed: int) -> Reader:
    """The student of `kept` at its end: five passes over other verses, from the 50 largest."""
    student, steps = Reader(len(teacher.embedding.weight), WIDTH, length=LONG, seed=seed), VERSES // ROWS
    lesson, optimiser, schedule = ready(student, SPEED, EPOCHS * steps)
    with torch.no_grad():
        kept = largest(teacher(ids), TOP)
    for step in range(EPOCHS * steps):
        rows = batch(VERSES, ROWS, step, seed)
        said = {name: x[rows] for name, x in kept.items()}
        loss = lesson(ids[rows], torch.ones_like(ids[rows], dtype=torch.bool), said, ROWS * LONG)
        descend(loss, optimiser, schedule)
    return student


def pushes(v: Tensor, z: Tensor, draw: torch.Generator) -> dict[str, Tensor]:
    """The right push q − p of each token, and how far those of the two forms are off; v, z (N, V) of both models."""
    p, q = v.double().softmax(-1), z.double().softmax(-1)
    kept = largest(v, TOP)
    at, p_k = kept["index"].long(), kept["p"].double()
    rest = (1 - p_k.sum(-1, keepdim=True)) / (1 - q.gather(-1, at).sum(-1, keepdim=True))
    told = (rest * q).scatter(-1, at, p_k)  # one for the rest: shared out as the student has it
    drawn = torch.multinomial(p, TOP, replacement=True, generator=draw)
    shares = torch.zeros_like(p).scatter_add(-1, drawn, torch.full(drawn.shape, 1 / TOP, dtype=p.dtype))
    return {"push": q - p, "largest": p - told, "draws": p - shares}


@lru_cache(maxsize=1)
@torch.no_grad()
def push_errors(seed: int) -> dict:
    """Root mean squared lengths over 8,192 tokens, for each student and each size of the mean."""
    teacher, tokens = smollm2(), max(MANY)
    words = teacher.tokenizer.encode(king_james("train")[: 60_000 * (seed + 1)]).ids
    first = VERSES * LONG * 2 + seed * tokens  # its student has read none of it
    ids = torch.tensor(words[first : first + tokens]).view(-1, LONG)
    with torch.enable_grad():
        after = taught(teacher, verses(teacher, seed), seed)
    students = {
        "untrained": Reader(len(teacher.embedding.weight), WIDTH, length=LONG, seed=seed),
        "trained": after,
    }
    squares, sums = {}, {}
    draw = torch.Generator().manual_seed(seed)
    for lines in ids.split(PART // LONG):
        v = teacher(lines).flatten(0, 1)
        for name, student in students.items():
            z = (student(lines) @ student.head.weight.T).flatten(0, 1)
            for what, x in pushes(v, z, draw).items():
                for m in (m for m in MANY if m < PART):
                    mean = x.view(-1, m, x.shape[-1]).mean(1)
                    squares.setdefault((name, m, what), []).append(mean.square().sum(-1).mean())
                sums.setdefault((name, what), []).append(x.mean(0))
    for (name, what), parts in sums.items():
        for m in (m for m in MANY if m >= PART):
            mean = torch.stack(parts).view(-1, m // PART, parts[0].shape[-1]).mean(1)
            squares[name, m, what] = [mean.square().sum(-1).mean()]
    return {at: torch.stack(x).mean().sqrt().item() for at, x in squares.items()}


def pushes_one(student: str, seed: int, tokens: int) -> dict:
    found = {what: push_errors(seed)[student, tokens, what] for what in ("push", "largest", "draws")}
    return {
        "push": f"{found['push']:.6f}",
        **{f: 100 * found[f] / found["push"] for f in ("largest", "draws")},
    }


def mean_pushes() -> None:
    about = (
        "Length of the mean push of so many tokens, and by how many per cent of it the 50 largest (one for the rest) "
        "and 50 draws are off; the student before its first step and after five passes; 8,192 tokens, seeds 0 to 2"
    )
    settings = [
        {"student": n, "seed": s, "tokens": m}
        for s in range(3)
        for n in ("untrained", "trained")
        for m in MANY
    ]
    run_all("18_pushes", about, settings, pushes_one)


# ------------------------------------------------------------------------------------ students of each form

# The commonest tokens of the text, how many of an answer are kept, lines, passes. 32 largest take 4 bytes each, 64
# draws 2: equal disk.
COMMON, BEST, DRAWN, LEARNT, UNSEEN, PASSES = 2048, 32, 64, 1280, 192, 3
SMALL, FORMS, RATES = 64, ("full", "rest", "renormalised", "draws"), (6e-3, 1.2e-2, 2.4e-2, 4.8e-2)


@lru_cache(maxsize=1)
def common() -> tuple[Tensor, Tensor]:
    """The teacher's numbers of the COMMON commonest tokens, and the student's of each; all others are COMMON."""
    ids = torch.tensor(smollm2().tokenizer.encode(king_james("train")[:400_000]).ids)
    of_teacher = ids.bincount().argsort(descending=True, stable=True)[:COMMON]
    of_student = torch.full((len(smollm2().embedding.weight),), COMMON)
    return of_teacher, of_student.scatter(0, of_teacher, torch.arange(COMMON))


def lines_of(part: str, count: int) -> Tensor:
    """The first `count` lines of LONG tokens of a part of the text, in the teacher's numbers."""
    ids = torch.tensor(smollm2().tokenizer.encode(king_james(part)[: 8 * count * LONG]).ids)
    return ids[: count * LONG].view(count, LONG)


@torch.no_grad()
def asked(lines: Tensor) -> Tensor:
    """The teacher's logits of the common tokens (lines, LONG, COMMON) in 16 bits: others are left out of the answer."""
    head = smollm2().embedding.weight[common()[0]]
    return torch.cat([halved_of(smollm2().features(part) @ head.T) for part in lines.split(64)])


def halved_of(v: Tensor) -> Tensor:
    return (v - v.amax(-1, keepdim=True)).half()


@lru_cache(maxsize=3)
def answered(part: str) -> tuple[Tensor, Tensor]:
    lines = lines_of(part, LEARNT if part == "train" else UNSEEN)
    return lines, asked(lines)


def drawn_of(v: Tensor, lines: list[int], seed: int) -> Tensor:
    """DRAWN tokens of each answer, the same for a line and a seed whenever they are drawn."""
    found = []
    for line, x in zip(lines, v, strict=True):
        draw = torch.Generator().manual_seed(10_000 * seed + line)
        found.append(torch.multinomial(x.float().softmax(-1), DRAWN, replacement=True, generator=draw))
    return torch.stack(found)


def form_loss(form: str, z: Tensor, v: Tensor, drawn: Tensor | None) -> Tensor:
    """Nats a token of a student's logits z, from one form of the answers softmax(v)."""
    if form == "full":
        return forward_kl_loss(z, v)
    if form == "draws":  # the cross-entropy with their shares
        return -z.log_softmax(-1).gather(-1, drawn).mean()
    kept = largest(v, BEST)
    index, p = kept["index"].long(), kept["p"].float()
    if form == "rest":
        return sparse_kd_loss(z, index, p, tail=True)
    return forward_kl_loss(z.gather(-1, index), p.clamp(min=1e-9).log())  # softmax of the k on both sides


def small_student(seed: int) -> Reader:
    return Reader(COMMON + 1, SMALL, length=LONG, seed=seed)


def said_by(student: Reader, lines: Tensor) -> Tensor:
    return student(common()[1][lines]) @ student.head.weight[:COMMON].T


def learn(form: str, lr: float, seed: int, lines: Tensor, v, drawn, steps: int) -> tuple[Reader, list[float]]:
    """`steps` steps of ROWS lines from one form of the answers; v(rows) and drawn(rows) give them."""
    student, every = small_student(seed), PASSES * LEARNT // ROWS
    optimiser = torch.optim.AdamW(student.parameters(), lr=lr)
    schedule, losses = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, every), []
    for step in range(steps):
        rows = batch(LEARNT, ROWS, step, seed)
        loss = form_loss(form, said_by(student, lines[rows]), v(rows).float(), drawn(rows))
        descend(loss, optimiser, schedule)
        losses.append(loss.item())
    return student, losses


@lru_cache(maxsize=1)
def drawn_all(seed: int) -> Tensor:
    return drawn_of(answered("train")[1], range(LEARNT), seed).to(torch.int16)


def forms_one(form: str, lr: float, seed: int) -> dict:
    """Nats a token from the full answers on lines of validation, or of the test; and the loss of the fourth step."""
    lines, v = answered("train")
    pick = (lambda rows: drawn_all(seed)[rows].long()) if form == "draws" else lambda rows: None
    student, losses = learn(form, lr, seed, lines, v.__getitem__, pick, PASSES * LEARNT // ROWS)
    fresh, right = answered("val" if seed in TUNING else "test")
    with torch.no_grad():
        z, right = said_by(student, fresh), right.float()
        nats, q, p = forward_kl_loss(z, right).item(), z.softmax(-1), right.softmax(-1)
        at = p.topk(BEST, -1).indices
        rest = 1 - q.gather(-1, at).sum(-1).mean().item()
    return {"nats": nats, "rest": rest, "fourth": f"{losses[3]:.6f}"}


def forms() -> None:
    about = (
        "Nats a token from the full answers on fresh lines, by the form that taught; what the student gives outside the "
        "teacher's 32 largest; loss of step 4; learning rate by validation (seeds 100 to 102), test: seeds 0 to 9"
    )
    for form in FORMS:
        tried = [{"form": form, "lr": lr, "seed": s} for lr in RATES for s in TUNING]
        rows = run_all("18_forms", about, tried, forms_one)
        rows = rows[(rows["form"] == form) & (rows["seed"] >= min(TUNING))]
        best = min(RATES, key=lambda lr, rows=rows: rows["nats"][rows["lr"] == lr].mean())
        run_all("18_forms", about, [{"form": form, "lr": best, "seed": s} for s in REPORTED], forms_one)


if __name__ == "__main__":
    kinds()
    resumed()
    kept()
    mean_pushes()
    forms()
