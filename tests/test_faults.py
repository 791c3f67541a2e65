"""Every loss on every case of the fault suite; every public loss is in it, differentiable, and short."""

import ast
import inspect

import pytest
import torch

from companion import adaptive, features, fused, losses, tokens, variants, vocabulary
from tests.fault_table import CASES, LOSSES, draw, outcome, table


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", CASES)
def test_fault(case, loss):
    wrong = outcome(case, loss)
    if wrong == "":
        pytest.skip("does not apply")
    assert wrong is None, wrong


def test_there_are_twenty_cases_and_the_table_prints():
    assert len(CASES) == 20
    assert len(table().splitlines()) == 20 + len(LOSSES) + 4


MODULES = (losses, variants, adaptive, features, tokens, fused, vocabulary)


def test_every_public_loss_is_in_the_suite():
    tried = {name for loss in LOSSES.values() for name in loss.call.__code__.co_names}
    public = {name for module in MODULES for name in vars(module) if name.endswith("_loss")}
    assert public <= tried


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradcheck(loss):
    z, v, y = draw(torch.double, shape=(4, *loss.shape[1:]))
    assert torch.autograd.gradcheck(lambda z: loss.call(z, v, 2.0, None, y), z.requires_grad_())


@pytest.mark.parametrize("module", MODULES)
def test_each_loss_reads_as_its_formula(module):
    """Under 25 lines of body below the docstring, the module under 250."""
    source = inspect.getsource(module)
    assert len(source.splitlines()) < 250
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.body[ast.get_docstring(node) is not None].lineno + 1 < 25, node.name
