"""The long runs of chapter 6: compression, and transfer on digits.

    python -m experiments.chapter06     # resumes where it stopped; about 20 minutes on one core

What is tried (learning rate, for some runs T or α) is chosen on validation with seeds 100 to 102; each grid stands
in its function, and the rest is fixed. The reported seeds, 0 to 9, meet the test images once. Seed s has its own
initial weights, its own subset (for the digits, its own split) and its own teacher.
"""

import math
from functools import lru_cache, partial
from itertools import product

import torch
import torch.nn.functional as F

from companion.data import MEAN, STD, Split, digits, fashion, fashion_teacher
from companion.losses import distillation_loss
from companion.metrics import accuracy
from companion.models import MLP, ConvNet
from companion.training import fit, hard_loss, jitter, teacher_logits
from experiments.common import TUNING, choose_then_report

torch.set_num_threads(1)
TRAIN, VAL, TEST = fashion("train"), fashion("val"), fashion("test")
TEACHERS = [fashion_teacher(i) for i in range(10)]
RATES = {"mlp": (0.001, 0.003, 0.01), "conv": (0.003, 0.01, 0.03), "digits": (0.005, 0.01, 0.02)}


def soft(T: float, alpha: float = 1.0):
    return partial(distillation_loss, T=T, alpha=alpha)


def smoothed(epsilon: float):
    return lambda z, v, y: F.cross_entropy(z, y, label_smoothing=epsilon)


def part_of(seed: int) -> str:
    """Validation while choosing, test once chosen: the other is not looked at."""
    return "val" if seed in TUNING else "test"


# ------------------------------------------------------------------------------------------- Fashion-MNIST


def measure(student, seed: int, **more) -> dict:
    part = {"val": VAL, "test": TEST}[part_of(seed)]
    logits = teacher_logits(student, part.x)
    each = [accuracy(logits[part.y == c], part.y[part.y == c]) for c in range(10)]
    return {"part": part_of(seed), "accuracy": accuracy(logits, part.y), "worst": min(each), **more}


BUILD = {
    "ConvNet(16)": partial(ConvNet, 16, dropout=0.0),
    "ConvNet(4)": partial(ConvNet, 4, dropout=0.0),
    "MLP": partial(MLP, 784, 128, 10),
}


def compress_one(model: str, loss: str, lr: float, seed: int) -> dict:
    images, student = TRAIN.sample(100, seed), BUILD[model](seed=seed)
    v = teacher_logits(TEACHERS[seed % 10], images.x)
    fit(student, images, soft(4) if loss == "kd" else hard_loss, v, steps=400, lr=lr, seed=seed)
    return measure(student, seed)


def compression() -> None:
    about = "Test accuracy and worst class (%) on 1000 images, 400 steps, by network and loss; seeds 0 to 9"
    for model, loss in product(BUILD, ("hard", "kd")):
        grid = {"lr": RATES["mlp" if model == "MLP" else "conv"]}
        choose_then_report("06_compression", about, compress_one, "accuracy", grid, model=model, loss=loss)


def equally_long_one(images: int, lr: float, seed: int) -> dict:
    student = BUILD["ConvNet(16)"](seed=seed)
    fit(student, TRAIN if images > 1000 else TRAIN.sample(100, seed), steps=400, lr=lr, seed=seed)
    return measure(student, seed)


def equally_long() -> None:
    """The usual teacher learned longer, too: what do more images give in the same 400 steps?"""
    about = "Accuracy and worst class (%) of ConvNet(16) on the labels of 10,000 images, 400 steps"
    grid = {"lr": RATES["conv"]}
    choose_then_report("06_equally_long", about, equally_long_one, "accuracy", grid, images=10_000)


@lru_cache(maxsize=16)
def own_teacher(seed: int) -> ConvNet:
    """A ConvNet(16) that saw the student's 1,000 images and no others, at the rate chosen in 06_compression."""
    teacher = ConvNet(16, seed=seed)
    fit(teacher, TRAIN.sample(100, seed), steps=400, lr=0.01, seed=seed)
    return teacher


