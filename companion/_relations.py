"""What losses on features share: lengths, products, distances, in full precision and differentiable twice."""

import torch
import torch.nn.functional as F
from torch import Tensor


def scaled(x: Tensor) -> Tensor:
    """x over the power of two at its largest magnitude, so that its squares neither overflow nor vanish."""
    if not x.numel():
        return x
    low, high = x.detach().aminmax()
    largest = torch.maximum(-low, high)
    return x / largest.masked_fill(largest == 0, 1).log2().floor().exp2()


def unit(x: Tensor) -> Tensor:
    """x over its length along the last dimension; 0, and without gradient, where x is 0 or its squares vanish."""
    square = _squares(x)
    nothing = square < torch.finfo(x.dtype).tiny
    return x * square.masked_fill(nothing, float("inf")).rsqrt()


def length(x: Tensor) -> Tensor:
    """‖x‖₂ along the last dimension, kept; where it is 0, so are its derivatives."""
    square = _squares(x)
    nothing = square == 0
    return square.masked_fill(nothing, 1).sqrt().masked_fill(nothing, 0)


def over_mean(distances: Tensor) -> Tensor:
    mean = distances.mean()
    return distances / mean.masked_fill(mean == 0, float("inf"))


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, batch by batch, in the precision of a and b; autocast would take it in half, backwards too."""
    return _Product.apply(a, b) if torch.is_autocast_enabled(a.device.type) else a @ b


def _squares(x: Tensor) -> Tensor:
    """Σ x² along the last dimension, kept; NaN, which is refused at the end, where it is too large."""
    square = x.square().sum(-1, keepdim=True)
    return square.masked_fill(square == float("inf"), float("nan"))


class _Product(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a, b):
        with torch.autocast(a.device.type, enabled=False):
            return a @ b

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, slope):
        a, b = ctx.saved_tensors
        left, right = ctx.needs_input_grad
        return product(slope, b.mT) if left else None, product(a.mT, slope) if right else None

    @staticmethod
    def jvp(ctx, a_moves, b_moves):
        a, b = ctx.saved_tensors
        return product(a_moves, b) + product(a, b_moves)


class _Distances(torch.autograd.Function):
    """F.pdist(x), which never holds the N²·D differences; its second derivative, which PyTorch lacks, does."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return F.pdist(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx, slope):
        x, distance = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return torch.ops.aten._pdist_backward(slope.contiguous(), x, 2.0, distance)
        i, j, towards = _directions(x, distance)
        pull = slope[:, None] * towards
        return torch.zeros_like(x).index_add(0, i, pull).index_add(0, j, -pull)

    @staticmethod
    def jvp(ctx, moves):
        x, distance = ctx.saved_tensors
        i, j, towards = _directions(x, distance)
        return (towards * (moves[i] - moves[j])).sum(-1)


def _directions(x: Tensor, distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs i < j in pdist's order, and (x_i − x_j)/‖x_i − x_j‖ of each; 0 where they coincide."""
    i, j = torch.triu_indices(len(x), len(x), 1, device=x.device)
    return i, j, (x[i] - x[j]) / distance.masked_fill(distance == 0, float("inf"))[:, None]


distances = _Distances.apply
