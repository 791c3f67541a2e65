"""What a loss may turn out to be: known divergences, and the wrong forms that people write."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _definitions as d

Definition = Callable[[Tensor, Tensor, float, Tensor], Tensor]


@dataclass(frozen=True)
class Candidate:
    """A sum of parts with free weights, each a definition without its T² (which is measured).

    Args:
        fault: the property it fails, or "" for a right form; why: what is wrong.
        soft: a function of the softmaxes at T, and of nothing else.
        relation: it relates the examples of a batch, so that it is no mean over them.
        ruled_out: as in `_faults.Loss`.
        softens: what T does, where it does not soften both sides alike and is right not to.
    """

    name: str
    parts: tuple[Definition, ...]
    soft: bool = True
    relation: bool = False
    ruled_out: frozenset = frozenset()
    fault: str = ""
    why: str = ""
    softens: str = ""


def log_pair(z: Tensor, v: Tensor, T: float) -> tuple[Tensor, Tensor]:
    return (v / T).log_softmax(-1), (z / T).log_softmax(-1)


def forward(z, v, T, y):
    return d.kl(*log_pair(z, v, T))


def reverse(z, v, T, y):
    return forward(v, z, T, y)


def cross_entropy(z, v, T, y):
    log_p, log_q = log_pair(z, v, T)
    return -torch.where(log_p > -math.inf, log_p.exp() * log_q, 0).sum(-1)


def over_T2(definition: Definition) -> Definition:
    return lambda z, v, T, y: definition(z, v, T, y) / T**2


def jsd(beta: float) -> Definition:
    return over_T2(d.jsd(beta))


def skew(beta: float, z, v, T, y):
    log_p, log_q = log_pair(z, v, T)
    return d.kl(log_p, d.log_mixture(log_p, log_q, beta))


def skew_reverse(beta: float, z, v, T, y):
    return skew(beta, v, z, T, y)


def brier(z, v, T, y):
    return ((z / T).softmax(-1) - (v / T).softmax(-1)).square().sum(-1)


def total_variation(z, v, T, y):
    return ((z / T).softmax(-1) - (v / T).softmax(-1)).abs().sum(-1)


def cosine(z, v, T, y):
    return 1 - F.cosine_similarity(z, v, dim=-1)


def bernoulli(z, v, T, y):
    """Several yes-or-no answers: the sum of the KL of each."""
    return sum(
        (sign * v / T).sigmoid() * (F.logsigmoid(sign * v / T) - F.logsigmoid(sign * z / T))
        for sign in (1, -1)
    ).sum(-1)


def binary_cross_entropy(z, v, T, y):
    return F.binary_cross_entropy_with_logits(z / T, (v / T).sigmoid(), reduction="none").sum(-1)


def target_part(z, v, T, y):
    """TCKD of DKD: the label's class against the rest."""
    binary = []
    for x in log_pair(z, v, T):
        target = F.one_hot(y, x.shape[-1]).bool()
        binary.append(torch.stack([x[target], x.masked_fill(target, -math.inf).logsumexp(-1)], -1))
    return d.kl(*binary)


def other_part(z, v, T, y):
    """NCKD of DKD: among the classes that are not the label's."""
    target = F.one_hot(y, z.shape[-1]).bool()
    return d.kl(*(x[~target].view(len(x), -1).log_softmax(-1) for x in log_pair(z, v, T)))


def correlation(dim: int, z, v, T, y):
    q, p = (z / T).softmax(-1), (v / T).softmax(-1)
    q, p = (q, p) if dim else (q.T, p.T)
    return (d.unit(q) - d.unit(p)).square().sum(-1).div(2).mean()


def warped(base: Definition, student: Callable, teacher: Callable) -> Definition:
    """base at T = 1 of student(z, T) and teacher(v, T)."""
    return lambda z, v, T, y: base(student(z, T), teacher(v, T), 1.0, y)


def plain(x, T):
    return x


def over(x, T):
    return x / T


def times(x, T):
    return x * T


def twice(x, T):
    return x / T**2


def softmaxed(x, T):
    return (x / T).softmax(-1)


def over_batch(x, T):
    """log softmax over the examples, as if they were the classes; the softmax that follows would undo it."""
    return (x / T).log_softmax(0)


def batch_kl(z, v, T, y):
    return d.kl((v / T).log_softmax(0).T, (z / T).log_softmax(0).T).sum()


def log_missing(z, v, T, y):
    p, q = (v / T).softmax(-1), (z / T).softmax(-1)
    return (torch.xlogy(p, p) - p * q).sum(-1)


def exponential_target(z, v, T, y):
    """F.kl_div(…, log_target=True) given probabilities."""
    p, log_q = (v / T).softmax(-1), (z / T).log_softmax(-1)
    return (p.exp() * (p - log_q)).sum(-1)


