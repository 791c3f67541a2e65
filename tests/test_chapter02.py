"""Chapter 2: its equations in numpy and scipy, in double precision; its three errata; its exercises."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.special import entr, softmax

from companion import checks, data, losses
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


@pytest.mark.equation("eq-entropy-slope")
@pytest.mark.parametrize("T", TEMPERATURES)
def test_slope_of_the_entropy_by_differences(v, T):
    h = 1e-5 * T
    slope = (entr(soften(v, T + h)).sum(-1) - entr(soften(v, T - h)).sum(-1)) / (2 * h)
    p = softmax(v / T, -1)
    variance = np.array([np.cov(row, aweights=weights, ddof=0) for row, weights in zip(v, p, strict=True)])
    np.testing.assert_allclose(slope, variance / T**3, rtol=1e-5, atol=1e-8)


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


# ------------------------------------------------------------------------------------------------- errata


@pytest.fixture(scope="module")
def digits():
    train, _, test = data.digits(0)
    teacher = MLP(64, 256, 10, seed=0)
    fit(teacher, train, steps=300, lr=3e-3)
    return train, test, teacher


@pytest.mark.erratum("T4")
def test_training_makes_alike_what_temperature_does_not(digits):
    """Untrained, the student names its teacher's class equally often at each T, however near the softmaxes."""
    train, test, teacher = digits
    student, v = MLP(64, 32, 10, seed=1), teacher_logits(teacher, test.x)
    z = teacher_logits(student, test.x)
    at = {T: agreement(z / T, v / T) for T in (1, 4, 64)}
    apart = [
        np.abs(soften(z.double().numpy(), T) - soften(v.double().numpy(), T)).sum(-1).mean() / 2
        for T in (1, 4, 64)
    ]
    assert len(set(at.values())) == 1 and apart[0] > 0.5 > 0.1 > apart[2]
    fit(student, train, partial(losses.distillation_loss, T=4, alpha=1), teacher, steps=300, lr=5e-3)
    assert agreement(teacher_logits(student, test.x), v) > at[1] + 50


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
DARK = {
    "✓ dark": lambda v, y, T: (
        (v / T).softmax(-1).masked_fill(own(v, y), 0)
        / (v / T).softmax(-1).masked_fill(own(v, y), 0).sum(-1, keepdim=True)
    ),
    "the target is still there": lambda v, y, T: (v / T).softmax(-1),
    "do not sum to 1": lambda v, y, T: (v / T).softmax(-1) * ~own(v, y),
    "T has no effect": lambda v, y, T: v.masked_fill(own(v, y), -torch.inf).softmax(-1),
    "T multiplies": lambda v, y, T: (v * T).masked_fill(own(v, y), -torch.inf).softmax(-1),
    "still gets a share": lambda v, y, T: (v / T * ~own(v, y)).softmax(-1),
    "the result differs": lambda v, y, T: v,
    "not attempted": lambda v, y, T: ...,
}


def said(attempt, what, capsys):
    checks.information(attempt, what)
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("hint", ENTROPY)
def test_check_of_the_entropy(hint, capsys):
    assert hint in said(ENTROPY[hint], "entropy", capsys)


@pytest.mark.parametrize("hint", DARK)
def test_check_of_the_dark_knowledge(hint, capsys):
    assert hint in said(DARK[hint], "dark", capsys)
