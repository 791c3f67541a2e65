"""Chapter 3: its equation, and the steps that the article's algorithm lacks."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, softmax

from companion import checks, losses
from companion.data import Split
from companion.models import MLP, ConvNet, parameters
from companion.training import fit, hard_loss, predict, teacher_logits
from experiments import chapter03
from experiments.common import stored
from tests.test_notebooks import ROOT, cells


def kl(z, v, T_s, T_t):
    """KL(softmax(v/T_t)‖softmax(z/T_s)), mean over the rows, from the definition."""
    log_p, log_q = log_softmax(v / T_t, -1), log_softmax(z / T_s, -1)
    return (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()


@pytest.fixture
def logits():
    random = np.random.default_rng(3)
    return 3 * random.normal(size=(8, 5)), 3 * random.normal(size=(8, 5))


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(20, 1, 28, 28, generator=generator)


@pytest.mark.erratum("T6")
def test_responses_do_not_determine_features_or_relations():
    random = np.random.default_rng(0)
    h, W, b, S = (random.normal(size=size) for size in [(30, 6), (4, 6), 4, (6, 6)])
    other_h, other_W = h @ S.T, W @ np.linalg.inv(S)
    np.testing.assert_allclose(other_h @ other_W.T + b, h @ W.T + b, atol=1e-10)

    def cosines(rows):
        rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
        return rows @ rows.T

    assert abs(other_h - h).mean() > 0.1
    assert abs(cosines(other_h) - cosines(h)).mean() > 0.1


@pytest.mark.erratum("T7")
def test_a_teacher_gives_logits_and_each_temperature_another_distribution(images):
    v = ConvNet(2, seed=0).eval()(images).detach().double().numpy() * 10
    assert (v < 0).any() and abs(v.sum(-1) - 1).min() > 1e-3
    p = {T: softmax(v / T, -1) for T in (1, 4)}
    assert (p[1].max(-1) > p[4].max(-1) + 0.01).all()
    np.testing.assert_allclose(softmax(np.log(p[1]) / 4, -1), p[4], atol=1e-12)


@pytest.mark.erratum("C8")
@pytest.mark.erratum("T8")
def test_freezing_is_two_switches(images):
    teacher = ConvNet(2, seed=0).eval()
    averages = teacher.stages[0][1].running_mean
    before = averages.clone()
    assert torch.equal(teacher(images), teacher(images)) and teacher(images).requires_grad
    assert torch.equal(averages, before)
    with torch.no_grad():
        assert not torch.equal(teacher.train()(images), teacher(images))
    assert not torch.equal(averages, before)


@pytest.mark.erratum("T8")
def test_without_the_hard_term_an_unfrozen_teacher_can_be_pulled_to_any_student(logits):
    """The gradient of the undetached loss moves the teacher, and the loss is 0 wherever both agree."""
    z, v = (torch.tensor(x, requires_grad=True) for x in logits)
    (pull,) = torch.autograd.grad(
        F.kl_div((z / 4).log_softmax(-1), (v / 4).softmax(-1), reduction="batchmean"), v
    )
    assert pull.norm() > 1e-3
    assert losses.kd_loss(z, z.detach(), 4) == 0
    kept = losses.distillation_loss(z, v, torch.zeros(8, dtype=torch.long), T=4, alpha=0.5)
    assert torch.autograd.grad(kept, v, allow_unused=True)[0] is None


@pytest.mark.erratum("T8")
@pytest.mark.parametrize("T_s, T_t", [(4, 4), (1, 4), (4, 1)])
def test_the_soft_term_is_zero_at_the_scaled_teacher_alone(logits, T_s, T_t):
    v = logits[1]
    assert kl(v * T_s / T_t + 2, v, T_s, T_t) == pytest.approx(0, abs=1e-12)
    assert (kl(v, v, T_s, T_t) < 1e-12) == (T_s == T_t)


@pytest.mark.erratum("T8")
def test_dropping_the_factor_lowers_alpha(logits):
    """At T = 32 and α = 1/2 the loss without T² is, up to scale, the one with T² and α = 1/1025."""
    z, v = map(torch.tensor, logits)
    y = torch.arange(8) % 5
    dropped = 0.5 * F.cross_entropy(z, y) + 0.5 * kl(*logits, 32, 32)
    kept = losses.distillation_loss(z, v, y, T=32, alpha=1 / 1025)
    assert dropped.item() == pytest.approx(1025 / 2048 * kept.item(), rel=1e-9)


@pytest.mark.erratum("T8")
def test_without_the_hard_term_labels_are_not_read_and_mistakes_stay(logits):
    z, v = map(torch.tensor, logits)
    y = v.argmin(-1)
    assert losses.distillation_loss(z, v, y, 4, 1) == losses.distillation_loss(z, v, 4 - y, 4, 1)

    def slope(alpha):
        student = v.clone().requires_grad_()
        return torch.autograd.grad(losses.distillation_loss(student, v, y, 4, alpha), student)[0].norm()

    assert slope(1) < 1e-12 < 0.1 < slope(0.5)


@pytest.mark.erratum("T8")
def test_reading_the_student_at_T_keeps_the_classes_and_lowers_the_confidence(logits):
    z = logits[0]
    assert (softmax(z / 4, -1).argmax(-1) == softmax(z, -1).argmax(-1)).all()
    assert (softmax(z / 4, -1).max(-1) < softmax(z, -1).max(-1)).all()


@pytest.mark.erratum("T9")
def test_a_perfect_copy_has_the_teachers_mistakes_and_a_real_one_is_not_perfect(logits, images):
    v = torch.tensor(logits[1])
    assert losses.kd_loss(v + 7, v, 4) < 1e-12 and torch.equal((v + 7).argmax(-1), v.argmax(-1))
    teacher, student = ConvNet(2, seed=0), MLP(784, 10, seed=1)
    split = Split(images, teacher_logits(teacher, images).argmax(-1))
    fit(student, split, lambda z, v, y: losses.kd_loss(z, v, 4), teacher, steps=50, lr=1e-3)
    new = images.flip(0).roll(5, -1)
    assert losses.kd_loss(teacher_logits(student, new), teacher_logits(teacher, new), 4) > 1e-3


@pytest.mark.erratum("T2")
def test_distillation_leaves_the_size_of_the_student(images):
    students = [MLP(784, 8, 10, seed=0) for _ in range(2)]
    split = Split(images, torch.arange(20) % 10)
    fit(students[0], split, hard_loss, steps=2, lr=1e-3)
    loss = losses.distillation_loss
    fit(students[1], split, loss, ConvNet(2, seed=0), steps=2, lr=1e-3)
    assert parameters(students[0]) == parameters(students[1])
    shapes = [[p.shape for p in model.state_dict().values()] for model in students]
    assert shapes[0] == shapes[1]


@pytest.mark.erratum("T3")
def test_teacher_and_student_need_the_same_classes(logits):
    z, v = map(torch.tensor, logits)
    with pytest.raises(ValueError, match=r"\(8, 5\) and \(8, 4\)"):
        losses.kd_loss(z, v[:, :4], 4)


def test_the_short_form_is_the_soft_term_and_mean_divides_by_the_classes():
    """In the example by hand: 0.0784, as the text says, and 0.0261 with reduction="mean"."""
    log_p, log_q = (x.log_softmax(-1) for x in (torch.tensor([[1, 0.5, 0]]), torch.zeros(1, 3)))
    by_lines = (log_p.exp() * (log_p - log_q)).sum(-1).mean()
    assert F.kl_div(log_q, log_p.exp(), reduction="batchmean").item() == pytest.approx(
        by_lines.item(), rel=1e-5
    )
    assert by_lines.item() == pytest.approx(0.0784, abs=5e-5)
    summed = F.kl_div(log_q, log_p.exp(), reduction="none")
    assert summed.mean().item() == pytest.approx(0.0261, abs=5e-5)
    assert F.kl_div(log_p, log_q.exp(), reduction="batchmean").item() != pytest.approx(
        by_lines.item(), rel=0.01
    )


def test_a_wrong_kl_is_the_call_that_makes_it(logits):
    """Each mistake in `kl` that was measured is F.kl_div called wrongly; a mean over ten classes is the factor 1.6."""
    log_q, log_p = (torch.tensor(x).log_softmax(-1) for x in logits)
    calls = {
        "KL(p‖q)": (log_q, log_p.exp()),
        "KL(q‖p)": (log_p, log_q.exp()),
        "q for log q": (log_q.exp(), log_p.exp()),
    }
    found = {kl: chapter03.divergence(log_p, log_q, kl).item() for kl in calls}
    for kl, call in calls.items():
        assert found[kl] == pytest.approx(F.kl_div(*call, reduction="batchmean").item(), rel=1e-9)
    assert len({round(x, 3) for x in found.values()}) == 3
    v, z = (torch.tensor(np.tile(x, 2)).log_softmax(-1) for x in logits)  # ten classes
    over_all = 16 * F.kl_div(z, v.exp(), reduction="none").mean().item()
    factor = chapter03.VARIANTS["mean over the classes"].factor
    assert factor * chapter03.divergence(v, z, "KL(p‖q)").item() == pytest.approx(over_all, rel=1e-9)


def test_the_test_of_the_loss_has_the_numbers_of_the_two_examples():
    """The two losses of each row of the table, right and with each mistake, from the lines that made the stored runs."""
    markdown = [c.source for c in cells(ROOT / "chapters/03_algorithm.ipynb", "markdown")]
    (asked,) = (text for text in markdown if "test the loss.*" in text)
    (table,) = (text for text in markdown if "| z = (0, 0, 0) |" in text)
    rows = re.findall(r"^\| ([^|]+) \| (−?\d+\.\d{3}) \| (−?\d+\.\d{3}) \|$", table, re.M)
    told = {name: [float(x.replace("−", "-")) for x in pair] for name, *pair in rows}
    v, y = torch.tensor([[4.0, 2, 0]], dtype=torch.double), torch.tensor([0])
    z = {"first": torch.zeros_like(v), "second": torch.zeros_like(v).index_fill(1, torch.tensor([1]), 2)}

    def loss(z, factor=16.0, T_s=4, T_t=4, kl="KL(p‖q)", alpha=0.9):
        log_p, log_q = (v / T_t).log_softmax(-1), (z / T_s).log_softmax(-1)
        soft = factor * chapter03.divergence(log_p, log_q, kl)
        return ((1 - alpha) * F.cross_entropy(z, y) + alpha * soft).item()

    mistakes = {
        "no mistake": {},
        "T on the teacher only": {"T_s": 1},
        "T on the student only": {"T_t": 1},
        "no T²": {"factor": 1},
        "p and q swapped": {"kl": "KL(q‖p)"},
        "q for log_q": {"kl": "q for log q"},
        "mean over the classes": {"factor": 16 / 3},
        "no labels (α = 1)": {"alpha": 1},
    }
    found = {name: [loss(x, **how) for x in z.values()] for name, how in mistakes.items()}
    assert told == {name: [round(x, 3) for x in pair] for name, pair in found.items()}
    assert re.findall(r"\d\.\d{3}\b", asked) == [f"{x:.3f}" for x in found["no mistake"]]
    right = found.pop("no mistake")
    assert right == [
        pytest.approx(losses.distillation_loss(x, v, y, T=4, alpha=0.9).item()) for x in z.values()
    ]
    assert found["T on the teacher only"][0] == pytest.approx(right[0])
    for wrong in found.values():  # each misses one of the two by ten times what the cell allows
        assert max(abs(a - b) for a, b in zip(wrong, right, strict=True)) > 0.01
    log_p = (v / 4).log_softmax(-1)
    for x in z.values():
        log_q = (x / 4).log_softmax(-1)
        assert chapter03.divergence(log_p, log_q, "q for log q") < 0
        over_all = 16 * F.kl_div(log_q, log_p.exp(), reduction="none").mean().item()  # three classes
        assert 16 / 3 * chapter03.divergence(log_p, log_q, "KL(p‖q)").item() == pytest.approx(over_all)


def test_the_step_to_mend_has_three_mistakes(capsys):
    """It passes once all three are mended, and with any two of them mended it doesn't."""
    mends = (
        ("teacher(x)", "teacher.eval()(x).detach()"),
        ("z.log_softmax", "(z / T).log_softmax"),
        ("kl.mean()", "kl.sum(-1).mean()"),
    )
    (step,) = (
        c.source
        for c in cells(ROOT / "chapters/03_algorithm.ipynb", "code")
        if "def training_step" in c.source and "exercise" in c.metadata.tags
    )
    step = re.sub(r" +raise NotImplementedError.*\n", "", step).split("checks.")[0]
    assert all(step.count(wrong) == 1 for wrong, _ in mends)
    for left in (None, *mends):
        code, names = step, {"F": F}
        for mend in mends:
            code = code if mend is left else code.replace(*mend)
        exec(code, names)
        checks.training_step(names["training_step"])
        said = capsys.readouterr().out
        assert said.startswith("✗ training_step: " if left else "✓ training_step"), (left, said)
        assert "stops with" not in said


