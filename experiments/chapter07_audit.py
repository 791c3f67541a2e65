"""Audits the distillation losses of other libraries, and this book's, with companion.audit.

    pip install -e '.[peers,peers-llm]' && python -m experiments.chapter07_audit

Writes chapters/results/07_audit.csv, one line a loss; a library that cannot be imported is left out, with the reason.
`tests/peers/test_audit.py` audits again and compares.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

from companion import features as on_features
from companion import losses, tokens
from companion.audit import CASES, Report, audit, check
from experiments.common import run_all

MID = "torchdistill.losses.mid_level"
MARK = {True: "ok", False: "fault", None: "n/a"}
PROPERTIES = (
    "teacher-matters",
    "student-gradient",
    "teacher-gradient",
    "temperature",
    "divergence",
    "reduction",
    "micro-batch",
    "mask",
    "shapes",
    "faults",
)


@dataclass(frozen=True)
class Peer:
    """module.name with a setting; loss(found, …) calls what is found there, as `call` says."""

    package: str
    module: str
    name: str
    setting: str
    loss: Callable
    call: str | None = None
    divergence: str | None = None

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.name}"


def rows(x):
    return x


def features(x):
    """A loss on features takes no logits of tokens: (N, D) alone."""
    if x.dim() != 2:
        raise ValueError(f"features (N, D), got {tuple(x.shape)}")
    return x


def maps(x):
    """Rows as maps of one channel, (N, 1, 1, C)."""
    return features(x)[:, None, None]


def channels(x):
    """Rows as maps of one place, (N, C, 1, 1)."""
    return features(x)[:, :, None, None]


PAIR = {"p": {"student": {"path": "m", "io": "output"}, "teacher": {"path": "m", "io": "output"}}}
FSP = {
    "p": {
        f"{who}_{which}": {"path": "m", "io": "output"}
        for who in ("student", "teacher")
        for which in ("first", "second")
    }
}
SIDES = {
    f"{who}_module_{what}": of
    for who in ("student", "teacher")
    for what, of in (("path", "m"), ("io", "output"))
}
BOTH = {
    f"{who}_{kind}_module_{what}": of
    for who in ("student", "teacher")
    for kind, module in (("logit", "m"), ("linear", "m"), ("feature", "f"))
    for what, of in (("path", module), ("io", "output"))
}


def distilled(peer, s, t, y=None, shape=rows, student=None, **settings):
    """One of torchdistill's modules, which take dictionaries of outputs; `student` adds to the student's."""
    mine, other = (
        {"m": {"output": shape(x)}} | ({"f": {"output": channels(x)}} if x.dim() == 2 else {}) for x in (s, t)
    )
    return peer(**settings)(mine | (student(s) if student else {}), other, y)


def td(name, setting="", call="loss(s, t)", divergence=None, **how):
    return Peer("torchdistill", MID, name, setting, partial(distilled, **how), call, divergence)


def heads(s, t):
    """Heads that make hidden states the logits: the identity."""
    return (torch.eye(x.shape[-1], dtype=x.dtype) for x in (s, t))


def ignored(mask):
    return torch.where(mask, 0, -100)


def liger(peer, s, t, T, mask, **settings):
    one, other = heads(s, t)
    return peer(0.0, 1.0, temperature=float(T), compiled=False, **settings)(s, one, t, other, ignored(mask))


def chunked(peer, s, t, T, mask, n, beta):
    if s.dim() == 2:
        s, t, mask = s[None], t[None], mask[None]
    return peer(s, t, *heads(s, t), mask, beta, num_items_in_batch=n, temperature=T)[0]


def keras(peer, s, t, T=None, **settings):
    module = importlib.import_module("keras.losses")
    settings = {k: getattr(module, v)() if v[0].isupper() else v for k, v in settings.items()}
    return (peer(**settings) if T is None else peer(temperature=float(T), **settings)).compute_loss(t, s)


def scores(peer, s, t, T):
    """Its scores are inner products of a query and candidates: unit vectors make them the logits."""
    candidates = torch.eye(s.shape[-1], dtype=s.dtype)
    loss = peer(torch.nn.Identity(), temperature=T)
    return loss.compute_loss_from_embeddings([s, *(row.expand_as(s) for row in candidates)], t)


def trl(package, name, setting, loss, call, divergence=None):
    return Peer("trl", package, name, setting, loss, call, divergence)


GKD, GOLD = "trl.experimental.gkd.gkd_trainer", "trl.experimental.gold.gold_trainer"
IWOPD, SDFT = "trl.experimental.iw_opd.iw_opd_trainer", "trl.experimental.sdft.loss_utils"
LIGER, JSD_CALL = (
    "liger_kernel.chunked_loss.jsd_loss",
    "loss(s, t, torch.where(mask, 0, -100), temperature=T, num_items_in_batch=n)",
)
BETAS = ((0, "forward KL"), (0.5, "JSD"), (1, "reverse KL"))


def jsd(peer, s, t, labels, **how):
    return peer(s, t, labels, **how)


PEERS: tuple[Peer, ...] = (
    Peer(
        "torch",
        "torch.nn.functional",
        "kl_div",
        "batchmean, T²",
        lambda f, s, t, T: f((s / T).log_softmax(-1), (t / T).softmax(-1), reduction="batchmean") * T**2,
        "loss(s, t, T)",
    ),
    Peer(
        "torch",
        "torch.nn.functional",
        "kl_div",
        "mean, T²",
        lambda f, s, t, T: f((s / T).log_softmax(-1), (t / T).softmax(-1), reduction="mean") * T**2,
        "loss(s, t, T)",
    ),
    td("KDLoss", "alpha=0, no labels", "loss(s, t, temperature=T)", alpha=0.0, **SIDES),
    td("KDLoss", "alpha=0.5, labels", "loss(s, t, y, temperature=T)", alpha=0.5, **SIDES),
    td("LogitStdKDLoss", "alpha=0, no labels", "loss(s, t, temperature=T)", alpha=0.0, **SIDES),
    td("LogitStdKDLoss", "alpha=0.5, labels", "loss(s, t, y, temperature=T)", alpha=0.5, **SIDES),
    td("SKDInstanceLoss", "mode='paper'", "loss(s, t, temperature=T)", **SIDES),
    td("SKDInstanceLoss", "mode='code'", "loss(s, t, temperature=T)", "relation", mode="code", **SIDES),
    td("SKDDirectionLoss", "mode='paper'", divergence="relation", **SIDES),
    td("SKDDirectionLoss", "mode='code'", divergence="relation", mode="code", **SIDES),
    td("DISTLoss", "", "loss(s, t, tau=T)", **SIDES),
    td(
        "DISTPlusLoss",
        "iota=0: without its channel relation",
        divergence="relation",
        iota=0,
        **{k: v for k, v in BOTH.items() if "linear" not in k},
    ),
    td(
        "DISTPlusLoss",
        "beta=gamma=kappa=0: its channel relation alone",
        divergence="relation",
        beta=0,
        gamma=0,
        kappa=0,
        **{k: v for k, v in BOTH.items() if "linear" not in k},
    ),
    td("DISTPlusLoss", "", divergence="relation", **{k: v for k, v in BOTH.items() if "linear" not in k}),
    td(
        "SRDLoss",
        "",
        "loss(s, t, temperature=T)",
        "relation",
        **{k: v for k, v in BOTH.items() if "_logit_" not in k},
    ),
    td(
        "SSKDLoss",
        "",
        "loss(s, t, y[::4], kl_temp=T)",
        "relation",
        ss_temp=0.5,
        tf_temp=4.0,
        ss_ratio=1.0,
        tf_ratio=1.0,
        **{f"{who}_{kind}_module_path": "m" for who in ("student", "teacher") for kind in ("linear", "ss")},
    ),
    td("AuxSSKDLoss", "", divergence="none", module_path="m"),
    td(
        "RKDLoss",
        "dist_factor=1, angle_factor=0",
        dist_factor=1,
        angle_factor=0,
        reduction="mean",
        shape=features,
        student_output_path="m",
        teacher_output_path="m",
    ),
    td(
        "RKDLoss",
        "dist_factor=0, angle_factor=1",
        dist_factor=0,
        angle_factor=1,
        reduction="mean",
        shape=features,
        student_output_path="m",
        teacher_output_path="m",
    ),
    td(
        "SPKDLoss",
        "reduction='batchmean'",
        divergence="relation",
        shape=features,
        reduction="batchmean",
        student_output_path="m",
        teacher_output_path="m",
    ),
    td(
        "CCKDLoss",
        "bilinear",
        divergence="relation",
        kernel_config={"type": "bilinear"},
        reduction="batchmean",
        student_linear_path="m",
        teacher_linear_path="m",
    ),
    td(
        "CCKDLoss",
        "gaussian",
        divergence="relation",
        kernel_config={"type": "gaussian", "gamma": 0.4, "max_p": 2},
        reduction="batchmean",
        student_linear_path="m",
        teacher_linear_path="m",
    ),
    td("PKTLoss", "", divergence="relation", **SIDES),
    td("ATLoss", "mode='code'", at_pairs=PAIR, shape=maps),
    td("ATLoss", "mode='paper'", at_pairs=PAIR, mode="paper", shape=maps),
    td("FSPLoss", "", fsp_pairs=FSP, shape=channels),
    td("FTLoss", "p=1", shape=features, paraphraser_path="m", translator_path="m"),
    td("KTALoss", "", shape=features, knowledge_translator_path="m", feature_adapter_path="m"),
    td(
        "AltActTransferLoss",
        "margin=1",
        shape=features,
        divergence="none",
        feature_pairs=PAIR,
        margin=1.0,
        reduction="mean",
    ),
    td("AffinityLoss", "", shape=maps, **SIDES),
    td("ChSimLoss", "", feature_pairs=PAIR, shape=channels),
    td(
        "VIDLoss",
        "variance 1",
        shape=features,
        feature_pairs=PAIR,
        student=lambda s: {"m": {"output": (s, torch.ones_like(s))}},
    ),
    td(
        "PADL2Loss",
        "log variance 0",
        student_embed_module_path="m",
        teacher_embed_module_path="m",
        student=lambda s: {"var_estimator": {"output": torch.zeros_like(s)}},
    ),
    td(
        "HierarchicalContextLoss",
        "",
        shape=maps,
        student=lambda s: {"m": {"output": (maps(s), None)}},
        **SIDES,
    ),
    td(
        "CRDLoss",
        "",
        student_norm_module_path="m",
        student_empty_module_path="e",
        teacher_norm_module_path="m",
        input_size=5,
        output_size=20,
        num_negative_samples=3,
        num_samples=20,
        student=lambda s: {"e": {"input": {"pos_idx": torch.arange(len(s))}}},
    ),
    Peer("keras", "keras.distillation", "LogitsDistillation", "default loss", keras, "loss(s, t, T)"),
    Peer(
        "keras",
        "keras.distillation",
        "LogitsDistillation",
        "loss=KLDivergence()",
        partial(keras, loss="KLDivergence"),
        "loss(s, t, T)",
    ),
    Peer(
        "keras",
        "keras.distillation",
        "LogitsDistillation",
        "loss='categorical_crossentropy'",
        partial(keras, loss="categorical_crossentropy"),
        "loss(s, t, T)",
    ),
    Peer(
        "keras",
        "keras.distillation",
        "LogitsDistillation",
        "loss=CategoricalCrossentropy()",
        partial(keras, loss="CategoricalCrossentropy"),
        "loss(s, t, T)",
    ),
    Peer(
        "keras",
        "keras.distillation",
        "FeatureDistillation",
        "loss='mse'",
        partial(keras, loss="mse"),
        "loss(s, t)",
    ),
    Peer(
        "nvidia-modelopt",
        "modelopt.torch.distill.losses",
        "LogitsDistillationLoss",
        "reduction='mean' (default)",
        lambda f, s, t, T: f(T)(s, t),
        "loss(s, t, T)",
    ),
    Peer(
        "nvidia-modelopt",
        "modelopt.torch.distill.losses",
        "LogitsDistillationLoss",
        "reduction='batchmean'",
        lambda f, s, t, T: f(T, "batchmean")(s, t),
        "loss(s, t, T)",
    ),
    Peer(
        "nvidia-modelopt",
        "modelopt.torch.distill.losses",
        "MFTLoss",
        "",
        lambda f, s, t, y, T: f(T)(s, t, y.flatten()),
        "loss(s, t, y, T)",
        "none",
    ),
    Peer(
        "sentence-transformers",
        "sentence_transformers.sentence_transformer.losses",
        "DistillKLDivLoss",
        "",
        scores,
        "loss(s, t, T)",
    ),
    *(
        Peer(
            "liger-kernel",
            LIGER,
            "LigerFusedLinearJSDLoss",
            f"beta={beta}",
            partial(liger, beta=beta),
            "loss(s, t, T, mask)",
            kind,
        )
        for beta, kind in BETAS
    ),
    Peer(
        "liger-kernel",
        "liger_kernel.chunked_loss.cosine_similarity_loss",
        "LigerFusedLinearCosineSimilarityLoss",
        "",
        liger,
        "loss(s, t, T, mask)",
    ),
    *(
        trl(
            GKD,
            "GKDTrainer.generalized_jsd_loss",
            f"beta={b}, labels, num_items_in_batch",
            partial(jsd, beta=b),
            JSD_CALL,
            kind,
        )
        for b, kind in BETAS
    ),
    trl(
        GKD,
        "GKDTrainer.generalized_jsd_loss",
        "beta=0.5, no labels",
        partial(jsd, beta=0.5),
        "loss(s, t, None, temperature=T)",
        "JSD",
    ),
    *(
        trl(
            GOLD,
            "GOLDTrainer.generalized_jsd_loss",
            f"beta={b}, labels, num_items_in_batch",
            partial(jsd, beta=b),
            JSD_CALL,
            kind,
        )
        for b, kind in BETAS
    ),
    trl(
        GOLD,
        "GOLDTrainer.generalized_jsd_loss",
        "beta=0.5, logits_are_probs=True",
        partial(jsd, beta=0.5, logits_are_probs=True),
        "loss((s / T).softmax(-1), (t / T).softmax(-1), torch.where(mask, 0, -100), num_items_in_batch=n)",
        "JSD",
    ),
    *(
        trl(
            IWOPD,
            "IWOPDTrainer.generalized_jsd_loss",
            f"beta={b}, labels, num_items_in_batch",
            partial(jsd, beta=b),
            JSD_CALL,
            kind,
        )
        for b, kind in BETAS
    ),
    *(
        trl(
            IWOPD,
            "IWOPDTrainer.generalized_jsd_loss",
            f"beta={b}, top_k=1, add_tail={tail}",
            partial(jsd, beta=b, top_k=1, add_tail=tail),
            JSD_CALL,
            "none",
        )
        for b in (0, 0.5, 1)
        for tail in (True, False)
    ),
    *(
        trl(
            "trl.trainer.distillation_trainer",
            "_chunked_divergence_loss",
            f"beta={b}, num_items_in_batch",
            partial(chunked, beta=b),
            "loss(s, t, T, mask, n)",
            kind,
        )
        for b, kind in BETAS
    ),
    *(
        trl(
            SDFT,
            "compute_full_logit_self_distillation_loss",
            f"distillation_alpha={a}, mean over tokens",
            lambda f, s, t, a=a: f(s, t, distillation_alpha=a).mean(),
            "loss(s, t)",
            kind,
        )
        for a, kind in ((0.0, "forward KL"), (0.5, "JSD"), (1.0, "reverse KL"))
    ),
    *(
        trl(
            SDFT,
            "compute_topk_self_distillation_loss",
            f"distillation_topk=1, distillation_add_tail={tail}, mean over tokens",
            lambda f, s, t, tail=tail: f(
                s, t, distillation_topk=1, distillation_alpha=0.5, distillation_add_tail=tail
            ).mean(),
            "loss(s, t)",
            "none",
        )
        for tail in (True, False)
    ),
    trl(
        SDFT,
        "compute_sampled_token_self_distillation_loss",
        "distillation_alpha=1, mean over tokens",
        lambda f, s, t, y: f(s, t, y, distillation_alpha=1.0).mean(),
        "loss(s, t, y)",
    ),
)


def sparse(peer, s, t, T, mask):
    p, index = (t.float() / T).nan_to_num(0).softmax(-1).topk(3)
    return peer(s, index, p, T, mask)


def ours(module, name, setting="", call=None, divergence=None, loss=None):
    return Peer(
        "companion",
        module.__name__,
        name,
        setting,
        loss or (lambda f, *given, **named: f(*given, **named)),
        call,
        divergence,
    )


OURS: tuple[Peer, ...] = (
    ours(losses, "kd_loss", call="loss(s, t, T, mask)"),
    ours(losses, "distillation_loss", "alpha=0.9", "loss(s, t, y, T, 0.9)"),
    ours(losses, "logit_mse_loss", call="loss(s, t, mask=mask)"),
    ours(losses, "dkd_loss", call="loss(s, t, y, T)"),
    ours(losses, "dist_loss", call="loss(s, t, T)"),
    ours(losses, "standardized_kd_loss", call="loss(s, t, T, mask)"),
    ours(tokens, "forward_kl_loss", call="loss(s, t, T, mask)"),
    ours(tokens, "reverse_kl_loss", call="loss(s, t, T, mask)"),
    ours(tokens, "generalized_jsd_loss", "beta=0.5", "loss(s, t, 0.5, T, mask)"),
    ours(tokens, "skew_kl_loss", "beta=0.1", "loss(s, t, 0.1, T, mask)"),
    ours(tokens, "sparse_kd_loss", "the 3 most probable tokens", "loss(s, t, T, mask)", "none", sparse),
    ours(on_features, "hint_loss", call="loss(s, t)"),
    ours(on_features, "similarity_preserving_loss", call="loss(s, t)"),
    ours(on_features, "rkd_distance_loss", call="loss(s, t)"),
    ours(on_features, "rkd_angle_loss", call="loss(s, t)"),
    ours(on_features, "contrastive_loss", call="loss(s, t, T)"),
)


def find(peer: Peer) -> Callable:
    """The function that the peer names; raises whatever its import raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = importlib.import_module(peer.module)
    for part in peer.name.split("."):
        found = getattr(found, part)
    return found


