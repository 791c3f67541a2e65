"""Two vocabularies: are they the same, and what can be compared if they are not.

A loss on logits pairs column c of the student with column c of the teacher, so both must mean the same token. Two
tokenizers share texts and bytes, and nothing else. `uld_loss` compares sorted probabilities, which says nothing about
which token has which; `next_byte` gives what both models say about the same thing, exactly, for models whose next
token depends on the last one only.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ._core import check_logits, mean_over_rows
from ._formulas import through_softmax
from ._input import _no_logits, not_finite

ACROSS = (
    "Across tokenizers compare texts or bytes: train on texts that the teacher writes (sequence-level), or see "
    "companion.vocabulary.next_byte and uld_loss."
)


def check_same_tokens(tokens_s: Mapping[str, int], tokens_t: Mapping[str, int]) -> int:
    """Whether student and teacher give each token the same number, as every loss on logits takes for granted.

    Args:
        tokens_s, tokens_t: token → id, as tokenizer.get_vocab() gives them.

    Returns:
        How many tokens there are: where a last layer is padded beyond them, cut its logits or weight to this many.

    Raises:
        ValueError: a token has another number, or is unknown, on the other side. The message names one.
    """
    if not tokens_s or not tokens_t:
        raise ValueError("an empty vocabulary: pass tokenizer.get_vocab() of both sides.")
    small, large = sorted((tokens_s, tokens_t), key=len)
    apart = [token for token, i in small.items() if large.get(token) != i]
    if apart:
        found = ", ".join(
            f"{who} {of.get(apart[0])}" for who, of in (("student", tokens_s), ("teacher", tokens_t))
        )
        raise ValueError(
            f"{len(apart):,} of {len(small):,} tokens differ, the first is {apart[0]!r}: {found}. Column c of the two "
            f"logits is not the same token. {ACROSS}"
        )
    more = sorted(large.keys() - small.keys(), key=large.get)
    if more:
        raise ValueError(
            f"{len(more):,} tokens are on one side only, the first is {more[0]!r}: with them a text is cut otherwise. If "
            f"they are special tokens that stand in no text, leave them out of what you pass. {ACROSS}"
        )
    return len(small)


def uld_loss(
    logits_s: Tensor, logits_t: Tensor, mask: Tensor | None = None, denominator: float | None = None
) -> Tensor:
    """Σ_i |p_(i) − q_(i)|, probabilities sorted from large to small, mean over counted tokens.

    The shorter list is filled up with zeros. It is blind to which token has which probability: a teacher whose words
    are exchanged gives the same loss and the same gradient.

    Args:
        logits_s: student logits (N, V) or (B, L, V).
        logits_t: teacher logits (N, W) or (B, L, W), V and W may differ. They receive no gradient.
        mask: (N,) or (B, L), True where a token counts. denominator: as in `kd_loss`.

    Returns:
        Scalar, 0 … 2; 0 where both have the same probabilities in whatever order.

    Raises:
        TypeError, ValueError: as `kd_loss`, but for the sizes of the vocabularies.

    Source: Boizard et al. 2024, arXiv:2402.12030 (there added to the cross-entropy, with a weight).
    """
    shapes = [tuple(getattr(x, "shape", ())) for x in (logits_s, logits_t)]
    if shapes[0][:-1] != shapes[1][:-1]:
        got = f"got {shapes[0]} and {shapes[1]}"
        raise ValueError(f"takes logits (..., V) and (..., W), one row a token on both sides; {got}.")
    if not isinstance(logits_t, Tensor) or not logits_t.is_floating_point():
        raise TypeError(_no_logits("teacher", logits_t))
    check_logits(logits_t, logits_t)
    p = logits_t.detach().flatten(0, -2)

    def check(v):
        if not v.amax(-1).isfinite().all():  # of NaN, of +∞, and of −∞ only
            raise not_finite(math.nan, logits_s if mask is None else logits_s[mask], v)

    def rows(z, _, v):
        z = z.double()  # two sure sides differ by what float32 cannot add to 1
        q, places = z.softmax(-1).sort(dim=-1, descending=True, stable=True)
        p = v.double().softmax(-1).sort(-1, descending=True).values
        gap = q.new_zeros(len(q), max(q.shape[1], p.shape[1]))
        gap[:, : q.shape[1]] += q
        gap[:, : p.shape[1]] -= p
        sign = torch.empty_like(q).scatter_(1, places, gap[:, : q.shape[1]].sign())
        return gap.abs().sum(-1), through_softmax(z.softmax(-1), sign, 1.0)

    return mean_over_rows(rows, logits_s, logits_s, mask, denominator, (p,), check)


def next_byte(first: Tensor, following: Tensor, tokens: Sequence[bytes], text: bytes) -> Tensor:
    """P(next byte | text so far) of a model over tokens, after each byte of a text: summed over all ways to cut it.

    A text may be cut into tokens in many ways, and the token that is being written may go on beyond its end. With a_j(t)
    = P(the text up to byte j is cut there, and t comes next), P(text up to i, then c) = Σ_j Σ_t a_j(t) over the tokens t
    that agree with the text from j to i and have c as the byte after.

    Args:
        first: probabilities of the first token (V,). following: (V, V), row t those of what follows t.
        tokens: the bytes of each token, none empty.
        text: n bytes.

    Returns:
        (n + 1, 256) in double precision: row i is the distribution of the byte that comes after i bytes.

    Raises:
        ValueError: shapes do not fit, a token is empty, rows do not sum to 1, or the model cannot write the text.
    """
    first, following = first.detach().double(), following.detach().double()
    _check_markov(first, following, tokens)
    n = len(text)
    cut, joint = torch.zeros(n + 1, len(tokens), dtype=torch.double), [[0.0] * 256 for _ in range(n + 1)]
    for j in range(n + 1):
        coming = (first if j == 0 else cut[j] @ following).tolist()  # a_j
        for t, (token, a) in enumerate(zip(tokens, coming, strict=True)):
            fits = _common(token, text[j : j + len(token)])
            for i in range(j, min(j + fits, n, j + len(token) - 1) + 1):
                joint[i][token[i - j]] += a
            if fits == len(token):
                cut[j + fits, t] += a
    joint = torch.tensor(joint, dtype=torch.double)
    total = joint.sum(-1, keepdim=True)
    if not total.all():
        raise ValueError(f"the model gives {text[: int((total == 0).nonzero()[0, 0])]!r} the probability 0.")
    return joint / total


def _common(token: bytes, text: bytes) -> int:
    """How many bytes the token and the text share from the start."""
    return next(
        (k for k, (a, b) in enumerate(zip(token, text, strict=False)) if a != b), min(len(token), len(text))
    )


def _check_markov(first: Tensor, following: Tensor, tokens: Sequence[bytes]) -> None:
    v = len(tokens)
    if first.shape != (v,) or following.shape != (v, v):
        raise ValueError(
            f"takes probabilities (V,) and (V, V) for V = {v} tokens; got {tuple(first.shape)} and "
            f"{tuple(following.shape)}."
        )
    if not all(tokens):
        raise ValueError(f"token {list(tokens).index(b'')} is empty: leave out what writes nothing.")
    rows = torch.cat([first[None], following])
    if not (rows.min() >= 0 and (rows.sum(-1) - 1).abs().max() <= 1e-6):  # NaN, too
        raise ValueError(
            f"each row of probabilities sums to 1; got {rows.sum(-1).min():.6g} … {rows.sum(-1).max():.6g}."
        )
