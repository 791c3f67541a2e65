"""SmolLM2: a decoder of the Llama kind, in plain PyTorch, and its weights out of a GGUF file."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROPE_BASE, EPS = 100_000.0, 1e-5
_PIECES = {  # ours → GGUF's, a block
    "norm_attention": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "out": "attn_output",
    "norm_mlp": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip


class RMSNorm(nn.Module):
    """x / √(mean x² + 1e-5) · weight, over the last dimension."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * self.weight


class Block(nn.Module):
    """Attention with fewer heads for keys and values than for queries, then a gated MLP; both added to x."""

    def __init__(self, width: int, heads: int, heads_kv: int, inner: int):
        super().__init__()
        self.heads, self.heads_kv, d = heads, heads_kv, width // heads
        self.norm_attention, self.norm_mlp = RMSNorm(width), RMSNorm(width)
        self.q, self.out = nn.Linear(width, heads * d, bias=False), nn.Linear(heads * d, width, bias=False)
        self.k, self.v = (nn.Linear(width, heads_kv * d, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, angles: Tensor, allowed: Tensor | None, past=None):
        h = self.norm_attention(x)
        q, k, v = (part(h).unflatten(-1, (n, -1)).transpose(1, 2) for part, n in self._parts())
        q, k = rotate(q, angles), rotate(k, angles)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        group = self.heads // self.heads_kv
        h = F.scaled_dot_product_attention(
            q,
            k.repeat_interleave(group, 1),
            v.repeat_interleave(group, 1),
            allowed,
            is_causal=allowed is None,
        )
        x = x + self.out(h.transpose(1, 2).flatten(2))
        h = self.norm_mlp(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h)), (k, v)

    def _parts(self):
        return (self.q, self.heads), (self.k, self.heads_kv), (self.v, self.heads_kv)


class SmolLM2(nn.Module):
    """A causal language model (Allal et al. 2025, Apache-2.0). `forward` gives logits.

    Args:
        layers, width, heads, heads_kv, inner, vocabulary: the sizes; the defaults are SmolLM2-135M's.

    Its `blocks` may be cut or replaced (a pruned student); `embedding` is the output layer as well.
    `tokenizer` is a `tokenizers.Tokenizer`, `end` the id that ends an answer; None where they were not loaded.
    """

    def __init__(self, layers=30, width=576, heads=9, heads_kv=3, inner=1536, vocabulary=49_152):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, heads_kv, inner) for _ in range(layers))
        self.norm = RMSNorm(width)
        self.head_size = width // heads
        self.tokenizer, self.end = None, None

    def features(self, ids: Tensor, mask: Tensor | None = None, cache: list | None = None) -> Tensor:
        """The last hidden layer after its norm (B, L, width); logits are its product with `embedding.weight`."""
        before = cache[0][0].shape[2] if cache else 0
        _check(ids, mask, before, self.embedding.num_embeddings)
        positions = torch.arange(before, before + ids.shape[1], device=ids.device)[None]
        if mask is not None:
            positions = (mask.long().cumsum(-1) - 1).clamp_min(0)[:, before:]
        angles, allowed = self._angles(positions), _allowed(ids.shape[1], before, mask, ids.device)
        x = self.embedding(ids)
        for i, block in enumerate(self.blocks):
            x, kept = block(x, angles, allowed, cache[i] if before else None)
            if cache is not None:
                cache[i : i + 1] = [kept]
        return self.norm(x)

    def forward(self, ids: Tensor, mask: Tensor | None = None, cache: list | None = None) -> Tensor:
        """Logits (B, L, V): row t predicts token t + 1.

        Args:
            ids: tokens (B, L), int64.
            mask: (B, tokens seen so far and these), True where a token counts: for rows padded on the left. Rows
                padded on the right need none, as nothing looks ahead.
            cache: a list, empty at first, in which keys and values of past tokens are kept: later calls give the
                new tokens only, and get logits for those.

        Raises:
            ValueError: ids or mask of another shape, or an id outside the vocabulary.
        """
        return F.linear(self.features(ids, mask, cache), self.embedding.weight)

    def _angles(self, positions: Tensor) -> Tensor:
        """Angle of each pair of a head's coordinates at each position, (B or 1, 1, L, head_size / 2)."""
        pair = torch.arange(0, self.head_size, 2, device=positions.device)
        return positions[:, None, :, None] * ROPE_BASE ** (-pair / self.head_size)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions: turn coordinates 2i and 2i + 1 by their angle (GGUF keeps pairs side by side)."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def _allowed(new: int, before: int, mask: Tensor | None, device) -> Tensor | None:
    """Which of the tokens so far each new one looks at, (B or 1, 1, new, before + new); None is plain causal."""
    if before == 0 and mask is None:
        return None
    row = torch.arange(before, before + new, device=device)[:, None]
    column = torch.arange(before + new, device=device)
    if mask is None:
        return (column <= row)[None, None]
    seen = (column <= row) & mask.bool()[:, None, None, :]
    return seen | (column == row)  # a padded row looks at itself: over nothing the softmax would be NaN


