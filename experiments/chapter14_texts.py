"""What a student with another tokenizer can learn from its teacher, for chapter 14: by ULD, or from texts it writes.

    python -m experiments.chapter14_texts     # resumes where it stopped; about four minutes on one core

The two bigram models of `chapter14_tokenizers`: the teacher, over 256 tokens, was counted on 300,000 characters. The
student, a table of 160 times 160 logits, reads 20,000 others, in 20 stretches, and trains by gradient. It begins with the
frequencies of its tokens in them. Nine ways are tried: that text alone; ULD alone, at the places where both have just
ended a token; text and ULD; as many characters that the teacher writes; the text and as many of those; the text and ten
times as many. Two again with a teacher that says of one token what it meant of another. Three controls: the text with
as much more of it (twice the text), or with ten times as much more, where the teacher's texts stood; and the texts of a
small teacher, counted on nothing but the student's own lesson. Each way has 200 steps and its own learning rate (and
weight of ULD), chosen on validation with seeds 100 to 102; ten seeds are reported on test.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from companion.teachers import king_james
from experiments.chapter14_tokenizers import bigrams, ends, setting
from experiments.common import REPORTED, TUNING, run_all

KNOWN, CHARACTERS, STRETCHES, STEPS = 300_000, 20_000, 20, 200
RATES, WEIGHTS = (0.003, 0.01, 0.03, 0.1, 0.3), (0.1, 0.3, 1.0, 3.0)
SMALL = "text and texts of a small teacher"
WAYS = {  # how many times the lesson's length is read, whether ULD is there, how many times it the teacher writes
    "text": (1, False, 0),
    "ULD": (0, True, 0),
    "text and ULD": (1, True, 0),
    "its texts": (0, False, 1),
    "text and its texts": (1, False, 1),
    "text and ten times its texts": (1, False, 10),
    "twice the text": (2, False, 0),
    "eleven times the text": (11, False, 0),
    SMALL: (1, False, 1),
}
AGAIN = ("text and ULD", "text and its texts")  # with an exchanged teacher


@lru_cache(1)
def models() -> dict:
    return setting()


@lru_cache(3)
def part(name: str) -> str:
    text = king_james(name).encode("ascii", "ignore").decode()
    return text[KNOWN:] if name == "train" else text[:100_000]


def pairs(text: str) -> Tensor:
    """How often each of the student's tokens follows each in a text (160, 160), as shares."""
    bpe, table, _ = models()["student"]
    ids, v = torch.tensor(bpe.encode(text).ids), len(table)
    return torch.bincount(ids[:-1] * v + ids[1:], minlength=v * v).view(v, v) / (len(ids) - 1)


def lesson(seed: int, times: int = 1) -> str:
    """20 stretches of a seed, or so many times more; the longer lesson begins with the shorter one."""
    text, length = part("train"), CHARACTERS // STRETCHES
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(len(text) - 2 * length, (times * STRETCHES,), generator=generator).tolist()
    starts = [text.index("\n", place) + 1 for place in places]
    return "".join(text[start : start + length] for start in starts)


def answers(words: str, seed: int) -> Tensor:
    """The teacher's table, or that of one whose tokens are exchanged."""
    p = models()["teacher"][1]
    exchange = torch.randperm(len(p), generator=torch.Generator().manual_seed(seed))
    return p[:, exchange] if words == "exchanged" else p


def written(p: Tensor, characters: int, seed: int) -> str:
    """A text of so many characters, drawn token by token."""
    spelled, draw = models()["teacher"][2], np.random.default_rng(seed)
    rows, token, text, length = p.cumsum(-1).numpy(), 0, [], 0
    while length < characters:
        token = min(int(rows[token].searchsorted(draw.random())), len(p) - 1)
        text.append(spelled[token])
        length += len(spelled[token])
    return b"".join(text).decode("ascii", "ignore")[:characters]


