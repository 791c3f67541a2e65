"""What chapter 9 shows, again and independently: short, exact, and able to fail."""

import math
import re
from copy import deepcopy
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, softmax
from scipy.stats import t
from torch.utils.flop_counter import FlopCounterMode

from companion import checks
from companion.losses import kd_loss
from companion.metrics import paired_interval
from companion.models import MLP, ConvNet, parameters
from companion.tokens import generalized_jsd_loss, sparse_kd_loss
from companion.training import fit

ROOT = Path(__file__).parent.parent
NOTEBOOK = nbformat.read(ROOT / "chapters/09_faq.ipynb", as_version=4)
TEXT = "\n\n".join(c.source for c in NOTEBOOK.cells if c.cell_type == "markdown")


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def kl(p, q):
    return float((p * (np.log(p) - np.log(q))).sum(-1).mean())


def multiplications(run, *inputs, **options):
    with FlopCounterMode(display=False) as count:
        run(*inputs, **options)
    return count.get_total_flops() // 2


# --------------------------------------------------------------------------------------------------- errata


@pytest.mark.erratum("T1")
def test_a_student_may_be_larger_than_its_teacher():
    assert parameters(MLP(784, 128, 10)) > 2 * parameters(ConvNet(16))


@pytest.mark.erratum("T2")
def test_distilling_changes_no_size_and_no_cost(images):
    student = MLP(784, 32, 10, seed=0)
    before = parameters(student), multiplications(student, images.x)
    fit(student, images, lambda z, v, y: kd_loss(z, v), ConvNet(4, seed=0), steps=3, lr=1e-3)
    assert (parameters(student), multiplications(student, images.x)) == before


@pytest.mark.erratum("T18")
def test_a_step_with_a_teacher_costs_the_teachers_pass_more(images):
    teacher = ConvNet(4, seed=0)
    run = {"steps": 1, "lr": 1e-3, "batch_size": len(images)}
    alone = multiplications(fit, MLP(784, 32, 10, seed=0), images, **run)
    run |= {"teacher": teacher, "loss": lambda z, v, y: kd_loss(z, v, T=4)}
    taught = multiplications(fit, MLP(784, 32, 10, seed=0), images, **run)
    assert taught == alone + multiplications(teacher, images.x)


@pytest.mark.erratum("T24")
def test_fewer_parameters_can_need_more_multiplications():
    small, large, image = ConvNet(16), MLP(784, 128, 10), torch.zeros(1, 1, 28, 28)
    assert parameters(small) < 0.4 * parameters(large)
    assert multiplications(small.eval(), image) > 5 * multiplications(large, image)


@pytest.mark.erratum("T11")
def test_beyond_a_large_temperature_the_direction_of_the_gradient_stands_still():
    z, v = normal(2, 10)
    pull = {T: softmax(z / T) - softmax(v / T) for T in (1, 2, 50, 100)}

    def turned(a, b):
        return 1 - pull[a] @ pull[b] / np.linalg.norm(pull[a]) / np.linalg.norm(pull[b])

    assert turned(50, 100) < 1e-4 < turned(1, 2)


@pytest.mark.erratum("F7")
def test_cross_entropy_is_least_at_the_teachers_entropy():
    v = torch.tensor(normal(1, 10))
    p = softmax(v[0].numpy())
    assert F.cross_entropy(v, v.softmax(-1)).item() == pytest.approx(-(p * np.log(p)).sum(), abs=1e-12)
    assert kd_loss(v, v) == 0


@pytest.mark.erratum("C5")
def test_the_logarithm_of_a_softmax_loses_small_probabilities():
    far = torch.tensor([200.0, 0.0])
    assert far.softmax(-1).log()[1] == -math.inf
    assert far.log_softmax(-1)[1] == -200


@pytest.mark.erratum("C8")
def test_eval_and_no_grad_do_different_things(images):
    net = ConvNet(4, seed=0)
    before = [b.clone() for b in net.buffers()]
    with torch.no_grad():
        assert not torch.equal(net(images.x), net(images.x))
    assert before and not any(map(torch.equal, before, net.buffers()))  # batch norm's averages have moved
    assert net.eval()(images.x).requires_grad
    with torch.no_grad():
        assert torch.equal(net(images.x), net(images.x)) and not net(images.x).requires_grad


@pytest.mark.erratum("F10")
def test_the_articles_loss_is_negative_where_log_tau_exceeds_the_cross_entropy():
    p, z = softmax(normal(2, 10)[0]), normal(2, 10)[1]
    cross_entropy = -(p * log_softmax(z)).sum()
    for tau in (0.5 * math.exp(cross_entropy), 2 * math.exp(cross_entropy)):
        article = -(p * np.log(np.exp(z) / (np.exp(z).sum() / tau))).sum()
        assert article == pytest.approx(cross_entropy - math.log(tau), abs=1e-12)
        assert (article < 0) == (math.log(tau) > cross_entropy)


