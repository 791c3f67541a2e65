"""What an audit found, as a frozen report that prints as a table."""

import textwrap
from dataclasses import dataclass

MARK = {True: "✓", False: "✗", None: "·"}
# property → what goes wrong in training, and where the book explains it
EXPLAINED = {
    "teacher-matters": (
        "The student is trained as if it had no teacher: distillation that reports a loss and does nothing.",
        "chapter 5, “Does your program distil?”",
    ),
    "student-gradient": ("The optimiser gets nothing to follow: the student does not learn.", "chapter 3"),
    "teacher-gradient": (
        "A teacher that is not frozen moves towards the student, and the soft targets with it.",
        "chapter 3, “The teacher is not frozen”",
    ),
    "temperature": (
        "The loss is smallest at other logits than the teacher's, or changes its weight as T is tuned.",
        "chapter 4, section 4.2",
    ),
    "divergence": (
        "The student descends something else than the name or the number says.",
        "chapter 4, section 4.5; chapter 9, section 9.3",
    ),
    "reduction": (
        "The size of the batch, the length of a text or the number of classes sets the learning rate.",
        "chapter 9, section 9.3",
    ),
    "micro-batch": (
        "Accumulated over micro-batches, the gradient is not the batch's.",
        "chapter 9, section 9.6",
    ),
    "mask": (
        "Padding teaches the student, or thins out what counts.",
        "chapter 9, “Do padding tokens count?”",
    ),
    "shapes": (
        "A teacher of the wrong shape is broadcast: every example or class is taught the same.",
        "chapter 7, “What breaks a loss”",
    ),
    "faults": (
        "Inputs that occur in training give wrong gradients, NaN or an error.",
        "chapter 7, “What breaks a loss”",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One property: ok is True, False, or None where it does not apply; `example` is code that shows it."""

    name: str
    ok: bool | None
    found: str
    example: str = ""

    @property
    def consequence(self) -> str:
        return EXPLAINED[self.name][0]

    @property
    def chapter(self) -> str:
        return EXPLAINED[self.name][1]


@dataclass(frozen=True)
class Report:
    """What `audit` found of one loss. Prints as a table.

    Attributes:
        loss: its full name. version: the distribution and its version, where known. call: how it was called.
        findings: one for each property. cases: the fault suite, (case, None | "" | what is wrong), "" where a
            case does not apply.
        divergence: what it is by value and gradient, or "none known". factor: "T²", "none", …
        ignored: the properties whose faults are accepted: they are printed, marked, and do not count.
        hard, soft: the measured weights of the two terms at T = 1, None where unknown.
        rows, classes, tokens: what is done over them, e.g. "mean", "sum".
    """

    loss: str
    version: str
    call: str
    findings: tuple[Finding, ...]
    cases: tuple[tuple[str, str | None], ...]
    divergence: str = "none known"
    factor: str = "does not apply"
    hard: float | None = None
    soft: float | None = None
    rows: str = "unknown"
    classes: str = "unknown"
    tokens: str = "unknown"
    ignored: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """No property is at fault, but for those ignored."""
        return not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the properties at fault, without those ignored."""
        return tuple(f.name for f in self.findings if f.ok is False and f.name not in self.ignored)

    def __getitem__(self, name: str) -> Finding:
        return next(f for f in self.findings if f.name == name)

    def __str__(self) -> str:
        about = f" ({self.version})" if self.version else ""
        lines = [f"{self.loss}{about}, called as {self.call}"]
        for f in self.findings:
            text = "does not apply" + (f": {f.found}" if f.found else "") if f.ok is None else f.found
            accepted = f.ok is False and f.name in self.ignored
            lines += _wrapped(f"{'○' if accepted else MARK[f.ok]} {f.name:17}", "ignored: " * accepted + text)
            if f.name in self.failed:
                lines += _wrapped(f"{'':19}  try  ", f.example) if f.example else []
                lines += _wrapped(f"{'':19}  so   ", f.consequence)
                lines += _wrapped(f"{'':19}  see  ", f.chapter)
        ignored = [f.name for f in self.findings if f.ok is False and f.name in self.ignored]
        if not self.failed:
            lines.append(
                "No fault found" + (f", but for those ignored: {', '.join(ignored)}" if ignored else ".")
            )
        else:
            lines.append(f"{len(self.failed)} of {len(self.findings)} at fault: {', '.join(self.failed)}")
            name = self.failed[-1]
            lines.append(
                f'To accept one: check(loss, ignore=("{name}",)), or --ignore {name} on the command line.'
            )
        return "\n".join(lines)


def _wrapped(head: str, text: str, width: int = 110) -> list[str]:
    body = textwrap.wrap(text, width - len(head), break_long_words=False, break_on_hyphens=False) or [""]
    return [head + body[0]] + [" " * len(head) + line for line in body[1:]]
