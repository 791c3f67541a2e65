"""Every exercise of the book: the source of checks.<name>, of the page that lists them, and of the command line.

tests/test_answers.py compares it with the notebooks.
"""

from collections.abc import Callable
from dataclasses import dataclass

from . import concepts, conventions, experiments, outlook, responses, several, steps
from ._choice import choice as choice  # for rows of the kinds predict, diagnose and choose

LEVELS = {1: "one formula, one line", 2: "a formula with a trap in it", 3: "several parts that must fit"}
KINDS = ("write", "predict", "diagnose", "choose")


@dataclass(frozen=True)
class Exercise:
    """name: of the function in the chapter, in a file of answers, and of its check: checks.<name>.

    check(function) prints ✓, ✗ with a hint, or ○ and the name. kind: write (a function), or one whose function takes
    nothing and returns an answer: predict, diagnose, choose.
    """

    name: str
    chapter: str
    level: int
    topic: str
    title: str
    check: Callable
    kind: str = "write"

    @property
    def label(self) -> str:
        """Its label in the chapter, and its anchor in the page."""
        return "ex-" + self.name.replace("_", "-")


def _row(name, chapter, level, topic, title, check, *what, kind="write") -> Exercise:
    checked = (lambda attempt: check(attempt, *what)) if what else check
    return Exercise(name, chapter, level, topic, title, checked, kind)


EXERCISES = (
    _row("storage", "01_background", 1, "size", "Bytes of a model", concepts.cost, "bytes", "storage"),
    _row("mlp_parameters", "01_background", 2, "size", "Parameters of a multilayer perceptron",
         concepts.cost, "parameters", "mlp_parameters"),
    _row("entropy", "02_concepts", 1, "soft targets", "Entropy of each row", concepts.information, "entropy"),
    _row("dark_knowledge", "02_concepts", 2, "soft targets", "What a teacher says of the wrong classes",
         concepts.information, "dark", "dark_knowledge"),
    _row("soften", "03_algorithm", 1, "soft targets", "Soften logits", responses.soften),
    _row("distillation_loss", "03_algorithm", 3, "losses", "The loss of the ten lines", responses.distillation_loss),
    _row("training_step", "03_algorithm", 3, "training", "One training step", steps.training_step),
    _row("diagnose_runs", "03_algorithm", 2, "training", "What went wrong in these three runs?", choice(
        "diagnose_runs", right=("student", "freeze", "teacher"),
        hints={
            (0, "teacher"): "with the student alone softened, its logits come out too large, and it is too sure.",
            (0, "freeze"): "its teacher is as good after training as before.",
            (0, "factor"): "without T² the soft term is weaker, and the student about as sure as ever.",
            (1, "student"): "unsure, yes; but what has happened to its teacher?",
            (1, "teacher"): "a student that alone is softened is too sure, and no teacher gets worse by it.",
            (1, "factor"): "without T² the soft term is weaker, but no teacher gets worse by it.",
            (2, "student"): "with the teacher alone softened, the student's logits come out too small, and it is unsure.",
            (2, "freeze"): "its teacher is as good after training as before.",
            (2, "factor"): "without T² the soft term is weaker, and the student about as sure as ever.",
        },
    ), kind="diagnose"),
    _row("kd_loss", "04_mathematics", 2, "losses", "KL divergence times T²", responses.kd_loss),
    _row("kd_gradient", "04_mathematics", 2, "losses", "The gradient by hand", responses.kd_gradient),
    _row("high_temperature_loss", "04_mathematics", 2, "losses", "The limit of high temperature",
         responses.high_temperature_loss),
    _row("paired_interval", "05_project", 2, "measuring", "An interval for ten pairs", experiments.paired_interval),
    _row("permute_dark", "05_project", 3, "soft targets", "Shuffle the wrong classes", experiments.permute_dark),
    _row("transfer_information", "06_applications", 3, "measuring", "What a transfer set can tell",
         concepts.transfer_information),
    _row("worst_class", "06_applications", 2, "measuring", "Accuracy of the worst class",
         experiments.long_tail_worst_class, "worst_class"),
    _row("same_training", "07_tools", 2, "losses", "Their weights in our α", conventions.same_training),
    _row("kl_div_mean", "07_tools", 1, "losses", "From `mean` to the mean of the rows",
         conventions.row_mean_over_mean, "kl_div_mean"),
    _row("choose_tool", "07_tools", 1, "tools", "Choose the tool", choice(
        "choose_tool", ("EasyDistill", "TRL DistillationTrainer", "TRL GOLDTrainer"), conventions.WRONG_TOOLS,
    ), kind="choose"),
    _row("what_happened", "07_tools", 2, "losses", "What did the setting do?", choice(
        "what_happened", (0.1, 0.1), conventions.WRONG_SHARES, within=0.01,
    ), kind="diagnose"),
    _row("regret", "08_outlook", 2, "measuring", "What choosing costs", outlook.regret),
    _row("balanced_targets", "08_outlook", 2, "soft targets", "Correct a teacher's class shares",
         outlook.balanced_targets),
    _row("masked_mean", "09_faq", 2, "losses", "A mean over counted positions", several.masked_mean),
    _row("average_teachers", "09_faq", 1, "soft targets", "Several teachers, one target", several.average_teachers),
)  # fmt: skip

# How chapters written before call some checks, and their functions in a file of answers.
FORMER = {
    "cost": concepts.cost,
    "information": concepts.information,
    "long_tail_worst_class": experiments.long_tail_worst_class,
    "row_mean_over_mean": conventions.row_mean_over_mean,
}
ALIASES = {
    "my_loss": "distillation_loss",
    "my_step": "training_step",
    "interval": "paired_interval",
    "row_mean_over_mean": "kl_div_mean",
}
