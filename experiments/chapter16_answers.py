"""Ask a teacher behind a server what it makes of reviews; chapter 16 trains students on its answers.

    make server                                   # in another terminal
    python -m experiments.chapter16_answers       # goes on where it stopped; a second a question on one core

The answers go to chapters/results/16_answers.jsonl, one line each.
"""

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
ASKED = 68


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


def main() -> None:
    ask(asked(), MODEL, FOLDER / "16_answers.jsonl", timeout=600, **WANTED)


if __name__ == "__main__":
    main()
