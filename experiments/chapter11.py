"""The long runs of chapter 11: one student and many teachers, suspects, checkpoints on sparse parity, lessons in noise.

    python -m experiments.chapter11     # resumes where it stopped; about 16 minutes on one core

Learning rates (and temperatures) are chosen on validation with seeds 100 to 102, for each teacher its own; seeds 0
to 9 are reported on test. Seed s has its own initial weights, its own images and teachers of its own. What shares a
learning rate is trained at once.
"""

import copy
from collections.abc import Callable
from functools import cache, lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.data import Split, fashion, fashion_teacher
from companion.losses import distillation_loss, kd_loss
from companion.metrics import accuracy
from companion.models import MLP, ConvNet
from companion.training import fit, fit_many, hard_loss, predict
from experiments.common import REPORTED, TUNING, run_all, stored

torch.set_num_threads(1)


def in_groups(name: str, about: str, configs: list[dict], together: Callable[..., list[dict]]) -> np.ndarray:
    """`run_all`, where the configs of one learning rate are one call, together(configs, lr)."""

    @lru_cache
    def found(lr: float) -> dict:
        group = [c for c in configs if c["lr"] == lr]
        return {tuple(c.values()): row for c, row in zip(group, together(group, lr), strict=True)}

    return run_all(name, about, configs, lambda **config: found(config["lr"])[tuple(config.values())])


def choose_then_report_many(name: str, about: str, settings: list[dict], rates, together) -> np.ndarray:
    """Each setting's best row of the grid on the tuning seeds, reported on the others.

    A setting's "grid" is a list of values of its column "setting" (T, ε); it is chosen together with the rate.
    """
    tried = [
        {**{k: v for k, v in s.items() if k != "grid"}, "setting": value, "lr": lr}
        for s in settings
        for value in s["grid"]
        for lr in rates
    ]
    rows = in_groups(name, about, [{**t, "seed": s} for t in tried for s in TUNING], together)
    rows = rows[np.isin(rows["seed"], TUNING)]

    def mean(setting):
        return rows["accuracy"][np.all([rows[k] == v for k, v in setting.items()], axis=0)].mean()

    chosen = []
    for s in settings:
        own = [t for t in tried if all(t[k] == v for k, v in s.items() if k != "grid")]
        chosen.append(max(own, key=mean))
    return in_groups(name, about, [{**c, "seed": s} for c in chosen for s in REPORTED], together)


# ----------------------------------------------------------------------------------------------- sparse parity

BITS, PARITY, PARITY_STEPS, EVERY = 32, 4, 640, 40
KINDS = ("labels", "final", "progressive", "final named", "progressive named", "progressive random")
KINDS += tuple(
    f"one named {step}" for step in (120, 240, 400, 600)
)  # one copy for half of the time, then the last
LONG = 3 * PARITY_STEPS  # of a teacher that trains on until its probabilities are sharp
SOFTENED = 4  # the temperature at which they are about as soft again as those of the finished teacher
ALONE = (8, 16, 32, 64, 128, 256)  # hidden units that learn from the labels, without a teacher


