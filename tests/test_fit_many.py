"""Many students at once are the students that `fit` makes one by one."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

from companion.data import Split, fashion
from companion.losses import dist_loss, distillation_loss, kd_loss
from companion.models import MLP, ConvNet
from companion.training import fit, fit_many, hard_loss, jitter, predict, teacher_logits
from tests.test_training import Noisy, blobs, soft

RUN = {"steps": 30, "lr": 1e-2, "batch_size": 8}
SEEDS = [3, 1, 4]


def double(split):
    return Split(split.x.double(), split.y)


def images(n=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 10
    return Split(torch.randn(n, 1, 28, 28, generator=generator, dtype=torch.double), y)


def both(make, train, loss, teacher=None, **more):
    """Students and histories by `fit_many`, and by `fit`, which gets one of each list."""
    together, alone = ([make(s).double() for s in SEEDS] for _ in range(2))
    histories = fit_many(together, train, loss, teacher, seeds=SEEDS, **RUN, **more)

    def of(value, i):
        return value[i] if isinstance(value, list) else value

    for i, (student, seed) in enumerate(zip(alone, SEEDS, strict=True)):
        single = fit(student, of(train, i), of(loss, i), of(teacher, i), seed=seed, **RUN, **more)
        assert histories[i].loss == pytest.approx(single.loss, rel=1e-7, abs=1e-9)
        assert (histories[i].best_step, histories[i].val_steps) == (single.best_step, [])
        assert not together[i].training
        for (name, a), b in zip(together[i].state_dict().items(), student.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=lambda text, name=name: name + text)
    assert not torch.equal(*(next(student.parameters()) for student in together[:2]))


OWN = [partial(distillation_loss, T=T, alpha=a) for T, a in [(1, 0.2), (4, 0.9), (20, 1.0)]]


def test_mlps_with_their_own_temperature_and_alpha():
    train = double(blobs(37))
    v = torch.randn(37, 2, dtype=torch.double)
    both(lambda s: MLP(4, 8, 6, 2, seed=s), train, OWN, v)


def test_mlps_with_their_own_images_and_teachers_and_one_without():
    trains = [double(blobs(40, seed)) for seed in SEEDS]
    teachers = [MLP(4, 9, 2, seed=9).double(), None, torch.randn(40, 2, dtype=torch.double)]
    both(lambda s: MLP(4, 8, 2, seed=s), trains, [soft, hard_loss, soft], teachers)


@pytest.mark.parametrize("train, batch", [(images(), 24), (images(5), 5)])
def test_convnets_with_their_own_running_averages(train, batch):
    v = 3 * torch.randn(len(train), 10, dtype=torch.double)
    both(lambda s: ConvNet(2, dropout=0.0, seed=s), train, OWN, v)


def test_a_transform_draws_from_the_seed_and_the_teacher_sees_what_it_makes():
    teacher = ConvNet(2, seed=7).double()
    both(lambda s: ConvNet(2, dropout=0.0, seed=s), images(), soft, teacher, transform=jitter(2))


def test_a_loss_over_the_batch_stays_within_its_student():
    v = torch.randn(40, 2, dtype=torch.double)
    both(lambda s: MLP(4, 8, 2, seed=s), double(blobs()), lambda z, v, y: dist_loss(z, v, 2.0), v)


def test_any_module_and_a_frozen_part():
    def make(seed):
        model = nn.Sequential(MLP(4, 8, seed=seed), nn.BatchNorm1d(8), nn.Tanh(), MLP(8, 2, seed=seed))
        model[0].requires_grad_(False)
        return model

    both(make, double(blobs()), soft, Noisy().double())


def test_in_single_precision_they_agree_to_rounding_at_first():
    train, v = blobs(), teacher_logits(MLP(4, 9, 2, seed=9), blobs().x)
    together = [MLP(4, 8, 2, seed=s) for s in SEEDS]
    found = fit_many(together, train, soft, v, seeds=SEEDS, **RUN)
    for seed, history in zip(SEEDS, found, strict=True):
        alone = fit(MLP(4, 8, 2, seed=seed), train, soft, v, seed=seed, **RUN)
        assert history.loss == pytest.approx(alone.loss, rel=1e-3, abs=1e-5)


def test_the_global_generator_is_left_alone():
    state = torch.random.get_rng_state()
    fit_many([MLP(4, 2, seed=s) for s in SEEDS], blobs(), seeds=SEEDS, **RUN)
    assert torch.equal(state, torch.random.get_rng_state())


# -------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "others, match",
    [
        ([], "got none"),
        ([MLP(4, 2), MLP(4, 3, 2)], "student 1 is not built like"),
        ([MLP(4, 2), nn.Linear(4, 2)], "student 1 is not built like"),
        ([MLP(4, 2), MLP(4, 2).double()], "student 1 is not built like"),
        ([nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.3))], "draws at random"),
        ([ConvNet(2)], r"Dropout\(p=0.2.* use `fit`"),
    ],
)
def test_students_that_cannot_be_stacked_are_refused(others, match):
    with pytest.raises(ValueError, match=match):
        fit_many(others, blobs(), seeds=range(len(others)), **RUN)


def test_one_student_twice_is_refused():
    student = MLP(4, 2)
    with pytest.raises(ValueError, match="one twice"):
        fit_many([student, student], blobs(), seeds=[0, 1], **RUN)


@pytest.mark.parametrize(
    "bad, match",
    [
        ({"seeds": [0]}, "1 seeds for 2 students"),
        ({"loss": [soft] * 3}, "3 losses for 2 students"),
        ({"train": [blobs()]}, "1 train splits for 2"),
        ({"teacher": [None] * 3}, "3 teachers for 2"),
        (
            {"train": [blobs(40), blobs(5)]},
            r"\[5, 40\] examples give batches of different sizes: take batch_size = 5",
        ),
        ({"teacher": torch.zeros(39, 2)}, r"39 rows .* 40"),
        ({"teacher": torch.zeros(40, 2), "transform": lambda x, g: x}, "cached"),
        ({"steps": 0}, "steps is a whole number, 1 or more; got 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(bad, match):
    with pytest.raises(ValueError, match=match):
        fit_many([MLP(4, 2), MLP(4, 2)], **{"train": blobs(), "seeds": [0, 1], **RUN, **bad})


def test_a_loss_that_is_not_finite_names_student_and_step_and_changes_nobody():
    students = [MLP(4, 2, seed=s) for s in SEEDS]
    before = [next(s.parameters()).clone() for s in students]
    broken = blobs()
    broken.x[:] = math.nan
    with pytest.raises(FloatingPointError, match="student 1 at step 1"):
        fit_many(students, [blobs(), broken, blobs()], seeds=SEEDS, **RUN)
    assert all(torch.equal(a, next(s.parameters())) for a, s in zip(before, students, strict=True))


def test_after_ctrl_c_nobody_is_changed_and_the_histories_are_not_lost():
    students = [nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)).train(i > 0) for i in range(3)]
    before = copy.deepcopy([student.state_dict() for student in students])
    calls = []

    def loss(z, v, y):
        calls.append(z)
        if len(calls) == 3 * 5 + 2:
            raise KeyboardInterrupt
        return hard_loss(z, v, y)

    with pytest.raises(KeyboardInterrupt) as caught:
        fit_many(students, blobs(), loss, seeds=SEEDS, **RUN)
    histories = caught.value.history
    assert [len(h.loss) for h in histories] == [5, 5, 5] and histories[0].best_step == 5
    assert [s.training for s in students] == [False, True, True]
    for old, student in zip(before, students, strict=True):
        assert all(torch.equal(old[k], v) for k, v in student.state_dict().items())


def test_a_diverging_student_is_named_with_its_step_and_the_remedy():
    students = [MLP(4, 2, seed=s) for s in SEEDS]
    losses = [soft, lambda z, v, y: soft(z * 1e38 * z.detach().abs(), v, y), soft]
    with pytest.raises(FloatingPointError, match="for student 1 at step 1, before any update"):
        fit_many(students, blobs(), losses, torch.randn(40, 2), seeds=SEEDS, **RUN)
    match = r"for student 0 at step [2-9]: the run diverges, lower lr = 1e\+30"
    with pytest.raises(FloatingPointError, match=match):
        fit_many(students, blobs(), soft, torch.randn(40, 2), seeds=SEEDS, **{**RUN, "lr": 1e30})


def test_before_batch_norm_rounding_grows_in_float32_and_not_in_float64():
    """What batch norm cancels the loss does not see, and Adam steps by the rounding: the docstring says so."""
    images, run = fashion("train")[:100], {"steps": 20, "lr": 3e-3, "batch_size": 50}

    def make():
        first = MLP(784, 64, seed=1).layers[0]
        return nn.Sequential(nn.Flatten(), first, nn.BatchNorm1d(64), nn.ReLU(), MLP(64, 10, seed=2))

    def apart(dtype):
        train, together, alone = Split(images.x.to(dtype), images.y), make().to(dtype), make().to(dtype)
        fit_many([together], train, seeds=[0], **run)
        fit(alone, train, **run)
        return (predict(together, train.x) - predict(alone, train.x)).abs().max().item()

    assert apart(torch.float64) < 1e-9 and 1e-5 < apart(torch.float32) < 0.1


def test_a_students_loss_reaches_no_other_student():
    def nothing(z, v, y):
        return 0 * z.sum()

    students = [MLP(4, 2, seed=s) for s in SEEDS]
    before = [next(s.parameters()).clone() for s in students]
    losses = [nothing, hard_loss, lambda z, v, y: kd_loss(z, z.detach())]
    fit_many(students, blobs(), losses, seeds=SEEDS, weight_decay=0.0, **RUN)
    moved = [not torch.equal(a, next(s.parameters())) for a, s in zip(before, students, strict=True)]
    assert moved == [False, True, False]


# --------------------------------------------------------------------- what students hold beside their state


class Scaled(nn.Module):
    """Outputs times a number that is in no state_dict, or through a function."""

    def __init__(self, k=1.0, act=torch.relu, seed=0):
        super().__init__()
        self.k, self.act, self.body, self.last = k, act, MLP(4, 8, seed=seed), MLP(8, 2, seed=seed)

    def forward(self, x):
        return self.k * self.last(self.act(self.body(x)))


@pytest.mark.parametrize(
    "k, other", [(1.0, 2.0), (1.0, 1.001), (torch.tensor(1.0), torch.tensor(2.0)), (1.0, torch.ones(2))]
)
def test_students_that_differ_in_a_number_outside_the_state_are_refused(k, other):
    students = [Scaled(k, seed=0), Scaled(k, seed=1), Scaled(other, seed=2)]
    before = copy.deepcopy([s.state_dict() for s in students])
    with pytest.raises(ValueError, match=r"student 2 has k = .* student 0 .*call `fit` for each"):
        fit_many(students, blobs(), seeds=SEEDS, **RUN)
    for old, student in zip(before, students, strict=True):
        assert all(torch.equal(old[name], x) for name, x in student.state_dict().items())


@pytest.mark.parametrize("odd", [{"k": 3}, {"act": torch.tanh}])
def test_students_that_differ_otherwise_are_refused_at_the_first_batch(odd):
    usual = {"k": 2} if "k" in odd else {}
    students = [Scaled(**usual), Scaled(**odd, seed=1)]
    with pytest.raises(ValueError, match=r"student 1 alone and among the others .* Call `fit` for each"):
        fit_many(students, blobs(), seeds=[0, 1], **RUN)


def test_what_differs_and_does_not_matter_is_no_reason_to_refuse():
    students = [Scaled(seed=s) for s in SEEDS]
    for i, student in enumerate(students):
        student.name, student.seed, student.act = f"student {i}", i, lambda x: x.relu()
    assert len(fit_many(students, blobs(), seeds=SEEDS, **RUN)) == 3


def test_a_hook_on_an_mlp_is_not_passed_over():
    student = MLP(4, 8, 2, seed=0)
    student.layers[0].register_forward_hook(lambda m, x, out: out * 3)
    with pytest.raises(ValueError, match=r"a hook .* is passed over. Call `fit` for each"):
        fit_many([student], blobs(), seeds=[0], **RUN)


def test_students_that_share_weights_or_averages_are_refused():
    body, norm = nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False)
    for shared, name in (([body, nn.BatchNorm1d(8)], "0.weight"), ([None, norm], "1.running_mean")):
        students = [nn.Sequential(shared[0] or nn.Linear(4, 8), shared[1], nn.Linear(8, 2)) for _ in range(2)]
        with pytest.raises(ValueError, match=rf"students 0 and 1 share {name}"):
            fit_many(students, blobs(), seeds=[0, 1], **RUN)


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_spectral_norm_is_for_fit(norm):
    for make in (lambda: nn.Sequential(norm(nn.Linear(4, 2))), lambda: MLP(4, 3, 2)):
        student = make()
        if isinstance(student, MLP):
            norm(student.layers[0])
        with pytest.raises(ValueError, match=r"[cC]all `fit` for each"):
            fit_many([student], blobs(), seeds=[0], **RUN)


def test_an_mlp_frozen_in_one_student_only_is_for_fit():
    students = [MLP(4, 3, 2), MLP(4, 3, 2)]
    students[1].layers[0].requires_grad_(False)
    with pytest.raises(ValueError, match=r"layers\.0\.weight is frozen in .*call `fit` for each"):
        fit_many(students, blobs(), seeds=[0, 1], **RUN)
