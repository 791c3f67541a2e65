"""A link at the end of each page to report an error in it: it names the page and the version of the book.

Only where the repository's address is known (theme/book.py): without one there is nobody to report to.
"""

import os
import subprocess
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from book import repository_url

from companion import __version__

ROOT = Path(__file__).parent.parent
BODY = (
    "Page: {page}\nVersion: {version}\n\nWhat is written there:\n\nWhat is wrong with it, and how you know:\n"
)


def version() -> str:
    """ "0.1.0, commit 7fb9223"; without the commit where neither the CI nor git names one."""
    commit = os.environ.get("GITHUB_SHA", "")
    if not commit:
        try:
            asked = ["git", "rev-parse", "HEAD"]
            commit = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.strip()
        except FileNotFoundError:  # no git
            pass
    return __version__ + (f", commit {commit[:7]}" if commit else "")


def address(repository: str, page: str, title: str, stated: str) -> str:
    """Where a new issue is opened, title and first lines written: GitHub, Gitea and Forgejo read both names."""
    asked = {"title": f"Error in “{title}”", "body": BODY.format(page=page, version=stated)}
    return f"{repository}/issues/new?{urlencode(asked)}"


def add_link(app, pagename, templatename, context, doctree) -> None:
    repository = repository_url()
    if app.builder.name != "html" or doctree is None or "body" not in context or not repository:
        return
    title = next(iter(app.env.titles[pagename].children), None)
    shown = title.astext() if title is not None else pagename
    to = escape(address(repository, pagename, shown, app.config.report_version), quote=True)
    context["body"] += f'\n<p class="report-error"><a href="{to}">Report an error on this page</a></p>\n'


def setup(app) -> dict:
    app.add_config_value("report_version", version(), "")
    app.connect("html-page-context", add_link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
