"""A network made smaller: weights of fewer bits, fewer weights, and training that goes on all the same."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune


def rounded(w: Tensor, bits: int) -> Tensor:
    """s · round(w/s), s = max|w| / (2^(bits−1) − 1) of each row: the nearest of 2^bits − 1 even steps (eq-rounded).

    Args:
        w: (R, ...), one scale for each of the R rows: output channels or units. bits: 2 … 16.

    Returns:
        (R, ...). A row of zeros stays zeros. No |difference| is above s/2.

    Raises:
        ValueError: bits out of range; NaN or ∞ in w.
    """
    _check_bits(bits, 16)
    if w.dim() < 2:
        raise ValueError(
            f"takes weights (R, ...), a scale for each row; got {tuple(w.shape)}: w[None] is one row."
        )
    if not w.isfinite().all():
        raise ValueError("the weights hold NaN or ∞: a training run that diverged has nothing to be rounded.")
    return _nearest(w, bits)


def _nearest(w: Tensor, bits: int) -> Tensor:
    scale = w.abs().flatten(1).amax(1).view(-1, *[1] * (w.dim() - 1)) / (2 ** (bits - 1) - 1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return (w / scale).round() * scale


class Rounded(nn.Module):
    """`rounded(w, bits)` in the forward pass, the identity in the backward pass (eq-straight-through).

    Source: the straight-through estimator, Bengio, Léonard & Courville 2013, arXiv:1308.3432.
    """

    def __init__(self, bits: int):
        super().__init__()
        self.bits = bits

    def forward(self, w: Tensor) -> Tensor:
        return w + (_nearest(w, self.bits) - w).detach()


class Masked(nn.Module):
    """w · mask: what is left out stays 0, and gets no gradient."""

    def __init__(self, mask: Tensor):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, w: Tensor) -> Tensor:
        return w * self.mask


def quantized(model: nn.Module, bits: int) -> nn.Module:
    """A copy whose `Linear` and `Conv2d` weights are rounded to so many bits whenever they are used, and still learn.

    Train it with `fit` or `fit_many` and any loss; `settled` then leaves the rounded weights alone. Biases, batch norm
    and activations stay in 32 bits: what is made smaller is the file.

    Raises:
        ValueError: no such layer; rounded or pruned already; bits not 2 … 16; weights with NaN.
    """
    copy = _fresh(model)
    for layer, weight in _weights(copy):
        rounded(weight, bits)  # refuses what cannot be rounded
        parametrize.register_parametrization(layer, "weight", Rounded(bits))
    return copy


def pruned(model: nn.Module, share: float) -> nn.Module:
    """A copy without the smallest |weights|: `share` of those of all `Linear` and `Conv2d` layers are 0 and stay 0.

    Which ones is PyTorch's choice, `torch.nn.utils.prune.global_unstructured`, over all layers together. The copy can be
    trained on, as that of `quantized`; `settled` makes the zeros ordinary numbers.

    Raises:
        ValueError: share not in 0 … 1 (1 excluded); no such layer; rounded or pruned already; weights with NaN.

    Source: Han et al. 2015, arXiv:1506.02626 (leave out the small ones, train on).
    """
    if not 0 <= share < 1:
        raise ValueError(f"share is 0 or more and below 1; got {share}.")
    chosen, copy = _fresh(model), _fresh(model)
    layers = [(layer, "weight") for layer, _ in _weights(chosen)]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=float(share))
    for (cut, _), (layer, _) in zip(layers, _weights(copy), strict=True):
        parametrize.register_parametrization(layer, "weight", Masked(cut.weight_mask))
    return copy


def settled(model: nn.Module) -> nn.Module:
    """A copy with plain weights: what `quantized` rounds or `pruned` masks is now what is stored. In eval mode."""
    copy = deepcopy(model)
    for layer in [m for m in copy.modules() if parametrize.is_parametrized(m, "weight")]:
        weight = layer.weight.detach().clone()
        # By hand: remove_parametrizations would change the class, which the copy shares with the model.
        layer.__class__ = parametrize.type_before_parametrizations(layer)
        del layer.parametrizations
        layer.weight = nn.Parameter(weight)
    return copy.eval()


def _weights(model: nn.Module) -> list[tuple[nn.Module, Tensor]]:
    return [(m, m.weight) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


def _fresh(model: nn.Module) -> nn.Module:
    """A copy, if there is something to make smaller and nothing has been yet."""
    if not _weights(model):
        raise ValueError(f"{type(model).__name__} has no Linear or Conv2d layer.")
    if any(parametrize.is_parametrized(layer) for layer, _ in _weights(model)):
        raise ValueError("its weights are rounded or pruned already: settled(model) first.")
    if not all(weight.isfinite().all() for _, weight in _weights(model)):
        raise ValueError(
            "the weights hold NaN or ∞: a training run that diverged is not worth making smaller."
        )
    return deepcopy(model)


def _check_bits(bits: int, most: int) -> None:
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= most:
        raise ValueError(f"bits is a whole number from 2 to {most}; got {bits!r}.")
