"""Sentence vectors: documents a second of the teacher, of the static student, and of Model2Vec where it is installed.

    python benchmarks/embedding.py [ROUNDS]

Each gets the same sentences about films as text, tokenises them and gives their vectors, on one thread, in turn.
"""

import os
import sys
from pathlib import Path

import torch
from machine import in_turn, machine, publish

from companion.models import StaticEncoder, parameters
from companion.teachers import minilm, reviews

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # in threads of its own its time would not be seen
MODEL2VEC = Path(__file__).parent.parent / "_build/chapter16/model2vec"


def encoders() -> dict:
    """Name → (texts → vectors, its size in bytes as it is kept)."""
    teacher = minilm()
    student = StaticEncoder(30_522, seed=0).requires_grad_(False)  # its speed does not depend on its weights

    def static(texts):
        rows = [x.ids for x in teacher.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = torch.tensor([len(row) for row in rows])
        return student(torch.tensor([i for row in rows for i in row]), lengths.cumsum(0) - lengths)

    found = {
        "teacher": (teacher.embed, 4 * parameters(teacher)),
        "student": (static, 2 * parameters(student)),
    }
    try:
        from model2vec import StaticModel
    except ImportError:
        return found
    if MODEL2VEC.exists():
        model = StaticModel.from_pretrained(MODEL2VEC)
        found["Model2Vec"] = (model.encode, model.embedding.nbytes)
    return found


def main(rounds: int = 3) -> None:
    torch.set_num_threads(1)
    texts = [sentence.text for sentence in reviews("test")[:200]]
    found = encoders()
    calls = {name: (lambda embed=embed: embed(texts)) for name, (embed, _) in found.items()}
    seconds = in_turn(calls, rounds)
    lines = ["| encoder | documents a second | times the teacher's | size |", "|---|---|---|---|"]
    for name, t in seconds.items():
        size = found[name][1] / 1e6
        lines.append(f"| {name} | {len(texts) / t:,.0f} | **{seconds['teacher'] / t:.0f}** | {size:.1f} MB |")
    note = f"{len(texts)} sentences about films, 27 tokens each on average; tokenising is part of the time."
    publish("embedding", "\n".join([machine(), "", *lines, "", note]))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
