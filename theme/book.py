"""The book's own Sphinx extension: where the repository lives, and mathematics without a network."""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile
from urllib.parse import urlparse

# sphinx-mathjax-offline carries MathJax 3.2.2. One file of it is all the pages need, and its bytes are the official ones.
MATHJAX = "static/mathjax/tex-svg.js"
MATHJAX_SHA256 = "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"


def repository_url() -> str:
    """The address of the book's repository: BOOK_REPOSITORY, or the CI's own; empty while there is none."""
    if url := os.environ.get("BOOK_REPOSITORY"):
        return url.rstrip("/")
    server, name = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_REPOSITORY")
    return f"{server}/{name}" if server and name else ""


def pages_url() -> str:
    """Where the pages are published, with a slash at its end: BOOK_PAGES_URL, or the repository's GitHub Pages.

    Empty while nothing is known: then no page states an address of its own.
    """
    if url := os.environ.get("BOOK_PAGES_URL"):
        return url.rstrip("/") + "/"
    where = urlparse(repository_url())
    if where.hostname != "github.com":
        return ""
    owner, name = where.path.strip("/").split("/")[:2]
    site = f"{owner.lower()}.github.io"
    return f"https://{site}/" if name.lower() == site else f"https://{site}/{name}/"


def configure(app, config) -> None:
    """Repository and Colab buttons where there is an address to lead to, and none where there is not."""
    config.mathjax_path = "tex-svg.js"
    config.html_baseurl = pages_url()
    options, url = config.html_theme_options, repository_url()
    options["repository_url"], options["use_repository_button"] = url, bool(url)
    # Known by its name; a server of somebody's own is taken for GitLab, whose sign the button then has.
    known = [name for name in ("github", "gitlab", "bitbucket") if name in url.lower()]
    options["repository_provider"] = [*known, "gitlab"][0] if url else ""
    if urlparse(url).hostname == "github.com":  # the only host that Colab opens notebooks from
        # The published branch "colab" holds the chapters with this address in their set-up cell.
        options["repository_branch"] = "colab"
        options["launch_buttons"] = {"colab_url": "https://colab.research.google.com"}
    else:
        options.pop("launch_buttons", None)


def copy_mathjax(app) -> None:
    """Put MathJax beside the pages, so that formulas show without a network and no third party is asked."""
    if app.builder.format != "html" or app.builder.name == "epub":
        return
    source = Path(find_spec("sphinx-mathjax-offline").submodule_search_locations[0]) / MATHJAX
    found = hashlib.sha256(source.read_bytes()).hexdigest()
    if found != MATHJAX_SHA256:
        raise ValueError(f"{source.name}: SHA-256 is {found}, expected {MATHJAX_SHA256}: not MathJax 3.2.2.")
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    copyfile(source, static / source.name)


def forget(app, env, docnames) -> None:
    """Sphinx forgets a page just before it reads it: a label that moved to an earlier page would be there twice."""
    for docname in docnames:
        app.emit("env-purge-doc", env, docname)
        env.clear_doc(docname)


def setup(app) -> dict:
    app.setup_extension("figures")
    app.setup_extension("folds")
    app.setup_extension("glued")
    app.setup_extension("numbering")
    app.setup_extension("pagefacts")
    app.setup_extension("api")
    app.setup_extension("ebook")
    app.setup_extension("errata")
    app.setup_extension("report")
    app.setup_extension("cards")
    app.setup_extension("finding")
    app.setup_extension("plain")
    app.setup_extension("spaces")
    app.add_js_file("maths.js", priority=400, defer="defer")  # deferred scripts run in order: before MathJax
    app.connect("config-inited", configure)
    app.connect("builder-inited", copy_mathjax)
    app.connect("env-before-read-docs", forget)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
