"""The fault suite: twenty inputs that break losses, tried on every loss.

    python -m tests.fault_table     # prints the table, cases × losses

A case is a function of a loss; it returns None where the loss passes, and else says what is wrong.
The references are float64, written from the definitions, and share no code with the package.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from companion import features, losses, tokens


@dataclass(frozen=True)
class Loss:
    """A loss as the suite calls it, and its definition in float64 for one list of rows.

    Args:
        call: call(student, teacher, T, mask, y) → scalar; what a loss does not take, it ignores.
        rows: rows(student, teacher, T, y) → one value a row (or a scalar, for a loss over the batch).
        takes: of "T", "mask", "y", "tokens": what else it handles.
        divergence: it is 0 where both sides agree.
        ruled_out: a class at −inf has a meaning: "both" sides, or the "teacher" alone too.
        shape: of the student's side and, where it can differ, `wrong` shapes of the teacher's, by case.
    """

    call: Callable[..., Tensor]
    rows: Callable[..., Tensor]
    takes: frozenset = frozenset()
    divergence: bool = True
    ruled_out: frozenset = frozenset()
    shape: tuple = (8, 10)
    wrong: dict = field(default_factory=lambda: WRONG)


WRONG = {"(N, 1)": [(8, 1)], "(1, C), (C,)": [(1, 10), (10,)], "(N, C+8)": [(8, 18)]}
ONLY_N = {"(1, C), (C,)": [(1, 10), (10,)]}  # relations: the two sides share the examples alone
MAPS = {"(1, C), (C,)": [(1, 5, 3, 2), (5, 3, 2)], "(N, C+8)": [(8, 5, 3, 10)]}


def _kl(log_p, log_q):
    return torch.where(log_p > -math.inf, log_p.exp() * (log_p - log_q), 0).sum(-1)


def _kd(z, v, T, y):
    return T * T * _kl((v / T).log_softmax(-1), (z / T).log_softmax(-1))


def _distillation(z, v, T, y):
    return 0.1 * F.cross_entropy(z, y, reduction="none") + 0.9 * _kd(z, v, T, y)


def _square(z, v, T, y):
    return (z - v).square().sum(-1)


def _centred(z, v, T, y):
    return _square(z - z.mean(-1, keepdim=True), v - v.mean(-1, keepdim=True), T, y)


def _dkd(z, v, T, y):
    """eq. 7 of the paper, from probabilities: α = 1, β = 8."""
    log_p, log_q = (v / T).log_softmax(-1), (z / T).log_softmax(-1)
    target = F.one_hot(y, z.shape[-1]).bool()
    others = [x[~target].view(len(z), -1) for x in (log_p, log_q)]
    binary = [
        torch.stack([x[target], o.logsumexp(-1)], -1) for x, o in zip((log_p, log_q), others, strict=True)
    ]
    return T * T * (_kl(*binary) + 8 * _kl(*(o.log_softmax(-1) for o in others)))


def _standardized(z, v, T, y):
    z, v = ((x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-7) for x in (z, v))
    return _kd(z, v, T, y)


def _unit(x):
    x = x - x.mean(-1, keepdim=True)
    size = x.norm(dim=-1, keepdim=True)
    return torch.where(size > 1e-14, x / size.clamp_min(1e-14), 0)


def _dist(z, v, T, y):
    """Pearson's correlation as a cosine; a vector of equal entries has none and is taken as 0."""
    q, p = (z / T).softmax(-1), (v / T).softmax(-1)
    far = [(_unit(a) - _unit(b)).square().sum(-1).div(2).mean() for a, b in ((q, p), (q.T, p.T))]
    return T * T * sum(far)


def _reverse(z, v, T, y):
    return _kd(v, z, T, y)


def _log_mixture(log_p, log_q, beta):
    return torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))


def _jsd(beta):
    def rows(z, v, T, y):
        log_p, log_q = (v / T).log_softmax(-1), (z / T).log_softmax(-1)
        log_m = _log_mixture(log_p, log_q, beta)
        return T * T * (beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m))

    return rows


def _skew(z, v, T, y):
    log_p, log_q = (v / T).log_softmax(-1), (z / T).log_softmax(-1)
    return T * T * _kl(log_p, _log_mixture(log_p, log_q, 0.1))