def own_one(teacher: str, lr: float, seed: int) -> dict:
    images, student = TRAIN.sample(100, seed), BUILD["ConvNet(4)"](seed=seed)
    fit(student, images, soft(4), teacher_logits(own_teacher(seed), images.x), steps=400, lr=lr, seed=seed)
    return measure(student, seed, teacher_accuracy=measure(own_teacher(seed), seed)["accuracy"])


def own_teachers() -> None:
    """The control for 06_compression: what is left of the gain without the teacher's further images?"""
    about = "Accuracy and worst class (%) of ConvNet(4), taught by a ConvNet(16) of the same 1000 images"
    choose_then_report("06_own_teacher", about, own_one, "accuracy", {"lr": RATES["conv"]}, teacher="own")


# -------------------------------------------------------------------------------------------------- digits


@lru_cache(maxsize=64)
def digit_teachers(seed: int, steps: int = 300, epsilon: float = 0.0) -> list[MLP]:
    """Three teachers that saw all ten digits."""
    train, made = digits(seed)[0], []
    loss = smoothed(epsilon) if epsilon else hard_loss
    for s in (10 * seed, 10 * seed + 1, 10 * seed + 2):
        made.append(MLP(64, 256, 10, seed=s))
        fit(made[-1], train, loss, steps=steps, lr=3e-3, seed=s)
    return made


def ask(teachers, x, T: float):
    """Logits whose softmax at T is the mean of the teachers' probabilities at T."""
    return T * torch.stack([(teacher_logits(t, x) / T).softmax(-1) for t in teachers]).mean(0).log()


def pupil(x, y, loss, v, lr: float, seed: int) -> MLP:
    student = MLP(64, 64, 10, seed=seed)
    fit(student, Split(x, y), loss, v, steps=600, lr=lr, seed=seed)
    return student


def bias_for(logits, missing, rate: float) -> float:
    """What, added to the missing classes' logits, has them named in the share `rate` of the rows."""
    others = [c for c in range(10) if c not in missing]
    needed = (logits[:, others].amax(-1) - logits[:, missing].amax(-1)).sort()[0]
    k = round(rate * len(logits))
    return needed[k - 1 : k + 1].mean().item()


def omitted_one(omitted: str, loss: str, T: float, lr: float, steps: int, epsilon: float, seed: int) -> dict:
    train, val, test = digits(seed)
    missing = [3] if omitted == "no 3s" else [0, 1, 2, 3, 4, 5, 6, 9]
    kept = train[~torch.isin(train.y, torch.tensor(missing))]
    teachers, loss = digit_teachers(seed, steps, epsilon), soft(T) if loss == "kd" else hard_loss
    student = pupil(kept.x, kept.y, loss, ask(teachers, kept.x, T), lr, seed)
    bias = bias_for(teacher_logits(student, val.x), missing, len(missing) / 10)
    part = {"val": val, "test": test}[part_of(seed)]
    shift = torch.zeros(10).index_fill(0, torch.tensor(missing), bias)
    of_missing, row = torch.isin(part.y, torch.tensor(missing)), {"part": part_of(seed), "bias": bias}
    logits = teacher_logits(student, part.x)
    for name, z in [("plain", logits), ("biased", logits + shift)]:
        row[f"{name}_missing"] = accuracy(z[of_missing], part.y[of_missing])
        row[f"{name}_all"] = accuracy(z, part.y)
    return {**row, "teacher_all": accuracy(ask(teachers, part.x, 1), part.y)}


def omitted_classes() -> None:
    name = "06_omitted"
    about = "Right answers (%) on the digits left out and on all ten, with and without a bias; seeds 0 to 9"
    for omitted in ("no 3s", "only 7s and 8s"):
        choose = partial(choose_then_report, name, about, omitted_one, "biased_all", omitted=omitted)
        rates = {"lr": RATES["digits"]}
        choose({"T": (1.0,), **rates}, loss="hard", steps=300, epsilon=0.0)
        best = choose({"T": (4.0, 8.0, 16.0, 32.0), **rates}, loss="kd", steps=300, epsilon=0.0)
        for steps, epsilon in ((300, 0.1), (2000, 0.0), (2000, 0.1)):
            choose({"T": (best["T"],), "lr": (best["lr"],)}, loss="kd", steps=steps, epsilon=epsilon)


