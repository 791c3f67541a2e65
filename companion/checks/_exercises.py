"""Every exercise of the book: from this table come the page that lists them and `python -m companion.checks`.

tests/test_answers.py compares it with the notebooks.
"""

from collections.abc import Callable
from dataclasses import dataclass

from . import concepts, conventions, experiments, outlook, responses

LEVELS = {1: "one formula, one line", 2: "a formula with a trap in it", 3: "several parts that must fit"}


@dataclass(frozen=True)
class Exercise:
    """name: the function's in a file of answers; check(function) prints ✓, ✗ with a hint, or ○."""

    name: str
    chapter: str
    level: int
    topic: str
    check: Callable

    @property
    def label(self) -> str:
        """Its label in the chapter, and its anchor in the page."""
        return "ex-" + self.name.replace("_", "-")


def _row(name: str, chapter: str, level: int, topic: str, check: Callable, *what: str) -> Exercise:
    return Exercise(name, chapter, level, topic, (lambda attempt: check(attempt, *what)) if what else check)


EXERCISES = (
    _row("storage", "01_background", 1, "size", concepts.cost, "bytes"),
    _row("mlp_parameters", "01_background", 2, "size", concepts.cost, "parameters"),
    _row("credit", "01_background", 1, "measuring", concepts.cost, "credit"),
    _row("entropy", "02_concepts", 1, "soft targets", concepts.information, "entropy"),
    _row("dark_knowledge", "02_concepts", 2, "soft targets", concepts.information, "dark"),
    _row("soften", "03_algorithm", 1, "soft targets", responses.soften),
    _row("distillation_loss", "03_algorithm", 3, "losses", responses.distillation_loss),
    _row("training_step", "03_algorithm", 3, "training", responses.training_step),
    _row("kd_loss", "04_mathematics", 2, "losses", responses.kd_loss),
    _row("kd_gradient", "04_mathematics", 2, "losses", responses.kd_gradient),
    _row("high_temperature_loss", "04_mathematics", 2, "losses", responses.high_temperature_loss),
    _row("paired_interval", "05_project", 2, "measuring", experiments.paired_interval),
    _row("permute_dark", "05_project", 3, "soft targets", experiments.permute_dark),
    _row("transfer_information", "06_applications", 3, "measuring", concepts.transfer_information),
    _row("worst_class", "06_applications", 2, "measuring", experiments.long_tail_worst_class),
    _row("same_training", "07_tools", 3, "losses", conventions.same_training),
    _row("kl_div_mean", "07_tools", 2, "losses", conventions.row_mean_over_mean),
    _row("regret", "08_outlook", 2, "measuring", outlook.regret),
    _row("balanced_targets", "08_outlook", 2, "soft targets", outlook.balanced_targets),
    _row("masked_mean", "09_faq", 2, "losses", responses.masked_mean),
    _row("average_teachers", "09_faq", 2, "soft targets", responses.average_teachers),
)
