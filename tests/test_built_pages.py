"""The built book, in its files and in a browser, wide and narrow, light and dark."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from matplotlib.image import imread

from cappaper.paper import figures, ledger
from cappaper.paper.ledger import QUESTIONS
from tests.browser import open_window, run_on_page
from tests.test_book import BOOK, NAMES
from tests.test_pages import built

# Rules that only the parts made by others break.
# Outside landmarks: the theme's logo. Lists: the signatures of autodoc. Roles: docutils' citations.
THEIRS = {"region", "definition-list", "aria-allowed-role", "aria-deprecated-role"}
THEIRS |= {"aria-required-children"}
# Between two colours, a slow machine shows too little contrast.
STILL = "*, ::before, ::after { transition: none !important }"
# In the dark only colours differ, and around its article a page is like the others: there, and for
# contrast, which takes axe longest, a page of each kind is enough.
KINDS = ("index", "attack-a-digit", "claims", "fig-04", "how-robust")
# Signatures and code repeat a few kinds of spans, thousands of times.
RULES = """
for (const kind of ["dt.sig", ".highlight pre"])
  for (const one of [...document.querySelectorAll(kind)].slice(5))
    one.textContent = one.textContent;
const rules = {"color-contrast": {enabled: %s}};
return (await axe.run(%s, {resultTypes: ["violations"], preload: false, rules})).violations
"""
WIDER = """
const all = document.documentElement;
return [all.scrollWidth - all.clientWidth, all.dataset.theme];
"""
SHOWN = """
return [...document.querySelectorAll('.cell_output img:not([hidden])')].map(i => [
  i.getBoundingClientRect().width, i.naturalWidth, i.src.endsWith('.svg') ? 96 : 120]);
"""
TALLEST = """
return Math.max(0, ...[...document.querySelectorAll('article table')].map(t => t.offsetHeight));
"""
TOP = """
const first = document.querySelector('article figure img, article .cell_output img');
return first.getBoundingClientRect().top;
"""


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The committed book."""
    return built(BOOK, tmp_path_factory.mktemp("book"), repository="")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_breaks_no_rule_of_axe_and_is_small_and_fits_a_phone(browser, html, scheme):
    """No error, no request, and under 1.5 MB of its own. On a phone a figure's smallest words,
    9.2 points, are nine pixels high."""
    axe, seen = Path(AXE_FILE_PATH).read_text(), 0
    pages = [html / f"{page.stem}.html" for page in BOOK.glob("*.md")]
    pages += sorted((html / "chapters").glob("*.html"))
    with open_window(browser, 390, scheme) as window:
        for page in [p for p in pages if scheme == "light" or p.stem in KINDS]:
            window.page.set_viewport_size({"width": 390, "height": 900})
            window.open(page)
            assert window.run(WIDER) == [0, scheme], page
            assert window.run(TALLEST) <= 4 * 900, page  # four screens
            own = window.run("return [...document.images].map(i => i.src)")
            files = [Path(url.removeprefix("file://")) for url in own if url.startswith("file:")]
            assert sum(file.stat().st_size for file in [page, *files]) < 1.5e6, page
            for shown, whole, dots in window.run(SHOWN):
                assert figures.SMALL * dots / 72 * shown / whole >= 9, (page, shown, whole)
                seen += 1
            window.page.set_viewport_size({"width": 1400, "height": 900})
            assert window.run(WIDER) == [0, scheme], page
            if page.parent.name == "chapters":
                assert window.run(TOP) < 900, page
            assert not window.console + window.requests, (page, window.console, window.requests)
            window.page.add_style_tag(content=STILL)
            window.page.evaluate(axe)
            whole = page.stem in KINDS
            part = "document" if whole else "'article'"
            rules = window.run(RULES % (str(whole).lower(), part))
            ours = [(r["id"], r["nodes"][0]["html"]) for r in rules if r["id"] not in THEIRS]
            assert ours == [], page
    assert seen > (20 if scheme == "light" else 1)


def test_in_the_dark_a_plot_has_the_background_of_its_page(browser, html):
    with open_window(browser, scheme="dark") as window:
        for name in ("index", "chapters/fig-04"):
            window.open(html / f"{name}.html")
            plot = window.page.query_selector(".bd-content img[src$='.svg']")
            corner = 255 * imread(io.BytesIO(plot.screenshot()))[2, 2, :3]
            page = window.run("return getComputedStyle(document.body).backgroundColor")
            paper = np.array(re.findall(r"\d+", page)[:3], dtype=float)
            assert paper.max() < 60 and np.abs(corner - paper).max() <= 4, name
        window.open(html / "chapters" / "how-robust.html")  # inverted, its order would be, too
        look = "return getComputedStyle(document.querySelector('img.heat-map')).filter"
        assert "invert" not in window.run(look)


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
            assert text.startswith("the figure at β\u00a0=") or len(text.split()) > 10, (page, text)


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


def test_the_static_slider_changes_beta(browser, html):
    (label, shown), (label_after, shown_after) = run_on_page(
        browser,
        html / "chapters" / "fig-04.html",
        """
      const box = document.querySelector(".beta-explorer"), slider = box.querySelector("input");
      const state = () => [box.querySelector("output").value,
        [...box.querySelectorAll("img")].filter(i => !i.hidden).map(i => i.dataset.beta)];
      const before = state();
      slider.value = 0; slider.dispatchEvent(new Event("input"));
      return [before, state()];""",
    )
    assert label == f"β\u00a0=\u00a0{shown[0]}" and len(shown) == 1
    assert label_after == "β\u00a0=\u00a00.01" and shown_after == ["0.01"]


def test_without_a_repository_no_page_has_a_button_or_a_card(html):
    text = (html / "index.html").read_text()
    assert not re.search('mybinder.org|colab.research|"og:title"|card.png', text)


def test_a_click_on_a_head_sorts_and_a_second_one_reverses_the_order(browser, html):
    """All columns of the table are in sight."""
    table = ledger.networks(BOOK)
    column = list(table.columns).index("certified")
    script = f"""
      const table = document.querySelector('table.sortable');
      const head = table.tHead.rows[0].cells[{column}];
      const read = () => [head.getAttribute('aria-sort'),
        ...[...table.tBodies[0].rows].map((row) => row.cells[{column}].textContent.trim())];
      const states = [read()];
      head.querySelector('button').focus();
      document.activeElement.click(); states.push(read());
      document.activeElement.click(); states.push(read());
      return [table.getBoundingClientRect().right <= innerWidth, ...states];
    """
    fits, (none, *_), (up, *rising), (down, *falling) = run_on_page(
        browser, html / "all-networks.html", script
    )
    assert fits and (none, up, down) == (None, "ascending", "descending")
    unknown = int(table["certified"].isna().sum())
    assert rising[-unknown:] == falling[-unknown:] == [""] * unknown
    numbers = [float(text) for text in rising[:-unknown]]
    assert numbers == sorted(numbers) and pd.Series(numbers).nunique() > 1
    assert falling[:-unknown] == rising[:-unknown][::-1]
