"""What `fit`, `fit_many` and `predict` cannot take: an error that names the remedy, before the first step."""

import copy
from collections import OrderedDict, namedtuple
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from companion import losses
from companion.data import Split
from companion.losses import kd_loss
from companion.metrics import accuracy
from companion.models import MLP
from companion.training import fit, fit_many, hard_loss, predict
from tests.test_training import RUN, blobs, soft, weights


def both(student, *args, **more):
    """Each of the two loops on the student."""
    yield lambda: fit(student, *args, **RUN, **more)
    yield lambda: fit_many([student], *args, seeds=[0], **RUN, **more)


def refused(error, match, student, *args, **more):
    before = weights(student)
    for run in both(student, *args, **more):
        with pytest.raises(error, match=match):
            run()
    assert torch.equal(weights(student), before), "no step was taken"


# ---------------------------------------------------------------------------------------- data, transforms


@pytest.mark.parametrize(
    "train",
    [
        TensorDataset(blobs().x, blobs().y),
        DataLoader(TensorDataset(blobs().x, blobs().y)),
    ],
    ids=["dataset", "loader"],
)
def test_anything_but_a_split(train):
    with pytest.raises(TypeError, match=r"train is a Split\(x, y\).*Split\(\*dataset\.tensors\).*DataLoader"):
        fit(MLP(4, 2), train, **RUN)
    with pytest.raises(TypeError, match=r"train is a Split\(x, y\)"):
        fit_many([MLP(4, 2)], [train], seeds=[0], **RUN)
    with pytest.raises(TypeError, match=r"val is a Split\(x, y\)"):
        fit(MLP(4, 2), blobs(), val=train, **RUN)


def test_a_split_of_arrays():
    match = r"\.x is no tensor but ndarray: Split\(torch\.as_tensor\(x\), torch\.as_tensor\(y\)\)"
    train = Split(blobs().x.numpy(), blobs().y)
    refused(TypeError, "train" + match, MLP(4, 2), train)
    with pytest.raises(TypeError, match="val" + match):
        fit(MLP(4, 2), blobs(), val=train, **RUN)
    refused(TypeError, r"train\.y is no tensor but list", MLP(4, 2), Split(blobs().x, blobs().y.tolist()))


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_where_gradients_are_switched_off(off):
    with off():
        refused(ValueError, "gradients are switched off here", MLP(4, 2), blobs())


def test_labels_from_1_on():
    train = Split(blobs().x, blobs().y + 1)
    refused(ValueError, r"labels lie in 0 … 1; got 1 … 2\. .*y - 1", MLP(4, 2), train)


def test_predict_on_something_else_than_a_tensor():
    loader = DataLoader(TensorDataset(blobs().x, blobs().y), batch_size=7)
    model = MLP(4, 2)
    with pytest.raises(TypeError, match=r"torch\.cat\(\[predict\(model, x\) for x, _ in loader\]\)"):
        predict(model, loader)
    torch.testing.assert_close(torch.cat([predict(model, x) for x, _ in loader]), predict(model, blobs().x))
    with pytest.raises(TypeError, match=r"takes an nn\.Module and a tensor; got function"):
        predict(lambda x: x, blobs().x)


@pytest.mark.parametrize("transform", [torch.neg, lambda x: x])
def test_a_transform_of_x_alone(transform):
    match = r"transform\(x, generator\).*lambda x, generator: transform\(x\)"
    refused(TypeError, match, MLP(4, 2), blobs(), transform=transform)


def test_a_transform_that_returns_no_batch():
    """A module of torchvision's newer transforms takes any number of inputs, and gives back as many."""
    refused(
        TypeError,
        r"transform\(x, generator\) returned tuple; it returns the 8 inputs, changed",
        MLP(4, 2),
        blobs(),
        transform=lambda *x: x,
    )


# --------------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    "loss, match",
    [
        (kd_loss, r"y would land in its option T: loss=lambda z, v, y: kd_loss\(z, v, T=\.\.\.\)"),
        (losses.logit_mse_loss, "its option centred"),
        (partial(kd_loss, T=4.0), "does not take the three: loss=lambda z, v, y"),
        (nn.CrossEntropyLoss(), r"does not take the three: loss=lambda z, v, y: loss\(z, y\)"),
        (F.mse_loss, r"its option size_average: loss=lambda z, v, y: F\.mse_loss\(z, y\)"),
        (F.cross_entropy, r"its option weight: loss=lambda z, v, y: F\.cross_entropy\(z, y\)\."),
        (F.kl_div, r"loss=lambda z, v, y: kd_loss\(z, v, T=1\)"),
        (nn.KLDivLoss(), r"loss=lambda z, v, y: kd_loss\(z, v, T=1\)"),
        (lambda z: z, "does not take the three"),
        (3.0, "called as .* got float"),
    ],
)
def test_a_loss_that_is_called_otherwise(loss, match):
    refused(TypeError, match, MLP(4, 2), blobs(), loss, torch.zeros(40, 2))