def _check(ids: Tensor, mask: Tensor | None, before: int, vocabulary: int) -> None:
    if ids.dim() != 2 or ids.dtype != torch.long or ids.numel() == 0:
        raise ValueError(f"ids are (B, L), int64, and not empty; got {tuple(ids.shape)}, {ids.dtype}.")
    low, high = ids.aminmax()
    if low < 0 or high >= vocabulary:
        raise ValueError(
            f"ids are 0 … {vocabulary - 1}; got {low} … {high}: a pad of −100 or another tokenizer's?"
        )
    if mask is not None and mask.shape != (len(ids), before + ids.shape[1]):
        raise ValueError(
            f"the mask covers the tokens in the cache and the new ones, {(len(ids), before + ids.shape[1])}; got "
            f"{tuple(mask.shape)}."
        )


def read_gguf(path: Path) -> SmolLM2:
    """The model of a GGUF file, weights dequantised to float32, with its tokenizer."""
    try:
        import tokenizers
        from gguf import GGUFReader
        from gguf.quants import dequantize
    except ImportError as error:
        raise ImportError("smollm2 reads a GGUF file: pip install gguf tokenizers") from error
    reader = GGUFReader(path)

    def number(key: str) -> int:
        return int(reader.fields[f"llama.{key}"].contents())

    model = SmolLM2(
        number("block_count"),
        number("embedding_length"),
        number("attention.head_count"),
        number("attention.head_count_kv"),
        number("feed_forward_length"),
        len(reader.fields["tokenizer.ggml.tokens"].data),
    )
    names = {"embedding.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
    for i in range(len(model.blocks)):
        names |= {f"blocks.{i}.{ours}.weight": f"blk.{i}.{theirs}.weight" for ours, theirs in _PIECES.items()}
    stored = {tensor.name: tensor for tensor in reader.tensors}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = stored[names[name]]
            values = dequantize(tensor.data, tensor.tensor_type)
            parameter.copy_(torch.from_numpy(np.require(values, requirements="W")))
    model.tokenizer = _tokenizer(reader, tokenizers)
    model.end = int(reader.fields["tokenizer.ggml.eos_token_id"].contents())
    return model


def _tokenizer(reader, library):
    """Byte-level BPE that cuts numbers into digits first, as SmolLM2 was trained."""
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(pair.split(" ")) for pair in reader.fields["tokenizer.ggml.merges"].contents()]
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    tokenizer = library.Tokenizer(library.models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    cut = library.pre_tokenizers
    tokenizer.pre_tokenizer = cut.Sequence(
        [cut.Digits(individual_digits=True), cut.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = library.decoders.ByteLevel()
    control = 3  # GGUF's number for tokens such as <|im_end|>
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == control]
    tokenizer.add_special_tokens(
        [library.AddedToken(token, special=True, normalized=False) for token in special]
    )
    return tokenizer
