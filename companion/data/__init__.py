"""Real data: a part of Fashion-MNIST and letters inside the package, scikit-learn's digits, the full Fashion-MNIST.

The official training set is cut by position, and the cut is the point: students learn from images that
no shipped teacher has seen.

    0 … 44,999       teachers (not in the package)
    45,000 … 54,999  students: `fashion("train")`
    55,000 … 59,999  validation: `fashion("val")`
    official test    10,000 images: `fashion("test")`

The letters are cut by typeface: no part has a family of another's, so a test is a test of style, too.
"""

import errno
import gzip
import hashlib
import lzma
import tempfile
import zlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..models import ConvNet

FASHION_CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
TEACHERS = 10
LETTERS_MEAN, LETTERS_STD = 0.1261, 0.3033  # of the pixels of `letters("train")`, scaled to 0 … 1
MEAN, STD = 0.2860, 0.3530  # of the pixels of the official training set, scaled to 0 … 1


@dataclass(frozen=True)
class Split:
    """Inputs and labels that belong together: `x` (N, ...) float32, `y` (N,) int64."""

    x: Tensor
    y: Tensor

    def __post_init__(self):
        if len(self.x) != len(self.y):
            raise ValueError(f"x has {len(self.x)} examples and y has {len(self.y)}: they must be aligned.")

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index) -> "Split":
        """A part of it: a slice, a list of positions, or an index or boolean tensor."""
        if isinstance(index, int):
            raise TypeError(f"take a slice, not one example: split[{index}:{index + 1}]")
        return Split(self.x[index], self.y[index])

    def to(self, device) -> "Split":
        return Split(self.x.to(device), self.y.to(device))

    def sample(self, per_class: int, seed: int) -> "Split":
        """`per_class` examples of each class, drawn without replacement; `seed` decides which."""
        if per_class < 0:
            raise ValueError(f"per_class is a number of examples; got {per_class}.")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator, device="cpu").to(self.y.device)
        chosen = []
        for c in self.y.unique().tolist():
            of_class = order[self.y[order] == c]
            if len(of_class) < per_class:
                raise ValueError(f"class {c} has {len(of_class)} examples; {per_class} were asked for.")
            chosen.append(of_class[:per_class])
        return self[torch.cat(chosen)]


def fashion(part: str) -> Split:
    """One of the embedded parts of Fashion-MNIST (Xiao, Rasul & Vollgraf 2017, MIT licence).

    Args:
        part: "train" (10,000 images no shipped teacher saw), "val" (5,000) or "test" (10,000, official).

    Returns:
        x (N, 1, 28, 28), pixels scaled to 0 … 1, then less 0.2860 and over 0.3530; y (N,) in 0 … 9.

    Raises:
        ValueError: an unknown part, or a file whose SHA-256 is not the recorded one.
        FileNotFoundError: a file of the package is missing.
    """
    if part not in ("train", "val", "test"):
        raise ValueError(f'part is "train", "val" or "test"; got {part!r}.')
    return _split(*_embedded(f"fashion_{part}.xz"))


def letters(part: str) -> Split:
    """Capitals drawn by `scripts/make_letters.py` from open fonts (SIL OFL 1.1; LICENSE-letters lists them).

    White on black, 14 to 20 pixels high, up to 2 pixels off the middle, 16 grey levels; in random order, so that a
    slice has all letters and families. A letter comes from any face of its group, regular, bold, italic or light.

    Args:
        part: "teacher" (8,736 images, 24 groups of families, for a teacher to learn from), "train" (4,992, 24 others,
            for students), "val" (2,080, 10 others) or "test" (4,680, 18 others). Each letter is as frequent as any other.

    Returns:
        x (N, 1, 28, 28), pixels scaled to 0 … 1, then less 0.1261 and over 0.3033; y (N,) in 0 … 25, as `LETTERS`.

    Raises:
        ValueError: an unknown part, or a file whose SHA-256 is not the recorded one.
        FileNotFoundError: a file of the package is missing.
    """
    if part not in ("teacher", "train", "val", "test"):
        raise ValueError(f'part is "teacher", "train", "val" or "test"; got {part!r}.')
    return _split(*_embedded(f"letters_{part}.xz"), LETTERS_MEAN, LETTERS_STD)


def fashion_teacher(index: int = 0) -> ConvNet:
    """A shipped teacher: `ConvNet(16)`, trained by `scripts/train_teachers.py` on images 0 … 44,999.

    Args:
        index: 0 … 9; ten teachers, each with its own seed, so that experiments can draw the teacher too.

    Returns:
        The teacher in eval mode, without gradients.

    Raises:
        ValueError: no such index, or a file whose SHA-256 is not the recorded one.
        ImportError: safetensors is not installed (`pip install safetensors`).
    """
    return _teacher("fashion_teachers.safetensors", index, 10)


def letters_teacher(index: int = 0) -> ConvNet:
    """A shipped teacher of letters: `ConvNet(16, 26)`, trained by `scripts/train_teachers.py` on `letters("teacher")`.

    It has seen no family of the other parts. Args, Returns and Raises as `fashion_teacher`.
    """
    return _teacher("letters_teachers.safetensors", index, len(LETTERS))


