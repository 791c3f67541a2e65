"""One process and two, and a teacher asked at each step beside answers that are stored.

    python benchmarks/scaling.py [stored | processes]     # both without a word; one thread a process; about 2 minutes

Processes are compared by the clock, since waiting for each other is what they cost, so the machine must do nothing else;
the rest by CPU time.
"""

import re
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from machine import in_turn, machine, publish

sys.path.insert(0, str(Path(__file__).parent.parent))
from companion.scaling import Lesson, Reader, launch, text
from companion.stored import Stored, largest, store

STEPS, VOCABULARY, WIDTH, ROWS, K = 60, 8192, 64, 16, 50


def processes() -> list[str]:
    """Seconds of the same run in one process and in two, each after a run that is not timed."""
    rows = ["| processes | seconds | of one |", "|---|---|---|"]
    seconds = {}
    for n in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            done = launch(folder, "one", "two", processes=n, steps=STEPS)
        seconds[n] = float(re.search(r"two: \d+ steps, ([\d.]+) s", done.stdout)[1])
        rows.append(f"| {n} | {seconds[n]:.2f} | {seconds[n] / seconds[1]:.2f} |")
    return rows


def answers(folder: Path) -> list[str]:
    """CPU time of a student's step, by where the teacher's answers come from; the teacher is four times as wide."""
    teacher = Reader(VOCABULARY, 4 * WIDTH, blocks=6, seed=1).eval().requires_grad_(False)
    student, (ids, mask) = Reader(VOCABULARY, WIDTH, seed=0), text(0, 128, VOCABULARY)
    lesson, rows, head = Lesson(student), torch.arange(ROWS), teacher.head.weight
    forms = {
        "features": lambda x: {"features": teacher(x).half()},
        f"{K} largest": lambda x: largest(teacher(x) @ head.T, K),
    }
    for form, ask in forms.items():
        store(ask, ids, folder / form, rows=64)
    read = {form: Stored(folder / form, ids) for form in forms}

    def step(form):
        with torch.no_grad():
            kept = {"features": teacher(ids[rows])} if form == "asked at each step" else read[form][rows]
            kept = {k: v.float() if v.is_floating_point() else v for k, v in kept.items()}
        if "features" in kept:
            kept["head"] = head
        student.zero_grad()
        lesson(ids[rows], mask[rows], kept, mask[rows].sum().item()).backward()

    calls = {form: partial(step, form) for form in ("asked at each step", *forms)}
    times = in_turn(calls, 9, 2)
    live = times["asked at each step"]
    lines = ["| the teacher's answers | a step | of live | bytes a token |", "|---|---|---|---|"]
    for form, seconds in times.items():
        size = f"{read[form].bytes() / ids.numel():,.0f}" if form in read else ""
        lines.append(f"| {form} | {1e3 * seconds:.1f} ms | {seconds / live:.2f} | {size} |")
    return lines


def main(*parts: str) -> None:
    torch.set_num_threads(1)
    if "stored" in parts:
        with tempfile.TemporaryDirectory() as folder:
            publish("stored", "\n".join([machine(), "", *answers(Path(folder))]))
    if "processes" in parts:
        publish("processes", "\n".join([machine(), "", *processes()]))


if __name__ == "__main__":
    main(*(sys.argv[1:] or ("stored", "processes")))
