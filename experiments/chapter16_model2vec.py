"""Model2Vec 0.10.0 on chapter 16's sentences, in an environment of its own (it asks for another transformers).

    pip install "model2vec[distill,quantization]==0.10.0" torch==2.13.0     # elsewhere, without the book
    python experiments/chapter16_model2vec.py     # after experiments.chapter16 wrote the sentences

It distils the same teacher with its defaults, but to 128 numbers a token, as many as the chapter's student has, and
writes the vectors of all sentences into _build/chapter16, for experiments.chapter16 to judge.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

os.environ["HF_HUB_OFFLINE"] = "1"
KEPT = Path(__file__).parent.parent / "_build/chapter16"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "companion"
CONFIG = {
    "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 30_522, "hidden_size": 384,
    "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
}  # fmt: skip


def main() -> None:
    from model2vec.distill import distill

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for ours, theirs in (("safetensors", "model.safetensors"), ("tokenizer.json", "tokenizer.json")):
            shutil.copy(CACHE / f"all-MiniLM-L6-v2.{ours}", Path(folder) / theirs)
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        tokens = {"tokenizer_class": "BertTokenizerFast", "do_lower_case": True, "model_max_length": 512}
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(tokens))
        model = distill(model_name=folder, pca_dims=128)
    model.save_pretrained(KEPT / "model2vec")
    texts = json.loads((KEPT / "sentences.json").read_text(encoding="utf-8"))
    found = {part: torch.from_numpy(model.encode(of)).float().contiguous() for part, of in texts.items()}
    save_file(found, KEPT / "model2vec.safetensors")
    print(model.embedding.shape, model.embedding.dtype, {part: tuple(v.shape) for part, v in found.items()})


if __name__ == "__main__":
    main()
