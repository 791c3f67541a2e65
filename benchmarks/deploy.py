"""A teacher and its student outside the notebook: how long PyTorch, ONNX Runtime and its int8 take for 1 and 256 images.

    python benchmarks/deploy.py [ROUNDS]

Writes chapters/results/17_latency.csv, which chapter 17 quotes. Weights are drawn at random: they do not change the time.
"""

import platform
import sys
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch
from machine import machine, publish

from companion.deploy import export_onnx, int8, latency, size_on_disk
from companion.models import MLP, ConvNet

NETWORKS = {
    "ConvNet(16)": lambda: ConvNet(16, seed=0),
    "MLP(784 64 10)": lambda: MLP(784, 64, 10, seed=0),
    "MLP(784 1200 1200 10)": lambda: MLP(784, 1200, 1200, 10, seed=0),
}
TABLE = Path(__file__).parent.parent / "chapters/results/17_latency.csv"


def measured(rounds: int) -> list[dict]:
    images = torch.randn(256, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    calls, bytes_ = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in NETWORKS.items():
            model = make().eval()
            written = export_onnx(model, images, f"{folder}/{name}.onnx")
            calibration = images if "Conv" in name else None
            small = int8(written, f"{folder}/{name} int8.onnx", calibration)
            for runtime, call in (("PyTorch", model), ("ONNX Runtime", written), ("int8", small)):
                calls[name, runtime] = call
                bytes_[name, runtime] = size_on_disk(model if call is model else call.path)
        rows = []
        for batch in (1, 256):
            found = latency(calls, images[:batch], rounds=rounds, warm_up=20, clock=time.thread_time)
            for (name, runtime), ms in found.items():
                row = {"network": name, "runtime": runtime, "batch": batch, "bytes": bytes_[name, runtime]}
                rows.append({**row, "median_ms": ms.median, "low_ms": ms.low, "high_ms": ms.high})
    return rows


def store(rows: list[dict]) -> None:
    """The form of the long runs: three lines of header, then a line a measurement."""
    versions = f"python {platform.python_version()}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    about = "Milliseconds of CPU time a call, median, 10 % and 90 %; one thread, networks in turn"
    lines = [f"# {about}", "# python benchmarks/deploy.py", f"# {versions}, one thread", ",".join(rows[0])]
    for row in rows:
        lines.append(",".join(f"{v:.5f}" if isinstance(v, float) else str(v) for v in row.values()))
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(rows: list[dict]) -> str:
    by = {(r["network"], r["runtime"], r["batch"]): r for r in rows}
    lines = ["| | bytes | 1 image | 256 images |", "|---|---|---|---|"]
    for name, runtime, _ in dict.fromkeys((*key[:2], 0) for key in by):
        cells = []
        for batch in (1, 256):
            own, first = by[name, runtime, batch], by["ConvNet(16)", "PyTorch", batch]
            spread = f"{own['low_ms']:.3g} … {own['high_ms']:.3g}"
            ratio = first["median_ms"] / own["median_ms"]
            cells.append(f"**{ratio:.2g}**; {own['median_ms']:.3g} ms ({spread})")
        lines.append(f"| {name}, {runtime} | {by[name, runtime, 1]['bytes']:,} | {cells[0]} | {cells[1]} |")
    note = "Bold: how many times as fast as ConvNet(16) in PyTorch. In brackets the 10th and the 90th of a hundred calls."
    return "\n".join([*lines, "", note])


def main(rounds: int = 100) -> None:
    torch.set_num_threads(1)
    rows = measured(rounds)
    store(rows)
    publish("deploy", f"{machine()}, onnxruntime {onnxruntime.__version__}\n\n{table(rows)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
