"""The long runs of chapter 13: all methods of the book on one bench, two students, two sets of images.

    python -m experiments.chapter13     # resumes where it stopped; about 25 minutes on one core

For each method, student and set, the same number of settings of learning rate and weight is tried on validation with
seeds 100 to 102: a walk that begins at a usual setting and goes to a neighbour while that is better. Seeds 0 to 9 are
reported on test. Seed s has its own initial weights, its own 1,000 images and its own teacher. The methods with
features have KD's choice of T beneath their own tries, so KD also gets as many tries as both ("kd+decay"); what its
own search has tried already it gets from there, and it is no try.
"""

import statistics
import sys
import time
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from companion import features, losses
from companion.data import FASHION_CLASSES, LETTERS, Split, fashion, fashion_teacher, letters, letters_teacher
from companion.metrics import accuracy, agreement, calibration_error, temperature_scale
from companion.models import MLP, ConvNet, parameters
from companion.training import predict
from experiments.common import FOLDER, REPORTED, TUNING, run_all, stored
from experiments.stacked import fit_stacked

torch.set_num_threads(1)
IMAGES, STEPS, BATCH = 1000, 150, 50
SETTINGS = 9  # tried for each method, student and set; on letters, from where Fashion ended
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
TENS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
TWOS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
THREES = tuple(float(f"{10 ** (i / 2):.1g}") for i in range(-8, 8))  # 0.0001, 0.0003, 0.001 … 3000
SETS = {
    "fashion": (fashion, fashion_teacher, len(FASHION_CLASSES)),
    "letters": (letters, letters_teacher, len(LETTERS)),
}
REGRESSED = ("kd+hint", "kd+contrastive")
STORED = {"kd+hint": 1034, "kd+attention": 271, "kd+similarity": 1034, "kd+rkd": 74, "kd+contrastive": 1034}
ONE_BY_ONE = ("dist", "kd+similarity", "kd+rkd", "kd+contrastive")  # these relate the examples of a batch
# method → the values that its own knob may take, and where the walk begins
KNOBS = {
    "hard": (TENS, 0.01),  # weight decay
    "smoothing": ((0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8), 0.1),
    "kd": (TWOS, 4.0),  # T; where nothing is said below, the weight
    "mse": (THREES, 0.3),
    "dkd": (TWOS, 4.0),
    "dist": (THREES, 3.0),
    "standardized": (TWOS, 2.0),  # T
    "wttm": (TWOS, 4.0),  # T
    "normkd": (TWOS, 2.0),  # T
    "rld": (TWOS, 4.0),
    "kd+hint": (THREES, 0.01),
    "kd+attention": (THREES, 3.0),
    "kd+similarity": (THREES, 30.0),
    "kd+rkd": (THREES, 3.0),
    "kd+contrastive": (THREES, 1.0),
}
MORE_TRIES = "kd+decay"  # KD once more, at its T: as many new pairs of rate and weight decay
DECAYED = ("hard", MORE_TRIES)  # their knob is the weight decay
STUDENTS = {"conv": 0.03, "mlp": 0.01}  # and the learning rate where the walk begins


def methods(student: str) -> list[str]:
    """An MLP has no maps, and so no attention."""
    return [m for m in KNOBS if student == "conv" or "attention" not in m]


# --------------------------------------------------------------------------------------------------- the losses


