"""The recipe inside TRL (reference/recipes.ipynb), run as it stands there, on tiny models with random weights."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from companion.tokens import generalized_jsd_loss, reverse_kl_loss
from tests.peers.conftest import need
from tests.peers.test_tools import alone, language_models, weights  # noqa: F401

need("trl", "trl.experimental.gkd", allow_module_level=True)

PAGE = Path(__file__).parents[2] / "reference/recipes.ipynb"
TEXT = "\n\n".join("".join(c["source"]) for c in json.loads(PAGE.read_text(encoding="utf-8"))["cells"])
(BLOCK,) = [block for block in re.findall(r"```python\n([\s\S]*?)```", TEXT) if "GKDTrainer" in block]
CLASS, RUN = BLOCK.split("\nargs = ")


def models():
    """As in the other tests, with answers of different lengths, so that micro-batches weigh differently."""
    names = language_models()
    asked = {"role": "user", "content": "one two"}
    answers = ["three", "three four five seven eight one two three", "two one", "five five four one"] * 2
    chats = [{"messages": [asked, {"role": "assistant", "content": text}]} for text in answers]
    names["chats"] = type(names["chats"]).from_list(chats)
    return names


def trained(names, kind, **settings):
    """The student's weights after two steps of a trainer of this kind, from the weights that `names` has."""
    from trl.experimental.gkd import GKDConfig

    start = [w.clone() for w in weights(names["student"])]
    given = {
        "lmbda": 0.0, "max_steps": 2, "per_device_train_batch_size": 4, "report_to": "none", "bf16": False,
        "use_cpu": True, "learning_rate": 0.01, "optim": "sgd", "max_grad_norm": 0.0, "max_new_tokens": 8,
    }  # fmt: skip
    trainer = kind(
        names["student"],
        names["teacher"],
        GKDConfig("distilled", **{**given, **settings}),
        train_dataset=names["chats"],
        processing_class=names["tokenizer"],
    )
    trainer.train()
    after = [w.clone() for w in weights(names["student"])]
    with torch.no_grad():
        for parameter, w in zip(names["student"].parameters(), start, strict=True):
            parameter.copy_(w)
    return after


@pytest.fixture(scope="module")
def kind():
    names = {}
    exec(CLASS, names)
    return names["TokenDistillation"]


def close(one, other, rtol=1e-4):
    torch.testing.assert_close(one, other, rtol=rtol, atol=1e-7)


def moved(names, after):
    return any(not torch.equal(a, b) for a, b in zip(weights(names["student"]), after, strict=True))


def test_the_lines_run_as_they_stand_and_train_the_student_alone():
    names = models()
    before = {side: weights(names[side]) for side in ("student", "teacher")}
    exec(BLOCK, names)
    for side, was in before.items():
        assert any(not torch.equal(a, b) for a, b in zip(was, weights(names[side]), strict=True)) == (
            side == "student"
        )


@pytest.mark.parametrize(
    "beta, loss", [(0.0, None), (0.3, partial(generalized_jsd_loss, beta=0.3)), (1.0, reverse_kl_loss)]
)
def test_at_T_1_it_trains_as_trls_own_loss_does(kind, beta, loss):
    from trl.experimental.gkd import GKDTrainer

    names = models()
    mine = type("Mine", (kind,), {} if loss is None else {"token_loss": staticmethod(loss)})
    ours, theirs = trained(names, mine), trained(names, GKDTrainer, beta=beta)
    assert moved(names, ours)
    close(ours, theirs)


def test_a_batch_in_two_pieces_is_the_batch(kind):
    names = models()
    whole = trained(names, kind)
    pieces = trained(names, kind, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert moved(names, whole)
    close(whole, pieces)


def test_T_reaches_the_loss(kind):
    names = models()
    hot = type("Hot", (kind,), {"T": 4.0})
    one, other = trained(names, kind), trained(names, hot)
    assert any(not torch.allclose(a, b, rtol=1e-3) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("setting", [{"lmbda": 1.0}, {"seq_kd": True}], ids=str)
def test_it_trains_on_answers_written_just_now_as_well(kind, setting):
    names = models()
    teacher = weights(names["teacher"])
    after = trained(names, kind, gradient_accumulation_steps=2, **setting)
    assert moved(names, after) and all(w.isfinite().all() for w in after)
    assert all(torch.equal(a, b) for a, b in zip(teacher, weights(names["teacher"]), strict=True))
