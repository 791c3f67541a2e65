"""A teacher's answers on disk: asked once, in shards that survive an interruption, read by row.

The teacher is asked shard by shard. A shard is one safetensors file, written under another name and renamed when it
is whole, so a run that is cut off leaves whole shards, and the next run asks for the others alone. What is kept of
an answer is the caller's choice: a dictionary of tensors, row i for example i.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ._input import temperature

Ask = Callable[[Tensor], dict[str, Tensor]]


def largest(logits_t: Tensor, k: int, T: float = 1.0) -> dict[str, Tensor]:
    """The k likeliest of V tokens, for `sparse_kd_loss(…, tail=True)`: 4 bytes each up to V = 65,536, else 6.

    Args:
        logits_t: (..., V). k: how many are kept, 1 … V. T: temperature of the probabilities.

    Returns:
        `index` (..., k), 16 bits where V ≤ 65,536 and else 32; `p` (..., k) in float16, whose sum is at most 1. What
        the k have not, 1 − Σ p, is the rest's: the tail needs no place of its own.

    Raises:
        ValueError: T ≤ 0, k is not in 1 … V, or logits with NaN, with +∞ or with −∞ only in a row.
    """
    V = logits_t.shape[-1]
    if not 1 <= k <= V:
        raise ValueError(f"k is how many of {V} tokens are kept, 1 … {V}; got {k}.")
    p, index = (logits_t.float() / temperature(T)).softmax(-1).topk(k, -1)
    if p.isnan().any():
        raise ValueError("these logits hold NaN or +∞, or −∞ only: such rows have no probabilities to keep.")
    p = p.half()
    over = p.double().sum(-1, keepdim=True) > 1  # float16 rounds up as well as down
    p = torch.where(over, torch.nextafter(p, torch.zeros_like(p)), p)
    return {"index": index.to(torch.uint16 if V <= 1 << 16 else torch.int32), "p": p}


def halved(logits_t: Tensor) -> dict[str, Tensor]:
    """All logits in float16, 2 bytes each: softmax(v) for any T. The largest of a row is 0, where float16 is finest.

    Args:
        logits_t: (..., V), finite.

    Returns:
        `logits` (..., V): v less its row's largest, so that log p is right to 2⁻¹¹ of its distance from the largest.

    Raises:
        ValueError: a logit is not finite, or 65,504 or more below the largest, where float16 ends.
    """
    v = logits_t - logits_t.amax(-1, keepdim=True)
    if not v.min() > -65504:  # NaN, too
        raise ValueError(
            f"float16 ends at 65,504; a row of these logits spans {-v.min().item():g}. Clamp what is as good as "
            "impossible: v.clamp(min=v.amax(-1, keepdim=True) - 1000)."
        )
    return {"logits": v.half()}


def store(ask: Ask, x: Tensor, folder: str | Path, rows: int = 1024, note: str = "") -> list[int]:
    """Ask a teacher about each row of x that no whole shard in `folder` answers yet, and write its answers there.

    Args:
        ask: called as ask(x[a:b]), at most `rows` at a time; returns tensors of b − a rows each. For instance
            lambda x: largest(teacher(x), k=50), lambda x: halved(teacher(x)), or
            lambda x: {"features": teacher.features(x).half()}, what the last layer is given.
        x: (N, ...), in the order in which the rows will be read. rows: of a shard.
        note: whatever else must be the same for the answers to be the same: the teacher's revision, T, k.

    Returns:
        The numbers of the shards that were asked for; empty where all were there.

    Raises:
        ValueError: the folder holds answers to another x, in other shards, or with another note; the teacher
            returned something else than a dictionary of tensors with a row for each input.
        OSError: the disk is full, say. Whole shards stay, and the next call goes on behind them.
    """
    if rows < 1 or not len(x):
        raise ValueError(f"takes at least one input and one row a shard; got {len(x)} inputs, rows = {rows}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _same(folder, {"inputs": _digest(x), "rows": rows, "count": len(x), "note": note})
    asked = []
    for number, part in enumerate(x.split(rows)):
        path = _shard(folder, number)
        if _length(path) != len(part):
            _write(_answers(ask, part), path)
            asked.append(number)
    return asked


class Stored:
    """The answers that `store` wrote, by row: `Stored(folder)[index]` is a dictionary of tensors.

    Args:
        folder: of `store`. x: the inputs; if given, they must be the ones that were asked about.

    Raises:
        FileNotFoundError: there is no such store. ValueError: a shard is missing or cut off; x is another.
    """

    def __init__(self, folder: str | Path, x: Tensor | None = None):
        self.folder = Path(folder)
        try:
            self.about = json.loads((self.folder / "about.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{self.folder} holds no stored answers: store(ask, x, folder)."
            ) from None
        if x is not None and _digest(x) != self.about["inputs"]:
            raise ValueError(
                f"the answers in {self.folder} belong to other inputs: the same rows in the same order are due."
            )
        self.starts = list(range(0, len(self), self.about["rows"]))
        ends = [*self.starts[1:], len(self)]
        lengths = (_length(_shard(self.folder, i)) for i in range(len(ends)))
        due = (end - start for start, end in zip(self.starts, ends, strict=True))
        broken = [i for i, (found, n) in enumerate(zip(lengths, due, strict=True)) if found != n]
        if broken:
            raise ValueError(
                f"{len(broken)} of {len(ends)} shards are missing or cut off, the first is {broken[0]}: "
                "call store(ask, x, folder) again, which asks for these alone."
            )

    def __len__(self) -> int:
        return self.about["count"]

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        """The answers of the rows in `index` (n,), in its order."""
        from safetensors import safe_open

        index = torch.as_tensor(index)
        if index.dtype != torch.long or index.dim() != 1 or not len(index):
            raise TypeError(f"takes row numbers (n,), int64; got {index.dtype} {tuple(index.shape)}.")
        if not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(f"rows are 0 … {len(self) - 1}; got {index.min()} … {index.max()}.")
        shards = torch.tensor([bisect_right(self.starts, i) - 1 for i in index.tolist()])
        parts, order = [], []
        for number in shards.unique().tolist():
            places = (shards == number).nonzero()[:, 0]
            local = (index[places] - self.starts[number]).tolist()
            with safe_open(_shard(self.folder, number), "pt") as file:
                names = list(file.keys())
                slices = {name: file.get_slice(name) for name in names}
                parts.append({n: torch.cat([s[i : i + 1] for i in local]) for n, s in slices.items()})
            order.append(places)
        back = torch.cat(order).argsort()
        return {name: torch.cat([part[name] for part in parts])[back] for name in parts[0]}

    def bytes(self) -> int:
        """What the shards take on disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))