THREAD = r"github\.com/[\w.-]+/[\w.-]+/(?:issues|pull)/\d+"


def part(start, end):
    return TEXT[TEXT.index(start) : TEXT.index(end)]


@pytest.mark.erratum("T17")
def test_the_questions_are_peoples_own():
    """Those at length and the short ones with their thread, the article's five in a box of their own."""
    body = part("## 9.2", "## 9.6")
    sections = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", body, re.M | re.S))
    at_length = {name: answer for name, answer in sections.items() if "?" in name}
    assert len(at_length) == 12 and "Twelve questions that came up in public threads" in TEXT
    assert [question for question, answer in at_length.items() if not re.search(THREAD, answer)] == []
    title = r"^(?:### |```\{admonition\} )(Short answers on [^:\n]+)"  # of a section, or of a fold
    lists = dict(re.findall(title + r".*?\n(.*?)(?=^#|^\(|\Z)", body, re.M | re.S))
    assert {name for name in sections if name not in at_length} <= set(lists)
    assert list(lists) == [
        f"Short answers on {part}" for part in ("the comparison", "the loss", "teacher and data")
    ]
    short = {name: re.findall(r"^- \*\*.+\?\*\* .*", answer, re.M) for name, answer in lists.items()}
    assert [len(found) for found in short.values()] == [3, 7, 7]
    assert [line for found in short.values() for line in found if not re.search(THREAD, line)] == []
    five = part("### The article's five", "## Exercises")
    assert len(re.findall(r"^- \*\*.+\?\*\* ", five, re.M)) == 5


def test_the_index_of_questions_leads_to_each():
    """Its links are the headings of the answers, in their order."""
    index = part("{admonition} All questions", "## 9.1")
    asked = [h for h in re.findall(r"^### (.+)$", part("## 9.2", "## 9.6"), re.M) if "?" in h]
    assert re.findall(r"\[([^\]]+\?)\]\(#", index) == asked
    found = re.findall(r"\]\(#([^)]+)\)", index)
    assert len(found) == 17 and set(found) <= anchors("chapters/09_faq.ipynb")
    assert part("{admonition} All questions", "```\n").count("](#short-answers-on-") == 3


def anchors(path):
    """The anchors that MyST gives the headings of a notebook, down to the third level, and its named targets."""
    cells = nbformat.read(ROOT / path, as_version=4).cells
    text = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
    words = [h.strip().lower().replace(" ", "-") for h in re.findall(r"^#{1,3} (.+)$", text, re.M)]
    named = set(re.findall(r"^\(([\w-]+)\)=$", text, re.M))
    return named | {re.sub(r"[^\w\u4e00-\u9fff\- ]", "", word) for word in words}


def test_every_symptom_and_question_leads_to_an_answer():
    found = {
        "": anchors("chapters/09_faq.ipynb"),
        "../reference/recipes.ipynb": anchors("reference/recipes.ipynb"),
    }
    symptoms = part("| what you see |", "## 9.2")
    rows = [line for line in symptoms.splitlines() if line.startswith("| ") and "| what you see" not in line]
    own = part("### Your own model and loop", "### The article's five")
    points = [line for line in own.splitlines() if line.startswith("- ")]
    assert (len(rows), len(points)) == (15, 14)
    assert [row[2] for row in rows if re.match(r"\| [A-H]: ", row)] == list(
        "ABCEFGH"
    )  # all but the healthy log
    for line in rows + points:
        links = re.findall(r"\]\(((?:\.\./reference/recipes\.ipynb)?)#([^)]+)\)", line)
        assert links, line
        assert all(anchor in found[page] for page, anchor in links), line
    assert all(re.search(THREAD, line) for line in points)


def test_links_say_what_they_lead_to():
    found = re.findall(r"\[([^\]]*#\d+)\]\(https://github\.com/([^)]+)\)", TEXT)
    assert len(found) >= 17
    for shown, target in found:
        name, kind, number = re.match(r"([\w.-]+/[\w.-]+)/(issues|pull)/(\d+)$", target).groups()
        assert shown in (f"{name}#{number}", f"#{number}"), target
        assert kind in ("issues", "pull")


# ------------------------------------------------------------------------------------- what the cells print


def test_no_t_squared_is_another_alpha():
    """The 0.36 of the text: T = 4 and α = 0.9 without T²."""
    assert math.isclose(0.9 / (0.9 + (1 - 0.9) * 4**2), 0.36)
    assert "balance of α = 0.36 with it (9 : 1 = 0.36 · 16 : 0.64)" in TEXT.replace("\u00a0", " ")
    assert math.isclose(9, 0.36 * 16 / 0.64)


