"""Make the embedded part of Fashion-MNIST from the four official files.

    python scripts/make_fashion.py FOLDER     # FOLDER holds the IDX files, with or without .gz

Writes companion/data/fashion_{train,val,test}.xz (all images, then all labels, uint8) and their
lines of SHA256SUMS. The content is checked against the recorded SHA-256 before it is used, and the
result is the same bytes on every run with the same liblzma.
"""

import lzma
import sys
from pathlib import Path

import numpy as np
from checksums import record

from companion.data import _idx

OUT = Path(__file__).parent.parent / "companion/data"
CUTS = {"train": ("train", 45_000, 55_000), "val": ("train", 55_000, 60_000), "test": ("t10k", 0, 10_000)}


def main(folder: str) -> None:
    for part, (source, start, stop) in CUTS.items():
        images = _idx(f"{source}-images-idx3-ubyte", folder)[start:stop]
        labels = _idx(f"{source}-labels-idx1-ubyte", folder)[start:stop]
        raw = np.concatenate([images.reshape(-1), labels]).tobytes()
        path = OUT / f"fashion_{part}.xz"
        path.write_bytes(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME))
        print(f"{path.name}: {len(labels)} images, {path.stat().st_size / 1e6:.2f} MB")
        record(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
