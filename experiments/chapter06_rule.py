"""Chapter 6, three questions about its rules: how few images tell how near a set lies; whose mistakes a student of
labels and answers repeats; and what a reader gets who chooses the answers' weight on parts of the labels alone.

    python -m experiments.chapter06_rule     # resumes where it stopped; about 8 minutes on one core

Nothing is chosen here but the weight in `rule_one`, by its own rule. The learning rates are those that
experiments/chapter06.py chose for the labels alone; students, steps, T and teachers are its own, too.
"""

from functools import lru_cache, partial
from itertools import product

import torch
import torch.nn.functional as F

from companion.data import Split, digits
from companion.metrics import accuracy
from companion.models import MLP
from companion.training import teacher_logits
from experiments.chapter06 import DOMAINS, answer, bias_for, digit_teachers, questions, switched, turned_by
from experiments.common import REPORTED, run_all, stored
from experiments.stacked import fit_stacked

torch.set_num_threads(1)
T, ALPHAS, PARTS = 4, (0.0, 0.02, 0.1, 0.5, 0.9), 4
FIVE = tuple(REPORTED)[:5]  # the rule trains 25 students a seed, a domain and a number of labels
SHOWN = ("0°", "10°", "20°", "40°", "90°", "clothes teacher")


# ------------------------------------------------------------------------------------------- how near is a set


def near_one(kind: str, images: int, seed: int) -> dict:
    """`switched` of a transfer set, with "most digits" counted on so many digits that nothing else has seen."""
    few = digits(seed)[1].x
    few = few[torch.randperm(len(few), generator=torch.Generator().manual_seed(seed))[:images]]
    return {"part": "test", "unlike": switched(digit_teachers(seed), questions(kind, seed), few)}


def near() -> None:
    about = (
        "Hidden units (%) that a transfer set switches, with the usual state counted on so few other digits"
    )
    kinds = ("digits", "rolled", "pixels shuffled", "7s and 8s", "noise", "clothes", "negatives", "turned")
    configs = [
        {"kind": kind, "images": n, "seed": s} for kind, n, s in product(kinds, (5, 20, 100), REPORTED)
    ]
    run_all("06_near", about, configs, near_one)


# ------------------------------------------------------------------------------------------- labels and answers


def change_of(domain: str):
    """A domain by its name in the tables of chapter 6, "90°" being "turned"."""
    if domain == "90°":
        return DOMAINS["turned"]
    return partial(turned_by, degrees=int(domain[:-1])) if domain.endswith("°") else DOMAINS[domain]


def rate_of(domain: str, labels: int) -> float:
    """The learning rate that validation chose for the labels alone."""
    name = "turned" if domain == "90°" else domain
    if labels > 100:
        rows = stored("06_all_labels")
        rows = rows[rows["domain"] == name]
    elif domain.endswith("°") and domain != "90°":
        rows = stored("06_angles")
        rows = rows[rows["degrees"] == int(domain[:-1])]
    else:
        rows = stored("06_domains")
        rows = rows[rows["domain"] == name]
    (rate,) = set(rows[(rows["loss"] == "hard") & (rows["part"] == "test")]["lr"].tolist())
    return rate


def answers_to(domain: str, x, seed: int):
    return answer("clothes teacher" if domain == "clothes teacher" else domain, x, seed)


def pupils(splits, told, alphas, lr: float, seeds) -> list[MLP]:
    """A student of each split and its teacher's logits, with an α and a seed of its own, all trained at once."""
    students, weight = [MLP(64, 64, 10, seed=s) for s in seeds], torch.tensor(alphas)

    def loss(z, _inside, _regressed, v, y):
        labels = F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)
        apart = F.kl_div((z / T).log_softmax(-1), (v / T).softmax(-1), reduction="none").sum(-1)
        return ((1 - weight) * labels + weight * T**2 * apart.mean(1)).sum()

    size = min(100, *map(len, splits))
    fit_stacked(
        students, splits, loss, told, steps=600, lr=lr, weight_decay=0.01, batch_size=size, seeds=seeds
    )
    return students


MIXED = [("own", alpha) for alpha in ALPHAS] + [("dealt", alpha) for alpha in ALPHAS[1:]]


@lru_cache(maxsize=4)
def repeated_of(domain: str, seeds: tuple) -> dict:
    """100 labels and a teacher that is mostly wrong: is a student's mistake the teacher's own on that very image?

    dealt: each labelled image gets the answer to another one, whatever its label.
    by_class: how many of its mistakes the teacher's answer to another test image of the same label would hit.
    mended: right after one bias on the class that the teacher names most, so that unlabelled validation images are
    named so as often as they are so.
    """
    change, splits, told, tried = change_of(domain), [], [], []
    for seed, (answers, alpha) in product(seeds, MIXED):
        few = digits(seed)[0].sample(10, seed)
        x = change(few.x)
        v = answers_to(domain, x, seed)
        if answers == "dealt":
            v = v[torch.randperm(len(v), generator=torch.Generator().manual_seed(seed))]
        splits.append(Split(x, few.y))
        told.append(v)
        tried.append((seed, answers, alpha))
    found = pupils(splits, told, [t[2] for t in tried], rate_of(domain, 100), [t[0] for t in tried])
    return {
        setting: mistakes(student, few, domain, setting[0])
        for setting, student, few in zip(tried, found, splits, strict=True)
    }


