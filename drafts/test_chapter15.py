"""Chapter 15's formulas against sums in full: PYTHONPATH=. pytest drafts."""

from itertools import product

import pytest
import torch

from companion.tokens import forward_kl_loss, reverse_kl_loss

V, L = 3, 3
EVERY = list(product(range(V), repeat=L))


def chain(seed):
    """Logits of the next word after every beginning."""
    generator = torch.Generator().manual_seed(seed)
    heads = [h for n in range(L) for h in product(range(V), repeat=n)]
    return dict(
        zip(
            heads,
            torch.randn(len(heads), V, generator=generator, dtype=torch.double),
            strict=True,
        )
    )


def whole(side):
    """log-probabilities of all answers, by multiplying the probabilities along each."""
    return torch.stack(
        [
            torch.stack([side[y[:t]].softmax(-1)[y[t]] for t in range(L)]).prod()
            for y in EVERY
        ]
    ).log()


def along(weights, loss, z, v):
    return sum(
        w * sum(loss(z[y[:t]][None], v[y[:t]][None]) for t in range(L))
        for w, y in zip(weights, EVERY, strict=True)
    )


@pytest.mark.equation("eq-sequence-kl")
def test_a_divergence_of_answers_is_read_along_one_sides_words():
    v, z = chain(0), chain(1)
    P, Q = whole(v), whole(z)
    assert P.exp().sum().item() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(
        (P.exp() * (P - Q)).sum(),
        along(P.exp(), forward_kl_loss, z, v),
        rtol=1e-10,
        atol=0,
    )
    torch.testing.assert_close(
        (Q.exp() * (Q - P)).sum(),
        along(Q.exp(), reverse_kl_loss, z, v),
        rtol=1e-10,
        atol=0,
    )
    assert abs((Q.exp() * (Q - P)).sum() - along(P.exp(), reverse_kl_loss, z, v)) > 1e-3


@pytest.mark.equation("eq-lost")
@pytest.mark.parametrize("eps, back", [(0.05, 0.1), (0.2, 0.9), (0.01, 0.0)])
def test_the_lost_share_is_a_two_state_chains(eps, back):
    step = torch.tensor([[1 - eps, eps], [back, 1 - back]], dtype=torch.double)
    for t in (0, 1, 2, 20):
        lost = torch.linalg.matrix_power(step, t)[0, 1].item()
        assert eps / (eps + back) * (1 - (1 - eps - back) ** t) == pytest.approx(
            lost, abs=1e-12
        )


@pytest.mark.equation("eq-two-gradients")
def test_the_gradient_of_the_reverse_divergence_has_two_parts():
    v, fixed = chain(2), chain(3)
    flat = torch.stack(list(fixed.values())).requires_grad_()
    z = dict(zip(fixed, flat, strict=True))
    P, Q = whole(v), whole(z)
    (right,) = torch.autograd.grad((Q.exp() * (Q - P)).sum(), flat, retain_graph=True)
    kl = {h: reverse_kl_loss(z[h][None], v[h][None]) for h in z}
    total = 0
    for weight, y in zip(Q.exp().detach(), EVERY, strict=True):
        for t in range(L):
            later = sum(kl[y[:s]].detach() for s in range(t + 1, L))
            total = total + weight * (
                kl[y[:t]] + later * z[y[:t]].log_softmax(-1)[y[t]]
            )
    (found,) = torch.autograd.grad(total, flat)
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)


@pytest.mark.equation("eq-estimators")
def test_values_and_gradients_of_the_three_estimators():
    generator = torch.Generator().manual_seed(4)
    v, z = torch.randn(2, 1, 7, generator=generator, dtype=torch.double)
    z.requires_grad_()
    p, q = v.softmax(-1), z.softmax(-1)
    k1, k2 = (q / p).log(), (q / p).log().square() / 2
    k3 = p / q - 1 - (p / q).log()
    drawn = q.detach()
    forward, reverse = forward_kl_loss(z, v), reverse_kl_loss(z, v)
    for k in (k1, k3):
        torch.testing.assert_close((drawn * k).sum(), reverse, rtol=1e-10, atol=0)
    grads = {
        name: torch.autograd.grad(loss, z, retain_graph=True)[0]
        for name, loss in {
            "k1": (drawn * k1).sum(), "k2": (drawn * k2).sum(), "k3": (drawn * k3).sum(),
            "policy": (drawn * k1.detach() * q.log()).sum(), "forward": forward, "reverse": reverse,
        }.items()
    }  # fmt: skip
    assert grads["k1"].abs().max() < 1e-14
    for name, right in (("k2", "reverse"), ("policy", "reverse"), ("k3", "forward")):
        torch.testing.assert_close(grads[name], grads[right], rtol=1e-9, atol=1e-14)
