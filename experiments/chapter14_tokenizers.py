"""Two tokenizers of one text, for chapter 14: a teacher whose words are exchanged, as ULD and as bytes see it.

    python -m experiments.chapter14_tokenizers     # half a minute

Student and teacher are bigram models over the tokens of two BPEs, 160 and 256 tokens, counted on the same 300,000
characters. So both are exact, and so is what each says about the next byte. Seed s has its own held-out passages and its
own exchange of the teacher's words: it says of one token what it meant of another.
"""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from companion.metrics import paired_interval
from companion.teachers import king_james
from companion.vocabulary import check_same_tokens, next_byte, uld_loss
from experiments.common import run_all

SIZES = {"student": 160, "teacher": 256}
PASSAGES, LENGTH = 12, 60


def ascii_text(part: str, n: int) -> str:
    return king_james(part)[:n].encode("ascii", "ignore").decode()


def tokenizer(size: int, text: str) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.train_from_iterator([text], trainers.BpeTrainer(vocab_size=size, show_progress=False))
    return bpe


def bigrams(bpe: Tokenizer, text: str) -> Tensor:
    """P(next token | last token) (V, V) from counts, each with a share of the single tokens' frequencies."""
    ids, v = torch.tensor(bpe.encode(text).ids), bpe.get_vocab_size()
    pairs = torch.bincount(ids[:-1] * v + ids[1:], minlength=v * v).view(v, v).double()
    single = torch.bincount(ids, minlength=v).double() + 0.5
    mixed = pairs + 2 * single / single.sum()
    return mixed / mixed.sum(-1, keepdim=True)


def written(bpe: Tokenizer) -> list[bytes]:
    return [bpe.decoder.decode([bpe.id_to_token(i)]).encode() for i in range(bpe.get_vocab_size())]


def ends(bpe: Tokenizer, passage: str) -> dict[int, int]:
    """Where a token ends → which."""
    encoded = bpe.encode(passage)
    return {end: i for i, (_, end) in zip(encoded.ids, encoded.offsets, strict=True)}


def setting() -> dict:
    text = ascii_text("train", 300_000)
    bpes = {name: tokenizer(size, text) for name, size in SIZES.items()}
    return {name: (bpe, bigrams(bpe, text), written(bpe)) for name, bpe in bpes.items()}


def one(words: str, seed: int) -> dict:
    """ULD where both have just ended a token, and KL(teacher‖student) of the next byte everywhere, both in nats."""
    generator = torch.Generator().manual_seed(seed)
    held_out = ascii_text("test", 200_000)
    (student, q, spelled_s), (teacher, p, spelled_t) = SETTING["student"], SETTING["teacher"]
    exchange = torch.randperm(len(p), generator=generator)
    if words == "exchanged":
        p = p[:, exchange]
    uld, kl, bits = [], [], {"student": [], "teacher": []}
    for place in torch.randint(len(held_out) - LENGTH, (PASSAGES,), generator=generator).tolist():
        passage = held_out[place : place + LENGTH]
        mine, theirs = ends(student, passage), ends(teacher, passage)
        both = sorted(mine.keys() & theirs.keys())
        rows = [q[[mine[i] for i in both]].log(), p[[theirs[i] for i in both]].log()]
        uld.append(uld_loss(*rows).item())
        coming = [
            next_byte(q[0], q, spelled_s, passage.encode()),
            next_byte(p[0], p, spelled_t, passage.encode()),
        ]
        kl.append((torch.xlogy(coming[1], coming[1] / coming[0])).nansum(-1)[1:-1].mean().item())
        for name, of in zip(("student", "teacher"), coming, strict=True):
            right = of[range(1, LENGTH), list(passage.encode())[1:]]
            bits[name].append(-right.log2().mean().item())
    means = {"uld": uld, "kl_byte": kl, "bits_student": bits["student"], "bits_teacher": bits["teacher"]}
    return {name: float(torch.tensor(values).mean()) for name, values in means.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    SETTING = setting()
    try:
        check_same_tokens(*(SETTING[name][0].get_vocab() for name in SIZES))
    except ValueError as error:
        print(f"No loss on logits: {error}")
    about = (
        "ULD and KL (nats) and bits a byte of two bigram models with tokenizers of their own; seeds 0 to 4"
    )
    configs = [{"words": words, "seed": seed} for words in ("as they are", "exchanged") for seed in range(5)]
    rows = run_all("14_tokenizers", about, configs, one)
    for column in ("uld", "kl_byte", "bits_teacher"):
        parts = [rows[column][rows["words"] == words] for words in ("exchanged", "as they are")]
        print(column, *(part.mean().round(4) for part in parts), paired_interval(*parts))
