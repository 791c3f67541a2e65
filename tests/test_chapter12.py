"""Chapter 12: its equations, what its stored runs rest on, its exercises."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from companion import checks
from companion.data import fashion, fashion_teacher
from companion.models import ConvNet
from experiments import chapter12
from experiments.common import stored
from tests.drawn import seeded

DOUBLE = {"dtype": torch.double}


def descended(questions, w_t, steps=20_000):
    """A linear student of squared errors, from 0."""
    w, rate = torch.zeros_like(w_t), 1 / torch.linalg.matrix_norm(questions, 2) ** 2
    for _ in range(steps):
        w = w - rate * questions.T @ (questions @ (w - w_t))
    return w


@pytest.mark.equation("eq-learned-part")
def test_a_linear_student_learns_what_its_questions_span():
    w_t = torch.randn(6, generator=seeded(), **DOUBLE)
    for n in (2, 4, 6, 9):
        x = torch.randn(n, 6, generator=seeded(n), **DOUBLE)
        w = descended(x, w_t)
        assert torch.allclose(w, torch.linalg.pinv(x) @ x @ w_t, atol=1e-6)
        assert torch.allclose(x @ w, x @ w_t, atol=1e-6)  # it answers its questions as the teacher does
        assert torch.allclose(w, w_t, atol=1e-6) == (n >= 6)


def test_any_questions_will_do_for_a_linear_teacher_if_there_are_enough():
    """Noise, or one photograph's patches: 784 independent ones are the whole teacher, and 400 are not."""
    w_t = torch.randn(784, generator=seeded(), **DOUBLE)
    for make in (
        lambda n: torch.rand(n, 784, generator=seeded(1)),
        lambda n: chapter12.patches(n, seeded(1)).flatten(1),
    ):
        for n, whole in ((900, True), (400, False)):
            x = make(n).double()
            w = torch.linalg.lstsq(x, x @ w_t, driver="gelsd").solution
            assert torch.allclose(w, w_t, atol=1e-4) == whole


@pytest.mark.equation("eq-worth")
def test_worth_is_the_inverse_of_the_curve():
    n, curve = np.array([100, 300, 1000]), np.array([70.0, 78.0, 84.0])

    def worth(a):
        return np.exp(np.interp(a, curve, np.log(n)))

    assert np.allclose(worth(curve), n)
    assert worth(74) == pytest.approx(np.sqrt(100 * 300))
    assert worth(20) == pytest.approx(100) and worth(99) == pytest.approx(
        1000
    )  # beyond the curve: "at most", "at least"


@pytest.mark.equation("eq-inversion")
def test_the_distance_is_that_of_the_batch_norms_inputs():
    """Against hooks on the norms, and 0 for the images that the norms have counted."""
    teacher, x = fashion_teacher(0), fashion("val").x[:50]
    found, hooks = [], []
    for _, norm, _ in teacher.stages:

        def measure(module, inputs, norm=norm):
            a = inputs[0].transpose(0, 1).flatten(1)
            found.append((a.mean(1) - norm.running_mean).square().sum().sqrt())
            found.append((a.var(1, unbiased=False) - norm.running_var).square().sum().sqrt())

        hooks.append(norm.register_forward_pre_hook(measure))
    with torch.no_grad():
        right = teacher(x)
    for hook in hooks:
        hook.remove()
    logits, distance = chapter12.statistics_distance(teacher, x)
    assert len(found) == 6 and torch.allclose(distance, sum(found), rtol=1e-5)
    assert torch.allclose(logits, right, atol=1e-5)

    counted = ConvNet(4, dropout=0.0, seed=0).double()
    for _, norm, _ in counted.stages:
        norm.momentum = 1.0
    n = x.double()
    counted.train()(n)
    assert (
        chapter12.statistics_distance(counted.eval(), n)[1] < 3e-3
    )  # the norms keep the variance over n − 1
    assert chapter12.statistics_distance(counted, torch.rand_like(n))[1] > 0.1


