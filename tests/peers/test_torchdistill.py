"""torchdistill 1.1.5 as an oracle: the same numbers where it is right, and a named test where it is not.

Not part of `tests/`' usual run: it needs the extra `peers` (make test-peers).
"""

import importlib

import pytest
import torch
from torch.nn import functional as F

from companion import features, losses
from tests.peers.conftest import need

need("torchdistill", "torchdistill.losses.mid_level", allow_module_level=True)
peer = importlib.import_module("torchdistill.losses.mid_level")


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z, v = 2 * torch.randn(2, *shape, generator=generator, dtype=torch.double)
    return z, v


def theirs(module, z, v, targets=None):
    """Value and gradient of one of torchdistill's modules, which take dictionaries of outputs."""
    z = z.clone().requires_grad_()
    loss = module({"s": {"output": z}}, {"t": {"output": v}}, targets)
    return loss.detach(), torch.autograd.grad(loss, z)[0]


def ours(call, z):
    z = z.clone().requires_grad_()
    loss = call(z)
    return loss.detach(), torch.autograd.grad(loss, z)[0]


def same(a, b, rtol=1e-7):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y.reshape(x.shape), rtol=rtol, atol=1e-9)


LOGITS = {
    "student_module_path": "s",
    "student_module_io": "output",
    "teacher_module_path": "t",
    "teacher_module_io": "output",
}
OUTPUTS = {"student_output_path": "s", "teacher_output_path": "t"}
PAIRS = {
    "map": {"student": {"path": "s", "io": "output"}, "teacher": {"path": "t", "io": "output"}, "weight": 1}
}


# -------------------------------------------------------------------------------------- where it is right


def test_kd_with_a_label_is_distillation_loss_with_the_weights_exchanged():
    """Its α weighs the hard term: α = 0.3 there is α = 0.7 here."""
    (z, v), y = draw(8, 5), torch.arange(8) % 5
    same(
        theirs(peer.KDLoss(**LOGITS, temperature=3.0, alpha=0.3), z, v, y),
        ours(lambda z: losses.distillation_loss(z, v, y, 3.0, 0.7), z),
    )


def test_dist():
    z, v = draw(8, 5)
    module = peer.DISTLoss(**LOGITS, beta=2.0, gamma=0.5, tau=3.0, eps=1e-30)
    same(theirs(module, z, v), ours(lambda z: losses.dist_loss(z, v, 3.0, 2.0, 0.5), z))


def test_standardised_logits_with_a_label():
    (z, v), y = draw(8, 5), torch.arange(8) % 5
    module = peer.LogitStdKDLoss(**LOGITS, temperature=3.0, alpha=0.3, beta=0.7)

    def call(z):
        return 0.3 * torch.nn.functional.cross_entropy(z, y) + 0.7 * losses.standardized_kd_loss(z, v, 3.0)

    same(theirs(module, z, v, y), ours(call, z))


def test_attention_transfer_as_in_the_paper():
    z, v = draw(6, 3, 4, 4)
    same(
        theirs(peer.ATLoss(PAIRS, mode="paper"), z, v),
        ours(lambda z: features.attention_transfer_loss(z, v), z),
    )


@pytest.mark.parametrize("distance, angle", [(1, 0), (0, 1)])
def test_rkd(distance, angle):
    z, v = draw(7, 5)
    module = peer.RKDLoss(**OUTPUTS, dist_factor=distance, angle_factor=angle, reduction="mean")
    call = features.rkd_distance_loss if distance else features.rkd_angle_loss
    same(theirs(module, z, v), ours(lambda z: call(z, v), z), rtol=1e-6)


# ----------------------------------------------------------------------------------------- where it differs


def test_kd_without_a_label_drops_T_squared():
    """With α = 0, or without targets, only T⁰ · KL comes back: a ninth of the loss at T = 3."""
    z, v = draw(8, 5)
    for targets, alpha in ((None, 0.3), (torch.arange(8) % 5, 0)):
        value, slope = theirs(peer.KDLoss(**LOGITS, temperature=3.0, alpha=alpha), z, v, targets)
        same((9 * value, 9 * slope), ours(lambda z: losses.kd_loss(z, v, 3.0), z))


