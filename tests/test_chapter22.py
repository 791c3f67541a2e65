"""Chapter 22: the numbers of its worked examples and exercises, its stored runs; files are in test_stored."""

import numpy as np
import pytest
import torch

from companion.costs import bytes_a_token
from companion.stored import largest
from companion.tokens import forward_kl_loss, sparse_kd_loss
from experiments import chapter22 as runs
from experiments.chapter22 import BEST, COMMON, DRAWN, FORMS, NEAR, RATES, SIZES, drawn_of, form_loss, pushes
from experiments.common import REPORTED, TUNING, stored
from tests.test_notebooks import ROOT, defined


@pytest.fixture(scope="module")
def page():
    """The names that the chapter's cell of the three rules defines."""
    return defined(ROOT / "chapters/22_keep.ipynb", "def pushes", "import torch")


@pytest.fixture(scope="module")
def open_code():
    """The two losses that the page shows."""
    first = "import torch; p_four = torch.tensor([0.50, 0.30, 0.15, 0.05], dtype=torch.double)"
    return defined(ROOT / "chapters/22_keep.ipynb", "v = p_four.log()", first)


def two_sides(*shape):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.double)


def test_the_three_rules_push_as_their_losses_do(page):
    """Autograd on the losses themselves: the ten as they are, both renormalised, one for the rest."""
    z, v = (x.requires_grad_() for x in two_sides(6, 40))
    p = v.detach().softmax(-1)
    top, index = p.topk(10, -1)
    losses = {
        "as they are": sparse_kd_loss(z, index, top),
        "both renormalised": forward_kl_loss(z.gather(-1, index), top.log()),
        "one for the rest": sparse_kd_loss(z, index, top, tail=True),
    }
    pushes = page["pushes"](z.detach().softmax(-1), p, 10)
    assert set(pushes) == set(losses)
    for name, loss in losses.items():
        (slope,) = torch.autograd.grad(loss, z)
        assert torch.allclose(pushes[name] / len(z), slope, atol=1e-12), name


def slope(loss, z):
    at = z.clone().requires_grad_()
    return torch.autograd.grad(loss(at), at)[0]


def test_the_losses_that_the_page_shows_are_the_package_s(open_code):
    z, v = two_sides(6, 40)
    top, index = v.softmax(-1).topk(10, -1)
    drawn = torch.multinomial(v.exp(), 50, replacement=True, generator=torch.Generator().manual_seed(1))
    shares = torch.zeros_like(v).scatter_add(-1, drawn, torch.full(drawn.shape, 1 / 50, dtype=v.dtype))
    every = torch.arange(40).expand(6, 40)
    for shown, due in (
        (
            lambda at: open_code["loss_of_largest"](at, index, top),
            lambda at: sparse_kd_loss(at, index, top, tail=True),
        ),
        (
            lambda at: open_code["loss_of_draws"](at, drawn),
            lambda at: sparse_kd_loss(at, every, shares),
        ),
    ):
        torch.testing.assert_close(slope(shown, z), slope(due, z), atol=1e-12, rtol=0)


def test_draws_push_on_average_as_the_whole_answer_and_the_largest_do_not(open_code):
    """Section 22.2: each token as the one draw, weighted by the teacher's probability."""
    z, v = two_sides(1, 7)
    p = v.softmax(-1)
    whole = slope(lambda at: forward_kl_loss(at, v), z)
    one = [slope(lambda at, i=i: open_code["loss_of_draws"](at, torch.tensor([[i]])), z) for i in range(7)]
    torch.testing.assert_close(sum(p[0, i] * x for i, x in enumerate(one)), whole, atol=1e-12, rtol=0)
    top, index = p.topk(3, -1)
    told = slope(lambda at: open_code["loss_of_largest"](at, index, top), z)
    assert (told - whole).norm() > 1e-3  # a bias


def test_of_the_errors_over_a_pass_one_grows_with_the_steps_and_one_with_their_root():
    """Section 22.5, from the table: per cent of the right sum, times its length."""
    rows = stored("22_steps")

    def own(kept, drawn, steps):
        mine = rows[(rows["kept"] == kept) & (rows["drawn"] == drawn) & (rows["steps"] == steps)]
        assert sorted(mine["seed"]) == [0, 1, 2]
        mine = np.sort(mine, order="seed")
        return mine["off"] * mine["gradient"]

    for kept, drawn in ((0, 64), (0, 50), (16, 32)):
        assert own(kept, drawn, 80) / own(kept, drawn, 1) == pytest.approx([80**0.5] * 3, rel=0.1)
    for k in (32, 50):
        assert (own(k, 0, 80) / own(k, 0, 1) > 60).all()