def test_an_invented_image_is_named_and_near_and_a_dreamed_one_is_only_named():
    teacher = fashion_teacher(1)
    near = {}
    for weight in (0.0, 3.0):
        x = chapter12.invented(teacher, 40, 80, weight, seed=0)
        logits, distance = chapter12.statistics_distance(teacher, x)
        near[weight] = distance.item()
        assert (logits.argmax(-1) == torch.arange(40) % 10).float().mean() > 0.9
    assert near[3.0] < near[0.0] / 4


@pytest.mark.equation("eq-auc")
def test_auc_is_the_share_of_pairs():
    for low in (False, True):
        inside, outside = torch.rand(60, generator=seeded(1)), torch.rand(80, generator=seeded(2)) + 0.2
        if low:  # few values, many ties
            inside, outside = (5 * inside).floor(), (5 * outside).floor()
        pairs = (inside[:, None] < outside).double() + (inside[:, None] == outside).double() / 2
        member = [1] * 60 + [0] * 80
        other = roc_auc_score(member, -torch.cat([inside, outside]).numpy())
        assert chapter12.auc(inside, outside) == pytest.approx(100 * pairs.mean().item())
        assert chapter12.auc(inside, outside) == pytest.approx(100 * other)
    assert chapter12.auc(inside, inside) == pytest.approx(50)


# ------------------------------------------------------------------------------------------------ the stored runs


@pytest.mark.parametrize(
    "kind",
    ["real", "rolled", "mixed", "rolled and mixed", "half", "shuffled", "digits", "photograph", "noise"],
)
def test_questions_are_repeatable_and_differ_by_seed(kind):
    x, again, other = (chapter12.questions(kind, 200, 4, seed) for seed in (0, 0, 1))
    assert x.shape == (200, 1, 28, 28) and x.isfinite().all()
    assert torch.equal(x, again) and not torch.equal(x, other)
    assert len(x.flatten(1).unique(dim=0)) > 150
    black, white = -chapter12.MEAN / chapter12.STD, (1 - chapter12.MEAN) / chapter12.STD
    assert x.min() > black - 1e-4 and x.max() < white + 1e-4


def test_few_images_stand_behind_the_views_and_half_has_five_classes():
    few = {image.numpy().tobytes() for image in chapter12.questions("real", 100, 0, 0).sort(-1).values}
    rolled = chapter12.questions("rolled", 1000, 0, 0)
    assert {image.numpy().tobytes() for image in rolled.sort(-1).values} == few
    train = fashion("train")
    label = {image.numpy().tobytes(): y for image, y in zip(train.x, train.y.tolist(), strict=True)}
    assert {label[image.numpy().tobytes()] for image in chapter12.questions("half", 300, 0, 0)} == set(
        range(5)
    )


def test_those_in_the_data_and_those_not_are_different_images():
    parts = chapter12.cut(3)
    images = torch.cat([part.x for part in parts]).flatten(1)
    assert [len(part) for part in parts] == [2000, 6000, 2000]
    assert len(images.unique(dim=0)) > 9950  # the set repeats a few images


def test_a_loss_is_counted_in_the_bin_of_its_tens_logarithm():
    """25 bins of 0.2 from 10⁻⁴ to 10: 0.0011 lies in the sixth, what is beyond in the outermost."""
    shares = chapter12.shares_of(torch.tensor([0.0, 1e-9, 1.1e-3, 0.9, 1.1, 99.0], dtype=torch.double))
    found = {i: shares[f"bin{i}"] for i in range(25) if shares[f"bin{i}"]}
    assert found == pytest.approx({0: 100 / 3, 5: 100 / 6, 19: 100 / 6, 20: 100 / 6, 24: 100 / 6})


def test_the_drawn_losses_are_those_of_the_attack():
    """From the bins alone, seed by seed: their shares are whole, and their pairs give the stored AUC."""
    losses, attack = stored("12_losses"), stored("12_members")
    bins = np.stack([losses[f"bin{i}"] for i in range(len(chapter12.BINS) - 1)], 1)
    assert np.allclose(bins.sum(1), 100, atol=0.01)
    for who in ("teacher", "taught on other images", "alone on other images"):
        for seed in range(10):
            here = (losses["who"] == who) & (losses["seed"] == seed)
            inside, outside = (bins[here & (losses["images"] == x)] for x in ("members", "others"))
            assert len(inside) == len(outside) == 1
            rest = 100 - outside[0].cumsum() + outside[0] / 2  # others above the bin, and half of those in it
            row = attack[(attack["who"] == who) & (attack["seed"] == seed) & (attack["part"] == "test")]
            assert inside[0] @ rest / 100 == pytest.approx(row["auc_loss"][0], abs=0.5)


