"""Train the shipped teachers: ten ConvNet(16) for each of the two embedded sets of images.

    python scripts/train_teachers.py fashion [FOLDER]     # official IDX files; without FOLDER they are downloaded
    python scripts/train_teachers.py letters

Fashion's learn from the 45,000 images that the embedded part leaves out, the letters' from `letters("teacher")`. Writes
companion/data/{fashion,letters}_teachers.safetensors (half precision: the accuracy is measured after rounding) and
its line of SHA256SUMS. On one CPU core, about 40 seconds a teacher of fashion and 15 of letters.
"""

import sys
from pathlib import Path

import torch
from checksums import record
from safetensors.torch import save_file

from companion.data import LETTERS, TEACHERS, fashion, fashion_full, fashion_teacher, letters, letters_teacher
from companion.metrics import accuracy
from companion.models import ConvNet
from companion.training import fit, predict

OUT = Path(__file__).parent.parent / "companion/data"
RECIPES = {
    "fashion": {"steps": 8 * 450, "lr": 5e-3, "batch_size": 100, "weight_decay": 0.01},
    "letters": {"steps": 900, "lr": 5e-3, "batch_size": 100, "weight_decay": 0.01},
}


def main(name: str, folder: str | None = None) -> None:
    torch.set_num_threads(1)
    if name == "fashion":
        train, load, given, classes = fashion_full(folder)[0][:45_000], fashion, fashion_teacher, 10
    else:
        train, load, given, classes = letters("teacher"), letters, letters_teacher, len(LETTERS)
    recipe, state = RECIPES[name], {}
    for seed in range(TEACHERS):
        teacher = ConvNet(16, classes, seed=seed)
        fit(teacher, train, seed=seed, progress=True, **recipe)
        for key, value in teacher.state_dict().items():
            state[f"{seed}.{key}"] = value.half() if value.is_floating_point() else value
    out = OUT / f"{name}_teachers.safetensors"
    save_file(state, out, metadata={k: str(v) for k, v in {**recipe, "torch": torch.__version__}.items()})
    record(out)
    for index in range(TEACHERS):  # as the package gives them
        reached = [accuracy(predict(given(index), load(part).x), load(part).y) for part in ("val", "test")]
        print(f"teacher {index}: validation {reached[0]:.2f} %, test {reached[1]:.2f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