def test_the_control_is_the_student_of_the_weak_teacher_not_asked():
    """1,000 labels alone: the same runs, so the same accuracy, beside another teacher."""
    rows = stored("03_steps")
    rows = rows[rows["part"] == "test"]
    ours, theirs = (rows[rows["variant"] == name] for name in ("1000 labels alone", "weak teacher not asked"))
    assert set(ours["lr"]) == set(theirs["lr"]) and len(ours) == 10
    np.testing.assert_allclose(ours["accuracy"], theirs["accuracy"], atol=1)
    assert ours["teacher"].min() > theirs["teacher"].max()


def test_the_ten_lines_are_fit_with_distillation_loss(images):
    """The chapter's loop, in float64: the same weights as `fit`."""
    y, T, alpha = torch.arange(20) % 10, 4, 0.5
    split = Split(images.double(), y)
    teacher, student, by_fit = (
        model.double() for model in (ConvNet(2, seed=0), MLP(784, 8, 10, seed=1), MLP(784, 8, 10, seed=1))
    )
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 20)
    order = torch.Generator().manual_seed(5)
    teacher.eval().requires_grad_(False)
    for _ in range(10):
        for index in torch.randperm(20, generator=order).split(10):
            z, v = student(split.x[index]), teacher(split.x[index])
            log_q, log_p = (z / T).log_softmax(-1), (v / T).log_softmax(-1)
            soft = T**2 * (log_p.exp() * (log_p - log_q)).sum(-1).mean()
            hard = F.cross_entropy(z, y[index])
            optimiser.zero_grad()
            ((1 - alpha) * hard + alpha * soft).backward()
            optimiser.step()
            schedule.step()

    def loss(z, v, y):
        return losses.distillation_loss(z, v, y, T, alpha)

    fit(by_fit, split, loss, teacher, steps=20, lr=1e-3, batch_size=10, seed=5)
    for a, b in zip(student.parameters(), by_fit.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "variant",
    [
        "T on the student only with factor 4",
        "T on the teacher only with a last layer to scale",
        "p and q swapped",
        "q for log q",
    ],
)
def test_a_broken_loop_comes_back_as_stored(variant):
    """One run of each; another processor may move a few images."""
    rows = stored("03_steps")
    (row,) = rows[(rows["variant"] == variant) & (rows["seed"] == 3)]
    found = chapter03.one(variant, lr=float(row["lr"]), seed=3)
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=1)
    assert found["rescaled_T"] == pytest.approx(row["rescaled_T"], rel=0.1)