# ----------------------------------------------------------------------------------------------- exercises


def said(check, attempt, capsys):
    check(attempt)
    return capsys.readouterr().out.strip()


def moments(a, **how):
    return a.mean((0, 2, 3)), a.var((0, 2, 3), **(how or {"correction": 0}))


def gap(a, mean, var, **how):
    m, s = moments(a, **how)
    return (m - mean).norm() + (s - var).norm()


GAP = {
    "✓ statistics_gap": gap,
    "the variance is missing": lambda a, m, v: (moments(a)[0] - m).norm(),
    "the mean is missing": lambda a, m, v: (moments(a)[1] - v).norm(),
    "squared norms": lambda a, m, v: ((moments(a)[0] - m) ** 2).sum() + ((moments(a)[1] - v) ** 2).sum(),
    "standard deviation": lambda a, m, v: (moments(a)[0] - m).norm() + (moments(a)[1].sqrt() - v).norm(),
    "not by one less": lambda a, m, v: gap(a, m, v, correction=1),
    "one norm over both": lambda a, m, v: torch.cat([moments(a)[0] - m, moments(a)[1] - v]).norm(),
    "one number for each channel": lambda a, m, v: (moments(a)[0] - m).abs() + (moments(a)[1] - v).abs(),
    "no gradient": lambda a, m, v: gap(a.detach(), m, v),
    "the result differs": lambda a, m, v: a.sum(),
    "not attempted": lambda a, m, v: None,
}


@pytest.mark.parametrize("hint", GAP)
def test_check_of_the_statistics(hint, capsys):
    assert hint in said(checks.statistics_gap, GAP[hint], capsys)


def share(a, b, tie=0.5):
    return torch.stack([(x < b).double().mean() + tie * (x == b).double().mean() for x in a]).mean()


AUC = {
    "✓ membership_auc": share,
    "turned round": lambda a, b: share(b, a),
    "ties are left out": lambda a, b: share(a, b, 0),
    "half, not whole": lambda a, b: share(a, b, 1),
    "not per cent": lambda a, b: 100 * share(a, b),
    "this is the number of pairs": lambda a, b: len(a) * len(b) * share(a, b),
    "mean of the others": lambda a, b: (a < b.mean()).double().mean(),
    "not attempted": lambda a, b: None,
}


@pytest.mark.parametrize("hint", AUC)
def test_check_of_the_share_of_pairs(hint, capsys):
    assert hint in said(checks.membership_auc, AUC[hint], capsys)


def read_off(right, n, curve):
    return torch.from_numpy(np.interp([right], curve, n))[0]


WORTH = {
    "✓ worth_of": lambda a, n, curve: read_off(a, n.log(), curve).exp(),
    "straight in n": read_off,
    "this is the logarithm": lambda a, n, curve: read_off(a, n.log(), curve),
    "this is log10": lambda a, n, curve: read_off(a, n.log10(), curve),
    "wrong end": lambda a, n, curve: (
        n[(k := int((curve <= a).sum()))]
        * (n[k - 1] / n[k]) ** ((a - curve[k - 1]) / (curve[k] - curve[k - 1]))
    ),
    "a point of the curve": lambda a, n, curve: n[(curve - a).abs().argmin()],
    "from the first point to the last": lambda a, n, curve: read_off(
        a, n.log()[[0, -1]], curve[[0, -1]]
    ).exp(),
    "the result differs": lambda a, n, curve: n.sum(),
    "not attempted": lambda a, n, curve: None,
}


@pytest.mark.parametrize("hint", WORTH)
def test_check_of_the_worth(hint, capsys):
    assert hint in said(checks.worth_of, WORTH[hint], capsys)


