"""A Sphinx extension: what the book's pages have in addition to their notebooks.

A chapter's page begins with the answers that it gives, its conclusions and its first figure.
Formulas are MathML, and the live page gets its networks.
"""

import base64
import json
import os
import re
import shutil
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from docutils import nodes
from latex2mathml.converter import convert

from cappaper.models import PRETRAINED, about, pretrained
from cappaper.paper.ledger import QUESTIONS
from cappaper.paper.publishing import git_commit
from cappaper.paper.tables import network_name

CONCLUSIONS, METHOD = "What came out", "How it was done"
# An empty corner of a table is not a heading: a screen reader must see a cell.
_EMPTY = re.compile(r"<th([^>]*)>\s*(?:<p>\s*</p>)?\s*(?:&nbsp;)?\s*</th>")


def chapter_head(chapter: str, ledger: pd.DataFrame) -> str:
    """The line under a chapter's title: the answers to the claims, its table, its notebook."""
    lines = []
    for row in ledger[ledger["chapter"] == chapter].to_dict("records"):
        if question := QUESTIONS.get(row["kind"]):
            text = f"Claim {row['claim']}. {question} {row['answer'].capitalize()}"
            link = f"../claims.html#claim-{row['claim']}"
            lines.append(f'<a class="book-verdict" href="{link}">{escape(text)}</a>')
    lines.append(f'<a href="../results/{chapter}.csv" download>Data (CSV)</a> ·')
    lines.append(f'<a href="../_sources/chapters/{chapter}.ipynb" download>Notebook</a>')
    return "\n".join(['<p class="book-head">', *lines, "</p>"])


def conclusions_first(document: Any) -> None:
    """Move a chapter's first figure with a caption, then its conclusions, under its title.

    The chapter's opening gets a heading. The alternative text of the figure also states the
    finding. A document without conclusions stays as it is.
    """
    chapter: Any = next(document.findall(nodes.section), nodes.section())
    parts = [node for node in chapter.children if isinstance(node, nodes.section)]
    conclusions = next((part for part in parts if part[0].astext() == CONCLUSIONS), None)
    if conclusions is None:
        return
    cell = next(chapter.findall(nodes.figure), None)
    while cell is not None and "cell" not in cell.get("classes", ()):
        cell = cell.parent  # the notebook's cell that the figure is an output of
    if cell is not None:
        for image in cell.findall(nodes.image):
            image["alt"] = f"{image.get('alt', '')} {_finding(conclusions)}".strip()
        cell.parent.remove(cell)
        conclusions.insert(1, cell)
    opening = [node for node in chapter.children[1:] if node not in parts]
    method = nodes.section("", nodes.title("", METHOD), *opening, ids=[nodes.make_id(METHOD)])
    chapter.children[1:] = []
    chapter += [conclusions, method, *(part for part in parts if part is not conclusions)]


def _finding(conclusions: Any) -> str:
    """The first sentence of the conclusions outside tables, and the next if it is very short."""
    paragraphs = conclusions.findall(nodes.paragraph)
    texts = [p.astext() for p in paragraphs if not isinstance(p.parent, nodes.entry)]
    words = " ".join(" ".join(texts).split())
    match = re.match(r"(.{59,}?|.+)\.(?=\s|$)", words)
    return match[0] if match else ""


def write_networks(folder: Path) -> None:
    """Each network of the package as a script that calls ``Live.add``, and ``index.js``.

    A page that is opened from a folder cannot fetch files, so the live page loads them as scripts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    caps = {name: float(about(name)["beta"][0]) for name in PRETRAINED}
    titles = []
    for name in sorted(caps, key=lambda n: (n.partition("-adversarial")[1:], -caps[n])):
        state = pretrained(name).state_dict()
        values = [state[key].half() for key in state if not key.endswith("beta")]
        texts = [base64.b64encode(value.numpy().tobytes()).decode() for value in values]
        facts = about(name) | {"layers": list(zip(texts[::2], texts[1::2], strict=True))}
        script = f"Live.add({json.dumps(name)}, {json.dumps(facts, ensure_ascii=False)});\n"
        (folder / f"{name}.js").write_text(script, encoding="utf-8")
        radius = facts["training"].partition(" at ")[2].partition(",")[0]  # "ε = 0.3", or ""
        trained = f", adversarially trained at {radius}" * bool(radius)
        titles.append([name, network_name(caps[name]) + trained])
    listed = json.dumps(titles, ensure_ascii=False)
    (folder / "index.js").write_text(f"Live.available = {listed};\n", encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Connect all of this to Sphinx's events."""
    repository = os.environ.get("CAPPAPER_REPOSITORY", "").rstrip("/")
    if not re.fullmatch(r"(https?://[\w.:~/-]+)?", repository):  # it goes into every page
        raise ValueError(f"CAPPAPER_REPOSITORY must be an address, got {repository!r}")
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
    app.connect("config-inited", partial(_configure, repository))
    app.connect("doctree-read", _read_document, priority=100)  # before Sphinx lists the headings
    app.connect("html-page-context", _finish_page)
    app.connect("build-finished", _write_files)
    return {"parallel_read_safe": False, "parallel_write_safe": True}


def _configure(repository: str, app: Any, config: Any) -> None:
    config.html_last_updated_fmt = f"%Y-%m-%d from commit {git_commit()}"
    if repository:
        colab = "https://colab.research.google.com"
        config.html_theme_options |= {
            "repository_url": repository,
            "repository_branch": "main",
            "path_to_docs": "book",
            "use_repository_button": True,
            "launch_buttons": {"binderhub_url": "https://mybinder.org", "colab_url": colab},
        }


def _read_document(app: Any, document: Any) -> None:
    if app.env.docname.startswith("chapters/"):
        conclusions_first(document)


def _finish_page(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    ledger = Path(app.srcdir) / "results" / "claims.csv"
    body = _EMPTY.sub(r"<td\1></td>", context.get("body", ""))
    if page.startswith("chapters/") and ledger.exists():
        head = chapter_head(page.removeprefix("chapters/"), pd.read_csv(ledger))
        body = body.replace("</h1>", f"</h1>\n{head}", 1)
    context["body"] = re.sub("([βε]) = ", "\\1\u00a0=\u00a0", body)  # on one line


def _write_files(app: Any, failed: Exception | None) -> None:
    if failed is not None or app.builder.format != "html":
        return
    source, out = Path(app.srcdir) / "results", Path(app.outdir)
    (out / "results").mkdir(exist_ok=True)
    for table in source.glob("*.csv"):
        shutil.copy(table, out / "results")
    write_networks(out / "live" / "networks")


def _formula(translator: Any, node: Any) -> None:
    inline = isinstance(node, nodes.math)
    text = convert(node.astext(), display="inline" if inline else "block")
    translator.body.append(text if inline else f'<div class="book-formula">{text}</div>')
    raise nodes.SkipNode
