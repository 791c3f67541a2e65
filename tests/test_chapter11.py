"""Chapter 11: lost and regained, what single signs give away, and steps from common weights."""

from itertools import product

import numpy as np
import pytest
import torch

from companion import checks
from companion.metrics import accuracy
from companion.models import MLP
from experiments import chapter11
from experiments.chapter11 import as_soft, corrected, mistaken, softness
from experiments.common import REPORTED, TUNING, stored


@pytest.mark.equation("eq-lost-regained")
def test_the_students_accuracy_is_the_teachers_less_what_is_lost_and_what_is_regained():
    y = torch.zeros(10, dtype=torch.long)
    teacher, student = torch.zeros(10, 3), torch.zeros(10, 3)
    teacher[:9, 0] = teacher[9:, 1] = 1  # right on nine
    student[2:, 0] = student[:2, 2] = 1  # right on seven of these, and on the tenth
    knew, right = teacher.argmax(-1) == y, student.argmax(-1) == y
    lost, regained = (100 * part.double().mean().item() for part in (knew & ~right, right & ~knew))
    assert (lost, regained) == (20, 10)
    assert accuracy(student, y) == accuracy(teacher, y) - lost + regained == 80


@pytest.mark.equation("eq-single-sign")
def test_a_product_of_signs_gives_no_single_sign_away_and_an_answer_its_coefficients():
    x = torch.tensor(list(product((1.0, -1.0), repeat=5)), dtype=torch.double)
    y = x[:, 0] * x[:, 2] * x[:, 3]
    assert torch.equal((y[:, None] * x).mean(0), torch.zeros(5, dtype=torch.double))
    f = 2 * y + 0.5 * x[:, 2] - 0.25 * x[:, 4] + 3 * x[:, 0] * x[:, 1] + 0.7
    due = torch.tensor([0, 0, 0.5, 0, -0.25], dtype=torch.double)
    assert torch.allclose((f[:, None] * x).mean(0), due, atol=1e-14)


def test_the_two_teachers_of_two_signs():
    """A names every class right and gives x1 away by its numbers; B is right half of the time and names x1."""
    x = torch.tensor(list(product((1.0, -1.0), repeat=2)), dtype=torch.double)
    y = x.prod(-1)
    a, b = y + 0.5 * x[:, 0], y + 1.5 * x[:, 0]
    assert a.tolist() == [1.5, -0.5, -1.5, 0.5] and b.tolist() == [2.5, 0.5, -2.5, -0.5]
    assert torch.equal(a.sign(), y) and (b.sign() == y).double().mean() == 0.5
    assert torch.equal(b.sign(), x[:, 0])


@pytest.mark.parametrize("read, pull", [(1, 0), (2, 0), (3, 0.25)])
def test_three_of_four_signs_must_be_read_before_the_labels_pull_at_the_rest(read, pull):
    """By autograd: the gradient of −y · answer in the weights of one unit that reads some signs equally."""
    x = torch.tensor(list(product((1.0, -1.0), repeat=4)), dtype=torch.double)
    w = torch.zeros(4, dtype=torch.double)
    w[:read] = 1.0
    w.requires_grad_()
    outgoing = 3.0
    (-(x.prod(-1) * outgoing * torch.relu(x @ w)).mean()).backward()
    assert (w.grad[read:].abs() / outgoing).tolist() == pytest.approx([pull] * (4 - read), abs=1e-12)


