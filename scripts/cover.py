"""The cover, its copy for links, logo and favicon: python scripts/cover.py

The cover is a run: a shipped teacher's answers to one test shirt become the lesson of a student that never saw it.
"""

from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt

import companion
from companion import data
from companion.losses import kd_loss, soften
from companion.models import ConvNet
from companion.plotting import INK, STUDENT, TEACHER
from companion.training import fit

STATIC = Path(__file__).parent.parent / "theme/static"
T, SHIRT = 4, 6


def answers():
    """An image, and the soft targets of teacher, student before and student after 1,000 other images."""
    train, test = data.fashion("train"), data.fashion("test")
    teacher, student = data.fashion_teacher(0), ConvNet(4, dropout=0.0, seed=0)
    sure = soften(teacher.eval()(test.x), 1)[test.y == SHIRT, SHIRT]
    x = test.x[(test.y == SHIRT).nonzero()[(sure - 0.9).abs().argmin(), 0]][None]
    before = soften(student.eval()(x), T)[0]
    few = data.Split(train.x[:1000], train.y[:1000])
    fit(student, few, lambda z, v, y: kd_loss(z, v, T), teacher, steps=600, lr=5e-3)
    return x, soften(teacher(x), T)[0], before, soften(student.eval()(x), T)[0]


def cover() -> None:
    x, teacher, before, after = (a.detach() for a in answers())
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.9), width_ratios=(1.1, 1, 1, 1))
    axes[0].imshow(1 - x[0, 0].numpy(), interpolation="nearest")
    axes[0].set(title="one image: a shirt")
    axes[0].set_axis_off()
    panels = [("the teacher's answer", teacher, TEACHER), ("student before", before, STUDENT)]
    for ax, (title, p, colour) in zip(axes[1:], [*panels, ("student after", after, STUDENT)], strict=True):
        ax.barh(range(10), p.numpy(), color=colour)
        ax.set(
            title=title, xlim=(0, float(max(teacher.max(), after.max())) * 1.1), xticks=[], ylim=(9.6, -0.6)
        )
        ax.set_yticks(range(10), data.FASHION_CLASSES if ax is axes[1] else [""] * 10, fontsize=9)
        ax.tick_params(length=0)
        ax.get_yticklabels()[SHIRT].set_fontweight("bold")
    plt.savefig(STATIC / "cover.svg", metadata={"Date": None}, transparent=True)
    # The card that other sites show beside a link: 1200 × 630 pixels, not transparent.
    figure.set_size_inches(12, 6.3)
    figure.suptitle("Knowledge Distillation, Checked", fontsize=34, fontweight="bold", color="#222832")
    figure.get_layout_engine().set(rect=(0.03, 0.05, 0.94, 0.9), h_pad=0.2)
    with plt.rc_context({"savefig.bbox": "standard"}):
        plt.savefig(STATIC / "cover.png", dpi=100, facecolor="white", metadata={"Software": None})
    for name, p in (("teacher", teacher), ("before", before), ("after", after)):
        print(name, [round(float(v), 3) for v in p])


def logo() -> None:
    """A large and a small set of bars with the same proportions: teacher and student."""
    bars = [(4, 34, TEACHER, 3), (27, 34, STUDENT, 2)]
    rects = "".join(
        f'<rect x="{x + i * (width + 3)}" y="{44 - h * scale}" width="{width}" height="{h * scale}" fill="{colour}"/>'
        for x, _, colour, width2 in bars
        for scale, width in [((1.0, 4) if width2 == 3 else (0.5, 3))]
        for i, h in enumerate((36, 20, 10))
    )
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48">{rects}</svg>\n'
    (STATIC / "logo.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    companion.setup()
    plt.rcParams["text.color"] = INK
    cover()
    logo()
