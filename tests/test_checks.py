"""Every check accepts the right answer, waits for a stub, and has each hint reached by its own mistake."""

from decimal import Decimal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special, stats

from companion import checks, losses
from companion.checks import (
    _compare,
    concepts,
    conventions,
    encoders,
    experiments,
    inside,
    language,
    outlook,
    processes,
    questions,
    responses,
    several,
    shipping,
    teachers,
)
from companion.checks._choice import choice
from companion.checks._exercises import EXERCISES

MODULES = (
    concepts, conventions, encoders, experiments, inside, language, outlook, processes, questions, responses,
    several, shipping, teachers,
)  # fmt: skip
COMPARED = [e.name for e in EXERCISES if e.name not in ("training_step", "view_loss") and e.kind == "write"]


def said(check, attempt, capsys) -> str:
    check(attempt)
    return capsys.readouterr().out.strip()


def kl(log_p, log_q):
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def logs(z, v, T):
    return (v.detach() / T).log_softmax(-1), (z / T).log_softmax(-1)


def kd(z, v, T):
    return T**2 * kl(*logs(z, v, T))


def soft(z, T):
    return (z / T).softmax(-1)


def centred(x):
    return x - x.mean(-1, keepdim=True)


def square(gap):
    return gap.square().sum(-1).mean()


def blend(z, v, y, T, hard, soft):
    return hard * F.cross_entropy(z, y) + soft * kd(z, v, T)


def interval(a, b, spread, quantile):
    return (a - b).mean() - quantile * spread, (a - b).mean() + quantile * spread


def t(n):
    return stats.t.ppf(0.975, n - 1)


RIGHT = {
    "soften": soft,
    "kd_loss": kd,
    "kd_gradient": lambda z, v, T: T * (soft(z, T) - soft(v, T)) / len(z),
    "high_temperature_loss": lambda z, v: square(centred(z - v)) / (2 * z.shape[-1]),
    "distillation_loss": lambda z, v, y, T, a: blend(z, v, y, T, 1 - a, a),
    "paired_interval": lambda a, b: interval(a, b, (a - b).std() / len(a) ** 0.5, t(len(a))),
}

