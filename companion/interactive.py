"""Figures that move on the built pages; in Jupyter and Colab the still picture stands in their place.

Each function draws that picture and shows it in one output with the numbers it was drawn from, as JSON. Jupyter
passes the JSON over; on a page a small script (theme/static/moving.js) computes with it and draws again as the
reader turns T, μ, σ or τ. Numbers are rounded to what can be seen, so that they weigh little.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from ._moving import MIME, png, rounded, show
from ._panels import ARTICLE, BASELINE, INK, STUDENT, TEACHER, WIDTH
from .data import FASHION_CLASSES
from .frames import Bars, Curves, Images, Points, Table, show_frames
from .losses import soften
from .tokens import generalized_jsd_loss

__all__ = [
    "MIME",
    "Bars",
    "Curves",
    "Images",
    "Points",
    "Table",
    "gradient_sizes",
    "least_over_widths",
    "show_cover_or_seek",
    "show_dark_knowledge",
    "show_frames",
    "show_soft_targets",
    "show_temperature",
    "show_three_classes",
    "show_two_humps",
]


def _same_shape(**rows: Tensor) -> None:
    """All of one shape, or an error that names them."""
    if len({tuple(x.shape) for x in rows.values()}) > 1:
        found = ", ".join(f"{name} {tuple(x.shape)}" for name, x in rows.items())
        raise ValueError(f"The logits differ in shape: {found}.")


def gradient_sizes(logits_s: Tensor, logits_t: Tensor, T: float) -> tuple[Tensor, Tensor]:
    """‖T(q − p)‖ and ‖(q − p)/T‖: the soft gradient's size with T² and without (eq-kd-gradient).

    Args:
        logits_s: student logits (..., C).
        logits_t: teacher logits, the same shape.
        T: temperature of both sides, > 0.

    Returns:
        Two tensors (...), one number a row (N = 1). 0 where both sides agree.

    Raises:
        ValueError: shapes differ, or T ≤ 0.

    Source: Hinton et al. 2015, arXiv:1503.02531, equation 2.
    """
    _same_shape(student=logits_s, teacher=logits_t)
    size = (soften(logits_s, T) - soften(logits_t, T)).norm(dim=-1)
    return T * size, size / T


def show_temperature(
    logits_t: Tensor, logits_s: Tensor, y: int, T: float = 4, classes: Sequence[str] = FASHION_CLASSES,
    *, image: Tensor | None = None,
) -> None:  # fmt: skip
    """One image: p and q at T, the entropy of p, and the gradient's size with and without T².

    Args:
        logits_t, logits_s: teacher's and student's logits of the image (C,).
        y: its label. T: where the control stands first; the still picture shows it beside T = 1 (T = 4, if it is 1).
        classes: C names.
        image: (1, H, W), the darkest value black.

    Raises:
        ValueError: shapes differ, or a logit is not finite.
    """
    data = {"teacher": rounded(logits_t), "student": rounded(logits_s), "label": int(y), "T": T}
    temperatures = torch.logspace(-1, 5, 49, base=2).tolist()
    sizes = torch.tensor([gradient_sizes(logits_s, logits_t, t) for t in temperatures])
    _, (top, low) = plt.subplots(2, 1, figsize=(WIDTH, 5.6), height_ratios=(1.1, 1))
    if image is not None:
        data["image"] = png(image, image.min(), image.max())
        shown = top.inset_axes((0.62, 0.02, 0.36, 0.42))
        shown.imshow(image[0].detach().cpu().numpy(), interpolation="nearest")
        shown.set_axis_off()
    places = np.arange(len(classes))
    for shift, t, alpha in [(-0.2, 1, 0.45), (0.2, 4 if T == 1 else T, 1)]:
        p = soften(logits_t, t).detach().cpu()
        top.barh(places + shift, p, 0.4, color=TEACHER, alpha=alpha, label=f"p at T = {t}")
    top.set_yticks(places, classes, fontsize=9)
    top.get_yticklabels()[int(y)].set_fontweight("bold")
    top.invert_yaxis()
    top.set(xlabel="probability", xlim=(0, 1))
    top.legend(loc="upper right")
    low.loglog(temperatures, sizes[:, 0], color=STUDENT, label="with T²")
    low.loglog(temperatures, sizes[:, 1], "--", color=ARTICLE, label="without")
    hard = soften(logits_s).detach() - torch.eye(len(classes))[y]
    low.axhline(hard.norm(), color=BASELINE, ls=":", label="the label's")
    low.set(xlabel="T", ylabel="size of the gradient")
    low.set_xticks((0.5, 1, 2, 4, 8, 16, 32), ("½", "1", "2", "4", "8", "16", "32"))
    low.minorticks_off()
    low.legend(loc="lower left")
    show("temperature", {**data, "classes": list(classes)})


def _images_and_bars(images: Tensor, logits: Mapping[str, Tensor], T: float, classes: Sequence[str]) -> None:
    """The still picture: each image over its bars of probabilities at T, one bar for each colour."""
    n, thick = len(images), 0.81 / len(logits)
    _, axes = plt.subplots(2, n, figsize=(0.85 * n + 1, 4.2), height_ratios=(1, 3.4), squeeze=False)
    for i, (top, low) in enumerate(axes.T):
        top.imshow(images[i, 0].cpu().numpy(), interpolation="nearest")
        top.set_axis_off()
        for k, (colour, x) in enumerate(logits.items()):
            shift = (k - (len(logits) - 1) / 2) * thick
            low.barh(np.arange(len(classes)) + shift, soften(x[i], T).detach().cpu(), thick, color=colour)
        low.set(xlim=(0, 1), xticks=(0, 1))
        low.set_yticks(range(len(classes)), classes if i == 0 else [""] * len(classes), fontsize=9)
        low.invert_yaxis()


def show_soft_targets(
    images: Tensor, y: Tensor, teacher: Tensor, T: float = 1, classes: Sequence[str] = FASHION_CLASSES
) -> None:
    """Image by image: what a teacher says at T, with the label's class or without it.

    Args:
        images: (N, 1, H, W), the darkest value black, the lightest white. y: labels (N,).
        teacher: logits (N, C). T: where the control stands first.
        classes: C names.

    Raises:
        ValueError: there are not as many images as rows of logits, or a logit is not finite.
    """
    if not len(images) == len(y) == len(teacher):
        raise ValueError(
            f"{len(images)} images, {len(y)} labels and {len(teacher)} rows of logits: give one of each."
        )
    _images_and_bars(images, {TEACHER: teacher}, T, classes)
    data = {
        "teacher": rounded(teacher, 2),
        "images": [png(x, images.min(), images.max()) for x in images],
        "labels": [int(c) for c in y],
        "T": T,
    }
    show("soft-target", {**data, "classes": list(classes)})


def show_dark_knowledge(
    images: Tensor, y: Tensor, teacher: Tensor, before: Tensor, after: Tensor, T: float = 4,
    classes: Sequence[str] = FASHION_CLASSES,
) -> None:  # fmt: skip
    """Image by image: probabilities of teacher, student before and student after distillation, at T.

    Args:
        images: (N, 1, H, W), the darkest value black, the lightest white. y: labels (N,).
        teacher, before, after: logits (N, C). T: where the control stands first.
        classes: C names.

    Raises:
        ValueError: shapes differ, or a logit is not finite.
    """
    logits = {"teacher": teacher, "before": before, "after": after}
    _same_shape(**logits)
    _images_and_bars(
        images, dict(zip((TEACHER, BASELINE, STUDENT), logits.values(), strict=True)), T, classes
    )
    data = {name: rounded(x, 2) for name, x in logits.items()}
    data |= {
        "images": [png(x, images.min(), images.max()) for x in images],
        "labels": [int(c) for c in y],
        "T": T,
    }
    show("dark-knowledge", {**data, "classes": list(classes)})


def show_three_classes(
    logits_t: Tensor,
    logits_s: Tensor,
    T: float = 1,
    classes: Sequence[str] = ("class 1", "class 2", "class 3"),
) -> None:
    """Three classes: p of a teacher that stays, q of a student to be moved, and cross-entropy = H(p) + KL(p‖q).

    Args:
        logits_t, logits_s: teacher's and student's logits (3,); the student's stand first, less its last one.
        T: where the control of the temperature stands first. classes: three names.

    Raises:
        ValueError: shapes differ or are not (3,), or a logit is not finite.
    """
    _same_shape(teacher=logits_t, student=logits_s)
    if logits_t.shape != (3,):
        raise ValueError(f"takes three logits of each side; got {tuple(logits_t.shape)}.")
    student = (logits_s - logits_s[-1]).detach()
    data = {
        "teacher": rounded(logits_t, 4),
        "student": rounded(student, 2),
        "T": T,
        "classes": list(classes),
    }
    p, q = (soften(x, T).cpu().numpy() for x in (logits_t.detach(), student))
    entropy, cross = -(p * np.log(p)).sum(), -(p * np.log(q)).sum()
    _, (top, low) = plt.subplots(2, 1, figsize=(WIDTH, 3.6), height_ratios=(3, 1))
    for shift, x, colour, name in [(-0.2, p, TEACHER, "teacher p"), (0.2, q, STUDENT, "student q")]:
        top.barh(np.arange(3) + shift, x, 0.38, color=colour, label=name)
    top.set_yticks(range(3), classes)
    top.set(xlim=(0, 1), xlabel="probability", ylim=(2.5, -0.5))
    top.legend()
    low.barh(0, entropy, color=TEACHER)
    low.barh(0, cross - entropy, left=entropy, color=STUDENT)
    low.set(xlim=(0, max(1.5, cross)), yticks=[], xlabel="cross-entropy = entropy of p + KL (nats)")
    show("three-classes", data)


def _both_ways(teacher, mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p‖q) and KL(q‖p) of a density p and the Gaussians q of all these means and deviations, as sums over a grid."""
    x = torch.linspace(-20, 20, 801, dtype=torch.double)
    log_p = teacher.log_prob(x)
    log_q = torch.distributions.Normal(mu[..., None], sigma[..., None]).log_prob(x)
    gap, step = log_p - log_q, 0.05
    return step * (log_p.exp() * gap).sum(-1), -step * (log_q.exp() * gap).sum(-1)


