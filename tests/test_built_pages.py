"""The code of README and pages, the built pages, and that no file has a path of a machine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cappaper.paper.ledger import QUESTIONS
from tests.browser import run_on_page
from tests.test_book import BOOK, NAMES, ROOT


@pytest.mark.parametrize("page", ["README.md", "book/your-own-model.md"])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_the_check_that_a_page_shows_has_the_same_words_with_fewer_images(tmp_path):
    shown = (BOOK / "examples" / "check.txt").read_text()
    shutil.copy(BOOK / "examples" / "my_net.py", tmp_path)
    command = [Path(sys.executable).with_name("cappaper"), "check", "my_net.py:make"]
    command += ["--data", "my_net.py:images", "--limit", "60", "--steps", "20", "--queries", "50"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    verdict = "The gradients are masked: do not trust a robust accuracy from PGD."
    texts = (shown, done.stdout)
    for text in texts:
        assert verdict in text and "an attack that knows about the cap leaves" in text
    words = [[line.split("%")[1] for line in text.splitlines()[2:5]] for text in texts]
    assert words[0] == words[1]


def test_the_book_has_every_page_and_no_unresolved_number(html):
    entries = re.findall(r"- file: (\S+)", (BOOK / "_toc.yml").read_text())
    runs = [f"chapters/{path.stem}" for path in (BOOK / "chapters").glob("*.ipynb")]
    for page in {"index", "how-fast", "all-networks", *entries, *runs}:
        text = (html / f"{page}.html").read_text()
        assert not re.search("glue:|np.float|Quick profile", text), page
    assert "cappaper.adaptive_pgd" in (html / "api.html").read_text()


def test_a_page_has_its_date_its_commit_and_links_to_its_terms(html):
    for page in [html / "index.html", *(html / "chapters").glob("*.html")]:
        text = page.read_text()
        assert re.search(r"Last updated on \d{4}-\d\d-\d\d from commit (\w{12}|unknown)", text)
        assert "favicon.svg" in text
    index = (html / "index.html").read_text()
    assert len(re.findall(r'<a [^>]*href="background.html#term-[^>]*>', index)) >= 3


def test_a_picture_has_an_alternative_text(html):
    """Never a file's name; a slider's pictures name their β."""
    pages = [html / f"{page}.html" for page in ("index", "how-fast", "attack-a-digit")]
    for page in [*pages, *(html / "chapters").glob("*.html")]:
        for picture in re.findall(r"<img [^>]*>", page.read_text()):
            (text,) = re.findall(r'alt="([^"]*)"', picture)
            assert text.startswith("the figure at β = ") or len(text.split()) > 10, (page, text)


def test_a_chapter_begins_with_its_answers_its_files_and_what_came_out(html):
    ledger = pd.read_csv(BOOK / "results" / "claims.csv")
    for name in NAMES:
        page = html / "chapters" / f"{name}.html"
        text = page.read_text()
        (head,) = re.findall(r'<p class="book-head">(.*?)</p>', text, re.DOTALL)
        mine = ledger[(ledger["chapter"] == name) & (ledger["kind"] != "evidence")]
        answers = zip(mine["claim"], mine["kind"], mine["answer"], strict=True)
        expected = [f"Claim {c}. {QUESTIONS[kind]} {a.capitalize()}" for c, kind, a in answers]
        assert re.findall(r'href="../claims.html#claim-\d">(.*?)</a>', head) == expected
        data, notebook = re.findall(r'href="([^"]*)" download', head)
        assert data.endswith(".csv") and notebook.endswith(".ipynb")
        assert (page.parent / data).exists() and (page.parent / notebook).exists()
        assert re.findall(r"<h2>(.*?)<a", text)[:2] == ["What came out", "How it was done"], name


def test_the_static_slider_changes_beta(html):
    (label, shown), (label_after, shown_after) = run_on_page(
        html / "chapters" / "fig-04.html",
        """
      const box = document.querySelector(".beta-explorer"), slider = box.querySelector("input");
      const state = () => [box.querySelector("output").value,
        [...box.querySelectorAll("img")].filter(i => !i.hidden).map(i => i.dataset.beta)];
      const before = state();
      slider.value = 0; slider.dispatchEvent(new Event("input"));
      return [before, state()];""",
    )
    assert label == f"β = {shown[0]}" and len(shown) == 1
    assert label_after == "β = 0.01" and shown_after == ["0.01"]


def test_no_committed_file_has_a_path_of_a_machine():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    for name in files.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".ipynb", ".yml", ".csv", ".toml", ".txt", ""}:
            text = path.read_text()
            assert not re.search(r"(?<![\w.])/(?:home|root|Users|work)/\w", text), name
