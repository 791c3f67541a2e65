"""The ten lines of chapter 7, run on tiny models; and what the trainers do not let happen.

What does not import is left out, with the reason (conftest.py).
"""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from companion.losses import distillation_loss
from tests.peers.conftest import need

CHAPTER = Path(__file__).parents[2] / "chapters/07_tools.ipynb"
TEXT = "\n\n".join(
    "".join(c["source"])
    for c in json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
    if c["cell_type"] == "markdown"
)
BLOCK = re.compile(r"\{admonition\} (?:Ten lines|One step): ([^\n]+)\n[\s\S]*?```python\n([\s\S]*?)```")
BLOCKS = dict(BLOCK.findall(TEXT))
# title → package, module that has to import, what the lines are given
TOOLS = {
    "torchdistill": ("torchdistill", "torchdistill.losses.mid_level", "classifiers"),
    "Keras": ("keras", "keras.distillation", "keras_classifiers"),
    "TRL": ("trl", "trl", "language_models"),
    "Liger-Kernel": ("liger-kernel", "liger_kernel.chunked_loss", "two_language_models"),
    "ModelOpt": ("nvidia-modelopt", "modelopt.torch.distill", "classifiers"),
    "sentence-transformers": ("sentence-transformers", "sentence_transformers", "embedders"),
}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Trainers write into the working folder, and nothing is fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)


def classifiers():
    return {
        "student": nn.Linear(20, 5), "teacher": nn.Linear(20, 5),
        "x": torch.randn(64, 20), "y": torch.arange(64) % 5, "torch": torch, "F": nn.functional,
    }  # fmt: skip


def keras_classifiers(classes=(5, 5)):
    import keras

    teacher, student = (keras.Sequential([keras.Input((20,)), keras.layers.Dense(c)]) for c in classes)
    return {**classifiers(), "student": student, "teacher": teacher}


