"""The CMU Pronouncing Dictionary, read where it lies, and cut into parts by a hash of the word."""

from hashlib import sha256
from pathlib import Path

from ._pronouncer import LONGEST, PHONEMES

PARTS = {"train": range(15, 100), "val": range(10, 15), "test": range(10)}  # of 100


def read_words(path: Path, part: str) -> dict[str, tuple[str, ...]]:
    """Words of a part with their pronunciations, in the order of their hashes."""
    found: dict[str, list[str]] = {}
    order: dict[str, bytes] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, said = line.partition(" #")[0].split(" ", 1)
        word = word.partition("(")[0]  # "either(2)" is its second pronunciation
        if not (word.isascii() and word.isalpha()):
            continue
        if word not in order:
            order[word] = sha256(word.encode()).digest()
        if int.from_bytes(order[word][:8], "big") % 100 in PARTS[part]:
            found.setdefault(word, []).append(said.strip())
    known = set(PHONEMES)
    fit = [w for w in found if all(set(s.split()) <= known and len(s.split()) < LONGEST for s in found[w])]
    return {word: tuple(found[word]) for word in sorted(fit, key=lambda word: order[word][8:])}