def test_the_text_alone_and_whole_answers_chose_the_same_rate():
    """The dashed line of the first figure: on validation, three seeds and three rates."""
    rows = stored("14_healing")
    rows = rows[(rows["text"] == "scripture") & (rows["teacher"] == "as it is")]
    for target in ("teacher", "text"):
        tried = rows[(rows["target"] == target) & (rows["seed"] >= min(TUNING))]
        mean = {lr: tried["bits"][tried["lr"] == lr].mean() for lr in (3e-4, 1e-3, 3e-3)}
        assert min(mean, key=mean.get) == 1e-3


def test_four_draws_take_the_bytes_of_two_largest_and_are_level_after_half_the_tokens():
    assert bytes_a_token(49_152, 576, 4)["draws"] == bytes_a_token(49_152, 576, 2)["largest"]
    p = np.array(
        [0.50, 0.30, 0.15, 0.05]
    )  # the answer of section 22.3; its two largest share the rest out evenly
    bias = ((p[2:] - p[2:].mean()) ** 2).sum()
    tokens = (p * (1 - p)).sum() / 4 / bias  # at which the noise of four draws a token is as large
    assert tokens == pytest.approx(32, abs=0.5)


def test_the_disks_of_the_case():
    """Section 22.1: disks of 20 TB for 10¹² tokens."""
    found = bytes_a_token(128_000, 8192, 50)
    assert found["features"] / 20 == pytest.approx(800, rel=0.03)
    assert found["draws"] / 20 == 10


def test_the_noise_of_a_draw_is_what_the_page_says():
    """E‖one-hot − p‖² = 1 − Σp², exactly, and by counting."""
    p = two_sides(1, 7)[0].softmax(-1)[0]
    expected = sum(p[i] * (torch.eye(7, dtype=torch.double)[i] - p).square().sum() for i in range(7))
    assert expected.item() == pytest.approx(1 - p.square().sum().item(), rel=1e-12)


@pytest.mark.equation("eq-stored-bytes")
@pytest.mark.parametrize(
    "tokens, vocabulary, width, k, terabytes",
    [
        (1e8, 50_000, 2000, 50, (10, 0.4, None, None)),
        (1e10, 128_000, 4096, 50, (2560, 82, 3.0, 2.0)),
        (1e6, 10, 512, 10, (2e-5, 1e-3, None, None)),
    ],
)  # fmt: skip
def test_what_the_three_teams_would_store(tokens, vocabulary, width, k, terabytes):
    sizes = [tokens * size / 1e12 for size in bytes_a_token(vocabulary, width, k).values()]
    for found, said in zip(sizes, terabytes, strict=True):
        assert said is None or found == pytest.approx(said, rel=0.03)


@pytest.mark.equation("eq-stored-bytes")
def test_fifty_draws_take_a_fifth_of_a_petabyte_in_the_case_and_the_largest_three_tenths():
    found = bytes_a_token(128_000, 8192, 50)
    assert (found["largest"], found["draws"]) == (300, 200)  # times 10¹² tokens: 0.3 and 0.2 PB
    assert bytes_a_token(128_000, 8192, 33)["largest"] == 198  # the disk of 50 draws
    found = bytes_a_token(49_152, 576, 50)
    assert (found["largest"], found["draws"]) == (200, 100)


def test_two_draws_of_an_answer_and_its_two_largest():
    """Section 22.3: the draws of four tokens, and the rest that a student of equal probabilities shares out."""
    p = np.array([0.50, 0.30, 0.15, 0.05])
    drawn = np.array([[2, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]]) / 2
    assert drawn.mean(0).tolist() == [0.5, 0.375, 0.125, 0]
    assert abs(drawn[0] - p).max() == 0.5
    assert abs(drawn.mean(0) - p).max() == pytest.approx(0.075)
    off = np.linalg.norm(np.vstack([drawn, drawn.mean(0)]) - p, axis=1)  # the table's last column
    assert off == pytest.approx([0.60, 0.25, 0.64, 0.25, 0.09], abs=0.006)
    largest_off = np.linalg.norm([0.10 - 0.15, 0.10 - 0.05])
    assert round(largest_off, 2) == 0.07 and (p * (1 - p)).sum() == pytest.approx(0.635)
    typical = np.sqrt(0.635 / 2 / np.array([1, 63, 64]))
    assert typical[0] == pytest.approx(0.56, abs=0.005) and typical[1] > largest_off > typical[2]
    several = (
        np.random.default_rng(0).multinomial(2 * 64, p, 20_000) / (2 * 64) - p
    )  # 64 tokens' draws, many times
    assert np.sqrt((several**2).sum(-1).mean()) == pytest.approx(typical[2], rel=0.02)

    z = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)  # 0.25 each
    two = torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.3]], dtype=torch.float64)
    (push,) = torch.autograd.grad(sparse_kd_loss(z, *two, tail=True), z)
    assert 0.25 - push[0].numpy() == pytest.approx([0.5, 0.3, 0.1, 0.1])
    assert abs(0.25 - push[0].numpy() - p).max() == pytest.approx(0.05)


