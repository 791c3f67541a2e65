"""Make the embedded letters from open fonts: capitals A to Z, 28 × 28 grey, the families of the parts apart.

    mkdir debs fonts && cd debs
    apt-get download $(tail -n +2 ../scripts/letters_fonts.csv | cut -d, -f2 | sort -u) && cd ..
    for d in debs/*.deb; do dpkg -x $d fonts/$(basename $d | cut -d_ -f1); done
    python scripts/make_letters.py fonts     # needs Pillow; nothing is installed on the machine

Writes companion/data/letters_{teacher,train,val,test}.xz (all images, then all labels, uint8), their lines of
SHA256SUMS, and LICENSE-letters. scripts/letters_fonts.csv lists the fonts, all under the SIL Open Font License 1.1. Faces
of one design stand in one group, and a group is drawn whole into one part, so that no part has seen another's style.
The same Pillow and the same packages give the same bytes.
"""

import csv
import lzma
import random
import sys
from pathlib import Path

import numpy as np
from checksums import record
from PIL import Image, ImageDraw, ImageFont, __version__, features

ROOT = Path(__file__).parent.parent
OUT = ROOT / "companion/data"
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PARTS = {
    "teacher": (24, 14),
    "train": (24, 8),
    "val": (10, 8),
    "test": (18, 10),
}  # groups; images of each letter in each
FINE = 4  # a letter is drawn this much larger, and averaged
SIZES, SHIFT = (14, 20), 2.0  # height of the letter H and shift from the middle, in pixels, uniform
LEVELS = 16  # grey levels, so that the files stay small


def main(folder: str) -> None:
    fonts = list(csv.DictReader((ROOT / "scripts/letters_fonts.csv").open(encoding="utf-8")))
    groups = sorted({font["group"] for font in fonts})
    random.Random(0).shuffle(groups)
    parts = {}
    for part, (n, each) in PARTS.items():
        mine, groups = groups[:n], groups[n:]
        parts.update(dict.fromkeys(mine, part))
        faces = [
            [Path(folder, f["package"], f["file"]) for f in fonts if f["group"] == g] for g in sorted(mine)
        ]
        write(part, *draw_part(faces, each, np.random.default_rng(list(PARTS).index(part))))
    if groups:
        raise ValueError(f"{groups} are in no part.")
    (OUT / "LICENSE-letters").write_text(licence(fonts, parts), encoding="utf-8")


def draw_part(faces: list[list[Path]], each: int, random) -> tuple[np.ndarray, np.ndarray]:
    """`each` images of each letter from each group, in random order, and their labels."""
    images, labels = [], []
    for group in faces:
        for c, letter in enumerate(CAPITALS):
            for _ in range(each):
                path = group[random.integers(len(group))]
                images.append(draw(path, letter, random.uniform(*SIZES), random.uniform(-SHIFT, SHIFT, 2)))
                labels.append(c)
    order = random.permutation(len(labels))
    return np.stack(images)[order], np.array(labels, np.uint8)[order]


def draw(path: Path, letter: str, size: float, shift: np.ndarray) -> np.ndarray:
    """One letter, white on black, its box in the middle but for the shift; a wide one is made to fit."""
    side = 28 * FINE
    height = ImageFont.truetype(path, 200).getbbox("H")
    points = 200 * size * FINE / (height[3] - height[1])
    left, top, right, bottom = ImageFont.truetype(path, points).getbbox(letter)
    points *= min(1.0, 26 * FINE / max(right - left, bottom - top))
    font = ImageFont.truetype(path, points)
    left, top, right, bottom = font.getbbox(letter)
    image = Image.new("L", (side, side))
    corner = (side - right - left) / 2 + shift[0] * FINE, (side - bottom - top) / 2 + shift[1] * FINE
    ImageDraw.Draw(image).text(corner, letter, fill=255, font=font)
    grey = np.asarray(image, np.float64).reshape(28, FINE, 28, FINE).mean((1, 3)) / 255
    return np.round(grey * (LEVELS - 1)).astype(np.uint8) * (255 // (LEVELS - 1))


def write(part: str, images: np.ndarray, labels: np.ndarray) -> None:
    if not images.any((1, 2)).all():
        raise ValueError(f"{part} has an empty image: a font lacks a letter.")
    path = OUT / f"letters_{part}.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]
    path.write_bytes(lzma.compress(np.concatenate([images.reshape(-1), labels]).tobytes(), filters=filters))
    grey = images / 255
    print(
        f"{path.name}: {len(labels)} images, {path.stat().st_size / 1e6:.2f} MB, {grey.mean():.4f} ± {grey.std():.4f}"
    )
    record(path)


def licence(fonts: list[dict], parts: dict[str, str]) -> str:
    """Whose fonts the images were drawn from, part by part, and the fonts' licence."""
    lines = []
    for part in PARTS:
        listed = {
            (f["package"], f["version"], f["copyright"]): None for f in fonts if parts[f["group"]] == part
        }
        lines += ["", f"{part}:", *(f"  {p} {v}\n    Copyright (c) {c}" for p, v, c in listed)]
    about = (ROOT / "scripts/letters_licence.txt").read_text(encoding="utf-8")
    made = f"Pillow {__version__}, FreeType {features.version('freetype2')}"
    return about.format(made=made, fonts="\n".join(lines).strip("\n"))


if __name__ == "__main__":
    main(*sys.argv[1:])
