"""Ask a teacher what it makes of reviews; chapter 19 trains students on its answers.

    make server                                # in another terminal
    python -m experiments.chapter19 server     # 68 reviews; goes on where it stopped, a second a question on one core
    python -m experiments.chapter19            # the rest: both parts go on where they stopped, 15 minutes on one core

The server's answers go to chapters/results/19_answers.jsonl, one line each, as `companion.remote.ask` keeps them. The
others come from the same weights and the same words, and go to 19_opinions.csv: what the 11 likeliest tokens give to
"positive" and to "negative". The first 68 reviews are the server's again.

Students learn from these answers, and go to 19_students.csv, 19_few.csv and 19_both.csv: a linear layer on the vectors
of chapter 16's table. The decay of its weights is chosen on reviews of validation films, with their right answers, and
it is judged on test films.
"""

import csv
import sys
from functools import cache

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from companion.models import StaticEncoder
from companion.remote import ask
from companion.teachers import minilm, reviews, smollm2
from companion.tokens import sparse_kd_loss
from experiments.chapter16 import bags
from experiments.common import FOLDER, TUNING, choose_then_report, run_all

MODEL = "SmolLM2-135M-Instruct"
SHOTS = (
    ("A warm, funny and wonderfully acted film.", "positive"),
    ("Dull, overlong and badly written.", "negative"),
    ("It never finds a story worth telling.", "negative"),
    ("One of the best of the year.", "positive"),
)
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # the template's own
K = 11
WANTED = {"temperature": 1.0, "max_tokens": 1, "top_logprobs": K}
ASKED = 68
SIZES = {"train": 1600, "test": 800, "val": 200}
AT_ONCE = 20
KINDS = ("right", "top k", "label", "1 draws", "4 draws", "16 draws")
NUMBERS = (50, 100, 200, 400, 800, 1600)
FEW = (2, 5, 10, 25)  # of which each draw differs much: 40 seeds
DECAYS = (0.003, 0.03, 0.3, 3.0, 30.0)
SHARES = (0.1, 0.2, 0.5)
LABELLED = 50  # right answers by which a threshold is moved


def messages(review: str) -> list[dict]:
    """The question, after four examples with their answers."""
    turns = []
    for text, answer in (*SHOTS, (review, None)):
        turns.append({"role": "user", "content": f"Review: {text}\nPositive or negative?"})
        turns.append({"role": "assistant", "content": answer})
    return turns[:-1]


def short_reviews(part: str) -> list[str]:
    """The short reviews of the films of a part."""
    return [x.text for x in reviews(part) if x.kind != "plot" and 40 <= len(x.text) <= 140]


def asked() -> list[list[dict]]:
    """The first reviews of the training films, as questions."""
    return [messages(text) for text in short_reviews("train")[:ASKED]]


def written(review: str) -> str:
    """The messages as the model's template writes them, up to where its answer begins."""
    turns = [{"role": "system", "content": SYSTEM}, *messages(review)]
    text = "".join(f"<|im_start|>{x['role']}\n{x['content']}<|im_end|>\n" for x in turns)
    return text + "<|im_start|>assistant\n"


def meaning(tokenizer) -> dict[int, int]:
    """From a token's id to its class: 1 positive, 0 negative; as `words` of the chapter."""
    named = {"positive": 1, "negative": 0}
    forms = {g + f(w): c for w, c in named.items() for g in ("Ġ", "") for f in (str, str.capitalize)}
    ids = {tokenizer.token_to_id(w): c for w, c in forms.items()}
    return {i: c for i, c in ids.items() if i is not None}