def test_losses_in_the_form_that_fit_calls_pass():
    def options(z, v, y, T=4.0):
        return kd_loss(z, v, T)

    def several(*args):
        return kd_loss(*args[:2])

    def optional(z, v, y=None):
        return kd_loss(z, v)

    for loss in (options, several, optional, partial(losses.distillation_loss, T=2.0, alpha=0.3)):
        for run in both(MLP(4, 2), blobs(), loss, torch.zeros(40, 2)):
            run()


@pytest.mark.parametrize("teacher", [MLP(4, 2, seed=3), torch.zeros(40, 2)])
def test_a_teacher_without_a_loss_is_not_passed_over_in_silence(teacher):
    match = r"a teacher was given and no loss that asks it: pass loss=lambda z, v, y: kd_loss\(z, v"
    refused(ValueError, match, MLP(4, 2), blobs(), teacher=teacher)
    students = [MLP(4, 2, seed=0), MLP(4, 2, seed=1)]
    with pytest.raises(ValueError, match=match):
        fit_many(students, blobs(), [soft, None], [teacher, teacher], seeds=[0, 1], **RUN)
    with_none = fit_many(students, blobs(), [soft, None], [teacher, None], seeds=[0, 1], **RUN)
    assert with_none[1].loss == pytest.approx(fit(MLP(4, 2, seed=1), blobs(), seed=1, **RUN).loss, rel=1e-4)


def test_without_loss_and_teacher_it_is_hard_loss_which_may_be_given_beside_a_teacher():
    alone, given, beside = (MLP(4, 2, seed=0) for _ in range(3))
    expected = fit(alone, blobs(), **RUN)
    assert (
        fit(given, blobs(), hard_loss, **RUN) == fit(beside, blobs(), hard_loss, MLP(4, 2), **RUN) == expected
    )
    assert torch.equal(weights(alone), weights(beside)) and torch.equal(weights(alone), weights(given))


def test_a_loss_that_needs_the_teacher_there_is_not():
    refused(TypeError, "There is no teacher, so logits_t is None", MLP(4, 2), blobs(), soft)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, v, y: soft(z, v, y).item(),
        lambda z, v, y: soft(z.detach(), v, y),
        lambda z, v, y: soft(v, z, y),
    ],
)
def test_a_loss_without_a_gradient_in_the_student(loss):
    match = r"does not depend on the student's outputs.*detached.*\.item\(\).*swapped"
    refused(ValueError, match, MLP(4, 2), blobs(), loss, torch.zeros(40, 2))


@pytest.mark.parametrize(
    "wrap, match",
    [
        (lambda x: {"hard": x, "loss": x}, r"returned a dict: take loss\['loss'\]"),
        (lambda x: {"soft": x}, r"returned a dict: take loss\['soft'\]"),
        (lambda x: (x, x), r"returned a tuple: take one number, .*\[0\]"),
        (lambda x: None, "returned None: does it end without return"),
        (str, "returned a str"),
    ],
)
def test_a_loss_that_returns_no_tensor(wrap, match):
    refused(TypeError, match, MLP(4, 2), blobs(), lambda z, v, y: wrap(hard_loss(z, v, y)))


def test_a_loss_of_several_numbers():
    refused(ValueError, r"shape \(8, 2\): take its mean", MLP(4, 2), blobs(), lambda z, v, y: z.square())


# ------------------------------------------------------------------------------------------------- teachers


@pytest.mark.parametrize("teacher", [np.zeros((40, 2)), lambda x: x, {"a": 1}])
def test_anything_but_a_module_or_its_logits_as_teacher(teacher):
    match = r"the teacher is an nn\.Module.*torch\.as_tensor\(logits\).*a module whose"
    refused(TypeError, match, MLP(4, 2), blobs(), soft, teacher)


def test_cached_logits_with_nan_are_named_by_their_row():
    v = torch.zeros(40, 2)
    v[[7, 31], 1] = float("nan")
    match = r"row 7 of the teacher logits holds NaN \(2 of 40 rows"
    refused(ValueError, match, MLP(4, 2), blobs(), soft, v)
    v = v.nan_to_num(0)
    v[7] = torch.tensor([0, -torch.inf])  # a class that the teacher rules out is no NaN
    for run in both(MLP(4, 2), blobs(), soft, v):
        run()


def test_a_list_of_teachers_is_no_teacher_of_fit():
    with pytest.raises(TypeError, match=r"got list.*several teachers: a module"):
        fit(MLP(4, 2), blobs(), soft, [MLP(4, 2), MLP(4, 2)], **RUN)


