"""A teacher's answers on disk: asked once, cut off, gone on with, read by row, refused where they do not belong."""

import json

import pytest
import torch
from safetensors.torch import load_file

from companion.stored import Stored, halved, largest, store
from companion.tokens import forward_kl_loss, sparse_kd_loss

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randint(
    -9, 9, (10, 6), generator=GENERATOR
).float()  # whole numbers: X @ W is exact, in whatever parts
W = torch.randint(-5, 5, (6, 50), generator=GENERATOR).float()


class Teacher:
    """Counts what it is asked, and can break down."""

    def __init__(self, breaks_at=None):
        self.rows, self.calls, self.breaks_at = [], 0, breaks_at

    def __call__(self, x):
        if self.calls == self.breaks_at:
            raise OSError("No space left on device")
        self.calls += 1
        self.rows += x.tolist()
        return {"logits": x @ W}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "answers"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_each_row_is_asked_once_and_read_by_its_number(folder):
    ask = Teacher()
    assert store(ask, X, folder, rows=4) == [0, 1, 2]
    assert ask.rows == X.tolist()
    assert store(ask, X, folder, rows=4) == [] and ask.calls == 3
    read = Stored(folder, X)
    index = torch.tensor([9, 0, 3, 4, 3])
    assert len(read) == 10 and torch.equal(read[index]["logits"], (X @ W)[index])
    assert read.bytes() == sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert 10 * 50 * 4 < read.bytes() < 1.5 * 10 * 50 * 4


def test_a_run_that_breaks_off_leaves_whole_shards_and_the_next_asks_for_the_rest_alone(folder):
    broken = Teacher(breaks_at=2)
    with pytest.raises(OSError, match="No space"):
        store(broken, X, folder, rows=3)
    assert names(folder) == ["000000.safetensors", "000001.safetensors", "about.json"]
    with pytest.raises(ValueError, match=r"2 of 4 shards are missing or cut off, the first is 2: call store"):
        Stored(folder)
    ask = Teacher()
    assert store(ask, X, folder, rows=3) == [2, 3]
    assert broken.rows + ask.rows == X.tolist()
    assert torch.equal(Stored(folder)[torch.arange(10)]["logits"], X @ W)


def test_a_full_disk_leaves_no_half_file(folder, monkeypatch):
    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space"):
        store(Teacher(), X, folder, rows=4)
    assert names(folder) == ["about.json"]


@pytest.mark.parametrize("keep", [0, 4, 60, -1, -200])
def test_a_shard_cut_short_is_found_and_made_again(folder, keep):
    store(Teacher(), X, folder, rows=4)
    shard = folder / "000001.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:keep])
    with pytest.raises(ValueError, match=r"1 of 3 shards are missing or cut off, the first is 1"):
        Stored(folder)
    ask = Teacher()
    assert store(ask, X, folder, rows=4) == [1]
    assert ask.rows == X[4:8].tolist() and shard.read_bytes() == whole