def test_dkd_splits_kl_and_has_nothing_left_for_two_classes():
    for classes in (2, 3, 10):
        p, q = softmax(normal(2, classes), -1)
        tckd = kl(np.array([p[0], 1 - p[0]]), np.array([q[0], 1 - q[0]]))
        nckd = kl(p[1:] / p[1:].sum(), q[1:] / q[1:].sum())
        assert kl(p, q) == pytest.approx(tckd + (1 - p[0]) * nckd, abs=1e-12)
        assert (nckd == pytest.approx(0, abs=1e-15)) == (classes == 2)


def test_generalised_jsd_vanishes_at_both_ends():
    p, q = softmax(normal(2, 6), -1)

    def divergence(beta):
        m = beta * p + (1 - beta) * q
        return beta * kl(p, m) + (1 - beta) * kl(q, m)

    assert divergence(0) == divergence(1) == 0
    assert divergence(1e-6) / 1e-6 == pytest.approx(kl(p, q), rel=1e-4)
    assert divergence(1 - 1e-6) / 1e-6 == pytest.approx(kl(q, p), rel=1e-4)


def test_a_stored_top_k_is_negative_and_pulls_the_wrong_way():
    """0.7 of the teacher is stored, and the student gives it 0.9: by hand, by the package, and beside the full KL."""
    z = torch.tensor([[0.9, 0.1]], dtype=torch.double).log().requires_grad_()
    index, p = torch.tensor([[0]]), torch.tensor([[0.7]], dtype=torch.double)
    value = sparse_kd_loss(z, index, p)
    assert value.item() == pytest.approx(0.7 * math.log(0.7 / 0.9), abs=1e-12) and value < 0
    pulls = [
        torch.autograd.grad(loss, z)[0][0, 0].item()
        for loss in (value, sparse_kd_loss(z, index, p, tail=True))
    ]
    assert pulls == pytest.approx([0.7 * 0.9 - 0.7, 0.9 - 0.7], abs=1e-12)
    full = kd_loss(z, torch.tensor([[0.7, 0.3]], dtype=torch.double).log())
    assert torch.autograd.grad(full, z)[0][0, 0].item() == pytest.approx(pulls[1], abs=1e-12)


def test_agreement_finds_a_hidden_term_and_no_wrong_temperature():
    z, v = torch.tensor(normal(2, 1, 4))
    hard = F.cross_entropy(v, torch.tensor([0]))
    assert hard > 0.1
    for T in (0.9, 1.0, 4.0):
        assert generalized_jsd_loss(v, v, T=T) == pytest.approx(0, abs=1e-12)
    other, right = generalized_jsd_loss(z, v, T=0.9) / 0.81, generalized_jsd_loss(z, v)
    assert abs(other / right - 1) > 0.01


def test_torch_where_belongs_before_the_softmax():
    """A padded position of NaN: choosing the loss saves its value alone, choosing the logits its gradient too."""
    v, mask = torch.tensor(normal(1, 2, 4)), torch.tensor([[True, False]])
    gradients = []
    for first in (False, True):
        z = torch.tensor(normal(1, 2, 4)[:, ::-1].copy())
        z[0, 1] = torch.nan
        z.requires_grad_()
        seen = torch.where(mask[..., None], z, 0) if first else z
        rows = (v.softmax(-1) * (v.log_softmax(-1) - seen.log_softmax(-1))).sum(-1)
        value = torch.where(mask, rows, 0).sum() / mask.sum()
        assert value.isfinite()
        gradients.append(torch.autograd.grad(value, z)[0])
    assert gradients[0].isnan().any()
    assert gradients[1].isfinite().all() and (gradients[1][0, 1] == 0).all() and gradients[1][0, 0].any()
    z = z.detach().requires_grad_()
    assert torch.allclose(torch.autograd.grad(kd_loss(z, v, mask=mask), z)[0], gradients[1])


def test_softmax_twice_has_a_floor():
    right = F.cross_entropy(torch.tensor([[1.0] + [0.0] * 9], dtype=torch.double), torch.tensor([0]))
    assert right.item() == pytest.approx(math.log(1 + 9 / math.e), abs=1e-12)
    assert "1.46 on ten classes" in TEXT and f"log(1 + 9/e) = {right:.2f}, as in log E" in TEXT


def test_the_default_reduction_divides_by_the_classes():
    log_q, p = torch.randn(5, 7, dtype=torch.double).log_softmax(-1), torch.randn(5, 7).double().softmax(-1)
    with pytest.warns(UserWarning, match="batchmean"):
        wrong = F.kl_div(log_q, p)
    assert torch.isclose(7 * wrong, F.kl_div(log_q, p, reduction="batchmean"))


