"""A Sphinx extension: what the book's pages have beside their text.

Networks for the page that attacks a digit; on top of every chapter what became of the claims that
it decides, with its table and its notebook, then what came out; and the tables themselves.
"""

from __future__ import annotations

import html
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from cappaper.paper import figures, live
from cappaper.paper.order import arrange
from cappaper.paper.publishing import git_commit
from cappaper.paper.tables import read
from cappaper.zoo import PRETRAINED

# An empty corner of a table heads nothing: to a screen reader it is a cell.
_EMPTY = re.compile(r"<th([^>]*)>\s*(?:<p>\s*</p>)?\s*(?:&nbsp;)?\s*</th>")


def heading(chapter: str, ledger: pd.DataFrame) -> str:
    """What stands under a chapter's title: its verdicts, its table, its notebook.

    >>> ledger = pd.DataFrame({"claim": [2], "chapter": ["fig-05"], "verdict": ["holds"]})
    >>> print(heading("fig-05", ledger).splitlines()[1])
    <a class="book-verdict" href="../claims.html">claim 2: holds</a>
    """
    mine = ledger[ledger["chapter"] == chapter]
    lines = ['<p class="book-head">']
    for claim, verdict in dict.fromkeys(zip(mine["claim"], mine["verdict"], strict=True)):
        said = html.escape(f"claim {claim}: {verdict}")
        lines.append(f'<a class="book-verdict" href="../claims.html">{said}</a>')
    lines.append(
        f'<a href="../results/{chapter}.csv" download>Data (CSV)</a> ·'
        f' <a href="../_sources/chapters/{chapter}.ipynb" download>Notebook</a>'
    )
    return "\n".join([*lines, "</p>"])


def buttons(repository: str) -> dict[str, Any]:
    """What the theme needs to lead from a page to its source, to Binder and to Colab.

    >>> buttons("")
    {}
    >>> buttons("https://github.com/someone/cappaper/")["repository_url"]
    'https://github.com/someone/cappaper'
    """
    if not repository:
        return {}
    launch = {
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
    }
    return {
        "repository_url": repository.rstrip("/"),
        "repository_branch": "main",
        "path_to_docs": "book",
        "use_repository_button": True,
        "launch_buttons": launch,
    }


def social_card(repository: str, title: str) -> str:
    """What other sites show of a link to a page: its title, and the finding as a picture.

    Only GitHub's pages have an address that follows from the repository's.

    >>> "https://someone.github.io/cappaper/card.png" in social_card(
    ...     "https://github.com/someone/cappaper", "How robust, then?")
    True
    >>> social_card("", "How robust, then?")
    ''
    """
    known = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)/?", repository)
    if not known:
        return ""
    said = {
        "og:type": "article",
        "og:title": title,
        "og:description": "A low cap stops PGD. It does not stop an attack that knows about it.",
        "og:image": f"https://{known[1].lower()}.github.io/{known[2]}/card.png",
    }
    return "".join(
        f'<meta property="{name}" content="{html.escape(text)}">' for name, text in said.items()
    )


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    day = datetime.now(UTC).date()
    repository = os.environ.get("CAPPAPER_REPOSITORY", "")
    built = f'<p class="book-built">Built on {day} from commit {git_commit()}.</p>'

    def place(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
        ledger = Path(app.srcdir) / "results" / "claims.csv"
        if page.startswith("chapters/") and "body" in context and ledger.exists():
            shown = heading(page.removeprefix("chapters/"), pd.read_csv(ledger))
            context["body"] = context["body"].replace("</h1>", f"</h1>\n{shown}", 1)
        title = re.sub(r"<[^>]*>", "", context.get("title", ""))
        context["metatags"] = context.get("metatags", "") + social_card(repository, title)
        if "body" in context:
            context["body"] = _EMPTY.sub(r"<td\1></td>", context["body"]) + built

    def arranged(app: Any, document: Any) -> None:
        if app.env.docname.startswith("chapters/"):
            arrange(document)

    def write(app: Any, failed: Exception | None) -> None:
        if failed is not None or app.builder.format != "html":
            return
        tables, networks = (Path(app.outdir) / part for part in ("results", "live/networks"))
        for folder in (tables, networks):
            folder.mkdir(parents=True, exist_ok=True)
        headline = Path(app.srcdir) / "results" / "how-robust.csv"
        if repository and headline.exists():
            picture = figures.headline(read(headline))
            (Path(app.outdir) / "card.png").write_bytes(picture.png())
        for table in (Path(app.srcdir) / "results").glob("*.csv"):
            shutil.copy(table, tables)
        (networks / "index.js").write_text(live.index_script(), encoding="utf-8")
        for name in PRETRAINED:
            (networks / f"{name}.js").write_text(live.network_script(name), encoding="utf-8")

    def located(app: Any, config: Any) -> None:
        config.html_theme_options |= buttons(repository)

    app.connect("config-inited", located)
    app.connect("doctree-read", arranged, priority=100)  # before Sphinx lists the headings
    app.connect("html-page-context", place)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
