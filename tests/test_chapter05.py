"""Chapter 5: its equations, and what it shows of the article's code."""

import ast
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from companion import data, metrics
from companion.models import MLP
from companion.training import fit, hard_loss, teacher_logits

ROOT = Path(__file__).parent.parent


def article_loss(y, probabilities, tau):
    """The article's 5.2, written from its text: two cross-entropies with the labels, over τ²."""
    of_label = probabilities[np.arange(len(y)), y]
    return (-np.log(of_label).mean() - np.log(of_label / tau).mean()) / tau**2


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(6, 4, generator=generator, dtype=torch.double, requires_grad=True)
    return z, torch.randint(0, 4, (6,), generator=generator)


@pytest.mark.equation("eq-article-loss")
@pytest.mark.erratum("C2")
@pytest.mark.erratum("C3")
@pytest.mark.parametrize("tau", [1.0, 2.0, 10.0])
def test_article_loss_is_a_multiple_of_cross_entropy_and_a_constant(batch, tau):
    z, y = batch
    value = article_loss(y.numpy(), z.detach().softmax(-1).numpy(), tau)
    expected = 2 / tau**2 * F.cross_entropy(z, y).item() + np.log(tau) / tau**2
    assert value == pytest.approx(expected, rel=1e-12)


@pytest.mark.erratum("C1")
@pytest.mark.erratum("T13")
def test_no_argument_of_the_article_loss_comes_from_the_teacher(batch):
    """Its gradient in the student's logits is 2/τ² times that of the labels' cross-entropy: no room for a teacher."""
    z, y = batch
    probabilities = z.softmax(-1)
    of_label = probabilities.gather(1, y[:, None])
    (ours,) = torch.autograd.grad(
        (-of_label.log().mean() - (of_label / 2).log().mean()) / 4, z, retain_graph=True
    )
    (plain,) = torch.autograd.grad(F.cross_entropy(z, y), z)
    assert torch.allclose(ours, plain / 2, rtol=1e-12)


@pytest.mark.erratum("C4")
def test_adam_does_not_see_a_factor_on_the_loss():
    def train(factor):
        w = torch.ones(3, dtype=torch.double, requires_grad=True)
        adam = torch.optim.Adam([w], lr=1e-2, eps=1e-20)
        for step in range(50):
            loss = factor * ((w - torch.tensor([0.0, 2.0, -1.0])) ** 2).sum() * (1 + step % 3)
            adam.zero_grad()
            loss.backward()
            adam.step()
        return w.detach()

    assert torch.allclose(train(1.0), train(0.5), rtol=1e-12)
    assert torch.allclose(train(1.0), train(2 / 9), rtol=1e-9)


@pytest.mark.erratum("C5")
def test_softmax_then_log_loses_what_log_softmax_keeps():
    z = torch.tensor([0.0, -110.0])
    assert z.softmax(-1).log()[1].isinf()
    assert z.log_softmax(-1)[1].item() == -110


@pytest.mark.erratum("C6")
def test_the_article_s_two_models_are_one():
    layers = [(100, 10), (10, 2)]  # both, as printed
    assert sum(i * o + o for i, o in layers) == 1032


@pytest.fixture(scope="module")
def twins():
    """Ten of the article's teachers, trained plainly, and ten of its students, with its loss: digits, 3 or 8."""
    train, _, test = data.digits(0)
    train, test = (
        data.Split(s.x[k], (s.y[k] == 8).long()) for s in (train, test) for k in [(s.y == 3) | (s.y == 8)]
    )

    def loss(z, v, y):
        of_label = z.softmax(-1).gather(1, y[:, None])
        return (-of_label.log().mean() - (of_label / 2).log().mean()) / 4

    def right(seed, loss):
        model = MLP(64, 10, 2, seed=seed)
        fit(model, train, loss, steps=300, lr=1e-3, batch_size=32, seed=seed)
        return metrics.accuracy(teacher_logits(model, test.x), test.y)

    return [[right(shift + seed, of) for seed in range(10)] for shift, of in ((0, hard_loss), (500, loss))]


@pytest.mark.erratum("T14")
def test_a_student_without_a_teacher_matches_it_too(twins):
    """So a match says nothing about distillation: the article's loss, which has no teacher in it, gives one."""
    teacher, student = twins
    assert min(teacher) > 80  # it has learnt something
    assert abs(metrics.paired_interval(student, teacher).mean) < 2


