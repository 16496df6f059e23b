"""The Sphinx extension: conclusions first, buttons where a repository is."""

import os
import subprocess
import sysconfig
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from docutils import nodes

from cappaper.paper import pages, tables
from cappaper.paper.pages import CONCLUSIONS, METHOD, conclusions_first

CONFIG = """
title: A book
sphinx: {extra_extensions: [cappaper.paper.pages], config: {html_theme_options: {}}}
execute: {execute_notebooks: "off"}
"""


def built(source, folder, repository):
    """The pages of a book, built as a reader would, with this repository to link to."""
    builder = Path(sysconfig.get_path("scripts")) / "jupyter-book"
    command = [builder, "build", source, "-W", "--all", "-q", "--path-output", folder]
    env = os.environ | {"CAPPAPER_REPOSITORY": repository}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "_build" / "html"


def section(title, *content):
    return nodes.section("", nodes.title("", title), *content)


def cell(*content):
    return nodes.container("", *content, classes=["cell"])


def page(*parts):
    document = nodes.document(None, None)
    document += section("Figure 9", nodes.paragraph("", "why"), *parts)
    return document


def test_conclusions_come_first_and_hold_the_first_figure():
    image = nodes.image("", alt="A line over β.")
    words = "With β = 0.05 it\nis 0.9. With ReLU it is 0.1, and no more, under every attack. More."
    without = page(section("More"))
    unchanged = without.pformat()
    conclusions_first(without)
    assert without.pformat() == unchanged
    document = page(
        cell(nodes.figure("", image, nodes.caption("", "one"))),
        section("More", cell(nodes.figure())),
        section(CONCLUSIONS, cell(nodes.paragraph("", words)), nodes.paragraph("", "meant")),
        section("What this decides"),
    )
    before = document.astext()
    conclusions_first(document)
    assert [part[0].astext() for part in document[0].children[1:]] == [
        *(CONCLUSIONS, METHOD, "More", "What this decides")
    ]
    conclusions, method, more, _ = document[0].children[1:]
    texts = [node.astext() for node in conclusions.children[1:]]
    assert texts[0].endswith("one") and texts[1:] == [words, "meant"]
    assert method.astext().endswith("why") and more.next_node(nodes.figure)
    assert image["alt"] == f"A line over β. {words[:-6]}".replace("\n", " ")
    assert set(before.split()) < set(document.astext().split()) | {"A", "line", "over"}


def test_a_repository_gives_buttons(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A page")])
    nbformat.write(notebook, tmp_path / "index.ipynb")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    (tmp_path / "_config.yml").write_text(CONFIG)
    text = (built(tmp_path, tmp_path, "https://github.com/some/one/") / "index.html").read_text()
    for expected in (
        'href="https://github.com/some/one',
        'href="https://mybinder.org/v2/gh/some/one/main',
        'href="https://colab.research.google.com/github/some/one/blob/main/book',
    ):
        assert expected in text


def test_what_goes_into_a_page_is_no_markup(monkeypatch):
    for address in ('https://github.com/a/b"><script>', "javascript:alert(1)", "some/one"):
        monkeypatch.setenv("CAPPAPER_REPOSITORY", address)
        with pytest.raises(ValueError, match="CAPPAPER_REPOSITORY must be an address"):
            pages.setup(None)
    row = {"chapter": "one", "claim": 1, "kind": "real", "answer": "<b>yes</b>"}
    assert "Is it real? &lt;b&gt;yes" in pages.chapter_head("one", pd.DataFrame([row]))
    table = pd.DataFrame({"says": ["a | b\nc"]}, ["x"])
    assert tables.markdown_table(table).endswith("| x | a \\| b c |")
