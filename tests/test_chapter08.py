"""Chapter 8: its equations, its exercises, and a narrow student at a high temperature."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from companion import checks, data
from companion.losses import distillation_loss
from companion.metrics import agreement
from companion.models import MLP
from companion.training import fit, teacher_logits
from experiments import chapter08, chapter08_forecast, chapter20
from experiments.common import stored
from tests.test_notebooks import ROOT, defined


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


def test_the_pages_two_parts_take_own_images_first():
    """Counted by hand: wrong on 1 of 4 of its own images, and on 2 of 4 new ones: 25 + 25, not 50 − 25."""
    needs = "from companion.metrics import agreement\nfrom companion.training import predict"
    missed = defined(ROOT / "chapters/08_outlook.ipynb", "def missed", needs)["missed"]
    own, new = (data.Split(torch.eye(4) * k, torch.arange(4)) for k in (1.0, 2.0))

    class Said(torch.nn.Module):
        def __init__(self, own, new):
            super().__init__()
            self.said = {1.0: torch.tensor(own), 2.0: torch.tensor(new)}

        def forward(self, x):
            return torch.eye(4)[self.said[x.max().item()]]

    teacher = Said([0, 1, 2, 3], [3, 2, 1, 0])
    assert missed(Said([0, 1, 2, 0], [3, 2, 0, 1]), teacher, own, new) == pytest.approx((25, 25))
    assert missed(Said([0, 0, 0, 0], [3, 2, 1, 0]), teacher, own, new) == pytest.approx((75, -75))


def test_evened_answers_are_those_that_the_runs_learned_from():
    """The page divides probabilities, the runs subtract offsets from logits; and a favoured class loses what it had."""
    evened = defined(ROOT / "chapters/08_outlook.ipynb", "def evened", "import torch")["evened"]
    v = torch.randn(500, 10, generator=torch.Generator().manual_seed(0)) * 3 + torch.arange(10) * 0.7
    assert torch.allclose(evened(v.softmax(-1)), (v - chapter20.matched_offsets(v)).softmax(-1), atol=1e-5)
    found = evened(torch.tensor([[0.998, 0.002], [0.95, 0.05]], dtype=torch.double))
    d = (
        499 * 19
    ) ** 0.5  # the divisor of the first class: then the two answers' odds are inverse to each other
    assert found[:, 0].tolist() == pytest.approx([499 / (499 + d), 19 / (19 + d)])


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


@pytest.mark.parametrize("hint", REGRET)
def test_check_of_the_regret(hint, capsys):
    checks.regret(REGRET[hint])
    assert hint in capsys.readouterr().out


def test_a_narrow_student_at_a_high_temperature_comes_back_as_stored():
    rows = stored("08_room")
    rows = rows[(rows["width"] == 8) & (rows["T"] == 16) & (rows["steps"] == 600)]
    (row,) = rows[rows["seed"] == 3]
    found = chapter08.room_one(width=8, T=16.0, steps=600, lr=float(row["lr"]), seed=3)
    assert [found[k] for k in found] == pytest.approx([row[k] for k in found], abs=1.5)


@pytest.mark.parametrize(("per_class", "steps"), [(10, 75), (100, 300)])
def test_a_student_of_few_steps_comes_back_as_stored(per_class, steps):
    rows = stored("08_advice")
    kind = (rows["per_class"] == per_class) & (rows["steps"] == steps)
    (row,) = rows[kind & (rows["seed"] == 3)]
    found = chapter08.advice_one(per_class=per_class, steps=steps, lr=float(row["lr"]), seed=3)
    assert [found[k] for k in found] == pytest.approx([row[k] for k in found], abs=1.5)


def test_a_student_of_a_temperature_comes_back_as_stored():
    """Its own hundred validation images, too: one image is a point."""
    rows = stored("08_temperature")
    kind = (rows["width"] == 8) & (rows["per_class"] == 10) & (rows["T"] == 4)
    (row,) = rows[kind & (rows["seed"] == 3)]
    found = chapter08.temperature_one(width=8, per_class=10, T=4.0, lr=float(row["lr"]), seed=3)
    assert [found[k] for k in found] == pytest.approx([row[k] for k in found], abs=2)


def test_no_image_of_the_forecast_has_two_uses(monkeypatch):
    every = data.Split(torch.zeros(60_000, 1), torch.arange(60_000))
    monkeypatch.setattr(chapter08_forecast, "fashion_full", lambda folder: (every, every[:7]))
    chapter08_forecast.parts.cache_clear()
    parts = chapter08_forecast.parts()
    chapter08_forecast.parts.cache_clear()
    used = torch.cat([parts[name].y for name in ("teacher", "own", "val")])
    assert len(parts["test"]) == 7 and len(parts["own"]) == 24_000
    assert used.sort().values.equal(every.y)  # each once


def test_the_forecast_was_judged_as_it_was_printed():
    """Line, rival and middle from the table by other means; rates by validation, from a grid whose edge does not win."""
    rows, gain = stored("08_forecast"), {}
    for images in (300, 1_000, 3_000, 9_000, 24_000):
        found = {}
        for loss in chapter08_forecast.LOSSES:
            here = rows[(rows["images"] == images) & (rows["loss"] == loss)]
            tried, told = here[here["seed"] >= 100], here[here["seed"] < 100]
            means = {lr: tried["accuracy"][tried["lr"] == lr].mean() for lr in set(tried["lr"].tolist())}
            best = max(means, key=means.get)
            assert min(means) < best < max(means)
            told = told[told["lr"] == best]
            assert sorted(told["seed"]) == list(range(10))
            found[loss] = told["accuracy"][np.argsort(told["seed"])]
        gain[images] = found["kd T=4"] - found["hard"]
    x, y = np.log([300, 1_000, 3_000]), [gain[n].mean() for n in (300, 1_000, 3_000)]
    fit_ = stats.linregress(x, y)
    middle = (fit_.intercept + fit_.slope * np.log(24_000) + gain[9_000].mean()) / 2
    low, high = stats.t.interval(0.95, 9, gain[24_000].mean(), stats.sem(gain[24_000]))
    assert 0 < low < middle < high
