"""Exercises on other people's conventions (chapter 7)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare

NEEDS_LOGITS = "it compares probabilities, and this teacher gives only text."
WRONG_TOOLS = {
    **{
        (0, tool): NEEDS_LOGITS
        for tool in ("TRL DistillationTrainer", "TRL GOLDTrainer", "DistillKit", "torchdistill")
    },
    (1, "EasyDistill"): "the probabilities can be had: text alone would throw them away.",
    (1, "TRL GOLDTrainer"): "it is for two tokenisers, and here is one.",
    (
        1,
        "DistillKit",
    ): "what is stored belongs to a given text, and the student's own text is not known before.",
    (1, "torchdistill"): "it trains on given inputs: nothing is written by the student.",
    (2, "EasyDistill"): "it would do, and throw away the probabilities that you have.",
    (
        2,
        "TRL DistillationTrainer",
    ): "it needs one vocabulary, and raises an error that names the tool you want.",
    (2, "DistillKit"): "what is stored are the teacher's tokens: which of them is which of the student's?",
    (2, "torchdistill"): "its loss compares class number c with class number c: one set of classes.",
}
WRONG_GIGABYTES = {
    (0, 54): "that is the student alone.",
    (0, 62): "autocast makes a copy of the student's weights in bf16: 2 bytes more for each parameter.",
    (0, 20): "the student is trained: its gradient and Adam's averages take memory, too.",
    (0, 180): "the teacher is only asked: 2 bytes for each parameter.",
    (0, 41): "that is the student of 1.5 billion parameters.",
    (1, 41): "that is the step of 8,192 tokens; here it has twice as many.",
    (1, 2.49): "bytes: the careful loss holds up to 33 for each entry.",
    (1, 9.96): "that is one table in float32; the careful loss holds up to 33 bytes for each entry.",
    (2, 157): "that is with the whole tables: now they are made for 512 tokens at a time.",
    (2, 75): "the tables of one piece are missing.",
    (2, 70.6): "the activations are missing.",
    (2, 80.1): "that is in pieces of 1,024 tokens.",
}
WRONG_WEIGHTS = {
    (0, 0.5): "that is what was written; how much of it arrives beside the labels' 0.5?",
    (0, 0.0313): "that is the teacher's weight: α is its share of the two.",
    (0, 0.941): "that is the labels' share.",
    (0, 0.25): "that is a loss that divides by the three classes: the second call finds 0.0313, not 0.167.",
    (1, 0.8): "of that a sixteenth would arrive: T² is missing.",
    (1, 12.8): "beside 0.2 on the labels; but the two weights here sum to 1: divide by their sum.",
    (1, 0.2): "T² is missing, so the teacher needs more, and not less.",
    (1, 0.993): "that is for α = 0.9.",
    (1, 0.015): "that is what is left for the labels.",
    (1, 0.923): "that is the share where the three classes divide: here T² = 16 is missing.",
}


def mend_loss(attempt: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """Checks attempt(logits_s, logits_t, T) → T²·KL(p‖q) of tokens (B, L, V), averaged over all tokens."""

    def loss(dim=-1, power=2, count=lambda z: z.shape[0] * z.shape[1]):
        def made(z, v, T):
            log_q, log_p = (z / T).log_softmax(dim), (v.detach() / T).log_softmax(dim)
            return T**power * (log_p.exp() * (log_p - log_q)).sum() / count(z)

        return made

    def texts(z):
        return z.shape[0]

    generator = torch.Generator().manual_seed(0)
    cases = [
        (*(3 * torch.randn(2, *shape, generator=generator, dtype=torch.double)), T)
        for shape, T in (((2, 3, 5), 2.0), ((3, 4, 6), 4.0), ((4, 2, 7), 0.5))
    ]
    compare(
        "mend_loss", attempt, loss(), cases,
        {
            "both mistakes are still there: over which dimension do the probabilities sum to 1?": loss(1, 2, texts),
            "`batchmean` divides by the texts alone: two texts of three tokens are six tokens.": loss(-1, 2, texts),
            "the softmax runs over the positions of a text: the vocabulary is the last dimension.": loss(1),
            "the softmax runs over the texts: the vocabulary is the last dimension.": loss(0),
            "this divides by all entries, the vocabulary too: a divergence is a sum over the vocabulary.":
                loss(count=Tensor.numel),
            "this divides by the tokens of one text alone: take the mean over all tokens.":
                loss(count=lambda z: z.shape[1]),
            "this is the sum over all tokens: take their mean.": loss(count=lambda z: 1),
            "the factor T² was right: it is missing now.": loss(power=0),
        },
        student=0, teacher=1,
    )  # fmt: skip
