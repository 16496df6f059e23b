import re
import subprocess
import sysconfig
from pathlib import Path

import nbformat
import pytest

BUILDER = str(Path(sysconfig.get_path("scripts")) / "jupyter-book")
CONFIG = """
title: A book
sphinx: {extra_extensions: [cappaper.paper.site], config: {html_theme_options: {}}}
execute: {execute_notebooks: "off"}
"""


@pytest.fixture
def page(tmp_path):
    """A book of one notebook, as its only page reads when the book knows its repository, or not."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A page")])
    nbformat.write(notebook, tmp_path / "index.ipynb")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n")
    (tmp_path / "_config.yml").write_text(CONFIG)

    def build(monkeypatch, repository):
        monkeypatch.setenv("CAPPAPER_REPOSITORY", repository)
        command = [BUILDER, "build", str(tmp_path), "-W", "--all", "-q"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "_build" / "html" / "index.html").read_text()

    return build


def test_a_book_that_knows_its_repository_leads_to_it_and_to_a_kernel(page, monkeypatch):
    text = page(monkeypatch, "https://github.com/some/one")
    assert '<meta property="og:title" content="A page">' in text
    links = re.findall(r'href="(https://[^"]+)"', text)
    assert "https://github.com/some/one" in links
    assert any(link.startswith("https://mybinder.org/v2/gh/some/one/main") for link in links)
    assert any(
        link.startswith("https://colab.research.google.com/github/some/one/blob/main/book")
        for link in links
    )


def test_one_that_does_not_has_no_such_button(page, monkeypatch):
    text = page(monkeypatch, "")
    assert "mybinder" not in text and "og:title" not in text
