"""Chapter 1: its equations counted layer by layer, its two errata, its exercises."""

import os
from functools import partial
from math import log, log2, log10
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn

from companion import data
from companion.checks import concepts
from companion.losses import distillation_loss, kd_loss
from companion.metrics import accuracy, paired_interval
from companion.models import MLP, ConvNet, parameters
from companion.training import fit, hard_loss, teacher_logits
from experiments import chapter01

OFFICIAL = os.environ.get("FASHION_MNIST")  # a folder with the four official files
RESULTS = Path(__file__).parent.parent / "chapters/results"
ALL, SIZES = RESULTS / "01_all_images.csv", RESULTS / "01_sizes.csv"


def numbers(module):
    """The numbers that training adjusts, counted one tensor at a time."""
    return sum(len(p.detach().flatten().tolist()) for p in module.parameters())


def test_at_T_4_each_exponential_becomes_its_fourth_root():
    """The chapter's scores: exponentials of 81, 16 and 1 are 3, 2 and 1 at T = 4."""
    scores = torch.tensor([81.0, 16.0, 1.0]).log()
    assert (100 * scores.softmax(-1)).round().tolist() == [83, 16, 1]
    assert (scores / 4).softmax(-1).tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    plain = kd_loss(torch.zeros(1, 3), scores[None], T=1).item()
    assert plain == pytest.approx(0.60, abs=0.005)  # from a third each, as in the exercise


@pytest.mark.equation("eq-soft-loss")
@pytest.mark.parametrize("T", [1.0, 4.0])
def test_the_soft_loss_of_three_classes_by_hand(T):
    """The chapter's table: p = (1/2, 1/3, 1/6), and q a third for each, at T, whatever T is."""
    p, q = torch.tensor([[1 / 2, 1 / 3, 1 / 6]]), torch.full((1, 3), 1 / 3)
    terms = p * (p / q).log()
    assert (p / q)[0].tolist() == pytest.approx([1.5, 1, 0.5])
    assert terms[0].tolist() == pytest.approx([0.2027, 0, -0.1155], abs=5e-5)
    assert terms.sum().item() == pytest.approx(0.087, abs=5e-4)
    assert (16 * terms)[0].tolist() == pytest.approx([3.24, 0, -1.85], abs=5e-3)
    assert 16 * terms.sum().item() == pytest.approx(1.4, abs=0.05)
    assert kd_loss(T * q.log(), T * p.log(), T).item() == pytest.approx(T**2 * terms.sum().item(), rel=1e-5)
    assert kd_loss(T * p.log(), T * p.log(), T).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.equation("eq-layer-parameters")
def test_parameters_of_a_layer():
    assert numbers(nn.Linear(7, 5)) == 7 * 5 + 5
    assert numbers(nn.Conv2d(3, 4, 5, bias=False)) == 5 * 5 * 3 * 4
    assert numbers(nn.BatchNorm2d(6)) == 2 * 6


@pytest.mark.equation("eq-convnet-parameters")
@pytest.mark.parametrize("width", [1, 2, 4, 16, 32])
def test_parameters_of_a_convnet(width):
    """Layer by layer from a running network: its convolutions, its norms, its linear layer."""
    counts, model = {nn.Conv2d: 0, nn.BatchNorm2d: 0, nn.Linear: 0}, ConvNet(width, seed=0)
    for module in model.modules():
        if type(module) in counts:
            counts[type(module)] += numbers(module)
    assert counts[nn.Conv2d] == 25 * width + 90 * width**2
    assert counts[nn.BatchNorm2d] == 14 * width
    assert counts[nn.Linear] == 640 * width + 10
    assert parameters(model) == sum(counts.values()) == 90 * width**2 + 679 * width + 10


@pytest.mark.equation("eq-bytes")
@pytest.mark.parametrize("dtype, bits", [(torch.float32, 32), (torch.float16, 16), (torch.int8, 8)])
def test_bytes_are_an_eighth_of_the_bits(dtype, bits):
    values = torch.zeros(4166, dtype=dtype)
    assert len(values.numpy().tobytes()) == 4166 * bits / 8
    assert 7e9 * 16 / 8 == 14e9  # the chapter's language model


def test_fewer_bits_and_the_working_memory_of_the_fold():
    """Width 8 at 8 bits, width 16 at 4, and the image beside the maps that the first layer makes of it."""
    assert parameters(ConvNet(8)) * 8 / 8 == 11_202
    assert parameters(ConvNet(16)) * 4 / 8 == 16_957
    for width, kept in ((4, 6_272), (16, 15_680)):
        first = next(layer for layer in ConvNet(width).modules() if isinstance(layer, nn.Conv2d))
        image = torch.zeros(1, 1, 28, 28)
        assert 4 * (image.numel() + first(image).numel()) == kept