def audited(peer: Peer) -> Report:
    """Of this book's losses none may be at fault."""
    run = check if peer.package == "companion" else audit
    return run(partial(peer.loss, find(peer)), peer.call, divergence=peer.divergence, name=peer.full_name)


def plain(text: str) -> str:
    """Without what would break a table that is read without quotes."""
    return " ".join(text.replace(",", ";").replace("#", "no.").replace('"', "'").split())


def line(peer: Peer) -> dict:
    """One line of the table: "n/a" where a property does not apply, "error" throughout where it cannot be called."""
    try:
        report = audited(peer)
    except ValueError as error:
        empty = dict.fromkeys(("is", "factor", "rows", "classes", "tokens", *PROPERTIES), "error")
        return {**empty, "cases": "", "why": plain(str(error).splitlines()[0])}
    said = {None: "✓", "": "·"}
    return {
        "is": plain(report.divergence),
        **{k: plain(getattr(report, k)) for k in ("factor", "rows", "classes", "tokens")},
        **{name: MARK[report[name].ok] for name in PROPERTIES},
        "cases": "".join(said.get(found, "✗") for _, found in report.cases),
        "why": plain(" | ".join(f"{f.name}: {f.found}" for f in report.findings if f.ok is False)),
    }


def config(peer: Peer) -> dict:
    return {
        "package": peer.package,
        "version": "this book" if peer.package == "companion" else version(peer.package),
        "loss": peer.full_name,
        "setting": plain(peer.setting),
        "called": plain(peer.call or ""),
    }


def left_out() -> dict[str, str]:
    """The packages whose losses cannot be had, and why."""
    reasons = {}
    for peer in PEERS:
        try:
            find(peer)
        except Exception as error:
            reasons.setdefault(peer.package, f"{type(error).__name__}: {error}".splitlines()[0])
    return reasons


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    missing = left_out()
    for package, why in missing.items():
        print(f"left out: {package}: {why}", file=sys.stderr)
    by_config = {tuple(config(p).values()): p for p in (*OURS, *PEERS) if p.package not in missing}
    run_all(
        "07_audit",
        f"companion.audit on this book's and other libraries' losses; the {len(CASES)} cases are those of its CASES",
        [config(p) for p in by_config.values()],
        lambda **given: line(by_config[tuple(given.values())]),
    )


if __name__ == "__main__":
    main()