# exercise → a piece of the hint → the mistake a reader makes
WRONG = {
    "soften": {
        "T is ignored": lambda z, T: z.softmax(-1),
        "T multiplies the logits": lambda z, T: (z * T).softmax(-1),
        "T divides the probabilities (erratum C2)": lambda z, T: z.softmax(-1) / T,
        "the article's formula (erratum F1)": lambda z, T: z.exp() / (z.exp().sum(-1, keepdim=True) / T),
        "probabilities are softened again": lambda z, T: (z.softmax(-1) / T).softmax(-1),
        "runs over the examples": lambda z, T: (z / T).softmax(0),
        "these are log-probabilities": lambda z, T: (z / T).log_softmax(-1),
    },
    "kd_loss": {
        "the factor T² is missing": lambda z, v, T: kl(*logs(z, v, T)),
        "T² divides (erratum C3)": lambda z, v, T: kl(*logs(z, v, T)) / T**2,
        "T where T² belongs": lambda z, v, T: kd(z, v, T) / T,
        "the direction is reversed": lambda z, v, T: T**2 * kl(*reversed(logs(z, v, T))),
        "reduction='mean'": lambda z, v, T: kd(z, v, T) / z.shape[-1],
        "a sum over the examples": lambda z, v, T: kd(z, v, T) * len(z),
        "this is the cross-entropy": lambda z, v, T: T**2 * F.cross_entropy(z / T, soft(v.detach(), T)),
        "softmax twice": lambda z, v, T: kd(z.softmax(-1), v.softmax(-1), T),
        "wants log-probabilities": lambda z, v, T: (
            T**2 * F.kl_div(soft(z, T), soft(v.detach(), T), reduction="batchmean")
        ),
        "only the teacher is softened": lambda z, v, T: T**2 * kl(logs(z, v, T)[0], logs(z, v, 1)[1]),
        "only the student is softened": lambda z, v, T: T**2 * kl(logs(z, v, 1)[0], logs(z, v, T)[1]),
        "a gradient reaches the teacher": lambda z, v, T: (
            T**2 * F.kl_div((z / T).log_softmax(-1), (v / T).softmax(-1), reduction="batchmean")
        ),
        "the result differs": lambda z, v, T: kd(z, v, T) + 1,
    },
    "kd_gradient": {
        "the sign is turned round": lambda z, v, T: T * (soft(v, T) - soft(z, T)) / len(z),
        "KL without T²": lambda z, v, T: (soft(z, T) - soft(v, T)) / T / len(z),
        "the inner derivative 1/T": lambda z, v, T: T**2 * (soft(z, T) - soft(v, T)) / len(z),
        "T is missing: T² from the loss": lambda z, v, T: (soft(z, T) - soft(v, T)) / len(z),
        "divide by N": lambda z, v, T: T * (soft(z, T) - soft(v, T)),
    },
    "high_temperature_loss": {
        "must be centred": lambda z, v: square(z - v) / (2 * z.shape[-1]),
        "the factor 1/(2C) is missing": lambda z, v: square(centred(z - v)),
        "the ½ is missing": lambda z, v: square(centred(z - v)) / z.shape[-1],
        "the 1/C is missing": lambda z, v: square(centred(z - v)) / 2,
    },
    "distillation_loss": {
        "α is on the hard term": lambda z, v, y, T, a: blend(z, v, y, T, a, 1 - a),
        "in the soft term: the factor T² is missing": lambda z, v, y, T, a: blend(
            z, v, y, T, 1 - a, a / T**2
        ),
        "T² multiplies the hard term too": lambda z, v, y, T, a: blend(z, v, y, T, (1 - a) * T**2, a),
        "the hard term is softened": lambda z, v, y, T, a: (
            (1 - a) * F.cross_entropy(z / T, y) + a * kd(z, v, T)
        ),
        "added without their weights": lambda z, v, y, T, a: blend(z, v, y, T, 1, 1),
        "the hard term is missing": lambda z, v, y, T, a: a * kd(z, v, T),
        "the teacher does not enter": lambda z, v, y, T, a: F.cross_entropy(z, y),
        "a gradient reaches the teacher": lambda z, v, y, T, a: (
            (1 - a) * F.cross_entropy(z, y)
            + a * T**2 * F.kl_div((z / T).log_softmax(-1), soft(v, T), reduction="batchmean")
        ),
    },
    "paired_interval": {
        "treated as unrelated": lambda a, b: interval(a, b, ((a.var() + b.var()) / len(a)).sqrt(), t(len(a))),
        "the normal quantile": lambda a, b: interval(a, b, (a - b).std() / len(a) ** 0.5, 1.96),
        "divide by √n": lambda a, b: interval(a, b, (a - b).std(), t(len(a))),
        "take n − 1 (ddof=1)": lambda a, b: interval(
            a, b, (a - b).std(correction=0) / len(a) ** 0.5, t(len(a))
        ),
        "the difference is turned round": lambda a, b: interval(
            b, a, (a - b).std() / len(a) ** 0.5, t(len(a))
        ),
    },
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_answer_passes(name, capsys):
    assert said(getattr(checks, name), RIGHT[name], capsys) == f"✓ {name}"


@pytest.mark.parametrize("name, piece", [(name, piece) for name in WRONG for piece in WRONG[name]])
def test_each_mistake_gets_its_own_hint(name, piece, capsys):
    text = said(getattr(checks, name), WRONG[name][piece], capsys)
    assert text.startswith(f"✗ {name}: ") and piece in text


def tables(name, monkeypatch) -> tuple:
    """What the check of an exercise gives to `compare`: right, cases, mistakes, and by name the rest."""
    found = []

    def collect(name, attempt, right, cases, mistakes, **rest):
        found.append((right, cases, mistakes, rest))

    with monkeypatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "compare", collect)
        getattr(checks, name)(None)
    return found[0]


@pytest.mark.parametrize("name", COMPARED)
def test_every_hint_is_reached_and_hides_no_other(name, monkeypatch, capsys):
    right, cases, mistakes, rest = tables(name, monkeypatch)
    assert len(mistakes) >= 3
    for hint, wrong in {**mistakes, **dict(rest.get("slips", ()))}.items():
        _compare.compare(name, wrong, right, cases, mistakes, **rest)
        assert capsys.readouterr().out == f"✗ {name}: {hint}\n"


@pytest.mark.parametrize("name", COMPARED)
def test_a_check_leaves_the_readers_random_numbers_alone(name, capsys):
    state = torch.random.get_rng_state()
    getattr(checks, name)(lambda *args: 0)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", COMPARED)
