"""The training loop: what belongs together stays together, and the same seed gives the same run."""

import inspect
import math
import pickle
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from companion.data import Split
from companion.losses import kd_loss
from companion.metrics import accuracy
from companion.models import MLP
from companion.training import fit, fit_many, hard_loss, jitter, predict, teacher_logits

RUN = {"steps": 12, "lr": 1e-2, "batch_size": 8}


def blobs(n=40, seed=0):
    """Two classes that a line separates."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    return Split(torch.randn(n, 4, generator=generator) + 3 * y[:, None], y)


def soft(logits_s, logits_t, y):
    return kd_loss(logits_s, logits_t, T=2.0)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Noisy(nn.Module):
    """A teacher with batch norm and dropout, which training mode would give away."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2)
        )

    def forward(self, x):
        assert not self.training and not torch.is_grad_enabled()
        return self.body(x)


# ------------------------------------------------------------------------------------- cached and aligned


@pytest.mark.parametrize("n, batch_size", [(40, 8), (37, 8), (5, 8)])
def test_cached_teacher_logits_stay_aligned_with_the_shuffled_examples(n, batch_size):
    """Inputs, labels and teacher logits all carry the example's index; the loss sees all three agree."""
    index = torch.arange(n)
    seen = []

    def loss(logits_s, logits_t, y):
        assert torch.equal(logits_t[:, 0].long(), y) and torch.equal(student.saw[:, 0].long(), y)
        seen.append(y)
        return logits_s.square().mean()

    class Student(nn.Linear):
        def forward(self, x):
            self.saw = x
            return super().forward(x)

    student = Student(2, 2)
    x = torch.stack([index, -index], 1).float()
    fit(student, Split(x, index), loss, x.clone(), steps=12, lr=0.01, batch_size=batch_size)
    per_epoch = max(n // batch_size, 1)
    assert len(seen) == 12 and all(len(y) == min(batch_size, n) for y in seen)
    epochs = [torch.cat(seen[i : i + per_epoch]) for i in range(0, 12 - per_epoch + 1, per_epoch)]
    assert all(len(epoch.unique()) == len(epoch) for epoch in epochs)
    assert len(epochs) < 2 or not torch.equal(epochs[0], epochs[1])


def test_cached_logits_and_the_teacher_itself_give_the_same_student():
    train, teacher = blobs(), Noisy()
    a, b = MLP(4, 8, 2, seed=0), MLP(4, 8, 2, seed=0)
    cached = teacher_logits(teacher, train.x)
    assert fit(a, train, soft, cached, **RUN).loss == pytest.approx(
        fit(b, train, soft, teacher, **RUN).loss, rel=1e-5
    )
    torch.testing.assert_close(weights(a), weights(b))


def test_predict_asks_any_model_and_teacher_logits_are_its_answers():
    student, x = MLP(4, 3, seed=0), blobs().x
    assert torch.equal(predict(student, x), student(x).detach())
    assert torch.equal(teacher_logits(student, x, batch_size=9), predict(student, x, batch_size=9))


def test_predict_gives_each_part_its_own_mode_back():
    model = Noisy().train()
    model.body[1].eval()
    modes = [part.training for part in model.modules()]
    predict(model, blobs().x)
    assert [part.training for part in model.modules()] == modes and not all(modes)


def test_predict_goes_back_by_the_models_own_train_method():
    """A LoRA layer, say, merges its weights in eval mode and takes them apart in train mode."""

    class Merging(nn.Linear):
        merged = False

        def train(self, mode=True):
            self.merged = not mode
            return super().train(mode)

    model = Merging(4, 2)
    for mode in (True, False):
        model.train(mode)
        predict(model, blobs().x)
        assert (model.training, model.merged) == (mode, not mode)


def test_teacher_logits_do_not_depend_on_the_batch_size_and_put_the_mode_back():
    teacher, x = Noisy().train(), blobs().x
    whole, parts = teacher_logits(teacher, x), teacher_logits(teacher, x, batch_size=7)
    assert teacher.training and not whole.requires_grad
    torch.testing.assert_close(whole, parts)
    assert not (teacher_logits(teacher.eval(), x).requires_grad or teacher.training)


def test_the_teacher_is_unchanged_and_each_of_its_parts_has_its_own_mode_back():
    teacher = Noisy().train()
    teacher.body[1].eval()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    modes = [part.training for part in teacher.modules()]
    fit(MLP(4, 2), blobs(), soft, teacher, **RUN)
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert [part.training for part in teacher.modules()] == modes and not all(modes)


# --------------------------------------------------------------------------------------------------- seeds


def run(seed, **more):
    student = nn.Sequential(MLP(4, 8, seed=1), nn.Dropout(0.3), MLP(8, 2, seed=2))
    history = fit(student, blobs(), seed=seed, **RUN, **more)
    return history, weights(student)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    (h1, w1), (h2, w2), (h3, w3) = run(5), run(5), run(6)
    assert torch.equal(w1, w2) and h1 == h2
    assert not torch.equal(w1, w3) and h1.loss != h3.loss
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_learning_rate_falls_to_zero_along_half_a_cosine():
    """With a loss of constant slope AdamW moves by the learning rate at each step."""
    student = nn.Linear(1, 1, bias=False)
    path = []

    def loss(logits_s, logits_t, y):
        path.append(student.weight.item())
        return student.weight.sum()

    fit(student, Split(torch.ones(4, 1), torch.zeros(4).long()), loss, steps=10, lr=0.1, weight_decay=0.0)
    path.append(student.weight.item())
    steps = [a - b for a, b in pairwise(path)]
    assert steps == pytest.approx([0.05 * (1 + math.cos(math.pi * i / 10)) for i in range(10)], rel=1e-3)


# ---------------------------------------------------------------------------------------------- validation


def test_validation_chooses_the_best_step_and_puts_its_weights_back():
    """A loss that learns for 20 steps and unlearns for 20: the best weights lie in between."""
    train, val = blobs(), blobs(seed=1)
    student, kept = MLP(4, 2, seed=0), {}
    step = 0

    def loss(logits_s, logits_t, y):
        nonlocal step
        if step % 5 == 0:
            kept[step] = weights(student).clone()
        step += 1
        return hard_loss(logits_s, None, y if step <= 20 else 1 - y)

    history = fit(student, train, loss, steps=60, lr=0.2, batch_size=8, val=val, val_every=5)
    assert history.val_steps == list(range(5, 61, 5))
    assert history.best_step < 60 and history.val_score[-1] < max(history.val_score)
    first_best = history.val_steps[history.val_score.index(max(history.val_score))]
    assert history.best_step == first_best
    assert torch.equal(weights(student), kept[first_best])
    assert accuracy(teacher_logits(student, val.x), val.y) == max(history.val_score)


def test_the_last_step_is_validated_too_and_without_val_nothing_is():
    history, _ = run(0, val=blobs(seed=1), val_every=5)
    assert history.val_steps == [5, 10, 12] and len(history.loss) == 12
    history, _ = run(0)
    assert (history.val_steps, history.val_score, history.best_step) == ([], [], 12)


def test_validation_does_not_change_the_run():
    assert run(0)[0].loss == run(0, val=blobs(seed=1), val_every=3)[0].loss


def line(n=64, seed=0):
    """A regression: y (N, 1) is linear in x."""
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return Split(x, x @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]]))


