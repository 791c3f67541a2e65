"""Chapter 8: its equations, its two exercises, and a teacher that has hardly seen one class."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from companion import checks, data
from companion.data import Split
from companion.losses import distillation_loss
from companion.metrics import accuracy, agreement, paired_interval
from companion.models import MLP
from companion.training import fit, teacher_logits
from experiments import chapter08
from experiments.common import stored

RARE = 8


@pytest.mark.erratum("T16")
def test_a_student_inherits_the_class_that_its_teacher_neglects():
    """Its own images are balanced; taught, it names the rare class less often than alone, as its teacher does."""
    right = {"teacher": [], "taught": [], "alone": []}
    for seed in range(5):
        train, _, test = data.digits(seed)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        mine, others = train[order[:300]], train[order[300:]]
        rare = (others.y == RARE).nonzero()[:2, 0]
        others = others[torch.cat([(others.y != RARE).nonzero()[:, 0], rare])]
        models = {name: MLP(64, 64, 10, seed=seed) for name in right}
        fit(models["teacher"], others, steps=300, lr=3e-3, seed=seed)
        soft = partial(distillation_loss, T=4, alpha=1)
        fit(models["taught"], mine, soft, models["teacher"], steps=300, lr=5e-3, seed=seed)
        fit(models["alone"], mine, steps=300, lr=5e-3, seed=seed)
        of_class = test[test.y == RARE]
        for name, model in models.items():
            right[name].append(accuracy(teacher_logits(model, of_class.x), of_class.y))
    assert paired_interval(right["alone"], right["teacher"]).low > 10
    assert paired_interval(right["alone"], right["taught"]).low > 10


@pytest.mark.equation("eq-not-followed")
def test_a_student_with_room_and_steps_has_nothing_unfitted():
    """A network can memorise ten answers: then all its disagreement is on new images. Untrained, most is on both."""
    train, _, test = data.digits(0)
    teacher, student = MLP(64, 256, 10, seed=0), MLP(64, 256, 10, seed=1)
    fit(teacher, train, steps=300, lr=3e-3)
    few = train[:10]

    def parts():
        seen = agreement(teacher_logits(student, few.x), teacher_logits(teacher, few.x))
        new = agreement(teacher_logits(student, test.x), teacher_logits(teacher, test.x))
        return 100 - seen, seen - new, 100 - new

    before = parts()
    fit(student, few, partial(distillation_loss, T=4, alpha=1), teacher, steps=300, lr=3e-3)
    after = parts()
    for not_fitted, not_generalised, missing in (before, after):
        assert not_fitted + not_generalised == pytest.approx(missing)
    assert before[0] > 50
    assert after[0] == 0 and after[1] > 20


@pytest.mark.equation("eq-regret")
def test_regret_falls_with_the_noise_of_the_choice_and_is_never_negative():
    """A blind choice pays most, one by noisy scores less the less noise there is; that by the test itself nothing."""
    generator = np.random.default_rng(0)
    truth = np.array([80.0, 82.0, 83.0, 81.0, 79.0])
    test = truth + generator.normal(0, 0.3, (4000, 5))

    def regret(pick):
        each = test.max(1) - test[np.arange(4000), pick]
        assert (each >= 0).all()
        return each.mean()

    assert regret(test.argmax(1)) == 0
    blind = regret(generator.integers(0, 5, 4000))
    assert blind == pytest.approx(test.max(1).mean() - truth.mean(), abs=0.1)
    noisy = [regret((truth + generator.normal(0, s, (4000, 5))).argmax(1)) for s in (0.1, 1.0, 4.0)]
    assert noisy[0] + 0.2 < noisy[1] < noisy[2] - 0.2 < blind


def test_even_the_best_fixed_temperature_has_a_regret():
    """Among five networks that differ by luck alone, the best one is ahead of any that was named beforehand."""
    test = np.random.default_rng(1).normal(80, 0.3, (4000, 5))
    best_fixed = test.mean(0).argmax()
    luck = (test.max(1) - test[:, best_fixed]).mean()
    assert luck == pytest.approx(1.163 * 0.3, abs=0.02)  # the mean of the largest of five normal draws


@pytest.mark.equation("eq-log-prior")
def test_less_the_log_prior_is_the_posterior_of_balanced_classes():
    """Three normal densities of known shares: the logits of one posterior become those of the balanced one."""
    x = np.linspace(-4, 4, 41)
    density = np.stack([stats.norm(mean, 1).pdf(x) for mean in (-1, 0, 2)], 1)
    counts = np.array([700.0, 70.0, 7.0])
    posterior = density * counts / (density * counts).sum(1, keepdims=True)
    v = torch.tensor(posterior).log() + torch.linspace(-3, 3, 41, dtype=torch.double)[:, None]
    corrected = v - torch.tensor(counts / counts.sum()).log()
    balanced = density / density.sum(1, keepdims=True)
    assert np.allclose(corrected.softmax(-1), balanced, rtol=1e-10)
    assert (posterior.argmax(1) > 0).mean() < 0.5 * (balanced.argmax(1) > 0).mean()


@pytest.mark.parametrize("rare", [700, 100, 7])
def test_a_teacher_that_knows_both_densities_still_gives_up_the_rare_class(rare):
    """The moving figure's share: two normals at ±1, counted where the posterior of the rare one is above one half."""
    x = np.linspace(-8, 8, 200_001)
    common, seldom = (stats.norm(mean, 1).pdf(x) for mean in (-1, 1))
    posterior = rare * seldom / (rare * seldom + 700 * common)
    counted = seldom[posterior > 0.5].sum() * (x[1] - x[0])
    assert stats.norm.cdf(1 - np.log(700 / rare) / 2) == pytest.approx(counted, abs=1e-4)


