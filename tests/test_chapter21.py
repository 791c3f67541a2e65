"""Chapter 21: its equations, its worked examples, its exercise, and one stored run of each kind made again."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import recall_score

from companion import checks
from experiments import chapter21
from experiments.common import stored


@pytest.mark.equation("eq-long-tail")
def test_long_tail():
    """The images that are drawn: from 500 of a class to 5, each time the same share fewer, and ranks dealt anew."""
    tails = [chapter21.long_tail(seed).y.bincount(minlength=10) for seed in (0, 1)]
    assert not torch.equal(*tails)
    for counts in tails:
        counts = counts.sort(descending=True).values.numpy()
        assert counts[0] == 500 and counts[-1] == 5
        assert np.all(abs(counts[1:] - counts[:-1] * 100 ** (-1 / 9)) <= 1)  # rounded to whole images


@pytest.mark.equation("eq-worst-class")
def test_worst_class_is_the_smallest_recall():
    generator = torch.Generator().manual_seed(0)
    y, named = torch.randint(0, 5, (2, 60), generator=generator)
    worst = min((named[y == c] == c).double().mean() for c in range(5))
    assert worst == pytest.approx(recall_score(y, named, average=None).min(), rel=1e-12)


def test_two_soft_answers_find_the_border_and_a_guess_is_handed_on():
    """The worked example of 21.1: the line through two answers is 0 where the teacher's is, right or not."""
    x = np.array([0.2, 0.6])
    for border, answers in ((0.5, (-3, 1)), (0.4, (-2, 2))):
        assert np.allclose(10 * (x - border), answers)
        slope, start = np.polyfit(x, 10 * (x - border), 1)
        assert -start / slope == pytest.approx(border)


@pytest.mark.equation("eq-balanced-labels")
def test_balanced_labels_leave_no_preference():
    """The worked example of 21.2: fitted with the bonus, nine coats and a pullover leave both logits alike."""
    y, prior = torch.tensor([0] * 9 + [1]), torch.tensor([0.9, 0.1], dtype=torch.double).log()
    for bonus, share in ((0 * prior, 0.9), (prior, 0.5)):
        z = torch.zeros(2, dtype=torch.double, requires_grad=True)
        for _ in range(400):
            (slope,) = torch.autograd.grad(F.cross_entropy((z + bonus).expand(10, 2), y), z)
            z = (z - 2 * slope).detach().requires_grad_()
        assert z.softmax(-1)[0].item() == pytest.approx(share, abs=1e-4)


def test_each_half_is_answered_by_a_teacher_of_the_other(monkeypatch):
    """`halves`: no teacher answers an image that it learned."""
    learned = {}

    def fit(teacher, images, **more):
        learned[id(teacher)] = {tuple(row) for row in images.x.flatten(1)[:, 300:340].tolist()}
        teacher.learned = learned[id(teacher)]

    def answers(teacher, x):
        asked = {tuple(row) for row in x.flatten(1)[:, 300:340].tolist()}
        assert len(asked & teacher.learned) < 0.02 * len(asked)  # blank rows are alike
        return torch.zeros(len(x), 10)

    images = chapter21.TRAIN[torch.arange(400)]
    monkeypatch.setattr(chapter21, "fit", fit)
    monkeypatch.setattr(chapter21, "teacher_logits", answers)
    monkeypatch.setattr(chapter21, "noisy", lambda seed: (images, None))
    assert chapter21.halves.__wrapped__(7).shape == (400, 10)
    assert sorted(len(x) for x in learned.values()) == [200, 200] or len(learned) == 2


def test_mixed_up_labels_are_as_many_and_always_the_same(monkeypatch):
    """`mixed_up`: a wrong label on the images of `noisy`, now one other class for each; as common as before."""
    monkeypatch.setattr(chapter21, "fit", lambda *inputs, **more: None)
    true = chapter21.TRAIN.sample(900, 3).y
    random, same = (f.__wrapped__(3)[0].y for f in (chapter21.noisy, chapter21.mixed_up))
    assert torch.equal(random != true, same != true)
    assert torch.equal(same[same != true], chapter21.ALIKE[true][same != true])
    assert sorted(chapter21.ALIKE.tolist()) == list(range(10)) and chapter21.ALIKE[6] == 4  # shirt, coat


def said(check, attempt, capsys):
    check(attempt)
    return capsys.readouterr().out.strip()


def per_class(z, y, of=None):
    of = y if of is None else of
    return [100 * (z.argmax(-1) == y)[of == c].double().mean() for c in range(5)]


def known(values):
    return torch.stack([value for value in values if not value.isnan()])


WORST = {
    "✓ worst_class": lambda z, y: known(per_class(z, y)).min(),
    "over all examples": lambda z, y: 100 * (z.argmax(-1) == y).double().mean(),
    "mean of the classes": lambda z, y: known(per_class(z, y)).mean(),
    "per cent": lambda z, y: known(per_class(z, y)).min() / 100,
    "precision": lambda z, y: known(per_class(z, y, z.argmax(-1))).min(),
    "0/0 is NaN": lambda z, y: torch.stack(per_class(z, y)).min(),
    "counts as 0 %": lambda z, y: torch.stack(per_class(z, y)).nan_to_num(0).min(),
    "best class": lambda z, y: known(per_class(z, y)).max(),
    "not attempted": lambda z, y: None,
}


@pytest.mark.parametrize("hint", WORST)
def test_check_of_the_worst_class(hint, capsys):
    assert hint in said(checks.worst_class, WORST[hint], capsys)


@pytest.mark.parametrize(
    ("name", "one", "setting"),
    [
        ("21_tail_ranks", chapter21.ranks_one, {"loss": "balanced"}),
        ("21_same_images", chapter21.same_images_one, {"teacher": "clean same", "loss": "kd T=4"}),
        ("21_own_few", chapter21.own_few_one, {"per_class": 10}),
        ("21_own_many", chapter21.own_many_one, {"per_class": 10}),
        ("21_balanced_teacher", chapter21.balanced_teacher_one, {"teacher": "balanced"}),
        ("21_halves", chapter21.halves_one, {"loss": "kd T=1"}),
        ("21_shares", chapter21.shares_one, {"teacher": "halves"}),
        ("21_mixed_up", chapter21.mixed_up_one, {"teacher": "own", "loss": "argmax"}),
        ("21_tail_teacher", chapter21.tail_teacher_one, {"teacher": "own"}),
    ],
)
def test_stored_runs_come_back(name, one, setting):
    """One run of each kind, as good as stored; another processor may move a few images."""
    rows = stored(name)
    for key, value in (setting | {"seed": 0}).items():
        rows = rows[rows[key] == value]
    (row,) = rows
    chosen = {"lr": float(row["lr"])} if "lr" in rows.dtype.names else {}
    found = one(**setting, **chosen, seed=0)
    near = {"accuracy": 1.6, "named": 2.0, "right": 2.0, "wrong_label": 2.0}
    assert set(found) & set(near)
    for key in set(found) & set(near):
        assert found[key] == pytest.approx(row[key], abs=near[key]), key
