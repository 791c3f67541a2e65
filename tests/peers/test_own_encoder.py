"""Chapter 16's lines from a model's name to a saved table, run with sentence-transformers on a small encoder."""

import copy
import json
import random
import re
from pathlib import Path

import torch

from tests.peers.conftest import need

need("sentence-transformers", "sentence_transformers", allow_module_level=True)

from safetensors.torch import load_file  # noqa: E402 - comes with what is needed above

from companion.features import hint_loss  # noqa: E402
from companion.models import StaticEncoder  # noqa: E402
from experiments.chapter16 import bags  # noqa: E402

CELLS = [
    "".join(c["source"])
    for c in json.loads((Path(__file__).parents[2] / "chapters/16_small.ipynb").read_text(encoding="utf-8"))[
        "cells"
    ]
]
(LINES,) = re.findall(r"```python\n(from safetensors.torch import save_file\n[\s\S]*?)```", "\n".join(CELLS))
(LOOP,) = [cell for cell in CELLS if cell.startswith("student = copy.deepcopy(begun)")]


def small_encoder(folder, words):
    """A BERT of one block, with random weights, as sentence-transformers finds it in a folder."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = Tokenizer(models.WordPiece({w: i for i, w in enumerate([*special, *words])}, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(
        zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True)
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokens, **names).save_pretrained(folder)
    sizes = {"hidden_size": 192, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=len(words) + len(special), **sizes)
    transformers.BertModel(config).save_pretrained(folder)


def test_the_lines_lead_from_a_models_name_to_a_table_that_answers_like_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)
    words = [f"w{i}" for i in range(195)]
    small_encoder("all-MiniLM-L6-v2", words)
    draw = random.Random(0)
    texts = [" ".join(draw.choices(words, k=6)) for _ in range(400)]
    Path("mine.txt").write_text("\n".join(texts[:300]), encoding="utf-8")

    before, after = LINES.split("# the loop above, 300 steps, with len(texts) for 100; then:\n")
    loop = LOOP.split("with torch.no_grad()")[0]
    for written, asked in (("range(80)", "range(300)"), ("torch.randint(100,", "torch.randint(len(texts),")):
        assert loop.count(written) == 1
        loop = loop.replace(written, asked)
    names = {"copy": copy, "torch": torch, "Path": Path, "StaticEncoder": StaticEncoder,
             "hint_loss": hint_loss, "bags": bags}  # fmt: skip
    exec(before + loop + after, names)

    table = StaticEncoder(200, 128, 192)
    table.load_state_dict(load_file("table.safetensors"))
    others = torch.tensor(names["encoder"].encode(texts[300:], normalize_embeddings=True))
    rows = [torch.tensor(row) for row in names["cut"](texts[300:], add_special_tokens=False).input_ids]
    begun, learned = ((x(*bags(rows)) * others).sum(1).mean().item() for x in (names["begun"], table))
    assert learned > begun and learned > 0.8, (begun, learned)