def test_no_two_cases_are_answered_alike(name, monkeypatch):
    """A number that is typed in is right for one case at most; T, N and α vary where a case has them."""
    right, cases, _, _ = tables(name, monkeypatch)
    answers = [torch.as_tensor(right(*case)) for case in cases]
    assert len({str(answer.tolist()) for answer in answers}) == len(cases) >= 2
    for values in zip(*cases, strict=True):
        if isinstance(values[0], int | float):
            assert len(set(values[:3])) == 3


TYPED_IN = {
    "soften": [lambda z, T: soft(z, 2.0)],
    "kd_loss": [
        lambda z, v, T: 4 * kl(*logs(z, v, T)),
        lambda z, v, T: kd(z, v, 2.0),
        lambda z, v, T: T**2 * F.kl_div((z / T).log_softmax(-1), soft(v.detach(), T), reduction="sum") / 2,
    ],
    "kd_gradient": [lambda z, v, T: T * (soft(z, T) - soft(v, T)) / 2],
    "high_temperature_loss": [lambda z, v: square(centred(z - v)) / 6],
    "distillation_loss": [
        lambda z, v, y, T, a: blend(z, v, y, T, 1 - 0.7, 0.7),
        lambda z, v, y, T, a: blend(z, v, y, 2.0, 1 - a, a),
        lambda z, v, y, T, a: (1 - a) * F.cross_entropy(z, y, reduction="sum") / 2 + a * kd(z, v, T),
    ],
}


@pytest.mark.parametrize("name, i", [(name, i) for name in TYPED_IN for i in range(len(TYPED_IN[name]))])
def test_numbers_of_the_first_case_typed_in_are_wrong(name, i, capsys):
    assert said(getattr(checks, name), TYPED_IN[name][i], capsys).startswith("✗")


@pytest.mark.parametrize(
    "name", ["soften", "kd_gradient", "kd_loss", "distillation_loss", "high_temperature_loss"]
)
def test_a_small_error_is_an_error(name, capsys):
    text = said(getattr(checks, name), lambda *case: RIGHT[name](*case) * 1.001, capsys)
    assert text.startswith(f"✗ {name}: the result differs. For\n")


# --------------------------------------------------------------------------------------- gradients of losses

LOSSES = ["kd_loss", "distillation_loss", "high_temperature_loss"]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "end, piece",
    [
        (lambda loss: loss.item(), "it is a plain number"),
        (lambda loss: float(loss.detach()), "it is a plain number"),
        (lambda loss: torch.tensor(float(loss.detach())), "it is a plain number"),
        (lambda loss: loss.detach(), "no gradient reaches the student"),
        (lambda loss: loss.detach().requires_grad_(), "no gradient reaches the student"),
        (lambda loss: loss / 2 + loss.detach() / 2, "cut part of it off"),
    ],
)
def test_a_loss_that_cannot_teach_is_caught(name, end, piece, capsys):
    text = said(getattr(checks, name), lambda *case: end(RIGHT[name](*case)), capsys)
    assert text.startswith(f"✗ {name}: the value is right") and piece in text


@pytest.mark.parametrize("name", LOSSES)
def test_no_grad_is_caught(name, capsys):
    assert "no gradient reaches the student" in said(
        getattr(checks, name), torch.no_grad()(RIGHT[name]), capsys
    )


def kd_in_place(z, v, T):
    q = soft(z, T).exp()
    loss = kd(z, v, T) + 0 * q.sum()
    q += 1
    return loss


def kd_and_backward(z, v, T):
    loss = kd(z, v, T)
    loss.backward()
    return loss


def kd_and_backward_again(z, v, T):
    loss = kd(z, v, T)
    loss.backward(retain_graph=True)
    return loss


class HalfWritten(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, v, T):
        return kd(z, v, T)

    @staticmethod
    def backward(ctx, slope):
        return slope


@pytest.mark.parametrize(
    "attempt, piece",
    [
        (kd_in_place, "an operation in place has overwritten"),
        (kd_and_backward, "backward() has been called in it"),
        (kd_and_backward_again, "backward() has been called in it"),
        (HalfWritten.apply, "its gradient cannot be taken: RuntimeError"),
    ],
)
def test_a_gradient_that_cannot_be_taken_gets_a_sentence(attempt, piece, capsys):
    text = said(checks.kd_loss, attempt, capsys)
    assert text.startswith("✗ kd_loss: ") and piece in text


