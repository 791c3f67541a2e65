"""Exercises on rounded weights and on drafts (chapters 17 and 24)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._compare import compare


def straight_through(attempt: Callable[[Tensor, int], Tensor]) -> None:
    """Checks attempt(w, bits), w (R, K) → the weights rounded with a scale for each row, and the gradient of w itself."""
    generator = torch.Generator().manual_seed(17)
    cases = [
        (torch.randn(r, k, generator=generator, dtype=torch.double), bits)
        for r, k, bits in [(2, 5, 3), (3, 4, 2), (1, 9, 4)]
    ]

    def grid(w, bits, steps=None, largest=None):
        steps = 2 ** (bits - 1) - 1 if steps is None else steps
        scale = (w.abs().amax(1, keepdim=True) if largest is None else largest) / steps
        return (w / scale).round() * scale

    def right(w, bits):
        return w + (grid(w, bits) - w).detach()

    compare(
        "straight_through", attempt, right, cases,
        {
            "these are whole numbers: multiply with the scale again.":
                lambda w, bits: (w / (w.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1))).round(),
            "one scale for the whole matrix: each row has its own.":
                lambda w, bits: grid(w, bits, largest=w.abs().max()),
            "each column has a scale: it is each row's.":
                lambda w, bits: grid(w, bits, largest=w.abs().amax(0, keepdim=True)),
            "2^(bits−1) steps to each side are one too many: with 0 in the middle it is 2^(bits−1) − 1.":
                lambda w, bits: grid(w, bits, steps=2 ** (bits - 1)),
            "2^bits − 1 steps are those of both sides together.":
                lambda w, bits: grid(w, bits, steps=2**bits - 1),
            "the largest weight without its sign: take the absolute value first.":
                lambda w, bits: grid(w, bits, largest=w.amax(1, keepdim=True)),
        },
        student=0,
        slips={
            "the values are right; the gradient is that of rounding, which is flat: add to w what rounding changes, "
            "detached.": grid,
        },
    )  # fmt: skip


class _Script:
    """Rounds that are written down: what comes out depends on how much has been said, with the 2 in front."""

    def __init__(self, *rounds: list[int]):
        self.after, length = {}, 1
        for tokens in rounds:
            self.after[length] = torch.tensor(tokens)
            length += len(tokens)
        self.last, self.times = 0, 0
        self.rounds = rounds

    def __repr__(self) -> str:
        return "a function that gives " + ", then ".join(map(str, self.rounds))

    def __call__(self, said: Tensor) -> Tensor:
        self.times = self.times + 1 if len(said) == self.last else 0
        self.last = len(said)
        if self.times > 2000:  # a checker's many attempts come with the same text, too
            raise RuntimeError("the same text came again and again: append what a round gives")
        if len(said) not in self.after:
            raise RuntimeError(
                f"no round follows these {len(said)} tokens: append all that one gives, and stop at the 3"
            )
        return self.after[len(said)].clone()


def draft_loop(attempt: Callable[[Callable[[Tensor], Tensor]], float]) -> None:
    """Checks attempt(one_round) → tokens for each run of the target, up to the end (3) and without the start (2)."""
    cases = [
        (_Script([10, 11, 12], [13], [14, 15, 3, 16, 17]),),
        (_Script([3],),),
        (_Script([20, 21], [22, 23, 24, 25, 26], [27, 3]),),
        (_Script([9, 3, 9, 3, 9]),),
    ]  # fmt: skip

    def written(one_round):
        said, runs = torch.tensor([2]), 0
        while 3 not in said:
            said, runs = torch.cat([said, one_round(said)]), runs + 1
        return said.tolist(), runs

    def counted(count):
        def loop(one_round):
            said, runs = written(one_round)
            return count(said, said.index(3), runs)

        return loop

    compare(
        "draft_loop", attempt, counted(lambda said, end, runs: end / runs), cases,
        {
            "what follows the end in its round doesn't count.": counted(lambda said, end, runs: (len(said) - 1) / runs),
            "the 2 was there before the first run: it doesn't count.":
                counted(lambda said, end, runs: (end + 1) / runs),
            "the end counts, too: it took its part of a run.": counted(lambda said, end, runs: (end - 1) / runs),
            "these are runs for each token: the other way round.": counted(lambda said, end, runs: runs / end),
            "these are the tokens: divide them by the runs.": counted(lambda said, end, runs: end),
            "these are the runs: the tokens for each of them are due.": counted(lambda said, end, runs: runs),
        },
    )  # fmt: skip
