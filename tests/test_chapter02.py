"""Chapter 2: its equations in numpy and scipy, in double precision, and by hand; its three errata; its exercises."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.special import softmax

from companion import data, losses
from companion.checks import concepts
from companion.metrics import accuracy, agreement, paired_interval
from companion.models import MLP
from companion.training import fit, teacher_logits

TEMPERATURES = [0.5, 1.0, 2.0, 4.0, 16.0]


@pytest.fixture
def v():
    """Logits of forty examples and ten classes."""
    return 3 * np.random.default_rng(2).normal(size=(40, 10))


@pytest.fixture
def y():
    return np.random.default_rng(3).integers(10, size=40)


def soften(v, T):
    """The library's soft targets, as numpy."""
    return losses.soften(torch.tensor(v), T).numpy()


def without(v, y):
    """The nine wrong classes of each row."""
    return np.stack([np.delete(row, target) for row, target in zip(v, y, strict=True)])


P, Q = np.array([0.7, 0.2, 0.1]), np.array([0.5, 0.3, 0.2])  # the chapter's three classes


@pytest.mark.equation("eq-soften")
@pytest.mark.parametrize("T", TEMPERATURES)
def test_softmax_with_a_temperature(v, T):
    np.testing.assert_allclose(soften(v, T), softmax(v / T, -1), rtol=1e-11)


@pytest.mark.equation("eq-soften")
@pytest.mark.parametrize(("T", "weights"), [(0.5, [49, 4, 1]), (1, [7, 2, 1]), (2, [7**0.5, 2**0.5, 1])])
def test_softmax_of_the_three_classes_by_hand(T, weights):
    """Each exponential becomes its 1/T-th power; the sums are 54, 10 and 5.06."""
    np.testing.assert_allclose(soften(np.log([7.0, 2, 1]), T), np.array(weights) / sum(weights), rtol=1e-12)


@pytest.mark.equation("eq-cross-entropy")
def test_cross_entropy_is_torchs_and_the_hand_s(v, y):
    p, q = soften(v, 2), soften(v[::-1].copy(), 1)
    ours = -(p * np.log(q)).sum(-1).mean()
    theirs = F.cross_entropy(torch.tensor(v[::-1].copy()), torch.tensor(p)).item()  # soft targets
    assert ours == pytest.approx(theirs, rel=1e-12)
    assert -(P * np.log(Q)).sum() == pytest.approx(0.485 + 0.241 + 0.161, abs=5e-4)
    label = np.eye(10)[y]  # of a label both are −log q_y
    hard = F.cross_entropy(torch.tensor(v), torch.tensor(y)).item()
    assert -(label * np.log(soften(v, 1))).sum(-1).mean() == pytest.approx(hard, rel=1e-12)


@pytest.mark.equation("eq-kl")
def test_kl_is_scipys_and_the_loss_and_the_hand_s(v):
    p, q = soften(v, 2), soften(v[::-1].copy(), 2)
    ours = (p * np.log(p / q)).sum(-1)
    np.testing.assert_allclose(ours, stats.entropy(p, q, axis=-1), rtol=1e-10)
    np.testing.assert_allclose(ours, -(p * np.log(q)).sum(-1) - stats.entropy(p, axis=-1), atol=1e-12)
    soft = losses.kd_loss(torch.tensor(v[::-1].copy()), torch.tensor(v), T=2).item()
    assert 4 * ours.mean() == pytest.approx(soft, rel=1e-10)
    assert stats.entropy(P, Q) == pytest.approx(0.887 - 0.802, abs=1e-3)
    assert stats.entropy(Q, P) > stats.entropy(P, Q) + 0.004  # not the same both ways round


@pytest.mark.equation("eq-log-ratio")
@pytest.mark.parametrize("T", TEMPERATURES)
def test_log_ratio(v, T):
    p = soften(v, T)
    ratio = np.log(p[:, 2] / p[:, 7])
    np.testing.assert_allclose(ratio, (v[:, 2] - v[:, 7]) / T, rtol=1e-10, atol=1e-12)
    assert (p.argsort(-1) == v.argsort(-1)).all()