@pytest.mark.parametrize(
    "name, attempt",
    [
        ("share_loss", lambda rows, mask, n, world: world / n * (rows * mask).sum().item()),
        ("masked_mean", lambda rows, mask: torch.where(mask, rows, 0).sum().item() / max(int(mask.sum()), 1)),
    ],
)
def test_the_end_of_a_loss_keeps_its_gradient(name, attempt, capsys):
    assert "it is a plain number" in said(getattr(checks, name), attempt, capsys)


def test_rounds_that_are_written_down_are_shown(capsys):
    text = said(checks.draft_loop, lambda one_round: 1.0, capsys)
    assert "one_round = a function that gives [10, 11, 12], then [13], then [14, 15, 3, 16, 17]\n" in text


def full_kd(z, v, T):
    return T**2 * F.kl_div((z / T).log_softmax(-1), soft(v, T), reduction="batchmean")


@pytest.mark.parametrize(
    "name, loss, piece",
    [
        (
            "kd_loss",
            lambda z, v, T: full_kd(z.detach(), v, T),
            "the gradient goes to the teacher, not to the student",
        ),
        (
            "kd_loss",
            lambda z, v, T: kd(z, v, T) + 1e-6 * (v - v.detach()).sum(),
            "a gradient reaches the teacher",
        ),
        (
            "distillation_loss",
            lambda z, v, y, T, a: (1 - a) * F.cross_entropy(z, y) + a * full_kd(z.detach(), v.detach(), T),
            "the soft term has no gradient in the student",
        ),
        (
            "distillation_loss",
            lambda z, v, y, T, a: (1 - a) * F.cross_entropy(z.detach(), y) + a * kd(z, v, T),
            "the hard term has no gradient in the student",
        ),
        (
            "distillation_loss",
            lambda z, v, y, T, a: (1 - a) * F.cross_entropy(z, y) + a * full_kd(z.detach(), v, T),
            "a gradient reaches the teacher",
        ),
        ("kd_loss", lambda z, v, T: T**2 * kl(logs(z, v, T)[0], soft(z, T).log()), "take log_softmax"),
        (
            "distillation_loss",
            lambda z, v, y, T, a: blend(z, v, y, T, a, 0) + (1 - a) * kd(z, v, T) / z.shape[-1],
            "α is on the hard term, and in the soft one: this is reduction='mean'",
        ),
    ],
)
def test_a_gradient_in_the_wrong_place_is_named(name, loss, piece, capsys):
    assert piece in said(getattr(checks, name), loss, capsys)


# ------------------------------------------------------------------------------- what goes wrong on the way


def forgot(logits, T):
    (logits / T).softmax(-1)


def in_place(logits, T):
    logits /= T
    return logits.softmax(-1)


def typo(logits, T):
    return (logits / T).softmx(-1)


def in_place_loss(z, v, T):
    z /= T
    return T**2 * kl(*logs(z, v / T, 1))


@pytest.mark.parametrize(
    "name, attempt, pieces",
    [
        ("soften", forgot, ["it returned nothing (None): is a `return` missing?"]),
        ("soften", in_place, ["it changes its input"]),
        ("kd_loss", in_place_loss, ["it changes its input"]),
        ("kd_loss", lambda z, v, T: (z.numpy() + v.numpy()).sum(), ["numpy() cuts the gradient off"]),
        (
            "soften",
            typo,
            ["stops with AttributeError", "softmx", "`return (logits / T).softmx(-1)`", "T = 2.0"],
        ),
        ("soften", lambda z: z, ["stops with TypeError", "takes 1 positional argument"]),
        ("soften", lambda z, T: "three", ["it returned 'three', a str: numbers or a tensor are due"]),
        ("soften", lambda z, T: {}, ["a dict"]),
        ("kd_loss", lambda z, v, T: kd(z, v, T) * torch.ones(2), ["It has the shape (2,), and () is due."]),
        (
            "soft_loss_of",
            lambda p, q, T: T**2 * special.rel_entr(p, q).sum() if T != 2 else 0,
            ["q = [0.35, 0.25, 0.25, 0.15]\n  T = 2", "\nand it is\n  0"],
        ),
    ],
)
def test_what_goes_wrong_gets_a_sentence(name, attempt, pieces, capsys):
    text = said(getattr(checks, name), attempt, capsys)
    assert text.startswith(f"✗ {name}: ") and [piece for piece in pieces if piece not in text] == []


