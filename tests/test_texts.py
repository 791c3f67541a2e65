"""The text that a language model knows: read out of a Python file that is not run, cut in three."""

import pytest

from companion import teachers
from companion.teachers._texts import read_king_james


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "king_james.py"
    body = "".join(f"Line {i} and darkness [was] upon it.\n" for i in range(100))
    path.write_text(f'raise SystemExit("it was run")\nbible = Bible(\n    """\n{body}""", {{1: "more"}})\n')
    return path


def test_the_parts_are_the_text_without_its_brackets(file):
    parts = [read_king_james(file, part) for part in ("train", "val", "test")]
    whole = "".join(parts)
    assert whole.startswith("Line 0 and darkness was upon it.\nLine 1") and whole.endswith(
        "Line 99 and darkness was upon it.\n"
    )
    assert [round(100 * len(part) / len(whole)) for part in parts] == [70, 7, 23]


def test_another_file_and_another_part_are_refused(file):
    with pytest.raises(ValueError, match=r"king_james\.py: truncated or another file"):
        teachers.king_james("train", file.parent)
    with pytest.raises(ValueError, match="got 'dev'"):
        teachers.king_james("dev")
