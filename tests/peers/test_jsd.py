"""The generalised Jensen–Shannon divergence of TRL and Liger at several β: value and gradient are ours, without T².

β weighs the teacher in the mixture, here as there.
"""

import importlib

import pytest
import torch

from companion import tokens
from tests.peers.conftest import need

BETAS = (0.1, 0.3, 0.5, 0.9)
T = 2.0


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(2, *shape, generator=generator, dtype=torch.double)


def with_slope(call, z):
    z = z.clone().requires_grad_()
    value = call(z)
    return value.detach(), torch.autograd.grad(value, z)[0]


def trl(z, v, beta):
    trainer = importlib.import_module("trl.experimental.gkd").GKDTrainer
    labels = torch.zeros(z.shape[:-1], dtype=torch.long)  # all tokens count
    return trainer.generalized_jsd_loss(z, v, labels, beta, T)


def trl_chunked(z, v, beta):
    """It takes hidden states: the identity makes them the logits."""
    loss = importlib.import_module("trl.trainer.distillation_trainer")._chunked_divergence_loss
    heads = (torch.eye(x.shape[-1], dtype=x.dtype) for x in (z, v))
    return loss(z, v, *heads, torch.ones(z.shape[:2]), beta, temperature=T)[0]


def liger(z, v, beta):
    """It divides its inputs' logits in place, so they are copied."""
    loss = importlib.import_module("liger_kernel.chunked_loss").LigerFusedLinearJSDLoss(
        0.0, 1.0, beta, temperature=T, compiled=False
    )
    head = torch.eye(z.shape[-1], dtype=z.dtype)
    z, v = z.flatten(0, 1), v.flatten(0, 1)
    return loss(z.clone(), head, v.clone(), head, torch.zeros(len(z), dtype=torch.long))


PEERS = {
    "TRL generalized_jsd_loss": ("trl", "trl.experimental.gkd", trl),
    "TRL, chunked": ("trl", "trl.trainer.distillation_trainer", trl_chunked),
    "Liger": ("liger-kernel", "liger_kernel.chunked_loss", liger),
}


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("name", PEERS)
def test_value_and_gradient_are_ours_without_T_squared(name, beta):
    package, module, peer = PEERS[name]
    need(package, module)
    z, v = draw(2, 3, 7)
    value, slope = with_slope(lambda z: peer(z, v, beta), z)
    expected, direction = with_slope(lambda z: tokens.generalized_jsd_loss(z, v, T=T, beta=beta) / T**2, z)
    rtol = 1e-9 if value.dtype == torch.double else 2e-6  # Liger and TRL's chunks compute in single precision
    torch.testing.assert_close(value.double().reshape(()), expected, rtol=rtol, atol=0)
    torch.testing.assert_close(slope, direction, rtol=rtol, atol=rtol * direction.abs().max().item())


def test_beta_is_not_its_mirror_image():
    """Else the test above could not tell the two sides."""
    z, v = draw(2, 3, 7)
    there, back = (tokens.generalized_jsd_loss(z, v, T=T, beta=beta) for beta in (0.1, 0.9))
    assert abs(there / back - 1) > 0.01
