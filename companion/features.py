"""Losses on what lies inside the models ("features") and on how examples relate to each other ("relations").

Features are (N, D), or maps (N, C, H, W). The student's side comes first, is fitted in size by a layer of the
reader's own where a loss asks for equal shapes, and alone receives a gradient. Half precision is computed in
float32 inside, also under `torch.autocast`; of two precisions the wider one counts.

The losses can be differentiated twice, also in forward mode, and under `torch.func.grad`, `jvp`, `jacrev`. Under
`torch.vmap` they refuse: stack the losses of a Python loop instead.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ._core import temperature, wide_type
from ._relations import distances, length, over_mean, product, scaled, unit


def hint_loss(feats_s: Tensor, feats_t: Tensor) -> Tensor:
    """½ ‖h_t − r(h_s)‖², summed over features, mean over examples.

    Args:
        feats_s: r(h_s), the student's features after the regressor r that gives them the teacher's shape;
            (N, D) or (N, C, H, W). r is trained with the student and left out when the student is used.
        feats_t: the teacher's features h_t, the same shape. They receive no gradient.

    Returns:
        Scalar, squared feature units per example; 0 where both agree.

    Raises:
        ValueError: shapes differ or are neither (N, D) nor (N, C, H, W), or the result is not finite.

    Source: Romero et al. 2015 (FitNets), arXiv:1412.6550, eq. 3.
    """
    s, t = _features(feats_s, feats_t)
    return _mean_over_examples((s - t).flatten(1).square().sum(1) / 2)


def attention_transfer_loss(feats_s: Tensor, feats_t: Tensor, power: float = 2.0) -> Tensor:
    """‖Q_s/‖Q_s‖₂ − Q_t/‖Q_t‖₂‖₂ with Q = Σ_c |A_c|^power, mean over examples.

    Args:
        feats_s: the student's maps A (N, C_s, H, W).
        feats_t: the teacher's maps (N, C_t, H, W): other channels, the same places. They receive no gradient.
        power: > 1; the higher, the more the strongest places count.

    Returns:
        Scalar, no unit, 0 … √2; 0 where both look at the same places. A map of zeros has no attention: Q/‖Q‖
        is taken as 0. At equality the gradient is taken as 0.

    Raises:
        ValueError: not maps, other N, H or W, power ≤ 1, or the result is not finite.

    Source: Zagoruyko & Komodakis 2017, arXiv:1612.03928, eq. 2 (their code takes the mean square instead).
    """
    if not power > 1:
        raise ValueError(f"power is above 1; got {power}.")
    s, t = _features(feats_s, feats_t, dims=(4,), equal=(0, 2, 3))
    s, t = (unit(scaled(x.abs().pow(power).sum(1).flatten(1))) for x in (s, t))
    return _mean_over_examples(length(s - t))


def similarity_preserving_loss(feats_s: Tensor, feats_t: Tensor) -> Tensor:
    """‖G_s − G_t‖²_F / N², G = F·Fᵀ with each row divided by its length.

    Args:
        feats_s: the student's features (N, D_s) or (N, C, H, W), flattened to F (N, D).
        feats_t: the teacher's, of the same N examples in any size. They receive no gradient.

    Returns:
        Scalar, no unit; 0 where both find the same examples similar. A row of zeros stays 0.

    Raises:
        ValueError: another N, features in another form, or the result is not finite.

    Source: Tung & Mori 2019, arXiv:1907.09682, eq. 2–4.
    """
    s, t = _features(feats_s, feats_t, equal=(0,))
    s, t = (unit(scaled(product(x, x.mT))) for x in (s.flatten(1), t.flatten(1)))
    return _mean_over_examples((s - t).square().sum(1) / max(len(s), 1))


def rkd_distance_loss(feats_s: Tensor, feats_t: Tensor) -> Tensor:
    """Huber(ψ_s(i, j), ψ_t(i, j)), ψ = ‖f_i − f_j‖₂ over its mean, mean over all N² pairs.

    Args:
        feats_s: the student's features (N, D_s) or (N, C, H, W).
        feats_t: the teacher's, of the same N examples in any size. They receive no gradient.

    Returns:
        Scalar, no unit; 0 where distances agree up to one scale. The N pairs (i, i) count 0, as in the
        authors' code. If all examples coincide, ψ is taken as 0.

    Raises:
        ValueError: another N, features in another form, or the result is not finite.

    Source: Park et al. 2019 (RKD), arXiv:1904.05068, eq. 5–7; Huber's threshold is 1.
    """
    s, t = _features(feats_s, feats_t, equal=(0,))
    if len(s) < 2:  # no pairs; F.pdist of nothing ends the process
        return _finite(0 * s.sum())
    s, t = (over_mean(distances(x.flatten(1))) for x in (s, t))
    return _finite(2 * F.smooth_l1_loss(s, t, reduction="sum") / len(feats_s) ** 2)


def rkd_angle_loss(feats_s: Tensor, feats_t: Tensor) -> Tensor:
    """Huber(ψ_s(i, j, k), ψ_t(i, j, k)), ψ = cos ∠(f_i − f_j, f_k − f_j), mean over all N³ triples.

    It holds N²·D and N³ numbers: for batches of up to some hundred examples and pooled features.

    Args:
        feats_s: the student's features (N, D_s) or (N, C, H, W).
        feats_t: the teacher's, of the same N examples in any size. They receive no gradient.

    Returns:
        Scalar, no unit; 0 where all angles agree. Where two examples coincide the cosine is taken as 0.

    Raises:
        ValueError: another N, features in another form, or the result is not finite.

    Source: Park et al. 2019 (RKD), arXiv:1904.05068, eq. 8–9; Huber's threshold is 1.
    """
    s, t = _features(feats_s, feats_t, equal=(0,))
    s, t = (_cosines(x.flatten(1)) for x in (s, t))
    return _mean_over_examples(F.smooth_l1_loss(s, t, reduction="none"))


def contrastive_loss(feats_s: Tensor, feats_t: Tensor, T: float = 0.1) -> Tensor:
    """−½ log softmax_j(cos(s_i, t_j)/T)_i − ½ log softmax_j(cos(s_j, t_i)/T)_i, mean over examples.

    Each example's student features have to find their own teacher features in the batch, and the reverse.

    Args:
        feats_s: the student's features, projected to the teacher's size, (N, D) or (N, C, H, W).
        feats_t: the teacher's features, the same shape. They receive no gradient.
        T: temperature of the cosines, > 0. A tensor of shape () that requires a gradient receives one.

    Returns:
        Scalar, nats per example; between 0 and about log N + 2/T. Not 0 at equality: 0 is reached only where
        each student is far nearer to its own teacher than to every other, measured in T. 0 for N = 1.

    Raises:
        ValueError: shapes differ or are neither (N, D) nor (N, C, H, W), T is not one number > 0, or the result
            is not finite.

    Source: after Tian et al. 2020 (CRD), arXiv:1910.10699, which draws negatives from a memory of the whole
    training set and decides on each alone; here they are the batch, as in van den Oord et al. 2018,
    arXiv:1807.03748, eq. 4.
    """
    if isinstance(T, Tensor) and T.dim():
        raise ValueError(f"T is one number, of shape (); got a tensor {tuple(T.shape)}.")
    temperature(T.item() if isinstance(T, Tensor) else T)
    s, t = _features(feats_s, feats_t)
    similar = product(unit(s.flatten(1)), unit(t.flatten(1)).mT) / T
    both = similar.logsumexp(0) + similar.logsumexp(1)
    return _mean_over_examples(both / 2 - similar.diagonal())


def _features(
    feats_s: Tensor, feats_t: Tensor, dims: tuple = (2, 4), equal: tuple | None = None
) -> tuple[Tensor, Tensor]:
    """Both sides in one wide type, the teacher's detached, or an error that names the shapes."""
    for side, x in (("student", feats_s), ("teacher", feats_t)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(
                f"the {side}'s features are a tensor of floating-point numbers; got {got}: x.float()?"
            )
    shapes = feats_s.shape, feats_t.shape
    if any(len(shape) not in dims for shape in shapes):
        fit = False
    elif equal is None:
        fit = shapes[0] == shapes[1]
    else:
        fit = all(shapes[0][i] == shapes[1][i] for i in equal)
    if not fit:
        form = " or ".join({2: "(N, D)", 4: "(N, C, H, W)"}[d] for d in dims)
        alike = "the same shape" if equal is None else "the same " + ", ".join("NCHW"[i] for i in equal)
        raise ValueError(
            f"takes features {form}, {alike} on both sides; got {tuple(shapes[0])} and {tuple(shapes[1])}. "
            "For tokens, flatten the positions first."
        )
    dtype = wide_type(torch.promote_types(feats_s.dtype, feats_t.dtype))
    return feats_s.to(dtype), feats_t.detach().to(dtype)


def _cosines(x: Tensor) -> Tensor:
    """(j, i, k) ↦ the cosine of the angle at x_j between x_i and x_k."""
    towards = unit(x - x[:, None])
    return product(towards, towards.mT)


def _mean_over_examples(rows: Tensor) -> Tensor:
    return _finite(rows.mean() if len(rows) else rows.sum())


def _finite(loss: Tensor) -> Tensor:
    try:
        finite = bool(torch.isfinite(loss))
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        raise RuntimeError(
            "losses on features look at their value, which vmap does not allow: "
            "take torch.stack([loss(s, t) for s in students]) instead."
        ) from error
    if not finite:
        raise ValueError(f"the loss is {loss.item()}: a feature is NaN, infinite or too large to square.")
    return loss
