"""Take the README's two figures out of chapter 5 as it was run: python scripts/readme_figures.py

They are the ten pairs of students, and the controls that show what teaches.
"""

from pathlib import Path

import nbformat

ROOT = Path(__file__).parent.parent
FIGURES = {"pairs": "Ten pairs of dots", "controls": "one a control"}  # name → words of the alt text


def main() -> None:
    notebook = nbformat.read(ROOT / "chapters/05_project.ipynb", as_version=4)
    drawn = [c for c in notebook.cells if "mystnb" in c.metadata]
    for name, words in FIGURES.items():
        cell = next(c for c in drawn if words in c.metadata.mystnb.image.alt)
        svg = next(o.data["image/svg+xml"] for o in cell.outputs if "image/svg+xml" in o.get("data", {}))
        path = ROOT / f"theme/static/readme-{name}.svg"
        path.write_text("".join(svg), encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