def test_other_inputs_shards_or_notes_are_refused(folder):
    store(Teacher(), X, folder, rows=4, note="T = 2")
    for x, rows, note, named in [
        (X.flip(0), 4, "T = 2", "inputs"), (X, 5, "T = 2", "rows: 4 there, 5 here"),
        (X[:9], 4, "T = 2", "count: 10 there, 9 here"), (X, 4, "T = 4", "note: 'T = 2' there, 'T = 4' here"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"holds other answers .*{named}.*a folder of its own"):
            store(Teacher(), x, folder, rows=rows, note=note)
    with pytest.raises(ValueError, match="belong to other inputs"):
        Stored(folder, X.flip(0))
    with pytest.raises(FileNotFoundError, match="holds no stored answers"):
        Stored(folder / "nowhere")


@pytest.mark.parametrize(
    "ask, said",
    [
        (lambda x: x, "a dictionary of tensors; got Tensor"),
        (lambda x: {}, "a dictionary of tensors"),
        (lambda x: {"logits": x[:1]}, r"a row for each of 4 inputs; got \{'logits': \(1, 6\)\}"),
    ],
)
def test_a_teacher_that_answers_something_else_is_refused(folder, ask, said):
    with pytest.raises(ValueError, match=said):
        store(ask, X, folder, rows=4)


def test_row_numbers_are_checked(folder):
    store(Teacher(), X, folder)
    read = Stored(folder)
    for index in (torch.tensor([10]), torch.tensor([-1])):
        with pytest.raises(IndexError, match=r"rows are 0 … 9; got"):
            read[index]
    for index in (torch.tensor([0.0]), torch.tensor([[0]]), torch.tensor([], dtype=torch.long), 3):
        with pytest.raises(TypeError, match="takes row numbers"):
            read[index]
    with pytest.raises(ValueError, match="at least one input and one row"):
        store(Teacher(), X, folder, rows=0)


def test_no_gradient_and_no_graph_is_kept(folder):
    weight = W.clone().requires_grad_()
    store(lambda x: {"logits": x @ weight}, X, folder)
    assert not load_file(folder / "000000.safetensors")["logits"].requires_grad
    assert json.loads((folder / "about.json").read_text())["count"] == 10


SIZES = [(50, torch.uint16, 4), (1 << 16, torch.uint16, 4), ((1 << 16) + 1, torch.int32, 6)]


@pytest.mark.parametrize("V, kind, size", SIZES)
def test_the_largest_are_kept_in_as_few_bytes_as_hold_them(V, kind, size):
    v = torch.randn(3, V, generator=GENERATOR) * 3
    found = largest(v, 7, T=2)
    assert found["index"].dtype == kind and found["p"].dtype == torch.float16
    assert sum(t.element_size() for t in found.values()) == size
    p, index = (v / 2).softmax(-1).topk(7)
    assert torch.equal(found["index"].long(), index)
    assert torch.allclose(found["p"].float(), p, rtol=2**-9, atol=1e-7)


def test_rounded_probabilities_leave_room_for_the_rest():
    v = torch.randn(500, 20, generator=GENERATOR) * 5
    assert (v.softmax(-1).topk(12)[0].half().double().sum(-1) > 1).any()  # rounding alone would not
    found = largest(v, 12)
    assert found["p"].double().sum(-1).max() <= 1
    z = torch.randn(500, 20, generator=GENERATOR)
    exact = sparse_kd_loss(z, *reversed(v.softmax(-1).topk(12)), tail=True)
    ours = sparse_kd_loss(z, found["index"].long(), found["p"].float(), tail=True)
    assert ours.item() == pytest.approx(exact.item(), rel=2e-3)


def test_half_logits_give_nearly_the_same_answers_at_any_temperature():
    v = torch.randn(20, 300, generator=GENERATOR) * 5 + 40
    kept = halved(v)["logits"]
    assert kept.dtype == torch.float16 and kept.amax(-1).abs().max() == 0
    for T in (1, 4):
        ours = forward_kl_loss(kept.float(), v, T=T)
        assert ours < 1e-4
        assert ours < forward_kl_loss(v.half().float(), v, T=T)  # what the row's largest at 0 is for


@pytest.mark.parametrize("bad", [float("nan"), -7e4])
def test_logits_that_float16_cannot_hold_are_refused(bad):
    v = torch.zeros(2, 3)
    v[1, 1] = bad
    with pytest.raises(ValueError, match="float16 ends at 65,504"):
        halved(v)


def test_k_and_temperature_are_checked():
    for k in (0, 51):
        with pytest.raises(ValueError, match=f"1 … 50; got {k}"):
            largest(X @ W, k)
    with pytest.raises(ValueError, match="temperature"):
        largest(X @ W, 2, T=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_answers_that_are_no_probabilities_are_not_kept(bad):
    with pytest.raises(ValueError, match="no probabilities to keep"):
        largest(torch.full((2, 5), bad), 2)