def test_the_two_pulls_of_the_drawing():
    """Minus the derivatives of the losses: T (p − q) for the soft one, the label less q at T = 1 for the hard one."""
    z, v, y = torch.randn(1, 10).double().requires_grad_(), torch.randn(1, 10).double(), torch.tensor([6])
    (soft,) = torch.autograd.grad(kd_loss(z, v, T=4), z)
    assert torch.allclose(-soft, 4 * ((v / 4).softmax(-1) - (z / 4).softmax(-1)))
    (hard,) = torch.autograd.grad(hard_loss(z, None, y), z)
    assert torch.allclose(-hard, torch.eye(10).double()[y] - z.softmax(-1))


def test_without_its_factor_the_pull_at_T_4_is_about_twelve_times_weaker():
    """The chapter's three classes, and a student that gives a third to each: its pull on shirt."""
    scores, shirt = torch.tensor([81.0, 16.0, 1.0]).log()[None], {}
    for T in (1.0, 4.0):
        z = torch.zeros(1, 3, requires_grad=True)
        (derivative,) = torch.autograd.grad(kd_loss(z, scores, T) / T**2, z)
        shirt[T] = -derivative[0, 0].item()
    assert shirt == pytest.approx({1.0: 0.49, 4.0: 0.0417}, abs=5e-3)
    assert shirt[1] / shirt[4] == pytest.approx(12, abs=0.5)


@pytest.mark.skipif(not OFFICIAL, reason="set FASHION_MNIST to a folder with the official files")
def test_a_stored_run_on_the_teachers_own_images_comes_back():
    """One seed of the labels' 1,500 steps, as `experiments/chapter01.py` trains it."""
    rows = np.genfromtxt(ALL, skip_header=3, delimiter=",", names=True, dtype=None, encoding="utf-8")
    of = (rows["learns_from"] == "labels") & (rows["steps"] == 1500) & (rows["part"] == "test")
    stored, student = rows[of], ConvNet(4, dropout=0.0, seed=0)
    images, test = data.fashion_full(OFFICIAL)
    fit(student, images[:45_000], steps=1500, lr=float(stored["lr"][0]), seed=0)
    again = accuracy(teacher_logits(student, test.x), test.y)
    assert abs(again - stored["accuracy"].mean()) < 5 * stored["accuracy"].std(ddof=1)


@pytest.mark.parametrize("side", ["taught 8", "word equal", "word equal few", "plain"])
def test_a_stored_run_of_a_side_comes_back(side, monkeypatch):
    """Trained anew with its teacher; another processor moves some of the ten thousand images, 61 were seen."""
    rows = np.genfromtxt(SIZES, skip_header=3, delimiter=",", names=True, dtype=None, encoding="utf-8")
    rows = rows[(rows["part"] == "test") & (rows["steps"] == 300) & (rows["seed"] == 3)]
    stored = {str(row["side"]): row for row in rows}
    rates = {(name, 300): float(row["lr"]) for name, row in stored.items()}
    monkeypatch.setattr(chapter01, "RATE", rates)
    found = chapter01.one(side, 300, rates[side, 300], 3)
    assert found == {"part": "test", "accuracy": pytest.approx(stored[side]["accuracy"], abs=1)}


def test_with_what_the_batch_norms_keep_the_small_network_still_fits():
    """56 running means and spreads of four bytes, beside the parameters, in the 20 kB of the story."""
    kept = [b for b in ConvNet(4).buffers() if b.is_floating_point()]
    assert sum(b.numel() for b in kept) == 56
    assert 4 * 4166 + sum(b.numel() * b.itemsize for b in kept) == 16_664 + 224 < 20_000


# ------------------------------------------------------------------------------------------------- errata


@pytest.fixture(scope="module")
def lessons():
    """Five students of 100 digits: alone, taught by a wider teacher, and by one of their own size."""
    score = {"alone": [], "wider": [], "equal": []}
    soft = partial(distillation_loss, T=4, alpha=1)
    for seed in range(5):
        train, _, test = data.digits(seed)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        mine, others = train[order[:100]], train[order[100:]]

        def right(model, images, loss=hard_loss, teacher=None, seed=seed, test=test):
            v = None if teacher is None else teacher_logits(teacher, images.x)
            fit(model, images, loss, v, steps=300, lr=5e-3, seed=seed)
            return accuracy(teacher_logits(model, test.x), test.y)

        def new(width, seed=seed):
            return MLP(64, width, 10, seed=seed)

        alone, wider, equal = new(32), new(256, seed + 50), new(32, seed + 60)
        score["alone"].append(right(alone, mine))
        right(wider, others)
        right(equal, others)
        score["wider"].append(right(new(32), mine, soft, wider))
        score["equal"].append(right(new(32), mine, soft, equal))
    return score, (wider, alone, equal)


