"""companion.audit: no alarm over the book's own losses, and every wrong one is caught under the right name."""

import os
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from companion import features, losses, tokens
from companion.audit import CASES, audit, check
from companion.audit._calls import by_name
from companion.audit._report import EXPLAINED
from tests.audit_seeds import FREE, SEEDS

ROOT = Path(__file__).parent.parent


def sparse(s, t, y, T, mask):
    """The three most probable tokens, stored."""
    p, index = (t.float() / T).nan_to_num(0).softmax(-1).topk(3)
    return tokens.sparse_kd_loss(s, index, p, T, mask)


OURS = {
    "kd": (losses.kd_loss, {}, "forward KL(p‖q)"),
    "distillation": (losses.distillation_loss, {}, "forward KL(p‖q) and cross-entropy with the labels"),
    "distillation, α = 0.5": (
        lambda s, t, y, T: losses.distillation_loss(s, t, y, T, 0.5), {},
        "forward KL(p‖q) and cross-entropy with the labels",
    ),
    "logit mse": (losses.logit_mse_loss, {}, "squared error of logits"),
    "logit mse, centred": (losses.logit_mse_loss, {"call": "loss(s, t, True, mask)"}, "squared error of centred logits"),
    "DKD": (losses.dkd_loss, {}, "DKD"),
    "DIST": (losses.dist_loss, {}, "DIST"),
    "standardized": (losses.standardized_kd_loss, {}, "standardized KL(p‖q)"),
    "WTTM": (losses.wttm_loss, {}, "WTTM"),
    "NormKD": (losses.normkd_loss, {}, "NormKD"),
    "RLD": (losses.rld_loss, {}, "RLD"),
    "forward KL": (tokens.forward_kl_loss, {}, "forward KL(p‖q)"),
    "reverse KL": (tokens.reverse_kl_loss, {}, "reverse KL(q‖p)"),
    "JSD": (tokens.generalized_jsd_loss, {}, "JSD, β = 0.5"),
    "JSD, β = 0.37": (tokens.generalized_jsd_loss, {"call": "loss(s, t, 0.37, T, mask)"}, "JSD, β = 0.37"),
    "JSD, β = 0": (tokens.generalized_jsd_loss, {"call": "loss(s, t, 0, T, mask)"}, "forward KL(p‖q)"),
    "skew KL": (tokens.skew_kl_loss, {}, "skew KL(p‖m), β = 0.1"),
    "sparse": (sparse, {"divergence": "none"}, "none known"),
    "hint": (features.hint_loss, {}, "squared error of logits"),
    "similarity": (features.similarity_preserving_loss, {}, "similarity-preserving"),
    "RKD distance": (features.rkd_distance_loss, {}, "RKD, distances"),
    "RKD angle": (features.rkd_angle_loss, {}, "RKD, angles"),
    "contrastive": (features.contrastive_loss, {}, "contrastive"),
}  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_no_alarm_over_our_losses(name):
    loss, how, divergence = OURS[name]
    report = audit(loss, **how)
    assert report.ok, report
    assert report.divergence == divergence
    check(loss, **how)


def test_every_public_loss_on_logits_is_audited():
    tried = {getattr(loss, "__name__", "") for loss, _, _ in OURS.values()} | {"sparse_kd_loss"}
    public = {name for module in (losses, tokens) for name in vars(module) if name.endswith("_loss")}
    assert public and public <= tried


@pytest.mark.parametrize("name", SEEDS)
def test_a_wrong_loss_is_caught_under_the_right_name(name):
    loss, wrong, how = SEEDS[name]
    report = audit(loss, **how)
    assert set(wrong) <= set(report.failed), report
    assert set(report.failed) <= {*wrong, *FREE}, report


def plain(power, divide="batchmean"):
    """A right loss as it is written by hand, but for T^power and what it divides by."""

    def loss(s, t, y, T):
        log_q, p = (s / T).log_softmax(-1), (t.detach() / T).softmax(-1)
        return T**power * F.kl_div(log_q, p, reduction=divide)

    return loss


