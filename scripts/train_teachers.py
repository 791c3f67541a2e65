"""Train the shipped teachers: ten ConvNet(16) on the 45,000 images that the embedded part leaves out.

    python scripts/train_teachers.py [FOLDER]     # official IDX files; without FOLDER they are downloaded

Writes companion/data/fashion_teachers.safetensors (half precision: the accuracy is measured after rounding)
and its line of SHA256SUMS. About 40 seconds a teacher on one CPU core.
"""

import sys
from pathlib import Path

import torch
from checksums import record
from safetensors.torch import save_file

from companion.data import TEACHERS, fashion, fashion_full
from companion.metrics import accuracy
from companion.models import ConvNet
from companion.training import fit, predict

OUT = Path(__file__).parent.parent / "companion/data/fashion_teachers.safetensors"
RECIPE = {"steps": 8 * 450, "lr": 5e-3, "batch_size": 100, "weight_decay": 0.01}


def main(folder: str | None = None) -> None:
    torch.set_num_threads(1)
    train, val, test = fashion_full(folder)[0][:45_000], fashion("val"), fashion("test")
    state = {}
    for seed in range(TEACHERS):
        teacher = ConvNet(16, seed=seed)
        fit(teacher, train, seed=seed, progress=True, **RECIPE)
        teacher.half().float()
        reached = [accuracy(predict(teacher, part.x), part.y) for part in (val, test)]
        print(f"teacher {seed}: validation {reached[0]:.2f} %, test {reached[1]:.2f} %", flush=True)
        for name, value in teacher.state_dict().items():
            state[f"{seed}.{name}"] = value.half() if value.is_floating_point() else value
    save_file(state, OUT, metadata={k: str(v) for k, v in {**RECIPE, "torch": torch.__version__}.items()})
    record(OUT)


if __name__ == "__main__":
    main(*sys.argv[1:])
