"""Why may a contrastive loss help a ConvNet and not an MLP? Other numbers to compare, and a look at the features.

    python -m experiments.chapter13_inside     # resumes where it stopped; a few minutes on one core

First, the contrastive loss of chapter 13 with the other side's view of the teacher: the ConvNet is compared with the
means of the teacher's maps, the MLP with the maps themselves. Nine tries each and ten test runs, as on the bench.
Second, the students of the bench are trained once more and their last features are asked, on test images: whose class
has the nearest training image (cosine, the student's own 1,000), what does a linear probe find that was fitted to
10,000 other images with labels, and how often does a linear map, fitted on the student's own images, find the teacher's
features of the same image among fifty?
"""

import numpy as np
import torch
from torch import Tensor, nn

from companion import features
from companion.metrics import accuracy
from companion.training import predict
from experiments.chapter13 import (
    BATCH,
    CHOSEN,
    KNOBS,
    MORE_TRIES,
    RESPONSES,
    SETS,
    SETTINGS,
    STEPS,
    STUDENTS,
    THREES,
    data,
    lesson,
    network,
    pooled,
    regressor,
    told_of_inside,
    trained,
    walk,
)  # fmt: skip
from experiments.common import REPORTED, TUNING, group, run_all, stored
from experiments.stacked import fit_stacked

torch.set_num_threads(1)
OTHER = {"conv": "kd+means", "mlp": "kd+maps"}
ASKED = ("kd", MORE_TRIES, "kd+contrastive")
PROBED = 10_000
ABOUT = "Accuracy (%) where the contrastive loss compares the ConvNet with means, the MLP with maps; nine tries each"
LOOKED = "Test accuracy; nearest neighbour; linear probe (10,000 labels); own image found among 50 (all in %)"


def loss_of(method: str, knob: float, T: float, classes: int):
    """As on the bench, but the ConvNet's maps are averaged on both sides, and the MLP meets the maps."""

    def loss(z, s, r, told, y):
        v, last = told[:, :classes], told[:, classes : classes + 1024]
        maps = last.unflatten(-1, (64, 4, 4))
        r, u = (pooled(r), pooled(maps)) if method == "kd+means" else (r, last)
        return RESPONSES["kd"](z, v, y, T) + knob * features.contrastive_loss(r, u)

    return loss