def test_cached_logits_that_carry_a_graph_reach_no_teacher():
    teacher = MLP(4, 2, seed=3)
    for run in both(MLP(4, 2), blobs(), lambda z, v, y: F.mse_loss(z, v), teacher(blobs().x)):
        run()
    assert all(p.grad is None for p in teacher.parameters())


def test_the_student_as_its_own_teacher():
    student = MLP(4, 2)
    refused(ValueError, r"the same object.*copy\.deepcopy\(student\)", student, blobs(), soft, student)


def test_a_teacher_that_holds_a_layer_of_the_student():
    student = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    teacher = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), student[2])
    match = r"the teacher holds the student's own 2\.weight, 2\.bias.*copy\.deepcopy\(teacher\)"
    refused(ValueError, match, student, blobs(), soft, teacher)
    for run in both(student, blobs(), soft, copy.deepcopy(teacher)):
        run()
    student[2].requires_grad_(False)  # a head that both hold, and nobody moves
    for run in both(student, blobs(), soft, teacher):
        run()


# ------------------------------------------------------------------------------------------------- students


def test_a_student_that_is_no_module_or_all_frozen():
    for students in (lambda: fit(abs, blobs(), **RUN), lambda: fit_many([abs], blobs(), seeds=[0], **RUN)):
        with pytest.raises(TypeError, match=r"a student is an nn\.Module; got builtin"):
            students()
    refused(ValueError, "all weights of the student are frozen", MLP(4, 2).requires_grad_(False), blobs())


def test_a_projector_outside_the_student():
    student, projector = MLP(4, 2, seed=0), nn.Linear(2, 3)

    def loss(z, v, y):
        return F.mse_loss(projector(z), v)

    v = torch.randn(40, 3)
    match = r"depends on a parameter \((3, 2|3,)\) that is not the student's.*a part of the student"
    refused(ValueError, match, student, blobs(), loss, v)
    projector.requires_grad_(False)
    for run in both(student, blobs(), loss, v):
        run()
    student.projector = projector.requires_grad_(True)
    before = projector.weight.clone()
    fit(student, blobs(), loss, v, **RUN)
    assert not torch.equal(projector.weight, before)


def test_a_temperature_that_would_not_learn():
    T = nn.Parameter(torch.tensor(2.0))
    match = r"a parameter \(\) that is not the student's"
    refused(ValueError, match, MLP(4, 2), blobs(), lambda z, v, y: hard_loss(z / T, v, y))


def test_an_input_that_asks_for_its_gradient_is_no_parameter():
    def loss(z, v, y):
        return z.square().mean()

    for run in both(MLP(4, 2), blobs(), loss, transform=lambda x, g: x.requires_grad_()):
        run()


class Hidden(nn.Module):
    """Dropout that no module shows."""

    def forward(self, x):
        return F.dropout(x, 0.3, self.training)


@pytest.mark.parametrize("part", [Hidden(), nn.BatchNorm1d(4, momentum=None)])
def test_students_that_cannot_run_many_at_once(part):
    student = nn.Sequential(part, MLP(4, 2))
    with pytest.raises(ValueError, match=r"cannot be done for many at once.*call `fit` for each"):
        fit_many([student], blobs(), seeds=[0], **RUN)
    assert fit(student, blobs(), **RUN).loss


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantisation_aware_students_are_for_fit():
    quantisation = pytest.importorskip("torch.ao.quantization")
    model = nn.Sequential(quantisation.QuantStub(), MLP(4, 8, seed=0), nn.ReLU(), MLP(8, 2, seed=1))
    model.qconfig = quantisation.get_default_qat_qconfig("fbgemm")
    student = quantisation.prepare_qat(model.train())
    with pytest.raises(ValueError, match=r"cannot be done for many at once.*fake quantisation.*call `fit`"):
        fit_many([student], blobs(), seeds=[0], **RUN)
    assert fit(student, blobs(), **{**RUN, "steps": 60}).loss[-1] < 0.4


# -------------------------------------------------------------------------------------- what models return


class Returns(nn.Module):
    """Answers in the way that is named."""

    def __init__(self, how, seed=0):
        super().__init__()
        self.how, self.body = how, MLP(4, 8, 2, seed=seed)

    def forward(self, x):
        z = self.body(x)
        return {
            "dict": {"logits": z, "hidden": x},
            "output": Output(logits=z, hidden=x),
            "named": namedtuple("Outputs", "logits aux")(z, x),
            "tuple": (z, x),
            "other": {"out": z, "aux": x},
        }[self.how]


class Output(OrderedDict):
    """As a ModelOutput of Hugging Face's: a dict whose entries are attributes too."""

    def __init__(self, **entries):
        super().__init__(entries)
        self.__dict__.update(entries)