BOTH, TEACHER = frozenset({"both"}), frozenset({"both", "teacher"})
RIGHT = (
    Candidate("forward KL(p‖q)", (forward,), ruled_out=TEACHER),
    Candidate("reverse KL(q‖p)", (reverse,), ruled_out=BOTH),
    Candidate("cross-entropy of p and q (KL(p‖q) + H(p))", (cross_entropy,), ruled_out=TEACHER),
    *(Candidate(f"JSD, β = {b}", (jsd(b),), ruled_out=TEACHER) for b in (0.5, 0.1, 0.3, 0.7, 0.9)),
    Candidate("squared error of logits", (over_T2(lambda z, v, T, y: d.square(z, v, T, y)),), soft=False),
    Candidate("squared error of centred logits", (over_T2(d.centred),), soft=False),
    Candidate("mixture of forward and reverse KL", (forward, reverse), ruled_out=BOTH),
    Candidate("DKD", (target_part, other_part), ruled_out=TEACHER),
    Candidate("DIST", (partial(correlation, 1), partial(correlation, 0)), relation=True),
    Candidate("standardized KL(p‖q)", (over_T2(d.standardized),), soft=False),
    Candidate(
        "NormKD",
        (over_T2(d.normkd),),
        soft=False,
        softens="each row has its own temperature on each side, T times its spread",
    ),
    Candidate(
        "WTTM",
        (d.wttm,),
        soft=False,
        ruled_out=TEACHER,
        softens="the teacher alone is softened, and weighed by it, as WTTM has it",
    ),
    Candidate("RLD", (d.sample_confidence, d.masked_correlation), ruled_out=TEACHER),
    Candidate("squared error of probabilities", (brier,), ruled_out=TEACHER),
    Candidate("total variation of p and q", (total_variation,), ruled_out=TEACHER),
    Candidate("mixture of forward KL and squared error of logits", (forward, d.square), soft=False),
    Candidate("cosine distance of logits", (cosine,), soft=False),
    Candidate("similarity-preserving", (d.similarity,), soft=False, relation=True),
    Candidate("RKD, distances", (d.rkd_distance,), soft=False, relation=True),
    Candidate("RKD, angles", (d.rkd_angle,), soft=False, relation=True),
    Candidate("Bernoulli KL, one for each class", (bernoulli,)),
    Candidate("Bernoulli cross-entropy (KL + entropy), one for each class", (binary_cross_entropy,)),
    Candidate("contrastive", (d.contrastive,), soft=False, relation=True),
)


def wrong_temperatures() -> tuple[Candidate, ...]:
    made = []
    for base, name in (
        (forward, "KL(p‖q)"),
        (reverse, "KL(q‖p)"),
        (cross_entropy, "CE(p, q)"),
        (jsd(0.5), "JSD"),
    ):
        for student, teacher, why in (
            (over, plain, "only the student is softened: the teacher stays at T = 1"),
            (plain, over, "only the teacher is softened: the student stays at T = 1"),
            (times, times, "the logits are multiplied by T, not divided"),
            (twice, twice, "both sides are divided by T twice"),
            (over, twice, "the teacher is divided by T twice, the student once"),
            (twice, over, "the student is divided by T twice, the teacher once"),
            (times, over, "the student's logits are multiplied by T, the teacher's divided"),
            (over, times, "the teacher's logits are multiplied by T, the student's divided"),
        ):
            made.append(Candidate(name, (warped(base, student, teacher),), fault="temperature", why=why))
    return tuple(made)


def wrong_forms() -> tuple[Candidate, ...]:
    made = [
        Candidate("KL over the examples", (batch_kl,), fault="divergence", relation=True,
                  why="the softmax runs over the examples of the batch, not over the classes"),
        Candidate("Σ p (log p − q)", (log_missing,), fault="divergence",
                  why="the student's logarithm is missing: F.kl_div was given probabilities for log-probabilities"),
        Candidate("Σ e^p (p − log q)", (exponential_target,), fault="divergence",
                  why="F.kl_div took probabilities for logarithms: log_target=True was given p"),
    ]  # fmt: skip
    for base, name in ((forward, "KL(p‖q)"), (reverse, "KL(q‖p)"), (cross_entropy, "CE(p, q)")):
        for student, teacher, who in (
            (softmaxed, softmaxed, "both sides go"),
            (softmaxed, over, "the student goes"),
            (over, softmaxed, "the teacher goes"),
        ):
            why = f"{who} through the softmax twice"
            made.append(Candidate(name, (warped(base, student, teacher),), fault="divergence", why=why))
    return tuple(made)


WRONG = wrong_temperatures() + wrong_forms()


def hard(z, v, T, y):
    return F.cross_entropy(z, y, reduction="none")


# What the hard term may be; all but the first are wrong.
HARD: dict[str, tuple[Definition, str, str]] = {
    "at T = 1": (hard, "", ""),
    "softened": (lambda z, v, T, y: hard(z / T, v, T, y), "temperature", "the hard term is softened by T, too"),
    "softmax twice": (
        lambda z, v, T, y: hard(z.softmax(-1), v, T, y), "divergence",
        "the student goes through the softmax twice before its labels' cross-entropy",
    ),
    "teacher's labels": (
        lambda z, v, T, y: F.cross_entropy(z, v.argmax(-1), reduction="none"), "", "",
    ),
}  # fmt: skip