@torch.no_grad()
def opinions(model, texts: list[str]) -> torch.Tensor:
    """(N, 2): what the K likeliest tokens give to negative and to positive. The common beginning is read once."""
    ids = [model.tokenizer.encode(written(text), add_special_tokens=False).ids for text in texts]
    common = 0
    while len({row[common] for row in ids}) == 1 and common < min(map(len, ids)) - 1:
        common += 1
    start: list = []
    model(torch.tensor([ids[0][:common]]), cache=start)
    rest = [row[common:] for row in ids]
    padded = torch.tensor([row + [0] * (max(map(len, rest)) - len(row)) for row in rest])
    cache = [tuple(x.expand(len(texts), *x.shape[1:]) for x in kept) for kept in start]
    hidden = model.features(padded, cache=cache)
    last = hidden[torch.arange(len(texts)), torch.tensor([len(row) - 1 for row in rest])]
    top = (last @ model.embedding.weight.T).log_softmax(-1).topk(K)
    given = torch.zeros(len(texts), 2)
    for token, c in meaning(model.tokenizer).items():
        given[:, c] += (top.values.exp() * (top.indices == token)).sum(1)
    return given


def right_pairs(scores: Tensor, y: Tensor) -> float:
    """Of all pairs of a positive and a negative review, the share (%) whose positive one has the higher score."""
    return 100 * (scores[y == 1][:, None] > scores[y == 0]).double().mean().item()


def moved(scores: Tensor, known: Tensor, y: Tensor) -> Tensor:
    """The scores, less a threshold above which lies as large a share of `known` as y has positives."""
    return scores - known.double().quantile(1 - y.double().mean())


@cache
def vectors(part: str) -> Tensor:
    """The stored table's vectors of the part's reviews, 8 long, with a 1 for the bias."""
    file = load_file(FOLDER / "16_student.safetensors")
    table = StaticEncoder(*file["table"].shape, len(file["up"]))
    with torch.no_grad():
        table.table.weight.copy_(file["table"] * file["scale"].float())
        table.up.weight.copy_(file["up"])
        rows = minilm().tokenizer.encode_batch(short_reviews(part)[: SIZES[part]], add_special_tokens=False)
        return F.pad(8 * table(*bags([torch.tensor(row.ids) for row in rows])), (0, 1), value=1.0)


@cache
def verdicts(part: str) -> Tensor:
    """What the critics meant: 1 positive, 0 negative."""
    of = [x.kind for x in reviews(part) if x.kind != "plot" and 40 <= len(x.text) <= 140]
    return torch.tensor([int(kind == "fresh") for kind in of[: SIZES[part]]])


