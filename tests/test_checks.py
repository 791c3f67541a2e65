"""Every check accepts the right answer, waits for a stub, and has each hint reached by its own mistake."""

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from companion import checks, losses
from companion.checks import _compare, concepts, experiments, responses

MODULES = (concepts, experiments, responses)


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
        "T divides the probabilities (errata C2)": lambda z, T: z.softmax(-1) / T,
        "the article's formula (errata F1)": lambda z, T: z.exp() / (z.exp().sum(-1, keepdim=True) / T),
        "probabilities are softened again": lambda z, T: (z.softmax(-1) / T).softmax(-1),
        "runs over the examples": lambda z, T: (z / T).softmax(0),
        "these are log-probabilities": lambda z, T: (z / T).log_softmax(-1),
    },
    "kd_loss": {
        "the factor T² is missing": lambda z, v, T: kl(*logs(z, v, T)),
        "T² divides (errata C3)": lambda z, v, T: kl(*logs(z, v, T)) / T**2,
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
        "T² is missing from the soft term": lambda z, v, y, T, a: blend(z, v, y, T, 1 - a, a / T**2),
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


def test_every_hint_of_every_check_is_reached(monkeypatch):
    """The hints as they stand in the checks, against those the mistakes above were given."""
    hints, given = {}, {}

    def collect(name, attempt, right, cases, mistakes, teacher=None, rtol=1e-4):
        hints[name] = [*mistakes]

    with monkeypatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "compare", collect)
        for name in WRONG:
            getattr(checks, name)(None)
    for module in (_compare, *MODULES):
        monkeypatch.setattr(
            module, "say", lambda name, hint: given.setdefault(name, set()).add(hint), raising=False
        )
    for name, mistakes in WRONG.items():
        for attempt in mistakes.values():
            getattr(checks, name)(attempt)
        assert [hint for hint in hints[name] if hint not in given[name]] == [], name


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


@pytest.mark.parametrize(
    "attempt, expected",
    [
        (step, "✓ training_step"),
        (step_in_train_mode, "train mode"),
        (step_without_T, "see eq-distillation-loss"),
        (step_all_without_gradient, "no gradient"),
        (step_that_teaches_the_teacher, "a gradient reaches the teacher"),
    ],
)
def test_training_step(attempt, expected, capsys):
    assert expected in said(checks.training_step, attempt, capsys)


def shuffle(p, y):
    result = p.clone()
    for i, row in enumerate(p):
        wrong = torch.tensor([c for c in range(10) if c != y[i]])
        result[i, wrong] = row[wrong[torch.randperm(9)]]
    return result


@pytest.mark.parametrize(
    "attempt, expected",
    [
        (shuffle, "✓ permute_dark"),
        (lambda p, y: p[:, :9], "the shape changed"),
        (lambda p, y: p[torch.randperm(64)], "the values of a row changed"),
        (lambda p, y: torch.stack([row[torch.randperm(10)] for row in p]), "lost its own probability"),
        (lambda p, y: p, "most rows are as they were"),
    ],
)
def test_permute_dark(attempt, expected, capsys):
    torch.manual_seed(0)
    assert expected in said(checks.permute_dark, attempt, capsys)


def test_permute_dark_sees_one_permutation_for_all_rows(capsys):
    """The same shuffle of the nine wrong classes, counted from the label, in every row."""
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))

    def attempt(p, y):
        result = p.clone()
        for i, row in enumerate(p):
            wrong = torch.tensor([c for c in range(10) if c != y[i]])
            result[i, wrong] = row[wrong[order]]
        return result

    assert "shuffled alike" in said(checks.permute_dark, attempt, capsys)


EXERCISES = [*RIGHT, "training_step", "permute_dark"]


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("result", [None, ...])
def test_a_stub_is_not_attempted(name, result, capsys):
    def stub(*args):
        raise NotImplementedError("see the equation")

    assert said(getattr(checks, name), stub, capsys) == f"○ {name}: not attempted"
    assert said(getattr(checks, name), lambda *args: result, capsys) == f"○ {name}: not attempted"


def test_an_error_of_the_readers_own_is_not_hidden():
    with pytest.raises(RuntimeError, match="mine"):
        checks.soften(lambda z, T: (_ for _ in ()).throw(RuntimeError("mine")))