def _teacher(file: str, index: int, classes: int) -> ConvNet:
    if index not in range(TEACHERS):
        raise ValueError(f"index is 0 … {TEACHERS - 1}; got {index}.")
    from safetensors.torch import load

    state = load(_checked(file))
    prefix = f"{index}."
    teacher = ConvNet(16, classes, seed=0)
    teacher.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
    return teacher.eval().requires_grad_(False)


def digits(seed: int = 0) -> tuple[Split, Split, Split]:
    """scikit-learn's 8×8 digits (1,797 images), shuffled by `seed` into 1,000 train, 297 val, 500 test.

    Returns:
        Three Splits: x (N, 64), pixels scaled to 0 … 1; y (N,) in 0 … 9.
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed), device="cpu")
    whole = Split(torch.from_numpy(x / 16).float()[order], torch.from_numpy(y).long()[order])
    return whole[:1000], whole[1000:1297], whole[1297:]


def fashion_full(folder: str | Path | None = None) -> tuple[Split, Split]:
    """The full Fashion-MNIST: 60,000 training and 10,000 test images, as `fashion` scales them.

    Args:
        folder: where the four official IDX files lie, with or without .gz. None downloads them once
            (31 MB, through pooch) into pooch's cache, and checks the MD5 that the dataset's README prints.

    Raises:
        FileNotFoundError: the folder lacks a file, or there is no folder and the download failed.
        OSError: there is no folder, and the cache cannot be written to or the disk is full.
        ValueError: a file is broken, or its content does not have the recorded SHA-256.
        ImportError: no folder, and pooch is not installed (`pip install pooch`).
    """
    parts = {
        part: [_idx(name, folder) for name in _OFFICIAL if name.startswith(part)]
        for part in ("train", "t10k")
    }
    return _split(*parts["train"]), _split(*parts["t10k"])


_SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# MD5 of the official .gz (from the dataset's README) and SHA-256 of what is inside it
_OFFICIAL = {
    "train-images-idx3-ubyte": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte": (
        "25c81989df183df01b3e8a0aad5dffbe",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte": (
        "bef4ecab320f06d8554ea6380940ec79",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": (
        "bb300cfdad3c16e7a12a480ee83cd310",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


def _idx(name: str, folder: str | Path | None) -> np.ndarray:
    """One official IDX file as uint8: (N, 28, 28) images or (N,) labels."""
    md5, sha256 = _OFFICIAL[name]
    path = _download(f"{name}.gz", md5) if folder is None else _in_folder(name, Path(folder))
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{path} is no whole gzip file ({error}): not the official file. Get it from {_SITE}{name}.gz"
            ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path}: SHA-256 of the content is {found}, expected {sha256}: not the official file. "
            f"Get it from {_SITE}{name}.gz"
        )
    header = 16 if "idx3" in name else 8
    values = np.frombuffer(content, np.uint8, offset=header)
    return values.reshape(-1, 28, 28) if "idx3" in name else values


def _in_folder(name: str, folder: Path) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise FileNotFoundError(f"{folder} holds neither {name} nor {name}.gz; get them from {_SITE}{name}.gz")


def _download(name: str, md5: str) -> Path:
    import pooch

    cache = Path(pooch.os_cache("companion"))
    advice = 'pass folder="…" with the four official files; fashion("train") needs neither.'
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache) as probe:
            probe.write(bytes(1 << 20))
    except OSError as error:
        raise OSError(
            f"{cache}, where downloads are kept, cannot be written to ({error.strerror or error}): make it "
            f"writable or make room, set XDG_CACHE_HOME to another folder, or {advice}"
        ) from error
    try:
        return Path(pooch.retrieve(_SITE + name, f"md5:{md5}", fname=name, path=cache))
    except ValueError as error:  # pooch: the MD5 is another
        raise ValueError(f"{_SITE}{name}, as downloaded, is not the official file: {error}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(
                error.errno, f"the disk is full: {name} did not fit into {cache}; {advice}"
            ) from error
        raise FileNotFoundError(
            f"{_SITE}{name} could not be downloaded ({type(error).__name__}). Without a network, {advice}"
        ) from error


def _checked(name: str) -> bytes:
    """A data file of the package, or an error if its SHA-256 is not the one in SHA256SUMS."""
    folder = files(__package__)
    remedy = "Install companion again; in a clone: git checkout companion/data"
    try:
        sums = folder.joinpath("SHA256SUMS").read_text()
        content = folder.joinpath(name).read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error.filename} is missing. {remedy}") from error
    recorded = dict(reversed(line.split()) for line in sums.splitlines() if line.strip())
    found = hashlib.sha256(content).hexdigest()
    if found != recorded.get(name):
        raise ValueError(f"{name}: SHA-256 is {found}, expected {recorded.get(name)}. {remedy}")
    return content


def _embedded(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) of one of the package's .xz files."""
    raw = np.frombuffer(lzma.decompress(_checked(name)), np.uint8)
    n = len(raw) // 785
    return raw[: n * 784].reshape(n, 28, 28), raw[n * 784 :]


def _split(images: np.ndarray, labels: np.ndarray, mean: float = MEAN, std: float = STD) -> Split:
    x = (torch.from_numpy(images.astype(np.float32))[:, None] / 255 - mean) / std
    return Split(x, torch.from_numpy(labels.astype(np.int64)))