def test_the_two_mistakes_of_kl_div():
    """Given the student's probabilities it falls below 0 at agreement; given the teacher's logarithms it is NaN."""
    p = torch.tensor(softmax(normal(4, 5), -1))
    assert F.kl_div(p, p, reduction="batchmean") < 0
    assert F.kl_div(p.log(), p.log(), reduction="batchmean").isnan()
    assert F.kl_div(p.log(), p.log(), reduction="batchmean", log_target=True) == 0
    assert F.kl_div(p.log(), p, reduction="batchmean").abs() < 1e-12


def test_mean_of_losses_and_loss_of_the_mean_have_one_gradient():
    v, z = torch.tensor(normal(3, 4, 5)), torch.zeros(4, 5, dtype=torch.double)
    z.requires_grad_()
    each = torch.autograd.grad(sum(kd_loss(z, one) for one in v) / 3, z)[0]
    joint = torch.autograd.grad(kd_loss(z, v.softmax(-1).mean(0).log()), z)[0]
    assert (each - joint).abs().max() < 1e-12


def test_padding_with_zero_is_not_invariant_and_cutting_is():
    z, v = torch.tensor(normal(2, 1, 4))
    assert kd_loss(F.pad(z - 10, (0, 2)), F.pad(v, (0, 2))) > 5 * kd_loss(z - 10, v)
    assert torch.isclose(kd_loss(z - 10, v), kd_loss(z, v))
    assert torch.isclose(kd_loss(*(F.pad(x, (0, 2), value=-math.inf) for x in (z - 10, v))), kd_loss(z, v))


def test_the_value_worked_out_by_hand():
    """2.093 of 9.1: a student of ½ and ½, and at T = 4 a teacher of ¾ and ¼."""
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    z, v = torch.zeros(1, 2).double(), torch.tensor([[4 * math.log(3), 0]], dtype=torch.double)
    assert (v / 4).softmax(-1)[0].tolist() == pytest.approx([0.75, 0.25])
    assert kd_loss(z, v, T=4).item() == pytest.approx(16 * by_hand, abs=1e-12)
    assert f"{by_hand:.4f}, and T² times that is {16 * by_hand:.3f}" in TEXT
    assert "log ½ − ½ = −1.19" in TEXT and f"{math.log(0.5) - 0.5:.2f}" == "-1.19"  # log B at agreement, 9.3


def test_how_far_a_student_can_get_in_sixty_steps(images):
    """The 0.03 and the 0.036 of 9.2: where weights start, and how far AdamW moves them, whatever the loss's size."""
    far = 60 * 0.001 / 2
    assert f"60 · 0.0005 = {far:.2f}" in TEXT and f"−{784**-0.5:.3f} and {784**-0.5:.3f}" in TEXT
    rows = torch.eye(10)[images.y] * 3
    for scale in (1, 16):
        student = MLP(784, 32, 10, seed=0)
        first = student.layers[0].weight.detach().clone()
        assert 0.035 < first.abs().max() <= 784**-0.5
        fit(
            student,
            images,
            lambda z, v, y, k=scale: k * kd_loss(z, v, T=4),
            rows,
            steps=60,
            lr=1e-3,
            batch_size=20,
        )
        assert 0.5 * far < (student.layers[0].weight - first).abs().max() < 1.1 * far


def test_the_second_softmax_of_a_certain_student():
    twice = F.softmax(torch.eye(10)[0], dim=0)[0]
    assert f"e/(9 + e) = {twice:.2f}" in TEXT


def test_each_value_by_hand_names_its_mistake():
    """The key of 9.1: what a student of ½ and ½ and a teacher of ¾ and ¼ give each of the six."""
    p, q = np.array([0.75, 0.25]), np.array([0.5, 0.5])
    right = 16 * kl(p, q)
    values = {
        "NaN": "logarithm of a logarithm",
        f"−{-16 * (p * (np.log(p) - q)).sum():.1f}": "softmax",
        f"{right / 2:.3f}": "default reduction",
        f"{right / 16:.3f}": "forgets T²",
        f"{16 * kl(q, p):.3f}": "swaps",
        f"{-16 * (p * np.log(q)).sum():.1f}": "cross-entropy",
    }
    cell = next(c for c in NOTEBOOK.cells if c.cell_type == "code" and "value by hand | what" in c.source)
    shown = next(o.data["text/markdown"] for o in cell.outputs if "text/markdown" in o.get("data", {}))
    rows = [line.strip("| ").split(" | ") for line in shown.splitlines()[2:]]
    assert [row[0] for row in rows] == list(values)
    assert all(values[value] in text for value, text in rows)


