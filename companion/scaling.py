"""The loop on several processes: each takes its share of every batch, and the weights are those of one process.

    torchrun --standalone --nproc-per-node 2 -m companion.scaling FOLDER two

What is distributed is done by Lightning Fabric and PyTorch. Ours are four things: the shares, the number that a share's
loss is divided by, what a checkpoint holds, and which answers of the teacher belong to a row. The models and the
text are small and drawn from a seed, so that a run takes seconds; `distil` takes yours.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from .fused import fused_linear_kd_loss
from .tokens import sparse_kd_loss

VOCABULARY, LINES, LENGTH, STEPS, EVERY = 512, 96, 24, 40, 10
Targets = Callable[[Tensor], dict[str, Tensor]]

# The runs of chapter 18: what differs from float64, every weight in every process, one mean over the batch, and `text`.
RUNS = {
    "one": {},
    "two": {},
    "killed": {},
    "own mean": {"own_mean": True},
    "sharded": {"strategy": "sharded"},
    "half": {"precision": "bf16-mixed"},
    "half own": {"precision": "bf16-mixed", "own_mean": True},
    "kinds": {"text": "kinds"},
    "kinds own": {"text": "kinds", "own_mean": True},
}


class Reader(nn.Module):
    """A small causal transformer that returns what its last layer is given: (B, L) token numbers → (B, L, d).

    Its last layer is `head`, weight (V, d), so that `fused_linear_kd_loss` can be given it.
    """

    def __init__(
        self, vocabulary: int, width: int, blocks: int = 2, length: int = LENGTH, seed: int | None = None
    ):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            if seed is not None:
                torch.manual_seed(seed)
            self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
            make = nn.TransformerEncoderLayer
            self.blocks = nn.ModuleList(
                make(width, 4, 2 * width, 0.0, batch_first=True, norm_first=True) for _ in range(blocks)
            )
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        x = self.words(ids) + self.places.weight[:length]
        later = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)
        for block in self.blocks:
            x = block(x, src_mask=later)
        return self.norm(x)


class Lesson(nn.Module):
    """The student and its loss in one module: what wraps it (DDP, FSDP2) then has the last layer in hand, too."""

    def __init__(self, student: Reader):
        super().__init__()
        self.student = student

    def forward(self, ids: Tensor, mask: Tensor, answers: dict[str, Tensor], denominator: float) -> Tensor:
        """Nats per `denominator` counted tokens; `answers` are the teacher's features and head, or its largest p."""
        h, w = self.student(ids), self.student.head.weight
        if "head" in answers:
            return fused_linear_kd_loss(h, w, answers["features"], answers["head"], 1.0, mask, denominator)
        index, p = answers["index"].long(), answers["p"].to(torch.promote_types(h.dtype, torch.float32))
        return sparse_kd_loss(h @ w.T, index, p, 1.0, mask, denominator, tail=True)


def text(seed: int, lines: int = LINES, vocabulary: int = VOCABULARY) -> tuple[Tensor, Tensor]:
    """Token numbers (lines, LENGTH) and a mask, True where a token counts: the lines have 4 … LENGTH tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (lines, LENGTH), generator=generator)
    lengths = torch.randint(4, LENGTH + 1, (lines, 1), generator=generator)
    return ids, torch.arange(LENGTH) < lengths


def two_kinds(seed: int, lines: int = LINES, vocabulary: int = VOCABULARY) -> tuple[Tensor, Tensor]:
    """As `text`, but every second line has 4 tokens and words of its own; the others have LENGTH."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary // 2, (lines, LENGTH), generator=generator)
    short = torch.arange(lines) % 2 == 1
    ids[short] += vocabulary - vocabulary // 2
    return ids, torch.arange(LENGTH) < torch.where(short, 4, LENGTH)[:, None]


def models(seed: int, vocabulary: int = VOCABULARY) -> tuple[Reader, Reader]:
    """A teacher of width 64 whose answers are sharp, frozen, and a student of width 32."""
    teacher = Reader(vocabulary, 64, seed=seed + 1).eval().requires_grad_(False)
    teacher.head.weight *= 3
    return teacher, Reader(vocabulary, 32, seed=seed)


