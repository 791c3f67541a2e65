"""Ask a teacher behind a server what it makes of reviews; chapter 16 trains students on its answers.

    make server                                   # in another terminal
    python -m experiments.chapter16_answers       # goes on where it stopped; a second a question on one core

The answers go to chapters/results/16_answers.jsonl, one line each. Beside them, 16_answers.safetensors has the sentence
encoder's vectors of these reviews and of others, reduced to their 64 main directions, with the critics' verdicts.
"""

import torch
from safetensors.torch import save_file

from companion.remote import ask
from companion.teachers import reviews
from experiments.common import FOLDER

MODEL = "SmolLM2-135M-Instruct"
SHOTS = (
    ("A warm, funny and wonderfully acted film.", "positive"),
    ("Dull, overlong and badly written.", "negative"),
    ("It never finds a story worth telling.", "negative"),
    ("One of the best of the year.", "positive"),
)
WANTED = {"temperature": 1.0, "max_tokens": 1, "top_logprobs": 11}
ASKED, VALIDATED, TESTED, DIRECTIONS = 68, 300, 800, 64


def messages(review: str) -> list[dict]:
    """The question, after four examples with their answers."""
    turns = []
    for text, answer in (*SHOTS, (review, None)):
        turns.append({"role": "user", "content": f"Review: {text}\nPositive or negative?"})
        turns.append({"role": "assistant", "content": answer})
    return turns[:-1]


def verdicts(part: str) -> list[tuple[int, str, int]]:
    """Place in reviews(part), text, 1 for "fresh", of the short reviews of a part."""
    return [
        (i, x.text, int(x.kind == "fresh"))
        for i, x in enumerate(reviews(part))
        if x.kind != "plot" and 40 <= len(x.text) <= 140
    ]


def asked() -> list[list[dict]]:
    """The first reviews of the training films, as questions."""
    return [messages(text) for _, text, _ in verdicts("train")[:ASKED]]


def main() -> None:
    from experiments.chapter16 import SIZES, vectors

    ask(asked(), MODEL, FOLDER / "16_answers.jsonl", timeout=600, **WANTED)
    of = {part: vectors([x.text for x in reviews(part)[: SIZES[part]]], part) for part in SIZES}
    mean = of["train"].mean(0)
    directions = torch.linalg.svd(of["train"] - mean, full_matrices=False)[2][:DIRECTIONS].T
    scale = ((of["train"] - mean) @ directions).std()
    stored = {}
    for part, n in (("train", ASKED), ("val", VALIDATED), ("test", TESTED)):
        chosen = [x for x in verdicts(part) if x[0] < SIZES[part]][:n]
        stored[f"{part}_x"] = (((of[part] - mean) @ directions) / scale)[[i for i, _, _ in chosen]].half()
        stored[f"{part}_y"] = torch.tensor([y for _, _, y in chosen])
    save_file(stored, FOLDER / "16_answers.safetensors")


if __name__ == "__main__":
    main()