def show_two_humps(teacher, fits: Mapping[str, tuple[float, float, float]]) -> None:
    """A mixture of Gaussians p, and the single Gaussians q that come nearest by one divergence or the other.

    Args:
        teacher: a `torch.distributions.MixtureSameFamily` of `Normal`s.
        fits: name → (μ, σ, least divergence in nats); the one of the forward KL is called "forward", and stands first.

    Raises:
        ValueError: a number is not finite.
    """
    humps, weights = teacher.component_distribution, teacher.mixture_distribution.probs
    data = {"weights": rounded(weights, 6), "means": rounded(humps.loc, 6)}
    data["deviations"] = rounded(humps.scale, 6)
    rows = [(name, *rounded(fit, 4)) for name, fit in fits.items()]
    data["minima"] = [dict(zip(("name", "mu", "sigma", "value"), row, strict=True)) for row in rows]
    x = torch.linspace(-8, 8, 401, dtype=torch.double)
    _, axes = plt.subplot_mosaic([["p", "p"], ["forward", "reverse"]], figsize=(WIDTH, 5.0))
    axes["p"].plot(x, teacher.log_prob(x).exp(), color=TEACHER, label="teacher p")
    for (name, mu, sigma, _), style in zip(rows, ("--", "-.", ":", (0, (6, 1, 1, 1, 1, 1))), strict=False):
        density = torch.distributions.Normal(mu, sigma).log_prob(x).exp()
        axes["p"].plot(x, density, linestyle=style, color=STUDENT, label=f"q: {name}")
    axes["p"].set(xlabel="x", ylabel="density", ylim=(0, 1.05))
    axes["p"].legend(loc="upper right", fontsize=9)
    mu, sigma = torch.meshgrid(
        torch.linspace(-5, 5, 81).double(), torch.linspace(0.5, 5, 46).double(), indexing="xy"
    )
    for name, kl in zip(("forward", "reverse"), _both_ways(teacher, mu, sigma), strict=True):
        ax = axes[name]
        levels = kl.min().item() + np.array([0.1, 0.25, 0.5, 1, 2, 4])
        ax.contour(mu, sigma, kl, levels, colors=INK, linewidths=1)
        here = [row for row in rows if (row[0] == "forward") == (name == "forward")]
        ax.plot([row[1] for row in here], [row[2] for row in here], "o", color=STUDENT)
        ax.set_title(f"{name} KL", fontsize=10)
        ax.set(xlabel="μ of q", ylabel="σ of q" if name == "forward" else "")
    show("two-humps", data)


