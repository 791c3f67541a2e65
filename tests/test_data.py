"""The embedded data are what they say they are, and broken files are refused."""

import errno
import gzip
import hashlib
import math
import os
import sys
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from companion import data
from companion.data import (
    LETTERS_MEAN,
    LETTERS_STD,
    MEAN,
    STD,
    Split,
    digits,
    fashion,
    fashion_full,
    fashion_teacher,
    letters,
    letters_teacher,
)  # fmt: skip
from companion.metrics import accuracy
from companion.training import teacher_logits

ROOT = Path(__file__).parent.parent
OFFICIAL = os.environ.get("FASHION_MNIST")  # a folder with the four official files
LETTER_SIZES = {"teacher": 8_736, "train": 4_992, "val": 2_080, "test": 4_680}
SIZES = {"train": 10_000, "val": 5_000, "test": 10_000}


@pytest.fixture(scope="module")
def test_part():
    return fashion("test")


# ------------------------------------------------------------------------------------------------- Split


def test_split_takes_parts_and_stays_aligned():
    split = Split(torch.arange(6.0)[:, None], torch.arange(6))
    for index in (slice(1, 4), [5, 0], torch.tensor([2, 2]), torch.arange(6) > 3):
        part = split[index]
        assert torch.equal(part.x[:, 0].long(), part.y)
    assert len(split[2:]) == 4 and len(split.to("cpu")) == 6
    with pytest.raises(TypeError, match=r"split\[2:3\]"):
        split[2]
    with pytest.raises(ValueError, match="6 examples and y has 5"):
        Split(split.x, split.y[:5])


def test_sample_draws_per_class_without_replacement_by_its_seed():
    split = Split(torch.arange(40.0), torch.arange(40) % 4)
    drawn = split.sample(5, seed=1)
    assert drawn.y.bincount().tolist() == [5, 5, 5, 5]
    assert len(drawn.x.unique()) == 20
    assert torch.equal(drawn.x, split.sample(5, seed=1).x)
    assert not torch.equal(drawn.x, split.sample(5, seed=2).x)
    with pytest.raises(ValueError, match="class 0 has 10 examples; 11"):
        split.sample(11, seed=0)


# --------------------------------------------------------------------------------------- embedded images


@pytest.mark.parametrize("part", SIZES)
def test_fashion_parts_have_their_size_and_scale(part):
    split = fashion(part)
    assert split.x.shape == (SIZES[part], 1, 28, 28) and split.x.dtype == torch.float32
    assert split.y.dtype == torch.int64 and split.y.unique().tolist() == list(range(10))
    assert split.x.min().item() == pytest.approx(-MEAN / STD, rel=1e-5)
    assert split.x.max().item() == pytest.approx((1 - MEAN) / STD, rel=1e-5)
    assert abs(split.x.mean().item()) < 0.02 and abs(split.x.std().item() - 1) < 0.02


def test_the_official_test_set_has_a_thousand_images_a_class(test_part):
    assert test_part.y.bincount().tolist() == [1000] * 10
    assert len(data.FASHION_CLASSES) == 10


def test_fashion_refuses_an_unknown_part():
    with pytest.raises(ValueError, match="'validation'"):
        fashion("validation")