def test_the_numbers_of_the_exercise_with_four_losses():
    """Its own value by hand: right, with the student's probabilities for their logarithms, as a text; softmax twice."""
    p, q = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    right = F.kl_div(q.log(), p, reduction="batchmean")
    wrong = F.kl_div(q, p, reduction="batchmean")
    text = F.kl_div(*(x.repeat(2, 1)[None] for x in (q.log(), p)), reduction="batchmean")
    assert F.kl_div(q.log(), p.log(), reduction="batchmean").isnan()
    assert f"= {right:.3f} is right" in TEXT and "The value is NaN" in TEXT
    assert f"The value is {wrong:.3f}.".replace("-", "−") in TEXT
    assert f"The value is {right:.3f} for one row, and {text:.3f} for one text" in TEXT
    floor = F.cross_entropy(torch.tensor([[1.0, 0, 0, 0]]), torch.tensor([0]))
    assert f"{floor:.2f}" == "0.74"
    assert "does not fall below 0.74" in TEXT


def code(part):
    return next(c.source for c in NOTEBOOK.cells if c.cell_type == "code" and part in c.source)


def over_dim_1(z, v):
    """The natural line for rows (N, C), whose softmax runs over the tokens of a text."""
    return 16 * F.kl_div((z / 4).log_softmax(1), (v / 4).softmax(1), reduction="batchmean")


WRONG_LOSSES = {
    "agreement: 0": lambda z, v: kd_loss(z, v, T=4) + z.square().mean(),
    "by hand: 2.093": lambda z, v: kd_loss(z, v, T=4) / 16,
    "text as rows": over_dim_1,
}
OF_TEXT = {  # all right for the value by hand, which is one row
    "summed over the tokens": lambda z, v: kd_loss(z, v, T=4) * z.shape[-2],
    "summed over all": lambda z, v: kd_loss(z, v, T=4) * z[..., 0].numel(),
    "divided by the texts": lambda z, v: kd_loss(z, v, T=4) * z[..., 0].numel() / len(z),
    "over dim=1": over_dim_1,
    "right": lambda z, v: kd_loss(z, v, T=4),
}


@pytest.mark.parametrize("name", OF_TEXT)
def test_the_check_of_a_text_finds_each_wrong_mean(name, images):
    """And the right one passes; `dim=1` has the same value for a text and for the text twice, and another for rows."""
    names = {"math": math, "torch": torch, "deepcopy": deepcopy}
    exec(code("def before_training"), names)
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)).eval()
    with torch.no_grad():
        found = names["before_training"](OF_TEXT[name], teacher, images.x, teacher(images.x))
    assert {check for check, passed in found.items() if not passed} == {"text as rows"} - {
        "text as rows" if name == "right" else None
    }
    if name == "over dim=1":
        text = torch.tensor(normal(2, 2, 8, 10))
        once, twice = over_dim_1(*text), over_dim_1(*text.repeat(1, 1, 2, 1))
        assert torch.isclose(once, twice) and once > 2 * over_dim_1(*text.flatten(1, 2))


@pytest.mark.parametrize("fault", [None, *WRONG_LOSSES, "shuffled", "shifted", "teacher repeats"])
def test_the_five_checks_find_each_fault(fault, images):
    """A set-up with one fault fails the check of that name; without any, none fails."""
    names = {"math": math, "torch": torch, "deepcopy": deepcopy}
    exec(code("def before_training"), names)
    teacher = ConvNet(4, seed=0).eval()
    with torch.no_grad():
        rows = teacher(images.x)
        rows = rows[torch.arange(20).roll(5 * (fault == "shuffled"))]
        x = images.x.roll(2, -1) if fault == "shifted" else images.x
        teacher.train(fault == "teacher repeats")
        kept = deepcopy(teacher.state_dict())
        loss = WRONG_LOSSES.get(fault, lambda z, v: kd_loss(z, v, T=4))
        found = names["before_training"](loss, teacher, x, rows)
    failed = {name for name, passed in found.items() if not passed}
    due = "rows are its answers" if fault in ("shuffled", "shifted") else fault
    assert failed == {due} - {None}
    assert all(type(passed) is bool for passed in found.values())
    assert all(map(torch.equal, kept.values(), teacher.state_dict().values()))  # it asks copies
    assert teacher.training == (fault == "teacher repeats")


def each_text(z, v, mask):
    """The mean over a text's tokens, then over the texts: a token of the shorter text counts more."""
    values = torch.stack([kd_loss(a[m], b[m], T=4) for a, b, m in zip(z, v, mask, strict=True)])
    return values.mean()


