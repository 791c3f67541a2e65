"""The formulas as they are printed, read and computed, against `companion`: a sign that turns is seen.

`EQUATIONS` gives each label one entry per statement of its formula: what the statement says, by `companion` or
autograd. Every side whose symbols all have values is computed and compared; at least one has to be.
"""

import contextlib
import math
import re

import numpy as np
import pytest
import torch

from companion.losses import distillation_loss, kd_loss, logit_mse_loss, soften
from companion.metrics import gap_recovered
from companion.models import MLP, ConvNet, parameters
from companion.tokens import reverse_kl_loss
from tests.latex import Unknown, formulas, sides, value

N, C, T, ALPHA = 3, 5, 2.5, 0.3
RNG = np.random.default_rng(0)
Z, V = RNG.normal(0, 2, (2, N, C))
Y = np.array([1, 0, 4])
ROW = {"c": 2, "a": 1, "b": 3, "y": 1}  # of the first example
RANGES = {"c": range(C), "j": range(C), "i": range(N), "k": range(2)}


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def entropy(p):
    return -(p * np.log(p)).sum()


def kl(p, q):
    return (p * np.log(p / q)).sum()


def ce(y, q):
    return -np.log(q[y]) if np.ndim(y) == 0 else -(y * np.log(q)).sum()


P, Q = (np.array([softmax(x / T) for x in side]) for side in (V, Z))
tensor = torch.tensor
FUNCTIONS = {"softmax": softmax, "H": entropy, "KL": kl, "CE": ce}
ONE = {"p": P[0], "q": Q[0], "v": V[0], "z": Z[0], "T": T, "C": C, **ROW, **FUNCTIONS}  # a single example
ALL = ONE | {"p": P, "q": Q, "v": V, "z": Z, "y": Y, "N": N, "\\alpha": ALPHA}
ONE |= {"tilde z": Z[0] - Z[0].mean(), "tilde v": V[0] - V[0].mean(), "\\alpha": ALPHA, "e_y": np.eye(C)[1]}
R = np.delete(P[0], 1) / (1 - P[0, 1])
TAU = 3.0
THETA, X = RNG.normal(0, 1, (2, 4)), RNG.normal(0, 1, 4)


def gradient(loss, z=Z):
    z = tensor(z, requires_grad=True)
    return torch.autograd.grad(loss(z), z)[0].numpy()


def one_kl(T):
    return kd_loss(tensor(Z[:1]), tensor(V[:1]), T).item() / T**2


def slope(T):
    """dH/dT by a central difference."""
    low, high = (entropy(soften(tensor(V[0]), T + step).numpy()) for step in (-1e-5, 1e-5))
    return (high - low) / 2e-5


