"""Measures the KD losses of other libraries: what they multiply, what they divide by, what they let pass.

    pip install -e '.[peers,peers-llm]' && python -m experiments.chapter07_conventions

Writes chapters/results/07_conventions.csv, one line per function and setting; "function" is its full name. And
07_calls.csv: what the calls of 7.2 return, three students beside one teacher, at the weight 0.9 and T = 4.
`tests/peers/test_conventions.py` measures again and compares. What breaks them is chapter07_audit.py's question.
"""

import csv
import importlib
import math
import os
import platform
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import itertools

from companion import losses, tokens

FOLDER = Path(__file__).parent.parent / "chapters/results"


@dataclass(frozen=True)
class Peer:
    """soft(z, v, T, mask) → the soft term; both(z, v, y, T, w) → hard and soft at the weight w, if it has one."""

    package: str
    module: str
    soft: Callable
    both: Callable | None = None
    weight: str = "none"  # the name of what `both` sets
    direction: str = "KL(p‖q)"


def pytorch(z, v, T, mask, reduction):
    return F.kl_div((z / T).log_softmax(-1), (v / T).softmax(-1), reduction=reduction)


def torchdistill(z, v, T, mask=None, y=None, w=0.0):
    peer = importlib.import_module("torchdistill.losses.mid_level")
    loss = peer.KDLoss("s", "output", "t", "output", temperature=T, alpha=w)
    return loss({"s": {"output": z}}, {"t": {"output": v}}, y)


def keras_loss(z, v, T, mask, instance):
    keras = importlib.import_module("keras")
    chosen = {"loss": keras.losses.KLDivergence()} if instance else {}
    return keras.distillation.LogitsDistillation(temperature=T, **chosen).compute_loss(v, z)


def keras_both(z, v, y, T, w):
    """Its Distiller on two fixed linear models: the one-hot inputs pick the rows of logits."""
    keras = importlib.import_module("keras")
    models = []
    for rows in (v, z):
        model = keras.Sequential([keras.Input((len(z),)), keras.layers.Dense(z.shape[1], use_bias=False)])
        model.layers[0].kernel.assign(rows.detach().float())
        models.append(model)
    soft = keras.distillation.LogitsDistillation(temperature=T, loss=keras.losses.KLDivergence())
    whole = keras.distillation.Distiller(*models, soft, student_loss_weight=w)
    whole.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return whole.compute_loss(x=torch.eye(len(z)), y=y)


def modelopt(z, v, T, mask=None):
    return importlib.import_module("modelopt.torch.distill").LogitsDistillationLoss(T)(z, v)


def modelopt_both(z, v, y, T, w):
    distill = importlib.import_module("modelopt.torch.distill")
    terms = {"student_loss": F.cross_entropy(z, y), "KD_0": modelopt(z, v, T)}
    return distill.StaticLossBalancer(w)(terms)


def sentences(z, v, T, mask=None):
    """Its scores are inner products of a query and candidates: unit vectors make them the logits."""
    place = "sentence_transformers.sentence_transformer.losses"
    loss = importlib.import_module(place).DistillKLDivLoss(torch.nn.Identity(), temperature=T)
    candidates = torch.eye(z.shape[-1], dtype=z.dtype)
    return loss.compute_loss_from_embeddings([z, *(row.expand_as(z) for row in candidates)], v)


def labels_of(mask, shape):
    """Labels as TRL and Liger take them: −100 where a position does not count."""
    return torch.zeros(shape, dtype=torch.long) if mask is None else torch.where(mask, 0, -100)


def trl_gkd(z, v, T, mask=None):
    trainer = importlib.import_module("trl.experimental.gkd").GKDTrainer
    return trainer.generalized_jsd_loss(z, v, None if mask is None else labels_of(mask, None), 0.5, T)


