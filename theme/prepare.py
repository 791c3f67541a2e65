"""What a plain copy's set-up cell does before it imports anything: find the book's package, or bring it.

The source of `prepare` is pasted into each copy (see plain.py), so it imports what it needs itself and binds no name that
a chapter could use.
"""


def prepare(folder, files, url, commit):
    """Install companion where it is missing; go to the book's stored runs (`files`) where they are not here.

    Inside the book's clone and in its environment there is nothing to do. Elsewhere the clone is taken from `url` as it
    was at `commit`, into the folder "book", once.
    """
    from importlib.util import find_spec
    from os import chdir
    from pathlib import Path
    from shutil import which
    from subprocess import check_call, run
    from sys import executable, platform

    here, installed = Path.cwd(), find_spec("companion") is not None
    if installed and not (files and not Path("results").is_dir()):
        return
    places = [here / "book", here, *here.parents]
    clone = next(
        (p for p in places if (p / "companion/__init__.py").is_file() and (p / folder).is_dir()), None
    )
    if clone is None:
        if not (url and which("git")):
            needed = (
                "git" if url else "the book's clone around this notebook (a copy made by its CI can fetch it)"
            )
            raise FileNotFoundError(
                f"The book's package companion or its stored runs are missing: it takes {needed}."
            )
        print(f"Fetching the book from {url} into {here / 'book'} …", flush=True)
        for step in (
            ["init", "-q"],
            ["fetch", "-q", "--depth", "1", url, commit],
            ["checkout", "-q", "FETCH_HEAD"],
        ):
            Path("book").mkdir(exist_ok=True)
            check_call(["git", *step], cwd="book")
        clone = here / "book"
    if not installed:
        print("Installing companion, PyTorch and what the chapters need: a few minutes, once …", flush=True)
        pip = [executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        if platform == "linux" and not find_spec("torch") and not which("nvidia-smi"):
            # No GPU: PyTorch's build for CPUs, or pip takes gigabytes of CUDA. Should this fail, the next line does it.
            run([*pip, "torch", "--index-url", "https://download.pytorch.org/whl/cpu"])
        check_call([*pip, f"{clone}[book]"])
    if files and not Path("results").is_dir():
        chdir(clone / folder)
