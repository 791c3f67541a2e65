"""The reference of `companion`, made from its docstrings: formula, Args, Returns, Raises, source, and who uses it.

```{api} losses```
lists the public functions and classes of companion/losses.py. The package is parsed, not imported.
"""

import ast
import json
import re
from functools import cache
from pathlib import Path

import finding
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parent.parent
SECTION = re.compile(r"^(Args|Returns|Raises|Yields):$")


@cache
def chapter_code() -> dict[str, str]:
    """Page → the code of its cells."""
    code = {}
    for path in sorted(ROOT.glob("chapters/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code[path.stem] = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    return code


def markdown(text: str) -> str:
    """A docstring's line as MyST: its marks taken literally, `code` kept, eq-labels and arXiv ids linked."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\*_\[\]<>$|{}~])", r"\\\1", part) for part in parts[::2]]
    parts[::2] = [re.sub(r"\(?\b(eq-[a-z-]*[a-z])\)?", r"{eq}`\1`", part) for part in parts[::2]]
    return "`".join(parts)


def docstring(text: str) -> list[str]:
    """The lines of a docstring in MyST: sections as bold heads, each of their entries an item; Returns has one entry."""
    lines, inside, begun = [], "", False
    for line in text.splitlines():
        if SECTION.match(line):
            inside, begun = line[:-1], False
            lines += ["", f"**{inside}**", ""]
        elif inside in ("Returns", "Yields") and begun and line.startswith("    "):
            lines.append("  " + markdown(line.strip()))
        elif inside and line.startswith("        "):
            lines.append("  " + markdown(line.strip()))  # an entry goes on
        elif not inside and line.startswith("    ") and lines[-1][:4] in ("", "    "):
            lines.append(line)  # code, after an empty line
        elif inside and line.startswith("    "):
            begun = True
            lines.append("- " + markdown(line.strip()))
        else:
            inside = "" if line.strip() else inside
            lines.append(markdown(line.strip()))
    return lines


def signature(node) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}"
    returns = f" → {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


class Api(SphinxDirective):
    required_arguments = 1

    def run(self):
        path = ROOT / "companion" / f"{self.arguments[0]}.py"
        if not path.exists():
            path = path.with_suffix("") / "__init__.py"
        self.env.note_dependency(str(path))
        result = []
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                result.append(self.entry(node))
        return result

    def entry(self, node) -> nodes.container:
        entry = nodes.container(
            classes=["api-entry"], ids=[f"api-{self.arguments[0].split('/')[0]}-{node.name}"]
        )
        entry.append(finding.entry([node.name], entry["ids"][0]))
        text = signature(node)
        entry.append(nodes.literal_block(text, text, language="text"))
        lines = docstring(ast.get_docstring(node) or "")
        pages = [p for p, code in chapter_code().items() if re.search(rf"\b{node.name}\b", code)]
        if pages:
            lines += [
                "",
                "Used in " + ", ".join(f"{{doc}}`/chapters/{page}`" for page in self.listed(pages)) + ".",
            ]
        self.state.nested_parse(StringList(lines, "api"), self.content_offset, entry)
        return entry

    def listed(self, pages):
        return [p for p in pages if f"chapters/{p}" in self.env.found_docs]


def setup(app) -> dict:
    app.add_directive("api", Api)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
