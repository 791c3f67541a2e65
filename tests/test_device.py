"""Where there is a GPU, training and asking happen there; here a second device stands in for it (second_device.py)."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import companion
from companion import data, metrics
from companion.losses import distillation_loss
from companion.models import MLP, ConvNet
from companion.training import fit, fit_many, hard_loss, jitter, teacher_logits
from tests import fault_table
from tests.second_device import NAME
from tests.test_training import Noisy, blobs, weights

RUN = {"steps": 20, "lr": 1e-2, "batch_size": 8}
LOSS = partial(distillation_loss, T=2.0, alpha=0.5)


@pytest.fixture
def second(monkeypatch):
    """The second device, where a GPU would be."""
    monkeypatch.setenv("BOOK_DEVICE", NAME)
    return torch.device(NAME)


class Seen:
    """A loss that notes where its tensors lie."""

    def __init__(self, loss):
        self.loss, self.places = loss, set()

    def __call__(self, *tensors):
        self.places |= {x.device.type for x in tensors if x is not None}
        return self.loss(*tensors)


def places(model):
    return {x.device.type for x in [*model.parameters(), *model.buffers()]}


def images(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return data.Split(torch.randn(n, 1, 28, 28, generator=generator), torch.arange(n) % 10)


# --------------------------------------------------------------------------------------- the device itself


def test_the_second_device_refuses_what_a_gpu_refuses(second):
    here, there = torch.ones(3), torch.ones(3).to(second)
    with pytest.raises(RuntimeError, match="tensors on cpu and on second"):
        here + there
    with pytest.raises(RuntimeError, match="tensors on cpu and on second"):
        here[torch.tensor([0]).to(second)]
    with pytest.raises((RuntimeError, TypeError), match="numpy"):
        there.numpy()
    assert (there + 1.0).sum().item() == 6 and there[torch.tensor([0, 1])].cpu().tolist() == [1, 1]


def test_its_rounding_differs_from_the_cpus(second):
    x, w = torch.randn(2, 200, 200, generator=torch.Generator().manual_seed(0))
    apart = (x @ w - (x.to(second) @ w.to(second)).cpu()).abs().max()
    assert 0 < apart < 1e-4


def test_book_device_names_the_device(monkeypatch):
    monkeypatch.setenv("BOOK_DEVICE", "cpu")
    assert companion.device() == torch.device("cpu")
    monkeypatch.setenv("BOOK_DEVICE", "")
    assert companion.device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.delenv("BOOK_DEVICE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert companion.device() == torch.device("cuda")


@pytest.mark.parametrize(
    "name", ["gpu0", "cuda:99", "cpu,cuda", "mps" if not torch.mps.is_available() else "mps:99"]
)
def test_a_device_that_is_not_there_is_named_with_the_remedy(monkeypatch, name):
    monkeypatch.setenv("BOOK_DEVICE", name)
    with pytest.raises(
        ValueError, match=f"BOOK_DEVICE='{name}' cannot be used here: .*Leave it unset"
    ) as raised:
        companion.device()
    assert len(str(raised.value)) < 400


def test_the_named_second_device_is_taken(second):
    assert companion.device() == second


# ------------------------------------------------------------------------------------------ fit, fit_many


@pytest.mark.parametrize("teacher", ["module", "cached", None])
def test_fit_trains_there_and_gives_the_cpus_student_back(second, monkeypatch, teacher):
    guide, train = MLP(4, 8, 2, seed=5), blobs()
    given = {"module": guide, "cached": teacher_logits(guide, train.x), None: None}[teacher]
    loss = Seen(LOSS if teacher else hard_loss)
    student, same = MLP(4, 8, 2, seed=1), MLP(4, 8, 2, seed=1)
    history = fit(student, train, loss, given, val=train, val_every=7, **RUN)
    assert loss.places == {NAME}
    assert places(student) == places(guide) == {"cpu"} and not student.training
    monkeypatch.setenv("BOOK_DEVICE", "cpu")
    on_cpu = fit(same, train, LOSS if teacher else hard_loss, given, val=train, val_every=7, **RUN)
    torch.testing.assert_close(weights(student), weights(same), rtol=1e-4, atol=1e-5)
    assert history.loss == pytest.approx(on_cpu.loss, rel=1e-4)
    assert (history.val_score, history.best_step) == (on_cpu.val_score, on_cpu.best_step)


def test_a_transform_shifts_the_images_there_as_on_the_cpu(second, monkeypatch):
    train, teacher = images(), ConvNet(2, seed=3)
    students = [ConvNet(2, dropout=0.0, seed=1) for _ in range(2)]
    seen = []

    def transform(x, generator):
        seen.append(jitter(3)(x, generator))
        return seen[-1]

    fit(students[0], train, LOSS, teacher, transform=transform, **RUN)
    monkeypatch.setenv("BOOK_DEVICE", "cpu")
    fit(students[1], train, LOSS, teacher, transform=transform, **RUN)
    assert len(seen) == 40
    assert all(torch.equal(a, b) for a, b in zip(seen[:20], seen[20:], strict=True))
    torch.testing.assert_close(*map(weights, students), rtol=1e-2, atol=1e-3)
    assert places(teacher) == {"cpu"}


@pytest.mark.parametrize("preferred", [NAME, "cpu"])
def test_a_student_that_lies_there_stays_there(second, monkeypatch, preferred):
    monkeypatch.setenv("BOOK_DEVICE", preferred)
    student, teacher = MLP(4, 8, 2).to(second), MLP(4, 8, 2)
    fit(student, blobs(), LOSS, teacher, **RUN)
    assert places(student) == {NAME} and places(teacher) == {"cpu"}


def test_data_may_lie_there_too(second):
    train = blobs()
    students = [MLP(4, 8, 2, seed=1) for _ in range(2)]
    fit(students[0], train.to(second), hard_loss, **RUN)
    fit(students[1], train, hard_loss, **RUN)
    assert torch.equal(*map(weights, students))


def test_after_an_error_the_models_are_back(second):
    student, teacher = MLP(4, 8, 2), Noisy()
    with pytest.raises(FloatingPointError, match="step 1"):
        fit(student, blobs(), lambda z, v, y: (z - v).sum() / 0, teacher, **RUN)
    assert places(student) == places(teacher) == {"cpu"}


def test_the_cpus_generator_is_left_as_it_was(second):
    student, state = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)), torch.get_rng_state()
    fit(student, blobs(), **RUN)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "build", [lambda s: MLP(784, 16, 10, seed=s), lambda s: ConvNet(2, dropout=0, seed=s)]
)
def test_fit_many_trains_there_too(second, monkeypatch, build):
    train, teacher = images(), ConvNet(4, seed=7).eval()
    together, alone = ([build(s) for s in (1, 2)] for _ in range(2))
    loss = Seen(LOSS)
    fit_many(together, train, loss, teacher, seeds=[1, 2], transform=jitter(2), **RUN)
    assert loss.places == {NAME}
    assert all(places(model) == {"cpu"} and not model.training for model in [*together, teacher])
    monkeypatch.setenv("BOOK_DEVICE", "cpu")
    fit_many(alone, train, LOSS, teacher, seeds=[1, 2], transform=jitter(2), **RUN)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(weights(a), weights(b), rtol=1e-2, atol=1e-3)


def test_a_default_device_for_new_tensors_changes_no_run():
    train = images()
    expected = [ConvNet(2, dropout=0.0, seed=1) for _ in range(2)]
    found = copy.deepcopy(expected)

    def train_both(students):
        past = [fit(students[0], train, hard_loss, transform=jitter(2), val=train, **RUN)]
        return past + fit_many(students[1:], train, hard_loss, seeds=[0], transform=jitter(2), **RUN)

    before = train_both(expected)
    torch.set_default_device(NAME)
    try:
        assert train_both(found) == before
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(weights(a), weights(b)) for a, b in zip(expected, found, strict=True))
    assert places(found[0]) == {"cpu"}


def test_teacher_logits_come_back_to_where_x_lies(second):
    teacher, x = Noisy().train(), blobs().x
    logits = teacher_logits(teacher, x, batch_size=7)
    assert logits.device.type == "cpu" and teacher_logits(teacher, x.to(second)).device.type == NAME
    assert places(teacher) == {"cpu"} and teacher.training
    expected = copy.deepcopy(teacher.body).eval()(x)
    torch.testing.assert_close(logits, expected.detach(), rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------------- what is called directly


@pytest.mark.parametrize("loss", fault_table.LOSSES)
@pytest.mark.parametrize("case", fault_table.CASES)
def test_each_loss_passes_the_fault_suite_there(monkeypatch, case, loss):
    ours = fault_table.LOSSES[loss]

    def call(z, v, T, mask, y):
        mask = None if mask is None else mask.to(NAME)
        return ours.call(z.to(NAME), v.to(NAME), T, mask, y.to(NAME)).cpu()

    monkeypatch.setitem(fault_table.LOSSES, loss, replace(ours, call=call))
    wrong = fault_table.outcome(case, loss)
    if wrong == "":
        pytest.skip("does not apply")
    assert wrong is None, wrong


def test_metrics_and_samples_are_the_cpus(second):
    split = images()
    z, v = torch.randn(2, 40, 10, generator=torch.Generator().manual_seed(1))
    there = z.to(second), v.to(second)
    assert metrics.accuracy(there[0], split.y.to(second)) == metrics.accuracy(z, split.y)
    assert metrics.agreement(*there) == metrics.agreement(z, v)
    ece = metrics.calibration_error(there[0], split.y.to(second))
    assert ece == pytest.approx(metrics.calibration_error(z, split.y), abs=1e-9)
    sample = split.to(second).sample(2, seed=3)
    assert torch.equal(sample.x.cpu(), split.sample(2, seed=3).x) and sample.y.device.type == NAME