def _answers(ask: Ask, x: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        found = ask(x)
    if not isinstance(found, dict) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise ValueError(f"ask(x) returns a dictionary of tensors; got {type(found).__name__}.")
    wrong = {name: tuple(t.shape) for name, t in found.items() if not t.dim() or len(t) != len(x)}
    if wrong:
        raise ValueError(f"ask(x) returns a row for each of {len(x)} inputs; got {wrong}.")
    return {name: t.detach().cpu().contiguous() for name, t in found.items()}


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    """Whole or not at all: a file under its own name is complete."""
    from safetensors.torch import save_file

    part = path.with_suffix(f".part{os.getpid()}")
    try:
        save_file(tensors, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _length(path: Path) -> int | None:
    """Rows of a shard; None if it is missing or cut off, which its header tells."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            lengths = {file.get_slice(name).get_shape()[0] for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return None
    return lengths.pop() if len(lengths) == 1 else None


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.safetensors"


def _same(folder: Path, about: dict) -> None:
    """The folder's description, written if there is none; a store is of one teacher and one x."""
    path = folder / "about.json"
    if not path.exists():
        part = path.with_suffix(f".part{os.getpid()}")
        part.write_text(json.dumps(about), encoding="utf-8")
        os.replace(part, path)
    found = json.loads(path.read_text(encoding="utf-8"))
    differ = [
        f"{key}: {found.get(key)!r} there, {about[key]!r} here"
        for key in about
        if found.get(key) != about[key]
    ]
    if differ:
        raise ValueError(
            f"{folder} holds other answers ({'; '.join(differ)}). Take a folder of its own for each."
        )


def _digest(x: Tensor) -> str:
    """SHA-256 of the inputs, row by row in their order."""
    sha = hashlib.sha256(f"{x.dtype} {tuple(x.shape)}".encode())
    for part in _pieces(x):
        sha.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _pieces(x: Tensor) -> Iterator[Tensor]:
    return iter(x.split(4096))