@cache
def told(part: str) -> Tensor:
    """(N, 2): the stored opinions."""
    p = torch.zeros(SIZES[part], 2)
    with (FOLDER / "19_opinions.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(x for x in file if x[0] != "#"):
            if row["part"] == part:
                p[int(row["review"])] = torch.tensor([float(row["negative"]), float(row["positive"])])
    return p


def targets(kind: str, pick: Tensor, g: torch.Generator) -> Tensor:
    """(n, 2): what the student is to learn of the picked reviews: "right", "top k", "label" or a number of draws."""
    p = told("train")[pick]
    if kind == "right":
        return F.one_hot(verdicts("train")[pick], 2).float()
    if kind == "label":
        return F.one_hot(p.argmax(-1), 2).float()
    if kind == "top k":
        return p
    whole = torch.cat([p, (1 - p.sum(1, keepdim=True)).clamp_min(0)], 1)
    drawn = torch.multinomial(whole, int(kind.split()[0]), replacement=True, generator=g)
    return F.one_hot(drawn, 3).float().mean(1)[:, :2]


def layer(groups: list[tuple[float, Tensor, Tensor]], decay: float, steps: int = 100) -> Tensor:
    """The weights (385, 3), both classes and the tail, of a layer that learns from groups (share, reviews, answers)."""
    W = torch.zeros(groups[0][1].shape[1], 3, requires_grad=True)
    optimiser = torch.optim.Adam([W], lr=0.1)
    for _ in range(steps):
        loss = decay / 2 * W[:-1].square().sum()
        for share, x, p in groups:
            loss = loss + share * sparse_kd_loss(x @ W, torch.arange(2).expand_as(p), p, tail=True)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return W.detach()


def judged(W: Tensor, seed: int, g: torch.Generator) -> dict:
    """What becomes of a layer's verdicts on new reviews (%), also with a threshold moved by fifty right answers."""
    part = "val" if seed in TUNING else "test"
    y, z = verdicts(part), vectors(part) @ W
    score = (z[:, 1] - z[:, 0]).double()
    own = (told(part)[:, 1] > told(part)[:, 0]).long()
    some = torch.randperm(SIZES["val"], generator=g)[:LABELLED]
    known = (vectors("val")[some] @ W)[:, :2].diff(dim=1)[:, 0]
    shifted = moved(score, known, verdicts("val")[some])
    return {
        "pairs": right_pairs(score, y), "right": 100 * ((score > 0) == y).double().mean().item(),
        "sure": 100 * score.abs().sigmoid().mean().item(), "positive": 100 * (score > 0).double().mean().item(),
        "agree": 100 * ((score > 0) == own).double().mean().item(),
        "follows": right_pairs(score, own),
        "shifted": 100 * ((shifted > 0) == y).double().mean().item(),
    }  # fmt: skip


def student(kind: str, n: int, decay: float, seed: int) -> dict:
    g = torch.Generator().manual_seed(seed)
    pick = torch.randperm(SIZES["train"], generator=g)[:n]
    return judged(layer([(1, vectors("train")[pick], targets(kind, pick, g))], decay), seed, g)


def few_student(n: int, decay: float, seed: int) -> dict:
    return student("top k", n, decay, seed)


def both_student(share: float, decay: float, seed: int) -> dict:
    """Of the top k of 800 reviews and of the right answers to the first fifty of them, which weigh `share`."""
    g = torch.Generator().manual_seed(seed)
    pick = torch.randperm(SIZES["train"], generator=g)[:800]
    groups = [(share, pick[:LABELLED], "right"), (1 - share, pick, "top k")]
    groups = [(weight, vectors("train")[of], targets(kind, of, g)) for weight, of, kind in groups]
    return judged(layer(groups, decay), seed, g)


def ask_here() -> None:
    """The opinions without a server, in batches."""
    path = FOLDER / "19_opinions.csv"
    if not path.exists():
        path.write_text(
            "# what SmolLM2-135M-Instruct gives to both words, for the first short reviews of each part\n"
            f"# python -m experiments.chapter19\n# torch {torch.__version__}, one thread\n"
            "part,review,negative,positive\n",
            encoding="utf-8",
        )
    with path.open(encoding="utf-8") as file:
        known = {(row["part"], int(row["review"])) for row in csv.DictReader(x for x in file if x[0] != "#")}
    if len(known) == sum(SIZES.values()):
        return
    model = smollm2()
    for part, n in SIZES.items():
        texts = short_reviews(part)[:n]
        missing = [i for i in range(len(texts)) if (part, i) not in known]
        missing.sort(key=lambda i: (i // 200, len(texts[i])))  # of like lengths together
        for at in range(0, len(missing), AT_ONCE):
            some = missing[at : at + AT_ONCE]
            rows = opinions(model, [texts[i] for i in some]).tolist()
            with path.open("a", encoding="utf-8") as file:
                file.writelines(
                    f"{part},{i},{no:.4f},{yes:.4f}\n" for i, (no, yes) in zip(some, rows, strict=True)
                )
        print(part, len(texts), flush=True)


def main() -> None:
    ask_here()
    for kind in KINDS:
        for n in NUMBERS:
            choose_then_report(
                "19_students", "a layer that learns from n answers of a teacher, or from right ones; per cent", student,
                "pairs", {"decay": DECAYS}, kind=kind, n=n,
            )  # fmt: skip
    about = "a layer that learns from the top k of n reviews; per cent"
    for n in FEW:
        chosen = choose_then_report("19_few", about, few_student, "pairs", {"decay": DECAYS}, n=n)
        run_all("19_few", about, [{**chosen, "seed": seed} for seed in range(10, 40)], few_student)
    choose_then_report(
        "19_both", "a layer that learns from the top k of 800 reviews and 50 right answers; per cent", both_student,
        "pairs", {"share": SHARES, "decay": DECAYS},
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] == ["server"]:
        ask(asked(), MODEL, FOLDER / "19_answers.jsonl", timeout=600, **WANTED)
    else:
        main()