def test_every_shipped_file_has_the_recorded_checksum():
    folder = files("companion.data")
    lines = [line.split() for line in folder.joinpath("SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == {
        "fashion_train.xz", "fashion_val.xz", "fashion_test.xz", "fashion_teachers.safetensors",
        *(f"letters_{part}.xz" for part in LETTER_SIZES), "letters_teachers.safetensors",
    }  # fmt: skip
    for digest, name in lines:
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() == digest, name


EMBEDDED = {"fashion_val.xz": fashion, "letters_val.xz": letters}


@pytest.mark.parametrize("file", EMBEDDED)
def test_a_changed_file_is_refused(tmp_path, monkeypatch, file):
    load = EMBEDDED[file]
    for name in ("SHA256SUMS", file):
        (tmp_path / name).write_bytes(files("companion.data").joinpath(name).read_bytes())
    monkeypatch.setattr(data, "files", lambda package: tmp_path)
    assert len(load("val")) in (5000, 2080)
    content = bytearray((tmp_path / file).read_bytes())
    content[1000] ^= 1
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        load("val")


@pytest.mark.parametrize("file", EMBEDDED)
@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_file_is_named_with_the_remedy(tmp_path, monkeypatch, file, which):
    missing, there = (("SHA256SUMS", file), (file, "SHA256SUMS"))[which]
    (tmp_path / there).write_bytes(files("companion.data").joinpath(there).read_bytes())
    monkeypatch.setattr(data, "files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"{missing} is missing\. Install companion again"):
        EMBEDDED[file]("val")


@pytest.mark.parametrize("file", EMBEDDED)
@pytest.mark.parametrize("sums", ["", "0" * 64 + "  other.xz\n"])
def test_a_file_without_a_recorded_checksum_is_refused(tmp_path, monkeypatch, file, sums):
    (tmp_path / file).write_bytes(b"")
    (tmp_path / "SHA256SUMS").write_text(sums)
    monkeypatch.setattr(data, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=rf"{file.replace('.', r'[.]')}: SHA-256 is .*git checkout"):
        EMBEDDED[file]("val")


# ----------------------------------------------------------------------------------------------- letters


@pytest.mark.parametrize("part", LETTER_SIZES)
def test_letters_parts_have_their_size_and_scale_and_each_letter_as_often(part):
    split = letters(part)
    n = LETTER_SIZES[part]
    assert split.x.shape == (n, 1, 28, 28) and split.x.dtype == torch.float32 and split.y.dtype == torch.int64
    assert split.y.bincount().tolist() == [n // 26] * 26 and len(data.LETTERS) == 26
    grey = (split.x * LETTERS_STD + LETTERS_MEAN) * 15
    assert (grey - grey.round()).abs().max() < 1e-4 and grey.round().min() == 0 and grey.round().max() == 15
    assert abs(split.x.mean().item()) < 0.1 and 0.85 < split.x.std().item() < 1.05
    assert (split.x.flatten(1).amax(1) > 0).all(), "an image is empty"
    assert split[:260].y.unique().numel() > 20, "a slice has nearly all letters"


def test_the_letters_scale_is_that_of_the_training_part():
    x = letters("train").x
    assert abs(x.mean().item()) < 1e-3 and abs(x.std().item() - 1) < 1e-3


def test_letters_refuses_an_unknown_part():
    with pytest.raises(ValueError, match=r'"teacher", "train", "val" or "test"; got \'validation\''):
        letters("validation")


def test_no_family_of_letters_stands_in_two_parts_and_each_has_its_licence_line():
    """In the list that the script writes: package, version and copyright line, part by part, and the licence itself."""
    text = files("companion.data").joinpath("LICENSE-letters").read_text(encoding="utf-8")
    parts, part = {}, None
    for line in text.split("-----")[0].splitlines():
        if line[:-1] in LETTER_SIZES and line.endswith(":"):
            part = parts.setdefault(line[:-1], [])
        elif part is not None and line.startswith("  fonts-"):
            part.append(line.split()[0])
            assert len(line.split()) == 2, f"no version: {line}"
        elif part is not None and line:
            assert line.startswith("    Copyright (c) ") and len(line) > 22, line
    assert set(parts) == set(LETTER_SIZES) and min(map(len, parts.values())) >= 10
    listed = [package for packages in parts.values() for package in packages]
    assert len(listed) == len(set(listed)), "a family in two parts"
    table = (ROOT / "scripts/letters_fonts.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert {line.split(",")[1] for line in table} == set(listed)
    assert text.count("Copyright (c) ") == len(listed)
    for said in ("SIL OPEN FONT LICENSE Version 1.1", "PERMISSION & CONDITIONS", "DISCLAIMER"):
        assert said in text


def test_no_letter_but_the_plainest_is_the_same_picture_in_two_parts():
    """A bar is a bar in many a typeface: I, and little else, may come twice."""
    seen = {}
    for part in LETTER_SIZES:
        split = letters(part)
        for image, y in zip(split.x, split.y.tolist(), strict=True):
            seen.setdefault(image.numpy().tobytes(), set()).add((part, data.LETTERS[y]))
    twice = {letter for found in seen.values() if len({p for p, _ in found}) > 1 for _, letter in found}
    assert twice <= {"I"}


# ---------------------------------------------------------------------------------------------- teachers


@pytest.mark.parametrize("index", range(data.TEACHERS))
def test_each_teacher_is_frozen_and_right_on_90_to_92_per_cent(index, test_part):
    teacher = fashion_teacher(index)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert 90 <= accuracy(teacher_logits(teacher, test_part.x), test_part.y) <= 92


def test_teachers_differ_and_there_is_no_eleventh():
    assert not torch.equal(fashion_teacher(0).head.weight, fashion_teacher(1).head.weight)
    for index in (-1, 10):
        with pytest.raises(ValueError, match="0 … 9"):
            fashion_teacher(index)


@pytest.mark.parametrize("index", range(data.TEACHERS))
def test_each_teacher_of_letters_is_frozen_and_right_on_82_to_84_per_cent_of_faces_it_has_not_seen(index):
    teacher, test = letters_teacher(index), letters("test")
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert 82 <= accuracy(teacher_logits(teacher, test.x), test.y) <= 84


def test_teachers_of_letters_differ_and_there_is_no_eleventh():
    assert not torch.equal(letters_teacher(0).head.weight, letters_teacher(1).head.weight)
    with pytest.raises(ValueError, match="0 … 9"):
        letters_teacher(10)


# ------------------------------------------------------------------------------------------------ digits


def test_digits_are_split_without_overlap_and_shuffled_by_the_seed():
    from sklearn.datasets import load_digits

    parts = digits(seed=3)
    assert [len(p) for p in parts] == [1000, 297, 500]
    assert torch.equal(parts[0].x, digits(seed=3)[0].x) and not torch.equal(parts[0].x, digits(seed=4)[0].x)
    x, y = load_digits(return_X_y=True)
    joined = torch.cat([torch.cat([p.x * 16, p.y[:, None].float()], 1) for p in parts])
    expected = np.concatenate([x, y[:, None]], 1)
    assert sorted(map(tuple, joined.tolist())) == sorted(map(tuple, expected.tolist()))
    assert parts[0].x.min() >= 0 and parts[0].x.max() == 1


# --------------------------------------------------------------------------------- the full set, by file


def test_a_folder_without_the_files_is_refused_with_their_address(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz; get them from http"):
        fashion_full(tmp_path)


@pytest.mark.parametrize("name, write", [("", bytes), (".gz", gzip.compress)])
def test_a_file_that_is_not_the_official_one_is_refused(tmp_path, name, write):
    (tmp_path / f"train-images-idx3-ubyte{name}").write_bytes(write(b"\0" * 100))
    with pytest.raises(ValueError, match="not the official file"):
        fashion_full(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"ab", gzip.compress(b"\0" * 10_000, mtime=0)[:-9], gzip.compress(bytes(range(256)), mtime=0)[:60], b""],
    ids=["not a gz", "without its end", "cut off", "empty"],
)
def test_a_broken_gz_is_named_and_refused(tmp_path, content):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte\.gz.*not the official file.*Get it from http"
    ):
        fashion_full(tmp_path)


def idx(values) -> bytes:
    """An IDX file by its specification: two zeros, the type, the number of dimensions, each size, the values."""
    values = np.asarray(values, np.uint8)
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


def test_a_right_file_is_read_as_it_is_specified(tmp_path, monkeypatch):
    """Official files of a small kind, so that it runs where the real ones are not: no part taken for the other."""
    rng, parts = np.random.default_rng(0), {}
    for part, n in (("train", 5), ("t10k", 3)):
        parts[part] = rng.integers(0, 256, (n, 28, 28)), rng.integers(0, 10, n)
        for kind, values in zip(("images-idx3", "labels-idx1"), parts[part], strict=True):
            name, content = f"{part}-{kind}-ubyte", idx(values)
            monkeypatch.setitem(data._OFFICIAL, name, ("", hashlib.sha256(content).hexdigest()))
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    for split, (images, labels) in zip(fashion_full(tmp_path), parts.values(), strict=True):
        assert split.x.shape == (len(labels), 1, 28, 28) and split.x.dtype == torch.float32
        expected = (images[:, None] / 255 - 0.2860) / 0.3530
        assert np.abs(split.x.numpy() - expected).max() < 1e-6
        assert split.y.tolist() == labels.tolist()


def test_the_scale_is_the_official_training_set_s():
    """0.2860 and 0.3530 are printed in many places; the part students learn from has nearly that mean and spread."""
    assert (MEAN, STD) == (0.2860, 0.3530)
    pixels = fashion("train").x * 0.3530 + 0.2860
    assert pixels.mean().item() == pytest.approx(0.2860, abs=0.002)
    assert pixels.std().item() == pytest.approx(0.3530, abs=0.002)


def test_teachers_and_images_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    fashion_teacher(1)
    digits(1)
    assert torch.equal(before, torch.get_rng_state())


def test_the_first_teacher_and_the_first_shuffle_are_what_one_gets_unasked():
    assert torch.equal(fashion_teacher().head.weight, fashion_teacher(0).head.weight)
    assert torch.equal(digits()[0].x, digits(0)[0].x)


def test_a_cache_that_cannot_be_written_to_is_named_as_the_cause(monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    cache.write_text("a file where the folder should be")
    asked = []
    pooch = SimpleNamespace(retrieve=lambda *a, **k: asked.append(a), os_cache=lambda name: cache)
    monkeypatch.setitem(sys.modules, "pooch", pooch)
    with pytest.raises(
        OSError, match=r"cache, where downloads are kept, cannot be written.*folder="
    ) as error:
        fashion_full()
    assert "network" not in str(error.value) and not asked


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named_as_the_cause(monkeypatch, tmp_path):
    pooch = SimpleNamespace(retrieve=full, os_cache=lambda name: tmp_path)
    monkeypatch.setitem(sys.modules, "pooch", pooch)
    with pytest.raises(OSError, match=r"the disk is full: train-images") as error:
        fashion_full()
    assert error.value.errno == errno.ENOSPC
    monkeypatch.setattr(data.tempfile, "TemporaryFile", full)  # full already before the download
    with pytest.raises(OSError, match=r"No space left on device.*make room"):
        fashion_full()


def test_a_download_with_another_md5_is_refused_by_name(monkeypatch, tmp_path):
    def retrieve(*args, **kwargs):
        raise ValueError("MD5 hash of downloaded file does not match the known hash")

    pooch = SimpleNamespace(retrieve=retrieve, os_cache=lambda name: tmp_path)
    monkeypatch.setitem(sys.modules, "pooch", pooch)
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte\.gz, as downloaded, is not the official file"
    ):
        fashion_full()


def test_without_a_network_the_error_says_what_to_do(monkeypatch, tmp_path):
    def retrieve(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setitem(
        sys.modules, "pooch", SimpleNamespace(retrieve=retrieve, os_cache=lambda name: tmp_path / name)
    )
    with pytest.raises(FileNotFoundError, match=r"ConnectionError.*folder=") as error:
        fashion_full()
    assert isinstance(error.value.__cause__, ConnectionError)


def test_the_download_is_checked_against_the_official_md5(monkeypatch, tmp_path):
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append((url, known_hash, fname))
        raise OSError

    monkeypatch.setitem(
        sys.modules, "pooch", SimpleNamespace(retrieve=retrieve, os_cache=lambda name: tmp_path / name)
    )
    with pytest.raises(FileNotFoundError):
        fashion_full()
    ((url, known_hash, fname),) = asked
    assert url.endswith("/" + fname) and known_hash == f"md5:{data._OFFICIAL[fname[:-3]][0]}"


@pytest.mark.skipif(not OFFICIAL, reason="set FASHION_MNIST to a folder with the official files")
def test_the_embedded_parts_are_the_recorded_cuts_of_the_official_files():
    train, test = fashion_full(OFFICIAL)
    assert (len(train), len(test)) == (60_000, 10_000)
    for name, part in {"train": train[45_000:55_000], "val": train[55_000:], "test": test}.items():
        embedded = fashion(name)
        assert torch.equal(embedded.x, part.x) and torch.equal(embedded.y, part.y)
    assert train.x.mean().item() == pytest.approx(0, abs=1e-3) and math.isclose(
        train.x.std(), 1, abs_tol=1e-3
    )
    shown = {image.tobytes() for image in train[:45_000].x.numpy()}
    seen = sum(image.tobytes() in shown for image in train[45_000:].x.numpy())
    assert seen < 15  # the official set repeats a few images


def test_a_negative_sample_is_refused():
    with pytest.raises(ValueError, match="per_class is a number of examples"):
        Split(torch.zeros(6, 2), torch.arange(6) % 2).sample(-1, seed=0)
