"""The stored runs of chapter 22: how far the mean push of stored answers is off; students trained from each form; and
from fifty of each, and from both together; and how far sums of their steps' gradients are off.

    python -m experiments.chapter22     # resumes where it stopped; about forty minutes on one core

The teacher is SmolLM2-135M, in float32. Students have a learning rate each, chosen on validation.
"""

from functools import lru_cache

import torch
from torch import Tensor

from companion.scaling import Reader, batch
from companion.stored import largest
from companion.teachers import king_james, smollm2
from companion.tokens import forward_kl_loss, sparse_kd_loss
from experiments.chapter18 import EPOCHS, LONG, ROWS, SPEED, TOP, VERSES, WIDTH, descend, ready, verses
from experiments.common import REPORTED, TUNING, run_all, stored

torch.set_num_threads(1)


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
    run_all("22_pushes", about, settings, pushes_one)


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
        rows = run_all("22_forms", about, tried, forms_one)
        rows = rows[(rows["form"] == form) & (rows["seed"] >= min(TUNING))]
        best = min(RATES, key=lambda lr, rows=rows: rows["nats"][rows["lr"] == lr].mean())
        run_all("22_forms", about, [{"form": form, "lr": best, "seed": s} for s in REPORTED], forms_one)


# ------------------------------------------------------------------------------------ students of fifty, and of both

# (how many of the largest are kept, how many are drawn): of all tokens, or of the rest; 4 bytes and 2 bytes each
SIZES = ((0, 50), (50, 0), (16, 32))
NEAR = RATES[1:]  # those of `forms` chose the middle one