def test_a_right_loss_by_hand_passes_where_shapes_and_faults_are_accepted():
    accepted = ("shapes", "faults")
    report = check(plain(2), ignore=accepted)
    assert report.ignored == accepted and not report.failed
    assert report["shapes"].ok is False and report["faults"].ok is False
    text = str(report)
    assert text.count("○") == 2 and "✗" not in text and text.endswith("ignored: shapes, faults")
    assert audit(plain(2, "mean"), ignore=accepted).failed == ("reduction",)  # the rest is held to
    with pytest.raises(AssertionError, match=r'ignore=\("faults",\)\), or --ignore faults'):
        check(plain(2))


def test_what_is_ignored_is_named_as_it_is():
    assert audit(right, ignore="shapes").ignored == ("shapes",)
    with pytest.raises(ValueError, match=r"ignore names properties among.*got 'shape'"):
        audit(right, ignore=("faults", "shape"))


@pytest.mark.parametrize("power", [-1, 0, 1, 1.5, 2, 3])
def test_no_factor_and_T_squared_are_conventions_and_no_other_power_is(power):
    assert audit(plain(power))["temperature"].ok is (power in (0, 2))


def test_a_kl_of_another_teacher_is_no_divergence_of_the_two_sides():
    """With only the student softened the formula is a KL's, and it is not 0 where both sides agree."""
    half = audit(
        lambda s, t, T: T**2 * F.kl_div((s / T).log_softmax(-1), t.softmax(-1), reduction="batchmean")
    )
    assert half["divergence"].ok is None and "see temperature" in half["divergence"].found
    assert "temperature" in half.failed and audit(plain(2))["divergence"].ok is True


@pytest.mark.parametrize("power", [0, 1, 2])
@pytest.mark.parametrize("declared", [0, 1, 2])
def test_the_declared_factor_is_held_against_the_measured_one(power, declared):
    def huber(s, t, y, T):  # none of the known ones
        return T**power * F.huber_loss(
            (s / T).softmax(-1), (t.detach() / T).softmax(-1), reduction="sum", delta=0.1
        )

    for loss in (plain(power), huber):
        assert audit(loss, factor=declared)["temperature"].ok is (power == declared)


def test_a_constant_in_place_of_T_squared_is_not_what_is_declared():
    def constant(s, t, y, T):
        return 16 * losses.kd_loss(s, t, T) / T**2

    assert audit(constant).ok and audit(constant, factor=2).failed == ("temperature",)
    with pytest.raises(ValueError, match="0, 1 or 2"):
        audit(constant, factor=4)


def sigmoid_kd(s, t, y, T):
    """As in the recipes: each answer a softmax over two classes, the second logit 0."""
    two = [torch.stack([x, torch.zeros_like(x)], -1) for x in (s, t)]
    return s.shape[1] * losses.kd_loss(*two, T)


def sigmoid_cross_entropy(s, t, y, T):
    return T**2 * F.binary_cross_entropy_with_logits(s / T, (t.detach() / T).sigmoid())


@pytest.mark.parametrize(
    "loss, name", [(sigmoid_kd, "Bernoulli KL"), (sigmoid_cross_entropy, "Bernoulli cross")]
)
def test_the_divergence_of_sigmoids_is_known(loss, name):
    report = check(loss, ignore=("shapes", "faults"))
    assert report.divergence.startswith(name) and report.factor == "T²"
    assert audit(loss, divergence="Bernoulli KL")["divergence"].ok is (name == "Bernoulli KL")


class Module(torch.nn.Module):
    def forward(self, student_logits, teacher_logits):
        return losses.kd_loss(student_logits, teacher_logits)


class Plain:
    def forward(self, teacher_logits, student_logits):
        return losses.kd_loss(student_logits, teacher_logits)


class PassedOn(Plain):
    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)


@pytest.mark.parametrize("loss", [Module, Module(), Plain, Plain(), PassedOn()])
def test_the_signature_of_forward_is_read(loss):
    report = check(loss)
    assert report.call == ("loss(s, t)" if "Module" in report.loss else "loss(t, s)")


def test_a_class_that_takes_arguments_is_given_as_an_instance():
    with pytest.raises(ValueError, match="Linear cannot be made without arguments"):
        audit(torch.nn.Linear)
    with pytest.raises(ValueError, match="is int, and cannot be called"):
        audit(3)


def teacher_changed(s, t, y, T):
    t.sub_(t.mean(-1, keepdim=True))
    return losses.kd_loss(s, t, T)


def student_changed(s, t, y, T):
    s /= T
    t /= T
    return T**2 * losses.kd_loss(s, t)