def test_prediction_of_an_answer_nobody_asked_for(capsys):
    """What the exercise calls right is what gradient descent does."""
    w = descended(torch.tensor([[1.0, 1.0], [2.0, 2.0]], **DOUBLE), torch.tensor([3.0, 4.0], **DOUBLE))
    assert said(checks.unasked_answer, lambda: w[0].item(), capsys) == "✓ unasked_answer"
    assert "no question" in said(checks.unasked_answer, lambda: 3, capsys)


def test_new_questions_are_of_the_kind_and_were_not_asked():
    for kind in ("real", "half", "digits", "photograph", "noise"):
        asked, new = (
            chapter12.questions(kind, 1000, 0, 0).flatten(1),
            chapter12.new_questions(kind, 0).flatten(1),
        )
        assert len(new) == (797 if kind == "digits" else 1000)
        assert (asked.mean() - new.mean()).abs() < 0.15
        assert not {x.numpy().tobytes() for x in asked} & {x.numpy().tobytes() for x in new}


def test_distance_is_that_of_the_nearest_question_in_grey_values():
    """The chapter's example, (0.2, 0.8) to A and B, and a root mean square pair by pair."""

    def image(*grey):  # of 392 pairs of pixels
        return (torch.tensor(grey).repeat(392).view(1, 1, 28, 28) - chapter12.MEAN) / chapter12.STD

    shirt, a, b = image(0.2, 0.8), image(0.2, 0.5), image(0.8, 0.8)
    for asked, far in ((a, 0.045**0.5), (b, 0.18**0.5), (torch.cat([b, a]), 0.045**0.5)):
        assert chapter12.distance(asked, shirt).item() == pytest.approx(far, rel=1e-3)
    clothes, asked = fashion("test").x[:6], chapter12.questions("real", 9, 0, 1)
    off = [[(x - q).square().mean().sqrt().item() for q in asked] for x in clothes]
    found = chapter12.distance(asked, clothes).numpy()
    assert found == pytest.approx(chapter12.STD * np.min(off, 1), rel=1e-3)
    assert chapter12.distance(clothes, clothes).max() < 1e-3


def test_distances_are_made_again():
    rows = stored("12_distances")
    assert len(rows) == 10 * (9 + 5 + 2) and (rows["part"] == "test").all()
    shown = (fashion("test").y[:1000] < 5).double().mean().item()
    for kind, n in (("half", 1000), ("real", 30), ("half and 10 rolled", 2000)):
        row = rows[(rows["kind"] == kind) & (rows["n"] == n) & (rows["seed"] == 4)][0]
        for column, value in chapter12.distance_one(kind, n, 4).items():
            assert column == "part" or value == pytest.approx(row[column], abs=2e-4)
        mean = shown * row["to_shown"] + (1 - shown) * row["to_missing"]
        assert mean == pytest.approx(row["distance"], abs=2e-4)


def test_the_gap_is_filled_with_a_few_of_each_missing_class():
    train, half = fashion("train"), chapter12.questions("half", 1000, 0, 2)
    label = {image.numpy().tobytes(): y for image, y in zip(train.x, train.y.tolist(), strict=True)}
    for kind, n, each in (("half and 10", 1010, 2), ("half and 50", 1050, 10)):
        x = chapter12.questions(kind, n, 0, 2)
        assert torch.equal(x[:1000], half) and len(x) == n
        more = [label[image.numpy().tobytes()] for image in x[1000:]]
        assert sorted(more) == sorted(list(range(5, 10)) * each)
    ten = chapter12.questions("10 missing", 10, 0, 2)
    assert torch.equal(ten, chapter12.questions("half and 10", 1010, 0, 2)[1000:])
    for shift in (0, 8):
        x = chapter12.questions("half and 10 rolled", 2000, shift, 2)
        assert torch.equal(x[:1000], half) and len(x) == 2000
        kept = x[1000:].flatten(1).sort(-1).values.unique(dim=0)  # rolling keeps an image's grey values
        assert torch.equal(kept, ten.flatten(1).sort(-1).values.unique(dim=0))
        different = len(x[1000:].flatten(1).unique(dim=0))
        assert different == 10 if shift == 0 else different > 700