@pytest.mark.parametrize("how", ["dict", "output", "named"])
def test_logits_are_taken_out_of_what_models_return(how):
    plain, wrapped = MLP(4, 8, 2, seed=0), Returns(how)
    val = {"val": blobs(seed=1), "val_every": 5}
    expected = fit(plain, blobs(), soft, MLP(4, 8, 2, seed=7), **val, **RUN)
    assert fit(wrapped, blobs(), soft, Returns(how, seed=7), **val, **RUN) == expected
    assert torch.equal(predict(plain, blobs().x), predict(wrapped, blobs().x))
    students = [Returns("dict") for _ in range(2)]
    many = fit_many(students, blobs(), soft, Returns(how, seed=7), seeds=[0, 1], **RUN)
    assert many[0].loss == pytest.approx(expected.loss, rel=1e-4)


@pytest.mark.parametrize(
    "how, match", [("tuple", "returns a tuple, and"), ("other", "returns a dict with out, aux")]
)
def test_what_has_no_logits_is_refused_where_only_a_tensor_will_do(how, match):
    with pytest.raises(TypeError, match=match + r".*an nn\.Module whose forward returns them alone"):
        predict(Returns(how), blobs().x)
    with pytest.raises(TypeError, match=match):
        fit(Returns(how), blobs(), val=blobs(), **RUN)
    with pytest.raises(TypeError, match=match):
        fit_many([Returns(how)], blobs(), seeds=[0], **RUN)
    kind = "tuple" if how == "tuple" else "dict"
    with pytest.raises(TypeError, match=rf"could not take {kind}.*unpack it in the loss"):
        fit(Returns(how), blobs(), soft, torch.zeros(40, 2), **RUN)


def test_a_loss_may_unpack_a_tuple():
    plain, tupled = MLP(4, 8, 2, seed=0), Returns("tuple")
    expected = fit(plain, blobs(), soft, MLP(4, 8, 2, seed=3), **RUN)
    assert fit(tupled, blobs(), lambda z, v, y: soft(z[0], v[0], y), Returns("tuple", 3), **RUN) == expected


@pytest.mark.parametrize("how", ["tuple", "other"])
def test_a_score_gets_what_the_student_returns(how):
    train, val, seen = blobs(), blobs(2100, seed=1), []
    key = 0 if how == "tuple" else "out"

    def score(outputs, y):
        seen.append(outputs)
        return accuracy(outputs[key], y)

    more = {"val": val, "val_every": 5, **RUN}
    expected = fit(MLP(4, 8, 2, seed=0), train, **more)
    student = Returns(how)
    found = fit(student, train, lambda z, v, y: hard_loss(z[key], v, y), score=score, **more)
    assert found == expected
    assert len(seen[0][key]) == 2100 and torch.equal(seen[-1][1 if how == "tuple" else "aux"], val.x)


# ------------------------------------------------------------------------------------------------ hard_loss


def test_hard_loss_of_tokens_is_the_mean_over_those_with_a_label():
    z, y = torch.randn(3, 4, 4, dtype=torch.double), torch.randint(0, 4, (3, 4))
    y[0, 1] = -100
    rows = [-z[i, j].log_softmax(-1)[y[i, j]] for i in range(3) for j in range(4) if y[i, j] >= 0]
    torch.testing.assert_close(hard_loss(z, None, y), torch.stack(rows).mean())
    assert hard_loss(z, None, torch.full((3, 4), -100)) == 0


def test_hard_loss_takes_soft_labels():
    z, y = torch.randn(5, 3, dtype=torch.double), torch.rand(5, 3, dtype=torch.double).softmax(-1)
    torch.testing.assert_close(hard_loss(z, None, y), -(y * z.log_softmax(-1)).sum(-1).mean())
    one_hot = F.one_hot(torch.arange(3), 3).float()
    torch.testing.assert_close(hard_loss(z[:3], None, one_hot), hard_loss(z[:3], None, torch.arange(3)))


@pytest.mark.parametrize(
    "y, match",
    [
        (torch.zeros(5, 1).long(), r"torch\.int64 \(5, 1\)"),
        (torch.zeros(5), r"regression: loss=lambda z, v, y: F\.mse_loss\(z, y\)"),
        (torch.ones(5, 3), r"several labels at once.*binary_cross_entropy_with_logits"),
        (torch.zeros(4).long(), r"\(5, 3\) and torch\.int64 \(4,\)"),
    ],
)
def test_labels_that_hard_loss_cannot_take(y, match):
    with pytest.raises(ValueError, match=match):
        hard_loss(torch.zeros(5, 3), None, y)


@pytest.mark.parametrize("T", [None, "4", [4], (4,)])
def test_a_number_is_a_number(T):
    z = torch.zeros(2, 3)
    with pytest.raises(TypeError, match="T is one number; got"):
        losses.kd_loss(z, z, T)
    with pytest.raises(TypeError, match="alpha is one number; got"):
        losses.distillation_loss(z, z, torch.tensor([0, 1]), 4, T)