def omitted_tuned() -> None:
    """Without 3s, the long-trained teachers again, each with T and rate of its own: how much does smoothing hide?"""
    about = "As 06_omitted, with T and learning rate chosen for each teacher, by the accuracy without a bias"
    grid = {"T": (4.0, 16.0, 32.0), "lr": (0.01, 0.02, 0.05)}
    for epsilon in (0.0, 0.1):
        fixed = {"omitted": "no 3s", "loss": "kd", "steps": 2000, "epsilon": epsilon}
        choose_then_report("06_omitted_tuned", about, omitted_one, "plain_all", grid, **fixed)


def turn(x):
    return x.view(-1, 8, 8).rot90(1, (1, 2)).flatten(1)


def questions(kind: str, seed: int):
    """Images to ask the teacher about: 1000, but for the sevens and eights."""
    train, generator = digits(seed)[0], torch.Generator().manual_seed(seed)
    n, pick = len(train), torch.randperm(len(TRAIN), generator=generator)[: len(train)]
    return {
        "digits": lambda: train.x,
        "rolled": lambda: jitter(3)(train.x.view(-1, 1, 8, 8), generator).flatten(1),
        "pixels shuffled": lambda: train.x.gather(0, torch.rand(n, 64, generator=generator).argsort(0)),
        "clothes": lambda: F.adaptive_avg_pool2d(TRAIN.x[pick] * STD + MEAN, 8).flatten(1),
        "7s and 8s": lambda: train.x[(train.y == 7) | (train.y == 8)],
        "negatives": lambda: 1 - train.x,
        "noise": lambda: torch.rand(train.x.shape, generator=generator),
        "turned": lambda: turn(train.x),
    }[kind]()


def information(logits) -> float:
    """Entropy of the mean prediction less the mean entropy of the predictions, in nats."""
    p = logits.double().softmax(-1)
    return (torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(-1).mean()).item()


def question_one(kind: str, answers: str, T: float, seed: int) -> dict:
    _, val, test = digits(seed)
    x, teachers = questions(kind, seed), digit_teachers(seed)
    v = ask(teachers, x, T)
    student = pupil(x, v.argmax(-1), soft(T) if answers == "soft" else hard_loss, v, 0.01, seed)
    part = {"val": val, "test": test}[part_of(seed)]
    return {
        "part": part_of(seed),
        "accuracy": accuracy(teacher_logits(student, part.x), part.y),
        "information": information(ask(teachers, x, 1)),
        "teacher": accuracy(ask(teachers, part.x, 1), part.y),
    }


def transfer_sets() -> None:
    about = "Right answers (%) on test digits of students taught on other images; information in nats"
    kinds = ("digits", "rolled", "pixels shuffled", "clothes", "7s and 8s", "negatives", "noise", "turned")
    for kind, answers in product(kinds, ("soft", "argmax")):
        grid = {"T": (1.0, 4.0, 16.0) if answers == "soft" else (1.0,)}
        fixed = {"kind": kind, "answers": answers}
        choose_then_report("06_transfer_sets", about, question_one, "accuracy", grid, **fixed)


def switched(teachers, x, usual) -> float:
    """The share (%) of the teachers' hidden units that an image puts into another state than most usual ones do."""
    on = [(t.layers[0](images) > 0).double() for t in teachers for images in (x, usual)]
    unlike = [
        (here - most.mean(0).round()).abs().mean() for here, most in zip(on[::2], on[1::2], strict=True)
    ]
    return 100 * torch.stack(unlike).mean().item()


def flattened(x, directions: int):
    """The images x with only their first principal directions about their mean."""
    centre = x.mean(0)
    along = torch.linalg.svd(x - centre, full_matrices=False)[2][:directions]
    return centre + (x - centre) @ along.T @ along


def right_after(x, teachers, T: float, seed: int) -> dict:
    """A pupil of the teachers' answers to x: how often it is right on digits, and names their class on x."""
    (_, val, test), v = digits(seed), ask(teachers, x, T)
    student = pupil(x, v.argmax(-1), soft(T), v, 0.01, seed)
    part = {"val": val, "test": test}[part_of(seed)]
    return {
        "part": part_of(seed),
        "accuracy": accuracy(teacher_logits(student, part.x), part.y),
        "copied": accuracy(teacher_logits(student, x), v.argmax(-1)),
    }