def test_moved_answers_are_made_again():
    rows = stored("12_moved")
    assert len(rows) == 30 and set(rows["pixels"]) == {1, 2, 4}
    assert chapter12.moved_one(0, 1)["moved"] == chapter12.moved_one(0, 1)["renamed"] == 0
    row = rows[(rows["pixels"] == 1) & (rows["seed"] == 6)][0]
    for column, value in chapter12.moved_one(1, 6).items():
        assert column == "part" or value == pytest.approx(row[column], abs=0.11)


def test_rolled_views_of_images_without_r_are_theirs_and_one_run_is_made_again():
    views = chapter12.questions("dreamed rolled", 10_000, 4, 1).flatten(1).sort(-1).values
    own = chapter12.questions("dreamed", 200, 0, 1).flatten(1).sort(-1).values
    assert torch.equal(views.unique(dim=0), own.unique(dim=0))
    rows = stored("12_questions")
    here = rows[rows["kind"] == "dreamed rolled"]
    tried, tested = here[here["part"] == "val"], here[here["part"] == "test"]
    score = {
        (s, r): tried["accuracy"][(tried["shift"] == s) & (tried["lr"] == r)].mean()
        for s, r in zip(tried["shift"].tolist(), tried["lr"].tolist(), strict=True)
    }
    assert {s for s, _ in score} == {1, 2, 4, 8} and sorted(tested["seed"]) == list(range(10))
    row = tested[tested["seed"] == 3][0]
    assert max(score, key=score.get) == (row["shift"], row["lr"])
    setting = 500, int(row["shift"]), float(row["lr"])
    again = chapter12.class_of_students("dreamed rolled", 10_000, *setting, (3,), "shipped")[3]
    assert again["accuracy"] == pytest.approx(row["accuracy"], abs=0.5)


def test_ten_and_the_invented_are_asked_about_equally_often():
    x = chapter12.questions("10 rolled and invented", 2000, 2, 1).flatten(1).sort(-1).values
    ten = chapter12.questions("real", 10, 0, 1).flatten(1).sort(-1).values
    own = chapter12.questions("invented", 200, 0, 1).flatten(1).sort(-1).values
    assert torch.equal(x[:1000].unique(dim=0), ten.unique(dim=0))
    assert torch.equal(x[1000:].unique(dim=0), own.unique(dim=0))


def test_combined_sets_have_what_validation_chose_and_one_is_made_again():
    rows = stored("12_combined")
    tested = rows[rows["part"] == "test"]
    settings = {(str(r["kind"]), int(r["n"]), int(r["shift"]), float(r["lr"])) for r in tested}
    assert len(tested) == 10 * len(settings) and len(settings) == 9
    # the classes are equally frequent in the test images
    assert (tested["right_shown"] + tested["right_missing"]) / 2 == pytest.approx(
        tested["accuracy"], abs=0.01
    )
    for kind, n, shift, lr in settings:
        val = rows[(rows["kind"] == kind) & (rows["n"] == n) & (rows["part"] == "val")]
        alone = kind == "10 rolled and invented" or shift == 0  # reported at this distance by itself
        val = val[val["shift"] == shift] if alone else val[val["shift"] > 0]
        score = {
            (s, r): val["accuracy"][(val["shift"] == s) & (val["lr"] == r)].mean()
            for s, r in zip(val["shift"].tolist(), val["lr"].tolist(), strict=True)
        }
        assert max(score, key=score.get) == (shift, lr)
    ruler = stored("12_questions")
    for kind in ("real", "half"):  # the students of the ruler, looked at by class
        here = ruler[(ruler["kind"] == kind) & (ruler["n"] == 1000) & (ruler["part"] == "test")]
        assert tested[tested["kind"] == kind]["accuracy"] == pytest.approx(here["accuracy"], abs=0.5)
    row = tested[(tested["kind"] == "half and 10") & (tested["seed"] == 3)][0]
    again = chapter12.combined_one("half and 10", 1010, 0, float(row["lr"]), 3)
    for column in ("accuracy", "right_shown", "right_missing"):
        assert again[column] == pytest.approx(row[column], abs=1.0)