@pytest.mark.parametrize(
    "loss, said", [(teacher_changed, "the call t is not"), (student_changed, "the call s and t is")]
)
def test_a_loss_that_changes_its_inputs(loss, said):
    report = audit(loss)
    assert report.failed == ("faults",) and "changes its inputs" in report["faults"].found
    assert said in report["faults"].found
    assert report.divergence == "forward KL(p‖q)"


@pytest.mark.parametrize(
    "returned, said",
    [
        (lambda x: (x, x), r"tuple of 2, not one number: choose, call='loss\(s, t, y, T\)\[0\]'"),
        (lambda x: {"kd": x}, r"dict of 1, not one number: choose, call=\"loss\(s, t, y, T\)\['kd'\]\""),
        (lambda x: None, "returns None, not one number: it needs a return"),
    ],
)
def test_a_loss_that_returns_more_or_less_than_a_number(returned, said):
    with pytest.raises(ValueError, match=said):
        audit(lambda s, t, y, T: returned(losses.kd_loss(s, t, T)))


def right(s, t, y, T):
    return losses.kd_loss(s, t, T)


def test_a_loss_that_is_right_for_a_reason_one_may_doubt_is_no_fault():
    """The gradient through the JSD's mixture is 0: detaching it changes nothing."""

    def jsd_loss(s, t, y, T):
        if s.shape != t.shape:
            raise ValueError("shapes")
        log_p, log_q = (t.detach() / T).log_softmax(-1), (s / T).log_softmax(-1)
        log_m = (torch.logaddexp(log_p, log_q) - torch.tensor(2.0).log()).detach()
        each = (log_p.exp() * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1)
        return T * T * each.mean() / 2

    report = audit(jsd_loss)
    assert report.divergence == "JSD, β = 0.5" and set(report.failed) <= {"faults"}


def test_a_surrogate_whose_gradient_is_the_reverse_kl_on_average_is_no_fault():
    def drawn(s, t, y, T):
        log_p, log_q = ((x / T).log_softmax(-1).gather(-1, y[..., None])[..., 0] for x in (t.detach(), s))
        return ((log_q - log_p).detach() * log_q).mean()

    finding = audit(drawn)["divergence"]
    assert finding.ok and "reverse KL" in finding.found


def test_twice_divided_by_the_examples():
    report = audit(lambda s, t, y, T: losses.kd_loss(s, t, T) / len(s))
    assert {"reduction", "micro-batch"} <= set(report.failed)


def test_a_loss_that_is_largest_where_the_two_agree():
    def correlation(s, t):
        s, t = (x - x.mean(-1, keepdim=True) for x in (s, t.detach()))
        return torch.cosine_similarity(s, t, dim=-1).mean()

    assert "divergence" in audit(correlation).failed


def test_a_denominator_makes_accumulation_exact():
    def summed(s, t, T, mask, n):
        if s.shape != t.shape:
            raise ValueError("shapes")
        return losses.kd_loss(s, t, T, mask) * mask.sum() / n

    found = audit(summed, "loss(s, t, T, mask, n)")["micro-batch"]
    assert found.ok and "denominator" in found.found


def test_what_a_loss_does_not_claim_does_not_apply():
    report = audit(lambda s, t: losses.kd_loss(s, t))
    assert report.ok
    assert report["mask"].ok is None and report["temperature"].ok is None


def test_the_declared_divergence_is_held_against_the_measured_one():
    assert audit(right, divergence="forward KL").ok
    assert audit(right, divergence="reverse KL").failed == ("divergence",)
    with pytest.raises(ValueError, match="divergence is one of"):
        audit(right, divergence="KL")


@pytest.mark.parametrize(
    "loss, call",
    [
        (losses.kd_loss, "loss(s, t, T, mask, n)"),
        (losses.distillation_loss, "loss(s, t, y, T, mask=mask, denominator=n)"),
        (tokens.generalized_jsd_loss, "loss(s, t, T=T, mask=mask, denominator=n)"),
        (lambda teacher_logits, student_logits, tau: 0, "loss(t, s, T)"),
        (lambda student, teacher, labels, *, temperature=2: 0, "loss(s, t, y, temperature=T)"),
        (lambda outputs, labels, teacher_outputs, T, alpha: 0, "loss(s, y, t, T, 0.5)"),
        (lambda outputs, labels, teacher_outputs, alpha=0.1, T=2: 0, "loss(s, y, t, T=T)"),
        (lambda pred, target, T: 0, "loss(s, t, T)"),
        (lambda pred, target, teacher: 0, "loss(s, y, t)"),
        (lambda a, b, c, d: 0, None),
        (lambda s, t, secret: 0, None),
    ],
)
def test_the_names_of_the_parameters_say_the_order(loss, call):
    assert by_name(loss) == call


