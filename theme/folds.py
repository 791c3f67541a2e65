"""One line between two paragraphs: cells in a row share a fold for their code and one for their claims, and both stand
under what the cells show. The tag claims-1 of one of them leaves its first claim in sight.

A notebook keeps its cells apart, as each is compared in its own way; on a page their code is read, if at all, together.
"""

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.transforms.post_transforms import SphinxPostTransform

MARK = "✓ "
SHOWN = 0  # claims in a row, unless a tag says otherwise
ANSWERS = {"tag_solution", "tag_exercise"}


def is_cell(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def runs(document: nodes.Node) -> list[list[nodes.container]]:
    """The code cells that stand side by side, with no text between them."""
    found: list[list[nodes.container]] = []
    for cell in document.findall(is_cell):
        before = cell.parent.children[: cell.parent.index(cell)]
        while before and isinstance(before[-1], (nodes.comment, nodes.target)):
            before.pop()
        if before and found and before[-1] is found[-1][-1]:
            found[-1].append(cell)
        else:
            found.append([cell])
    return found


def fold_of(cell: nodes.container) -> HideCodeCellNode | None:
    """What hides the cell's code."""
    folds = (child for child in cell.children if isinstance(child, HideCodeCellNode))
    return next((fold for fold in folds if "above-input" in fold["classes"]), None)


def shows(cell: nodes.container) -> bool:
    """Whether anything is seen of a cell, beside its folded code."""
    seen = (child for child in cell.children if child is not fold_of(cell))
    return any(child.astext().strip() or list(child.findall(nodes.image)) for child in seen)


def shows_code(cell: nodes.container) -> bool:
    """Whether the cell's code is read on the page."""
    return any("cell_input" in child.get("classes", ()) for child in cell.children)


def merge_code(runs: list[list[nodes.container]]) -> None:
    """The folded code of cells in a row under the first one's line; what shows nothing joins the fold before it."""
    last = None  # the fold before, in running text
    for run in runs:
        in_text = isinstance(run[0].parent, nodes.section)
        first = None
        for cell, following in zip(run, [*run[1:], None], strict=True):
            own = fold_of(cell)
            if own is None or cell.get("hide_mode") == "all":
                # a cell that is read, or whose fold has its output and a name of its own, stays and begins a new row
                first = None
                continue
            if (
                first is None
                and in_text
                and not shows(cell)
                and (following is None or not fold_of(following))
            ):
                first = last
            if first is None:
                first = own
            else:
                first.extend(own.children)
                cell.remove(own)
                if not shows(cell):
                    cell["classes"].append("folded-above")
            last = first if in_text else last


def hidden(node: nodes.Node) -> bool:
    """Whether it stands in a fold already."""
    while node is not None and not isinstance(node, HideCodeCellNode):
        node = node.parent
    return node is not None


def fold_claims(run: list[nodes.container]) -> None:
    """The claims behind a line that says how many there are; an exercise's ✓ is an answer, and stays."""
    rest, seen = [], 0
    tags = [name for cell in run for name in cell["classes"] if name.startswith("tag_claims-")]
    most = int(tags[0].removeprefix("tag_claims-")) if tags else SHOWN
    for cell in run:
        if ANSWERS & set(cell["classes"]):
            continue
        for printed in list(
            cell.findall(lambda n: isinstance(n, nodes.literal_block) and "output" in n["classes"])
        ):
            if hidden(printed):
                continue
            lines = printed.astext().splitlines()
            claims = [line for line in lines if line.startswith(MARK)]
            later = claims[max(0, most - seen) :]
            seen += len(claims)
            if later:
                rest += later
                left = "\n".join(line for line in lines if line not in later)
                if left.strip():
                    printed.rawsource, printed.children = left, []
                    printed += nodes.Text(left)
                else:
                    printed.parent.remove(printed)
    if rest:
        words = f"{MARK}{len(rest)} {'more ' * bool(most)}claim{'s' * (len(rest) > 1)} checked"
        fold = HideCodeCellNode(prompt_show=words, prompt_hide=words, classes=["more-claims"])
        text = "\n".join(rest)
        block = nodes.literal_block(text, text, classes=["output", "stream"], language="none")
        fold += nodes.container("", block, classes=["cell_output"])
        run[-1] += fold
        run[-1]["classes"] = [name for name in run[-1]["classes"] if name != "folded-above"]


def lower_code(run: list[nodes.container]) -> None:
    """The fold of code goes under what its cell and those after it show, up to the next fold or to code that is read."""
    fold = place = None
    for cell in [*run, None]:
        own = cell and fold_of(cell)
        if fold is not None and (cell is None or own or shows_code(cell)):
            fold.parent.remove(fold)
            at = next((i for i, child in enumerate(place) if isinstance(child, HideCodeCellNode)), len(place))
            place.insert(at, fold)
            fold = None
        if own and cell.get("hide_mode") != "all":
            own["prompt_show"] = own["prompt_hide"] = "Code"
            fold = own
        place = cell if cell is None or "folded-above" not in cell["classes"] else place


class OneFold(SphinxPostTransform):
    """For the pages; on paper nothing is folded."""

    default_priority = 201  # after myst-nb has folded

    def run(self, **kwargs):
        if self.app.builder.name == "html":
            found = runs(self.document)
            merge_code(found)
            for run in found:
                fold_claims(run)
                lower_code(run)


def setup(app) -> dict:
    app.add_post_transform(OneFold)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