@pytest.mark.erratum("T1")
def test_a_teacher_of_equal_size_without_pre_training_teaches(lessons):
    score, (_, alone, equal) = lessons
    assert parameters(alone) == parameters(equal)
    assert paired_interval(score["equal"], score["alone"]).low > 0


@pytest.mark.erratum("T2")
def test_size_is_the_architectures_and_the_gain_is_distillations(lessons):
    """The two small networks share every shape, a fourth of the teacher's numbers or less; accuracy differs."""
    score, (wider, alone, equal) = lessons
    assert 4 * numbers(alone) < numbers(wider)
    assert [p.shape for p in alone.parameters()] == [p.shape for p in equal.parameters()]
    assert paired_interval(score["wider"], score["alone"]).low > 0


# ----------------------------------------------------------------------------------------------- exercises


def said(check, attempt, capsys):
    check(attempt)
    return capsys.readouterr().out.strip()


WORD = {
    "✓ word_loss": lambda z, v, y: nn.functional.cross_entropy(z, v.argmax(-1)),
    "these are the labels": lambda z, v, y: nn.functional.cross_entropy(z, y),
    "the student's own first class": lambda z, v, y: nn.functional.cross_entropy(z, z.argmax(-1)),
    "all the teacher's numbers": lambda z, v, y: nn.functional.cross_entropy(z, v.softmax(-1)),
    "the sign is turned round": lambda z, v, y: -nn.functional.cross_entropy(z, v.argmax(-1)),
    "the logarithm is missing": lambda z, v, y: nn.functional.nll_loss(z.softmax(-1), v.argmax(-1)),
    "minus the student's logit": lambda z, v, y: nn.functional.nll_loss(z, v.argmax(-1)),
    "the sum over the images": lambda z, v, y: nn.functional.cross_entropy(z, v.argmax(-1), reduction="sum"),
    "the loss is one number": lambda z, v, y: nn.functional.cross_entropy(z, v.argmax(-1), reduction="none"),
    "not attempted": lambda z, v, y: None,
}
SOFT = {
    "✓ soft_loss_of": lambda p, q, T: T**2 * sum(a * (log(a) - log(b)) for a, b in zip(p, q, strict=True)),
    "the factor T² is missing": lambda p, q, T: sum(terms(p, q)),
    "T where T² belongs": lambda p, q, T: T * sum(terms(p, q)),
    "T² divides": lambda p, q, T: sum(terms(p, q)) / T**2,
    "p and q have changed places": lambda p, q, T: T**2 * sum(terms(q, p)),
    "the sign is turned round": lambda p, q, T: T**2 * sum(a * log(b / a) for a, b in zip(p, q, strict=True)),
    "not the student's q": lambda p, q, T: T**2 * sum(b * log(a / b) for a, b in zip(p, q, strict=True)),
    "each logarithm needs its weight": lambda p, q, T: (
        T**2 * sum(log(a / b) for a, b in zip(p, q, strict=True))
    ),
    "not 0 when the two agree": lambda p, q, T: -(T**2) * sum(a * log(b) for a, b in zip(p, q, strict=True)),
    "only the first class": lambda p, q, T: T**2 * terms(p[0], q[0]),
    "only the last class": lambda p, q, T: T**2 * terms(p[-1], q[-1]),
    "the mean over the classes": lambda p, q, T: T**2 * np.mean(terms(p, q)),
    "no second T inside": lambda p, q, T: T**2 * sum(terms(again(p, T), again(q, T))),
    "these are bits": lambda p, q, T: T**2 * sum(a * log2(a / b) for a, b in zip(p, q, strict=True)),
    "not that of base 10": lambda p, q, T: T**2 * sum(a * log10(a / b) for a, b in zip(p, q, strict=True)),
    "the result differs": lambda p, q, T: sum(abs(a - b) for a, b in zip(p, q, strict=True)),
    "not attempted": lambda p, q, T: ...,
}


def terms(p, q):
    """p log(p/q), class by class, by SciPy."""
    return special.rel_entr(p, q)


def again(p, T):
    """Probabilities that are softened once more."""
    return special.softmax(np.log(p) / T)


@pytest.mark.parametrize("hint", WORD)
def test_check_of_the_word(hint, capsys):
    assert hint in said(concepts.word_loss, WORD[hint], capsys)


@pytest.mark.parametrize("hint", SOFT)
def test_check_of_the_soft_loss(hint, capsys):
    assert hint in said(concepts.soft_loss_of, SOFT[hint], capsys)