def parity(seed: int, n: int) -> Split:
    """n rows of 32 random signs; the label is 1 where the product of the first four is +1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 2, (n, BITS), generator=generator).float() * 2 - 1
    return Split(x, (x[:, :PARITY].prod(-1) > 0).long())


class Course(nn.Module):
    """A teacher that takes the place of the one before: each answers `turns` batches, the last all that follow."""

    def __init__(self, teachers, turns: int):
        super().__init__()
        self.teachers, self.turns, self.asked = nn.ModuleList(teachers), turns, 0

    def forward(self, x: Tensor) -> Tensor:
        now = min(self.asked // self.turns, len(self.teachers) - 1)
        self.asked += 1
        return self.teachers[now](x)


@lru_cache(maxsize=16)
def parity_teacher(seed: int) -> list[MLP]:
    """MLP(32, 256, 2) every 40 steps of its training, and at its end."""
    teacher, kept = MLP(BITS, 256, 2, seed=seed + 500), []
    steps = iter(range(PARITY_STEPS))

    def loss(z, v, y):
        if next(steps) % EVERY == 0:
            kept.append(copy.deepcopy(teacher).eval().requires_grad_(False))
        return hard_loss(z, v, y)

    data = parity(seed + 500, 128 * PARITY_STEPS)
    fit(teacher, data, loss, steps=PARITY_STEPS, lr=3e-3, batch_size=128, seed=seed)
    return [*kept[1:], teacher.eval().requires_grad_(False)]


@lru_cache(maxsize=16)
def long_teacher(seed: int) -> MLP:
    """The same teacher, trained three times as long, each example seen once."""
    teacher = MLP(BITS, 256, 2, seed=seed + 500)
    fit(teacher, parity(seed + 500, 128 * LONG), steps=LONG, lr=3e-3, batch_size=128, seed=seed)
    return teacher.eval().requires_grad_(False)


def course(kind: str, seed: int) -> nn.Module | None:
    if kind.startswith("final long"):
        return long_teacher(seed)
    checkpoints = parity_teacher(seed)
    if kind == "labels":
        return None
    if kind.startswith("final"):
        return checkpoints[-1]
    if kind.startswith("one"):
        return Course([checkpoints[int(kind.split()[-1]) // EVERY - 1], checkpoints[-1]], PARITY_STEPS // 2)
    return Course(checkpoints[2:], PARITY_STEPS // 2 // len(checkpoints[2:]))


def parity_together(configs: list[dict], lr: float) -> list[dict]:
    """Students MLP(32, 8, 2), each example seen once; their accuracy every 64 steps, and at the end on new rows.

    "progressive random": labels, in each batch as many of them wrong as the copy on its way makes mistakes there, but
    on rows drawn by chance. "final drawn": names drawn from the finished teacher's probabilities. "final long": the
    probabilities of a teacher that trained three times as long; "final long at T", "final at T": at the temperature
    of the column setting.
    """
    curves, chance = [[] for _ in configs], torch.Generator().manual_seed(configs[0]["seed"])
    students = [MLP(BITS, 8, 2, seed=c["seed"]) for c in configs]
    data = [parity(c["seed"], 128 * PARITY_STEPS) for c in configs]
    fresh = [parity(c["seed"] + 2000, 4000) for c in configs]  # of each student's own

    def loss(curve, kind, T, z, v, y):
        curve.append(accuracy(z.detach(), y))
        if "named" in kind:
            return hard_loss(z, None, v.argmax(-1))
        if "drawn" in kind:
            return hard_loss(z, None, torch.multinomial(v.softmax(-1), 1, generator=chance)[:, 0])
        if "random" in kind:
            wrong = torch.randperm(len(y), generator=chance)[: int((v.argmax(-1) != y).sum())]
            told = y.clone()
            told[wrong] = 1 - y[wrong]
            return hard_loss(z, None, told)
        return hard_loss(z, None, y) if kind == "labels" else kd_loss(z, v, T)

    losses = [partial(loss, curve, c["kind"], c["setting"]) for curve, c in zip(curves, configs, strict=True)]
    teachers = [course(c["kind"], c["seed"]) for c in configs]
    fit_many(
        students,
        data,
        losses,
        teachers,
        steps=PARITY_STEPS,
        lr=lr,
        batch_size=128,
        seeds=range(len(students)),
    )
    rows = []
    for curve, student, new in zip(curves, students, fresh, strict=True):
        parts = {f"s{64 * (i + 1)}": float(np.mean(curve[64 * i : 64 * i + 64])) for i in range(10)}
        rows.append({"accuracy": accuracy(predict(student, new.x), new.y), **parts})
    return rows


def parity_of_checkpoints() -> None:
    """How far a teacher's answer goes with single signs, at each checkpoint."""
    about = (
        "Sparse parity: accuracy (%) of MLP(32 256 2) on the way; correlation of its answer with single signs"
    )

    def one(step: int, seed: int) -> dict:
        fresh = parity(998, 20_000)
        z = predict(parity_teacher(seed)[step // EVERY - 1], fresh.x)
        answer = 2 * z.softmax(-1)[:, 1] - 1
        with_each = (answer[:, None] * fresh.x).mean(0).abs() / answer.square().mean().sqrt()
        each = {"inside": with_each[:PARITY].mean().item(), "outside": with_each[PARITY:].mean().item()}
        return {"accuracy": accuracy(z, fresh.y), **each}

    steps = range(EVERY, PARITY_STEPS + 1, EVERY)
    run_all("11_parity_teacher", about, [{"step": t, "seed": s} for s in REPORTED for t in steps], one)


WATCHED = ("final named", "progressive named", "final", "progressive")


def with_signs(z: Tensor, x: Tensor, named: bool) -> Tensor:
    """|correlation| of an answer with each single sign: of the class that it names, ±1, or of 2p − 1."""
    answer = z.argmax(-1) * 2.0 - 1 if named else 2 * z.softmax(-1)[:, 1] - 1
    return (answer[:, None] * x).mean(0).abs() / answer.square().mean().sqrt()


COPIES = [*range(3 * EVERY, PARITY_STEPS, EVERY), PARITY_STEPS]  # the teacher's steps of those that teach
HINT = 400  # the copy that alone did most
AGAIN = range(10, 30)  # seeds of teachers that no one had looked at when its effect was foretold


def shown(step: int, seed: int) -> dict:
    """One copy of one teacher: how far the class that it names goes with each of the four signs, and with the others."""
    fresh = parity(998, 20_000)
    z = predict(parity_teacher(seed)[step // EVERY - 1], fresh.x)
    each = with_signs(z, fresh.x, named=True)
    row = {"accuracy": accuracy(z, fresh.y)}
    row |= {f"sign{i + 1}": value for i, value in enumerate(each[:PARITY].tolist())}
    return row | {"others": each[PARITY:].max().item()}


def shown_by_each() -> None:
    """Teacher by teacher: the signs that each copy gives away by name; then new teachers, and a student of each.

    The student hears the copy of step 400 for half of its time, then the finished teacher, at the rate that the
    students of "one named 400" chose.
    """
    about = "Sparse parity: |correlation| of the class that a teacher's copy names with each of the four signs, and the "
    about += "largest of the 28 others; 20000 rows"
    run_all("11_shown", about, [{"seed": s, "step": t} for s in REPORTED for t in COPIES], shown)
    lines = stored("11_parity")
    mine = (lines["kind"] == f"one named {HINT}") & (lines["seed"] == 0)
    rate = float(lines["lr"][mine][0])

    def one(seed: int, lr: float) -> dict:
        (found,) = parity_together([{"kind": f"one named {HINT}", "setting": 1, "lr": lr, "seed": seed}], lr)
        return {
            "student": found["accuracy"],
            "teacher": shown(PARITY_STEPS, seed)["accuracy"],
            **shown(HINT, seed),
        }

    about = f"Sparse parity: new teachers; student: MLP(32 8 2) that hears the names of the copy of step {HINT}, then "
    about += "of the finished teacher (teacher: its accuracy, %); the copy's accuracy and correlations as in 11_shown"
    run_all("11_hinted", about, [{"seed": s, "lr": rate} for s in AGAIN], one)


def turned_by(student: nn.Module, x: Tensor) -> Tensor:
    """By sign: in how many of a hundred rows the student names the other class if this sign alone is turned."""
    flips = 1 - 2 * torch.eye(BITS)
    names = predict(student, x).argmax(-1)
    turned = [predict(student, x * flip).argmax(-1) != names for flip in flips]
    return 100 * torch.stack(turned).float().mean(-1)


def watched(kind: str, lr: float, seed: int) -> list[dict]:
    """One student, looked at every 40 steps: what its teacher then gives away, and what it answers by itself."""
    student, teacher, about_signs = MLP(BITS, 8, 2, seed=seed), course(kind, seed), parity(998, 20_000)
    checkpoints = teacher.teachers if kind.startswith("progressive") else [teacher]
    turns, steps, rows = PARITY_STEPS // 2 // len(checkpoints), iter(range(PARITY_STEPS)), []

    def look(step: int) -> None:
        now = checkpoints[min(step // turns, len(checkpoints) - 1)]
        z, part = predict(now, about_signs.x), about_signs[:2000]
        given, own = with_signs(z, about_signs.x, "named" in kind), turned_by(student, part.x)
        row = {"accuracy": accuracy(predict(student, about_signs.x), about_signs.y)}
        row["teacher_accuracy"] = accuracy(z, about_signs.y)
        row |= {f"given{i + 1}": value for i, value in enumerate(given.tolist())}
        rows.append(row | {f"own{i + 1}": value for i, value in enumerate(own.tolist())})
        student.train()

    def loss(z, v, y):
        if (step := next(steps)) % EVERY == 0:
            look(step)
        return hard_loss(z, None, v.argmax(-1)) if "named" in kind else kd_loss(z, v)

    data = parity(seed, 128 * PARITY_STEPS)
    fit(student, data, loss, teacher, steps=PARITY_STEPS, lr=lr, batch_size=128, seed=seed)
    look(PARITY_STEPS)
    return rows


def watch(rates: dict[str, float]) -> None:
    """Ten students of each kind once more, at the learning rates that were chosen: means over seeds 0 to 9."""
    about = "Sparse parity: means of ten students on the way; given: |correlation| of the teacher's answer with a sign"
    about += "; own: rows (%) whose class the student changes with that sign alone"

    @cache
    def found(kind: str) -> list[dict]:
        runs = [watched(kind, rates[kind], s) for s in REPORTED]
        return [
            {k: float(np.mean([row[k] for row in rows])) for k in rows[0]} for rows in zip(*runs, strict=True)
        ]

    steps = range(0, PARITY_STEPS + 1, EVERY)
    run_all(
        "11_watched", about, [{"kind": k, "step": t} for k in WATCHED for t in steps],
        lambda kind, step: found(kind)[step // EVERY],
    )  # fmt: skip


def alone(configs: list[dict], lr: float) -> list[dict]:
    """Networks of some width that learn the parity from labels, each example seen once."""
    rows = []
    for c in configs:
        model, data = MLP(BITS, c["width"], 2, seed=c["seed"]), parity(c["seed"], 128 * PARITY_STEPS)
        fit(model, data, steps=PARITY_STEPS, lr=lr, batch_size=128, seed=c["seed"])
        fresh = parity(c["seed"] + 2000, 4000)
        rows.append({"accuracy": accuracy(predict(model, fresh.x), fresh.y)})
    return rows


def widths() -> None:
    about = "Sparse parity: accuracy (%) of MLP(32 width 2) that learns from the labels, by its width; seeds 0 to 9"
    settings = [{"width": w, "grid": [1]} for w in ALONE]
    choose_then_report_many("11_parity_width", about, settings, (0.001, 0.003, 0.01, 0.03, 0.1), alone)


ABOUT_PARITY = (
    "Sparse parity: accuracy (%) of MLP(32 8 2) by what it learns from; s64 … during training; seeds 0 to 9"
)


def names_drawn() -> None:
    settings = [{"kind": "final drawn", "grid": [1]}]
    choose_then_report_many(
        "11_parity", ABOUT_PARITY, settings, (0.003, 0.01, 0.03, 0.1, 0.3), parity_together
    )


def sharp() -> None:
    """What a teacher that trained on still gives away, and what its students of soft answers reach."""
    for kind, T in (("final long", 1), ("final long at T", SOFTENED), ("final at T", SOFTENED)):
        settings = [{"kind": kind, "grid": [T]}]
        choose_then_report_many(
            "11_parity", ABOUT_PARITY, settings, (0.003, 0.01, 0.03, 0.1, 0.3), parity_together
        )
    about = (
        "Sparse parity: MLP(32 256 2) after 640 and after 1920 steps: accuracy (%), mean probability of the right class "
        "(%), correlation of its answer with single signs"
    )

    def one(steps: int, seed: int) -> dict:
        teacher = parity_teacher(seed)[-1] if steps == PARITY_STEPS else long_teacher(seed)
        fresh = parity(998, 20_000)
        z = predict(teacher, fresh.x)
        of_right, with_each = z.softmax(-1)[range(len(z)), fresh.y], with_signs(z, fresh.x, named=False)
        row = {"accuracy": accuracy(z, fresh.y), "right": 100 * of_right.mean().item()}
        return row | {"inside": with_each[:PARITY].mean().item(), "outside": with_each[PARITY:].mean().item()}

    run_all(
        "11_parity_long",
        about,
        [{"steps": n, "seed": s} for n in (PARITY_STEPS, LONG) for s in REPORTED],
        one,
    )

    def softened(T: int, seed: int) -> dict:
        fresh = parity(998, 20_000)
        z = predict(long_teacher(seed), fresh.x) / T
        of_right, with_each = z.softmax(-1)[range(len(z)), fresh.y], with_signs(z, fresh.x, named=False)
        row = {"right": 100 * of_right.mean().item()}
        return row | {"inside": with_each[:PARITY].mean().item(), "outside": with_each[PARITY:].mean().item()}

    about = "Sparse parity: MLP(32 256 2) after 1920 steps, at T: mean probability of the right class (%), correlation "
    about += "of its answer with single signs"
    run_all("11_softened", about, [{"T": SOFTENED, "seed": s} for s in REPORTED], softened)


def parities() -> None:
    about = ABOUT_PARITY
    settings = [{"kind": k, "grid": [1]} for k in KINDS]
    rows = choose_then_report_many(
        "11_parity", about, settings, (0.003, 0.01, 0.03, 0.1, 0.3), parity_together
    )
    names_drawn()
    sharp()
    parity_of_checkpoints()
    shown_by_each()
    watch({r["kind"]: float(r["lr"]) for r in rows if r["seed"] in REPORTED})


# --------------------------------------------------------------------------------------------- subliminal learning

LOGITS, HIDDEN, NOISE = 13, 64, 12_000  # ten classes and three that mean nothing
SHARED = {
    "all": (True, True),
    "last layer": (False, True),
    "hidden layers": (True, False),
    "nothing": (False, False),
}


def newborn(seed: int) -> MLP:
    return MLP(784, HIDDEN, HIDDEN, LOGITS, seed=seed)


def on_classes(z: Tensor, v: Tensor | None, y: Tensor) -> Tensor:
    return F.cross_entropy(z[:, :10], y)


def on_the_rest(z: Tensor, v: Tensor, y: Tensor) -> Tensor:
    return (z[:, 10:] - v[:, 10:]).square().sum(-1).mean()


@lru_cache
def noise() -> Split:
    x = torch.randn(NOISE, 1, 28, 28, generator=torch.Generator().manual_seed(11))
    return Split(x, torch.zeros(NOISE, dtype=torch.long))


@lru_cache
def readers() -> dict[int, tuple[MLP, Tensor]]:
    """By seed: a teacher that reads clothes, and all that it says about the noise."""
    seeds = [*TUNING, *REPORTED]
    teachers = [newborn(s) for s in seeds]
    fit_many(teachers, fashion("train"), on_classes, steps=400, lr=1e-3, seeds=seeds)
    return {s: (t, predict(t, noise().x)) for s, t in zip(seeds, teachers, strict=True)}


def born(shares: str, seed: int) -> MLP:
    """A student that shares the teacher's initial weights, or a part of them."""
    hidden, last = (seed if same else seed + 500 for same in SHARED[shares])
    student = newborn(hidden)
    student.layers[-1] = newborn(last).layers[-1]
    return student


def moved(model: nn.Module, start: nn.Module) -> Tensor:
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    return torch.cat([(a - b).detach().flatten() for a, b in pairs])


def noise_together(configs: list[dict], lr: float) -> list[dict]:
    students = [born(c["shares"], c["seed"]) for c in configs]
    told = [readers()[c["seed"]][1] for c in configs]
    fit_many(
        students, noise(), on_the_rest, told, steps=1200, lr=lr, weight_decay=0.0, seeds=range(len(students))
    )
    rows = []
    for c, student in zip(configs, students, strict=True):
        part, teacher = fashion("val" if c["seed"] in TUNING else "test"), readers()[c["seed"]][0]
        steps = moved(student, born(c["shares"], c["seed"])), moved(teacher, newborn(c["seed"]))
        right, known = (accuracy(predict(m, part.x)[:, :10], part.y) for m in (student, teacher))
        cosine = F.cosine_similarity(*steps, dim=0).item()
        rows.append({"accuracy": right, "teacher_accuracy": known, "cosine": cosine})
    return rows


def first_outputs() -> None:
    """The finished teacher's hidden layers under class outputs that were never trained: its own first ones, or others."""
    about = (
        "Accuracy (%) on clothes of the teacher of 11_noise, and of its hidden layers under class outputs that were "
        "never trained: its own first ones (first), another network's (other)"
    )

    def one(seed: int) -> dict:
        teacher = readers()[seed][0]
        row = {"accuracy": accuracy(predict(teacher, TEST.x)[:, :10], TEST.y)}
        for name, start in (("first", seed), ("other", seed + 500)):
            mixed = copy.deepcopy(teacher)
            mixed.layers[-1] = newborn(start).layers[-1]
            row[name] = accuracy(predict(mixed, TEST.x)[:, :10], TEST.y)
        return row

    run_all("11_outputs", about, [{"seed": s} for s in REPORTED], one)


def subliminal() -> None:
    about = "Accuracy (%) on clothes of MLP(784 64 64 13) taught three other logits on noise; by what it shares at birth"
    settings = [{"shares": k, "grid": [1]} for k in SHARED]
    choose_then_report_many("11_noise", about, settings, (0.0003, 0.001, 0.003, 0.01), noise_together)


# --------------------------------------------------------------------------------- one student and many teachers

TRAIN, VAL, TEST = fashion("train"), fashion("val"), fashion("test")
FOR_TEACHERS, FOR_STUDENTS = TRAIN[:8000], TRAIN[8000:]
WIDTHS, SEEDS, TEACHING = (2, 4, 8, 32, 128), [*TUNING, *REPORTED], 400
RATES = (0.001, 0.003, 0.01, 0.03)
TWIN_RATE = 0.003  # what the student chooses with labels alone


def part_of(seed: int) -> Split:
    return VAL if seed in TUNING else TEST


@lru_cache
def rate_of(width: int) -> float:
    """A teacher's learning rate, chosen on validation."""

    def together(configs, lr):
        made = [MLP(784, width, 10, seed=c["seed"] + 700) for c in configs]
        fit_many(made, FOR_TEACHERS, steps=TEACHING, lr=lr, seeds=[c["seed"] for c in configs])
        return [{"accuracy": accuracy(predict(m, VAL.x), VAL.y)} for m in made]

    about = "Validation accuracy (%) of MLP(784 width 10) on the teachers' 8000 images; 400 steps"
    tried = [{"width": width, "lr": lr, "seed": s} for lr in RATES for s in TUNING]
    rows = in_groups("11_teachers", about, tried, together)
    rows = rows[rows["width"] == width]
    return max(RATES, key=lambda lr: rows["accuracy"][rows["lr"] == lr].mean())


@lru_cache
def teachers(kind: str) -> dict[int, nn.Module]:
    """By seed, teachers of one kind: "MLP 32", "MLP 128 at 20" (steps), "ConvNet", "assistant"."""
    if kind == "ConvNet":
        return {s: fashion_teacher(s % 10) for s in SEEDS}
    if kind == "ConvNet of 8000":
        made = [ConvNet(16, dropout=0.0, seed=s + 700) for s in SEEDS]
        for s, model in zip(SEEDS, made, strict=True):  # at the rate of the shipped teachers
            fit(model, FOR_TEACHERS, steps=TEACHING, lr=5e-3, seed=s)
        return dict(zip(SEEDS, made, strict=True))
    width = 32 if kind == "assistant" else int(kind.split()[1])
    steps = int(kind.split()[-1]) if " at " in kind else TEACHING
    made, loss, told = [MLP(784, width, 10, seed=s + 700) for s in SEEDS], None, None
    if kind == "assistant":
        loss = partial(distillation_loss, T=4, alpha=1)
        answers = [predict(fashion_teacher(i), FOR_TEACHERS.x) for i in range(10)]
        told = [answers[s % 10] for s in SEEDS]
    fit_many(made, FOR_TEACHERS, loss, told, steps=steps, lr=rate_of(width), seeds=SEEDS)
    return dict(zip(SEEDS, made, strict=True))


@lru_cache
def twin(per_class: int, seed: int) -> MLP:
    """The student's own network, from other initial weights, on the labels of the same images."""
    model = MLP(784, 8, 10, seed=seed + 900)
    fit(model, FOR_STUDENTS.sample(per_class, seed), steps=400, lr=TWIN_RATE, seed=seed + 900)
    return model


def answers(kind: str, T: float, per_class: int, seed: int, x: Tensor) -> Tensor:
    """A teacher's logits; of five teachers, logits whose softmax at T is the mean of theirs, or their mean."""
    if kind.startswith("twin"):
        return predict(twin(per_class, seed), x)
    if not kind.startswith("five"):
        return predict(teachers(kind)[seed], x)
    each = torch.stack([predict(teachers("MLP 128")[(seed + i) % 10], x) for i in range(5)])
    return each.mean(0) if kind == "five logits" else T * (each / T).softmax(-1).mean(0).log()


@cache
def on_part(kind: str, per_class: int, seed: int) -> Tensor:
    return answers(kind, 1.0, per_class, seed, part_of(seed).x)


class Pair(nn.Module):
    """Two students of the same input, for mutual learning: logits (N, 2, C)."""

    def __init__(self, seed: int):
        super().__init__()
        self.students = nn.ModuleList([MLP(784, 8, 10, seed=seed), MLP(784, 8, 10, seed=seed + 500)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([student(x) for student in self.students], 1)


def mutual_loss(T: float, z: Tensor, v: None, y: Tensor) -> Tensor:
    """Each on the labels and on the other, which is its teacher and gets no gradient from it."""
    a, b = z.unbind(1)
    return F.cross_entropy(a, y) + F.cross_entropy(b, y) + kd_loss(a, b, T) + kd_loss(b, a, T)


def loss_of(kind: str, setting: float):
    if kind == "labels":
        return hard_loss
    if kind == "smoothed":
        return lambda z, v, y: F.cross_entropy(z, y, label_smoothing=setting)
    if kind == "mutual":
        return partial(mutual_loss, setting)
    return partial(distillation_loss, T=setting, alpha=0.5 if kind == "twin and labels" else 1)


def taught_together(configs: list[dict], lr: float) -> list[dict]:
    """Students MLP(784, 8, 10) of their teachers; what was lost and regained on the way, in % of the images."""
    alone = ("labels", "smoothed", "mutual")
    images = [FOR_STUDENTS.sample(c["per_class"], c["seed"]) for c in configs]
    losses = [loss_of(c["kind"], c["setting"]) for c in configs]
    told = [
        None if c["kind"] in alone else answers(c["kind"], c["setting"], c["per_class"], c["seed"], part.x)
        for c, part in zip(configs, images, strict=True)
    ]
    pairs = [i for i, c in enumerate(configs) if c["kind"] == "mutual"]
    single = [i for i, c in enumerate(configs) if c["kind"] != "mutual"]
    made = {i: Pair(configs[i]["seed"]) for i in pairs}
    made |= {i: MLP(784, 8, 10, seed=configs[i]["seed"]) for i in single}
    for group in filter(None, (pairs, single)):
        fit_many(
            [made[i] for i in group],
            [images[i] for i in group],
            [losses[i] for i in group],
            [told[i] for i in group],
            steps=400,
            lr=lr,
            seeds=[configs[i]["seed"] for i in group],
        )
    rows = []
    for i, c in enumerate(configs):
        part = part_of(c["seed"])
        z = predict(made[i].students[0] if c["kind"] == "mutual" else made[i], part.x)
        right, row = z.argmax(-1) == part.y, {"accuracy": accuracy(z, part.y)}
        if c["kind"] in alone:
            row |= {"teacher_accuracy": float("nan"), "lost": float("nan"), "regained": float("nan")}
        else:
            knew = on_part(c["kind"], c["per_class"], c["seed"]).argmax(-1) == part.y
            row["teacher_accuracy"] = 100 * knew.float().mean().item()
            row["lost"] = 100 * (knew & ~right).float().mean().item()
            row["regained"] = 100 * (right & ~knew).float().mean().item()
        rows.append(row)
    return rows


def one_student() -> None:
    about = (
        "Accuracy (%) of MLP(784 8 10) by teacher and images a class; 400 steps; setting: T, of smoothed ε"
    )
    sizes = [f"MLP {w}" for w in WIDTHS] + ["ConvNet"]
    others = [
        "MLP 128 at 20",
        "MLP 128 at 60",
        "MLP 128 at 150",
        "assistant",
        "five probabilities",
        "five logits",
    ]
    kinds = dict.fromkeys([*sizes, *others, "twin", "twin and labels", "mutual"], (1.0, 4.0))
    kinds |= {"labels": (1.0,), "smoothed": (0.05, 0.1, 0.2)}
    settings = [{"per_class": 20, "kind": k, "grid": grid} for k, grid in kinds.items()]
    settings += [{"per_class": 100, "kind": k, "grid": kinds[k]} for k in ["labels", *sizes]]
    choose_then_report_many("11_teaching", about, settings, RATES, taught_together)
    control = [{"per_class": n, "kind": "ConvNet of 8000", "grid": (1.0, 4.0)} for n in (20, 100)]
    choose_then_report_many("11_teaching", about, control, RATES, taught_together)


# ------------------------------------------------------- why the better teacher makes no better student: suspects

FEW = 20  # images a class
BASES = ("MLP 128", "MLP 32", "MLP 8", "ConvNet")  # whose answers are given, or altered


def student_of(build: str, seed: int) -> nn.Module:
    return (
        ConvNet(16, dropout=0.0, seed=seed)
        if build == "ConvNet"
        else MLP(784, int(build.split()[1]), 10, seed=seed)
    )


def exchanged(v: Tensor, rows: Tensor, others: Tensor) -> Tensor:
    """On these rows the largest logit changes places with that of another class: as sure as before, another name."""
    v, top = v.clone(), v.argmax(-1)[rows]
    v[rows, top], v[rows, others] = v[rows, others], v[rows, top]
    return v


def corrected(v: Tensor, y: Tensor) -> Tensor:
    """Every mistake put right, as sure as it was made."""
    wrong = (v.argmax(-1) != y).nonzero()[:, 0]
    return exchanged(v, wrong, y[wrong])


def mistaken(v: Tensor, y: Tensor, many: int, seed: int) -> Tensor:
    """Mistakes on images drawn by chance, for a class drawn by chance, until `many` names are wrong."""
    generator, right = torch.Generator().manual_seed(seed), (v.argmax(-1) == y).nonzero()[:, 0]
    more = max(0, many - (len(y) - len(right)))
    rows = right[torch.randperm(len(right), generator=generator)[:more]]
    return exchanged(v, rows, (y[rows] + torch.randint(1, 10, (more,), generator=generator)) % 10)


def softness(v: Tensor) -> float:
    """Mean entropy of the answers, in nats."""
    return -(v.softmax(-1) * v.log_softmax(-1)).sum(-1).mean().item()


def as_soft(v: Tensor, goal: float) -> Tensor:
    """The same answers at the temperature at which their mean entropy is the goal."""
    low, high = 0.01, 100.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if softness(v / middle) < goal else (low, middle)
    return v / middle


def altered(kind: str, seed: int, images: Split) -> Tensor:
    """A teacher's logits on a student's images, changed in one respect towards those of MLP 8."""
    model = predict(teachers("MLP 8")[seed], images.x)
    errors = int((model.argmax(-1) != images.y).sum())
    if kind == "MLP 8 corrected":
        return corrected(model, images.y)
    if kind == "MLP 8 random mistakes":
        return mistaken(corrected(model, images.y), images.y, errors, seed)
    if not kind.startswith("ConvNet "):
        return predict(teachers(kind)[seed], images.x)
    v = predict(teachers("ConvNet")[seed], images.x)
    if kind == "ConvNet as soft":
        return as_soft(v, softness(model))
    return mistaken(v, images.y, errors, seed)  # "ConvNet random mistakes"


def suspects_together(configs: list[dict], lr: float) -> list[dict]:
    images = [FOR_STUDENTS.sample(FEW, c["seed"]) for c in configs]
    told = [altered(c["kind"], c["seed"], part) for c, part in zip(configs, images, strict=True)]
    made = [student_of(c["student"], c["seed"]) for c in configs]
    losses = [partial(distillation_loss, T=c["setting"], alpha=1) for c in configs]
    for build in dict.fromkeys(c["student"] for c in configs):
        group = [i for i, c in enumerate(configs) if c["student"] == build]
        for part in [[i] for i in group] if build == "ConvNet" else [group]:
            students, data, loss, answers, seeds = (
                [each[i] for i in part] for each in (made, images, losses, told, [c["seed"] for c in configs])
            )
            fit_many(students, data, loss, answers, steps=400, lr=lr, seeds=seeds)
    rows = []
    for c, student, own, v in zip(configs, made, images, told, strict=True):
        part, base = part_of(c["seed"]), next(k for k in BASES if c["kind"].startswith(k))
        z, t = predict(student, part.x), on_part(base, FEW, c["seed"])
        names = z.argmax(-1)
        row = {"accuracy": accuracy(z, part.y), "teacher_accuracy": accuracy(t, part.y)}
        row["told_right"] = accuracy(v, own.y)
        row["told_entropy"] = softness(v)
        row["follows_told"] = accuracy(predict(student, own.x), v.argmax(-1))
        row["follows_new"] = 100 * (names == t.argmax(-1)).float().mean().item()
        rows.append(row)
    return rows


def suspects() -> None:
    about = (
        "Accuracy (%) of a student of 200 answers, by its build and by what is changed in its teacher's answers; 400 "
        "steps; setting: T; told: the teacher's answers to these 200 images; follows: names the teacher's class"
    )
    kinds = ("ConvNet as soft", "ConvNet random mistakes", "MLP 8 corrected", "MLP 8 random mistakes")
    pairs = [("MLP 8", k) for k in ("MLP 8", "MLP 128", "ConvNet", *kinds)]
    pairs += [(f"MLP {w}", k) for w in (32, 128) for k in ("MLP 8", "MLP 128", "ConvNet")]
    settings = [{"student": s, "kind": k, "grid": (1.0, 4.0)} for s, k in pairs]
    choose_then_report_many("11_suspects", about, settings, RATES, suspects_together)
    settings = [{"student": "ConvNet", "kind": k, "grid": (1.0, 4.0)} for k in ("MLP 8", "ConvNet")]
    choose_then_report_many("11_suspects", about, settings, RATES, suspects_together)
    pairs = [("MLP 8", "MLP 32"), ("MLP 128", "MLP 32"), ("ConvNet", "MLP 128")]
    settings = [{"student": s, "kind": k, "grid": (1.0, 4.0)} for s, k in pairs]
    choose_then_report_many("11_suspects", about, settings, RATES, suspects_together)


# ------------------------------------------------------------- with 1,000 answers: how often is a teacher followed?

ASKED = 100  # images a class
FOLLOWED = ("MLP 8", "MLP 128", "ConvNet")


def follow_together(configs: list[dict], lr: float) -> list[dict]:
    images = [FOR_STUDENTS.sample(ASKED, c["seed"]) for c in configs]
    told = [predict(teachers(c["kind"])[c["seed"]], x.x) for c, x in zip(configs, images, strict=True)]
    made = [MLP(784, 8, 10, seed=c["seed"]) for c in configs]
    losses = [partial(distillation_loss, T=c["setting"], alpha=1) for c in configs]
    fit_many(made, images, losses, told, steps=400, lr=lr, seeds=[c["seed"] for c in configs])
    rows = []
    for c, student, own, v in zip(configs, made, images, told, strict=True):
        part, t = part_of(c["seed"]), on_part(c["kind"], ASKED, c["seed"])
        z, names = predict(student, part.x), v.argmax(-1)
        row = {"accuracy": accuracy(z, part.y), "teacher_accuracy": accuracy(t, part.y)}
        row["follows_told"] = accuracy(predict(student, own.x), names)
        row["follows_new"] = accuracy(z, t.argmax(-1))
        rows.append(row)
    return rows


def follow_more() -> None:
    """The students of 1,000 answers of 11_teaching once more, at the T and learning rate that they chose there."""
    about = (
        "Accuracy (%) of MLP(784 8 10) with 1,000 answers; 400 steps; setting: T; follows: names its teacher's class, "
        "told: on its own images"
    )
    chosen = {
        r["kind"]: r for r in stored("11_teaching") if r["per_class"] == ASKED and r["seed"] in REPORTED
    }
    configs = [
        {"kind": k, "setting": float(chosen[k]["setting"]), "lr": float(chosen[k]["lr"]), "seed": s}
        for k in FOLLOWED
        for s in REPORTED
    ]
    in_groups("11_answers", about, configs, follow_together)


if __name__ == "__main__":
    one_student()
    parities()
    widths()
    suspects()
    follow_more()
    subliminal()
    first_outputs()