# ----------------------------------------------------------------------------------------------- exercises


def picked(val, test):
    return torch.stack([row[i] for row, i in zip(test, val.argmax(1), strict=True)])


def top(test):
    return test.max(1).values


REGRET = {
    "✓ regret": lambda val, test: (top(test) - picked(val, test)).mean(),
    "turned round": lambda val, test: (picked(val, test) - top(test)).mean(),
    "of each seed: take the mean": lambda val, test: top(test) - picked(val, test),
    "saw the test scores": lambda val, test: (top(test) - top(test)).mean(),
    "validation score of the choice": lambda val, test: (top(test) - val.max(1).values).mean(),
    "not one temperature for all seeds": lambda val, test: test.mean(0).max() - picked(val, test).mean(),
    "for all seeds together": lambda val, test: top(test).mean() - test[:, val.mean(0).argmax()].mean(),
    "mixed up": lambda val, test: (top(test.T) - picked(val.T, test.T)).mean(),
    "the result differs": lambda val, test: test.sum(),
    "not attempted": lambda val, test: None,
}


def shares(counts):
    return counts / counts.sum()


BALANCED = {
    "✓ balanced_targets": lambda v, n, T: ((v - n.log()) / T).softmax(-1),
    "nothing is taken off": lambda v, n, T: (v / T).softmax(-1),
    "more common still": lambda v, n, T: ((v + n.log()) / T).softmax(-1),
    "the logarithm is missing": lambda v, n, T: ((v - shares(n)) / T).softmax(-1),
    "the counts are taken off": lambda v, n, T: ((v - n) / T).softmax(-1),
    "T divides the teacher's logits only": lambda v, n, T: (v / T - n.log()).softmax(-1),
    "T has no effect": lambda v, n, T: (v - n.log()).softmax(-1),
    "do not sum to 1": lambda v, n, T: (v / T).softmax(-1) / shares(n),
    "these are logits": lambda v, n, T: (v - shares(n).log()) / T,
    "over the examples": lambda v, n, T: ((v - n.log()) / T).softmax(0),
    "the result differs": lambda v, n, T: v.sum(-1),
    "not attempted": lambda v, n, T: None,
}


@pytest.mark.parametrize("hint", REGRET)
def test_check_of_the_regret(hint, capsys):
    checks.regret(REGRET[hint])
    assert hint in capsys.readouterr().out