@pytest.mark.equation("eq-entropy")
def test_entropy_is_scipys_and_has_its_bounds(v):
    p = soften(v, 2)
    ours = torch.special.entr(torch.tensor(p)).sum(-1).numpy()  # as the chapter computes it
    np.testing.assert_allclose(ours, stats.entropy(p, axis=-1), rtol=1e-12)
    assert (ours > 0).all() and (ours < np.log(10)).all()
    assert stats.entropy(np.full(10, 0.1)) == pytest.approx(np.log(10), rel=1e-12)
    assert torch.special.entr(torch.eye(10)).sum() == 0
    assert stats.entropy(P) == pytest.approx(0.250 + 0.322 + 0.230, abs=5e-4)


@pytest.mark.equation("eq-dark-knowledge")
@pytest.mark.parametrize("T", TEMPERATURES)
def test_dark_knowledge_does_not_see_the_target(v, y, T):
    """p_c / (1 − p_y) is the softmax of the other nine alone, whatever the target's logit."""
    p, rows = soften(v, T), np.arange(40)
    r = without(p, y) / (1 - p[rows, y])[:, None]
    np.testing.assert_allclose(r, softmax(without(v, y) / T, -1), rtol=1e-6)
    louder = v.copy()
    louder[rows, y] += 1
    q = soften(louder, T)
    np.testing.assert_allclose(without(q, y) / (1 - q[rows, y])[:, None], r, rtol=1e-6)


@pytest.mark.equation("eq-entropy-split")
@pytest.mark.parametrize("T", TEMPERATURES)
def test_entropy_splits_into_how_sure_and_what_else(v, y, T):
    p = soften(v, T)
    p_y, r = p[np.arange(40), y], softmax(without(v, y) / T, -1)
    how_sure = stats.entropy(np.stack([p_y, 1 - p_y]))
    np.testing.assert_allclose(
        stats.entropy(p, axis=-1), how_sure + (1 - p_y) * stats.entropy(r, axis=-1), rtol=1e-10
    )


@pytest.mark.equation("eq-gram")
def test_gram_matrix_is_the_correlation_of_centred_rows(v):
    """As the chapter computes it, against each pair by itself; a rotation of the features leaves it alone."""

    def gram(features):
        f = F.normalize(features - features.mean(0))
        return (f @ f.T).numpy()

    f = v - v.mean(0)
    by_pairs = [[a @ b / np.sqrt((a @ a) * (b @ b)) for b in f] for a in f]
    np.testing.assert_allclose(gram(torch.tensor(v)), by_pairs, rtol=1e-10, atol=1e-12)
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(30, 10)))[0]  # ten features become thirty
    np.testing.assert_allclose(gram(torch.tensor(v @ turn.T)), by_pairs, rtol=1e-8, atol=1e-10)


@pytest.mark.equation("eq-gram")
def test_relations_of_three_images_by_hand():
    """A shirt, a coat and a sneaker of two features each; with their mean left in, all would look alike."""
    f = np.array([[5.0, 6], [6, 5], [1, 1]])
    assert f.mean(0).tolist() == [4, 4]
    cosines = {}
    for name, rows in (("with", f), ("less", f - f.mean(0))):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosines[name] = (unit @ unit.T)[np.triu_indices(3, 1)]
    assert (cosines["with"] > 0.98).all()
    np.testing.assert_allclose(cosines["less"], [0.8, -0.9487, -0.9487], atol=1e-4)


def test_average_neighbours_by_hand():
    """Coat and bag share the rest of three shirts as 4 to 1 on average: (.7, .2, .1) becomes (.7, .24, .06)."""
    from experiments.chapter05 import targets

    p = torch.tensor([[0.7, 0.2, 0.1]] + 2 * [[0.6, 0.34, 0.06]], dtype=torch.double)
    p = torch.cat([p, torch.zeros(3, 7, dtype=torch.double)], 1)
    assert p[:, 1].sum() / p[:, 2].sum() == pytest.approx(4)
    assert targets("class neighbours", p, 0)[0, :3].tolist() == pytest.approx([0.7, 0.24, 0.06])


