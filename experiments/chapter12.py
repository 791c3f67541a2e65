"""The long runs of chapter 12: which questions teach, and what they give away.

    python -m experiments.chapter12     # resumes where it stopped; about ten minutes on one core

A student MLP(784, 32, 10) learns from a teacher's answers to a set of images, T = 4, and from no label. The learning
rate (of rolled views their width too) is chosen on validation with seeds 100 to 102; the reported seeds, 0 to 9, meet
the test images once. Seed s has its own initial weights, its own images and its own teacher.
"""

from copy import deepcopy
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata

from companion.data import MEAN, STD, Split, digits, fashion, fashion_teacher
from companion.losses import kd_loss
from companion.metrics import accuracy, agreement
from companion.models import MLP
from companion.training import fit, fit_many, hard_loss, jitter, predict, teacher_logits
from experiments import common
from experiments.common import REPORTED, TUNING, choose_then_report, group, run_all, stored

torch.set_num_threads(1)
TRAIN, VAL, TEST = fashion("train"), fashion("val"), fashion("test")
TEACHERS = [fashion_teacher(i) for i in range(10)]
RATES = (0.001, 0.003, 0.01)
FEW = 100  # real images behind the views
FEWER = {"10 rolled": 10, "30 rolled": 30}  # and behind these
GAPS = {
    "half and 10": 2,
    "half and 50": 10,
    "half and 10 rolled": 2,
    "10 missing": 2,
}  # of each class that half of the classes lacks
SHIFTS = (1, 2, 4)  # pixels by which views are rolled, at most
INVENTED, INVENTED_SHIFT = 200, 4  # images, and the pixels by which validation chose to roll them
OF_TEACHERS, OF_STUDENTS = TRAIN[:8000], TRAIN[8000:]


def soft(logits_s, logits_t, y):
    return kd_loss(logits_s, logits_t, T=4)


def examined(seed: int) -> tuple[str, Split]:
    """Validation while choosing, test once chosen: the other is not looked at."""
    return ("val", VAL) if seed in TUNING else ("test", TEST)


# ------------------------------------------------------------------------------------------------ the questions


def photograph() -> torch.Tensor:
    """One photograph, china.jpg, from scikit-learn: grey, 0 … 1, half its size (1, 1, 213, 320)."""
    from sklearn.datasets import load_sample_image

    grey = torch.from_numpy(load_sample_image("china.jpg").copy()).float().mean(-1) / 255
    return F.avg_pool2d(grey[None, None], 2)


def patches(n: int, generator) -> torch.Tensor:
    """Squares of the photograph, anywhere in it, of 28 to 200 pixels a side, made 28 × 28: (n, 1, 28, 28)."""
    photo = photograph()
    height, width = photo.shape[2:]
    side = 28 * (200 / 28) ** torch.rand(n, generator=generator)
    half = torch.stack([side / width, side / height], 1)  # of the photograph's half extent, 1
    centre = (1 - half) * (2 * torch.rand(n, 2, generator=generator) - 1)
    theta = torch.cat([torch.diag_embed(half), centre[:, :, None]], 2)
    grid = F.affine_grid(theta, (n, 1, 28, 28), align_corners=False)
    return F.grid_sample(photo.expand(n, -1, -1, -1), grid, align_corners=False)


def invented(teacher, n: int, steps: int, weight: float, seed: int) -> torch.Tensor:
    """n images made from noise by a teacher's gradients: its class loss, `weight` times eq-inversion, smoothness."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(n, 1, 28, 28, generator=generator).requires_grad_()
    optimiser, y = torch.optim.Adam([u], lr=0.2), torch.arange(n) % 10
    for _ in range(steps):
        x = u.sigmoid()  # grey values, 0 … 1
        logits, distance = statistics_distance(teacher, (x - MEAN) / STD)
        rough = x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean()
        optimiser.zero_grad()
        (F.cross_entropy(logits, y) + weight * distance + 300 * rough).backward()
        optimiser.step()
    return ((u.sigmoid() - MEAN) / STD).detach()


def statistics_distance(teacher, x):
    """The teacher's logits for x, and how far x is from what its batch norms remember (eq-inversion)."""
    distance = 0.0
    for conv, norm, relu in teacher.stages:
        a = conv(x)
        distance = distance + (a.mean((0, 2, 3)) - norm.running_mean).norm()
        distance = distance + (a.var((0, 2, 3), correction=0) - norm.running_var).norm()
        x = relu(norm(a))
    return teacher.head(x.flatten(1)), distance