MASKS = {
    "counted": lambda z, v, mask: kd_loss(z, v, T=4),
    "divided by all": lambda z, v, mask: kd_loss(z, v, T=4, mask=mask) * mask.sum() / mask.numel(),
    "divided by the texts": lambda z, v, mask: kd_loss(z, v, T=4, mask=mask) * mask.sum() / len(mask),
    "each text": each_text,
    "NaN": lambda z, v, mask: kd_loss(z, v, T=4, mask=mask) * math.nan,
}


@pytest.mark.parametrize("fault", [None, "sure: 0", *MASKS])
def test_two_more_checks_find_a_second_softmax_counted_padding_and_a_wrong_divisor(fault):
    names = {"math": math, "torch": torch, "F": F}
    exec(code("def two_more"), names)
    y = torch.arange(20) % 10
    rows = torch.eye(10)[y] * 3 + torch.randn(20, 10, generator=torch.Generator().manual_seed(0))

    def hard(z, y):
        return F.cross_entropy(z.softmax(-1) if fault == "sure: 0" else z, y)

    def masked(z, v, mask):
        return kd_loss(z, v, T=4, mask=mask)

    found = names["two_more"](hard, MASKS.get(fault, masked), y, rows)
    due = "padding" if fault in MASKS else fault
    assert {name for name, passed in found.items() if not passed} == {due} - {None}


def test_three_ways_to_call_kl_div():
    """The table of 9.3, for a student of ½ and ½ and a teacher of ¾ and ¼."""
    p, q = torch.tensor([0.75, 0.25]).double(), torch.tensor([0.5, 0.5]).double()
    values = [F.kl_div(a, b, reduction="sum") for a, b in ((q.log(), p), (q, p), (q.log(), p.log()))]
    shown = [f"{value:.3f}".replace("-", "−").replace("nan", "NaN") for value in values]
    rows = [
        line for line in part("| a and b |", "### Why does it become").splitlines() if line.startswith("| ")
    ][1:]
    assert [row.strip("| ").split(" | ")[-1] for row in rows] == shown == ["0.131", "−1.062", "NaN"]
    short = math.log(0.5)
    assert f"log ½ = −{-short:.3f} belongs, so each bracket is too small by {0.5 - short:.3f}" in TEXT
    assert f"log ¾ = −{-math.log(0.75):.3f} stands" in TEXT


def test_the_factor_of_counted_padding():
    """The lower half of the drawing: a student that knows nothing of the padding, and a mean over all 16 boxes."""
    z, v = np.array([2, 1, 0.5, -1]), np.array([4, 3, -2, -5])
    of_token, of_padding = (kl(softmax(v), softmax(x)) for x in (z, 0 * z))
    shown = [o for c in NOTEBOOK.cells if c.cell_type == "code" for o in c.outputs if "ch9_counted" in str(o)]
    assert len(shown) == 1
    counted = float(next(iter(shown[0].data.values())).strip("()"))
    assert counted == pytest.approx((of_token + of_padding) / 2 / of_token, rel=1e-4) and counted > 2


def test_softmax_and_log_fail_sixfold_earlier_in_float16():
    """Where the smaller of two probabilities is rounded to 0: below half of the smallest number of the type."""
    for dtype, smallest, said in ((torch.float16, 2.0**-24, 17), (torch.float32, 2.0**-149, 104)):
        at = -math.log(smallest / 2)
        assert round(at) == said
        for gap, zero in ((at - 0.3, False), (at + 0.3, True)):
            z = torch.tensor([[gap, 0.0]], dtype=dtype)
            assert (z.softmax(-1)[0, 1] == 0) == zero
            assert z.log_softmax(-1)[0, 1] == pytest.approx(-gap, abs=0.02)


def test_batch_norm_moves_its_stored_mean_at_each_pass():
    norm, batch = torch.nn.BatchNorm1d(1), torch.tensor([[0.0], [2.0]])  # their mean is 1
    means = [(norm(batch), norm.running_mean.item())[1] for _ in range(2)]
    assert means == pytest.approx([0.1, 0.19]) and "becomes 0.1 and then 0.19" in TEXT


def test_three_pairs_give_an_interval_three_and_a_half_times_as_wide():
    three, ten = (t.ppf(0.975, n - 1) / math.sqrt(n) for n in (3, 10))
    assert f"an interval about {three / ten:.1f} times as wide" in TEXT


@pytest.mark.parametrize("layer", [torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(784)])
def test_the_check_of_the_teacher_sees_dropout_alone_and_batch_norm_alone(layer, images):
    """Dropout moves no buffers, and batch norm gives one answer twice: each alone is found."""
    names = {"math": math, "torch": torch, "deepcopy": deepcopy}
    exec(code("def before_training"), names)
    rows = torch.eye(10)[images.y] * 3
    teacher = torch.nn.Sequential(torch.nn.Flatten(), layer, torch.nn.Linear(784, 10))
    for mode in (True, False):
        found = names["before_training"](lambda z, v: kd_loss(z, v, T=4), teacher.train(mode), images.x, rows)
        assert found["teacher repeats"] is not mode


