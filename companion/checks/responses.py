"""Exercises on soft targets and the losses made of them (chapters 3, 4 and 9)."""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, mse_loss

from .. import losses
from ._compare import compare, random_cases


def soften(attempt: Callable[[Tensor, float], Tensor]) -> None:
    """Checks attempt(logits, T) → probabilities (N, C), eq-soften."""
    compare(
        "soften", attempt, losses.soften, random_cases(lambda z, v, y, T: (z, T)),
        {
            "T is ignored: divide the logits by T.": lambda z, T: z.softmax(-1),
            "T multiplies the logits: that sharpens. Divide.": lambda z, T: (z * T).softmax(-1),
            "T divides the probabilities (erratum C2): the rows no longer sum to 1. Divide the logits, before "
            "the softmax.": lambda z, T: z.softmax(-1) / T,
            "this is the article's formula (erratum F1): only the sum is divided by T, so the rows sum to T.":
                lambda z, T: z.exp() / (z.exp().sum(-1, keepdim=True) / T),
            "probabilities are softened again: T belongs on logits.": lambda z, T: (z.softmax(-1) / T).softmax(-1),
            "the softmax runs over the examples: take dim=-1, the classes.": lambda z, T: (z / T).softmax(0),
            "these are log-probabilities: softmax, not log_softmax.": lambda z, T: (z / T).log_softmax(-1),
        },
    )  # fmt: skip


def _kl(a, b):
    return (a.exp() * (a - b)).sum(-1)


def _logs(z, v, T):
    return (v.detach() / T).log_softmax(-1), (z / T).log_softmax(-1)


# What goes wrong in T²·KL(p‖q), wherever it is asked for: hint → the loss of z, v and T that makes the mistake.
KD_MISTAKES = {
    "the factor T² is missing: the gradient vanishes as T grows.": lambda z, v, T: _kl(*_logs(z, v, T)).mean(),
    "T² divides (erratum C3): multiply.": lambda z, v, T: _kl(*_logs(z, v, T)).mean() / T**2,
    "T where T² belongs.": lambda z, v, T: T * _kl(*_logs(z, v, T)).mean(),
    "the direction is reversed: this is KL(q‖p). F.kl_div(log q, p) takes the student first and "
    "computes KL(p‖q).": lambda z, v, T: T**2 * _kl(*_logs(z, v, T)[::-1]).mean(),
    "this is reduction='mean', which divides by the classes too: take 'batchmean'.":
        lambda z, v, T: T**2 * _kl(*_logs(z, v, T)).mean() / z.shape[-1],
    "this is a sum over the examples: take the mean, or the step grows with the batch (erratum F6).":
        lambda z, v, T: T**2 * _kl(*_logs(z, v, T)).sum(),
    "this is the loss of each example: take their mean.": lambda z, v, T: T**2 * _kl(*_logs(z, v, T)),
    "this is the cross-entropy, which is not 0 when the two agree (erratum F7): subtract the "
    "teacher's entropy.":
        lambda z, v, T: -(T**2) * (_logs(z, v, T)[0].exp() * _logs(z, v, T)[1]).sum(-1).mean(),
    "the sign is turned round: the sum is over p · (log p − log q).":
        lambda z, v, T: -(T**2) * _kl(*_logs(z, v, T)).mean(),
    "softmax twice: its output went into a softmax again. Models give logits (erratum C5).":
        lambda z, v, T: T**2 * _kl(*_logs(z.softmax(-1), v.softmax(-1), T)).mean(),
    "F.kl_div wants log-probabilities of the student: log_softmax, not softmax.":
        lambda z, v, T: T**2 * (_logs(z, v, T)[0].exp() * (
            _logs(z, v, T)[0] - (z / T).softmax(-1))).sum(-1).mean(),
    "F.kl_div takes the teacher's probabilities; for their logarithms it wants log_target=True.":
        lambda z, v, T: T**2 * kl_div(_logs(z, v, T)[1], _logs(z, v, T)[0], reduction="batchmean"),
    "only the teacher is softened: divide both sides' logits by T (erratum F3).":
        lambda z, v, T: T**2 * _kl(_logs(z, v, T)[0], z.log_softmax(-1)).mean(),
    "only the student is softened: divide both sides' logits by T (erratum F3).":
        lambda z, v, T: T**2 * _kl(v.detach().log_softmax(-1), _logs(z, v, T)[1]).mean(),
    "T has no effect in the softmax: divide both sides' logits by it.":
        lambda z, v, T: T**2 * _kl(*_logs(z, v, 1)).mean(),
    "T multiplies the logits: that sharpens. Divide.": lambda z, v, T: T**2 * _kl(*_logs(z, v, 1 / T)).mean(),
    "the logits are divided by T twice.": lambda z, v, T: T**2 * _kl(*_logs(z, v, T**2)).mean(),
    "the softmax runs over the examples: take dim=-1, the classes.":
        lambda z, v, T: T**2 * _kl((v / T).log_softmax(0), (z / T).log_softmax(0)).mean(),
    "the teacher stands on both sides, so the student does not enter.": lambda z, v, T: 0 * z.sum(),
    "this is a squared difference, not KL: of logits.": lambda z, v, T: mse_loss(z, v),
    "this is a squared difference, not KL: of softened logits.": lambda z, v, T: mse_loss(z / T, v / T),
    "this is a squared difference, not KL: of probabilities.":
        lambda z, v, T: T**2 * mse_loss((z / T).softmax(-1), (v / T).softmax(-1)),
    "the logarithm of a probability that is 0 is −∞: take log_softmax, not softmax and then log.":
        lambda z, v, T: T**2 * _kl(_logs(z, v, T)[0], (z / T).softmax(-1).log()).mean(),
}  # fmt: skip


