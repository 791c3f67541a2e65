"""`fit` for several students of one kind at once, one setting and their own seeds: the same weights, sooner.

`fit_many` takes any network; this one takes `ConvNet` and `MLP` with their inside and, it may be, a regressor, and
computes convolutions as matrix products, which for maps of few channels is four times as fast. tests/test_chapter13.py
compares its students with those of `fit`.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion._step import batches, descent
from companion.models import ConvNet


class Convolution(torch.autograd.Function):
    """Convolutions of M students, stride 2: x (M·a, B, s, s) and weights (M, b, a·k·k) → (M·b, B, s/2, s/2)."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor, k: int) -> Tensor:
        m, b, _ = w.shape
        _, n, side, _ = x.shape
        half = (side + 1) // 2
        views = F.pad(x, [k // 2] * 4).unfold(2, k, 2).unfold(3, k, 2)  # (M·a, B, s/2, s/2, k, k)
        patches = views.permute(0, 4, 5, 1, 2, 3).reshape(m, -1, n * half * half)
        ctx.save_for_backward(patches, w)
        ctx.shape, ctx.k = x.shape, k
        return (w @ patches).view(m * b, n, half, half)

    @staticmethod
    def backward(ctx, slope: Tensor):
        patches, w = ctx.saved_tensors
        (channels, n, side, _), k = ctx.shape, ctx.k
        half = slope.shape[-1]
        slope = slope.reshape(*w.shape[:2], -1)
        to_w = slope @ patches.mT
        if not ctx.needs_input_grad[0]:
            return None, to_w, None
        by_place = (w.mT @ slope).view(channels, k, k, n, half, half)
        wide = slope.new_zeros(channels, n, side + k - 1, side + k - 1)
        for i in range(k):
            for j in range(k):
                wide[:, :, i : i + 2 * half : 2, j : j + 2 * half : 2] += by_place[:, i, j]
        edge = k // 2
        return wide[:, :, edge : edge + side, edge : edge + side], to_w, None


class Stack:
    """M networks, and M regressors or none, as one set of weights; `run` gives what each of them makes of its images."""

    def __init__(self, nets: Sequence[nn.Module], regressors: Sequence[nn.Module] | None):
        self.nets, self.regressors = nets, regressors
        self.weights = self._stacked(nets)
        self.more = self._stacked(regressors) if regressors else {}
        self.all = [w for w in [*self.weights.values(), *self.more.values()] if w.requires_grad]

    def _stacked(self, modules) -> dict[str, Tensor]:
        together = {}
        for name, first in modules[0].state_dict().items():
            if first.is_floating_point():
                rows = [m.state_dict()[name] for m in modules]
                shape = (
                    (-1, *first.shape) if first.dim() > 1 or not isinstance(modules[0], ConvNet) else (-1,)
                )
                if name.startswith("head"):
                    shape = (-1, *first.shape)
                together[name] = (
                    torch.stack(rows).reshape(shape).clone().requires_grad_("running" not in name)
                )
        return together

    def run(self, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """x (M, B, 1, 28, 28) → logits (M, B, C), the inside of each stage (M, B, …), the last after the regressor."""
        logits, inside = self._convolve(x) if isinstance(self.nets[0], ConvNet) else self._multiply(x)
        return logits, inside, self._regress(inside[-1]) if self.regressors else None

    def _multiply(self, x: Tensor):
        w = self.weights
        h = torch.baddbmm(w["layers.0.bias"][:, None], x.flatten(2), w["layers.0.weight"].mT).relu()
        return torch.baddbmm(w["layers.1.bias"][:, None], h, w["layers.1.weight"].mT), [h]

    def _convolve(self, x: Tensor):
        w, m = self.weights, len(x)
        h, inside = x.flatten(1, 2), []  # one channel; from here on channels first: (M·C, B, H, W)
        for i, k in enumerate((5, 3, 3)):
            h = Convolution.apply(h, w[f"stages.{i}.0.weight"].flatten(2), k)
            of = [w[f"stages.{i}.1.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
            h = F.batch_norm(h.flatten(1)[None], *of, training=True, momentum=0.1, eps=1e-5).view_as(h).relu()
            inside.append(h.unflatten(0, (m, -1)).transpose(1, 2))
        last = inside[-1].flatten(2)
        return torch.baddbmm(w["head.bias"][:, None], last, w["head.weight"].mT), inside

    def _regress(self, last: Tensor) -> Tensor:
        w, b = self.more["weight"], self.more["bias"]
        if last.dim() == 3:
            return torch.baddbmm(b[:, None], last, w.mT)
        out = w.flatten(2)[:, None] @ last.flatten(3) + b[:, None, :, None]
        return out.unflatten(3, last.shape[3:])

    @torch.no_grad()
    def put_back(self) -> None:
        """The weights into the networks, and these into eval mode. (The regressors are dropped.)"""
        for name, value in self.weights.items():
            for net, own in zip(self.nets, value.reshape(len(self.nets), -1), strict=True):
                target = net.state_dict()[name]
                target.copy_(own.view_as(target))
        for net in self.nets:
            net.eval()


def fit_stacked(
    nets: Sequence[nn.Module],
    splits: Sequence,
    loss: Callable,
    told: Sequence[Tensor],
    *,
    regressors: Sequence[nn.Module] | None = None,
    steps: int,
    lr: float,
    weight_decay: float,
    batch_size: int,
    seeds: Sequence[int],
) -> None:
    """Train the nets in place: net i on splits[i] with seeds[i], told[i] (N, …) being what is known of its images.

    loss(logits, inside, regressed, told, y), all with a leading (M, B), returns the *sum* over the students.
    """
    stack = Stack(nets, regressors)
    descend = descent(stack.all, lr, weight_decay, steps, torch.device("cpu"), None, fused=True)
    orders = [
        batches(len(split), batch_size, steps, torch.Generator().manual_seed(seed))
        for split, seed in zip(splits, seeds, strict=True)
    ]
    for index in zip(*orders, strict=True):
        x, y, v = (
            torch.stack([part[i] for part, i in zip(parts, index, strict=True)])
            for parts in ([s.x for s in splits], [s.y for s in splits], told)
        )
        value = loss(*stack.run(x), v, y)
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss is {value.item()} at learning rate {lr}.")
        descend(value)
    stack.put_back()