def test_the_stored_pushes_are_the_gradients_of_the_losses():
    v, z = (3 * torch.randn(3, 200, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    found = pushes(v, z, torch.Generator().manual_seed(2))

    def push(loss):
        at = z.double().requires_grad_()
        return len(z) * torch.autograd.grad(loss(at), at)[0]

    full = push(lambda at: forward_kl_loss(at, v.double()))
    kept = largest(v, 50)
    told = push(lambda at: sparse_kd_loss(at, kept["index"].long(), kept["p"].double(), tail=True))
    torch.testing.assert_close(found["push"], full)
    torch.testing.assert_close(found["largest"], told - full)
    said = v.double().softmax(-1) - found["draws"]  # shares of 50 draws
    torch.testing.assert_close(50 * said, (50 * said).round())
    torch.testing.assert_close(said.sum(-1), torch.ones(3, dtype=torch.float64))


def test_the_small_students_have_equal_disk_and_learn_by_the_book_s_losses():
    """Section 22.3: 32 largest take the bytes of 64 draws; a draw weighs its share; the rules are those of the page."""
    disk = bytes_a_token(COMMON, 64, BEST)["largest"], bytes_a_token(COMMON, 64, DRAWN)["draws"]
    assert disk == (128, 128)
    v, z = (3 * torch.randn(2, 3, 200, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    drawn = drawn_of(v, [4, 5], seed=1)
    assert drawn.shape == (2, 3, 64) and torch.equal(drawn[1:], drawn_of(v[1:], [5], seed=1))
    shares = torch.zeros_like(v).scatter_add(-1, drawn, torch.full(drawn.shape, 1 / 64))
    index, p = (largest(v, BEST)[name] for name in ("index", "p"))
    index, p = index.long(), p.float()

    def push(loss):
        at = z.clone().requires_grad_()
        return torch.autograd.grad(loss(at), at)[0]

    both = (p / p.sum(-1, keepdim=True)).log()
    due = {
        "full": lambda at: forward_kl_loss(at, v),
        "rest": lambda at: sparse_kd_loss(at, index, p, tail=True),
        "renormalised": lambda at: forward_kl_loss(at.gather(-1, index), both),
        "draws": lambda at: -(shares * at.log_softmax(-1)).sum(-1).mean(),
    }
    assert tuple(due) == FORMS
    for form, loss in due.items():
        found = push(lambda at, form=form: form_loss(form, at, v, drawn))
        torch.testing.assert_close(found, push(loss), atol=1e-6, rtol=1e-4)


def check_chosen(own, rates):
    """The rate with the least mean on the tuning seeds is reported, and lies inside the grid."""
    tried = {lr: own["nats"][(own["lr"] == lr) & (own["seed"] >= min(TUNING))] for lr in rates}
    assert {len(nats) for nats in tried.values()} == {len(TUNING)}
    best = min(tried, key=lambda lr: tried[lr].mean())
    assert best not in (rates[0], rates[-1])
    reported = own[own["seed"] < min(TUNING)]
    assert sorted(reported["seed"]) == list(REPORTED) and set(reported["lr"]) == {best}


def test_each_form_s_learning_rate_was_chosen_on_validation_and_lies_inside_the_grid():
    rows = stored("22_forms")
    for form in FORMS:
        check_chosen(rows[rows["form"] == form], RATES)


def test_two_kept_and_one_drawn_are_right_on_average_and_level_after_three_tokens():
    """Section 22.4: A and B as they are, and one draw of C and D that gets the rest."""
    p = np.array([0.50, 0.30, 0.15, 0.05])
    told, chance = np.array([[0.5, 0.3, 0.2, 0], [0.5, 0.3, 0, 0.2]]), np.array([0.75, 0.25])
    assert chance @ told == pytest.approx(p)
    off = np.linalg.norm(told - p, axis=1)
    assert off == pytest.approx([0.07, 0.21], abs=0.003)
    squared = chance @ off**2
    assert squared**0.5 == pytest.approx(0.12, abs=0.005) and squared / 0.005 == pytest.approx(3)


@pytest.mark.equation("eq-stored-bytes")
@pytest.mark.parametrize("kept, drawn, alone", [(2, 1, 5), (12, 26, 50), (16, 32, 64)])
def test_the_largest_with_draws_take_the_bytes_of_so_many_draws_alone(kept, drawn, alone):
    """Section 22.4's 10 and 100 bytes, and the 128 of the students."""

    def size(form, k):
        return bytes_a_token(49_152, 576, k)[form]

    assert size("largest", kept) + size("draws", drawn) == size("draws", alone)


def test_the_noise_of_draws_of_the_rest_is_what_the_page_says():
    """E‖rest·one-hot − rest‖² = r² − Σ p² over the rest, by counting."""
    p = two_sides(1, 7)[0].softmax(-1)[0]
    kept = p.topk(3).indices
    left = p.scatter(-1, kept, 0)
    r = left.sum()
    expected = sum(
        left[i] / r * (r * torch.eye(7, dtype=torch.double)[i] - left).square().sum() for i in range(7)
    )
    assert expected.item() == pytest.approx((r**2 - left.square().sum()).item(), rel=1e-12)


def test_kept_and_drawn_tell_the_answer_on_average_and_the_largest_exactly():
    v = 2 * torch.randn(1, 2, 12, generator=torch.Generator().manual_seed(3))
    p = v.softmax(-1)
    told = torch.zeros_like(p)
    for seed in range(400):
        index, weight = runs.kept_and_drawn(v, 2, 8, [5], seed)
        assert weight.sum(-1) == pytest.approx(torch.ones(1, 2), abs=1e-5)
        told.scatter_add_(-1, index, weight / 400)
    top = p.topk(2, -1).indices
    torch.testing.assert_close(told.gather(-1, top), p.gather(-1, top))
    torch.testing.assert_close(told, p, atol=0.01, rtol=0)


def test_the_rates_of_fifty_and_of_both_were_chosen_on_validation_and_lie_inside_the_grid():
    rows = stored("22_sizes")
    for kept, drawn in SIZES:
        check_chosen(rows[(rows["kept"] == kept) & (rows["drawn"] == drawn)], NEAR)


@pytest.fixture(scope="module")
def first_steps():
    """The training lines, and the teacher's answers to those of the first four steps; it is asked once."""
    lines = runs.lines_of("train", runs.LEARNT)
    used = torch.cat([runs.batch(runs.LEARNT, runs.ROWS, step, 0) for step in range(4)])
    v = torch.zeros(runs.LEARNT, runs.LONG, COMMON, dtype=torch.float16)
    v[used] = runs.asked(lines[used])
    return lines, v


@pytest.mark.parametrize("kept, drawn", SIZES)
def test_a_student_of_fifty_or_of_both_begins_as_stored(kept, drawn, first_steps, monkeypatch):
    """The first four steps again, for which only their lines are asked."""
    rows = stored("22_sizes")
    (row,) = rows[(rows["kept"] == kept) & (rows["drawn"] == drawn) & (rows["seed"] == 0)]
    lines, v = first_steps
    monkeypatch.setattr(runs, "answered", lambda part: (lines, v) if part == "train" else (lines[:1], v[:1]))
    runs.told_all.cache_clear()
    found = runs.sizes_one(kept, drawn, float(row["lr"]), 0, steps=4)
    runs.told_all.cache_clear()
    assert float(found["fourth"]) == pytest.approx(row["fourth"], abs=1e-3)


@pytest.mark.equation("eq-stored-bytes")
def test_what_fits_into_120_bytes():
    sizes = {k: bytes_a_token(50_000, 1, k) for k in (30, 60)}
    assert sizes[60]["draws"] == sizes[30]["largest"] == 120
    assert pytest.approx(150, rel=0.01) == (95 / 60**0.5) ** 2


def test_the_sums_of_steps_begin_as_stored(first_steps, monkeypatch):
    """The first four steps again: how far the sum of their gradients is off in each form."""
    rows = stored("22_steps")
    lines, v = first_steps
    monkeypatch.setattr(runs, "answered", lambda part: (lines, v))
    for cached in (runs.told_all, runs.told_of, runs.step_errors):
        cached.cache_clear()
    found = runs.step_errors(0, float(rows["lr"][0]), steps=4)
    for cached in (runs.told_all, runs.told_of, runs.step_errors):
        cached.cache_clear()
    for kept, drawn in runs.HELD:
        for steps in (1, 4):
            (row,) = rows[
                (rows["kept"] == kept)
                & (rows["drawn"] == drawn)
                & (rows["steps"] == steps)
                & (rows["seed"] == 0)
            ]
            first = 100 * (found[(kept, drawn), steps][0] / found["full", steps][0]).item()
            assert first == pytest.approx(row["first"], rel=0.01)
