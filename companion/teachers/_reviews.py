"""Sentences about films: what critics wrote, with their verdicts, and what the film is about; parted by film."""

import bz2
import csv
import io
import re
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

ENDS = {"train": (0, 60), "val": (60, 75), "test": (75, 100)}  # of a hundred films


class Sentence(NamedTuple):
    """One text, its kind ("fresh" or "rotten" by a critic, "plot" from a summary) and the film it is about."""

    text: str
    kind: str
    film: str


def read_reviews(path: Path, part: str) -> tuple[Sentence, ...]:
    """Sentences of one part, in an order drawn at random once; a text that stood before is left out."""
    first, end = ENDS[part]
    lines = csv.DictReader(io.StringIO(bz2.decompress(path.read_bytes()).decode("utf-8")))
    found: dict[str, Sentence] = {}
    for line in lines:
        kind, film = line["category"], line["movie_name"]
        texts = re.split(r"(?<=[.!?])\s+", line["text"]) if kind == "plot" else [line["text"]]
        for text in (" ".join(text.split()) for text in texts):
            if len(text) > 20:
                found.setdefault(text, Sentence(text, kind, film))
    here = [sentence for sentence in found.values() if first <= _number(sentence.film) % 100 < end]
    return tuple(sorted(here, key=lambda sentence: _number(sentence.text)))


def _number(text: str) -> int:
    return int(sha256(text.encode()).hexdigest()[:16], 16)
