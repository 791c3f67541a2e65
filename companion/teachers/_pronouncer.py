"""From spelling to phonemes: words as tensors, and an encoder–decoder of two GRUs that reads and says them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

PAD, UNKNOWN, END, START, STOP = 0, 1, 2, 2, 3  # END closes a spelling; START and STOP stand around an answer
LETTERS = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
_SAID = (
    "AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH EH0 EH1 EH2 ER0 ER1 ER2 EY0 "
    "EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH UH0 UH1 UH2 UW UW0 "
    "UW1 UW2 V W Y Z ZH"
)
PHONEMES = ("<pad>", "<unk>", "<s>", "</s>", *_SAID.split())
LONGEST = 20  # phonemes in an answer, as g2p-en has it


class Pronouncer(nn.Module):
    """One GRU reads the letters, a second one, starting from its last state, says the phonemes.

    Args:
        width: size of embeddings and states; 256 is g2p-en's, 834,890 parameters.
    """

    def __init__(self, width: int = 256):
        super().__init__()
        self.letters, self.phonemes = nn.Embedding(len(LETTERS), width), nn.Embedding(len(PHONEMES), width)
        self.encoder, self.decoder = (nn.GRU(width, width, batch_first=True) for _ in range(2))
        self.head = nn.Linear(width, len(PHONEMES))

    def encode(self, spelled: Tensor) -> Tensor:
        """The state after a word's </s>, (1, N, width), from letters (N, L), padded on the right."""
        states, _ = self.encoder(self.letters(spelled))
        last = (spelled != PAD).sum(1) - 1
        return states[torch.arange(len(spelled), device=spelled.device), last][None]

    def step(self, said: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, L, 74) after the phonemes `said` (N, L), and the state that goes on from there."""
        states, state = self.decoder(self.phonemes(said), state)
        return self.head(states), state

    def forward(self, spelled: Tensor, said: Tensor) -> Tensor:
        """Logits (N, L, 74): row t predicts said[:, t + 1]; `said` begins with <s>."""
        return self.step(said, self.encode(spelled))[0]


class AttentivePronouncer(nn.Module):
    """A student of another kind: at each phoneme it looks back at the letters (attention after the decoder's GRU).

    Args:
        width: size of the decoder's states; embeddings and each direction of the encoder have half of it.

    The default has 206,346 parameters, a quarter of `Pronouncer`'s.
    """

    def __init__(self, width: int = 128):
        super().__init__()
        half = width // 2
        self.letters, self.phonemes = nn.Embedding(len(LETTERS), half), nn.Embedding(len(PHONEMES), half)
        self.encoder = nn.GRU(half, half, batch_first=True, bidirectional=True)
        self.decoder = nn.GRU(half, width, batch_first=True)
        self.bridge, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.mix, self.head = nn.Linear(2 * width, width), nn.Linear(width, len(PHONEMES))

    def encode(self, spelled: Tensor) -> tuple[Tensor, ...]:
        """The decoder's first state, and what it looks back at: values, keys, 0 or −∞ for each letter."""
        keep = (spelled != PAD).unsqueeze(-1)
        lengths = keep.sum(
            (1, 2)
        ).cpu()  # packed, so that the way back starts at a word's end and not in its padding
        packed = pack_padded_sequence(self.letters(spelled), lengths, True, enforce_sorted=False)
        values = pad_packed_sequence(self.encoder(packed)[0], True, total_length=spelled.shape[1])[0]
        first = torch.tanh(self.bridge(values.sum(1) / keep.sum(1)))
        shut = torch.zeros_like(values[..., 0]).masked_fill(~keep[..., 0], -torch.inf)
        return first[None], values, self.key(values), shut[:, None]

    def step(self, said: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As `Pronouncer.step`."""
        first, values, keys, shut = state
        h, last = self.decoder(self.phonemes(said), first)
        looked = (h @ keys.transpose(1, 2) / h.shape[-1] ** 0.5 + shut).softmax(-1) @ values
        return self.head(torch.tanh(self.mix(torch.cat([h, looked], -1)))), (last, values, keys, shut)

    def forward(self, spelled: Tensor, said: Tensor) -> Tensor:
        """As `Pronouncer.forward`."""
        return self.step(said, self.encode(spelled))[0]


@torch.no_grad()
def answers(model: nn.Module, spelled: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """What a model says, (N, up to 22) from <s> to </s>, padded; greedy, or sampled where a generator is given.

    Args:
        model: has `encode` and `step`, as `Pronouncer` has.
        spelled: letters (N, L) from `spell`.

    An answer that has not ended after 20 phonemes is cut there and has no </s>.
    """
    state, out = model.encode(spelled), [torch.full((len(spelled),), START, device=spelled.device)]
    done = torch.zeros(len(spelled), dtype=torch.bool, device=spelled.device)
    while len(out) <= LONGEST and not done.all():
        logits, state = model.step(out[-1][:, None], state)
        if generator is None:
            token = logits[:, 0].argmax(-1)
        else:
            token = logits[:, 0].softmax(-1).multinomial(1, generator=generator)[:, 0]
        out.append(token.masked_fill(done, PAD))
        done = done | (token == STOP)
    return torch.stack(out, 1)


def spell(words: Sequence[str]) -> Tensor:
    """Words as letters (N, L), int64: each ends in </s> and is padded with 0. A sign beyond a–z is <unk>."""
    number = {letter: i for i, letter in enumerate(LETTERS)}
    _refuse_none(words, "words")
    rows = [torch.tensor([*(number.get(c, UNKNOWN) for c in word), END]) for word in words]
    return pad_sequence(rows, batch_first=True, padding_value=PAD)


def to_ids(said: Sequence[str]) -> Tensor:
    """Pronunciations such as "K AE1 T" as (N, L), int64: <s> first, </s> last, padded with 0.

    Raises:
        ValueError: a phoneme that there is none of, or no pronunciation.
    """
    number = {phoneme: i for i, phoneme in enumerate(PHONEMES)}
    _refuse_none(said, "pronunciations")
    unknown = {phoneme for one in said for phoneme in one.split()} - set(PHONEMES[4:])
    if unknown:
        raise ValueError(f"there is no phoneme {min(unknown)!r}; they are {_SAID}.")
    rows = [torch.tensor([START, *(number[phoneme] for phoneme in one.split()), STOP]) for one in said]
    return pad_sequence(rows, batch_first=True, padding_value=PAD)


def to_text(ids: Tensor) -> list[str]:
    """Answers (N, L) as text, "K AE1 T", up to their </s>."""
    texts = []
    for row in ids.tolist():
        said = row[1:] if row[:1] == [START] else row
        said = said[: said.index(STOP)] if STOP in said else said
        texts.append(" ".join(PHONEMES[i] for i in said if i != PAD))
    return texts


def _refuse_none(items: Sequence[str], what: str) -> None:
    if isinstance(items, str) or len(items) == 0:
        raise ValueError(f"takes a list of {what}, one or more; got {items!r}.")


def read_npz(path: Path) -> Pronouncer:
    """g2p-en's weights, whose gates stand in PyTorch's order; a file that would have to be unpickled is refused."""
    names = {
        "enc_emb": "letters.weight", "dec_emb": "phonemes.weight", "fc_w": "head.weight", "fc_b": "head.bias",
        **{
            f"{short}_{kind}": f"{long}.{'weight' if kind[0] == 'w' else 'bias'}_{kind[2:]}_l0"
            for short, long in (("enc", "encoder"), ("dec", "decoder"))
            for kind in ("w_ih", "w_hh", "b_ih", "b_hh")
        },
    }  # fmt: skip
    with np.load(path, allow_pickle=False) as stored:
        state = {ours: torch.from_numpy(stored[theirs]) for theirs, ours in names.items()}
    model = Pronouncer(state["head.weight"].shape[1])
    model.load_state_dict(state)
    return model
