"""Claims, numbers for the prose, and exercises that check themselves.

An exercise's check runs the reader's function on random inputs beside the right one. If they differ, it
looks among the mistakes people really make for one that gives the same result, and prints that one's hint.
"""

import math

from .concepts import cost, information, transfer_information
from .conventions import row_mean_over_mean, same_training
from .experiments import long_tail_worst_class, paired_interval, permute_dark
from .outlook import balanced_targets, regret
from .responses import (
    average_teachers,
    distillation_loss,
    high_temperature_loss,
    kd_gradient,
    kd_loss,
    masked_mean,
    soften,
    training_step,
)


def claim(text: str, holds) -> None:
    """Print "✓ text" if `holds` is true, else raise: a sentence of the book that a run checks.

    Args:
        text: the claim, without numbers that depend on the run.
        holds: a bool, or a boolean tensor or array of one value. Compare with a margin.

    Raises:
        AssertionError: the claim does not hold.
        TypeError: `holds` is not one truth value (a float that is NaN would pass as true).
    """
    value = holds.item() if math.prod(getattr(holds, "shape", [0])) == 1 else holds
    if not isinstance(value, bool):
        raise TypeError(f"claim takes one truth value; got {holds!r}.")
    if not value:
        raise AssertionError(f"✗ {text}")
    print(f"✓ {text}")


def glue(**values: float | str) -> None:
    """Give measured numbers to the prose: glue(gain=4.2) is written {glue:text}`gain:.1f` in a page."""
    from IPython.display import display

    for name, value in values.items():
        plain = repr(value.item() if hasattr(value, "item") else value)
        metadata = {"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}}
        display({"application/papermill.record/text/plain": plain}, raw=True, metadata=metadata)