def test_kd_with_alpha_none_needs_a_beta_and_drops_T_squared_too():
    z, v = draw(8, 5)
    with pytest.raises(TypeError):
        peer.KDLoss(**LOGITS, temperature=3.0)
    value, _ = theirs(peer.KDLoss(**LOGITS, temperature=3.0, beta=1.0), z, v)
    assert 9 * value == pytest.approx(losses.kd_loss(z, v, 3.0).item(), rel=1e-9)


def test_standardised_kd_without_a_label_drops_T_squared():
    z, v = draw(8, 5)
    value, _ = theirs(peer.LogitStdKDLoss(**LOGITS, temperature=3.0, alpha=0), z, v)
    assert 9 * value == pytest.approx(losses.standardized_kd_loss(z, v, 3.0).item(), rel=1e-9)


@pytest.mark.parametrize("n", [3, 6, 11])
def test_spkd_divides_rows_by_their_L1_norm(n):
    """The paper's eq. 3 and its authors' code divide by the L2 norm; here `1` lands in F.normalize's p. Both: by n²."""
    z, v = draw(n, 5, seed=n)

    def with_norm(p):
        return lambda z: (
            sum((F.normalize(z @ z.T, p=p) - F.normalize(v @ v.T, p=p)).square().flatten()) / n**2
        )

    same(theirs(peer.SPKDLoss(**OUTPUTS, reduction="batchmean"), z, v), ours(with_norm(1), z))
    same(ours(lambda z: features.similarity_preserving_loss(z, v), z), ours(with_norm(2), z))


def test_attention_transfer_by_default_takes_the_mean_square():
    """As the paper's authors' code does, and not its equation 2."""
    z, v = draw(6, 3, 4, 4)
    value, _ = theirs(peer.ATLoss(PAIRS), z, v)
    q = [torch.nn.functional.normalize(x.square().sum(1).flatten(1)) for x in (z, v)]
    assert value == pytest.approx((q[0] - q[1]).square().mean().item(), rel=1e-9)


def test_crd_cannot_draw_its_negatives():
    module = peer.CRDLoss("s", "e", "t", 4, 20, 3, 20)
    student = {"s": {"output": torch.randn(2, 4)}, "e": {"input": {"pos_idx": torch.tensor([0, 1])}}}
    with pytest.raises(AttributeError):
        module(student, {"t": {"output": torch.randn(2, 4)}})


def test_shapes_that_differ_are_broadcast_in_silence():
    z, v = draw(8, 5)
    module = peer.KDLoss(**LOGITS, temperature=3.0, alpha=0)
    assert theirs(module, z, v[:1])[0].isfinite()
    with pytest.raises(ValueError, match=r"\(8, 5\) and \(1, 5\)"):
        losses.kd_loss(z, v[:1], 3.0)


def test_a_gradient_reaches_an_undetached_teacher():
    z, v = draw(8, 5)
    v.requires_grad_()
    theirs(peer.KDLoss(**LOGITS, temperature=3.0, alpha=0), z, v)
    module = peer.KDLoss(**LOGITS, temperature=3.0, alpha=0)
    module({"s": {"output": z}}, {"t": {"output": v}}).backward()
    assert v.grad is not None and v.grad.any()


def test_tokens_are_softened_over_the_wrong_dimension():
    """dim=1 of (B, L, V) is the position, and `batchmean` divides by B alone."""
    z, v = draw(2, 3, 5)
    value, _ = theirs(peer.KDLoss(**LOGITS, temperature=1.0, alpha=0), z, v)
    assert abs(value / losses.kd_loss(z, v) - 1) > 0.1


def test_half_precision_near_agreement_is_wrong_by_more_than_two_per_cent():
    generator = torch.Generator().manual_seed(0)
    v = (3 * torch.randn(64, 50, generator=generator)).bfloat16()
    z = (v.float() + 0.02 * torch.randn(64, 50, generator=generator)).bfloat16()
    z_, v_ = z.double(), v.double()
    truth = ours(lambda z: losses.kd_loss(z, v_, 1.0), z_)[1]
    wrong = theirs(peer.KDLoss(**LOGITS, temperature=1.0, alpha=0), z, v)[1].double()
    right = ours(lambda z: losses.kd_loss(z, v, 1.0), z)[1].double()
    assert (wrong - truth).norm() > 0.05 * truth.norm() > (right - truth).norm() * 2.5