@pytest.mark.erratum("C9")
def test_one_run_finds_either_of_two_equal_methods_better(twins):
    differences = np.subtract(*twins)
    assert differences.min() < 0 < differences.max()


@pytest.mark.equation("eq-paired-interval")
def test_paired_interval_is_scipy_s():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 2, 10), rng.normal(0, 2, 10)
    ours = metrics.paired_interval(a, b)
    theirs = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-7)


@pytest.mark.equation("eq-gap")
def test_gap_recovered_by_hand():
    assert metrics.gap_recovered(student=80, baseline=70, teacher=90) == pytest.approx(0.5)
    assert metrics.gap_recovered(student=70, baseline=70, teacher=90) == 0


@pytest.mark.equation("eq-ece")
def test_calibration_error_by_hand():
    """Three examples of confidence 0.8, two of them right: |2/3 − 0.8|; one of 0.55, wrong: |0 − 0.55|."""
    p = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.45, 0.55]], dtype=torch.double)
    y = torch.tensor([0, 0, 1, 0])
    expected = 3 / 4 * abs(2 / 3 - 0.8) + 1 / 4 * 0.55
    assert metrics.calibration_error(p.log(), y, bins=10) == pytest.approx(100 * expected, rel=1e-9)


# --------------------------------------------------------------------------------- what is said of the ten pairs


def glued(path, name):
    """A number that a chapter's run gave to its text."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
                return ast.literal_eval(output["data"]["application/papermill.record/text/plain"])
    raise KeyError(name)


def test_the_pictures_texts_count_the_pairs_as_they_came_out():
    """For those who cannot see the figure: in one of the ten pairs the distilled student is not ahead."""
    chapter = ROOT / "chapters/05_project.ipynb"
    assert glued(chapter, "ch5_above") == 9
    figures = [c.metadata.get("mystnb", {}) for c in nbformat.read(chapter, as_version=4).cells]
    (alt,) = [f["image"]["alt"] for f in figures if f.get("figure", {}).get("name") == "fig-pairs"]
    (readme,) = re.findall(
        r"!\[([^\]]*)\]\(theme/static/readme-pairs\.svg\)", (ROOT / "README.md").read_text()
    )
    for text in (alt, readme):
        assert "In nine pairs" in text and not re.search(r"in each|every pair", text, re.I)


def test_the_intervals_of_six_comparisons_are_those_of_scipy():
    rng = np.random.default_rng(1)
    d = rng.normal(1, 2, 10)
    ours = metrics.paired_interval(d, level=1 - 0.05 / 6)
    theirs = stats.ttest_1samp(d, 0).confidence_interval(1 - 0.05 / 6)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-6)


def test_a_student_of_a_thousand_labels_and_their_shifted_copies_comes_back_as_stored():
    """Another processor may move a few of the ten thousand images."""
    from experiments import chapter05
    from experiments.common import stored

    rows = stored("05_thousand")
    (row,) = rows[(rows["lr"] == 0.001) & (rows["shift"] == 1) & (rows["seed"] == 3)]
    found = chapter05.train_one("hard", seed=3, per_class=100, steps=3000, lr=0.001, shift=1)
    assert row["part"] == found["part"] == "test"
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.6)


def test_validation_chose_the_setting_of_the_thousand_away_from_the_edges():
    from experiments import chapter05
    from experiments.common import stored

    rows = stored("05_thousand")
    tried = rows[rows["part"] == "val"]
    rates, shifts = np.unique(tried["lr"]), np.unique(tried["shift"])
    best = max(
        ((lr, shift) for lr in rates for shift in shifts),
        key=lambda s: chapter05.validation(rows, lr=s[0], shift=s[1]),
    )
    assert best == (0.001, 1)
    assert rates[0] < best[0] < rates[-1] and shifts[0] < best[1] < shifts[-1]
    assert set(rows["seed"][(rows["part"] == "test") & (rows["lr"] == best[0])]) == set(range(10))


def test_a_student_of_wrong_names_alone_comes_back_as_stored():
    """Another processor may move a few of the ten thousand images, and more where every name is wrong."""
    from experiments import chapter05
    from experiments.common import stored

    rows = stored("05_names")
    (row,) = rows[(rows["loss"] == "wrong") & (rows["seed"] == 3)]
    found = chapter05.train_one("wrong", seed=3, per_class=10, steps=3000, lr=row["lr"].item(), shift=4)
    assert row["part"] == found["part"] == "test"
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=1.5)


def test_students_of_right_and_of_wrong_names_share_the_views_between_them():
    """Each name counts for just one of the two, so together they are the student of all names."""
    from experiments import chapter05

    v = torch.randn(40, 10, generator=torch.Generator().manual_seed(1))
    z, y = torch.randn(40, 10, generator=torch.Generator().manual_seed(2)), v.argmax(-1).clone()
    y[:15] = (y[:15] + 1) % 10
    parts = [chapter05.PARTS[part](z, v, y) * n for part, n in (("right", 25), ("wrong", 15))]
    assert sum(parts).item() == pytest.approx(40 * chapter05.teacher_argmax(z, v, y).item(), rel=1e-5)


def test_the_maps_text_counts_nothing():
    """Their students are trained anew in each run, so a number typed for them is soon another run's."""
    cells_ = nbformat.read(ROOT / "chapters/05_project.ipynb", as_version=4).cells
    (about,) = [
        c.metadata["mystnb"]
        for c in cells_
        if c.metadata.get("mystnb", {}).get("figure", {}).get("name") == "fig-copy"
    ]
    assert not re.search(r"\d", about["image"]["alt"])