def side_by_side(text: str, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The student's rows, the teacher's sorted answers, and their shares, where both have just ended a token."""
    mine, theirs = (ends(models()[who][0], text) for who in ("student", "teacher"))
    both = torch.tensor([(mine[i], theirs[i]) for i in sorted(mine.keys() & theirs.keys())])
    found, times = both.unique(dim=0, return_counts=True)
    return found[:, 0], p.sort(-1, descending=True).values[found[:, 1]].float(), times / times.sum()


def uld(z: Tensor, rows: Tensor, told: Tensor, share: Tensor) -> Tensor:
    """`companion.vocabulary.uld_loss`, each of the student's rows sorted once."""
    mine = z.softmax(-1).sort(-1, descending=True).values[rows]
    width = mine.shape[1]
    return share @ ((told[:, :width] - mine).abs().sum(-1) + told[:, width:].sum(-1))


def bits(z: Tensor, text: str) -> float:
    """Bits a character of a text, cut as the student cuts it."""
    of = pairs(text)
    tokens = len(models()["student"][0].encode(text).ids) - 1
    return -(of * z.log_softmax(-1)).sum().item() * tokens / math.log(2) / len(text)


def one(way: str, words: str, weight: float, lr: float, seed: int) -> dict:
    if way == "the teacher":
        return {"bits": teacher_bits("test")}
    read, p = lesson(seed), answers(words, seed)
    if way == SMALL:
        p = bigrams(models()["teacher"][0], read)
    of_text, with_uld, times = WAYS.get(way, (0, False, 0))
    counted = []
    if of_text:
        counted.append(lesson(seed, of_text))
    if times:
        counted.append(written(p, times * CHARACTERS, seed))
    target = sum(pairs(text) * len(text) for text in counted) / max(sum(map(len, counted)), 1)
    beside = side_by_side(read, p) if with_uld else None
    single = pairs(read).sum(0)
    z = (single + 0.5 / CHARACTERS).log().expand(len(single), -1).clone().requires_grad_()
    optimizer = torch.optim.Adam([z], lr)
    for step in range(STEPS if way in WAYS else 0):
        optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / STEPS)) / 2
        loss = -(target * z.log_softmax(-1)).sum() if counted else 0
        if with_uld:
            loss = loss + weight * uld(z, *beside)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"bits": bits(z.detach(), part("val" if seed in TUNING else "test"))}


def teacher_bits(part_name: str) -> float:
    bpe, p, _ = models()["teacher"]
    ids = torch.tensor(bpe.encode(part(part_name)).ids)
    return -p[ids[:-1], ids[1:]].log2().sum().item() / len(part(part_name))


if __name__ == "__main__":
    torch.set_num_threads(1)
    about = "Bits a character of bigram students with a tokenizer of their own after 200 steps"

    def rows(configs):
        return run_all("14_texts", about, configs, one)

    def settings(way):
        return [(w, lr) for w in (WEIGHTS if way == "text and ULD" else (1.0,)) for lr in RATES]

    chosen = {}
    for way in WAYS:
        table = rows([
            {"way": way, "words": "as they are", "weight": w, "lr": lr, "seed": seed}
            for w, lr in settings(way) for seed in TUNING
        ])  # fmt: skip

        def mean(of, table=table, way=way):
            here = (table["way"] == way) & (table["weight"] == of[0]) & (table["lr"] == of[1])
            return table["bits"][here & np.isin(table["seed"], TUNING)].mean()

        chosen[way] = min(settings(way), key=mean)
        print(way, chosen[way])
        for words in ("as they are", "exchanged") if way in AGAIN else ("as they are",):
            w, lr = chosen[way]
            rows([{"way": way, "words": words, "weight": w, "lr": lr, "seed": seed} for seed in REPORTED])
    rows([
        {"way": way, "words": "as they are", "weight": 0.0, "lr": 0.0, "seed": seed}
        for way in ("the teacher", "before the lesson") for seed in REPORTED
    ])  # fmt: skip