def mistakes(student, few: Split, domain: str, seed: int) -> dict:
    (_, val, test), change = digits(seed), change_of(domain)
    new = change(test.x)
    z, said = teacher_logits(student, new), answers_to(domain, new, seed)
    named = said.argmax(-1)
    top = named.mode().values.item()
    missed = z.argmax(-1) != test.y
    share = torch.zeros(10, 10).index_put((test.y, named), torch.ones(len(named)), accumulate=True)
    share = share / share.sum(1, keepdim=True)
    bias = bias_for(teacher_logits(student, change(val.x)), [top], (val.y == top).double().mean().item())
    per_cent = {
        "missed": missed,
        "repeated": missed & (z.argmax(-1) == named),
        "by_class": missed * share[test.y, z.argmax(-1)],
        "says_top": z.argmax(-1) == top,
        "teacher_says_top": named == top,
    }
    return {
        "part": "test",
        "labelled": accuracy(teacher_logits(student, few.x), few.y),
        "accuracy": accuracy(z, test.y),
        **{name: 100 * of.double().mean().item() for name, of in per_cent.items()},
        "mended": accuracy(z + bias * F.one_hot(torch.tensor(top), 10), test.y),
        "teacher": accuracy(said, test.y),
    }


def repeated_one(domain: str, answers: str, alpha: float, seed: int) -> dict:
    return repeated_of(domain, tuple(REPORTED))[seed, answers, alpha]


def repeated() -> None:
    about = "Students of 100 labels and a mostly wrong teacher: mistakes (% of new images), the teacher's own or not"
    configs = [
        {"domain": domain, "answers": answers, "alpha": alpha, "seed": seed}
        for domain, (answers, alpha), seed in product(("40°", "90°"), MIXED, REPORTED)
    ]
    run_all("06_repeated", about, configs, repeated_one)


def labels_of(domain: str, labels: int, seed: int) -> Split:
    train, val, _ = digits(seed)
    few, change = train.sample(10, seed), change_of(domain)
    if labels == 100:
        return Split(change(few.x), few.y)
    return Split(change(torch.cat([few.x, val.x])), torch.cat([few.y, val.y]))


@lru_cache(maxsize=1)
def rule_of(domain: str, labels: int, seeds: tuple) -> dict:
    """The rule of 6.4 as a reader would follow it, who has these labels and no others.

    The labels are split in four parts; each part judges students of the three others, one for each α; the α that is
    best on average (the smallest such) learns from all labels. `alpha_once`: by the first part alone.
    """
    known = {s: labels_of(domain, labels, s) for s in seeds}
    told = {s: answers_to(domain, known[s].x, s) for s in seeds}
    part = {s: torch.randperm(labels, generator=torch.Generator().manual_seed(s)) % PARTS for s in seeds}
    tried = list(product(seeds, (*range(PARTS), PARTS), ALPHAS))  # the last "part" leaves nothing out
    kept = [part[s] != p for s, p, _ in tried]
    students = pupils(
        [Split(known[s].x[k], known[s].y[k]) for (s, _, _), k in zip(tried, kept, strict=True)],
        [told[s][k] for (s, _, _), k in zip(tried, kept, strict=True)],
        [alpha for *_, alpha in tried],
        rate_of(domain, labels),
        [s for s, *_ in tried],
    )
    by = dict(zip(tried, students, strict=True))
    return {s: chosen(by, known[s], told[s], part[s], domain, s) for s in seeds}


def chosen(by: dict, known: Split, told, part, domain: str, seed: int) -> dict:
    right = torch.zeros(PARTS, len(ALPHAS))
    for p, (a, alpha) in product(range(PARTS), enumerate(ALPHAS)):
        judge = part == p
        z = teacher_logits(by[seed, p, alpha], known.x[judge])
        right[p, a] = (z.argmax(-1) == known.y[judge]).sum()
    best, once = (max(range(len(ALPHAS)), key=lambda a: (n[a].item(), -a)) for n in (right.sum(0), right[0]))
    test = digits(seed)[2]
    new = change_of(domain)(test.x)
    last = [accuracy(teacher_logits(by[seed, PARTS, alpha], new), test.y) for alpha in ALPHAS]
    return {
        "part": "test",
        "teacher": accuracy(answers_to(domain, new, seed), test.y),
        "teacher_on_labels": accuracy(told, known.y),
        "alone_on_labels": 100 * right[:, 0].sum().item() / len(known),
        "alpha": ALPHAS[best],
        "accuracy": last[best],
        "alpha_once": ALPHAS[once],
        "accuracy_once": last[once],
        **{f"at_{alpha}".replace(".", "_"): r for alpha, r in zip(ALPHAS, last, strict=True)},
    }


def rule_one(domain: str, labels: int, seed: int) -> dict:
    return rule_of(domain, labels, FIVE)[seed]


def rule() -> None:
    about = (
        "The weight of the answers, chosen on four parts of the labels, then all labels: right answers (%)"
    )
    for labels, domain in product((397, 100), SHOWN):
        configs = [{"domain": domain, "labels": labels, "seed": seed} for seed in FIVE]
        run_all("06_rule", about, configs, rule_one)


if __name__ == "__main__":
    near()
    repeated()
    rule()