@pytest.mark.parametrize("T_s, T_t", [(4, 1), (1, 4)])
def test_a_last_layer_to_scale_decays_as_the_others(T_s, T_t):
    rest, last = chapter03.scaled(ConvNet(4, seed=0), T_s / T_t, 0.03)
    optimiser = torch.optim.AdamW([rest, last], lr=0.03)
    decay = [group["lr"] * group["weight_decay"] for group in optimiser.param_groups]
    assert decay[1] == pytest.approx(decay[0]) and last["lr"] == pytest.approx(0.03 * T_s / T_t)


@pytest.mark.parametrize("T_s, T_t", [(4, 1), (1, 4)])
def test_a_loop_with_T_on_one_side_is_the_one_with_the_teachers_T_on_both(T_s, T_t):
    """Without labels, with a last layer to scale: its logits are T_s/T_t times the others, after training as before."""

    def trained(**settings):
        student, _ = chapter03.distil(chapter03.Variant(alpha=1, **settings), seed=3, lr=0.01, steps=20)
        return predict(student, chapter03.VAL.x[:500])

    both = trained(T_s=T_t, T_t=T_t, factor=T_t**2)
    z = trained(T_s=T_s, T_t=T_t, last=T_s / T_t) * T_t / T_s
    torch.testing.assert_close(z, both, rtol=0.01, atol=0.02)
    assert (trained(T_s=T_s, T_t=T_t) * T_t / T_s - both).abs().max() > 0.2