@lru_cache(maxsize=40)
def inventions(kind: str, n: int, seed: int) -> torch.Tensor:
    return invented(TEACHERS[seed % 10], n, 80, {"dreamed": 0.0, "invented": 3.0}[kind], seed)


def rolled(x, shift: int, generator):
    return jitter(shift)(x, generator) if shift else x


def questions(kind: str, n: int, shift: int, seed: int, pool: Split = TRAIN) -> torch.Tensor:
    """n images to ask the teacher about; `shift` is how far views are rolled."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pool), generator=generator)
    few = pool.x[order[:FEW]]
    if kind in ("real", "half"):
        known = order if kind == "real" else order[pool.y[order] < 5]
        return pool.x[known[:n]]
    if kind in ("rolled", "rolled not anew", "mixed", "rolled and mixed"):
        x = rolled(few.repeat(n // FEW, 1, 1, 1), shift, generator)
        if "mixed" not in kind:
            return x
        share = torch.rand(n, 1, 1, 1, generator=generator)
        return share * x + (1 - share) * x[torch.randperm(n, generator=generator)]
    if kind in FEWER:
        return rolled(few[: FEWER[kind]].repeat(n // FEWER[kind], 1, 1, 1), shift, generator)
    if kind in GAPS:
        return filled(kind, n, shift, order, generator, pool)
    if kind == "10 rolled and invented":
        tens = rolled(few[:10].repeat(n // 20, 1, 1, 1), shift, generator)
        others = inventions("invented", INVENTED, seed).repeat(n // 2 // INVENTED, 1, 1, 1)
        return torch.cat([tens, rolled(others, INVENTED_SHIFT, generator)])
    if kind in ("dreamed", "invented"):
        return inventions(kind, n, seed)
    if kind in ("invented rolled", "dreamed rolled"):
        few = inventions(kind.removesuffix(" rolled"), INVENTED, seed)
        return rolled(few.repeat(n // INVENTED, 1, 1, 1), shift, generator)
    if kind == "shuffled":
        places = torch.rand(n, 784, generator=generator).argsort(0)
        return pool.x[order[:n]].flatten(1).gather(0, places).view(-1, 1, 28, 28)
    return (foreign(kind, n, seed, generator) - MEAN) / STD


def filled(kind: str, n: int, shift: int, order, generator, pool: Split) -> torch.Tensor:
    """1,000 images of classes 0 to 4 and a few of each other class; or ten of those alone.

    "half and 10 rolled" holds a hundred of each of the ten, rolled by up to `shift` pixels, so n = 2,000.
    """
    of_class = [order[pool.y[order] == c] for c in range(5, 10)]
    more = pool.x[torch.cat([known[: GAPS[kind]] for known in of_class])]
    if kind == "10 missing":
        return more
    half = pool.x[order[pool.y[order] < 5][:1000]]
    if kind == "half and 10 rolled":
        more = rolled(more.repeat((n - 1000) // len(more), 1, 1, 1), shift, generator)
    return torch.cat([half, more])


def foreign(kind: str, n: int, seed: int, generator) -> torch.Tensor:
    """Images without any clothes, grey values 0 … 1."""
    if kind == "digits":
        x = digits(seed)[0].x[:n].view(-1, 1, 8, 8)
        return F.interpolate(x, size=(28, 28), mode="bilinear")
    if kind == "photograph":
        return patches(n, generator)
    if kind == "noise":
        return torch.rand(n, 1, 28, 28, generator=generator)
    raise ValueError(f"no questions are called {kind!r}.")


# ----------------------------------------------------------------------------------------- students of one set


@lru_cache(maxsize=40)
def teacher_of(kind: str, seed: int):
    """The shipped teacher; or that one after 150 more steps on 8,000 images, as they are or rolled."""
    teacher = TEACHERS[seed % 10]
    if kind == "shipped":
        return teacher
    teacher = deepcopy(teacher).requires_grad_(True)
    transform = jitter(2) if kind == "of rolled images" else None
    fit(teacher, OF_TEACHERS, steps=150, lr=2e-3, seed=seed, transform=transform)
    return teacher.requires_grad_(False)


def view_information(teacher, x, seed: int, views: int = 20) -> float:
    """Entropy of the mean answer to an image's views less their mean entropy, in nats, averaged over images."""
    generator = torch.Generator().manual_seed(seed)
    p = teacher_logits(teacher, rolled(x.repeat(views, 1, 1, 1), 2, generator)).double().softmax(-1)
    p = p.view(views, len(x), -1)
    return (torch.special.entr(p.mean(0)).sum(-1) - torch.special.entr(p).sum(-1).mean(0)).mean().item()


