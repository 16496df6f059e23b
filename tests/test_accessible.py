"""Every page in a browser, wide and narrow, light and dark: no errors, no requests, accessible."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from matplotlib.image import imread

from cappaper.paper import figures
from tests.browser import open_window
from tests.test_book import BOOK

# Rules that only the parts made by others break.
# Outside landmarks: the theme's logo. Lists: the signatures of autodoc. Roles: docutils' citations.
THEIRS = {"region", "definition-list", "aria-allowed-role", "aria-deprecated-role"}
THEIRS |= {"aria-required-children"}
# Between two colours, a slow machine shows too little contrast.
STILL = "*, ::before, ::after { transition: none !important }"
# In the dark only colours differ: there a page of each kind is enough.
KINDS = ("index", "attack-a-digit", "claims", "fig-04", "how-robust")
# Signatures and code repeat a few kinds of spans, thousands of times.
FEW_SPANS = """
for (const kind of ["dt.sig", ".highlight pre"])
  for (const one of [...document.querySelectorAll(kind)].slice(5))
    one.textContent = one.textContent;
"""
RULES = "return (await axe.run({resultTypes: ['violations']})).violations"
WIDER = """
const all = document.documentElement;
return [all.scrollWidth - all.clientWidth, all.dataset.theme];
"""
SHOWN = """
return [...document.querySelectorAll('.cell_output img:not([hidden])')].map(i => [
  i.getBoundingClientRect().width, i.naturalWidth, i.src.endsWith('.svg') ? 96 : 120]);
"""


def pages(html, scheme):
    made = [html / f"{page.stem}.html" for page in BOOK.glob("*.md")]
    made += sorted((html / "chapters").glob("*.html"))
    return [page for page in made if scheme == "light" or page.stem in KINDS]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_has_no_error_and_no_request_and_breaks_no_rule_of_axe(html, scheme):
    axe = Path(AXE_FILE_PATH).read_text()
    with open_window(scheme=scheme) as window:
        for page in pages(html, scheme):
            window.open(page)
            assert window.run(WIDER) == [0, scheme], page
            assert not window.console + window.requests, (page, window.console, window.requests)
            window.page.add_style_tag(content=STILL)
            window.page.evaluate(axe)
            rules = window.run(FEW_SPANS + RULES)
            ours = [(r["id"], r["nodes"][0]["html"]) for r in rules if r["id"] not in THEIRS]
            assert ours == [], page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_small_and_fits_a_phone_and_its_figures_can_be_read_there(html, scheme):
    """Under 1.5 MB of its own; a figure's smallest words, 9.2 points, are nine pixels high."""
    seen = 0
    with open_window(390, scheme) as window:
        for page in pages(html, scheme):
            window.open(page)
            assert window.run(WIDER) == [0, scheme], page
            assert not window.console + window.requests, (page, window.console, window.requests)
            own = window.run("return [...document.images].map(i => i.src)")
            files = [Path(url.removeprefix("file://")) for url in own if url.startswith("file:")]
            assert sum(file.stat().st_size for file in [page, *files]) < 1.5e6, page
            for shown, whole, dots in window.run(SHOWN):
                assert figures.SMALL * dots / 72 * shown / whole >= 9, (page, shown, whole)
                seen += 1
    assert seen > (20 if scheme == "light" else 1)


def test_in_the_dark_a_plot_has_the_background_of_its_page(html):
    with open_window(scheme="dark") as window:
        for name in ("index", "chapters/fig-04"):
            window.open(html / f"{name}.html")
            plot = window.page.query_selector(".bd-content img[src$='.svg']")
            corner = 255 * imread(io.BytesIO(plot.screenshot()))[2, 2, :3]
            page = window.run("return getComputedStyle(document.body).backgroundColor")
            paper = np.array(re.findall(r"\d+", page)[:3], dtype=float)
            assert paper.max() < 60 and np.abs(corner - paper).max() <= 4, name