def share(rows: Tensor, rank: int, world: int) -> Tensor:
    """The rows of a batch that process `rank` of `world` takes: each row is one process's.

    Raises:
        ValueError: there is no such process, or fewer rows than processes.
    """
    if not 0 <= rank < world or len(rows) < world:
        raise ValueError(f"{len(rows)} rows for {world} processes, rank {rank}: ranks are 0 … {world - 1}, and each "
                         "process needs a row.")  # fmt: skip
    return rows[rank::world]


def by_length(rows: Tensor, mask: Tensor, world: int) -> Tensor:
    """The same rows, in an order in which `share` gives each process lines of like length, to save padding.

    Raises:
        ValueError: the rows cannot be dealt evenly.
    """
    if len(rows) % world:
        raise ValueError(f"{len(rows)} rows are not dealt evenly to {world} processes.")
    return rows[mask[rows].sum(1).argsort(descending=True, stable=True)].view(world, -1).T.flatten()


def batch(lines: int, size: int, step: int, seed: int) -> Tensor:
    """The rows of one step, from its number alone: every process, and a run that goes on, draws the same."""
    epoch, place = divmod(step * size, lines // size * size)
    order = torch.randperm(lines, generator=torch.Generator().manual_seed(seed + 1000 * epoch))
    return order[place : place + size]


def distil(
    fabric, lesson: nn.Module, targets: Targets, ids: Tensor, mask: Tensor, *, steps: int, lr: float = 3e-3,
    size: int = 16, seed: int = 0, checkpoint: Path | None = None, every: int = EVERY, own_mean: bool = False,
    sort: bool = False,
) -> Iterator[tuple[int, float]]:  # fmt: skip
    """Train a lesson in place, on from the checkpoint if there is one, and yield each step and its share's loss.

    Args:
        fabric: a launched `lightning_fabric.Fabric`. lesson: as `Lesson`. It is trained in the fabric's precision.
        targets: called as targets(rows); returns the teacher's answers to these rows.
        ids, mask: (N, L). steps, lr: of AdamW, lr falling to 0 along half a cosine. size: rows of a batch.
        checkpoint: a file, replaced each `every` steps and at the end. It holds lesson, optimiser, schedule and step.
        own_mean: divide by the tokens of the process's own share. It is wrong, and shown in the chapter.
        sort: give each process lines of like length (`by_length`).
    """
    lesson = fabric.setup_module(lesson)  # first: of a sharded weight the optimiser is to see the part
    optimiser = fabric.setup_optimizers(torch.optim.AdamW(lesson.parameters(), lr=lr))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    state = {"lesson": lesson, "optimiser": optimiser, "schedule": schedule, "step": 0}
    if checkpoint and checkpoint.exists():
        fabric.load(checkpoint, state)
    for step in range(state["step"], steps):
        rows = batch(len(ids), size, step, seed)
        rows = by_length(rows, mask, fabric.world_size) if sort else rows
        mine = share(rows, fabric.global_rank, fabric.world_size)
        count = mask[mine].sum()  # an all-reduce writes to its place: a copy goes in
        n = count if own_mean else fabric.all_reduce(count.clone(), reduce_op="sum") / fabric.world_size
        loss = lesson(ids[mine], mask[mine], targets(mine), n.item())
        optimiser.zero_grad()
        fabric.backward(loss)
        optimiser.step()
        schedule.step()
        state["step"] = step + 1
        if checkpoint and (state["step"] % every == 0 or state["step"] == steps):
            save(fabric, state, checkpoint)
        yield step, loss.item()


def save(fabric, state: dict, checkpoint: Path) -> None:
    """Write a checkpoint under another name, and rename it when it is whole."""
    part = checkpoint.with_suffix(".part")
    fabric.save(part, state)
    if fabric.is_global_zero:
        os.replace(part, checkpoint)
    fabric.barrier()


def sharded(lesson: nn.Module, mesh) -> nn.Module:
    """FSDP2: each process keeps a part of every weight; blocks come together one at a time, when they are due."""
    from torch.distributed.fsdp import fully_shard

    for block in lesson.student.blocks:
        fully_shard(block, mesh=mesh["data_parallel"])
    return fully_shard(lesson, mesh=mesh["data_parallel"])


def run(
    name: str, folder: str | Path, steps: int = STEPS, kill_at: int | None = None, seed: int = 0
) -> list[float]:
    """One of RUNS, in as many processes as it is called from; the last checkpoint is folder/name.ckpt.

    Args:
        kill_at: the step after which the last process is killed (SIGKILL), if it has not been started again yet.
        seed: of the models, the text and the batches.

    Returns:
        The losses of this process's share, from the step on with which it began.
    """
    settings, first = RUNS[name], os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    precision = settings.get("precision", "32-true")  # for Fabric: leave the types as they are
    fabric = fabric_of(precision, settings.get("strategy", "ddp"))
    teacher, student = (m.double() if precision == "32-true" else m for m in models(seed))
    kinds = settings.get("text") == "kinds"
    ids, mask = two_kinds(seed) if kinds else text(seed)

    @torch.no_grad()
    def live(rows):
        with fabric.autocast():
            return {"features": teacher(ids[rows]), "head": teacher.head.weight}

    losses = []
    for step, loss in distil(
        fabric, Lesson(student), live, ids, mask, steps=steps, seed=seed,
        checkpoint=Path(folder, f"{name}.ckpt"), own_mean=settings.get("own_mean", False),
        sort=kinds,
    ):  # fmt: skip
        losses.append(loss)
        if step == kill_at and first and fabric.global_rank == fabric.world_size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return losses


def fabric_of(precision: str, strategy: str = "ddp"):
    """A launched Fabric on the CPU for as many processes as torchrun started, or for this one."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import ModelParallelStrategy

    world = int(os.environ.get("WORLD_SIZE", 1))
    if strategy == "sharded":
        strategy = ModelParallelStrategy(sharded, world, 1, save_distributed_checkpoint=False)
    elif world == 1:
        strategy = "auto"
    fabric = Fabric(accelerator="cpu", devices=world, strategy=strategy, precision=precision)
    fabric.launch()
    return fabric


def weights(checkpoint: str | Path) -> Tensor:
    """All weights of a checkpoint's lesson, one after another, in float64."""
    kept = torch.load(checkpoint, weights_only=True)["lesson"]
    return torch.cat([kept[name].double().flatten() for name in sorted(kept)])


def launch(
    folder: str | Path, *names: str, processes: int = 2, restarts: int = 0, timeout: float = 300, **options
):
    """`torchrun` on this machine with nothing sent outside it: runs `names`; options are those of `run`.

    Returns:
        The finished process, with `returncode`, `stdout` and `stderr`. Whatever it started has ended.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds; all of it has been ended.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += [f"--nproc-per-node={processes}", f"--max-restarts={restarts}", "-m", "companion.scaling"]
    command += [str(Path(folder).resolve()), *names]
    command += [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    root = Path(__file__).parent.parent  # python -m looks in its own folder first
    with subprocess.Popen(command, cwd=root, env=_environment(), **pipes) as process:
        try:
            out, errors = process.communicate(timeout=timeout)
        except BaseException:
            process.terminate()  # torchrun hears this, and ends its workers, which a kill would leave behind
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def _environment() -> dict[str, str]:
    """This package, one thread, the loopback alone, and a store of its own for each try.

    torchrun 2.13 keeps one store for all tries of a run on one machine: workers that are started again may find the
    addresses of those that died, and be refused (pytorch/pytorch issue 167288). The variable turns that off.
    """
    here = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    found = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": here}
    found["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    return {**found, "GLOO_SOCKET_IFNAME": loopback[0]} if loopback else found


def main() -> None:
    """What torchrun starts in each process: the runs that are named, one after another."""
    parser = argparse.ArgumentParser(description="Runs of chapter 18, in the processes that torchrun starts.")
    parser.add_argument("folder")
    parser.add_argument("names", nargs="+", choices=RUNS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.names:
        start = time.perf_counter()
        losses = run(name, given.folder, given.steps, given.kill_at, given.seed)
        if os.environ.get("RANK", "0") == "0":
            print(f"{name}: {len(losses)} steps, {time.perf_counter() - start:.3f} s", flush=True)


if __name__ == "__main__":
    main()