def test_a_student_of_the_validation_labels_and_one_of_the_further_pairs_come_back_as_stored():
    from experiments import chapter05
    from experiments.common import stored

    rows = stored("05_validation")
    (row,) = rows[(rows["seed"] == 3) & (rows["part"] == "test")]
    found = chapter05.from_validation(3, row["lr"].item(), row["steps"].item())
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.6)
    rows = stored("05_more_pairs")
    (row,) = rows[(rows["seed"] == 13) & (rows["control"] == "class mean")]
    found = chapter05.control_one("class mean", 13, row["lr"].item())
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.6)


def test_a_student_of_the_labels_without_views_comes_back_as_stored():
    from experiments import chapter05
    from experiments.common import stored

    rows = stored("05_labels_alone")
    assert rows["seed"].tolist() == list(range(10)) and set(rows["shift"]) == {0}
    assert rows["lr"][0] == chapter05.best(stored("05_function_matching"), "lr", loss="hard", shift=0)
    (row,) = rows[rows["seed"] == 3]
    found = chapter05.train_one("hard", seed=3, per_class=10, steps=3000, lr=row["lr"].item(), shift=0)
    assert row["part"] == found["part"] == "test"
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=0.6)


def test_the_places_of_an_image_are_the_views_that_jitter_draws():
    """All 81 once, the unmoved one among them, each with its image's label; and no roll by up to four is another."""
    from companion.training import jitter
    from experiments import chapter05

    x = torch.arange(2 * 28 * 28, dtype=torch.float).reshape(2, 1, 28, 28)
    views = chapter05.places(data.Split(x, torch.tensor([3, 5])), 4)
    assert views.x.shape == (162, 1, 28, 28) and torch.unique(views.x, dim=0).shape[0] == 162
    of = {v.numpy().tobytes(): y for v, y in zip(views.x, views.y.tolist(), strict=True)}
    drawn = jitter(4)(x.repeat(300, 1, 1, 1), torch.Generator().manual_seed(0))
    assert {of[v.numpy().tobytes()] for v in (x[0], *drawn[::2])} == {3}
    assert {of[v.numpy().tobytes()] for v in (x[1], *drawn[1::2])} == {5}
    assert len({v.numpy().tobytes() for v in drawn}) > 150


def test_a_student_of_the_labels_of_views_comes_back_with_what_it_says_of_its_own_views():
    """Another processor may move a few of the ten thousand images."""
    from experiments import chapter05
    from experiments.common import stored

    rows = stored("05_fitted")
    (row,) = rows[(rows["loss"] == "hard") & (rows["seed"] == 0)]
    found = chapter05.fitted_one("hard", 0, 3000, 0.001, 4)
    for column, within in (("accuracy", 0.6), ("own", 0.5), ("views", 0.2)):
        assert found[column] == pytest.approx(row[column], abs=within), column
