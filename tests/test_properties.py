"""What holds for any input, tried on many drawn by hypothesis."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score

from companion import _core, features, losses, metrics, tokens

settings.register_profile("book", max_examples=30, deadline=None, derandomize=True, database=None)
settings.load_profile("book")

KL = {
    "kd": lambda z, v, T=2.0, mask=None: losses.kd_loss(z, v, T, mask),
    "standardized": lambda z, v, T=2.0, mask=None: losses.standardized_kd_loss(z, v, T, mask),
    "NormKD": lambda z, v, T=2.0, mask=None: losses.normkd_loss(z, v, T, mask),
    "WTTM of z/T": lambda z, v, T=2.0, mask=None: losses.wttm_loss(z / T, v, T, mask),
    "reverse": lambda z, v, T=2.0, mask=None: tokens.reverse_kl_loss(z, v, T, mask),
    "jsd": lambda z, v, T=2.0, mask=None: tokens.generalized_jsd_loss(z, v, 0.3, T, mask),
    "skew": lambda z, v, T=2.0, mask=None: tokens.skew_kl_loss(z, v, 0.1, T, mask),
}
UNMASKED = {
    "DKD": lambda z, v, T=2.0: losses.dkd_loss(z, v, torch.arange(len(z)) % z.shape[-1], T),
    "RLD": lambda z, v, T=2.0: losses.rld_loss(z, v, v.argmax(-1), T),  # the teacher is right
    "DIST": lambda z, v, T=2.0: losses.dist_loss(z, v, T),
}
MSE = {"centred mse": lambda z, v, T=None, mask=None: losses.logit_mse_loss(z, v, True, mask)}
RELATIONS = {
    "similarity": features.similarity_preserving_loss,
    "distance": features.rkd_distance_loss,
    "angle": features.rkd_angle_loss,
}


@st.composite
def pairs(draw, dtype=torch.double, least=1):
    """Student and teacher logits of one shape, from nearly equal to far apart."""
    rows, classes = draw(st.integers(least, 9)), draw(st.integers(2, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale, distance = (10 ** draw(st.floats(low, 2)) for low in (-2, -6))
    v = scale * torch.randn(rows, classes, generator=generator, dtype=torch.double)
    z = v + distance * torch.randn(rows, classes, generator=generator, dtype=torch.double)
    return z.to(dtype), v.to(dtype)


temperatures = st.floats(-1, 3).map(lambda e: 10**e)


def gradient(loss, z, *more, **options):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(loss(z, *more, **options), z)[0]


@pytest.mark.parametrize("loss", [*KL.values(), *UNMASKED.values(), *MSE.values()])
@given(pairs(torch.float32), temperatures)
def test_never_negative_never_nan_even_in_float32(loss, pair, T):
    z, v = pair
    assert loss(z, v, T).item() >= 0
    assert gradient(loss, z, v, T).isfinite().all()


@pytest.mark.parametrize("loss", [*KL.values(), *UNMASKED.values(), *MSE.values()])
@given(pairs(), temperatures)
def test_zero_at_agreement_and_only_there(loss, pair, T):
    z, v = pair
    assert loss(v, v, T).item() == 0 and not gradient(loss, v, v, T).any()
    if loss not in UNMASKED.values() and loss not in (KL["standardized"], KL["NormKD"]):
        apart = ((z - v) - (z - v).mean(-1, keepdim=True)).abs().max()
        assert loss(z, v, T).item() > 0 or apart / T < 1e-6 or loss is KL["skew"] or loss is KL["jsd"]


@pytest.mark.parametrize("loss", [*KL.values(), *UNMASKED.values(), *MSE.values()])
@given(pairs(), st.floats(-50, 50))
def test_a_constant_added_to_a_row_changes_nothing(loss, pair, c):
    z, v = pair
    size = loss(z, v).item() + 1e-9
    assert loss(z + c, v - c).item() == pytest.approx(loss(z, v).item(), rel=1e-5, abs=1e-6 * size + 1e-10)


@pytest.mark.parametrize("loss", [*KL.values(), UNMASKED["DIST"], *MSE.values()])
@given(pairs(), st.randoms(use_true_random=False))
def test_the_order_of_the_classes_does_not_matter(loss, pair, random):
    z, v = pair
    order = random.sample(range(z.shape[-1]), z.shape[-1])
    assert loss(z[:, order], v[:, order]).item() == pytest.approx(loss(z, v).item(), rel=1e-6, abs=1e-13)


@pytest.mark.parametrize("loss", [*KL.values(), *MSE.values()])
@given(pairs(least=2), st.data())
def test_a_mask_is_the_same_as_leaving_out(loss, pair, data):
    z, v = pair
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(z), max_size=len(z))))
    torch.testing.assert_close(loss(z, v, mask=mask), loss(z[mask], v[mask]), rtol=1e-12, atol=1e-14)
    full = gradient(loss, z, v, mask=mask)
    torch.testing.assert_close(full[mask], gradient(loss, z[mask], v[mask]), rtol=1e-12, atol=1e-14)
    assert not full[~mask].any()


@pytest.mark.parametrize("loss", [*KL.values(), *UNMASKED.values(), *MSE.values()])
@given(pairs(), st.integers(1, 40))
def test_chunks_of_any_size_give_the_same(loss, pair, chunk):
    z, v = pair
    whole, slope = loss(z, v), gradient(loss, z, v)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_core, "CHUNK", chunk)
        torch.testing.assert_close(loss(z, v), whole, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(gradient(loss, z, v), slope, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("loss", [*KL.values(), *UNMASKED.values()])
@given(pairs())
def test_the_gradient_of_a_row_sums_to_zero(loss, pair):
    z, v = pair
    slope = gradient(loss, z, v)
    assert slope.sum(-1).abs().max() <= 1e-9 * slope.abs().max() + 1e-12


@pytest.mark.parametrize("loss", RELATIONS.values(), ids=RELATIONS)
@given(pairs(least=3), st.data())
def test_relations_do_not_see_order_rotation_or_the_size_of_a_side(loss, pair, data):
    s, t = pair
    value = loss(s, t).item()
    order = data.draw(st.permutations(range(len(s))))
    rotation = torch.linalg.qr(
        torch.randn(t.shape[1], t.shape[1], generator=torch.Generator().manual_seed(0)).double()
    )[0]
    for other in (loss(s[order], t[order]), loss(s, t @ rotation), loss(s, 3 * t)):
        assert other.item() == pytest.approx(value, rel=1e-5, abs=1e-9)


# ------------------------------------------------------------------------------------------------ metrics


@given(pairs(), st.data())
def test_accuracy_and_agreement_are_scikit_learns(pair, data):
    z, v = pair
    y = torch.tensor(data.draw(st.lists(st.integers(0, z.shape[1] - 1), min_size=len(z), max_size=len(z))))
    assert metrics.accuracy(z, y) == pytest.approx(100 * accuracy_score(y, z.argmax(-1)), abs=1e-4)
    assert metrics.agreement(z, v) == pytest.approx(
        100 * accuracy_score(v.argmax(-1), z.argmax(-1)), abs=1e-4
    )
    assert metrics.agreement(z, v) == metrics.agreement(v, z) and metrics.agreement(z, z) == 100


@given(pairs(), st.integers(1, 30))
def test_calibration_error_is_a_share_and_at_least_the_mean_gap(pair, bins):
    z, _ = pair
    y = torch.arange(len(z)) % z.shape[1]
    mean_gap = abs(metrics.accuracy(z, y) - 100 * z.softmax(-1).max(-1)[0].mean().item())
    ece = metrics.calibration_error(z, y, bins)
    assert mean_gap - 1e-4 <= ece <= 100 and metrics.calibration_error(z, y, 1) == pytest.approx(
        mean_gap, abs=1e-4
    )


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.floats(0.5, 0.999))
def test_the_interval_is_scipys(values, level):
    a = np.array(values)
    found = metrics.paired_interval(values, level=level)
    half = stats.t.ppf((1 + level) / 2, len(a) - 1) * stats.sem(a)
    assert found.mean == pytest.approx(a.mean(), abs=1e-9)
    assert found.half_width == pytest.approx(half, rel=1e-5, abs=1e-9)
    assert metrics.paired_interval(values, values, level).half_width == 0