def kd_loss(attempt: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Checks attempt(logits_s, logits_t, T) → T²·KL(p‖q), value and gradient, eq-kd-loss."""
    cases = random_cases(lambda z, v, y, T: (z, v, T), sure=True)
    compare("kd_loss", attempt, losses.kd_loss, cases, KD_MISTAKES, student=0, teacher=1)


def kd_gradient(attempt: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Checks attempt(logits_s, logits_t, T) → gradient of T²·KL in logits_s, (N, C), eq-kd-gradient."""

    def gap(z, v, T):
        return losses.soften(z, T) - losses.soften(v, T)

    compare(
        "kd_gradient", attempt, lambda z, v, T: T * gap(z, v, T) / len(z), random_cases(lambda z, v, y, T: (z, v, T)),
        {
            "the sign is turned round: the student moves against the gradient, so it is q − p.":
                lambda z, v, T: -T * gap(z, v, T) / len(z),
            "this is the gradient of KL without T²: (q − p)/T. Multiply by T².":
                lambda z, v, T: gap(z, v, T) / T / len(z),
            "the inner derivative 1/T is missing: T² · (q − p)/T = T · (q − p).":
                lambda z, v, T: T**2 * gap(z, v, T) / len(z),
            "T is missing: T² from the loss, 1/T from the chain rule.": lambda z, v, T: gap(z, v, T) / len(z),
            "the loss is a mean over N examples: divide by N.": lambda z, v, T: T * gap(z, v, T),
            "the softmax is taken at T = 1: soften both sides.": lambda z, v, T: T * gap(z, v, 1) / len(z),
            "this divides by the classes: the loss is a mean over the examples.":
                lambda z, v, T: T * gap(z, v, T) / z.shape[-1],
        },
    )  # fmt: skip


def high_temperature_loss(attempt: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Checks attempt(logits_s, logits_t) → the limit of T²·KL for T → ∞, eq-limit-high."""

    def centred(x):
        return x - x.mean(-1, keepdim=True)

    def square(z, v):
        return (z - v).square().sum(-1).mean()

    compare(
        "high_temperature_loss", attempt, lambda z, v: square(centred(z), centred(v)) / (2 * z.shape[-1]),
        random_cases(lambda z, v, y, T: (z, v)),
        {
            "the logits must be centred: the softmax does not see a constant added to a row, the squares do.":
                lambda z, v: square(z, v) / (2 * z.shape[-1]),
            "the factor 1/(2C) is missing.": lambda z, v: square(centred(z), centred(v)),
            "the ½ is missing.": lambda z, v: square(centred(z), centred(v)) / z.shape[-1],
            "the 1/C is missing.": lambda z, v: square(centred(z), centred(v)) / 2,
            "this is F.mse_loss: centre the logits, and halve it.": lambda z, v: square(z, v) / z.shape[-1],
            "centre each row, not each column: the mean runs over the classes, dim=-1.":
                lambda z, v: square(z - z.mean(0), v - v.mean(0)) / (2 * z.shape[-1]),
            "this is a sum over the examples: take the mean.":
                lambda z, v: len(z) * square(centred(z), centred(v)) / (2 * z.shape[-1]),
            "this divides by 2N: the formula has 2C.":
                lambda z, v: square(centred(z), centred(v)) / (2 * len(z)),
        },
        student=0,
    )  # fmt: skip


def distillation_loss(attempt: Callable[[Tensor, Tensor, Tensor, float, float], Tensor]) -> None:
    """Checks attempt(logits_s, logits_t, y, T, alpha), value and gradient, eq-distillation-loss; α is the soft weight."""

    def blend(hard, soft, kd=losses.kd_loss, at=cross_entropy):
        return lambda z, v, y, T, a: hard(a, T) * at(z, y) + soft(a, T) * kd(z, v, T)

    def one_less(a, T):
        return 1 - a

    def alpha(a, T):
        return a

    own = {
        "α is on the hard term: here α weighs the soft one.": blend(alpha, one_less),
        "T² multiplies the hard term too: it belongs to the soft term alone.":
            blend(lambda a, T: (1 - a) * T**2, alpha),
        "the hard term is softened: it stays at T = 1, as the student will be used.":
            lambda z, v, y, T, a: (1 - a) * cross_entropy(z / T, y) + a * losses.kd_loss(z, v, T),
        "the hard term takes logits: cross_entropy has its own softmax (erratum C5).":
            blend(one_less, alpha, at=lambda z, y: cross_entropy(z.softmax(-1), y)),
        "the two terms are added without their weights.": blend(lambda a, T: 1, lambda a, T: 1),
        "the hard term is missing.": blend(lambda a, T: 0, alpha),
        "the teacher does not enter: this is the hard term alone (erratum C1).":
            blend(lambda a, T: 1, lambda a, T: 0),
    }  # fmt: skip
    soft = {f"in the soft term: {hint}": blend(one_less, alpha, wrong) for hint, wrong in KD_MISTAKES.items()}
    both = {
        f"α is on the hard term, and in the soft one: {hint}": blend(alpha, one_less, wrong)
        for hint, wrong in KD_MISTAKES.items()
        if "log_target" not in hint  # NaN, whatever its weight
    }
    cases = [
        (*case, a)
        for case, a in zip(
            random_cases(lambda z, v, y, T: (z, v, y, T), sure=True), (0.7, 0.4, 0.9, 0.2), strict=True
        )
    ]
    compare(
        "distillation_loss", attempt, losses.distillation_loss, cases, own | soft | both, student=0, teacher=1,
        slips={
            "the value is right, but the soft term has no gradient in the student: the teacher teaches nothing. "
            "Detach the teacher's logits, not the student's.":
                blend(one_less, alpha, lambda z, v, T: losses.kd_loss(z.detach(), v, T)),
            "the value is right, but the hard term has no gradient in the student: no detach there.":
                blend(one_less, alpha, at=lambda z, y: cross_entropy(z.detach(), y)),
        },
    )  # fmt: skip