def minus_mse(z, y):
    return -F.mse_loss(z, y).item()


def test_a_score_of_ones_own_chooses_the_best_step_of_a_regression():
    val, student = line(seed=1), MLP(4, 1, seed=0)
    history = fit(
        student, line(), lambda z, v, y: F.mse_loss(z, y), val=val, val_every=20, score=minus_mse,
        steps=200, lr=0.1,
    )  # fmt: skip
    assert history.best_step == history.val_steps[history.val_score.index(max(history.val_score))]
    assert history.val_score[0] < -1 and max(history.val_score) > -0.01
    assert minus_mse(predict(student, val.x), val.y) == max(history.val_score) == max(history.val_accuracy)


def test_tokens_some_without_a_label_are_trained_and_scored():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, 4, generator=generator)
    y = x[..., :3].argmax(-1)
    y[torch.rand(40, 5, generator=generator) < 0.3] = -100
    train, student = Split(x, y), nn.Linear(4, 3)
    score = {"val": train, "score": lambda z, y: accuracy(z[y >= 0], y[y >= 0])}
    history = fit(student, train, steps=200, lr=0.05, batch_size=8, **score)
    assert history.val_score[-1] > 95
    with pytest.raises(ValueError, match=r"score=lambda z, y: accuracy\(z\[y >= 0\], y\[y >= 0\]\)"):
        fit(student, train, val=train, **RUN)