@pytest.mark.equation("eq-same-way")
@pytest.mark.parametrize("seed", range(5))
def test_a_small_step_from_common_weights_goes_the_teachers_way(seed):
    """By autograd through a network: the step times the teacher's way is η‖JΔ‖², up to the second order in Δ."""
    student = MLP(6, 5, 4, seed=seed).double()
    weights = dict(student.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(7, 6, generator=generator, dtype=torch.double)
    way = {
        k: 1e-6 * torch.randn(w.shape, generator=generator, dtype=torch.double) for k, w in weights.items()
    }

    def idle(weights):
        return torch.func.functional_call(student, weights, (x,))[:, 2:]

    told = idle({k: w + way[k] for k, w in weights.items()}).detach()
    half_square = 0.5 * (idle(weights) - told).square().sum()
    steps = torch.autograd.grad(half_square, list(weights.values()))
    product_of_ways = sum((-step * way[k]).sum() for k, step in zip(weights, steps, strict=True))
    moved = (told - idle(weights)).square().sum()
    assert product_of_ways.item() > 0
    assert product_of_ways.item() == pytest.approx(moved.item(), rel=1e-4)


# ----------------------------------------------------------------------------------------------- exercises


def both(lost, regained):
    return 100 * torch.stack([lost, regained]).double().mean(-1)


def right(v, y):
    return v.argmax(-1) == y


ACCOUNTS = {
    "✓ lost_and_regained": lambda v, z, y: both(right(v, y) & ~right(z, y), right(z, y) & ~right(v, y)),
    "in per cent": lambda v, z, y: both(right(v, y) & ~right(z, y), right(z, y) & ~right(v, y)) / 100,
    "in the other order": lambda v, z, y: both(right(z, y) & ~right(v, y), right(v, y) & ~right(z, y)),
    "difference of the two accuracies": lambda v, z, y: torch.tensor(
        [accuracy(v, y) - accuracy(z, y), accuracy(z, y) - accuracy(v, y)]
    ),
    "disagreement is not loss": lambda v, z, y: both(*[v.argmax(-1) != z.argmax(-1)] * 2),
    "the result differs": lambda v, z, y: torch.zeros(2),
    "not attempted": lambda v, z, y: None,
}


@pytest.mark.parametrize("hint", ACCOUNTS)
def test_check_of_the_account(hint, capsys):
    checks.lost_and_regained(ACCOUNTS[hint])
    assert hint in capsys.readouterr().out


def test_the_choices(capsys):
    checks.gives_away(lambda: (0, -1, 100))
    checks.one_copy(lambda: 400)
    checks.first_suspect(lambda: "a")
    assert capsys.readouterr().out == "✓ gives_away\n✓ one_copy\n✓ first_suspect\n"
    checks.one_copy(lambda: 240)
    assert "only one" in capsys.readouterr().out
    signs = np.array(list(product((1, -1), repeat=2)))
    answer = 2 * signs.prod(1) - signs[:, 1]
    assert (answer[:, None] * signs).mean(0).tolist() == [0, -1]
    assert (np.sign(answer) == signs.prod(1)).all()


# ------------------------------------------------------------------------------------- a teacher's answers, altered


def test_mistakes_are_moved_without_a_change_of_how_sure_the_teacher_is():
    generator = torch.Generator().manual_seed(0)
    v, y = torch.randn(200, 10, generator=generator), torch.randint(0, 10, (200,), generator=generator)
    v = v + 2 * torch.nn.functional.one_hot(y, 10)
    wrong = int((v.argmax(-1) != y).sum())
    assert 0 < wrong < 150
    put_right, more = corrected(v, y), mistaken(v, y, 150, seed=1)
    assert (put_right.argmax(-1) == y).all()
    assert int((more.argmax(-1) != y).sum()) == 150
    for altered in (put_right, more, mistaken(put_right, y, wrong, seed=2)):
        assert torch.equal(altered.sort(-1).values, v.sort(-1).values)  # the same numbers, in other places
    kept = v.argmax(-1) != y
    assert torch.equal(more[kept], v[kept])  # its own mistakes stay


def test_answers_are_made_as_soft_as_the_goal():
    v = 5 * torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    soft = as_soft(v, 1.5)
    assert softness(soft) == pytest.approx(1.5, abs=1e-4)
    assert torch.equal(soft.argmax(-1), v.argmax(-1))


# ------------------------------------------------------------------------------------------------- stored runs


@pytest.mark.parametrize("kind", ["final drawn", "final long", "final long at T", "final at T"])
def test_controls_that_came_later_had_their_own_rate(kind):
    lines = stored("11_parity")
    mine = lines[lines["kind"] == kind]
    tuning = mine[np.isin(mine["seed"], TUNING)]
    rates = sorted(set(tuning["lr"].tolist()))
    assert rates == [0.003, 0.01, 0.03, 0.1, 0.3] and len(tuning) == len(rates) * len(TUNING)
    best = max(rates, key=lambda lr: tuning["accuracy"][tuning["lr"] == lr].mean())
    reported = mine[~np.isin(mine["seed"], TUNING)]
    assert sorted(reported["seed"]) == list(REPORTED) and set(reported["lr"]) == {best}


def test_a_teacher_that_trains_on_is_sure_and_its_trace_is_gone():
    """Seed 0 once more; the course of "final long" asks this teacher, and not the finished one."""
    kept = stored("11_parity_long")
    assert all(sorted(kept["seed"][kept["steps"] == n]) == list(REPORTED) for n in (640, 1920))
    row = kept[(kept["steps"] == 1920) & (kept["seed"] == 0)][0]
    teacher = chapter11.course("final long", 0)
    assert teacher is chapter11.long_teacher(0)
    new = chapter11.parity(997, 20_000)
    z = chapter11.predict(teacher, new.x)
    of_right = 100 * z.softmax(-1)[range(len(z)), new.y].mean().item()
    assert of_right == pytest.approx(row["right"], abs=0.5)
    trace = chapter11.with_signs(z, new.x, named=False)[:4].mean().item()
    assert trace < 0.012  # chance is about 0.006; after 640 steps it is 0.025
    assert row["inside"] == pytest.approx(0.006, abs=0.004)


def test_a_sharp_teacher_is_soft_again_at_a_higher_temperature_and_its_trace_stays_away():
    """Seed 0 once more: the teacher at T = 4, and the student that heard it so."""
    lines = stored("11_parity")
    softened = lines[lines["kind"] == "final long at T"]
    assert set(softened["setting"]) == {chapter11.SOFTENED} == {4}
    row = softened[softened["seed"] == 0][0]
    kept = stored("11_softened")
    assert sorted(kept["seed"]) == list(REPORTED)
    new = chapter11.parity(997, 20_000)
    z = chapter11.predict(chapter11.course("final long at T", 0), new.x) / 4
    of_right = 100 * z.softmax(-1)[range(len(z)), new.y].mean().item()
    assert of_right == pytest.approx(kept["right"][kept["seed"] == 0][0], abs=0.5)
    assert chapter11.with_signs(z, new.x, named=False)[:4].mean().item() < 0.012
    config = {"kind": "final long at T", "setting": 4, "lr": row["lr"].item(), "seed": 0}
    (found,) = chapter11.parity_together([config], config["lr"])
    (sharp,) = chapter11.parity_together([config | {"setting": 1}], config["lr"])
    assert found["s128"] == pytest.approx(row["s128"], abs=1)
    assert found["accuracy"] == pytest.approx(row["accuracy"], abs=4)
    assert abs(sharp["accuracy"] - found["accuracy"]) > 10  # it is the temperature that was changed


def test_signs_are_counted_teacher_by_teacher():
    """Seed 0's copy of step 400 once more; it shows all four, and the finished teacher none."""
    kept = stored("11_shown")
    assert len(kept) == len(REPORTED) * len(chapter11.COPIES)

    def of(step):
        return kept[(kept["seed"] == 0) & (kept["step"] == step)][0]

    found = chapter11.shown(400, 0)
    for column, value in found.items():
        assert value == pytest.approx(of(400)[column], abs=1 if column == "accuracy" else 0.01), column
    assert min(found[f"sign{i}"] for i in range(1, 5)) > found["others"]
    assert max(of(640)[f"sign{i}"] for i in range(1, 5)) < of(640)["others"]


def test_new_teachers_were_asked_at_the_rate_of_the_old_and_none_twice():
    kept, lines = stored("11_hinted"), stored("11_parity")
    assert sorted(kept["seed"]) == list(chapter11.AGAIN) and not set(chapter11.AGAIN) & set(REPORTED)
    mine = lines[(lines["kind"] == "one named 400") & np.isin(lines["seed"], REPORTED)]
    assert set(kept["lr"]) == set(mine["lr"])
    row = kept[kept["seed"] == 10][0]
    config = {"kind": "one named 400", "setting": 1, "lr": row["lr"].item(), "seed": 10}
    (found,) = chapter11.parity_together([config], config["lr"])
    assert found["accuracy"] == pytest.approx(row["student"], abs=2)


@pytest.mark.parametrize(
    "student, kind", [("MLP 8", "MLP 32"), ("MLP 128", "MLP 32"), ("ConvNet", "MLP 128")]
)
def test_the_students_that_came_later_chose_among_as_many_settings(student, kind):
    lines = stored("11_suspects")
    mine = lines[(lines["student"] == student) & (lines["kind"] == kind)]
    tuning = mine[np.isin(mine["seed"], TUNING)]
    tried = sorted({(float(r["setting"]), float(r["lr"])) for r in tuning})
    assert tried == list(product((1.0, 4.0), chapter11.RATES)) and len(tuning) == 24

    def mean(pair):
        return tuning["accuracy"][(tuning["setting"] == pair[0]) & (tuning["lr"] == pair[1])].mean()

    reported = mine[np.isin(mine["seed"], REPORTED)]
    assert sorted(reported["seed"]) == list(REPORTED)
    assert {(float(r["setting"]), float(r["lr"])) for r in reported} == {max(tried, key=mean)}


def test_a_student_follows_its_own_teacher():
    """One row once more: the class that counts is that of the teacher, here MLP 32, on new images."""
    lines = stored("11_suspects")
    mine = (lines["student"] == "MLP 128") & (lines["kind"] == "MLP 32") & (lines["seed"] == 0)
    row = lines[mine][0]
    config = {k: row[k].item() for k in ("student", "kind", "setting", "lr", "seed")}
    (found,) = chapter11.suspects_together([config], config["lr"])
    assert found["teacher_accuracy"] == pytest.approx(row["teacher_accuracy"], abs=0.3)
    assert found["follows_new"] == pytest.approx(row["follows_new"], abs=1.5)
    assert found["follows_new"] > found["accuracy"] + 5  # it is not the label that is followed


def test_class_outputs_that_were_never_trained_under_a_trained_teacher_are_looked_at_again(monkeypatch):
    found = {}

    def once(name, about, configs, one):
        found.update(one(**configs[0]))

    monkeypatch.setattr(chapter11, "run_all", once)
    monkeypatch.setattr(chapter11, "TUNING", ())
    monkeypatch.setattr(chapter11, "REPORTED", (0,))
    chapter11.readers.cache_clear()
    chapter11.first_outputs()
    chapter11.readers.cache_clear()
    kept = stored("11_outputs")
    assert sorted(kept["seed"]) == list(range(10))
    row = kept[kept["seed"] == 0][0]
    for column in ("accuracy", "first", "other"):
        assert found[column] == pytest.approx(row[column], abs=1), column


def test_the_students_of_a_thousand_answers_are_those_of_the_other_table():
    again, before = stored("11_answers"), stored("11_teaching")
    for kind in chapter11.FOLLOWED:
        mine, old = (t[(t["kind"] == kind) & np.isin(t["seed"], REPORTED)] for t in (again, before))
        old = old[old["per_class"] == chapter11.ASKED]
        assert sorted(mine["seed"]) == sorted(old["seed"]) == list(REPORTED)
        for row in mine:
            twin = old[old["seed"] == row["seed"]][0]
            assert (row["setting"], row["lr"]) == (twin["setting"], twin["lr"])
            assert row["accuracy"] == pytest.approx(twin["accuracy"], abs=0.5)
