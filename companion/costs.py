"""What a distillation of language models costs: operations, hours, disk and memory, from a few numbers of yours.

Rules of thumb, each one multiplication, checked in chapters 18 and 22 against counted operations, files on disk and
published runs. `show_costs` puts them on the page as a calculator (theme/static/moving.js has the same formulas; a test
compares).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import matplotlib.pyplot as plt

from ._input import positive
from ._moving import show
from ._panels import INK, STUDENT, TEACHER, WIDTH


def flops(parameters: float, tokens: float, training: bool = False) -> float:
    """2 N D to read D tokens, 6 N D to train on them (eq-flops): a multiplication and an addition a weight and token.

    Args:
        parameters: N, those that each token is multiplied with: no table of embeddings, of experts the active ones.
        tokens: D. training: with the backward pass, which costs twice the forward one.

    Returns:
        Floating-point operations. What attention spends on a long context comes on top.

    Source: Kaplan et al. 2020, arXiv:2001.08361, §2.1.
    """
    positive("number of parameters", parameters), positive("number of tokens", tokens)
    return (6 if training else 2) * parameters * tokens


def gpu_hours(operations: float, peak: float, utilisation: float) -> float:
    """Operations over peak · utilisation · 3,600: hours of one GPU, or of many together.

    Args:
        peak: operations a second by the data sheet, dense, in the precision of the run.
        utilisation: the share of it that a run reaches, 0 … 1.

    Raises:
        ValueError: operations or peak are not positive, or the utilisation is not a share.
    """
    if not 0 < utilisation <= 1:
        raise ValueError(f"the utilisation is a share of the peak, above 0 and at most 1; got {utilisation}.")
    return positive("number of operations", operations) / (positive("peak", peak) * utilisation * 3600)


def bytes_a_token(vocabulary: int, width: int, k: int) -> dict[str, int]:
    """What an answer takes on disk for each token, in four forms (eq-stored-bytes); `companion.stored` writes them.

    Args:
        vocabulary: V. width: d of what the teacher's last layer is given. k: tokens kept, or draws.

    Returns:
        `logits` 2 V, `features` 2 d, `largest` k times 2 for p and 2 or 4 for the place, `draws` k times the place
        alone. Shards add less than 1 %.

    Raises:
        ValueError: a size is not positive, or k is not between 1 and V.
    """
    positive("vocabulary", vocabulary), positive("width", width)
    if not 1 <= k <= vocabulary:
        raise ValueError(f"k is how many of {vocabulary} tokens are kept; got {k}.")
    place = 2 if vocabulary <= 1 << 16 else 4
    return {"logits": 2 * vocabulary, "features": 2 * width, "largest": k * (2 + place), "draws": k * place}


def loss_memory(tokens: int, vocabulary: int, group: int | None = None) -> int:
    """Bytes of logits that a loss holds at once, in float32: 5 tables of tokens · V, or in groups 2 of group · V.

    Args:
        tokens: of one step on one device. group: of `fused_linear_kd_loss`; None: the usual lines.

    Returns:
        Bytes, without the gradient of the last layer's weights, which both need.

    Raises:
        ValueError: a count is not positive.
    """
    positive("number of tokens", tokens), positive("vocabulary", vocabulary)
    if group is not None:
        positive("group", group)
    return 4 * vocabulary * (5 * tokens if group is None else 2 * min(group, tokens))


def loss_alone(parameters: float, tokens: float) -> float:
    """What a language model's loss falls to without a teacher: 1.220 + (3355 / N^0.408 + 18186 / D^0.431)^0.452 nats.

    Args:
        parameters: N, without embeddings. tokens: D, each read once.

    Returns:
        Nats a token on the authors' text. They fitted 73 runs of at most 12.6 billion weights and 512 billion tokens:
        beyond that it is extrapolated.

    Source: Busbridge et al. 2025, arXiv:2502.08606, eq. 1 and table 6.
    """
    n, d = positive("number of parameters", parameters), positive("number of tokens", tokens)
    return 1.220 + (3355 / n**0.408 + 18186 / d**0.431) ** 0.452


def loss_taught(parameters: float, tokens: float, teacher: float) -> float:
    """The same for a student of N weights that learns from a teacher's answers alone, given the teacher's loss.

    Args:
        parameters, tokens: of the student, as in `loss_alone`. teacher: its loss in nats, as by `loss_alone`.

    Returns:
        Nats a token. Too good a teacher makes it rise again. Fitted on 697 runs, with the same limits.

    Source: Busbridge et al. 2025, arXiv:2502.08606, eq. 8 and table 6.
    """
    alone, t = loss_alone(parameters, tokens), positive("teacher's loss", teacher)
    gap = (1 + (t / (1.315 * alone)) ** (1 / 0.090)) ** (-522.6 * 0.090) / t**2.549
    return t + gap * (2243 / parameters**0.321 + 24181 / tokens**0.637) ** 0.764


@dataclass(frozen=True)
class Plan:
    """What is to be distilled, and on what. The defaults are an example; peak, utilisation and price are yours."""

    teacher: float = 70e9
    student: float = 7e9
    tokens: float = 1e12
    passes: float = 3
    gpus: float = 64
    vocabulary: float = 128_000
    width: float = 8192
    k: float = 50
    batch: float = 8192
    group: float = 1024
    peak: float = 1e15
    utilisation: float = 0.4
    price: float = 1


NAMES = {
    "teacher": "Teacher's weights", "student": "Student's weights", "tokens": "Tokens", "passes": "Passes",
    "gpus": "GPUs (example)", "vocabulary": "Vocabulary", "width": "Teacher's width", "k": "k, tokens kept",
    "batch": "Tokens a step", "group": "Tokens in a group", "peak": "Peak (example)",
    "utilisation": "Share (example)", "price": "Price (example)",
}  # fmt: skip
FIRST = 5  # of these fields stand open, the others in a fold


def bill(plan: Plan) -> dict[str, float]:
    """Every line of the calculator.

    Returns:
        Operations: `teacher_live` (asked at each pass), `teacher_once` (stored), `trained` (the student). Hours of GPU:
        `hours_live`, `hours_once`, `hours_trained`. `money_live`, `money_once`: teacher and student. `days_live`,
        `days_once`: the same hours on `gpus` GPUs, if nothing is lost between them. `surcharge`: the teacher, asked at
        each pass, over the student (eq-surcharge). Bytes on disk: `disk_logits`, `disk_features`, `disk_largest`,
        `disk_draws` (as many draws as the largest). Bytes of logits in memory: `memory_usual`, `memory_groups`.
        `memory_weights`: 16 N_S + 2 N_T, on all GPUs together if
        sharded (Rajbhandari et al. 2020, arXiv:1910.02054, §3.1); `memory_once`: of a run that asks, 2 N_T, and one that
        trains, 16 N_S, the larger.

    Raises:
        ValueError: a number is not positive, the utilisation is no share, or more tokens are kept than there are.
    """
    for name in (
        "vocabulary",
        "width",
        "batch",
        "group",
        "price",
    ):  # the others are looked at where they are used
        positive(f"plan's {name}", getattr(plan, name))
    once = flops(plan.teacher, plan.tokens)
    trained = flops(plan.student, plan.tokens * plan.passes, training=True)
    found = {"teacher_live": once * plan.passes, "teacher_once": once, "trained": trained}
    for name in ("live", "once", "trained"):
        work = found["trained" if name == "trained" else f"teacher_{name}"]
        found[f"hours_{name}"] = gpu_hours(work, plan.peak, plan.utilisation)
    for name in ("live", "once"):
        hours = found[f"hours_{name}"] + found["hours_trained"]
        found[f"money_{name}"] = plan.price * hours
        found[f"days_{name}"] = hours / (24 * positive("number of GPUs", plan.gpus))
    found["surcharge"] = found["teacher_live"] / trained
    for name, size in bytes_a_token(plan.vocabulary, plan.width, plan.k).items():
        found[f"disk_{name}"] = size * plan.tokens
    found["memory_usual"] = loss_memory(plan.batch, plan.vocabulary)
    found["memory_groups"] = loss_memory(plan.batch, plan.vocabulary, plan.group)
    found["memory_weights"] = 16 * plan.student + 2 * plan.teacher
    found["memory_once"] = max(16 * plan.student, 2 * plan.teacher)
    return found


def show_costs(plan: Plan | None = None) -> None:
    """The calculator, which opens with `plan`; on paper and in Jupyter, its bars for that plan."""
    plan = plan or Plan()
    found = bill(plan)
    _, (hours, disk) = plt.subplots(2, 1, figsize=(WIDTH, 4.2))
    _bars(hours, {"teacher, asked on each pass": found["hours_live"], "teacher, asked once": found["hours_once"],
                  "student, trained": found["hours_trained"]}, "hours of one GPU", 1)  # fmt: skip
    kept = {
        f"{plan.k:g} draws": "disk_draws",
        f"the {plan.k:g} largest": "disk_largest",
        "features": "disk_features",
        "all logits": "disk_logits",
    }
    _bars(disk, {name: found[key] / 1e12 for name, key in kept.items()}, "terabytes on disk", 0)
    disk.set_xscale("log")
    inputs = [{"key": f.name, "name": NAMES[f.name], "value": value, "more": i >= FIRST}
              for i, (f, value) in enumerate(zip(fields(plan), asdict(plan).values(), strict=True))]  # fmt: skip
    show("costs", {"inputs": inputs})


def _bars(ax, values: Mapping[str, float], label: str, students: int) -> None:
    for i, (name, value) in enumerate(values.items()):
        ax.barh(i, value, 0.45, color=STUDENT if i >= len(values) - students else TEACHER)
        ax.annotate(f"{name}: {value:,.0f}", (0, i - 0.36), (3, 0), textcoords="offset points", fontsize=9, color=INK,
                    xycoords=("axes fraction", "data"))  # fmt: skip
    ax.set(yticks=[], ylim=(len(values) - 0.6, -0.8), xlabel=label)