# ------------------------------------------------------------------------------------------------ exercises


def keep(rows, mask):
    return torch.where(mask, rows, 0)


MASKED = {
    "✓ masked_mean": lambda rows, mask: rows[mask].sum() / max(mask.sum().item(), 1),
    "divided by B alone": lambda rows, mask: keep(rows, mask).sum(-1).mean(),
    "divided by B·L": lambda rows, mask: keep(rows, mask).mean(),
    "the mask is not used": lambda rows, mask: rows.mean(),
    "0 · NaN is NaN": lambda rows, mask: (rows * mask).sum() / mask.sum().clamp(min=1),
    "this is 0/0": lambda rows, mask: rows[mask].mean(),
    "the sequences' means": lambda rows, mask: (keep(rows, mask).sum(1) / mask.sum(1).clamp(min=1)).mean(),
    "the result differs": lambda rows, mask: keep(rows, mask).sum(),
}


def best(val):
    return val.mean(1).argmax()


def reported(a, b):
    gap = paired_interval(a, b)
    return gap.mean, gap.half_width


GAPS = {
    "✓ fair_gap": lambda va, vb, ta, tb: reported(ta[best(va)], tb[best(vb)]),
    "chosen on test images": lambda va, vb, ta, tb: reported(ta[best(ta)], tb[best(tb)]),
    "both sides have the taught": lambda va, vb, ta, tb: reported(ta[best(va)], tb[best(va)]),
    "both sides have the best rate of the labels": lambda va, vb, ta, tb: reported(
        ta[best(vb)], tb[best(vb)]
    ),
    "the single luckiest": lambda va, vb, ta, tb: reported(ta[va.amax(1).argmax()], tb[vb.amax(1).argmax()]),
    "turned round": lambda va, vb, ta, tb: reported(tb[best(vb)], ta[best(va)]),
    "treated as unrelated": lambda va, vb, ta, tb: (
        (ta[best(va)] - tb[best(vb)]).mean(),
        t.ppf(0.975, ta.shape[1] - 1) * ((ta[best(va)].var() + tb[best(vb)].var()) / ta.shape[1]).sqrt(),
    ),
    "the two ends": lambda va, vb, ta, tb: (
        paired_interval(ta[best(va)], tb[best(vb)]).low,
        paired_interval(ta[best(va)], tb[best(vb)]).high,
    ),
    "validation scores are reported": lambda va, vb, ta, tb: reported(va[best(va)], vb[best(vb)]),
    "the result differs": lambda va, vb, ta, tb: (0.0, 1.0),
}


@pytest.mark.parametrize("piece", MASKED)
def test_masked_mean(piece, capsys):
    checks.masked_mean(MASKED[piece])
    assert piece in capsys.readouterr().out


@pytest.mark.parametrize("piece", GAPS)
def test_fair_gap(piece, capsys):
    checks.fair_gap(GAPS[piece])
    assert piece in capsys.readouterr().out


RIGHT = ("log_target", "softmax", "batchmean", "twice")


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("word", RIGHT)
def test_four_losses(place, word, capsys):
    """Each wrong word at each place has its own hint, and none gives the answer away."""
    answer = [*RIGHT]
    answer[place] = word
    checks.four_losses(lambda: tuple(answer))
    said = capsys.readouterr().out
    assert said.startswith("✓" if word == RIGHT[place] else f"✗ four_losses: answer {place + 1}: ")
    assert word == RIGHT[place] or ("none of the answers" not in said and f'"{RIGHT[place]}"' not in said)


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("word", ("cache", "mode", "optimiser"))
def test_wrong_teacher(place, word, capsys):
    answer = ["cache", "mode", "optimiser"]
    right, answer[place] = answer[place], word
    checks.wrong_teacher(lambda: tuple(answer))
    said = capsys.readouterr().out
    assert said.startswith("✓" if word == right else f"✗ wrong_teacher: answer {place + 1}: ")
    assert word == right or "none of the answers" not in said


@pytest.fixture
def images():
    from companion.data import Split

    generator = torch.Generator().manual_seed(0)
    return Split(torch.randn(20, 1, 28, 28, generator=generator), torch.arange(20) % 10)