@pytest.mark.parametrize("control", ["class neighbours", "uniform"])
def test_taking_neighbours_away_leaves_how_sure_the_teacher_is(control):
    """Both keep the top class and its share; r is then the same for all of a name, or even."""
    from experiments.chapter05 import targets

    scores = torch.rand((200, 10), generator=torch.Generator().manual_seed(0), dtype=torch.double)
    p = (4 * scores).softmax(-1)
    changed, top = targets(control, p, seed=3), p.argmax(-1)
    assert torch.allclose(changed.sum(-1), torch.ones(200, dtype=torch.double))
    assert torch.allclose(changed[torch.arange(200), top], p.amax(-1))
    r = changed.masked_fill(own(p, top), 0) / (1 - p.amax(-1, keepdim=True))
    for c in top.unique():
        assert torch.allclose(r[top == c], r[top == c][:1])
        if control == "class neighbours":  # nothing is lost on average
            assert torch.allclose(changed[top == c].mean(0), p[top == c].mean(0))
        else:
            assert ((r[top == c] - 1 / 9).abs() < 1e-12).sum() == 9 * (top == c).sum()


@pytest.mark.parametrize("control", ["swapped", "permuted"])
def test_wrong_neighbours_and_noise_move_the_same_numbers(control):
    """Both keep the top class and the numbers; wrong neighbours go where those of their class go, noise anywhere."""
    from experiments.chapter05 import targets

    p = torch.rand((200, 10), generator=torch.Generator().manual_seed(0), dtype=torch.double).softmax(-1)
    moved, top = targets(control, p, seed=3), p.argmax(-1)
    assert torch.equal(moved.argmax(-1), top)
    assert torch.equal(moved.sort(-1).values, p.sort(-1).values)
    came_from = (moved[:, :, None] == p[:, None]).long().argmax(-1)  # all numbers of a row differ
    orders = [len(came_from[top == c].unique(dim=0)) for c in top.unique()]
    assert all(n == 1 for n in orders) if control == "swapped" else min(orders) > 3
    assert (came_from != torch.arange(10)).any(-1).all()


def test_the_runs_at_one_are_whole_and_each_has_its_best_rate():
    """02_at_one.csv: four rates on validation for both controls, the best of them on the ten reported seeds."""
    from experiments.chapter05 import MORE_RATES
    from experiments.common import TUNING, stored

    rows = stored("02_at_one")
    assert set(rows["control"]) == {"even rest", "smoothed name"}
    for control in ("even rest", "smoothed name"):
        of = rows[rows["control"] == control]
        choosing = of["part"] == "val"
        assert sorted(of[["lr", "seed"]][choosing].tolist()) == [(lr, s) for lr in MORE_RATES for s in TUNING]
        best = max(
            MORE_RATES,
            key=lambda lr, of=of, choosing=choosing: of["accuracy"][choosing & (of["lr"] == lr)].mean(),
        )
        assert of[["lr", "seed"]][~choosing].tolist() == [(best, seed) for seed in range(10)]


def test_an_even_rest_at_one_of_the_chapters_three_classes_by_hand():
    """(.7, .2, .1) at T = 4 is (.2401, .0016, .0001) / .2418 at T = 1; its rest, halved, is .0035."""
    v = 4 * np.log(P)
    p = soften(v, 1)
    assert soften(v, 4) == pytest.approx(P) and p == pytest.approx(
        np.array([0.2401, 0.0016, 0.0001]) / 0.2418
    )
    assert p[0] == pytest.approx(0.993, abs=5e-4) and (1 - p[0]) / 2 == pytest.approx(0.0035, abs=5e-5)


