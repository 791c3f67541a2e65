"""Two vocabularies: refused where they differ; the exact marginal over bytes beside a sum over all ways to cut a text."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import softmax

from companion.tokens import forward_kl_loss
from companion.vocabulary import check_same_tokens, next_byte, uld_loss
from tests.test_losses import gradient, logits

# -------------------------------------------------------------------------------------------- the same tokens?


def test_one_tokenizer_passes():
    tokens = {"a": 0, "b": 1, "ab": 2}
    assert check_same_tokens(tokens, dict(reversed(tokens.items()))) == 3


@pytest.mark.parametrize(
    "mine, theirs, match",
    [
        (
            {"a": 0, "b": 1},
            {"a": 1, "b": 0},
            r"2 of 2 tokens differ.*'a': student 0, teacher 1.*sequence-level",
        ),
        ({"a": 0, "b": 1}, {"a": 0, "c": 1}, r"1 of 2.*'b': student 1, teacher None"),
        (
            {"a": 0, "b": 1},
            {"a": 0, "b": 1, "ab": 2, "ba": 3},
            r"2 tokens.*first is 'ab'.*cut otherwise.*special",
        ),
        ({"a": 0, "b": 2, "c": 1}, {"a": 0, "b": 2}, r"1 tokens.*first is 'c'"),
        ({}, {"a": 0}, "get_vocab"),
    ],
)
def test_other_tokenizers_are_refused_with_the_remedy(mine, theirs, match):
    with pytest.raises(ValueError, match=match):
        check_same_tokens(mine, theirs)


def test_logits_of_two_vocabularies_are_refused_with_the_remedy():
    z, v = logits(2, 3, 6)[0], logits(2, 3, 8)[1]
    with pytest.raises(
        ValueError, match=r"\(2, 3, 6\) and \(2, 3, 8\).*z\[\.\.\., :V\].*companion\.vocabulary"
    ):
        forward_kl_loss(z, v)
    assert forward_kl_loss(z, v[..., :6]).isfinite()


# ------------------------------------------------------------------------------------------------------- ULD


def definition(z, v):
    p, q = (np.sort(softmax(x, -1), -1)[:, ::-1] for x in (v, z))
    width = max(p.shape[1], q.shape[1])
    p, q = (np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (p, q))
    return np.abs(p - q).sum(-1).mean()


@pytest.mark.parametrize("sizes", [(6, 6), (6, 9), (9, 6)])
def test_uld_is_its_definition_also_for_vocabularies_of_two_sizes(sizes):
    z, v = logits(5, sizes[0])[0], logits(5, sizes[1])[1]
    loss = uld_loss(z, v)
    assert loss.item() == pytest.approx(definition(z.detach().numpy(), v.numpy()), rel=1e-12)
    assert torch.autograd.gradcheck(lambda z: uld_loss(z, v), z)
    mask = torch.tensor([True, False, True, True, False])
    assert uld_loss(z, v, mask).item() == pytest.approx(uld_loss(z[mask], v[mask]).item(), rel=1e-12)


def test_uld_cannot_see_which_token_has_which_probability():
    """A teacher whose words are exchanged: the same loss, the same gradient. A KL sees it."""
    z, v = logits(5, 9)
    exchanged = v[:, torch.randperm(9, generator=torch.Generator().manual_seed(3))]
    found = [uld_loss(z, x) for x in (v, exchanged)]
    assert found[0].item() == pytest.approx(found[1].item(), abs=1e-15)
    np.testing.assert_allclose(*(gradient(x, z) for x in found), atol=1e-15)
    assert forward_kl_loss(z, v).item() != pytest.approx(forward_kl_loss(z, exchanged).item(), rel=0.01)
    assert (
        uld_loss(exchanged, v).item() == pytest.approx(0, abs=1e-14) and forward_kl_loss(exchanged, v) > 0.1
    )


def test_uld_gives_the_teacher_no_gradient_and_refuses_other_rows():
    z, v = logits(5, 6)
    v.requires_grad_()
    uld_loss(z, v).backward()
    assert v.grad is None and z.grad.any()
    with pytest.raises(ValueError, match=r"\(5, 6\) and \(4, 6\)"):
        uld_loss(z, v[:4])


# ------------------------------------------------------------------------------------------- the next byte, exactly

TOKENS = [b"a", b"b", b"ab", b"ba", b"aab"]


def markov(seed=0, tokens=TOKENS):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(len(tokens) + 1, len(tokens), generator=generator, dtype=torch.double)
    rows /= rows.sum(-1, keepdim=True)
    return rows[0], rows[1:]


def by_enumeration(first, following, tokens, text):
    """P(the text begins so), from all sequences of as many tokens as there are bytes."""
    total = 0.0
    for way in itertools.product(range(len(tokens)), repeat=len(text)):
        if b"".join(tokens[t] for t in way).startswith(text):
            p = first[way[0]].item()
            total += p * math.prod(following[a, b].item() for a, b in itertools.pairwise(way))
    return total


@pytest.mark.parametrize("text", [b"a", b"abab", b"aabba"])
def test_the_next_byte_is_the_sum_over_all_ways_to_cut_the_text(text):
    first, following = markov()
    found = next_byte(first, following, TOKENS, text)
    assert found.shape == (len(text) + 1, 256)
    torch.testing.assert_close(
        found.sum(-1), torch.ones(len(text) + 1, dtype=torch.double), rtol=1e-12, atol=0
    )
    for i in range(len(text)):
        whole = by_enumeration(first, following, TOKENS, text[:i]) if i else 1.0
        for byte in b"ab":
            joint = by_enumeration(first, following, TOKENS, text[:i] + bytes([byte]))
            assert found[i, byte].item() == pytest.approx(joint / whole, rel=1e-10)


def test_a_model_over_bytes_is_its_own_marginal():
    first, following = markov(tokens=[b"x", b"y"])
    found = next_byte(first, following, [b"x", b"y"], b"xyy")
    torch.testing.assert_close(found[0, list(b"xy")], first)
    torch.testing.assert_close(found[1:, list(b"xy")], following[[0, 1, 1]])


def test_the_other_order_of_tokens_gives_the_same_bytes_and_exchanged_words_do_not():
    first, following = markov()
    order = torch.tensor([3, 1, 4, 0, 2])
    moved = first[order], following[order][:, order]
    same = next_byte(*moved, [TOKENS[i] for i in order], b"abba")
    torch.testing.assert_close(same, next_byte(first, following, TOKENS, b"abba"), rtol=1e-12, atol=1e-15)
    exchanged = next_byte(*moved, TOKENS, b"abba")
    assert (exchanged - same).abs().max() > 0.01


def test_what_is_no_model_over_these_tokens_is_refused():
    first, following = markov()
    for given, match in [
        ((first, following[:4], TOKENS, b"a"), r"V = 5 tokens; got \(5,\) and \(4, 5\)"),
        ((first, following, [*TOKENS[:4], b""], b"a"), "token 4 is empty"),
        ((first, 2 * following, TOKENS, b"a"), "sums to 1; got"),
        ((first, following, TOKENS, b"ac"), r"b'ac' the probability 0"),
    ]:
        with pytest.raises(ValueError, match=match):
            next_byte(*given)


def test_nan_is_no_probability():
    first, following = torch.tensor([0.5, 0.5]), torch.full((2, 2), 0.5)
    for one, other in ((first * torch.nan, following), (first, following * torch.nan)):
        with pytest.raises(ValueError, match="each row of probabilities sums to 1"):
            next_byte(one, other, [b"a", b"b"], b"a")


def test_a_teacher_of_another_vocabulary_is_named():
    z = torch.zeros(2, 5)
    with pytest.raises(ValueError, match=r"teacher all NaN \(14 NaN\)"):
        uld_loss(z, torch.full((2, 7), torch.nan))
    with pytest.raises(TypeError, match="teacher logits are floating-point"):
        uld_loss(z, torch.ones(2, 7).long())
    mask = torch.tensor([False, True])
    assert uld_loss(z, torch.tensor([[torch.nan] * 7, [0.0] * 7]), mask).isfinite()
