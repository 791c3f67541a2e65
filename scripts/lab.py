"""Plain copies in a working folder, and Jupyter opened on them: python scripts/lab.py PAGES WORK  (`make lab`)

PAGES are the built pages, which hold the copies (see theme/plain.py). A reader's work is never overwritten: a copy
in WORK is replaced by a new edition only while its bytes are those that this script wrote. What the reader has changed
stays, and the script names it: renamed or moved away, it makes room for the new edition.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import nbformat
from nbformat.sign import NotebookNotary

ROOT = Path(__file__).parent.parent
RECORD = ".copies.json"  # what was written: path → hash
ANSWERS = '''"""Your answers to the exercises, in one file.

In a terminal, here: python -m companion.checks answers.py   (--list names the functions that it looks for)
"""
'''


def edition(pages: Path) -> dict[str, bytes]:
    """Path in the working folder → its content: notebooks, the stored runs that they read, a file for answers."""
    copies = pages / "_sources"
    files = {str(p.relative_to(copies)): p.read_bytes() for p in copies.rglob("*.ipynb")}
    runs = ROOT / "chapters/results"
    files |= {
        f"chapters/results/{p.relative_to(runs)}": p.read_bytes() for p in runs.rglob("*") if p.is_file()
    }
    return files | {"answers.py": ANSWERS.encode()}


def refresh(work: Path, files: dict[str, bytes]) -> list[str]:
    """Bring `work` to this edition; give the files that stay as the reader has changed them."""
    record = work / RECORD
    written = json.loads(record.read_text()) if record.exists() else {}
    kept, notary = [], NotebookNotary()
    for name in sorted({*files, *written}):
        target, new = work / name, files.get(name)
        old = target.read_bytes() if target.exists() else None
        if old is not None and old != new and digest(old) != written.get(name):
            kept += [name] if new is not None and digest(new) != written.get(name) else []
        elif new is None:  # this edition has it no longer, and nobody has touched it
            target.unlink(missing_ok=True)
            written.pop(name)
        else:
            written[name] = digest(new)
            if old != new:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(new)
                if (
                    target.suffix == ".ipynb"
                ):  # trusted, so that its stored figures show before anything is run
                    notary.sign(nbformat.reads(new.decode(), as_version=4))
    record.write_text(json.dumps(written, indent=1))
    return kept


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main(pages: str, work: str) -> None:
    folder = Path(work).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in refresh(folder, edition(Path(pages))):
        print(f"{folder / name} stays as you left it; rename it, and `make lab` brings the new edition.")
    print(f"Your notebooks are in {folder}. Nothing that you change there is overwritten.")
    command = [
        sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}",
        f"--LabApp.app_settings_dir={ROOT / 'scripts/lab'}",  # no question about news
        "--LabApp.default_url=/lab/tree/chapters/01_background.ipynb",
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        print("You are root, as in a container: Jupyter is started with --allow-root.")
        command.append("--allow-root")
    sys.stdout.flush()
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main(*sys.argv[1:])