@pytest.mark.parametrize(
    "name, attempt",
    [
        ("entropy", lambda p: -(p.numpy() * np.log(p.numpy())).sum(-1)),
        ("paired_interval", lambda a, b: stats.t.interval(
            0.95, len(a) - 1, (a - b).mean(), stats.sem((a - b).numpy()))),
        ("worst_class", lambda z, y: min(
            100 * np.mean(z.numpy().argmax(-1)[y.numpy() == c] == c) for c in np.unique(y.numpy()))),
        ("transfer_information", lambda v: stats.entropy(special.softmax(v.numpy(), -1).mean(0)) - stats.entropy(
            special.softmax(v.numpy(), -1), axis=-1).mean()),
        ("kd_gradient", lambda z, v, T: T * (special.softmax(z.numpy() / T, -1) - special.softmax(
            v.numpy() / T, -1)) / len(z)),
        ("soft_loss_of", lambda p, q, T: T**2 * special.rel_entr(p, q).sum()),
    ],
)  # fmt: skip
def test_an_answer_in_numpy_is_an_answer(name, attempt, capsys):
    assert said(getattr(checks, name), attempt, capsys) == f"✓ {name}"


def test_a_regret_is_positive(monkeypatch):
    right, cases, _, _ = tables("regret", monkeypatch)
    assert all(0 < right(*case) < 3 for case in cases)


def test_a_check_that_is_not_there_says_which_is_meant():
    with pytest.raises(AttributeError, match="no exercise is called 'kd_los'; did you mean 'kd_loss'"):
        checks.kd_los(None)
    assert {exercise.name for exercise in EXERCISES} <= set(dir(checks))


# -------------------------------------------------------------------------- predict, diagnose, choose

ONE = choice("flatter", "b", {"a": "that is T below 1.", "c": "the order never changes."})
NUMBER = choice("half_at", 4.0, {2.0: "that is where it is steepest."}, within=0.1)
SEVERAL = choice("who", ("student", 3), {(0, "teacher"): "it is frozen.", (1, 2): "count the last one too."})


@pytest.mark.parametrize(
    "check, answer, line",
    [
        (ONE, "b", "✓ flatter"),
        (ONE, " B ", "✓ flatter"),
        (ONE, "a", "✗ flatter: that is T below 1."),
        (ONE, "d", "✗ flatter: 'd' is none of the answers: a, b, c."),
        (ONE, 2, "✗ flatter: a word is due; got 2."),
        (ONE, None, "✗ flatter: it returned nothing (None): is a `return` missing?"),
        (ONE, ..., "○ flatter: not attempted"),
        (NUMBER, 4.3, "✓ half_at"),
        (NUMBER, torch.tensor(4.0), "✓ half_at"),
        (NUMBER, 1.9, "✗ half_at: that is where it is steepest."),
        (NUMBER, 5, "✗ half_at: 5 is too large."),
        (NUMBER, 3, "✗ half_at: 3 is too small."),
        (NUMBER, "4", "✗ half_at: a number is due; got '4'."),
        (NUMBER, True, "✗ half_at: a number is due; got True."),
        (NUMBER, [4], "✗ half_at: a number is due; got [4]."),
        (NUMBER, np.array([4.0]), "✓ half_at"),
        (NUMBER, Decimal("4.1"), "✓ half_at"),
        (NUMBER, torch.ones(2), "✗ half_at: a number is due; got [1.0, 1.0]."),
        (NUMBER, np.ones(2), "✗ half_at: a number is due; got [1.0, 1.0]."),
        (NUMBER, torch.ones(0), "✗ half_at: a number is due; got []."),
        (NUMBER, float("nan"), "✗ half_at: a number is due; got nan."),
        pytest.param(NUMBER, 10**400, f"✗ half_at: a number is due; got {10**400}.", id="beyond a float"),
        (SEVERAL, ("Student", 3), "✓ who"),
        (SEVERAL, ("teacher", 3), "✗ who: answer 1: it is frozen."),
        (SEVERAL, ("student", 2), "✗ who: answer 2: count the last one too."),
        (SEVERAL, ("student", 4), "✗ who: answer 2: 4 is too large."),
        (SEVERAL, ("student", np.arange(2)), "✗ who: answer 2: a number is due; got [0, 1]."),
        (choice("two", (1.0, 2.0), {}), torch.tensor([1.0, 2.0]), "✓ two"),
        (SEVERAL, "student", "✗ who: 2 answers are due, as in `return a, b`; got 'student'."),
    ],
)
def test_a_choice(check, answer, line, capsys):
    assert said(check, lambda: answer, capsys) == line