@pytest.mark.parametrize(("kind", "images"), [("10 rolled", 10), ("30 rolled", 30)])
def test_views_of_fewer_images_are_theirs_alone_and_one_run_is_made_again(kind, images):
    few = chapter12.questions("real", images, 0, 0).sort(-1).values.flatten(1)
    views = chapter12.questions(kind, 100 * images, 2, 0)
    # rolled sideways and up: the multiset of grey values stays
    assert (
        len(views.flatten(1).sort(-1).values.unique(dim=0))
        == len(few.sort(-1).values.unique(dim=0))
        == images
    )
    rows = stored("12_questions")
    here = (rows["kind"] == kind) & (rows["part"] == "test")
    assert here.sum() == 10 and (rows["n"][here] == 100 * images).all()
    row = rows[here & (rows["seed"] == 3)][0]
    again = chapter12.question_one(kind, 100 * images, 500, int(row["shift"]), float(row["lr"]), 3)
    assert again["accuracy"] == pytest.approx(row["accuracy"], abs=0.5)
    score = {}
    for shift in (*chapter12.SHIFTS, 8, 14):
        tried = rows[(rows["kind"] == kind) & (rows["part"] == "val") & (rows["shift"] == shift)]
        score |= {(shift, lr): tried["accuracy"][tried["lr"] == lr].mean() for lr in set(tried["lr"])}
    assert max(score, key=score.get) == (row["shift"], row["lr"])


def test_every_distance_has_the_rate_that_validation_chose_and_one_is_made_again():
    rows, tried = stored("12_far"), stored("12_questions")
    assert len(rows) == 10 * (4 + 3 + 5 + 5) and (rows["part"] == "test").all()
    val = tried[(tried["part"] == "val") & (tried["steps"] == 500)]
    for kind, shift in {(str(r["kind"]), int(r["shift"])) for r in rows}:
        here = rows[(rows["kind"] == kind) & (rows["shift"] == shift)]
        of = val[(val["kind"] == kind) & (val["shift"] == shift) & (val["n"] == here["n"][0])]
        score = {lr: of["accuracy"][of["lr"] == lr].mean() for lr in set(of["lr"])}
        assert sorted(here["seed"]) == list(range(10)) and set(here["lr"]) == {max(score, key=score.get)}
    row = rows[(rows["kind"] == "10 rolled") & (rows["shift"] == 4) & (rows["seed"] == 2)][0]
    again = chapter12.question_one("10 rolled", 1000, 500, 4, float(row["lr"]), 2)
    assert again["accuracy"] == pytest.approx(row["accuracy"], abs=0.5)


def test_the_commonest_answer_is_counted():
    logits = torch.tensor([[0.0, 1.0], [2.0, 3.0], [1.0, 0.0], [0.0, 5.0]])
    assert chapter12.commonest(logits) == 75


def test_spread_takes_one_image_of_each_cluster_and_farthest_the_farthest():
    x = torch.tensor([[0.0], [0.1], [5.0], [5.3], [5.2], [9.0]])
    assert sorted(chapter12.spread(x, 3, seed=0).tolist())[1:] == [4, 5]
    assert chapter12.farthest(x, torch.tensor([[0.0]]), 3).tolist() == [5, 2, 3]


def test_chosen_images_begin_with_the_random_hundred_and_are_all_different():
    teacher, train, seed = fashion_teacher(0), chapter12.TRAIN, 100
    order = torch.randperm(len(train), generator=seeded(seed))
    student = chapter12.first_students(chapter12.TUNING)[seed]
    for way in chapter12.WAYS:
        chosen = chapter12.picked(way, 300, seed)
        assert torch.equal(chosen[:100], order[:100])
        assert len(chosen.unique()) == 300
    for way, network in (("least sure", student), ("teacher least sure", teacher)):
        with torch.no_grad():
            sure = network(train.x).softmax(-1).amax(-1)
        more = chapter12.picked(way, 300, seed)[100:]
        assert set(more.tolist()) == set(order[100:][sure[order[100:]].argsort()[:200]].tolist())