def test_errors_of_the_stored_students():
    """02_errors.csv: every control at its stored rate on the same seeds, and the three shares are all there is."""
    from experiments.chapter02 import WRONG
    from experiments.common import stored

    rows = stored("02_errors")
    seeds = sorted(set(rows["seed"].tolist()))
    assert seeds == list(range(len(seeds))) and len(seeds) >= 5
    assert np.abs(rows["right"] + rows["within"] + rows["across"] - 100).max() < 1e-3
    earlier = stored("05_controls")
    earlier = earlier[earlier["part"] == "test"]
    for control in WRONG:
        of, before = rows[rows["control"] == control], earlier[earlier["control"] == control]
        assert of["seed"].tolist() == seeds and set(of["lr"]) == set(before["lr"])
        assert np.abs(of["right"] - before["accuracy"][: len(seeds)]).mean() < 0.6  # another processor


def test_an_error_within_a_family_and_one_across(monkeypatch):
    """A shirt called a coat, and a sneaker called a dress; a run of the table again."""
    from experiments import chapter02
    from experiments.common import stored

    right, within, across = 7, (6, 4), (7, 3)
    y = torch.tensor([0] * right + [within[0], across[0], 8])
    named = torch.tensor([0] * right + [within[1], across[1], 8])
    monkeypatch.setattr(chapter02, "TEST", data.Split(torch.zeros(len(y), 1, 28, 28), y))
    with monkeypatch.context() as patch:
        patch.setattr(chapter02, "controlled", lambda *args: None)
        patch.setattr(chapter02, "teacher_logits", lambda student, x: F.one_hot(named, 10).float())
        assert chapter02.errors_one("soft", 0, 0.1) == pytest.approx(
            {"right": 80, "within": 10, "across": 10}
        )
    monkeypatch.setattr(chapter02, "TEST", data.fashion("test"))
    rows = stored("02_errors")
    row = rows[(rows["control"] == "permuted") & (rows["seed"] == 1)][0]
    again = chapter02.errors_one("permuted", 1, row["lr"].item())
    for part in ("right", "within", "across"):
        assert again[part] == pytest.approx(row[part].item(), abs=1.5)


def test_targets_of_the_runs_at_one_by_hand(monkeypatch):
    """At T = 1, ten classes: the even rest keeps how sure the teacher is; the smoothed name is .91 for its class."""
    from experiments import chapter02, chapter05

    seen = []
    monkeypatch.setattr(chapter02, "fit", lambda *args, **kw: seen.append(args))
    monkeypatch.setattr(chapter05, "fit", lambda *args, **kw: seen.append(args))
    for module in (chapter02, chapter05):
        monkeypatch.setattr(module, "measure", lambda student, seed: {})
    for control in ("even rest", "smoothed name"):
        chapter02.one(control, 0, 0.1)
    (_, images, loss, told), (_, renamed, smoothed, _) = seen
    v = teacher_logits(data.fashion_teacher(0), images.x)
    p, even = v.double().softmax(-1), told.double().softmax(-1)  # the loss takes them as logits
    assert torch.allclose(even.amax(-1), p.amax(-1), atol=1e-5) and torch.equal(even.argmax(-1), p.argmax(-1))
    rest = even.sort(-1).values[:, :9]
    assert torch.allclose(rest, rest[:, :1].expand(-1, 9), rtol=1e-4)
    assert loss(v, v, None).abs() < 1e-5 and loss(2 * v, v, None) == pytest.approx(
        losses.kd_loss(2 * v, v, T=1).item()
    )
    assert torch.equal(renamed.y, p.argmax(-1)) and not torch.equal(renamed.y, images.y)
    target = 0.9 * F.one_hot(renamed.y, 10) + 0.01
    assert smoothed(v, None, renamed.y).item() == pytest.approx(F.cross_entropy(v, target).item(), rel=1e-5)


# ------------------------------------------------------------------------------------------------- errata


@pytest.fixture(scope="module")
def digits():
    train, _, test = data.digits(0)
    teacher = MLP(64, 256, 10, seed=0)
    fit(teacher, train, steps=300, lr=3e-3)
    return train, test, teacher


