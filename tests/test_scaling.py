"""Two processes, one of them killed, sharded weights, half precision: against one process, in one launch of torchrun."""

import copy
import subprocess
import sys

import pytest
import torch

from companion import scaling
from companion.scaling import Lesson, batch, by_length, launch, models, run, share, text, two_kinds, weights
from companion.stored import largest

pytest.importorskip("lightning_fabric")
DISTANCE = {
    "two": 1e-9,
    "killed": 1e-9,
    "sharded": 1e-9,
}  # of what training moved; float64, 24 steps of AdamW
STEPS, KILL_AT = 24, 13  # checkpoints at 10 and 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All runs: one process here, the others in two, of which the second is killed and both are started again."""
    folder = tmp_path_factory.mktemp("runs")
    run("one", folder, STEPS)
    names = ("killed", "two", "own mean", "sharded", "half", "half own", "kinds own")
    done = launch(folder, *names, restarts=1, steps=STEPS, kill_at=KILL_AT, timeout=900)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture(scope="module")
def apart(folder):
    """Of each run, how far it ended from one process, as a share of what training moved."""
    one = weights(folder[0] / "one.ckpt")
    start = torch.cat([p.double().flatten() for _, p in sorted(Lesson(models(0)[1]).state_dict().items())])
    return {
        n: ((weights(folder[0] / f"{n}.ckpt") - one).norm() / (one - start).norm()).item()
        for n in scaling.RUNS
        if not n.startswith("kinds")
    }


@pytest.mark.parametrize("name", DISTANCE)
def test_the_weights_are_those_of_one_process(apart, name):
    assert apart[name] < DISTANCE[name]


def test_a_worker_was_killed_and_the_run_went_on_from_its_checkpoint(folder):
    _, done = folder
    assert "Signal 9 (SIGKILL)" in done.stderr or "exitcode: -9" in done.stderr
    assert f"killed: {STEPS - 10} steps" in done.stdout and f"two: {STEPS} steps" in done.stdout


def test_a_mean_of_each_process_s_own_is_another_training(apart):
    assert apart["own mean"] > 1e-3


def test_half_precision_ends_near(apart):
    assert 1e-6 < apart["half"] < 0.3 and 1e-6 < apart["half own"] < 0.3


@pytest.mark.equation("eq-process-share")
def test_gradients_of_shares_average_to_the_batch_s():
    (ids, mask), (teacher, student) = text(3), models(3)
    teacher, lesson = teacher.double(), Lesson(student.double())

    def gradient(rows, n):
        lesson.zero_grad()
        answers = {"features": teacher(ids[rows]), "head": teacher.head.weight}
        lesson(ids[rows], mask[rows], answers, n).backward()
        return torch.cat([p.grad.flatten() for p in lesson.parameters()])

    rows, world = batch(len(ids), 16, 0, 3), 3
    n = mask[rows].sum().item()
    whole = gradient(rows, n)
    shares = [share(rows, rank, world) for rank in range(world)]
    ours = sum(gradient(mine, n / world) for mine in shares) / world
    own = sum(gradient(mine, mask[mine].sum().item()) for mine in shares) / world
    assert (ours - whole).norm() < 1e-12 * whole.norm()
    assert (own - whole).norm() > 1e-3 * whole.norm()


def test_by_length_one_process_has_the_short_lines():
    ids, mask = two_kinds(5)
    rows = torch.arange(16)
    dealt = by_length(rows, mask, 2)
    assert sorted(dealt.tolist()) == rows.tolist()
    counts = [mask[share(dealt, rank, 2)].sum(1) for rank in range(2)]
    assert (counts[0] == mask.shape[1]).all() and (counts[1] == 4).all()
    assert ids[::2].max() < ids[1::2].min()  # words of their own
    with pytest.raises(ValueError, match="16 rows are not dealt evenly to 3"):
        by_length(rows, mask, 3)


def test_the_own_mean_of_two_kinds_is_what_the_chapter_computes_in_one_process(folder):
    """The average of both processes' means, in float64: what their exchange does, without it."""
    (ids, mask), (teacher, student) = two_kinds(0), (m.double() for m in models(0))
    lesson = Lesson(student)
    optimiser = torch.optim.AdamW(lesson.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for step in range(STEPS):
        rows, loss = by_length(batch(len(ids), 16, step, 0), mask, 2), 0
        for mine in (share(rows, rank, 2) for rank in range(2)):
            answers = {"features": teacher(ids[mine]), "head": teacher.head.weight}
            loss = loss + lesson(ids[mine], mask[mine], answers, 2 * mask[mine].sum().item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    state = lesson.state_dict()
    ours = torch.cat([state[name].flatten() for name in sorted(state)])
    assert (ours - weights(folder[0] / "kinds own.ckpt")).norm() < 1e-9 * ours.norm()


def test_every_row_of_an_epoch_is_one_process_s_once():
    rows = torch.cat([share(batch(96, 16, step, 5), rank, 3) for step in range(6) for rank in range(3)])
    assert sorted(rows.tolist()) == list(range(96))
    assert not torch.equal(batch(96, 16, 0, 5), batch(96, 16, 6, 5))
    assert torch.equal(batch(96, 16, 7, 5), batch(96, 16, 7, 5))
    with pytest.raises(ValueError, match="2 rows for 3 processes, rank 0"):
        share(torch.arange(2), 0, 3)
    with pytest.raises(ValueError, match="ranks are 0 … 1"):
        share(torch.arange(8), 2, 2)


def test_a_run_started_again_in_its_folder_goes_on(tmp_path):
    assert len(run("one", tmp_path, 4)) == 4
    first = weights(tmp_path / "one.ckpt")
    assert run("one", tmp_path, 4) == []  # done: nothing is left
    assert torch.equal(first, weights(tmp_path / "one.ckpt"))


def test_a_lesson_learns_from_stored_answers_too():
    (ids, mask), (teacher, student) = text(1), models(1)
    lesson, rows = Lesson(student), torch.arange(8)
    with torch.no_grad():
        features = teacher(ids[rows])
        answers = largest(features @ teacher.head.weight.T, 512)  # all of them: no rest
    live = copy.deepcopy(lesson)(
        ids[rows], mask[rows], {"features": features, "head": teacher.head.weight}, 1.0
    )
    assert lesson(ids[rows], mask[rows], answers, 1.0).item() == pytest.approx(live.item(), rel=5e-3)


ROWS = """
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
torch.manual_seed(0)
alone, shared = (torch.nn.Linear(8, 4).double() for _ in range(2))
shared.load_state_dict(alone.state_dict())
fully_shard(shared, mesh=mesh)
x, rank = torch.randn(16, 8).double(), torch.distributed.get_rank()
mine = x.split([1, 2, 5, 8])[rank]
(4 / 16 * shared(mine).pow(2).sum()).backward()
(alone(x).pow(2).sum() / 16).backward()
torch.testing.assert_close(shared.weight.grad.full_tensor(), alone.weight.grad)
assert shared.weight.to_local().shape == (2, 8) and mesh.get_coordinate() == (rank // 2, rank % 2)
print("as one process")
torch.distributed.destroy_process_group()
"""


def test_copies_of_sharded_weights_average_over_all_processes(tmp_path):
    """Two rows of two processes, as the chapter's eight of eight: shared out in a row, equal from row to row, n / 4."""
    script = tmp_path / "rows.py"
    script.write_text(ROWS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    done = subprocess.run([*command, "--nproc-per-node=4", str(script)], env=scaling._environment(), timeout=300,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("as one process") == 4


def test_a_launch_that_takes_too_long_is_ended(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        launch(tmp_path, "two", timeout=0.5)
