"""Take the README's two figures out of chapter 5 as it was run: python scripts/readme_figures.py

They are the ten pairs of students, and the controls that show what teaches.
"""

from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
FIGURES = {"pairs": "fig-pairs", "controls": "fig-controls"}  # name → name of the figure in the chapter


def main() -> None:
    notebook = nbformat.read(ROOT / "chapters/05_project.ipynb", as_version=4)
    drawn = {
        c.metadata.mystnb.figure.name: c for c in notebook.cells if "figure" in c.metadata.get("mystnb", {})
    }
    for name, figure in FIGURES.items():
        cell = drawn[figure]
        svg = next(o.data["image/svg+xml"] for o in cell.outputs if "image/svg+xml" in o.get("data", {}))
        path = ROOT / f"theme/static/readme-{name}.svg"
        path.write_text("".join(svg), encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
