"""Each loss under each of PyTorch's transforms; the table stands on the page of the losses."""

import pytest
import torch

from companion import losses, tokens
from tests.transform_table import LOSSES, REFUSED, WAYS, V, Z, outcome


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("way", WAYS)
def test_transform(way, loss):
    assert outcome(way, loss) == ("refused" if way in REFUSED else "✓")


def test_every_loss_on_logits_is_here():
    named = [*vars(losses), *vars(tokens)]
    assert {name for name in named if name.endswith("_loss")} == set(LOSSES)


def test_compiled_losses_leave_what_is_not_finite_to_the_caller():
    """No value can be looked at there: the docstring of mean_over_rows says so."""
    z = Z.clone()
    z[0, 0] = float("nan")
    torch._dynamo.reset()
    assert torch.compile(lambda z: losses.kd_loss(z, V), fullgraph=True, backend="aot_eager")(z).isnan()