def kept_and_drawn(v: Tensor, kept: int, drawn: int, lines: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Tokens and weights (…, kept + drawn) of each answer: the largest as they are, the rest shared by its draws."""
    p = v.float().softmax(-1)
    top, index = p.topk(kept, -1)
    rest, found = p.scatter(-1, index, 0), []
    for line, x in zip(lines, rest, strict=True):
        draw = torch.Generator().manual_seed(10_000 * seed + line)
        found.append(torch.multinomial(x, drawn, replacement=True, generator=draw))
    found = torch.stack(found)
    share = (1 - top.sum(-1, keepdim=True)) / drawn
    return torch.cat([index, found], -1), torch.cat([top, share.expand(found.shape)], -1)


@lru_cache(maxsize=1)
def told_all(kept: int, drawn: int, seed: int) -> tuple[Tensor, Tensor]:
    """What each answer tells: kept once and read at each pass."""
    v = answered("train")[1]
    if drawn:
        parts = [
            kept_and_drawn(v[i : i + 64], kept, drawn, range(i, min(i + 64, LEARNT)), seed)
            for i in range(0, LEARNT, 64)
        ]
        index, weight = (torch.cat(x) for x in zip(*parts, strict=True))
    else:
        weight, index = v.float().softmax(-1).topk(kept, -1)
    return index, weight


def sizes_one(kept: int, drawn: int, lr: float, seed: int, steps: int = PASSES * LEARNT // ROWS) -> dict:
    """Nats a token from the full answers on lines of validation, or of the test; and the loss of the fourth step."""
    lines, (index, weight) = answered("train")[0], told_all(kept, drawn, seed if drawn else 0)
    student, every = small_student(seed), PASSES * LEARNT // ROWS
    optimiser = torch.optim.AdamW(student.parameters(), lr=lr)
    schedule, losses = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, every), []
    for step in range(steps):
        rows = batch(LEARNT, ROWS, step, seed)
        z = said_by(student, lines[rows])
        if drawn:  # the cross-entropy with what is told
            loss = -(weight[rows] * z.log_softmax(-1).gather(-1, index[rows])).sum(-1).mean()
        else:
            loss = sparse_kd_loss(z, index[rows], weight[rows], tail=True)
        descend(loss, optimiser, schedule)
        losses.append(loss.item())
    fresh, right = answered("val" if seed in TUNING else "test")
    with torch.no_grad():
        nats = forward_kl_loss(said_by(student, fresh), right.float()).item()
    return {"nats": nats, "fourth": f"{losses[3]:.6f}"}


def sizes(which=SIZES) -> None:
    about = (
        "As 22_forms, nats a token from the full answers on fresh lines, by how many of the largest are kept (rest: one "
        "number, or so many draws of it) and how many tokens are drawn; 4 and 2 bytes each"
    )
    for kept, drawn in which:
        tried = [{"kept": kept, "drawn": drawn, "lr": lr, "seed": s} for s in TUNING for lr in NEAR]
        rows = run_all("22_sizes", about, tried, sizes_one)
        rows = rows[(rows["kept"] == kept) & (rows["drawn"] == drawn) & (rows["seed"] >= min(TUNING))]
        best = min(NEAR, key=lambda lr, rows=rows: rows["nats"][rows["lr"] == lr].mean())
        due = [{"kept": kept, "drawn": drawn, "lr": best, "seed": s} for s in REPORTED]
        run_all("22_sizes", about, due, sizes_one)


# ------------------------------------------------------------------------------------ what adds up from step to step

STRETCHES = (1, 4, 16, 80, 240)  # steps whose gradients are summed; a pass has 80
HELD = ((32, 0), (50, 0), (0, 50), (0, 64), (16, 32))  # kept, drawn


@lru_cache(maxsize=1)
def told_of(seed: int) -> dict:
    return {form: told_all(*form, seed) for form in HELD}


def told_loss(form: tuple[int, int], z: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    if form[1]:  # the cross-entropy with what is told
        return -(weight * z.log_softmax(-1).gather(-1, index)).sum(-1).mean()
    return sparse_kd_loss(z, index, weight, tail=True)


@lru_cache(maxsize=1)
def step_errors(seed: int, lr: float, steps: int = max(STRETCHES)) -> dict:
    """Lengths of the sums of gradients in all weights, on the way of the student of the full answers; of a form, how far
    its sum is off."""
    (lines, v), told, student = answered("train"), told_of(seed), small_student(seed)
    weights, every = list(student.parameters()), PASSES * LEARNT // ROWS
    optimiser = torch.optim.AdamW(weights, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, every)
    sums, squares = {}, {}
    for step in range(steps):
        rows = batch(LEARNT, ROWS, step, seed)
        z = said_by(student, lines[rows])
        losses = {"full": forward_kl_loss(z, v[rows].float())}
        losses |= {form: told_loss(form, z, *(x[rows] for x in told[form])) for form in HELD}
        found = {}
        for form, loss in losses.items():
            slopes = torch.autograd.grad(loss, weights, retain_graph=True)
            found[form] = torch.cat([x.flatten() for x in slopes])
            if form == "full":
                for weight, slope in zip(weights, slopes, strict=True):
                    weight.grad = slope
        optimiser.step()
        schedule.step()
        for n in STRETCHES:
            for form, slope in found.items():
                off = slope if form == "full" else slope - found["full"]
                sums[form, n] = sums.get((form, n), 0) + off
                if (step + 1) % n == 0:
                    squares.setdefault((form, n), []).append(sums.pop((form, n)).double().square().sum())
    return {at: torch.stack(x).sqrt() for at, x in squares.items()}  # of each stretch


def steps_one(kept: int, drawn: int, seed: int, steps: int, lr: float) -> dict:
    found = step_errors(seed, lr)
    right, off = found["full", steps], found[(kept, drawn), steps]
    ratio = (off.square().mean() / right.square().mean()).sqrt()
    return {
        "gradient": right.square().mean().sqrt().item(),
        "off": 100 * ratio.item(),
        "first": 100 * (off[0] / right[0]).item(),
    }


def along_steps() -> None:
    about = (
        "Length of the sum of the gradients (all weights) of so many steps of 512 tokens that follow each other, and by "
        "how many per cent it is off in each form: all stretches, and the first; along 22_forms' students of full answers"
    )
    (lr,) = {float(row["lr"]) for row in stored_rows("full")}
    settings = [
        {"kept": k, "drawn": n, "seed": s, "steps": steps, "lr": lr}
        for s in range(3)
        for k, n in HELD
        for steps in STRETCHES
    ]
    run_all("22_steps", about, settings, steps_one)


def stored_rows(form: str):
    rows = stored("22_forms")
    return rows[(rows["form"] == form) & (rows["seed"] < min(TUNING))]


if __name__ == "__main__":
    mean_pushes()
    forms()
    sizes()
    along_steps()