def stored(v, T, k=6):
    """The k most probable tokens and their probabilities, as a teacher's outputs are stored."""
    p, index = (v.float() / T).nan_to_num(0).softmax(-1).topk(min(k, v.shape[-1]), -1)
    return index, p


def _sparse(z, v, T, y):
    index, p = stored(v, T)
    p = p.double()
    return T * T * (torch.xlogy(p, p) - p * (z / T).log_softmax(-1).gather(-1, index)).sum(-1)


def _attention(z, v, T, y):
    z, v = (x.square().sum(1).flatten(1) for x in (z, v))
    return (F.normalize(z) - F.normalize(v)).norm(dim=1)


def _similarity(z, v, T, y):
    z, v = (F.normalize(x @ x.T) for x in (z, v))
    return (z - v).square().mean()


def _huber(x):
    return torch.where(x.abs() < 1, x * x / 2, x.abs() - 0.5)


def _distances(x):
    d = (x[:, None] - x).square().sum(-1)
    d = torch.where(d > 0, d.clamp_min(1e-300).sqrt(), 0)
    return d / d.sum().clamp_min(1e-300) * len(x) * (len(x) - 1)


def _rkd_distance(z, v, T, y):
    return _huber(_distances(z) - _distances(v)).mean()


def _angles(x):
    e = F.normalize(x[:, None] - x, dim=-1, eps=1e-300)
    return torch.einsum("ijd,kjd->ijk", e, e)


def _rkd_angle(z, v, T, y):
    return _huber(_angles(z) - _angles(v)).mean()


def _contrastive(z, v, T, y):
    cosine = F.normalize(z) @ F.normalize(v).T / T
    own = torch.arange(len(z))
    return (F.cross_entropy(cosine, own) + F.cross_entropy(cosine.T, own)) / 2


