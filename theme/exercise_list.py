"""The list of exercises, made at each build from the table that `python -m companion.checks` uses.

```{exercise-list} 2
```
lists those of level 2 in the order of reading, each with a link to its place; `progress.js` puts a box before each.
"""

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from companion.checks import _exercises
from companion.checks._exercises import EXERCISES


class ExerciseList(SphinxDirective):
    required_arguments = 1

    def run(self):
        self.env.note_dependency(_exercises.__file__)  # the page is made anew when a row is new
        level = int(self.arguments[0])
        lines = ["| exercise | function | to do | topic | chapter |", "|---|---|---|---|---|"]
        for e in (e for e in EXERCISES if e.level == level):
            exercise = f"{{ref}}`{e.title.replace('`', '')} <{e.label}>`"
            chapter = f"{{doc}}`{int(e.chapter[:2])} </chapters/{e.chapter}>`"
            lines.append(f"| {exercise} | `{e.name}` | {e.kind} | {e.topic} | {chapter} |")
        container = nodes.container()
        self.state.nested_parse(StringList(lines, "exercise-list"), self.content_offset, container)
        for table in container.children:
            table["classes"].append("exercise-list")
        return container.children


def setup(app) -> dict:
    app.add_directive("exercise-list", ExerciseList)
    app.add_js_file("progress.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