def test_a_choice_that_raises(capsys):
    def stub():
        raise NotImplementedError("'a', 'b' or 'c'")

    assert said(ONE, stub, capsys) == "○ flatter: not attempted"
    assert "stops with ZeroDivisionError" in said(ONE, lambda: 1 / 0, capsys)
    assert "It takes no argument" in said(ONE, lambda x: x, capsys)


# -------------------------------------------------------------------- the two checks that look at behaviour


def step(student, teacher, x, y, T, alpha):
    with torch.no_grad():
        logits_t = teacher.eval()(x)
    return losses.distillation_loss(student(x), logits_t, y, T, alpha)


def step_in_train_mode(student, teacher, x, y, T, alpha):
    return losses.distillation_loss(student(x), teacher(x).detach(), y, T, alpha)


def step_without_T(student, teacher, x, y, T, alpha):
    return losses.distillation_loss(student(x), teacher.eval()(x).detach(), y, 1.0, alpha)


@torch.no_grad()
def step_all_without_gradient(student, teacher, x, y, T, alpha):
    return losses.distillation_loss(student(x), teacher.eval()(x), y, T, alpha)


def step_that_teaches_the_teacher(student, teacher, x, y, T, alpha):
    z, v = student(x), teacher.eval()(x)
    return (1 - alpha) * F.cross_entropy(z, y) + alpha * T**2 * F.kl_div(
        (z / T).log_softmax(-1), (v / T).softmax(-1), reduction="batchmean"
    )


def step_to_the_end(student, teacher, x, y, T, alpha):
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    loss = step(student, teacher, x, y, T, alpha)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def step_and_backward(student, teacher, x, y, T, alpha):
    loss = step(student, teacher, x, y, T, alpha)
    loss.backward()
    return loss


def step_of_a_frozen_teacher(student, teacher, x, y, T, alpha):
    return losses.distillation_loss(student(x), teacher.eval().requires_grad_(False)(x), y, T, alpha)


def step_in_double_precision(student, teacher, x, y, T, alpha):
    return step(lambda x: student(x).double(), teacher, x, y, T, alpha)


def step_with_half_a_student(student, teacher, x, y, T, alpha):
    student.bias.requires_grad_(False)
    return step(student, teacher, x, y, T, alpha)


def step_that_changes_the_images(student, teacher, x, y, T, alpha):
    x *= 2
    return step(student, teacher, x, y, T, alpha)


@torch.no_grad()
def double_the_weights(model):
    for p in model.parameters():
        p *= 2


def step_that_changes_the_teacher(student, teacher, x, y, T, alpha):
    double_the_weights(teacher)
    return step(student, teacher, x, y, T, alpha)


def step_and_backward_without_a_trace(student, *rest):
    loss = step_and_backward(student, *rest)
    student.zero_grad()
    return loss