def carried_one(kind: str, directions: int, moved: int, T: float, seed: int) -> dict:
    """A foreign set, flattened to its first principal directions, or moved so that its mean image is the digits'."""
    x, teachers, usual = questions(kind, seed), digit_teachers(seed), digits(seed)[0].x
    centre = x.mean(0)
    if directions < x.shape[1]:
        x = flattened(x, directions)
    if moved:
        x = x - centre + usual.mean(0)
    return {**right_after(x, teachers, T, seed), "unlike": switched(teachers, x, usual)}


def carried() -> None:
    """What makes answers to a foreign set carry over to digits: its directions, and where it lies."""
    about = (
        "Right answers (%) on test digits, taught on other images: in how many directions, and moved or not"
    )
    kinds = ("digits", "rolled", "pixels shuffled", "clothes", "7s and 8s", "negatives", "noise", "turned")
    settings = [("clothes", k, 0) for k in (2, 4, 8, 16, 32)] + [(kind, 64, 0) for kind in kinds]
    settings += [(kind, 64, 1) for kind in ("clothes", "7s and 8s", "negatives", "noise", "turned")]
    for kind, directions, moved in settings:
        fixed = {"kind": kind, "directions": directions, "moved": moved}
        choose_then_report("06_carried", about, carried_one, "accuracy", {"T": (1.0, 4.0, 16.0)}, **fixed)


def picture_one(kind: str, moved: int, seed: int) -> dict:
    """A transfer set before any student: what its answers tell, and in how many directions it mostly varies."""
    train, x = digits(seed)[0], questions(kind, seed)
    if moved:
        x = x - x.mean(0) + train.x.mean(0)
    part = torch.linalg.svdvals((x - x.mean(0)).double()).square()
    directions = int((part.cumsum(0) < 0.9 * part.sum()).sum()) + 1  # that hold 90 % of the variance
    told_by = information(ask(digit_teachers(seed), x, 1))
    return {"part": part_of(seed), "information": told_by, "directions": directions}


def pictures() -> None:
    about = "Transfer sets: information of the teacher's answers (nats), directions that hold 90 % of the variance"
    for kind in (
        "digits",
        "rolled",
        "pixels shuffled",
        "7s and 8s",
        "noise",
        "clothes",
        "negatives",
        "turned",
    ):
        for moved in (0, 1):
            choose_then_report("06_pictures", about, picture_one, "information", {}, kind=kind, moved=moved)


def spread_one(kind: str, directions: int, seed: int) -> dict:
    """In how many directions a set varies that keeps its first ones: how many hold 99 % of its variance."""
    x = questions(kind, seed)
    if directions < x.shape[1]:
        x = flattened(x, directions)
    part = torch.linalg.svdvals((x - x.mean(0)).double()).square()
    first_8 = 100 * part[:8].sum() / part.sum()
    hold = int((part.cumsum(0) < 0.99 * part.sum()).sum()) + 1
    return {"part": part_of(seed), "hold_99": hold, "first_8": first_8.item()}


def spread() -> None:
    about = (
        "Transfer sets: directions that hold 99 % of the variance, and the share (%) that the first 8 hold"
    )
    sets = ("digits", "rolled", "pixels shuffled", "7s and 8s", "noise", "clothes", "negatives", "turned")
    for kind, directions in (*((k, 64) for k in sets), *(("clothes", k) for k in (2, 4, 8, 16, 32))):
        fixed = {"kind": kind, "directions": directions}
        choose_then_report("06_spread", about, spread_one, "hold_99", {}, **fixed)


def kept_one(kind: str, directions: int, seed: int) -> dict:
    """The set of 06_carried that keeps its first principal directions, before any student: what its answers tell."""
    x = flattened(questions(kind, seed), directions)
    return {"part": part_of(seed), "information": information(ask(digit_teachers(seed), x, 1))}