@pytest.mark.parametrize(
    "loss, call, said",
    [
        (lambda a, b: a.sum(), None, "cannot be called as loss"),
        (lambda a, b: a.sum(), None, r"Assumed were the student's logits, the teacher's, .*\(a, b\)"),
        (lambda s, t: (s - t).square(), None, "reduce it"),
        (right, "loss(s, t", "not one expression"),
        (right, "1 + 1", "names neither"),
    ],
)
def test_a_loss_that_cannot_be_called_so_says_the_remedy(loss, call, said):
    with pytest.raises(ValueError, match=said):
        audit(loss, call)


def test_the_report_is_frozen_and_explains_each_fault():
    report = audit(SEEDS["undetached"][0])
    with pytest.raises(FrozenInstanceError):
        report.loss = "another"
    assert set(EXPLAINED) == {f.name for f in report.findings} and len(report.findings) == 10
    assert [case for case, _ in report.cases] == list(CASES) and len(CASES) == 20
    text = str(report)
    for name in report.failed:
        finding = report[name]
        assert finding.example and finding.consequence and "chapter" in finding.chapter
        assert finding.chapter.split("“")[0] in text
    assert text.count("✗") == len(report.failed) > 0


def test_the_chapters_named_have_the_sections_named():
    for _, where in EXPLAINED.values():
        number = int(where.split("chapter ")[1][0])
        (path,) = (ROOT / "chapters").glob(f"{number:02}_*.ipynb")
        text = path.read_text(encoding="utf-8").lower()
        for section in re.findall("“(.*?)”", where):
            assert section.lower() in text, (path.name, section)


def test_check_raises_with_the_table():
    with pytest.raises(AssertionError, match="teacher-matters"):
        check(SEEDS["the_articles_loss"][0])
    assert check(right).ok


def command(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "companion.audit", *arguments], cwd=cwd, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}, encoding="utf-8",
    )  # fmt: skip


def test_the_readme_shows_the_real_output(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## Does the teacher matter?")[1]
    code, output = text.split("```python\n")[1].split("```")[0], text.split("```\n")[2].split("\n```")[0]
    (tmp_path / "my_losses.py").write_text(code, encoding="utf-8")
    done = command("my_losses:soft_loss", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.strip() == output.strip()


def test_exit_codes_for_ci(tmp_path):
    assert command("companion.losses:kd_loss", "--quiet", cwd=tmp_path).returncode == 0
    swapped = command("companion.losses:kd_loss", "--call", "loss(t, s, T)", "--quiet", cwd=tmp_path)
    assert swapped.returncode == 1 and "student-gradient" in swapped.stdout
    for wrong in ("companion.losses:no_such", "no_such_module:f", "companion.losses"):
        done = command(wrong, cwd=tmp_path)
        assert done.returncode == 2 and done.stderr and not done.stdout


def test_ignore_and_factor_on_the_command_line(tmp_path):
    (tmp_path / "ex.py").write_text(
        "import torch.nn.functional as F\n"
        "def f(s, t, y, T):\n"
        "    return F.kl_div((s / T).log_softmax(-1), (t.detach() / T).softmax(-1), reduction='batchmean')\n"
    )
    done = command("ex:f", "--ignore", "shapes, faults", cwd=tmp_path)
    assert done.returncode == 0 and "○ shapes" in done.stdout, done.stdout + done.stderr
    done = command("ex:f", "--ignore", "shapes,faults", "--factor", "2", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (1, "temperature")
    done = command("ex:f", "--ignore", "shape", cwd=tmp_path)
    assert done.returncode == 2 and "'shape'" in done.stderr


def test_a_module_that_ends_the_program_is_no_pass(tmp_path):
    (tmp_path / "ex.py").write_text("import sys\ndef f(s, t, y, T): return s.sum()\nsys.exit(0)\n")
    done = command("ex:f", cwd=tmp_path)
    assert done.returncode == 2 and "sys.exit(0)" in done.stderr and not done.stdout