def trl_chunked(z, v, T, mask=None):
    """The loss of its DistillationTrainer, which takes hidden states: the identity makes them the logits."""
    if z.dim() == 2:
        z, v, mask = z[None], v[None], None if mask is None else mask[None]
    heads = (torch.eye(x.shape[-1], dtype=x.dtype) for x in (z, v))
    mask = torch.ones(z.shape[:2]) if mask is None else mask
    loss = importlib.import_module("trl.trainer.distillation_trainer")._chunked_divergence_loss
    return loss(z, v, *heads, mask, 0.5, temperature=T)[0]


def liger(z, v, T, mask=None, y=None, hard=0.0, soft=1.0, beta=0.5):
    loss = importlib.import_module("liger_kernel.chunked_loss").LigerFusedLinearJSDLoss
    heads = [torch.eye(x.shape[-1], dtype=x.dtype) for x in (z, v)]
    y = labels_of(mask, z.shape[:-1]) if y is None else y
    # It divides its inputs' logits in place, so they are copied.
    return loss(hard, soft, beta, temperature=float(T), compiled=False)(
        z.clone(), heads[0], v.clone(), heads[1], y
    )


PEERS = {
    "F.kl_div, batchmean": Peer("torch", "torch", partial(pytorch, reduction="batchmean")),
    "F.kl_div, mean": Peer("torch", "torch", partial(pytorch, reduction="mean")),
    "torchdistill KDLoss, no labels": Peer("torchdistill", "torchdistill.losses.mid_level", torchdistill),
    "torchdistill KDLoss, labels": Peer(
        "torchdistill", "torchdistill.losses.mid_level",
        lambda z, v, T, mask: (
            torchdistill(z, v, T, y=z.detach().argmax(1), w=1e-9) - 1e-9 * F.cross_entropy(z, z.detach().argmax(1))
        ),
        lambda z, v, y, T, w: torchdistill(z, v, T, y=y, w=w), "alpha",
    ),
    # With labels and alpha=0 it returns the soft term as it is.
    "torchdistill KDLoss, alpha=0, labels": Peer(
        "torchdistill", "torchdistill.losses.mid_level",
        lambda z, v, T, mask: torchdistill(z, v, T, y=z.detach().argmax(1), w=0.0),
    ),
    "Keras LogitsDistillation, default": Peer("keras", "keras.distillation", partial(keras_loss, instance=False)),
    "Keras LogitsDistillation, KLDivergence()": Peer(
        "keras", "keras.distillation", partial(keras_loss, instance=True), keras_both, "student_loss_weight"
    ),
    "sentence-transformers DistillKLDivLoss": Peer(
        "sentence-transformers", "sentence_transformers.sentence_transformer.losses", sentences
    ),
    "ModelOpt LogitsDistillationLoss": Peer(
        "nvidia-modelopt", "modelopt.torch.distill", modelopt, modelopt_both, "kd_loss_weight"
    ),
    "TRL GKDTrainer": Peer("trl", "trl.experimental.gkd", trl_gkd, direction="JSD, β = 0.5"),
    "TRL DistillationTrainer": Peer(
        "trl", "trl.trainer.distillation_trainer", trl_chunked, direction="JSD, β = 0.5"
    ),
    "Liger fused JSD": Peer(
        "liger-kernel", "liger_kernel.chunked_loss", liger,
        lambda z, v, y, T, w: liger(z, v, T, y=y, hard=1 - w, soft=w), "weight_soft_loss", "JSD, β = 0.5",
    ),
}  # fmt: skip


FUNCTIONS = {
    "F.kl_div": "torch.nn.functional.kl_div",
    "torchdistill KDLoss": "torchdistill.losses.mid_level.KDLoss",
    "Keras LogitsDistillation": "keras.distillation.LogitsDistillation",
    "sentence-transformers DistillKLDivLoss": "sentence_transformers.sentence_transformer.losses.DistillKLDivLoss",
    "ModelOpt LogitsDistillationLoss": "modelopt.torch.distill.losses.LogitsDistillationLoss",
    "TRL GKDTrainer": "trl.experimental.gkd.gkd_trainer.GKDTrainer.generalized_jsd_loss",
    "TRL DistillationTrainer": "trl.trainer.distillation_trainer._chunked_divergence_loss",
    "Liger fused JSD": "liger_kernel.chunked_loss.jsd_loss.LigerFusedLinearJSDLoss",
}


