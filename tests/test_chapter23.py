"""Chapter 23: its formulas against sums in full, its runs made again, its exercises."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from companion import checks
from companion.tokens import forward_kl_loss, generalized_jsd_loss, reverse_kl_loss
from experiments.common import stored
from tests.test_chapter15 import EVERY, L, along, chain, whole


@pytest.mark.equation("eq-two-gradients")
@pytest.mark.parametrize("loss", [reverse_kl_loss, forward_kl_loss])
def test_the_gradient_along_a_students_answers_has_two_parts(loss):
    v, fixed = chain(2), chain(3)
    flat = torch.stack(list(fixed.values())).requires_grad_()
    z = dict(zip(fixed, flat, strict=True))
    P, Q = whole(v), whole(z)
    goal = (Q.exp() * (Q - P)).sum() if loss is reverse_kl_loss else along(Q.exp(), loss, z, v)
    (right,) = torch.autograd.grad(goal, flat, retain_graph=True)
    far = {h: loss(z[h][None], v[h][None]) for h in z}
    total = 0
    for weight, y in zip(Q.exp().detach(), EVERY, strict=True):
        for t in range(L):
            later = sum(far[y[:s]].detach() for s in range(t + 1, L))
            total = total + weight * (far[y[:t]] + later * z[y[:t]].log_softmax(-1)[y[t]])
    (found,) = torch.autograd.grad(total, flat)
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)


@pytest.mark.equation("eq-drawn")
def test_the_gradient_of_a_mean_over_drawn_tokens_has_two_parts():
    generator = torch.Generator().manual_seed(6)
    z, c = torch.randn(2, 7, generator=generator, dtype=torch.double)
    z.requires_grad_()
    q = z.softmax(-1)
    f = c * q.square() + z.sin()  # it depends on the token and on the student
    drawn = q.detach()

    def slope(mean):
        return torch.autograd.grad(mean, z, retain_graph=True)[0]

    first, second = slope((drawn * f).sum()), slope((drawn * f.detach() * q.log()).sum())
    torch.testing.assert_close(first + second, slope((q * f).sum()), rtol=1e-10, atol=1e-14)
    assert min(first.norm(), second.norm()) > 0.1


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


@pytest.mark.equation("eq-generalized-jsd")
def test_the_generalised_jsd_weighs_two_divergences_to_the_mixture():
    z, v = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(4), dtype=torch.double)
    p, q = (softmax(x.numpy(), -1) for x in (v, z))
    m = 0.3 * p + 0.7 * q
    wanted = (0.3 * rel_entr(p, m) + 0.7 * rel_entr(q, m)).sum(-1).mean()
    assert generalized_jsd_loss(z, v, 0.3).item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.equation("eq-privilege")
def test_what_a_teacher_knows_from_its_prompt_stays_in_the_loss():
    generator = torch.Generator().manual_seed(5)
    told = torch.randn(4, 6, generator=generator, dtype=torch.double)
    weights = torch.rand(4, generator=generator, dtype=torch.double).softmax(0)
    mean = weights @ told.softmax(-1)
    stays = sum(w * forward_kl_loss(mean.log()[None], v[None]) for w, v in zip(weights, told, strict=True))
    for _ in range(3):
        z = torch.randn(1, 6, generator=generator, dtype=torch.double)
        loss = sum(w * forward_kl_loss(z, v[None]) for w, v in zip(weights, told, strict=True))
        torch.testing.assert_close(loss, stays + forward_kl_loss(z, mean.log()[None]), rtol=1e-12, atol=0)
    assert stays > 0.1


# ---------------------------------------------------------------------------------------------------- the runs


def test_each_beta_had_its_own_rate_and_one_run_of_each_way_is_made_again(monkeypatch, tmp_path):
    try:  # it asks the teacher when it is imported
        from experiments import chapter15 as runs
    except FileNotFoundError as error:
        pytest.skip(str(error))
    from experiments import chapter23_beta

    monkeypatch.setattr(runs, "UNLABELLED", runs.POOL)  # so short a run reads no other words
    monkeypatch.setattr(runs, "KEPT", tmp_path / "said.pt")

    for name in chapter23_beta.NAMES.values():
        lines = stored(name)
        tuning = lines[np.isin(lines["seed"], runs.TUNING)]
        assert sorted(zip(tuning["beta"], tuning["lr"], tuning["seed"], strict=True)) == sorted(
            product(chapter23_beta.BETAS, chapter23_beta.TRIED, runs.TUNING)
        )
        chosen = chapter23_beta.best(lines)
        kept = lines[lines["seed"] < 5]
        assert sorted(zip(kept["beta"], kept["lr"], kept["seed"], strict=True)) == sorted(
            (b, lr, s) for b, lr in chosen.items() for s in runs.REPORTED
        )
        assert {*chosen.values()} == {runs.RATES[2]}  # not at an edge of the rates tried
    for way, beta in (("off_policy", 0.5), ("on_policy", 1.0)):
        lines = stored(chapter23_beta.NAMES[way])
        kept = lines[(lines["beta"] == beta) & (lines["seed"] == 0)][0]
        found = chapter23_beta.one(beta, kept["lr"].item(), 0, way)
        assert found["right"] == pytest.approx(kept["right"], abs=2)
        assert found["entropy"] == pytest.approx(kept["entropy"], abs=0.1)


def test_the_templates_are_stored_and_one_is_asked_again():
    try:
        from experiments import chapter23_templates
    except FileNotFoundError as error:
        pytest.skip(str(error))
    lines = stored("23_templates")
    assert lines["template"].tolist() == [*chapter23_templates.TEMPLATES]
    for name, found in (("same", 0), ("no line break at the end", None)):
        kept = lines[lines["template"] == name][0]
        again = chapter23_templates.one(name)
        assert again["kl"] == pytest.approx(kept["kl"] if found is None else found, abs=1e-3)


# -------------------------------------------------------------------------------------------------- exercises


def until_the_end(said, stop):
    """By hand, a row after the other."""
    mask = torch.zeros(said.shape[0], said.shape[1] - 1, dtype=torch.bool)
    for i, row in enumerate(said[:, 1:].tolist()):
        mask[i, : row.index(stop) + 1 if stop in row else len(row)] = True
    return mask


MASKS = {
    "✓ answer_mask": until_the_end,
    "the end does not count": lambda said, stop: said[:, 1:] != stop,
    "what stands after the first end is padding": lambda said, stop: said[:, 1:] > -1,
    "one column too wide": lambda said, stop: torch.cat([said[:, :1] > -1, until_the_end(said, stop)], 1),
    "it is not shifted": lambda said, stop: until_the_end(torch.cat([said[:, :1], said[:, :-1]], 1), stop),
    "it is turned round": lambda said, stop: ~until_the_end(said, stop),
    "right as torch.int64, and as an index 0 and 1 would be places": lambda said, stop: until_the_end(
        said, stop
    ).long(),
    "cut off before its end counts as well": lambda said, stop: (
        until_the_end(said, stop) & (said == stop).any(1, keepdim=True)
    ),
    "the result differs": lambda said, stop: until_the_end(said, stop) & (said[:, 1:] != 8),
}


@pytest.mark.parametrize("piece", MASKS)
def test_answer_mask(piece, capsys):
    checks.answer_mask(MASKS[piece])
    assert piece in capsys.readouterr().out