@pytest.mark.parametrize("hint", BALANCED)
def test_check_of_the_balanced_targets(hint, capsys):
    checks.balanced_targets(BALANCED[hint])
    assert hint in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "one"), [("08_multiples", chapter08.multiple_one), ("08_both", chapter08.both_one)]
)
def test_students_of_a_corrected_teacher_come_back_as_stored(name, one):
    """One run of each; another processor may move a few of the thousand images of a class."""
    rows = stored(name)
    (row,) = rows[(rows["factor"] == 1.5) & (rows["seed"] == 3)]
    found = one(factor=1.5, lr=float(row["lr"]), seed=3)
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.4)
    assert [found[f"c{i}"] for i in range(3)] == pytest.approx([row[f"c{i}"] for i in range(3)], abs=2)


def test_a_teacher_calibrated_on_its_own_kind_comes_back_as_stored():
    rows = stored("08_sure")
    (row,) = rows[(rows["factor"] == 1.0) & (rows["seed"] == 3)]
    found = chapter08.sure_one(factor=1.0, seed=3)
    assert found["T"] == pytest.approx(row["T"], rel=0.03)
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.4)


@pytest.mark.parametrize("learns_from", ["answers", "answers and labels"])
def test_a_student_of_a_calibrated_teacher_comes_back_as_stored(learns_from):
    rows = stored("08_calibrated")
    (row,) = rows[(rows["learns_from"] == learns_from) & (rows["seed"] == 3)]
    found = chapter08.calibrated_one(learns_from, lr=float(row["lr"]), seed=3)
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.4)
    assert [found[f"c{i}"] for i in range(3)] == pytest.approx([row[f"c{i}"] for i in range(3)], abs=2)


def test_a_teacher_calibrated_by_few_labels_comes_back_as_stored():
    rows = stored("08_few")
    (row,) = rows[(rows["labels"] == 200) & (rows["seed"] == 3)]
    found = chapter08.few_one(labels=200, seed=3)
    assert found["T"] == pytest.approx(row["T"], rel=0.05)
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.4)


@pytest.mark.parametrize(("labels", "learns_from"), [(1000, "answers and labels"), (100, "answers")])
def test_a_student_whose_own_labels_calibrate_comes_back_as_stored(labels, learns_from):
    rows = stored("08_own_labels")
    (row,) = rows[(rows["labels"] == labels) & (rows["learns_from"] == learns_from) & (rows["seed"] == 3)]
    found = chapter08.own_labels_one(labels, learns_from, lr=float(row["lr"]), seed=3)
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.4)
    assert [found[f"c{i}"] for i in range(3)] == pytest.approx([row[f"c{i}"] for i in range(3)], abs=2)


def test_a_narrow_student_at_a_high_temperature_comes_back_as_stored():
    rows = stored("08_room")
    rows = rows[(rows["width"] == 8) & (rows["T"] == 16) & (rows["steps"] == 600)]
    (row,) = rows[rows["seed"] == 3]
    found = chapter08.room_one(width=8, T=16.0, steps=600, lr=float(row["lr"]), seed=3)
    assert [found[k] for k in found] == pytest.approx([row[k] for k in found], abs=1.5)


def test_the_fitted_temperature_finds_how_far_logits_were_stretched(monkeypatch):
    """Labels drawn from the softened logits of a made-up teacher, stretched by two, on classes as unequal as ours."""
    _, _, log_prior = chapter08.biased_split(3)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(len(chapter08.VAL), 10, generator=generator) + log_prior
    drawn = z.softmax(-1).multinomial(1, generator=generator)[:, 0]
    monkeypatch.setattr(chapter08, "VAL", Split(chapter08.VAL.x, drawn))
    # these labels are as unequal as the teacher's already, so no class needs another weight
    assert chapter08.own_temperature(2 * z, torch.zeros(10)) == pytest.approx(2, rel=0.1)


def test_a_student_of_a_teacher_of_evenly_spread_images_comes_back_as_stored():
    rows = stored("08_even")
    (row,) = rows[(rows["kind"] == "taught") & (rows["seed"] == 3)]
    found = chapter08.even_one(kind="taught", lr=float(row["lr"]), seed=3)
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.4)
    assert len(chapter08.biased_split(3)[1]) == 1737  # what the page says of both teachers