def labels(z: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
    return torch.nn.functional.cross_entropy(z, y, label_smoothing=smoothing)


RESPONSES = {  # (student logits, teacher logits, labels, knob) → a number
    "hard": lambda z, v, y, w: labels(z, y),
    "smoothing": lambda z, v, y, w: labels(z, y, w),
    "kd": lambda z, v, y, w: losses.distillation_loss(z, v, y, T=w, alpha=0.9),
    "mse": lambda z, v, y, w: labels(z, y) + w * losses.logit_mse_loss(z, v, centred=True),
    "dkd": lambda z, v, y, w: labels(z, y) + losses.dkd_loss(z, v, y, T=4.0, alpha=1.0, beta=w),
    "dist": lambda z, v, y, w: labels(z, y) + w * losses.dist_loss(z, v, T=4.0),
    "standardized": lambda z, v, y, w: labels(z, y) + 9 * losses.standardized_kd_loss(z, v, T=w),
    "wttm": lambda z, v, y, w: labels(z, y) + 9 * losses.wttm_loss(z, v, T=w),
    "normkd": lambda z, v, y, w: labels(z, y) + 9 * losses.normkd_loss(z, v, T=w),
    "rld": lambda z, v, y, w: labels(z, y) + losses.rld_loss(z, v, y, T=4.0, alpha=1.0, beta=w),
}


def rkd(s: Tensor, t: Tensor) -> Tensor:
    """Distances, and twice the angles."""
    return features.rkd_distance_loss(s, t) + 2 * features.rkd_angle_loss(s, t)


INSIDE = {  # (student's inside, the last of it after the regressor, where the teacher is active, its last) → a number
    "hint": lambda s, r, t, u: features.hint_loss(r, u),
    "attention": lambda s, r, t, u: sum(map(features.attention_transfer_loss, s, t)),
    "similarity": lambda s, r, t, u: features.similarity_preserving_loss(s[-1], u),
    "rkd": lambda s, r, t, u: rkd(pooled(s[-1]), pooled(u)),
    "contrastive": lambda s, r, t, u: features.contrastive_loss(r, u),
}


def pooled(maps: Tensor) -> Tensor:
    """The mean over the places; units stay as they are."""
    return maps.mean((2, 3)) if maps.dim() == 4 else maps


def told_of_inside(teacher: ConvNet, x: Tensor) -> Tensor:
    """For each image: the last maps, 64 · 4 · 4 numbers, and where each of the three stages is active."""
    with torch.no_grad():
        maps = teacher.eval().features(x)
        active = [m.square().sum(1).sqrt() for m in maps]  # |A|² of this one map is Σ_c |A_c|²
        return torch.cat([m.flatten(1) for m in (maps[-1], *active)], 1)


def loss_of(method: str, knob: float, T: float, classes: int):
    """(logits, inside, the last of it regressed, told, y) → a number. Features come beside KD at its own best T."""

    def loss(z, s, r, told, y):
        if method in RESPONSES:
            return RESPONSES[method](z, told, y, knob)
        v, last, *active = told.split([classes, 1024, 196, 49, 16], -1)
        last = last.unflatten(-1, (64, 4, 4))
        active = [a.unflatten(-1, (1, n, n)) for a, n in zip(active, (14, 7, 4), strict=True)]
        u = last if s[-1].dim() == 4 else pooled(last)
        return RESPONSES["kd"](z, v, y, T) + knob * INSIDE[method[3:]](s, r, active, u)

    return loss


def for_all(loss, method: str):
    """The sum of a loss over M students, whose tensors are (M, B, …)."""

    def flat(x):
        return None if x is None else x.flatten(0, 1)

    def at_once(z, s, r, told, y):  # a mean over rows
        return len(z) * loss(flat(z), [flat(h) for h in s], flat(r), flat(told), flat(y))

    def one_by_one(z, s, r, told, y):
        regressed = [None] * len(z) if r is None else r
        rows = zip(z, zip(*s, strict=True), regressed, told, y, strict=True)
        return sum(loss(*row) for row in rows)

    return one_by_one if method in ONE_BY_ONE else at_once


# ------------------------------------------------------------------------------------------------------ one run


@lru_cache(maxsize=1)
def data(name: str) -> tuple[Split, Split, Split]:
    return tuple(SETS[name][0](part) for part in ("train", "val", "test"))


@lru_cache(maxsize=16)
def lesson(name: str, seed: int) -> tuple[Split, Tensor, Tensor]:
    """A student's images, and what the teacher says of them: logits, and logits and inside."""
    _, teacher, _ = SETS[name]
    train = data(name)[0]
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    images, teacher = train[order[:IMAGES]], teacher(seed % 10)
    v = predict(teacher, images.x)
    return images, v, torch.cat([v, told_of_inside(teacher, images.x)], 1)


@lru_cache(maxsize=16)
def exact(name: str, seed: int) -> Tensor:
    return predict(SETS[name][1](seed % 10), data(name)[2].x)


def network(student: str, classes: int, seed: int) -> ConvNet | MLP:
    return ConvNet(4, classes, 0.0, seed) if student == "conv" else MLP(784, 64, classes, seed=seed)


def regressor(student: str, seed: int) -> nn.Module:
    """From the student's last features to the size of the teacher's; left out after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Conv2d(16, 64, 1) if student == "conv" else nn.Linear(64, 64)


CHOSEN = {}  # (set, student, method) → its learning rate and knob


def trained(name: str, student: str, method: str, lr: float, knob: float, seeds, again: int = 0) -> list:
    """The students of these seeds. `again` shifts their initial weights and batches, not images and teachers."""
    classes, starts = SETS[name][2], [s + again for s in seeds]
    lessons = [lesson(name, s) for s in seeds]
    nets = [network(student, classes, s) for s in starts]
    T = CHOSEN[name, student, "kd"]["knob"] if method.startswith("kd+") else 1.0
    decay = knob if method in DECAYED else 0.01
    if method == MORE_TRIES:
        method, knob = "kd", T
    fit_stacked(
        nets,
        [images for images, _, _ in lessons],
        for_all(loss_of(method, knob, T, classes), method),
        [inside if method.startswith("kd+") else v for _, v, inside in lessons],
        regressors=[regressor(student, s) for s in starts] if method in REGRESSED else None,
        steps=STEPS, batch_size=BATCH, lr=lr, weight_decay=decay, seeds=starts,
    )  # fmt: skip
    return nets


def bench(name: str):
    """The function that makes one line of a set's table; it trains the students of a group of seeds together."""
    made = {}

    def one(student: str, method: str, lr: float, knob: float, seed: int) -> dict:
        key = student, method, lr, knob
        if (key, seed) not in made:
            again = 500 if method == "kd again" else 0  # KD a second time: other initial weights and batches
            group = TUNING if seed in TUNING else REPORTED
            nets = trained(name, student, "kd" if again else method, lr, knob, group, again)
            made.clear()
            made.update({(key, s): net for s, net in zip(group, nets, strict=True)})
        part = "val" if seed in TUNING else "test"
        return {"part": part, **measured(name, made[key, seed], seed)}

    return one


def measured(name: str, net, seed: int) -> dict:
    """Accuracy on validation while choosing; once chosen, all that is asked on test."""
    _, val, test = data(name)
    on_val, nan = predict(net, val.x), float("nan")
    if seed in TUNING:
        scores = (accuracy(on_val, val.y), nan, nan, nan, nan, nan)
    else:
        z, T = predict(net, test.x), temperature_scale(on_val, val.y)
        each = [accuracy(z[test.y == c], test.y[test.y == c]) for c in test.y.unique().tolist()]
        ece = calibration_error(z, test.y), T, calibration_error(z / T, test.y)
        scores = (accuracy(z, test.y), agreement(z, exact(name, seed)), *ece, min(each))
    columns = ("accuracy", "agreement", "ece", "rescaled_T", "rescaled_ece", "worst")
    return dict(zip(columns, scores, strict=True))


# ----------------------------------------------------------------------------------------------------- choosing


def walk(score, lr: float, knobs: tuple, knob: float, settings: int, known=()) -> tuple[float, float]:
    """The best of so many places (learning rate, knob): from one that is better, on in the same direction first.

    The first five begin with the rate, those after them with the knob, downwards. Places that are known are walked
    over like the others, and count as no try.
    """
    here = RATES.index(lr), knobs.index(knob)
    tried = {here: score(lr, knob)}
    steps = [(1, 0), (0, 1), (-1, 0), (0, -1)]
    while sum((RATES[a], knobs[b]) not in known for a, b in tried) < settings:
        if len(tried) == 5:
            steps = [(0, -1), (0, 1), (-1, 0), (1, 0)]
        diagonal = [(a, b) for a in (1, -1) for b in (1, -1)]  # where all neighbours are worse
        further = [(2 * a, 2 * b) for a, b in steps]
        around = [(here[0] + a, here[1] + b) for a, b in (*steps, *diagonal, *further)]
        inside = [p for p in around if 0 <= p[0] < len(RATES) and 0 <= p[1] < len(knobs) and p not in tried]
        place = inside[0]
        tried[place] = score(RATES[place[0]], knobs[place[1]])
        if tried[place] > tried[here]:
            direction = (place[0] - here[0], place[1] - here[1])
            steps = [direction, *(s for s in steps if s != direction)]
            here = place
    return RATES[here[0]], knobs[here[1]]


def run_method(name: str, student: str, method: str) -> None:
    about = f"{name}: accuracy; agreement; ECE as it is and rescaled; worst class (%); 1000 images; 150 steps of 50"
    one = bench(name)
    setting = {"student": student, "method": method}

    def rows(lr, knob, seeds, method=method):
        configs = [{**setting, "method": method, "lr": lr, "knob": knob, "seed": s} for s in seeds]
        table = run_all(f"13_{name}", about, configs, one)
        here = np.all([table[k] == configs[0][k] for k in ("student", "method", "lr", "knob")], axis=0)
        return table[here & np.isin(table["seed"], list(seeds))]

    def score(lr, knob):
        return rows(lr, knob, TUNING)["accuracy"].mean()

    if (
        method == MORE_TRIES
    ):  # nine more, from where KD's own search ended, past those that it has tried at this T
        kd = CHOSEN[name, student, "kd"]
        known = known_of_kd(name, student, kd["knob"])

        def or_known(lr, decay):
            return known[lr, decay] if (lr, decay) in known else score(lr, decay)

        lr, knob = walk(or_known, kd["lr"], TENS, 0.01, SETTINGS, known)
    else:
        start = {"lr": STUDENTS[student], "knob": KNOBS[method][1]}
        start = CHOSEN.get(("fashion", student, method), start)  # on letters, where Fashion ended
        lr, knob = walk(score, start["lr"], KNOBS[method][0], start["knob"], SETTINGS)
    CHOSEN[name, student, method] = {"lr": lr, "knob": knob}
    forget(FOLDER / f"13_{name}.csv", student, method, lr, knob)
    rows(lr, knob, REPORTED)
    if method == "kd":
        rows(lr, knob, REPORTED, "kd again")


def known_of_kd(name: str, student: str, T: float) -> dict[tuple[float, float], float]:
    """(rate, weight decay) → the mean validation accuracy, of those that KD's own search has tried at this T."""
    rows = stored(f"13_{name}")
    here = (
        (rows["student"] == student)
        & (rows["method"] == "kd")
        & (rows["part"] == "val")
        & (rows["knob"] == T)
    )
    return {
        (lr, 0.01): rows[here & (rows["lr"] == lr)]["accuracy"].mean()
        for lr in set(rows[here]["lr"].tolist())
    }


def forget(path, student: str, method: str, lr: float, knob: float) -> None:
    """Where a longer walk has changed a choice, its reported runs go; with KD's, all that rests on its T."""
    kept, gone = [], []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        cells = line.split(",")
        of_it = cells[0] == student and cells[1] in (method, f"{method} again")
        stale = of_it and cells[5] == "test" and cells[2:4] != [str(lr), str(knob)]
        (gone if stale else kept).append(line)
    if gone and method == "kd":
        kept = [line for line in kept if not line.startswith(f"{student},kd+")]
    path.write_text("".join(kept), encoding="utf-8")


# ------------------------------------------------------------------------------------------------ what it costs


def costs(student: str, method: str) -> dict:
    """A step beside one with hard labels, in turns; bytes kept for the backward pass; what is stored of the teacher."""
    steps = {m: _step(student, m) for m in ("hard", method)}
    times = {m: [] for m in steps}
    for _ in range(60):
        for m, step in steps.items():
            start = time.process_time()
            step()
            times[m].append(time.process_time() - start)
    kept = {m: _kept(step) for m, step in steps.items()}
    told = 0 if method in ("hard", "smoothing") else STORED.get(method, 10)
    more = parameters(regressor(student, 0)) if method in REGRESSED else 0
    ratio = statistics.median(b / a for a, b in zip(times["hard"], times[method], strict=True))
    return {"time": ratio, "memory": kept[method] / kept["hard"], "stored": told, "regressor": more}


def _kept(step) -> int:
    """Bytes that autograd keeps between the forward and the backward pass, each storage once."""
    seen = {}

    def note(t):
        seen[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        step()
    return sum(seen.values())


def _step(student: str, method: str, name: str = "fashion", batch: int = BATCH):
    images, v, inside = lesson(name, 0)
    told = (inside if method.startswith("kd+") else v)[:batch]
    classes = SETS[name][2]
    net, extra = network(student, classes, 0), regressor(student, 0) if method in REGRESSED else None
    loss = loss_of(method, KNOBS[method][1], 4.0, classes)
    both = [*net.parameters(), *(extra.parameters() if extra else ())]
    optimiser = torch.optim.AdamW(both, lr=1e-4, fused=True)
    net.train()
    x, y = images.x[:batch], images.y[:batch]

    def step():
        inside = net.features(x)
        inside = inside if student == "conv" else [inside]
        z = (net.head if student == "conv" else net.layers[-1])(inside[-1].flatten(1))
        optimiser.zero_grad()
        loss(z, inside, extra(inside[-1]) if extra else inside[-1], told, y).backward()
        optimiser.step()

    return step


def main() -> None:
    for name in sys.argv[1:] or SETS:
        for student in STUDENTS:
            for method in (*methods(student), MORE_TRIES):
                run_method(name, student, method)
    about = "A step's time and memory over one with hard labels; numbers stored of the teacher for each image; regressor"
    configs = [{"student": s, "method": m} for s in STUDENTS for m in methods(s)]
    run_all("13_costs", about, configs, costs)


if __name__ == "__main__":
    main()
