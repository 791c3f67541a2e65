"""A text that a language model knows: the Bible of King James (1611), cut in three by place."""

import re
from pathlib import Path

# The end of each part, as a share of the text: where the New Testament begins, the test does, nearly.
ENDS = {"train": (0, 0.7), "val": (0.7, 0.77), "test": (0.77, 1)}


def read_king_james(path: Path, part: str) -> str:
    """One part of the text, paragraphs on lines of their own; the file is Python, and read as text only."""
    text = path.read_text(encoding="utf-8").split('"""')[1].removeprefix("\n")
    text = re.sub(r"[\[\]]", "", text)  # brackets mark words that the translators added
    start, end = (int(share * len(text)) for share in ENDS[part])
    return text[start:end]