_MASKED, _ALL = frozenset({"mask", "tokens"}), frozenset({"T", "mask", "tokens"})
_BOTH = frozenset({"both", "teacher"})
LOSSES = {
    "kd": Loss(lambda z, v, T, mask, y: losses.kd_loss(z, v, T, mask), _kd, _ALL, ruled_out=_BOTH),
    "distillation": Loss(
        lambda z, v, T, mask, y: losses.distillation_loss(z, v, y, T, 0.9, mask),
        _distillation, _ALL | {"y"}, divergence=False, ruled_out=_BOTH,
    ),
    "logit mse": Loss(lambda z, v, T, mask, y: losses.logit_mse_loss(z, v, mask=mask), _square, _MASKED),
    "logit mse, centred": Loss(
        lambda z, v, T, mask, y: losses.logit_mse_loss(z, v, True, mask), _centred, _MASKED
    ),
    "DKD": Loss(
        lambda z, v, T, mask, y: losses.dkd_loss(z, v, y, T, mask=mask), _dkd, _ALL | {"y"}, ruled_out=_BOTH
    ),
    "DIST": Loss(lambda z, v, T, mask, y: losses.dist_loss(z, v, T), _dist, frozenset({"T"})),
    "standardized": Loss(
        lambda z, v, T, mask, y: losses.standardized_kd_loss(z, v, T, mask), _standardized, _ALL
    ),
    "forward KL": Loss(
        lambda z, v, T, mask, y: tokens.forward_kl_loss(z, v, T, mask), _kd, _ALL, ruled_out=_BOTH
    ),
    "reverse KL": Loss(
        lambda z, v, T, mask, y: tokens.reverse_kl_loss(z, v, T, mask), _reverse, _ALL,
        ruled_out=frozenset({"both"}),
    ),
    "JSD, β = 0.3": Loss(
        lambda z, v, T, mask, y: tokens.generalized_jsd_loss(z, v, 0.3, T, mask), _jsd(0.3), _ALL,
        ruled_out=_BOTH,
    ),
    "skew KL": Loss(
        lambda z, v, T, mask, y: tokens.skew_kl_loss(z, v, 0.1, T, mask), _skew, _ALL, ruled_out=_BOTH
    ),
    "sparse": Loss(
        lambda z, v, T, mask, y: tokens.sparse_kd_loss(z, *stored(v, T), T, mask), _sparse, _ALL,
        divergence=False, ruled_out=_BOTH, wrong={},
    ),
    "hint": Loss(
        lambda z, v, T, mask, y: features.hint_loss(z, v), lambda z, v, T, y: _square(z, v, T, y) / 2
    ),
    "attention transfer": Loss(
        lambda z, v, T, mask, y: features.attention_transfer_loss(z, v), _attention,
        shape=(8, 5, 3, 2), wrong=MAPS,
    ),
    "similarity": Loss(
        lambda z, v, T, mask, y: features.similarity_preserving_loss(z, v), _similarity, wrong=ONLY_N
    ),
    "RKD distance": Loss(
        lambda z, v, T, mask, y: features.rkd_distance_loss(z, v), _rkd_distance, wrong=ONLY_N
    ),
    "RKD angle": Loss(lambda z, v, T, mask, y: features.rkd_angle_loss(z, v), _rkd_angle, wrong=ONLY_N),
    "contrastive": Loss(
        lambda z, v, T, mask, y: features.contrastive_loss(z, v, T),
        _contrastive, frozenset({"T"}), divergence=False,
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- helpers


def draw(
    dtype=torch.float32, scale=3.0, distance=None, shape=(8, 10), seed=0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits and labels; with `distance` the student is that near to its teacher."""
    generator = torch.Generator().manual_seed(seed)
    z, v = scale * torch.randn(2, *shape, generator=generator)
    if distance is not None:
        v = v.to(dtype).float()
        z = v + distance * torch.randn(shape, generator=generator)
    y = torch.randint(0, shape[-1], shape[:-1] if len(shape) < 4 else shape[:1], generator=generator)
    return z.to(dtype), v.to(dtype), y


def value_and_gradient(loss: Loss, z, v, y, T=2.0, mask=None) -> tuple[Tensor, Tensor]:
    z = z.detach().clone().requires_grad_()
    value = loss.call(z, v, T, mask, y)
    value.backward()
    return value.detach(), z.grad


def reference(loss: Loss, z, v, y, T=2.0, columns=slice(None)) -> tuple[Tensor, Tensor]:
    z = z.detach().double().clone().requires_grad_()
    value = loss.rows(z[..., columns], v.detach().double()[..., columns], T, y).mean()
    value.backward()
    return value.detach(), z.grad


def compare(found, expected, tolerance=0.02) -> str | None:
    """None if value and gradient are within the tolerance of the reference, else what is wrong."""
    for name, a, b in zip(("value", "gradient"), found, expected, strict=True):
        grid = (
            5e-324
            if a.dtype == torch.float64
            else torch.finfo(a.dtype).smallest_normal * torch.finfo(a.dtype).eps
        )
        rounding = (
            grid / 2 * math.sqrt(a.numel())
        )  # a gradient comes in the input's type, down to its last step
        error = ((a.double() - b).norm() - rounding) / b.norm().clamp_min(1e-30)
        if not error < tolerance:
            return f"{name} is off by {error:.2%}"
    return None


def refused(call, *shapes) -> str | None:
    try:
        value = call()
    except ValueError as error:
        missing = [shape for shape in shapes if str(tuple(shape)) not in str(error)]
        return f"the error does not name {missing}" if missing else None
    return f"not refused, returned {tuple(value.shape)}"


# --------------------------------------------------------------------------------------------------- cases


def _precision(dtype, tolerance=0.02, T=2.0, **how):
    def case(loss):
        z, v, y = draw(dtype, shape=loss.shape, **how)
        return compare(value_and_gradient(loss, z, v, y, T), reference(loss, z, v, y, T), tolerance)

    return case


def _temperature(T, scale):
    def case(loss):
        return _precision(torch.float32, 1e-3, T, scale=scale)(loss)

    return case, "T"


def both_ruled_out(loss):
    z, v, y = draw()
    z[:, -1] = v[:, -1] = -math.inf
    y = y.clamp_max(8)
    z_, v_ = z.clone(), v.clone()
    z_[:, -1] = v_[:, -1] = 0
    expected = reference(loss, z_, v_, y, columns=slice(0, 9))
    return compare(value_and_gradient(loss, z, v, y), expected, 1e-4)


def teacher_ruled_out(loss):
    z, v, y = draw()
    v[:, -1] = -math.inf
    return compare(value_and_gradient(loss, z, v, y), reference(loss, z, v, y), 1e-4)


def nan_in_masked(loss):
    z, v, y = draw()
    mask = torch.arange(8) != 3
    z[3, 2] = v[3, 5] = math.nan
    value, gradient = value_and_gradient(loss, z, v, y, mask=mask)
    expected, g = reference(loss, z[mask], v[mask], y[mask])
    if gradient[3].abs().max() != 0:
        return "a masked row has a gradient"
    return compare((value, gradient[mask]), (expected, g), 1e-4)


def all_masked(loss):
    z, v, y = draw()
    value, gradient = value_and_gradient(loss, z, v, y, mask=torch.zeros(8, dtype=torch.bool))
    return None if value == 0 and not gradient.any() else f"value {value}, gradient {gradient.abs().max()}"


def empty_batch(loss):
    z, v, y = (part[:0] for part in draw(shape=loss.shape))
    value, gradient = value_and_gradient(loss, z, v, y)
    return None if value == 0 and gradient.shape == z.shape else f"value {value}"


def constant_logits(loss):
    z, v, y = torch.full(loss.shape, 3.0), torch.full(loss.shape, 3.0), torch.arange(8)
    value, gradient = value_and_gradient(loss, z, v, y)
    if not (value.isfinite() and gradient.isfinite().all()):
        return f"value {value}, gradient {gradient}"
    return f"value {value} at agreement" if loss.divergence and value != 0 else None


def _against(name):
    def case(loss):
        z, _, y = draw(shape=loss.shape)
        for shape in loss.wrong[name]:
            v = torch.randn(shape)
            wrong = refused(lambda v=v: loss.call(z, v, 2.0, None, y), z.shape, v.shape)
            if wrong:
                return f"{shape}: {wrong}"
        return None

    return case, name


def token_positions(loss):
    z, v, y = draw(shape=(2, 4, 10))
    if "tokens" not in loss.takes:
        return refused(lambda: loss.call(z, v, 2.0, None, y), z.shape)
    flat = reference(loss, z.flatten(0, 1), v.flatten(0, 1), y.flatten())
    value, gradient = value_and_gradient(loss, z, v, y)
    return compare((value, gradient.flatten(0, 1)), flat, 1e-4)


def teacher_gradient(loss):
    z, v, y = draw(shape=loss.shape)
    z, v = z.requires_grad_(), v.requires_grad_()
    loss.call(z, v, 2.0, None, y).backward()
    return None if v.grad is None else "a gradient reached the teacher"


# name → the case, and what a loss must take for it to apply
CASES: dict[str, tuple[Callable, str | None]] = {
    "bf16": (_precision(torch.bfloat16), None),
    "bf16, near-converged": (_precision(torch.bfloat16, distance=0.02), None),
    "fp16": (_precision(torch.float16), None),
    "fp16, near-converged": (_precision(torch.float16, distance=0.003), None),
    "fp16, |z| up to 3e4": (_precision(torch.float16, scale=1e4), None),
    "fp32, |z| about 1e4": (_precision(torch.float32, 1e-3, scale=1e4), None),
    "T = 0.01": _temperature(0.01, 0.1),
    "T = 100": _temperature(100.0, 3.0),
    "T = 1e4": _temperature(1e4, 3.0),
    "−inf in both": (both_ruled_out, "both"),
    "−inf in the teacher": (teacher_ruled_out, "teacher"),
    "NaN in a masked position": (nan_in_masked, "mask"),
    "all positions masked": (all_masked, "mask"),
    "empty batch": (empty_batch, None),
    "constant logits": (constant_logits, None),
    "(N, C) against (N, 1)": _against("(N, 1)"),
    "(N, C) against (1, C), (C,)": _against("(1, C), (C,)"),
    "(N, C) against (N, C+8)": _against("(N, C+8)"),
    "(B, L, V)": (token_positions, None),
    "undetached teacher": (teacher_gradient, None),
}


def outcome(case: str, loss: str) -> str | None:
    """None where the loss passes, the empty string where the case does not apply, else what is wrong."""
    function, needs = CASES[case]
    of = LOSSES[loss]
    if needs is not None and needs not in of.takes | of.ruled_out | set(of.wrong):
        return ""
    try:
        return function(of)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def table() -> str:
    names = list(LOSSES)
    width = max(map(len, CASES)) + 2
    lines = [" " * width + " ".join(f"{i + 1:2}" for i in range(len(names)))]
    for case in CASES:
        marks = ({None: "✓", "": "·"}.get(outcome(case, name), "✗") for name in names)
        lines.append(f"{case:{width}}" + " ".join(f"{mark:>2}" for mark in marks))
    return "\n".join(
        [*lines, "", *(f"{i + 1:2} {name}" for i, name in enumerate(names)), "", "· does not apply"]
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table())
