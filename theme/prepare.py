"""What a plain copy's set-up cell does before it imports anything: find the book's package, or bring it.

The source of `prepare` is pasted into each copy (see plain.py), so it imports what it needs itself and binds no name that
a chapter could use.
"""


def prepare(folder, files, url, commit):
    """Install companion where it is missing, and go where `files`, which this notebook reads, can be read.

    In the book's own environment there is nothing to do. Elsewhere the book's clone is looked for around this notebook,
    or fetched from `url` into the folder "book", as it was at `commit`.
    """
    from importlib.util import find_spec
    from os import chdir
    from pathlib import Path
    from shutil import which
    from subprocess import check_call, run
    from sys import executable, platform

    installed = find_spec("companion") is not None
    if installed and (not files or Path(files).exists()):
        return
    places = [Path("book").resolve(), *Path("x").resolve().parents]
    books = [p for p in places if (p / "companion/__init__.py").exists() and (p / folder).exists()]
    if not books and not url:
        needed = f"reads {files} of the book's clone" if installed else "needs the book's package, companion"
        raise FileNotFoundError(
            f"This notebook {needed}. Put it into the clone, or run there: pip install .[book]"
        )
    if not books:
        books = places[:1]
        print(f"Fetching the book from {url} into {books[0]} …", flush=True)
        books[0].mkdir(exist_ok=True)
        fetch = ["fetch", "-q", "--depth", "1", url, commit]
        for step in (["init", "-q"], fetch, ["checkout", "-q", "FETCH_HEAD"]):
            check_call(["git", *step], cwd=books[0])
    if not installed:
        print("Installing companion, PyTorch and what the chapters need: a few minutes, once …", flush=True)
        pip = [executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        if platform == "linux" and not find_spec("torch") and not which("nvidia-smi"):
            # No GPU: PyTorch's build for the CPU, as pip would take gigabytes of CUDA. If this fails, it does below.
            run([*pip, "torch", "--index-url", "https://download.pytorch.org/whl/cpu"])
        check_call([*pip, f"{books[0]}[book]"])
    if files and not Path(files).exists():
        chdir(books[0] / folder)