@pytest.mark.erratum("T4")
@pytest.mark.parametrize("T", TEMPERATURES)
def test_the_soft_loss_is_least_at_equal_logits_whatever_the_temperature(T):
    """So T is no dial for likeness: descent on free logits ends at v up to a constant, for each T."""
    v = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.double)
    assert losses.kd_loss(v + 5, v, T=T).abs() < 1e-12
    z = torch.zeros_like(v).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [z], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = losses.kd_loss(z, v, T=T)
        loss.backward()
        return loss

    optimiser.step(closure)
    assert torch.allclose(z - z.mean(), v - v.mean(), atol=1e-4)


def test_a_high_temperature_takes_kl_away_by_hand():
    """The text after the figure of three classes, whose starting position this is."""
    v, z = torch.tensor([7.0, 2, 1], dtype=torch.double).log(), torch.tensor([0, 1.5, 0], dtype=torch.double)
    kl = {T: losses.kd_loss(z[None], v[None], T).item() / T**2 for T in (1, 8)}
    assert kl[1] == pytest.approx(0.767, abs=5e-4) and kl[8] == pytest.approx(0.011, abs=5e-4)
    assert 64 * kl[8] == pytest.approx(0.70, abs=5e-3)


@pytest.mark.erratum("T4")
def test_a_high_temperature_makes_any_two_models_look_alike(digits):
    """Untrained, a student is near its teacher at T = 64 and far at T = 1; training brings it near at every T."""
    train, test, teacher = digits
    student, v = MLP(64, 32, 10, seed=1), teacher_logits(teacher, test.x)

    def apart():
        z = teacher_logits(student, test.x)
        return {T: losses.kd_loss(z, v, T=T).item() / T**2 for T in (1, 4, 64)}

    before = apart()
    assert before[1] > 1 > 0.01 > before[64]
    fit(student, train, partial(losses.distillation_loss, T=4, alpha=1), teacher, steps=300, lr=5e-3)
    assert all(3 * after < before[T] for T, after in apart().items())
    assert agreement(teacher_logits(student, test.x), v) > 80


@pytest.mark.erratum("T4")
def test_with_labels_the_temperature_moves_where_the_compromise_ends():
    """α = ½, label 1: the least point is not the same at T = 1 and T = 8."""
    v, y = math.log(2) * torch.tensor([[4.0, 2.0, 0.0]], dtype=torch.double), torch.tensor([0])
    ends = []
    for T in (1, 8):
        z = torch.zeros_like(v).requires_grad_()
        optimiser = torch.optim.LBFGS([z], max_iter=500, line_search_fn="strong_wolfe")

        def closure(z=z, T=T, optimiser=optimiser):
            optimiser.zero_grad()
            loss = losses.distillation_loss(z, v, y, T=T, alpha=0.5)
            loss.backward()
            return loss

        optimiser.step(closure)
        ends.append(losses.kd_loss(z.detach(), v, T=1).item())
    assert abs(ends[0] - ends[1]) > 0.01


@pytest.mark.erratum("T5")
def test_two_amounts_of_information_order_teachers_differently():
    """Undefined, the word can mean either of two numbers, and they disagree on which of two targets has more."""
    unsure, sure = np.array([[0.5, 0.496, 0.002, 0.002], [0.98, 0.007, 0.007, 0.006]])
    assert stats.entropy(unsure) > stats.entropy(sure) + 0.5
    assert stats.entropy(unsure[1:]) < stats.entropy(sure[1:]) - 0.5
    assert stats.entropy(np.full(4, 0.25)) > stats.entropy(unsure)  # the most of it says nothing at all


@pytest.mark.erratum("T6")
def test_a_student_learns_without_any_output(digits):
    """Taught the teacher's hidden layer and shown neither output nor label, the body sorts the digits better."""
    _, _, teacher = digits
    gains = []
    for seed in range(5):
        train, _, test = data.digits(seed)
        body = MLP(64, 16, 256, seed=seed)  # 16 features, translated to the teacher's 256

        def sorts(few, body=body, test=test):
            f, g = body.features(few.x), body.features(test.x)
            means = torch.stack([f[few.y == c].mean(0) for c in range(10)])
            return accuracy(-torch.cdist(g, means), test.y)

        few = train.sample(5, seed)
        with torch.no_grad():
            before = sorts(few)
        inside = teacher.features(train.x).detach()
        fit(body, train, lambda s, t, y: F.mse_loss(s, t), inside, steps=300, lr=1e-2, seed=seed)
        with torch.no_grad():
            gains.append(sorts(few) - before)
    assert paired_interval(gains).low > 2


