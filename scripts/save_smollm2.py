"""Write SmolLM2 as a folder of the Hugging Face form, for a server: python scripts/save_smollm2.py [FOLDER].

The file that `make teachers` brings is in GGUF, which few servers of Python read. Its weights are 4-bit numbers
unpacked, in float32 as `companion.teachers.smollm2` has them. FOLDER is SmolLM2-135M-Instruct in the teachers'
cache; a folder that is whole is left as it is. Prints its name.
"""

import json
import sys
from pathlib import Path

from gguf import GGUFReader
from safetensors.torch import save_file

from companion import teachers
from companion.teachers._files import cache, locate

NAMES = {
    "norm_attention": "input_layernorm", "norm_mlp": "post_attention_layernorm", "q": "self_attn.q_proj",
    "k": "self_attn.k_proj", "v": "self_attn.v_proj", "out": "self_attn.o_proj", "gate": "mlp.gate_proj",
    "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip


def halves(weight, heads):
    """Rows of q or k from GGUF's order, where the two coordinates that turn together are neighbours, to
    transformers', where they are half a head apart."""
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(weight.shape)


def weights(model):
    named = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm.weight}
    for i, block in enumerate(model.blocks):
        for ours, theirs in NAMES.items():
            weight = getattr(block, ours).weight
            if ours in "qk":
                weight = halves(weight, block.heads if ours == "q" else block.heads_kv)
            named[f"model.layers.{i}.{theirs}.weight"] = weight
    return {name: weight.contiguous() for name, weight in named.items()}


def config(model):
    block = model.blocks[0]
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": model.embedding.num_embeddings,
        "hidden_size": model.embedding.embedding_dim, "intermediate_size": block.gate.out_features,
        "num_hidden_layers": len(model.blocks), "num_attention_heads": block.heads,
        "num_key_value_heads": block.heads_kv, "rms_norm_eps": 1e-5, "rope_theta": 100_000.0, "hidden_act": "silu",
        "max_position_embeddings": 8192, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": model.end,
        "pad_token_id": model.end, "torch_dtype": "float32",
    }  # fmt: skip


def main(folder):
    if (folder / "config.json").exists():  # written last
        return
    model = teachers.smollm2()
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights(model), folder / "model.safetensors", {"format": "pt"})
    model.tokenizer.save(str(folder / "tokenizer.json"))
    template = GGUFReader(locate(teachers.SMOLLM2)).fields["tokenizer.chat_template"].contents()
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>", "unk_token": "<|endoftext|>", "model_max_length": 8192,
        "clean_up_tokenization_spaces": False, "chat_template": template,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config(model), indent=1), encoding="utf-8")


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else cache() / "SmolLM2-135M-Instruct"
    main(place)
    print(place)