@pytest.mark.parametrize(
    "val", [line(), Split(line().x, line().y[:, 0]), Split(line().x, torch.zeros(64, 3).long())]
)
def test_labels_that_accuracy_cannot_count_are_refused_before_the_first_step(val):
    student = MLP(4, 1, seed=0)
    before = weights(student)
    with pytest.raises(ValueError, match=r"accuracy takes labels.*give a score"):
        fit(student, line(), lambda z, v, y: F.mse_loss(z, y), val=val, **RUN)
    assert torch.equal(weights(student), before)


@pytest.mark.parametrize("wrong", [lambda z, y: z, lambda z, y: math.nan])
def test_a_score_that_is_not_one_number_is_refused_before_the_first_step(wrong):
    student = MLP(4, 2, seed=0)
    before = weights(student)
    with pytest.raises(ValueError, match="a score is one number"):
        fit(student, blobs(), val=blobs(), score=wrong, **RUN)
    assert torch.equal(weights(student), before)


def test_a_score_that_never_rises_above_its_first_keeps_the_first():
    student = MLP(4, 2, seed=0)
    history = fit(student, blobs(), val=blobs(), val_every=5, score=lambda z, y: 0.0, **RUN)
    assert history.val_score == [0.0, 0.0, 0.0] and history.best_step == 5


def test_the_student_learns_and_is_left_in_eval_mode():
    student, train = MLP(4, 8, 2, seed=0), blobs()
    history = fit(student, train, steps=60, lr=1e-2, batch_size=8)
    assert history.loss[-1] < history.loss[0] / 3 and not student.training
    assert accuracy(teacher_logits(student, train.x), train.y) > 95


# ------------------------------------------------------------------------------------------------ transform


def test_teacher_and_student_see_the_same_transformed_batch():
    saw = []

    class Watcher(MLP):
        def forward(self, x):
            saw.append(x.clone())
            return super().forward(x)

    fit(
        Watcher(4, 2),
        blobs(),
        soft,
        Watcher(4, 2),
        transform=lambda x, g: x + torch.rand(1, generator=g),
        **RUN,
    )
    assert len(saw) == 24
    assert all(torch.equal(a, b) for a, b in zip(saw[::2], saw[1::2], strict=True))


def test_a_transform_is_refused_with_cached_logits():
    train = blobs()
    with pytest.raises(ValueError, match="cached"):
        fit(MLP(4, 2), train, soft, torch.zeros(40, 2), transform=lambda x, g: x, **RUN)


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (3, 1, 6, 9), (4, 3, 8, 8)])
def test_jitter_is_torch_roll_of_each_image(shape):
    x = torch.randn(shape)
    moved = jitter(3)(x, torch.Generator().manual_seed(0))
    shift = torch.randint(-3, 4, (2, shape[0], 1), generator=torch.Generator().manual_seed(0))
    for i in range(shape[0]):
        rolled = torch.roll(x[i], (-shift[0, i].item(), -shift[1, i].item()), dims=(1, 2))
        assert torch.equal(moved[i], rolled)


def test_jitter_reaches_every_shift_and_zero_pixels_is_the_identity():
    x = torch.zeros(400, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    moved = jitter(2)(x, torch.Generator().manual_seed(0))
    assert {tuple(p) for p in moved.nonzero()[:, 2:].tolist()} == {
        (i, j) for i in range(2, 7) for j in range(2, 7)
    }
    assert torch.equal(jitter(0)(x, torch.Generator()), x)


# --------------------------------------------------------------------------------------- errors, progress


@pytest.mark.parametrize("name", ["steps", "batch_size"])
@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "8"])
def test_counts_that_are_none_are_refused_by_name(name, bad):
    with pytest.raises(ValueError, match=f"^{name} is a whole number, 1 or more; got"):
        fit(MLP(4, 2), blobs(), **{**RUN, name: bad})


def test_a_round_float_is_told_what_it_could_be_and_numpys_counts_are_counts():
    with pytest.raises(ValueError, match=r"got 10000\.0\. Pass int\(10000\.0\)\."):
        fit(MLP(4, 2), blobs(), **{**RUN, "steps": 1e4})
    assert len(fit(MLP(4, 2), blobs(), **{**RUN, "steps": np.int64(3)}).loss) == 3


