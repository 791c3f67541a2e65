"""The book's own Sphinx extension: where the repository lives, and what follows from it."""

import os
from urllib.parse import urlparse


def repository_url() -> str:
    """The address of the book's repository: BOOK_REPOSITORY, or the CI's own; empty while there is none."""
    if url := os.environ.get("BOOK_REPOSITORY"):
        return url.rstrip("/")
    server, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{name}" if server and name else ""


def configure(app, config) -> None:
    """Repository and Colab buttons where there is an address to lead to, and none where there is not."""
    options, url = config.html_theme_options, repository_url()
    options["repository_url"], options["use_repository_button"] = url, bool(url)
    if urlparse(url).hostname == "github.com":  # the only host that Colab opens notebooks from
        # The published branch "colab" holds the chapters with this address in their set-up cell.
        options["repository_branch"] = "colab"
        options["launch_buttons"] = {"colab_url": "https://colab.research.google.com"}
    else:
        options.pop("launch_buttons", None)


def setup(app) -> dict:
    app.connect("config-inited", configure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