def why_not(peer: Peer) -> str:
    """What its import says where it fails, whether the library is missing or broken; empty where it does not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(peer.module)
    except Exception as error:
        return f"{peer.package}: {type(error).__name__}: {error}"
    return ""


def installed(peer: Peer) -> bool:
    return not why_not(peer)


def ours(direction, z, v, T):
    """The book's loss without its T²: nats per example."""
    loss = tokens.generalized_jsd_loss if direction.startswith("JSD") else losses.kd_loss
    return loss(z, v, T=T) / T**2


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(2, *shape, generator=generator, dtype=torch.double)


def close(a, b):
    return math.isclose(float(a), float(b), rel_tol=1e-4)


def attempt(call) -> str:
    try:
        value = float(call())
    except Exception as error:
        return type(error).__name__
    return "a number" if math.isfinite(value) else str(value)


def factor(peer) -> str:
    """Its loss over KL(p‖q) or JSD at T = 2, 4, 8: T^k, if that is what the three values say."""
    z, v = draw(8, 5)
    ratio = [float(peer.soft(z, v, T, None) / ours(peer.direction, z, v, T)) for T in (2.0, 4.0, 8.0)]
    powers = {round(math.log2(b / a), 3) for a, b in itertools.pairwise(ratio)}
    return {0.0: "none", 2.0: "T²"}.get(powers.pop(), "another") if len(powers) == 1 else "another"


def divisor(peer, *shape) -> str:
    """What the sum of all terms is divided by at T = 1, among the products of the dimensions."""
    z, v = draw(*shape)
    total = ours(peer.direction, z, v, 1.0) * z[..., 0].numel()
    try:
        ratio = float(total / peer.soft(z, v, 1.0, None))
    except Exception as error:
        return type(error).__name__
    named = {"N": shape[0], "NC": shape[0] * shape[-1]}
    if len(shape) == 3:
        named = {"B": shape[0], "BL": shape[0] * shape[1], "BLV": math.prod(shape)}
    return next((name for name, value in named.items() if close(ratio, value)), "none of them")


def weights(peer, w=0.3, T=2.0) -> tuple[str, str]:
    """Which multiples of CE and T²·KL (or T⁰·JSD) the setting w makes: least squares over five draws."""
    if peer.both is None:
        return "–", "–"
    rows, found = [], []
    for seed in range(5):
        (z, v), y = draw(8, 5, seed=seed), torch.arange(8) % 5
        rows.append([float(F.cross_entropy(z, y)), float(peer.soft(z, v, T, None))])
        found.append(float(peer.both(z, v, y, T, w)))
    system, found = torch.tensor(rows, dtype=torch.double), torch.tensor(found, dtype=torch.double)
    solution = torch.linalg.lstsq(system, found).solution
    assert torch.allclose(system @ solution, found, rtol=1e-4), "not a sum of the two terms"
    return tuple(f"{x:.2f}" for x in solution.tolist())


def leak(peer) -> str:
    z, v = (x.requires_grad_() for x in draw(8, 5))
    peer.soft(z, v, 2.0, None).backward()
    return "yes" if v.grad is not None and v.grad.abs().max() > 0 else "no"


def measure(name: str) -> dict:
    """One line of the table. Weights are those of the setting 0.3."""
    peer = PEERS[name]
    z, v = draw(8, 5)
    hard, soft = weights(peer)
    return {
        "library": name,
        "function": FUNCTIONS[name.split(",")[0]],
        "version": version(peer.package),
        "of": peer.direction if divisor(peer, 8, 5) != "none of them" else "something else",
        "factor": factor(peer),
        "divides_by": divisor(peer, 8, 5),
        "tokens_by": divisor(peer, 2, 3, 5),
        "setting": peer.weight,
        "hard": hard,
        "soft": soft,
        "teacher_gradient": leak(peer),
        "teacher_N1": attempt(lambda: peer.soft(z, v[:, :1], 2.0, None)),
        "teacher_more_classes": attempt(lambda: peer.soft(z, torch.cat([v, v], 1), 2.0, None)),
    }