EQUATIONS = {
    "eq-layer-parameters": (
        {"a": 7, "b": 6, "k": 3},
        [parameters(torch.nn.Linear(7, 6)), parameters(torch.nn.Conv2d(7, 6, 3, bias=False)),
         parameters(torch.nn.BatchNorm2d(6))],
    ),
    "eq-convnet-parameters": ({"w": 4}, [parameters(ConvNet(4))]),
    "eq-bytes": ({"n": parameters(MLP(4, 3)), "bits": 32}, [sum(4 * p.numel() for p in MLP(4, 3).parameters())]),
    "eq-soft-loss": (ONE, [kd_loss(tensor(Z[:1]), tensor(V[:1]), T).item()]),
    "eq-log-ratio": (ONE, [(soften(tensor(V[0]), T)[1] / soften(tensor(V[0]), T)[3]).log().item()]),
    "eq-entropy": (ONE, [torch.distributions.Categorical(logits=tensor(V[0] / T)).entropy().item()]),
    "eq-entropy-slope": (ONE | {"Var_p": lambda v: (P[0] * (v - P[0] @ v) ** 2).sum()},
                         [slope(T), (P[0] * (V[0] - P[0] @ V[0]) ** 2).sum()]),
    "eq-dark-knowledge": (ONE, [R[1]]),
    "eq-entropy-split": (ONE | {"r": R, "h": lambda x: entropy(np.array([x, 1 - x]))}, [entropy(P[0])]),
    "eq-soften": (ONE, [soften(tensor(V), T)[0, 2].item()]),
    "eq-odds": (ONE, [P[0, 1] / P[0, 3]]),
    "eq-shift": (ONE | {"v": V[0], "m": 1.7}, [soften(tensor(V[0]), T).numpy()]),
    "eq-cross-entropy-split": (ONE, [torch.nn.functional.cross_entropy(tensor(Z[:1] / T), tensor(P[:1])).item()]),
    "eq-reverse-kl": (ONE, [reverse_kl_loss(tensor(Z[:1]), tensor(V[:1]), T=T).item() / T**2]),
    "eq-kd-loss": (ONE, [kd_loss(tensor(Z[:1]), tensor(V[:1]), T).item()]),
    "eq-distillation-loss": (ONE, [distillation_loss(tensor(Z[:1]), tensor(V[:1]), tensor([1]), T, ALPHA).item()]),
    "eq-kd-gradient": (
        ALL | {"q_c": Q[0, 2], "p_c": P[0, 2], "i": 0},
        [gradient(lambda z: kd_loss(z[:1], tensor(V[:1]), T))[0, 2] / T**2,
         gradient(lambda z: kd_loss(z, tensor(V), T))[0, 2]],
    ),
    "eq-gradient-limit": (ONE, [gradient(lambda z: kd_loss(z[:1], tensor(V[:1]), 1e7))[0, 2]]),
    "eq-limit-high": (ONE, [kd_loss(tensor(Z[:1]), tensor(V[:1]), 1e7).item()]),
    "eq-logit-mse": (ALL, [logit_mse_loss(tensor(Z), tensor(V), centred=False).item()]),
    "eq-limit-low": (ONE | {"k": int(V[0].argmax())}, [1e-3 * one_kl(1e-3), None]),
    "eq-sigmoid": (ONE | {"q": softmax(Z[0, :2] / T), "\\theta": THETA, "x": X, "b": Z[0, :2] - THETA @ X,
            "\\sigma": lambda x: 1 / (1 + math.exp(-x))},
                   [soften(tensor(Z[0, :2]), T)[1].item(), Z[0, 1] - Z[0, 0]]),
    "eq-blended-target": (
        ONE | {"q": softmax(Z[0])},
        [gradient(lambda z: distillation_loss(z[:1], tensor(np.log(P[:1])), tensor([1]), 1.0, ALPHA))[0]],
    ),
    "eq-article-loss": ({"CE": 1.3, "\\tau": TAU}, [(1.3 + 1.3 + math.log(TAU)) / TAU**2]),
    "eq-gap": ({"distilled": 80.0, "alone": 74.0, "teacher": 91.0}, [gap_recovered(80, 74, 91)]),
}  # fmt: skip


DERIVATIVE = "\\frac{\\partial}{\\partial z}"
BLIND = ("eq-shift",)  # softmax(v + a) is softmax(v − a)


def worth(side: str, known: dict):
    """A side's value; the derivative of one in the logits z by central differences, q following z."""
    if not side.strip().startswith(DERIVATIVE):
        return value(side, known, RANGES)
    inner, z = side.strip().removeprefix(DERIVATIVE), known["z"]
    steps = 1e-5 * np.eye(len(z))
    up, down = ([value(inner, known | {"q": softmax(z + s * d)}, RANGES) for d in steps] for s in (1, -1))
    return (np.array(up) - np.array(down)) / 2e-5


def differences(label: str, latex: str) -> list[str]:
    """The sides of a formula that say something else than `companion`."""
    known, expected = EQUATIONS[label]
    statements, wrong = sides(latex), []
    assert len(statements) == len(expected), f"{label} has {len(statements)} statements"
    for statement, right in zip(statements, expected, strict=True):
        read = 0
        for side in statement if right is not None else ():
            try:
                found = worth(side, known)
            except Unknown:
                continue
            if callable(found):
                continue
            read += 1
            if not np.allclose(found, right, rtol=2e-5, atol=1e-9):
                wrong.append(f"{side.strip()} is {found}, and it should be {right}")
        assert read or right is None, f"no side of {statement} could be read"
    return wrong


@pytest.mark.parametrize("label", EQUATIONS)
def test_the_printed_formula_is_what_companion_computes(label):
    assert not differences(label, formulas()[label])


def flipped(latex: str) -> list[str]:
    """The formula with one sign turned, in all ways; signs within limits, conditions and names left alone."""
    bare = re.sub(r"\\text\{[^}]*\}", lambda found: "x" * len(found[0]), latex)
    places = [found.start() for found in re.finditer(r"(?<!\{)[+-]", bare)]
    return [latex[:i] + ("-" if latex[i] == "+" else "+") + latex[i + 1 :] for i in places]


@pytest.mark.parametrize("label", EQUATIONS)
def test_a_sign_that_turns_is_seen(label):
    for wrong in flipped(formulas()[label]):
        with contextlib.suppress(SyntaxError):
            assert differences(label, wrong) or label in BLIND, wrong


def test_most_formulas_with_a_sign_are_tried():
    assert sum(len(flipped(formulas()[label])) for label in EQUATIONS) > 40