def kept() -> None:
    about = "Clothes that keep their first directions, as in 06_carried: information of the teacher's answers (nats)"
    for directions in (2, 4, 8, 16, 32, 64):
        fixed = {"kind": "clothes", "directions": directions}
        choose_then_report("06_kept", about, kept_one, "information", {}, **fixed)


def stretched_one(kind: str, contrast: float, T: float, seed: int) -> dict:
    """A foreign set whose images differ more, or less, from its mean image: same mean, same directions."""
    x, teachers = questions(kind, seed), digit_teachers(seed)
    x = x.mean(0) + contrast * (x - x.mean(0))
    return {
        **right_after(x, teachers, T, seed),
        "information": information(ask(teachers, x, 1)),
        "unlike": switched(teachers, x, digits(seed)[0].x),
    }


def stretched() -> None:
    """Are the answers a cause, too? The images stay, and differ more, so that their answers do."""
    about = "Right answers (%) on test digits, taught on images whose differences from their mean were scaled"
    for kind, contrast in product(("noise", "clothes", "negatives", "turned"), (0.5, 1.0, 2.0)):
        fixed = {"kind": kind, "contrast": contrast}
        choose_then_report("06_stretched", about, stretched_one, "accuracy", {"T": (1.0, 4.0, 16.0)}, **fixed)


def as_informative(x, centre, teachers):
    """x moved to `centre`, and shrunk about it until the answers tell as little as where x lies (by bisection)."""
    aim, apart, low, high = information(ask(teachers, x, 1)), x - x.mean(0), 0.0, 2.0
    for _ in range(20):
        middle = (low + high) / 2
        told = information(ask(teachers, centre + middle * apart, 1))
        low, high = (middle, high) if told < aim else (low, middle)
    return centre + middle * apart, middle


def matched_one(kind: str, contrast: float, T: float, seed: int) -> dict:
    """The set of 06_stretched brought to the mean of the digits, with contrast taken away until I is what it was."""
    x, teachers, usual = questions(kind, seed), digit_teachers(seed), digits(seed)[0].x
    far = x.mean(0) + contrast * (x - x.mean(0))
    near, shrunk = as_informative(far, usual.mean(0), teachers)
    return {
        **right_after(near, teachers, T, seed),
        "information": information(ask(teachers, near, 1)),
        "unlike": switched(teachers, near, usual),
        "contrast_near": contrast * shrunk,
    }


def matched() -> None:
    """Does it matter where the images lie, if the answers tell the same and the directions are the same?"""
    about = "As 06_stretched, but moved to the mean of the digits, with the contrast at which I is as before"
    for kind, contrast in (
        ("negatives", 1.0),
        ("negatives", 2.0),
        ("turned", 2.0),
        ("turned", 1.0),
        ("noise", 1.0),
        ("clothes", 1.0),
    ):
        fixed = {"kind": kind, "contrast": contrast}
        choose_then_report("06_matched", about, matched_one, "accuracy", {"T": (1.0, 4.0, 16.0)}, **fixed)


DOMAINS = {
    "same": lambda x: x,
    "mirrored": lambda x: x.view(-1, 8, 8).flip(2).flatten(1),
    "negative": lambda x: 1 - x,
    "turned": turn,
    "clothes teacher": lambda x: x,
}