def test_each_stored_length_was_searched_and_no_edge_won():
    """The runs behind "When do I stop?": the reported rate is the best on validation, and lies inside the grid."""
    table = np.genfromtxt(
        ROOT / "chapters/results/09_steps.csv",
        skip_header=3,
        delimiter=",",
        names=True,
        dtype=None,
        encoding="utf-8",
    )
    for side in ("from labels", "taught"):
        for steps in (60, 120, 240, 480):
            runs = table[(table["side"] == side) & (table["steps"] == steps)]
            search, report = runs[runs["seed"] >= 100], runs[runs["seed"] < 100]
            rates = np.unique(search["lr"])
            means = [search["val"][search["lr"] == lr].mean() for lr in rates]
            assert len(rates) == 7 and len(search) == 21
            assert sorted(report["seed"]) == list(range(10))
            assert set(report["lr"]) == {rates[np.argmax(means)]} and rates[0] < report["lr"][0] < rates[-1]


def table_of_defaults():
    from experiments.common import stored

    return stored("09_defaults")


def test_each_temperature_and_weight_was_searched_and_no_edge_won():
    table = table_of_defaults()
    for T in (1, 4, 16):
        for alpha in (0.5, 0.9, 1):
            runs = table[(table["T"] == T) & (table["alpha"] == alpha)]
            search, report = runs[runs["seed"] >= 100], runs[runs["seed"] < 100]
            rates = np.unique(search["lr"])
            means = [search["val"][search["lr"] == lr].mean() for lr in rates]
            assert len(rates) == 5 and len(search) == 15
            assert sorted(report["seed"]) == list(range(10))
            assert set(report["lr"]) == {rates[np.argmax(means)]} and rates[0] < report["lr"][0] < rates[-1]


def test_a_stored_run_can_be_made_again():
    """One of them, trained anew; another machine may round otherwise, and be right on a few images more or fewer."""
    from experiments.chapter09 import student_with

    table = table_of_defaults()
    row = table[(table["T"] == 16) & (table["alpha"] == 0.9) & (table["seed"] == 0)][0]
    again = student_with(16, 0.9, float(row["lr"]), 0)
    assert abs(again["test"] - row["test"]) < 1 and abs(again["val"] - row["val"]) < 1


def table_of_shifts():
    from experiments.common import stored

    return stored("09_shifted")


def test_each_kind_of_answer_was_searched_for_both_questions():
    """For images as they are and for shifted ones: the reported rate is the best on validation."""
    from experiments.chapter09 import SHOWN

    table = table_of_shifts()
    for kind in SHOWN:
        runs = table[(table["kind"] == kind) & (table["pixels"] == 3)]
        search = runs[runs["seed"] >= 100]
        rates = np.unique(search["lr"])
        assert len(search) == 3 * len(rates) >= 12
        for score in ("val", "val_moved"):
            means = [search[score][search["lr"] == lr].mean() for lr in rates]
            report = runs[(runs["seed"] < 100) & (runs["lr"] == rates[np.argmax(means)])]
            assert sorted(report["seed"]) == list(range(10))
            assert rates[0] < report["lr"][0] < rates[-1]


def test_the_students_without_shifts_are_those_of_the_long_runs():
    """One training in two tables: 480 steps from stored answers, at one rate."""
    from experiments.common import stored

    steps, shifts = stored("09_steps"), table_of_shifts()
    long = np.sort(steps[(steps["side"] == "taught") & (steps["steps"] == 480)], order="seed")
    for lr in (0.001, 0.003, 0.01, 0.03):
        ours = np.sort(shifts[(shifts["kind"] == "unshifted") & (shifts["lr"] == lr)], order="seed")
        theirs = long[long["lr"] == lr]
        both = np.intersect1d(ours["seed"], theirs["seed"])
        assert len(both) >= 3
        for column in ("val", "test"):
            pairs = (of[column][np.isin(of["seed"], both)] for of in (ours, theirs))
            assert np.array_equal(*pairs)


def test_a_shift_moves_the_image_and_leaves_black():
    from experiments.chapter09 import BLACK, moving

    x = torch.randn(50, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    moved = moving(3)(x, torch.Generator().manual_seed(1))
    framed = F.pad(x, 4 * [3], value=BLACK)
    places = set()
    for before, after in zip(framed, moved, strict=True):
        fits = [
            (i, j)
            for i in range(7)
            for j in range(7)
            if torch.equal(before[:, i : i + 28, j : j + 28], after)
        ]
        assert len(fits) == 1  # nothing comes back on the other side
        places |= set(fits)
    assert len(places) > 20


def test_a_stored_run_on_shifted_images_can_be_made_again():
    from experiments.chapter09 import student_shown

    table = table_of_shifts()
    for kind in ("stored", "fresh"):
        row = table[(table["kind"] == kind) & (table["pixels"] == 3) & (table["seed"] == 100)][0]
        again = student_shown(kind, 3, float(row["lr"]), 100)
        assert all(abs(again[name] - row[name]) < 1 for name in ("val", "test", "val_moved", "test_moved"))