# The losses of 7.2 that come with a weight. As in the chapter, it is set to 0.9; Liger, which takes two, also gets two
# pairs that bring 0.9 back, and once its 0.9 with a vocabulary of 151,936: the labels' weight, the teacher's, classes.
SENT = {
    "Liger, beta=0, both weights sent": (0.1, 14.4, 3),
    "Liger, beta=0, shares sent": (0.1 / 14.5, 14.4 / 14.5, 3),
    "Liger, beta=0, a vocabulary": (0.1, 0.9, 151_936),
}
WEIGHTED = {
    "torchdistill": PEERS["torchdistill KDLoss, labels"],
    "Keras": PEERS["Keras LogitsDistillation, KLDivergence()"],
    "ModelOpt": PEERS["ModelOpt LogitsDistillationLoss"],
    "Liger, beta=0": Peer(
        "liger-kernel", "liger_kernel.chunked_loss", partial(liger, beta=0.0),
        lambda z, v, y, T, w: liger(z, v, T, y=y, hard=1 - w, soft=w, beta=0.0), "weight_soft_loss",
    ),
    "Liger, default": PEERS["Liger fused JSD"],
}  # fmt: skip
WEIGHTED |= dict.fromkeys(SENT, WEIGHTED["Liger, beta=0"])


def liger_of_hidden(z, v, y, hard, soft, classes):
    """As the chapter's lines call it: the three logits and a 1, which every further class gets times −100."""
    loss = importlib.import_module("liger_kernel.chunked_loss").LigerFusedLinearJSDLoss
    head = torch.zeros(classes, 4, dtype=z.dtype)
    head[:3, :3], head[3:, 3] = torch.eye(3), -100
    h, g = (F.pad(x, (0, 1), value=1.0) for x in (z, v))
    return loss(hard, soft, 0.0, temperature=4.0, compiled=False)(h, head, g, head, y)


def calls(name: str) -> dict:
    """What the chapter's three students get beside its teacher, the label being the third class."""
    peer, y = WEIGHTED[name], torch.tensor([2])
    shirt, nothing, mistaken = torch.tensor([[8, 4, 0], [0, 0, 0], [0, 4, 8]], dtype=torch.double)[:, None]
    students = {"agrees": shirt, "knows_nothing": nothing, "mistaken": mistaken}
    if name in SENT:
        hard, soft, classes = SENT[name]
        setting = f"weight_hard_loss={hard:.5g}; {peer.weight}={soft:.5g}; {classes:,} classes"
        values = {key: liger_of_hidden(z, shirt, y, *SENT[name]) for key, z in students.items()}
    else:
        setting = f"{peer.weight}=0.9"
        values = {key: peer.both(z, shirt, y, 4.0, 0.9) for key, z in students.items()}
    return {"library": name, "setting": setting} | {
        key: f"{float(value):.5f}" for key, value in values.items()
    }


def write(name: str, about: str, rows: list[dict]) -> None:
    with (FOLDER / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        used = ", ".join(
            sorted({f"{p.package} {version(p.package)}" for p in PEERS.values() if installed(p)})
        )
        file.write(f"# {about}\n# python -m experiments.chapter07_conventions\n")
        file.write(f"# python {platform.python_version()}, {used}, on the CPU, one thread\n")
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    missing = [name for name, peer in PEERS.items() if not installed(peer)]
    if missing:
        sys.exit(
            f"Not installed, so nothing is written: {', '.join(missing)}. pip install -e '.[peers,peers-llm]'"
        )
    write(
        "07_conventions",
        "KD losses of other libraries, measured against this book's",
        [measure(n) for n in PEERS],
    )
    write(
        "07_calls",
        "what KD losses of other libraries return to the calls of 7.2",
        [calls(n) for n in WEIGHTED],
    )
