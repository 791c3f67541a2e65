"""all-MiniLM-L6-v2: an encoder of the BERT kind that turns a text into one vector, in plain PyTorch."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS, LONGEST = 1e-12, 256  # of the layer norms; the tokens of a text that are read, as its authors set it
_PIECES = {  # ours → the file's, a block
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "out": "attention.output.dense", "norm_attention": "attention.output.LayerNorm",
    "up": "intermediate.dense", "down": "output.dense", "norm_mlp": "output.LayerNorm",
}  # fmt: skip


class EncoderBlock(nn.Module):
    """Attention over all tokens, then an MLP; each is added to x, and the sum is normed."""

    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm_attention, self.norm_mlp = (nn.LayerNorm(width, EPS) for _ in range(2))

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        h = F.scaled_dot_product_attention(q, k, v, allowed).transpose(1, 2).flatten(2)
        x = self.norm_attention(x + self.out(h))
        return self.norm_mlp(x + self.down(F.gelu(self.up(x))))


class MiniLM(nn.Module):
    """A sentence encoder (Wang et al. 2020, arXiv:2002.10957, fine-tuned by sentence-transformers; Apache-2.0).

    Args:
        layers, width, heads, inner, vocabulary, positions: the sizes; the defaults are all-MiniLM-L6-v2's.

    `tokenizer` is a `tokenizers.Tokenizer`; None where it was not loaded.
    """

    def __init__(self, layers=6, width=384, heads=12, inner=1536, vocabulary=30_522, positions=512):
        super().__init__()
        self.word, self.position = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.segment = nn.Embedding(2, width)  # BERT's first and second text: here there is one
        self.norm = nn.LayerNorm(width, EPS)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, inner) for _ in range(layers))
        self.tokenizer = None

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Vectors of length 1, (B, width): the mean of the last hidden states over the tokens that count.

        Args:
            ids: tokens (B, L), int64, padded on the right.
            mask: (B, L), True where a token counts; one at least a row.

        Raises:
            ValueError: ids or mask of another shape or type, a row without a token, more tokens than positions.
        """
        _check(ids, mask, self.position.num_embeddings)
        x = self.word(ids) + self.position.weight[: ids.shape[1]] + self.segment.weight[0]
        x = self.norm(x)
        for block in self.blocks:
            x = block(x, mask[:, None, None, :])
        counted = mask[..., None].to(x.dtype)
        return F.normalize((x * counted).sum(1) / counted.sum(1), dim=-1)

    def embed(self, texts: list[str], tokens_a_batch: int = 4096) -> Tensor:
        """Vectors (len(texts), width) in the order of the texts; batches are of texts of like length.

        Args:
            texts: not empty; of each the first 256 tokens are read.
            tokens_a_batch: what a batch holds, padding counted.

        Raises:
            ValueError: no list of texts, or the tokenizer was not loaded.
        """
        if isinstance(texts, str) or not texts:
            raise ValueError(f"embed takes a list of texts, not empty; got {texts!r}.")
        if self.tokenizer is None:
            raise ValueError("this MiniLM has no tokenizer; minilm() loads one.")
        ids = [row.ids for row in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        vectors = self.word.weight.new_empty(len(ids), self.word.embedding_dim)
        with torch.no_grad():
            for batch in _batches(order, ids, tokens_a_batch):
                padded = nn.utils.rnn.pad_sequence([torch.tensor(ids[i]) for i in batch], batch_first=True)
                lengths = torch.tensor([len(ids[i]) for i in batch])
                mask = torch.arange(padded.shape[1]) < lengths[:, None]
                device = self.word.weight.device
                vectors[batch] = self(padded.to(device), mask.to(device))
        return vectors


def _batches(order: list[int], ids: list[list[int]], tokens: int):
    """Consecutive places of `order`, shortest first, whose padded batch holds at most `tokens`."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * len(ids[i]) > tokens:
            yield batch
            batch = []
        batch.append(i)
    yield batch


def _check(ids: Tensor, mask: Tensor, positions: int) -> None:
    if ids.dim() != 2 or ids.dtype != torch.long or ids.numel() == 0:
        raise ValueError(f"ids are (B, L), int64, and not empty; got {tuple(ids.shape)}, {ids.dtype}.")
    if mask.shape != ids.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"the mask is bool, of the shape of ids, {tuple(ids.shape)}; got {tuple(mask.shape)}, {mask.dtype}."
        )
    if not mask.any(1).all():
        raise ValueError(
            "each row of the mask has a token that counts; one has none, and its mean would be 0/0."
        )
    if ids.shape[1] > positions:
        raise ValueError(f"{positions} tokens at most; got {ids.shape[1]}. Cut the text, as embed does.")


def read_safetensors(weights: Path, tokenizer: Path) -> MiniLM:
    """The model of a safetensors file, with the tokenizer of a tokenizer.json."""
    try:
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError(
            "minilm reads safetensors and tokenizer.json: pip install safetensors tokenizers"
        ) from error
    stored, model = load_file(weights), MiniLM()
    names = {
        "word.weight": "embeddings.word_embeddings.weight",
        "position.weight": "embeddings.position_embeddings.weight",
        "segment.weight": "embeddings.token_type_embeddings.weight",
        "norm.weight": "embeddings.LayerNorm.weight",
        "norm.bias": "embeddings.LayerNorm.bias",
    }
    for i in range(len(model.blocks)):
        for ours, theirs in _PIECES.items():
            for kind in ("weight", "bias"):
                names[f"blocks.{i}.{ours}.{kind}"] = f"encoder.layer.{i}.{theirs}.{kind}"
    model.load_state_dict({ours: stored[theirs] for ours, theirs in names.items()})
    model.tokenizer = Tokenizer.from_file(str(tokenizer))
    model.tokenizer.no_padding()
    model.tokenizer.enable_truncation(LONGEST)
    return model