@pytest.mark.parametrize("bad", [0, -5, 1.5])
def test_predict_needs_a_batch(bad):
    with pytest.raises(ValueError, match="batch_size is a whole number, 1 or more"):
        predict(MLP(4, 2), torch.zeros(3, 4), batch_size=bad)


@pytest.mark.parametrize("bad", [-1, 1.5])
def test_jitter_moves_by_whole_pixels(bad):
    with pytest.raises(ValueError, match="pixels is a whole number, 0 or more"):
        jitter(bad)


def test_a_run_on_no_examples_is_refused():
    with pytest.raises(ValueError, match="no examples"):
        fit(MLP(4, 2), blobs()[:0], **RUN)


def test_a_validation_interval_below_one_is_refused():
    with pytest.raises(ValueError, match="val_every"):
        fit(MLP(4, 2), blobs(), val=blobs(), val_every=0, **RUN)


def test_teacher_logits_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"39 rows .* 40"):
        fit(MLP(4, 2), blobs(), soft, torch.zeros(39, 2), **RUN)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step():
    train = blobs()
    train.x[:] = math.nan
    with pytest.raises(FloatingPointError, match=r"nan at step 1, before any update: look for .* in x"):
        fit(MLP(4, 2), train, **RUN)


@pytest.mark.parametrize("loss", [hard_loss, soft, lambda z, v, y: F.mse_loss(z, v)])
def test_a_diverging_run_names_step_and_remedy_whatever_the_loss(loss):
    """The book's losses say what is not finite by a ValueError of their own, which stays in the chain."""
    with pytest.raises(
        FloatingPointError, match=r"^the loss is nan.* at step [2-9]: the run diverges, lower lr = 1e\+30\.$"
    ) as caught:
        fit(MLP(4, 8, 2, seed=0), blobs(), loss, torch.randn(40, 2), **{**RUN, "lr": 1e30})
    assert loss is not soft or re.search(r"student .* NaN\), teacher .*\(0 NaN\) at step", str(caught.value))
    assert loss is not soft or str(caught.value.__cause__).startswith("the loss is nan: logits are student")


def test_an_error_of_the_loss_that_is_no_divergence_stays_as_it_is():
    with pytest.raises(ValueError, match="same shape") as caught:
        fit(MLP(4, 2), blobs(), soft, torch.zeros(40, 3), **RUN)
    assert caught.value.history.loss == []


class Broken(nn.Module):
    """A teacher that answers NaN from a call on."""

    def __init__(self, call):
        super().__init__()
        self.left = call

    def forward(self, x):
        self.left -= 1
        return torch.full((len(x), 2), math.nan if self.left <= 0 else 0.0)


def test_a_teacher_s_nan_is_told_from_a_student_that_diverges():
    for call, match in (
        (1, "step 1, before any update: look for"),
        (5, "step 5: look for .* teacher's outputs"),
    ):
        with pytest.raises(FloatingPointError, match=rf"teacher all NaN \(16 NaN\).* at {match}"):
            fit(MLP(4, 2), blobs(), soft, Broken(call), **RUN)


def test_weights_that_the_last_step_spoils_are_an_error():
    def loss(z, v, y):
        return z.sum().mul(0).sqrt()  # 0, with an infinite slope

    with pytest.raises(
        FloatingPointError, match="weights are not finite at step 1: the run diverges, lower lr"
    ):
        fit(MLP(4, 2), blobs(), loss, **{**RUN, "steps": 1})
    with pytest.raises(FloatingPointError, match="answers to val are not finite at step 1: the run diverges"):
        fit(MLP(4, 2), blobs(), loss, val=blobs(), val_every=1, **RUN)


# ----------------------------------------------------------------------------------------------- interrupts


def stopped(error, **more):
    """A run that ends by an error in step 12, as from the keyboard."""
    student, kept = MLP(4, 8, 2, seed=0), []

    def loss(z, v, y):
        kept.append(weights(student).clone())
        if len(kept) == 12:
            raise error
        return hard_loss(z, v, y)

    with pytest.raises(type(error)) as caught:
        fit(student, blobs(), loss, steps=20, lr=1e-2, batch_size=8, **more)
    return student, kept, caught.value.history


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_after_ctrl_c_the_student_has_its_best_weights_and_the_history_is_not_lost(error):
    falling = iter([0.0, 3.0, 5.0, 4.0])  # the first is the trial before the run
    student, kept, history = stopped(error, val=blobs(seed=1), val_every=3, score=lambda z, y: next(falling))
    assert (history.val_steps, history.val_score, history.best_step) == ([3, 6, 9], [3.0, 5.0, 4.0], 6)
    assert torch.equal(weights(student), kept[6]) and not student.training
    assert len(history.loss) == 11


