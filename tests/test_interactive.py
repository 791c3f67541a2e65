"""The figures that move: a still picture and the run's numbers in one output, small, rounded, refused when wrong."""

import base64
import io
import json

import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributions import Categorical, MixtureSameFamily, Normal

from companion import interactive, plotting
from companion.losses import kd_loss
from companion.tokens import forward_kl_loss, reverse_kl_loss

V, Z = 3 * torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(1), dtype=torch.double)
IMAGES = torch.linspace(-0.8, 2, 3 * 784).view(3, 1, 28, 28)
Y = torch.tensor([6, 0, 4])
MIXTURE = MixtureSameFamily(Categorical(torch.tensor([0.6, 0.4])), Normal(torch.tensor([-3.0, 3.0]), 0.8))
SHOWN = {
    "temperature": lambda: interactive.show_temperature(V[0], Z[0], 6),
    "soft-target": lambda: interactive.show_soft_targets(IMAGES, Y, V),
    "dark-knowledge": lambda: interactive.show_dark_knowledge(IMAGES, Y, V, Z, V + 0.1),
    "three-classes": lambda: interactive.show_three_classes(V[0, :3], Z[0, :3]),
    "two-humps": lambda: interactive.show_two_humps(MIXTURE, {"forward": (-0.6, 3.04631, 0.66)}),
    "cover-or-seek": lambda: interactive.show_cover_or_seek(MIXTURE),
}


@pytest.fixture
def shown(monkeypatch):
    """Call a figure; get the bundle that it displays."""
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: outputs.append(data))
    plotting.use_style()

    def show(draw):
        draw()
        return outputs.pop()

    return show


@pytest.mark.parametrize("kind", SHOWN)
def test_a_still_picture_and_its_numbers_the_same_every_time(shown, kind):
    bundle = shown(SHOWN[kind])
    assert bundle["image/svg+xml"].count("<svg") == 1
    assert bundle[interactive.MIME]["kind"] == kind
    assert len(json.dumps(bundle[interactive.MIME])) < 10_000
    assert bundle == shown(SHOWN[kind])


def test_the_numbers_are_the_logits_rounded(shown):
    data = shown(SHOWN["dark-knowledge"])[interactive.MIME]["data"]
    assert np.abs(np.array(data["teacher"]) - V.numpy()).max() <= 0.005001
    assert data["labels"] == [6, 0, 4] and data["classes"][6] == "shirt"
    png = base64.b64decode(data["images"][2].split(",")[1])
    pixels = np.array(Image.open(io.BytesIO(png)))
    assert pixels.shape == (28, 28) and pixels[-1, -1] == 255
    data = shown(SHOWN["two-humps"])[interactive.MIME]["data"]
    assert data["minima"] == [{"name": "forward", "mu": -0.6, "sigma": 3.0463, "value": 0.66}]
    assert data["weights"] == pytest.approx([0.6, 0.4]) and data["deviations"] == pytest.approx([0.8, 0.8])


@pytest.mark.parametrize("T", [0.5, 1.0, 8.0])
def test_gradient_sizes_are_autograd_s(T):
    z = Z[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(kd_loss(z, V[:1], T), z)
    scaled, bare = interactive.gradient_sizes(Z[0], V[0], T)
    assert scaled.item() == pytest.approx(gradient.norm().item(), abs=1e-12)
    assert bare.item() == pytest.approx(gradient.norm().item() / T**2, abs=1e-12)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: interactive.gradient_sizes(Z, V[:1], 2),
        lambda: interactive.show_dark_knowledge(IMAGES, Y, V, Z[:, :3], V),
    ],
)
def test_shapes_that_differ_are_named(draw):
    with pytest.raises(ValueError, match=r"differ in shape: student|differ in shape: teacher"):
        draw()


def test_soft_targets_want_one_image_and_one_label_for_each_row():
    for images, y in ((IMAGES[:2], Y), (IMAGES, Y[:2])):
        with pytest.raises(ValueError, match="one of each"):
            interactive.show_soft_targets(images, y, V)


def test_temperature_carries_the_image_where_given_and_opens_at_its_t(shown):
    data = shown(lambda: interactive.show_temperature(V[0], Z[0], 6, T=1, image=IMAGES[0]))[interactive.MIME][
        "data"
    ]
    assert data["image"].startswith("data:image/png") and data["T"] == 1
    assert data["student"] == pytest.approx(Z[0].tolist(), abs=5e-4)
    assert "image" not in shown(SHOWN["temperature"])[interactive.MIME]["data"]
    with pytest.raises(ValueError, match="differ in shape: student"):
        interactive.show_temperature(V[0], Z[0, :3], 6)


def test_the_two_divergences_of_the_map_are_those_of_the_tokens():
    mu, sigma = torch.tensor([[0.5], [-3.0]]).double(), torch.tensor([[1.8], [0.8]]).double()
    forward, reverse = interactive._both_ways(MIXTURE, mu, sigma)
    x = torch.linspace(-20, 20, 8001, dtype=torch.double)
    log_p = MIXTURE.log_prob(x)[None]
    for i in range(2):
        log_q = Normal(mu[i, 0], sigma[i, 0]).log_prob(x)[None]
        assert forward[i, 0].item() == pytest.approx(forward_kl_loss(log_q, log_p).item(), abs=1e-4)
        assert reverse[i, 0].item() == pytest.approx(reverse_kl_loss(log_q, log_p).item(), abs=1e-4)


def test_numbers_that_are_not_finite_are_refused(shown):
    with pytest.raises(ValueError, match="finite"):
        interactive.show_temperature(V[0] * torch.inf, Z[0], 6)


def test_three_classes_takes_three_and_starts_with_the_last_logit_at_zero(shown):
    data = shown(SHOWN["three-classes"])[interactive.MIME]["data"]
    assert data["student"][2] == 0
    assert data["student"][0] == pytest.approx((Z[0, 0] - Z[0, 2]).item(), abs=0.005001)
    with pytest.raises(ValueError, match=r"three logits of each side; got \(10,\)"):
        interactive.show_three_classes(V[0], Z[0])
    with pytest.raises(ValueError, match="differ in shape"):
        interactive.show_three_classes(V[0, :3], Z[0, :2])
