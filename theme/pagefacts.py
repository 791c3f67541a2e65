"""What stands around a page's text: its description, its reading time, claims marked, formulas joined to tests."""

import ast
import re
from html import escape
from pathlib import Path

from book import pages_url
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

TESTS = Path(__file__).parent.parent / "tests"
EQUATION = re.compile(r'(id="equation-(eq-[\w-]+)">\s*<span class="eqno">.*?)(</span>)', re.S)
CLAIM = re.compile(r"(^|<pre><span></span>)(✓ [^\n<]*)\n?", re.M)  # the mark is a block, which ends its line
# docutils' roles for a bibliography: one is deprecated, and a list of ours may hold nothing else.
CITATION_ROLE = re.compile(r' role="list"(?= class="citation-list")| role="doc-biblioentry"')
PAGE_WIDTH = 88  # characters of code
WORDS_A_MINUTE, LINES_A_MINUTE = 200, 20  # prose, code


def equation_tests() -> dict[str, list[tuple[str, str]]]:
    """Label → the file and source of each test marked with it."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(TESTS.glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            for mark in getattr(node, "decorator_list", ()):
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.equation":
                    source = ast.get_source_segment(text, node)
                    found.setdefault(mark.args[0].value, []).append((path.name, source))
    return found


class EquationTests(SphinxDirective):
    """```{equation-tests}```: each labelled formula of the book with the source of its tests."""

    def run(self):
        result = []
        for path in (TESTS, *TESTS.glob("test_*.py")):  # the page is made anew when a test is new or changes
            self.env.note_dependency(str(path))
        for label, tests in sorted(equation_tests().items()):
            head = nodes.container(ids=[f"test-{label}"])
            line = f"**{label}**, formula {{eq}}`{label}`"
            self.state.nested_parse(StringList([line], "equation-tests"), self.content_offset, head)
            result.append(head)
            for name, source in tests:
                result.append(nodes.paragraph("", "", nodes.literal(text=f"tests/{name}")))
                result.append(nodes.literal_block(source, source, language="python"))
        return result


def minutes(doctree) -> int:
    """Time to read: the words of the text and the lines of the code, not what a run printed or what is shut."""
    words = lines = 0
    shut = (
        node
        for node in doctree.findall(nodes.Element)
        if is_folded(node) or "dropdown" in node.get("classes", ())
    )
    folded = {id(text) for part in shut for text in part.findall(nodes.Text)}
    for node in doctree.findall(nodes.Text):
        if id(node) in folded:
            continue
        if isinstance(node.parent, nodes.literal_block):
            lines += 0 if "output" in node.parent["classes"] else node.count("\n") + 1
        else:
            words += len(node.split())
    return max(1, round(words / WORDS_A_MINUTE + lines / LINES_A_MINUTE))


def is_folded(node) -> bool:
    """myst-nb's node around the code of a cell that a reader need not read."""
    return type(node).__name__ == "HideCodeCellNode"


def mark_tables(app, doctree, pagename) -> None:
    """A printed table keeps its lines and scrolls where the screen is narrow; other output is wrapped there."""
    for node in doctree.findall(nodes.literal_block):
        if "output" in node["classes"] and is_table(node.astext()):
            node["classes"].append("table-output")


def is_table(text: str) -> bool:
    """Lines that fit the page at full width and have columns, told by runs of spaces within."""
    lines = [line.strip() for line in text.splitlines()]
    return max(map(len, lines), default=0) <= PAGE_WIDTH and sum("  " in line for line in lines) > 1


def description(doctree) -> str:
    """The first sentence under the title, which in a chapter answers its question."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = " ".join(paragraph.astext().split())
        return text if len(text) <= 300 else text[:299].rsplit(" ", 1)[0] + "…"
    return ""


def dress(app, pagename, templatename, context, doctree) -> None:
    if app.builder.format != "html" or doctree is None or "body" not in context:
        return
    body = CLAIM.sub(lambda m: f'{m[1]}<span class="claim">{m[2]}</span>', context["body"])
    body = CITATION_ROLE.sub("", body)
    if app.builder.name == "html":
        page = app.builder.get_relative_uri(pagename, "reference/tests")
        body = EQUATION.sub(
            lambda m: (
                f'{m[1]}<a class="equation-test" href="{page}#test-{m[2]}" '
                f'aria-label="test of {m[2]}">✓ test</a>{m[3]}'
            ),
            body,
        )
        if pagename.startswith("chapters/"):
            facts = f'<p class="page-facts">About {minutes(doctree)} minutes to read</p>'
            body = body.replace("</h1>", f"</h1>\n{facts}", 1)
        title, text = escape(context.get("title", ""), quote=True), escape(description(doctree), quote=True)
        context["metatags"] = context.get("metatags", "") + (
            f'<meta name="description" content="{text}" /><meta property="og:type" content="article" />'
            f'<meta property="og:title" content="{re.sub("&lt;.*?&gt;", "", title)}" />'
            f'<meta property="og:description" content="{text}" />'
        )
        if home := pages_url():  # these two must be whole addresses
            context["metatags"] += (
                f'<meta property="og:url" content="{home}{pagename}.html" />'
                f'<meta property="og:image" content="{home}_static/cover.png" />'
                '<meta name="twitter:card" content="summary_large_image" />'
            )
    context["body"] = body


def setup(app) -> dict:
    app.add_directive("equation-tests", EquationTests)
    app.connect("doctree-resolved", mark_tables)
    app.connect("html-page-context", dress)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