@pytest.mark.parametrize(
    "attempt, expected",
    [
        (step, "✓ training_step"),
        (step_of_a_frozen_teacher, "✓ training_step"),
        (step_in_double_precision, "✓ training_step"),
        (lambda student, teacher, *rest: teacher.eval() and 0, "the loss is 0.0000, not"),
        (step_with_half_a_student, "a part of the student is frozen"),
        (step_that_changes_the_images, "it changes its input"),
        (step_that_changes_the_teacher, "the teacher's weights have changed"),
        (step_and_backward_without_a_trace, "backward() has been called in it"),
        (step_in_train_mode, "train mode"),
        (step_without_T, "T is 1: pass it on"),
        (lambda *args: step(*args) * 1.01, "see eq-distillation-loss"),
        (lambda student, *rest: step(student, *rest).item(), "the loss has no gradient"),
        (
            lambda student, teacher, x, y, T, a: losses.distillation_loss(
                student(x), teacher.eval()(x).detach(), y
            ),
            "T and α are those of the defaults",
        ),
        (
            lambda student, teacher, x, y, T, a: losses.distillation_loss(
                student(x), teacher.eval()(x).detach(), y, T
            ),
            "α is the default's",
        ),
        (
            lambda student, teacher, x, y, T, a: losses.distillation_loss(
                student(x), teacher.eval()(x).detach(), y, alpha=a
            ),
            "T is the default's",
        ),
        (
            lambda student, teacher, x, y, T, a: step(student, teacher, x, y, T, 1 - a),
            "α and 1 − α are swapped",
        ),
        (
            lambda student, teacher, x, y, T, a: losses.distillation_loss(
                student(x).softmax(-1), teacher.eval()(x).detach().softmax(-1), y, T, a
            ),
            "these are probabilities",
        ),
        (
            lambda student, teacher, x, y, T, a: losses.distillation_loss(
                teacher.eval()(x), student(x), y, T, a
            ),
            "student and teacher are swapped",
        ),
        (
            lambda student, teacher, x, y, T, a: losses.kd_loss(student(x), teacher.eval()(x).detach(), T),
            "the soft term alone",
        ),
        (
            lambda student, teacher, x, y, T, a: F.cross_entropy(student(x), teacher.eval() and y),
            "the teacher does not enter",
        ),
        (lambda *args: step(*args).expand(8), "this has the shape (8,)"),
        (
            lambda student, teacher, x, y, T, a: (
                (1 - a) * F.cross_entropy(student(x), y)
                + a * losses.kd_loss(student(x).detach(), teacher.eval()(x).detach(), T)
            ),
            "part of its loss is cut off",
        ),
        (step_to_the_end, "leave backward() and the step to the caller"),
        (step_and_backward, "leave backward() and the step to the caller"),
        (step_all_without_gradient, "no gradient"),
        (step_that_teaches_the_teacher, "a gradient reaches the teacher"),
    ],
)
def test_training_step(attempt, expected, capsys):
    assert expected in said(checks.training_step, attempt, capsys)


def on_a_view(student, teacher, x, roll, T):
    view = roll(x)
    with torch.no_grad():
        told = teacher(view)
    return losses.kd_loss(student(view), told, T)


@pytest.mark.parametrize(
    "attempt, expected",
    [
        (on_a_view, "✓ view_loss"),
        (lambda s, t, x, roll, T: losses.kd_loss(s(roll(x)), t(roll(x)).detach(), T), "see different views"),
        (lambda s, t, x, roll, T: losses.kd_loss(s(roll(x)), t(x).detach(), T), "ask it about the view"),
        (
            lambda s, t, x, roll, T: losses.kd_loss(s(x), t(roll(x)).detach(), T),
            "the student sees the images",
        ),
        (lambda s, t, x, roll, T: losses.kd_loss(s(x), t(x).detach(), T), "nothing has been rolled"),
        (lambda s, t, x, roll, T: on_a_view(s, t, x, roll, 1), "T is 1"),
        (lambda s, t, x, roll, T: on_a_view(s, t, x, roll, T) / T**2, "T² is missing"),
        (lambda s, t, x, roll, T: on_a_view(t, s, x, roll, T), "swapped"),
        (
            lambda s, t, x, roll, T: (v := roll(x)) is None or F.cross_entropy(s(v), t(v).argmax(-1)),
            "soft answer",
        ),
        (lambda s, t, x, roll, T: on_a_view(s, t, x, roll, T).detach(), "the loss has no gradient"),
        (
            lambda s, t, x, roll, T: (
                (v := roll(x)) is None or T**2 * kl((t(v) / T).log_softmax(-1), (s(v) / T).log_softmax(-1))
            ),
            "reaches the teacher",
        ),
        (lambda *args: on_a_view(*args).backward(), "nothing (None)"),
        (lambda *args: on_a_view(*args).expand(8), "this has the shape (8,)"),
        (lambda *args: on_a_view(*args) * 1.5, "kd_loss of both answers to one view"),
    ],
)
def test_view_loss(attempt, expected, capsys):
    assert expected in said(checks.view_loss, attempt, capsys)


@pytest.mark.parametrize("name", [exercise.name for exercise in EXERCISES])
def test_a_stub_is_not_attempted(name, capsys):
    def stub(*args):
        raise NotImplementedError("see the equation")

    def dots(*args):
        """What is to do."""
        ...

    def ellipsis(*args):
        return ...

    for attempt in (stub, dots, ellipsis, lambda *args: None):
        assert said(getattr(checks, name), attempt, capsys) == f"○ {name}: not attempted"


def test_the_case_is_named_where_a_function_takes_any_arguments(capsys):
    assert "argument 2 = 2.0" in said(checks.soften, lambda *args: 0, capsys)