def test_after_ctrl_c_without_validation_the_student_has_its_last_weights():
    student, kept, history = stopped(KeyboardInterrupt())
    assert torch.equal(weights(student), kept[11]) and not student.training
    assert (len(history.loss), history.best_step, history.val_steps) == (11, 11, [])


def test_two_runs_of_half_the_steps_are_not_one():
    """As the docstring says: each call starts the optimiser and the schedule anew."""
    once, twice = MLP(4, 8, 2, seed=0), MLP(4, 8, 2, seed=0)
    fit(once, blobs(), **RUN)
    for _ in range(2):
        fit(twice, blobs(), **{**RUN, "steps": 6})
    assert (weights(once) - weights(twice)).abs().max() > 1e-2


# ------------------------------------------------------------------------------------ modes, defaults, seeds


def test_a_student_that_arrives_in_eval_mode_is_trained_in_train_mode():
    """As `fit` leaves it: batch norm counts its batches, and only in train mode."""
    student = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)).eval()
    for runs in (1, 2):
        fit(student, blobs(), **RUN)
        assert student[1].num_batches_tracked == 12 * runs
    fit_many([student], blobs(), seeds=[0], **RUN)
    assert student[1].num_batches_tracked == 36


def test_the_global_seed_does_not_matter_to_dropout():
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(run(5)[1])
    assert torch.equal(*found)


def test_defaults():
    expected = {"batch_size": 100, "weight_decay": 0.01, "seed": 0, "val_every": 100, "progress": False}
    expected |= {"teacher": None, "transform": None, "val": None, "precision": None}
    given = {name: p.default for name, p in inspect.signature(fit).parameters.items()}
    assert {name: given[name] for name in expected} == expected
    assert (given["loss"], given["score"]) == (None, accuracy)
    many = {name: p.default for name, p in inspect.signature(fit_many).parameters.items()}
    shared = set(many) & set(given) - {"steps", "lr"}
    assert len(shared) == 7 and all(many[name] == given[name] for name in shared)
    assert inspect.signature(predict).parameters["batch_size"].default == 1000


def test_a_batch_of_one():
    seen = []

    def loss(z, v, y):
        seen.append((z.shape, v.shape, y.shape))
        return soft(z, v, y)

    history = fit(MLP(4, 2), blobs(), loss, torch.zeros(40, 2), steps=50, lr=1e-2, batch_size=1)
    assert set(seen) == {((1, 2), (1, 2), (1,))} and len(history.loss) == 50


def test_jitter_can_be_pickled():
    moved = pickle.loads(pickle.dumps(jitter(2)))
    x = torch.randn(3, 1, 6, 6)
    assert torch.equal(*(t(x, torch.Generator().manual_seed(0)) for t in (jitter(2), moved)))


def test_progress_shows_every_step(capsys):
    fit(MLP(4, 2), blobs(), progress=True, **RUN)
    assert "12/12" in capsys.readouterr().err


def test_soft_labels_of_nan_are_no_distribution():
    with pytest.raises(ValueError, match="does not sum to 1"):
        hard_loss(torch.zeros(2, 3), None, torch.tensor([[1.0, 0, 0], [torch.nan, 0, 0]]))
    assert hard_loss(torch.zeros(0, 3), None, torch.zeros(0, 3)) == 0


@pytest.mark.parametrize("row", ([1.0, 1, 0], [0.3, 0.3, 0.3], [1.5, -0.5, 0], [0.0, 0, 0]))
def test_soft_labels_sum_to_one_and_none_is_negative(row):
    good = [0.5, 0.5, 0.0]
    with pytest.raises(ValueError, match="does not sum to 1"):
        hard_loss(torch.zeros(2, 3), None, torch.tensor([good, row]))
    assert hard_loss(torch.zeros(1, 3), None, torch.tensor([good])).isclose(torch.tensor(3.0).log())