def two_language_models(lr=0.0):
    """Without a learning rate the step leaves the student as it was, to be compared."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    student, teacher = (
        Qwen2ForCausalLM(Qwen2Config(
            vocab_size=50, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2,
        )).eval()
        for width in (8, 16)
    )  # fmt: skip
    return {
        "student": student, "teacher": teacher.requires_grad_(False), "ids": torch.arange(48).view(4, 12),
        "optimizer": torch.optim.SGD(student.parameters(), lr=lr),
    }  # fmt: skip


def embedders():
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    count = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["?", *words])}, unk_token="?"))
    count.pre_tokenizer = pre_tokenizers.Whitespace()
    student, teacher = (
        SentenceTransformer(modules=[StaticEmbedding(count, embedding_dim=8)], device="cpu") for _ in "ab"
    )
    return {"student": student, "teacher": teacher, "texts": [" ".join(pair) for pair in pairwise(words)]}


def tokeniser(texts, size):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<pad>", "<eos>"]
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    turn = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<eos>{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>", padding_side="left",
        chat_template=turn + "{% if add_generation_prompt %}assistant: {% endif %}",
    )  # fmt: skip


def language_model(count, width):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(
        vocab_size=len(count), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, eos_token_id=1,
    ))  # fmt: skip


def language_models():
    from datasets import Dataset

    tokenizer, others = tokeniser(["one two three four five"], 280), tokeniser(["seven eight one"], 270)
    others.save_pretrained("other")
    language_model(others, 16).save_pretrained("other")
    asked, answer = (
        {"role": "user", "content": "one two"},
        {"role": "assistant", "content": "three four five seven eight one two three"},
    )
    return {
        "tokenizer": tokenizer, "student": language_model(tokenizer, 8), "teacher": language_model(tokenizer, 16),
        "other": "other", "prompts": Dataset.from_list([{"prompt": [asked]}] * 8),
        "chats": Dataset.from_list([{"messages": [asked, answer]}] * 8), "others": language_model(others, 16),
    }  # fmt: skip


def of(title):
    return next(tool for tool in TOOLS if title.startswith(tool))


def weights(model):
    values = model.parameters() if isinstance(model, nn.Module) else model.get_weights()
    return [torch.as_tensor(value).detach().clone() for value in values]


def test_the_chapter_has_lines_for_every_tool_that_installs():
    assert {of(title) for title in BLOCKS} == set(TOOLS) and len(BLOCKS) == 8


@pytest.mark.parametrize("title", BLOCKS)
def test_the_lines_are_few(title):
    lines = [line for line in BLOCKS[title].splitlines() if line]
    whole_step = title.startswith("Liger")  # no trainer, and no loop round it
    assert len(lines) <= (15 if whole_step else 13) and max(map(len, lines)) <= 80


@pytest.mark.parametrize("title", BLOCKS)
def test_the_lines_run_and_train_the_student_alone(title):
    package, module, make = TOOLS[of(title)]
    need(package, module)
    names = two_language_models(lr=0.1) if make == "two_language_models" else globals()[make]()
    before = {side: weights(names[side]) for side in ("student", "teacher")}
    exec(BLOCKS[title], names)
    for side, was in before.items():
        moved = any(not torch.equal(a, b) for a, b in zip(was, weights(names[side]), strict=True))
        assert moved == (side == "student"), side
    if make == "two_language_models":  # every table of the student, with checkpointing
        student = names["student"]
        assert student.training and student.is_activation_checkpointing
        assert all(p.grad.abs().sum() > 0 for p in student.parameters() if p.ndim > 1)
        assert all(p.grad is None for p in names["teacher"].parameters())


LIGER = next(lines for title, lines in BLOCKS.items() if title.startswith("Liger"))


@pytest.mark.parametrize("T, soft", [(1, 0.9), (4, 14.4)])
def test_ligers_lines_train_as_alpha_09_does_here(T, soft):
    """The weights of 7.4 and, at T = 4, of 7.2: loss and push are this book's."""
    need("liger-kernel", "liger_kernel.chunked_loss")
    names = two_language_models()
    lines = LIGER
    for written, asked in (("soft_loss=0.9", f"soft_loss={soft}"),
                           ("temperature=1", f"temperature={T}")):  # fmt: skip
        assert written in lines
        lines = lines.replace(written, asked)
    exec(lines, names)
    student, teacher, ids = (names[k] for k in ("student", "teacher", "ids"))
    theirs = student.lm_head.weight.grad.clone()
    student.zero_grad()
    z, v = (model(ids).logits[:, :-1].flatten(0, 1) for model in (student, teacher))
    ours = distillation_loss(z, v, ids[:, 1:].flatten(), T=T, alpha=0.9)
    ours.backward()
    torch.testing.assert_close(names["loss"].reshape(()), ours, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(theirs, student.lm_head.weight.grad, rtol=1e-4, atol=1e-6)


def test_ligers_lines_cut_a_teachers_padding():
    need("liger-kernel", "liger_kernel.chunked_loss")
    names = two_language_models()
    exec(LIGER, names)
    head = names["teacher"].lm_head
    head.weight = nn.Parameter(torch.cat([head.weight, torch.randn(8, 16)]), requires_grad=False)
    padded = {k: names[k] for k in ("student", "teacher", "ids", "optimizer")}
    exec(LIGER, padded)
    torch.testing.assert_close(padded["loss"], names["loss"])


@pytest.mark.parametrize(
    "title", [title for title in BLOCKS if title.startswith("TRL") and "two" not in title]
)
def test_trls_trainers_refuse_a_teacher_with_another_vocabulary(title):
    """What the bare function lets pass cannot happen in the trainer: the fault table says so (PREVENTED)."""
    need("trl", "trl")
    names = language_models()
    names["teacher"] = names["others"]
    with pytest.raises(ValueError, match=r"vocab_size .* GOLD for cross-tokenizer"):
        exec(BLOCKS[title], names)


@pytest.mark.parametrize("classes", [(1, 5), (13, 5)])
def test_keras_distiller_refuses_a_teacher_with_other_classes(classes):
    need("keras", "keras.distillation")
    title = next(title for title in BLOCKS if title.startswith("Keras"))
    with pytest.raises(ValueError, match="shape"):
        exec(BLOCKS[title], keras_classifiers(classes))


def test_the_versions_are_those_that_the_extras_name():
    project = (CHAPTER.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    for title in BLOCKS:
        version = re.search(r"\d+\.\d+\.\d+", title)[0]
        assert f'"{TOOLS[of(title)][0]}=={version}"' in project