def turned_by(x, degrees: int):
    """Digits (N, 64) turned about their centre, the same way round as `turn`; 90 gives its image."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = torch.tensor([[c, -s, 0], [s, c, 0]]).expand(len(x), 2, 3)
    grid = F.affine_grid(matrix, (len(x), 1, 8, 8), align_corners=False)
    return F.grid_sample(x.view(-1, 1, 8, 8), grid, align_corners=False).flatten(1)


def answer(domain: str | int, x, seed: int):
    """What the teacher says about x: logits for T = 4."""
    if domain == "clothes teacher":  # trained on Fashion-MNIST: its ten classes are not ten digits
        big = F.interpolate(x.view(-1, 1, 8, 8), size=(28, 28), mode="bilinear")
        return teacher_logits(TEACHERS[seed % 10], (big - MEAN) / STD)
    return ask(digit_teachers(seed), x, 4)


def domain_one(domain: str | int, loss: str, alpha: float, lr: float, seed: int) -> dict:
    """The digits as another camera would give them; the teachers know the ordinary ones only."""
    train, val, test = digits(seed)
    change = partial(turned_by, degrees=domain) if isinstance(domain, int) else DOMAINS[domain]
    part = {"val": val, "test": test}[part_of(seed)]
    images = train if loss == "kd" else train.sample(10, seed)
    x = change(images.x)
    losses = {"hard": hard_loss, "kd": soft(4), "both": soft(4, alpha)}
    student = pupil(x, images.y, losses[loss], answer(domain, x, seed), lr, seed)
    return {
        "part": part_of(seed),
        "accuracy": accuracy(teacher_logits(student, change(part.x)), part.y),
        "teacher": accuracy(answer(domain, change(part.x), seed), part.y),
    }


def domains() -> None:
    about = "Right answers (%) in another domain: 100 labels, the teacher's answers, or both; seeds 0 to 9"
    for domain in DOMAINS:
        choose = partial(choose_then_report, "06_domains", about, domain_one, "accuracy", domain=domain)
        best = choose({"alpha": (0.0,), "lr": RATES["digits"]}, loss="hard")
        choose({"alpha": (0.02, 0.1, 0.5, 0.9), "lr": (best["lr"],)}, loss="both")
        choose({"alpha": (1.0,), "lr": (best["lr"],)}, loss="kd")


def angle_one(degrees: int, loss: str, alpha: float, lr: float, seed: int) -> dict:
    return domain_one(degrees, loss, alpha, lr, seed)


def angles() -> None:
    """Between the teacher's own domain and the quarter turn: how right must a teacher be to help?"""
    about = (
        "Right answers (%) on digits turned by so many degrees: 100 labels, the teacher's answers, or both"
    )
    for degrees in (0, 10, 15, 20, 25, 30, 40):
        choose = partial(choose_then_report, "06_angles", about, angle_one, "accuracy", degrees=degrees)
        best = choose({"alpha": (0.0,), "lr": RATES["digits"]}, loss="hard")
        choose({"alpha": (0.02, 0.1, 0.5, 0.9), "lr": (best["lr"],)}, loss="both")
        choose({"alpha": (1.0,), "lr": (best["lr"],)}, loss="kd")


def all_labels_one(domain: str, loss: str, alpha: float, lr: float, seed: int) -> dict:
    """Also trains on the 297 labels that chose α: while choosing, on as many others of the training digits."""
    train, val, test = digits(seed)
    of = int(domain[:-1]) if domain.endswith("°") else domain
    change = partial(turned_by, degrees=of) if isinstance(of, int) else DOMAINS[of]
    few = train.sample(10, seed)
    known = {tuple(row) for row in few.x.tolist()}
    rest = train[torch.tensor([tuple(row) not in known for row in train.x.tolist()])]
    more, part = (rest[:297], val) if part_of(seed) == "val" else (val, test)
    x, y = change(torch.cat([few.x, more.x])), torch.cat([few.y, more.y])
    loss = soft(4, alpha) if loss == "both" else hard_loss
    student = pupil(x, y, loss, answer(of, x, seed), lr, seed)
    right = accuracy(teacher_logits(student, change(part.x)), part.y)
    return {"part": part_of(seed), "labels": len(y), "accuracy": right}


def all_labels() -> None:
    """The rival of 06_angles and 06_domains that spends no labels on the choice of α; and with the answers, too."""
    about = "Right answers (%) in another domain: all 397 labels, or those and the teacher's answers; seeds 0 to 9"
    for domain in ("0°", "10°", "15°", "20°", "25°", "30°", "40°", *list(DOMAINS)[1:]):
        choose = partial(
            choose_then_report, "06_all_labels", about, all_labels_one, "accuracy", domain=domain
        )
        best = choose({"alpha": (0.0,), "lr": RATES["digits"]}, loss="hard")
        choose({"alpha": (0.0, 0.02, 0.1, 0.5, 0.9), "lr": (best["lr"],)}, loss="both")


if __name__ == "__main__":
    omitted_classes()
    omitted_tuned()
    transfer_sets()
    carried()
    pictures()
    spread()
    kept()
    stretched()
    matched()
    domains()
    angles()
    all_labels()
    compression()
    equally_long()
    own_teachers()