# ----------------------------------------------------------------------------------------------- exercises


def own(v, y):
    return F.one_hot(y, v.shape[-1]).bool()


ENTROPY = {
    "✓ entropy": lambda p: torch.special.entr(p).sum(-1),
    "the sign is missing": lambda p: -torch.special.entr(p).sum(-1),
    "these are bits": lambda p: -(p * p.log2()).sum(-1),
    "the mean over the classes": lambda p: torch.special.entr(p).mean(-1),
    "runs over the examples": lambda p: torch.special.entr(p).sum(0),
    "its weight p": lambda p: -p.log().sum(-1),
    "no softmax": lambda p: torch.special.entr(p.softmax(-1)).sum(-1),
    "the result differs": lambda p: p.sum(-1),
    "not attempted": lambda p: None,
}


def correlations(
    a, b, y, of=lambda rows, y: rows - np.stack([rows[y == c].mean(0) for c in y]), target=False
):
    """Image by image, of what `of` leaves of two teachers' wrong scores, in numpy."""
    a, b, y = a.numpy(), b.numpy(), y.numpy()
    left = [of(v if target else without(v, y), y) for v in (a, b)]
    return np.array([np.corrcoef(f, g)[0, 1] for f, g in zip(*left, strict=True)])


SAME_IMAGE = {
    "✓ same_image": lambda a, b, y: correlations(a, b, y).mean(),
    "the scores themselves": lambda a, b, y: correlations(a, b, y, lambda rows, y: rows).mean(),
    "not over all": lambda a, b, y: correlations(a, b, y, lambda rows, y: rows - rows.mean(0)).mean(),
    "the target is still there": lambda a, b, y: correlations(a, b, y, target=True).mean(),
    "over the images is missing": lambda a, b, y: correlations(a, b, y),
    "the result differs": lambda a, b, y: correlations(a, b.roll(1, 0), y).mean(),
    "not attempted": lambda a, b, y: ...,
}


def cosines(f):
    """Of all pairs of rows, in numpy."""
    f = f.numpy()
    lengths = np.sqrt((f * f).sum(-1))
    return f @ f.T / np.maximum(lengths[:, None] * lengths, 1e-12)


RELATIONS = {
    "✓ relations": lambda f: cosines(f - f.mean(0)),
    "is still there": cosines,
    "dim=0": lambda f: cosines(f - f.mean(-1, keepdim=True)),
    "these are products": lambda f: (f - f.mean(0)) @ (f - f.mean(0)).T,
    "of the rows less the mean": lambda f: (
        (f - f.mean(0)) @ (f - f.mean(0)).T / (f.norm(dim=-1) * f.norm(dim=-1)[:, None])
    ),
    "pairs of features": lambda f: cosines((f - f.mean(0)).T),
    "these are distances": lambda f: torch.cdist(f, f),
    "the result differs": lambda f: cosines(f - f.mean(0)) ** 2,
    "not attempted": lambda f: None,
}


def said(check, attempt, capsys):
    check(attempt)
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("hint", ENTROPY)
def test_check_of_the_entropy(hint, capsys):
    assert hint in said(concepts.entropy, ENTROPY[hint], capsys)


@pytest.mark.parametrize("hint", SAME_IMAGE)
def test_check_of_the_test_for_noise(hint, capsys):
    assert hint in said(concepts.same_image, SAME_IMAGE[hint], capsys)


@pytest.mark.parametrize("hint", RELATIONS)
def test_check_of_the_relations(hint, capsys):
    assert hint in said(concepts.relations, RELATIONS[hint], capsys)