def larger(student: str, seed: int) -> nn.Module:
    """The ConvNet's regressor stays; the MLP's leads to as many numbers as the maps have."""
    if student == "conv":
        return regressor(student, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(64, 1024)


def chosen(name: str, student: str, method: str) -> tuple[float, float]:
    rows = stored(f"13_{name}")
    here = (rows["student"] == student) & (rows["method"] == method) & (rows["part"] == "test")
    return rows[here]["lr"][0].item(), rows[here]["knob"][0].item()


def trained_otherwise(name: str, student: str, method: str, lr: float, knob: float, seeds) -> list:
    classes, T = SETS[name][2], chosen(name, student, "kd")[1]
    lessons = [lesson(name, s) for s in seeds]
    nets = [network(student, classes, s) for s in seeds]
    one = loss_of(method, knob, T, classes)

    def of_all(z, s, r, told, y):
        return sum(one(*row) for row in zip(z, s[-1], r, told, y, strict=True))

    fit_stacked(
        nets, [images for images, _, _ in lessons], of_all, [inside for _, _, inside in lessons],
        regressors=[larger(student, s) for s in seeds], steps=STEPS, batch_size=BATCH, lr=lr, weight_decay=0.01,
        seeds=seeds,
    )  # fmt: skip
    return nets


made = {}


def once(key: tuple, seed: int, train) -> nn.Module:
    """The student of this seed; those of a group of seeds are trained together."""
    if (key, seed) not in made:
        made.clear()
        made.update({(key, s): net for s, net in zip(group(seed), train(group(seed)), strict=True)})
    return made[key, seed]


def compared(set: str, student: str, method: str, lr: float, knob: float, seed: int) -> dict:
    key = set, student, method, lr, knob
    net = once(key, seed, lambda seeds: trained_otherwise(set, student, method, lr, knob, seeds))
    part = data(set)[1 if seed in TUNING else 2]
    return {"part": "val" if seed in TUNING else "test", "accuracy": accuracy(predict(net, part.x), part.y)}


@torch.no_grad()
def last_features(net: nn.Module, x: Tensor) -> Tensor:
    """(N, 256) of a ConvNet(4), after the last ReLU; (N, 64) of the MLP's hidden units."""
    parts = [net.eval().features(part) for part in x.split(1000)]
    return torch.cat([(part[-1] if isinstance(part, (list, tuple)) else part).flatten(1) for part in parts])


def ridge(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """Weights of the linear map from x to y; both are centred. The strength is in units of the mean variance of x."""
    gram = x.T @ x
    return torch.linalg.solve(gram + strength * gram.diagonal().mean() * torch.eye(len(gram)), x.T @ y)


def mapped(x: Tensor, y: Tensor, strength: float, *others: Tensor) -> list[Tensor]:
    mean, about = x.mean(0), y.mean(0)
    w = ridge(x - mean, y - about, strength)
    return [(other - mean) @ w + about for other in others]


def right(scores: Tensor, y: Tensor) -> float:
    return 100 * (scores.argmax(1) == y).float().mean().item()


def looked_at(net: nn.Module, name: str, seed: int) -> dict:
    """What the last features tell of the test images. Ridge strengths are chosen on validation images."""
    train, val, test = data(name)
    own, _, inside = lesson(name, seed)
    classes, teacher = SETS[name][2], SETS[name][1](seed % 10)
    h, h_val, h_test = (last_features(net, part.x) for part in (own, val, test))
    near = (torch.nn.functional.normalize(h_test) @ torch.nn.functional.normalize(h).T).argmax(1)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    more = train[order[1000 : 1000 + PROBED]]
    h_more, hot = last_features(net, more.x), torch.nn.functional.one_hot(more.y, classes).float()
    strengths = (1e-4, 1e-3, 1e-2, 1e-1)
    probe = [mapped(h_more, hot, s, h_val, h_test) for s in strengths]
    best = max(probe, key=lambda both: right(both[0], val.y))
    t = pooled(inside[:, classes : classes + 1024].unflatten(-1, (64, 4, 4)))
    t_val, t_test = (
        pooled(told_of_inside(teacher, part.x)[:, :1024].unflatten(-1, (64, 4, 4))) for part in (val, test)
    )
    maps = [mapped(h, t, s, h_val, h_test) for s in (*strengths, 1.0)]
    guess = max(maps, key=lambda both: found(both[0], t_val, t.mean(0)))[1]
    return {
        "nearest": 100 * (own.y[near] == test.y).float().mean().item(),
        "probe": right(best[1], test.y),
        "found": found(guess, t_test, t.mean(0)),
    }


def found(guess: Tensor, t: Tensor, centre: Tensor) -> float:
    """% of images whose guessed features are nearer (cosine) to the teacher's own than to those of 49 others."""
    guess, t = (torch.nn.functional.normalize(x - centre) for x in (guess, t))
    hits = [
        (a @ b.T).argmax(1) == torch.arange(len(a)) for a, b in zip(guess.split(50), t.split(50), strict=True)
    ]
    return 100 * torch.cat(hits).float().mean().item()


def asked(set: str, student: str, method: str, seed: int) -> dict:
    if method in OTHER.values():
        rows = stored("13_compared")
        here = (rows["set"] == set) & (rows["method"] == method) & (rows["part"] == "test")
        lr, knob = rows[here]["lr"][0].item(), rows[here]["knob"][0].item()
        net = once(
            (set, student, method), seed, lambda s: trained_otherwise(set, student, method, lr, knob, s)
        )
    else:
        CHOSEN[set, student, "kd"] = {"knob": chosen(set, student, "kd")[1]}
        lr, knob = chosen(set, student, method)
        net = once((set, student, method), seed, lambda s: trained(set, student, method, lr, knob, s))
    test = data(set)[2]
    return {"accuracy": accuracy(predict(net, test.x), test.y), **looked_at(net, set, seed)}


def of_teacher(set: str, seed: int) -> dict:
    test = data(set)[2]
    return {"accuracy": accuracy(predict(SETS[set][1](seed), test.x), test.y)}


def main() -> None:
    taught = [{"set": name, "seed": s} for name in SETS for s in REPORTED]
    run_all("13_teachers", "Test accuracy (%) of the ten teachers of each set", taught, of_teacher)
    starts = {m: (STUDENTS[student], KNOBS["kd+contrastive"][1]) for student, m in OTHER.items()}
    for name in SETS:
        for student, method in OTHER.items():
            of = {"set": name, "student": student, "method": method}

            def rows(lr, knob, seeds, of=of):
                configs = [{**of, "lr": lr, "knob": knob, "seed": s} for s in seeds]
                table = run_all("13_compared", ABOUT, configs, compared)
                here = np.all([table[k] == configs[0][k] for k in ("set", "method", "lr", "knob")], axis=0)
                return table[here & np.isin(table["seed"], list(seeds))]["accuracy"]

            def score(lr, knob, rows=rows):
                return rows(lr, knob, TUNING).mean()

            first, knob = starts[method]
            lr, knob = walk(score, first, THREES, knob, SETTINGS)
            starts[method] = lr, knob  # letters begin where clothes ended
            rows(lr, knob, REPORTED)
    for name in SETS:
        for student in STUDENTS:
            configs = [
                {"set": name, "student": student, "method": m, "seed": s}
                for m in (*ASKED, OTHER[student])
                for s in REPORTED
            ]
            run_all("13_inside", LOOKED, configs, asked)


if __name__ == "__main__":
    main()