@lru_cache(maxsize=1)
def students_of(kind, n, steps, shift, lr, seeds: tuple, teacher: str) -> tuple:
    """All seeds of a setting, trained at once: (seed → student), their questions and the answers."""
    sets, answers = [], []
    for seed in seeds:
        pool = TRAIN if teacher == "shipped" else OF_STUDENTS
        x, master = questions(kind, n, shift, seed, pool), teacher_of(teacher, seed)
        v = teacher_logits(master, x)
        if kind == "rolled not anew":  # each view has the answer to the image as it was
            v = teacher_logits(master, questions("real", FEW, 0, seed, pool)).repeat(n // FEW, 1)
        sets.append(Split(x, v.argmax(-1)))
        answers.append(v)
    students = [MLP(784, 32, 10, seed=seed) for seed in seeds]
    fit_many(students, sets, soft, answers, steps=steps, lr=lr, seeds=seeds)
    return dict(zip(seeds, students, strict=True)), sets, answers


@lru_cache(maxsize=1)
def class_of_students(kind, n, steps, shift, lr, seeds: tuple, teacher: str) -> dict:
    """All seeds of a setting: seed → its columns."""
    students, sets, answers = students_of(kind, n, steps, shift, lr, seeds, teacher)
    rows = {}
    for (seed, student), asked, v in zip(students.items(), sets, answers, strict=True):
        name, part = examined(seed)
        z, theirs = predict(student, part.x), teacher_logits(teacher_of(teacher, seed), part.x)
        rows[seed] = {
            "part": name,
            "accuracy": accuracy(z, part.y),
            "agrees": agreement(z, theirs),
            "agrees_asked": agreement(predict(student, asked.x[:1000]), v[:1000]),
            "teacher": accuracy(theirs, part.y),
        }
    return rows


widened = partial(common.widened, ladder=(0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.33))


def question_one(kind: str, n: int, steps: int, shift: int, lr: float, seed: int) -> dict:
    return class_of_students(kind, n, steps, shift, lr, group(seed), "shipped")[seed]


def ask(kind: str, n: int, shifts: tuple = (0,), steps: int = 500, rates: tuple = RATES) -> dict:
    about = "Accuracy of MLP(784 32 10) and agreement with its teacher (%) by what the teacher was asked; seeds 0 to 9"
    fixed = {"kind": kind, "n": n, "steps": steps}
    for shift in shifts:
        rates = widened("12_questions", about, question_one, rates, **fixed, shift=shift)
    grid = {"shift": shifts, "lr": rates}
    return choose_then_report("12_questions", about, question_one, "accuracy", grid, **fixed)


def ask_first() -> None:
    for n in (100, 10_000, 1000, 300, 3000):
        ask("real", n)
    for kind in ("noise", "photograph"):
        ask(kind, 1000)
    ask("rolled", 10_000, (*SHIFTS, 8))
    ask("rolled", 1000, SHIFTS)
    ask("photograph", 10_000)
    ask("invented", INVENTED)
    ask("invented rolled", 10_000, (*SHIFTS, 8))


def ask_rest() -> None:
    ask("rolled not anew", 10_000, SHIFTS)
    ask("mixed", 10_000)
    ask("rolled and mixed", 10_000, SHIFTS)
    ask("noise", 10_000)
    for n in (1, 3, 10, 30):
        ask("real", n)
    for kind in ("half", "digits", "shuffled"):
        ask(kind, 1000)
    ask("noise", INVENTED)
    ask("dreamed", INVENTED)
    as_invented = (0.001, 0.003, 0.01, 0.03, 0.1, 0.33)  # the rates that were tried for "invented rolled"
    ask("dreamed rolled", 10_000, (*SHIFTS, 8), rates=as_invented)
    for steps in (125, 2000):
        ask("rolled", 10_000, (2,), steps)


def ask_fewer() -> None:
    for kind, images in FEWER.items():
        ask(kind, 100 * images, (*SHIFTS, 8, 14))


def far() -> None:
    """Every distance that validation compared, on test images: ten runs each, at the rate that it chose there."""
    about = (
        "As 12_questions, at every distance; each with the learning rate that is best for it on validation"
    )
    rows = stored("12_questions")
    rows = rows[(rows["part"] == "val") & (rows["steps"] == 500)]
    for kind, n in (
        ("rolled", 10_000),
        ("rolled not anew", 10_000),
        ("30 rolled", 3000),
        ("10 rolled", 1000),
    ):
        here = rows[(rows["kind"] == kind) & (rows["n"] == n)]
        for shift in sorted({int(k) for k in here["shift"]}):
            of = here[here["shift"] == shift]
            lr = max(sorted({float(r) for r in of["lr"]}), key=lambda r: of["accuracy"][of["lr"] == r].mean())
            fixed = {"kind": kind, "n": n, "steps": 500, "shift": shift, "lr": lr}
            run_all("12_far", about, [{**fixed, "seed": s} for s in REPORTED], question_one)


# ------------------------------------------------------------------- was it learned, or only learned by heart?


def new_questions(kind: str, seed: int) -> torch.Tensor:
    """1,000 more questions of one kind, none of them asked before (of digits, the 797 that are left)."""
    if kind == "digits":
        x = torch.cat([part.x for part in digits(seed)[1:]]).view(-1, 1, 8, 8)
        return (F.interpolate(x, size=(28, 28), mode="bilinear") - MEAN) / STD
    return questions(kind, 1000, 0, seed + 200, pool=TEST)


def commonest(logits) -> float:
    """How often the commonest answer is given, in %: so often agrees whoever always gives that one."""
    answers = logits.argmax(-1)
    return 100 * answers.bincount().max().item() / len(answers)


def fresh_one(kind: str, lr: float, seed: int) -> dict:
    master, new = TEACHERS[seed % 10], new_questions(kind, seed)
    student = students_of(kind, 1000, 500, 0, lr, group(seed), "shipped")[0][seed]
    v, clothes = teacher_logits(master, new), teacher_logits(master, TEST.x)
    row = class_of_students(kind, 1000, 500, 0, lr, group(seed), "shipped")[seed]
    return {
        "part": "test",
        "agrees_asked": row["agrees_asked"],
        "agrees_new": agreement(predict(student, new), v),
        "commonest_new": commonest(v),
        "agrees": row["agrees"],
        "commonest": commonest(clothes),
    }


def fresh() -> None:
    about = "Agreement (%) of 12_questions n = 1000 on new questions of its kind; commonest: one answer to all of them"
    rows = stored("12_questions")
    rows = rows[(rows["n"] == 1000) & (rows["part"] == "test")]
    for kind in ("noise", "photograph", "digits", "shuffled", "half", "real"):
        lr = float(rows["lr"][rows["kind"] == kind][0])
        run_all("12_fresh", about, [{"kind": kind, "lr": lr, "seed": s} for s in REPORTED], fresh_one)


# -------------------------------------------------------------------------------- how far from clothes do they lie?


def distance(asked, clothes) -> torch.Tensor:
    """Root mean square difference in grey values from each image of clothes to its nearest question: (clothes,).

    Its mean over 1,000 test images was fixed before it was computed for any set. So was another measure, the share of
    the teacher's ReLUs that stand alike; the chapter shows the plainer one.
    """
    near = torch.cdist(clothes.flatten(1), asked.flatten(1)).amin(1)
    return STD / 28 * near.double()


def distance_one(kind: str, n: int, seed: int) -> dict:
    clothes = TEST[:1000]
    shift = 0
    if kind == "half and 10 rolled":  # by as much as validation chose
        rows = stored("12_combined")
        shift = int(rows["shift"][(rows["kind"] == kind) & (rows["part"] == "test")].max())  # and not by 0
    off, shown = distance(questions(kind, n, shift, seed), clothes.x), clothes.y < 5
    return {
        "part": "test",
        "distance": off.mean().item(),
        "to_shown": off[shown].mean().item(),  # the classes of "half"
        "to_missing": off[~shown].mean().item(),
    }


SOURCES = ("real", "half", "digits", "shuffled", "photograph", "noise")


def distances() -> None:
    about = "Grey values (0 to 1) from a test image of clothes to its nearest question of 12_questions; mean of 1000"
    sizes = [("real", n) for n in (1, 3, 10, 30, 100, 300, 3000, 10_000)]
    filled_up = [("half and 10", 1010), ("half and 10 rolled", 2000)]
    for kind, n in sizes + [(kind, 1000) for kind in SOURCES] + filled_up:
        grid = [{"kind": kind, "n": n, "seed": s} for s in REPORTED]
        run_all("12_distances", about, grid, distance_one)


# --------------------------------------------------------------------- how far does one pixel move the answers?


def moved_one(pixels: int, seed: int) -> dict:
    """The teacher on 1,000 test images, as they are and rolled to the right: what becomes of its answers."""
    x, teacher = TEST.x[:1000], TEACHERS[seed % 10]
    still, now = teacher_logits(teacher, x), teacher_logits(teacher, x.roll(pixels, -1))
    p, q = ((v.double() / 4).softmax(-1) for v in (still, now))
    return {
        "part": "test",
        "moved": 50 * (p - q).abs().sum(-1).mean().item(),  # probability that changed class, T = 4 (%)
        "renamed": 100 - agreement(now, still),
        "right": accuracy(now, TEST.y[:1000]),
    }


def moved() -> None:
    about = (
        "Answers to 1000 test images rolled to the right: probability moved at T = 4, other names, right (%)"
    )
    for pixels in (1, 2, 4):
        run_all("12_moved", about, [{"pixels": pixels, "seed": s} for s in REPORTED], moved_one)


# ----------------------------------------------------------------------------- a gap filled; two poor sets together


def combined_one(kind: str, n: int, shift: int, lr: float, seed: int) -> dict:
    """A student of 500 steps, right (%) on all classes, on those of "half" and on the others."""
    name, part = examined(seed)
    student = students_of(kind, n, 500, shift, lr, group(seed), "shipped")[0][seed]
    hit, shown = 100.0 * (predict(student, part.x).argmax(-1) == part.y).double(), part.y < 5
    return {
        "part": name,
        "accuracy": hit.mean().item(),
        "right_shown": hit[shown].mean().item(),
        "right_missing": hit[~shown].mean().item(),
    }


def combine(kind: str, n: int, shifts: tuple = (0,)) -> None:
    about = (
        "As 12_questions; right (%) on all test images, those of classes 0 to 4 (shown) and 5 to 9 (missing)"
    )
    rates, fixed = RATES, {"kind": kind, "n": n}
    for shift in shifts:
        rates = widened("12_combined", about, combined_one, rates, **fixed, shift=shift)
    grid = {"shift": shifts, "lr": rates}
    choose_then_report("12_combined", about, combined_one, "accuracy", grid, **fixed)


def combinations() -> None:
    """Each with its own learning rate; what is rolled at one distance alone is reported at that one."""
    for kind, n in (("real", 1000), ("half", 1000), ("half and 10", 1010), ("half and 50", 1050)):
        combine(kind, n)
    combine("10 missing", 10)
    combine("half and 10 rolled", 2000)  # not rolled: each of the ten a hundred times
    combine("half and 10 rolled", 2000, (1, 2, 4, 8))
    for shift in (2, 8):
        combine("10 rolled and invented", 2000, (shift,))


# ---------------------------------------------------------------------------------- classes that were never shown


@lru_cache(maxsize=1)
def half_of_students(T: float, lr: float, seeds: tuple) -> dict:
    """Students asked about 1,000 images of classes 0 to 4 alone, at T: seed → student, all trained at once."""
    sets, answers = [], []
    for seed in seeds:
        x = questions("half", 1000, 0, seed)
        answers.append(teacher_logits(TEACHERS[seed % 10], x))
        sets.append(Split(x, answers[-1].argmax(-1)))
    students = [MLP(784, 32, 10, seed=seed) for seed in seeds]
    fit_many(students, sets, lambda z, v, y: kd_loss(z, v, T=T), answers, steps=500, lr=lr, seeds=seeds)
    return dict(zip(seeds, students, strict=True))


def missing_one(T: float, lr: float, seed: int) -> dict:
    name, part = examined(seed)
    named = predict(half_of_students(T, lr, group(seed))[seed], part.x).argmax(-1)
    missing, shirts = part.y >= 5, part.y == 6
    hit = (named == part.y).double()
    return {
        "part": name,
        "accuracy": 100 * hit.mean().item(),
        "named": 100 * (named[missing] >= 5).double().mean().item(),  # by one of the five missing names
        "right_shown": 100 * hit[~missing].mean().item(),
        "right_shirts": 100 * hit[shirts].mean().item(),
        "right_others": 100 * hit[missing & ~shirts].mean().item(),
    }


def missing() -> None:
    about = "Students of 12_questions half 1000 at two T: names and hits (%) on images of the five classes never shown"
    for T in (4, 16):
        rates = widened("12_missing", about, missing_one, RATES, T=T)
        choose_then_report("12_missing", about, missing_one, "accuracy", {"lr": rates}, T=T)


# -------------------------------------------------------------------- many images, few answers: which to ask about?


WAYS = ("least sure", "k-means", "farthest", "teacher least sure", "most wrong")


@lru_cache(maxsize=2)
def first_students(seeds: tuple) -> dict:
    """The students of the first round, asked about 100 images at random: those of 12_questions real 100."""
    rows = stored("12_questions")
    rows = rows[(rows["kind"] == "real") & (rows["n"] == FEW) & (rows["part"] == "test")]
    return students_of("real", FEW, 500, 0, float(rows["lr"][0]), seeds, "shipped")[0]


def spread(features, centres: int, seed: int) -> torch.Tensor:
    """The image nearest to each k-means centre, out of the centre's own cluster: (centres,) positions."""
    from sklearn.cluster import KMeans

    found = KMeans(centres, n_init=1, random_state=seed).fit(features.double().numpy())
    label = torch.from_numpy(found.labels_).long()
    off = (features.double() - torch.from_numpy(found.cluster_centers_)[label]).square().sum(1)
    return torch.stack([torch.where(label == c, off, torch.inf).argmin() for c in range(centres)])


def farthest(features, known, n: int) -> torch.Tensor:
    """n positions, each the image farthest from all that are known or were chosen before it."""
    off, chosen = torch.cdist(features, known).amin(1), []
    for _ in range(n):
        chosen.append(off.argmax())
        off = torch.minimum(off, (features - features[chosen[-1]]).square().sum(1).sqrt())
    return torch.stack(chosen)


@lru_cache(maxsize=40)
def picked(way: str, n: int, seed: int) -> torch.Tensor:
    """n of the 10,000 images: the 100 of the first round, then those that `way` chooses among the others."""
    order = torch.randperm(len(TRAIN), generator=torch.Generator().manual_seed(seed))
    first, rest, more = order[:FEW], order[FEW:], n - FEW
    student, teacher = first_students(group(seed))[seed], TEACHERS[seed % 10]
    z, v = predict(student, TRAIN.x[rest]), teacher_logits(teacher, TRAIN.x[rest])
    with torch.no_grad():
        features = student.features(TRAIN.x)
    if way == "least sure":
        best = (-z.softmax(-1).amax(-1)).topk(more).indices
    elif way == "teacher least sure":
        best = (-v.softmax(-1).amax(-1)).topk(more).indices
    elif way == "most wrong":
        p = (v / 4).softmax(-1)
        best = (p * (p.log() - (z / 4).log_softmax(-1))).sum(-1).topk(more).indices
    elif way == "k-means":
        best = spread(features[rest], more, seed)
    elif way == "farthest":
        best = farthest(features[rest], features[first], more)
    else:
        raise ValueError(f"no way to choose is called {way!r}.")
    return torch.cat([first, rest[best]])


@lru_cache(maxsize=1)
def class_of_pickers(way: str, n: int, lr: float, seeds: tuple) -> dict:
    """All seeds of a way to choose: seed → its columns."""
    index = {seed: picked(way, n, seed) for seed in seeds}
    answers = [teacher_logits(TEACHERS[s % 10], TRAIN.x[i]) for s, i in index.items()]
    sets = [Split(TRAIN.x[i], v.argmax(-1)) for i, v in zip(index.values(), answers, strict=True)]
    students = [MLP(784, 32, 10, seed=seed) for seed in seeds]
    fit_many(students, sets, soft, answers, steps=500, lr=lr, seeds=seeds)
    rows = {}
    for (seed, i), student, v in zip(index.items(), students, answers, strict=True):
        name, part = examined(seed)
        z, chosen, teacher = predict(student, part.x), i[FEW:], TEACHERS[seed % 10]
        before = predict(first_students(seeds)[seed], TRAIN.x[chosen])
        rows[seed] = {
            "part": name,
            "accuracy": accuracy(z, part.y),
            "agrees": agreement(z, teacher_logits(teacher, part.x)),
            "agreed_before": agreement(before, v[FEW:]),  # the first round's student, on what is chosen
            "teacher_right": accuracy(v[FEW:], TRAIN.y[chosen]),
            "commonest": commonest(v[FEW:]),
        }
    return rows


def pick_one(way: str, n: int, lr: float, seed: int) -> dict:
    return class_of_pickers(way, n, lr, group(seed))[seed]


def pick() -> None:
    about = "As 12_questions real n; the first 100 images at random, the others chosen from the 9900 left by `way`"
    for n in (300, 1000):
        for way in WAYS:
            fixed = {"way": way, "n": n}
            rates = widened("12_picked", about, pick_one, RATES, **fixed)
            choose_then_report("12_picked", about, pick_one, "accuracy", {"lr": rates}, **fixed)


# ------------------------------------------------------------------------------------------- without the soft part


@lru_cache(maxsize=1)
def named_students(kind: str, lr: float, seeds: tuple) -> dict:
    """Students of 1,000 questions, told only the teacher's commonest class: seed → student."""
    sets = []
    for seed in seeds:
        x = questions(kind, 1000, 0, seed)
        sets.append(Split(x, teacher_logits(TEACHERS[seed % 10], x).argmax(-1)))
    students = [MLP(784, 32, 10, seed=seed) for seed in seeds]
    fit_many(students, sets, hard_loss, steps=500, lr=lr, seeds=seeds)
    return dict(zip(seeds, students, strict=True))


def names_one(kind: str, lr: float, seed: int) -> dict:
    name, part = examined(seed)
    z = predict(named_students(kind, lr, group(seed))[seed], part.x)
    return {"part": name, "accuracy": accuracy(z, part.y)}


def names() -> None:
    about = "As 12_questions n = 1000, the students told the name of the teacher's largest answer alone"
    for kind in ("shuffled", "digits", "half", "real"):
        rates = widened("12_names", about, names_one, RATES, kind=kind)
        choose_then_report("12_names", about, names_one, "accuracy", {"lr": rates}, kind=kind)


# ---------------------------------------------------------------------- teachers that know the views, and that do not


def teacher_one(master: str, kind: str, n: int, steps: int, shift: int, lr: float, seed: int) -> dict:
    row = class_of_students(kind, n, steps, shift, lr, group(seed), master)[seed]
    x = questions("real", FEW, 0, seed, OF_STUDENTS)
    return {**row, "information": view_information(teacher_of(master, seed), x, seed)}


def teachers() -> None:
    about = "As 12_questions; teachers trained 150 steps more on 8000 images; students' 100 images are others"
    for master in ("of images as they are", "of rolled images"):
        for kind, n in (("real", FEW), ("rolled", 10_000), ("rolled not anew", 10_000)):
            fixed = {
                "master": master,
                "kind": kind,
                "n": n,
                "steps": 500,
                "shift": 0 if n == FEW else 2,
            }
            rates = widened("12_teachers", about, teacher_one, RATES, **fixed)
            choose_then_report("12_teachers", about, teacher_one, "accuracy", {"lr": rates}, **fixed)


# ------------------------------------------------------------------------------------------- who was in the data?


def auc(inside, outside) -> float:
    """Share of pairs in which the member's loss is the smaller, ties counted half, in % (eq-auc)."""
    order = torch.cat([inside, outside]).double()
    ranks = torch.tensor(rankdata(order.numpy()))
    n = len(inside)
    return 100 * (1 - (ranks[:n].sum().item() - n * (n + 1) / 2) / (n * len(outside)))


def cut(seed: int) -> tuple[Split, Split, Split]:
    """2,000 images for the teacher, 6,000 for nobody, 2,000 others."""
    order = torch.randperm(len(TRAIN), generator=torch.Generator().manual_seed(seed))
    return TRAIN[order[:2000]], TRAIN[order[2000:8000]], TRAIN[order[8000:]]


@lru_cache(maxsize=4)
def members_of(who: str, lr: float, seeds: tuple, teacher_lr: float) -> dict:
    """seed → (model,) for all seeds of one kind of model, trained at once."""
    parts = {seed: cut(seed) for seed in seeds}
    of_other = who.endswith("other images")
    sets = [parts[seed][2 if of_other else 0] for seed in seeds]
    sizes, loss, answers = (784, 32, 10), hard_loss, None
    if who == "teacher":
        sizes = (784, 128, 10)
    elif who.startswith("taught"):
        masters = members_of("teacher", teacher_lr, seeds, teacher_lr)
        answers = [predict(masters[s], split.x) for s, split in zip(seeds, sets, strict=True)]
        loss = soft
    models = [MLP(*sizes, seed=seed) for seed in seeds]
    fit_many(models, sets, loss, answers, steps=600, lr=lr, seeds=seeds)
    return dict(zip(seeds, models, strict=True))


def member_one(who: str, teacher_lr: float, lr: float, seed: int) -> dict:
    model = members_of(who, lr, group(seed), teacher_lr)[seed]
    name, part = examined(seed)
    inside, outside, _ = cut(seed)
    losses = [F.cross_entropy(predict(model, s.x).double(), s.y, reduction="none") for s in (inside, outside)]
    sure = [-predict(model, s.x).double().softmax(-1).amax(-1) for s in (inside, outside)]
    return {
        "part": name,
        "accuracy": accuracy(predict(model, part.x), part.y),
        "on_members": accuracy(predict(model, inside.x), inside.y),
        "on_outsiders": accuracy(predict(model, outside.x), outside.y),
        "auc_loss": auc(*losses),
        "auc_confidence": auc(*sure),
    }


def members() -> None:
    about = "Accuracy (%) and AUC (%) of an attack by loss or confidence on the teacher's 2000 images; seeds 0 to 9"
    best = 0.0
    for who in (
        "teacher",
        "taught on its images",
        "taught on other images",
        "alone on its images",
        "alone on other images",
    ):
        fixed = {"who": who, "teacher_lr": best}
        rates = widened("12_members", about, member_one, RATES, **fixed)
        chosen = choose_then_report("12_members", about, member_one, "accuracy", {"lr": rates}, **fixed)
        best = chosen["lr"] if who == "teacher" else best


def rate_of(who: str) -> tuple[float, float]:
    """The learning rates that 12_members reports: of the teacher, and of one kind of network."""
    rows = stored("12_members")
    row = rows[(rows["who"] == who) & (rows["part"] == "test")][0]
    return float(row["teacher_lr"]), float(row["lr"])


def reference_one(who: str, seed: int) -> dict:
    """The attack by how much smaller a loss is than that of a network which met neither the images nor the teacher."""
    losses = []
    for name in (who, "alone on other images"):
        teacher_lr, lr = rate_of(name)
        model = members_of(name, lr, group(seed), teacher_lr)[seed]
        losses.append(
            [F.cross_entropy(predict(model, s.x).double(), s.y, reduction="none") for s in cut(seed)[:2]]
        )
    return {"part": "test", "auc": auc(*(own - other for own, other in zip(*losses, strict=True)))}


def references() -> None:
    about = "AUC (%) of the attack of 12_members with each loss less that of a network alone on other images"
    for who in ("teacher", "taught on its images", "taught on other images"):
        run_all("12_reference", about, [{"who": who, "seed": s} for s in REPORTED], reference_one)


BINS = np.linspace(-4, 1, 26)  # of log10 of the loss; what lies beyond is counted in the outermost


def shares_of(losses: torch.Tensor) -> dict[str, float]:
    """The share (%) of the losses (N,) in each bin of log10."""
    counts, _ = np.histogram(losses.log10().clamp(BINS[0], BINS[-1]).numpy(), BINS)
    return {f"bin{i}": 100 * c / len(losses) for i, c in enumerate(counts)}


def losses_one(who: str, images: str, seed: int) -> dict:
    """How the losses of one network lie: their median, and the share (%) in each bin."""
    teacher_lr, lr = rate_of(who)
    part = cut(seed)[("members", "others").index(images)]
    model = members_of(who, lr, group(seed), teacher_lr)[seed]
    loss = F.cross_entropy(predict(model, part.x).double(), part.y, reduction="none")
    return {"part": "test", "median": loss.median().item(), **shares_of(loss)}


def losses() -> None:
    about = "Losses of 12_members: median and share (%) in 25 equal bins of log10 of the loss from -4 to 1"
    for who in ("teacher", "taught on other images", "alone on other images"):
        for images in ("members", "others"):
            grid = [{"who": who, "images": images, "seed": s} for s in REPORTED]
            run_all("12_losses", about, grid, losses_one)


if __name__ == "__main__":
    ask_first()
    members()
    references()
    losses()
    teachers()
    ask_rest()
    ask_fewer()
    far()
    fresh()
    combinations()
    distances()
    moved()
    missing()
    pick()
    names()
