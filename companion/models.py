"""Small teachers and students. They return logits (the softmax belongs to the loss, errata C5) or a text's vector."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _seeded(build, seed: int | None):
    """Call `build()` with the generator at `seed`, leaving the global generator where it was."""
    if seed is None:
        return build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


class MLP(nn.Module):
    """A multilayer perceptron: flatten, then Linear and ReLU, ending in Linear.

    Args:
        sizes: units per layer, input first and classes last, e.g. `MLP(784, 128, 10)`.
        seed: fixes the initial weights; None takes the global generator.

    Input (N, ...) with `sizes[0]` values an example; output logits (N, sizes[-1]).
    """

    def __init__(self, *sizes: int, seed: int | None = None):
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"MLP needs at least an input and an output size, all positive; got {sizes}.")
        self.layers = _seeded(lambda: nn.ModuleList(map(nn.Linear, sizes[:-1], sizes[1:])), seed)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer after its ReLU, (N, sizes[-2])."""
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[-1](self.features(x))


class ConvNet(nn.Module):
    """Three strided convolutions (5×5, 3×3, 3×3) with batch norm and ReLU, dropout, one linear layer.

    Args:
        width: channels of the first convolution; the others have 2 and 4 times as many.
        classes: number of logits.
        dropout: probability of zeroing a feature before the last layer, in training mode only.
        seed: fixes the initial weights; None takes the global generator.

    Input (N, 1, 28, 28); output logits (N, classes). `ConvNet(8)` has 11,202 parameters.
    """

    def __init__(self, width: int = 8, classes: int = 10, dropout: float = 0.2, seed: int | None = None):
        super().__init__()
        self.width, self.classes = width, classes

        def build():
            stages = nn.ModuleList()
            for c_in, c_out, k in [(1, width, 5), (width, 2 * width, 3), (2 * width, 4 * width, 3)]:
                conv = nn.Conv2d(c_in, c_out, k, stride=2, padding=k // 2, bias=False)
                stages.append(nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU()))
            return stages, nn.Linear(4 * width * 4 * 4, classes)

        self.stages, self.head = _seeded(build, seed)
        self.dropout = nn.Dropout(dropout)

    def features(self, x: Tensor) -> list[Tensor]:
        """The map after each stage: (N, w, 14, 14), (N, 2w, 7, 7), (N, 4w, 4, 4) for width w."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != 1:
            raise ValueError(f"ConvNet takes images of shape (N, 1, 28, 28); got {tuple(x.shape)}.")
        return self.head(self.dropout(self.features(x)[-1].flatten(1)))


class StaticEncoder(nn.Module):
    """A text → a vector: W Σ_t w_t e_t over its tokens, then divided by its length. No token sees another.

    Args:
        vocabulary, width, out: V tokens, the size d of their vectors e, the size of the text's vector.
        seed: its initial weights; None is the global generator.

    `table` is e (V, d), `weight` is w (V, 1), `up` is W (out, d).
    """

    def __init__(self, vocabulary: int, width: int = 128, out: int = 384, seed: int | None = None):
        super().__init__()
        self.table, self.weight, self.up = _seeded(
            lambda: (
                nn.EmbeddingBag(vocabulary, width, mode="sum"),
                nn.Embedding.from_pretrained(torch.ones(vocabulary, 1), freeze=False),
                nn.Linear(width, out, bias=False),
            ),
            seed,
        )

    def forward(self, ids: Tensor, starts: Tensor) -> Tensor:
        """Vectors of length 1, (N, out); an empty text has the vector 0.

        Args:
            ids: the tokens of all texts, one text after the other (tokens,), int64.
            starts: where in `ids` each text begins (N,), int64; the first is 0, none is before its forerunner.

        Raises:
            ValueError: ids or starts of another shape, type or order, or an id outside the vocabulary.
        """
        _check_bags(ids, starts, self.table.num_embeddings)
        summed = self.table(ids, starts, per_sample_weights=self.weight(ids)[:, 0])
        return F.normalize(self.up(summed), dim=-1)


def _check_bags(ids: Tensor, starts: Tensor, vocabulary: int) -> None:
    if ids.dim() != 1 or starts.dim() != 1 or ids.dtype != torch.long or starts.dtype != torch.long:
        raise ValueError(
            f"ids (tokens,) and starts (N,) are int64; got {tuple(ids.shape)}, {ids.dtype} and "
            f"{tuple(starts.shape)}, {starts.dtype}."
        )
    if len(starts) == 0 or starts[0] != 0 or starts[-1] > len(ids) or (starts.diff() < 0).any():
        raise ValueError(
            f"starts begin at 0, never fall and end within the {len(ids)} tokens; got {starts.tolist()[:8]} …"
        )
    if len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary:
        raise ValueError(f"ids are 0 … {vocabulary - 1}; got {ids.min()} … {ids.max()}: another tokenizer's?")


def parameters(model: nn.Module) -> int:
    """How many numbers a model has to learn (buffers such as batch-norm averages are not counted)."""
    return sum(p.numel() for p in model.parameters())