def least_over_widths(teacher, beta: float, mu: Tensor) -> tuple[Tensor, Tensor]:
    """For Gaussians of mean μ: the least generalised JSD to a density over all σ from 0.5 to 5, and that σ.

    Args:
        teacher: a `torch.distributions` density on the line. beta: its weight in the mixture, 0 … 1, as in
            `generalized_jsd_loss`; 0 is KL(p‖q), 1 is KL(q‖p).
        mu: means (n,).

    Returns:
        Divergences (n,) in nats, as sums over a grid, and the σ (n,).
    """
    x, sigma = (
        torch.linspace(-16, 16, 321, dtype=torch.double),
        torch.linspace(0.5, 5, 46, dtype=torch.double),
    )
    log_p = teacher.log_prob(x)
    log_q = torch.distributions.Normal(mu[:, None, None], sigma[:, None]).log_prob(x)
    rows = [generalized_jsd_loss(q[None], log_p[None], beta) for q in log_q.flatten(0, 1)]
    least = torch.stack(rows).view(len(mu), -1).min(-1)
    return least.values, sigma[least.indices]


def show_cover_or_seek(teacher, beta: float = 0.3, betas: Sequence[float] = (0.1, 0.35, 0.9)) -> None:
    """The Gaussian nearest to a mixture by the generalised JSD, as β goes from KL(p‖q) to KL(q‖p).

    Args:
        teacher: a `torch.distributions.MixtureSameFamily` of `Normal`s.
        beta: where the control stands first. betas: those of the still picture.

    Raises:
        ValueError: a number is not finite.
    """
    humps, weights = teacher.component_distribution, teacher.mixture_distribution.probs
    data = {"weights": rounded(weights, 6), "means": rounded(humps.loc, 6)}
    data |= {"deviations": rounded(humps.scale, 6), "beta": beta}
    x, mu = torch.linspace(-8, 8, 401, dtype=torch.double), torch.linspace(-5, 5, 41, dtype=torch.double)
    _, (top, low) = plt.subplots(2, 1, figsize=(WIDTH, 5.0))
    top.plot(x, teacher.log_prob(x).exp(), color=TEACHER, label="teacher p")
    for b, style in zip(betas, ("--", "-", ":"), strict=False):
        value, sigma = least_over_widths(teacher, b, mu)
        best = value.argmin()
        q = torch.distributions.Normal(mu[best], sigma[best]).log_prob(x).exp()
        top.plot(x, q, style, color=STUDENT, label=f"q at β = {b}")
        low.plot(mu, value / value.min(), style, color=STUDENT, label=f"β = {b}")
        low.plot(mu[best], 1, "o", color=STUDENT)
    top.set(xlabel="x", ylabel="density", ylim=(0, 0.75))
    low.set(xlabel="μ of q, with its best σ", ylabel="divergence ÷ its least", ylim=(0.8, 4))
    top.legend(loc="upper right", fontsize=9)
    low.legend(loc="upper center", fontsize=9)
    show("cover-or-seek", data)
