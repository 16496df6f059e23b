"""A notebook in JupyterLab: a real browser, and a kernel."""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

from tests.browser import open_window
from tests.conftest import ROOT

PATIENCE = 120_000  # milliseconds for a kernel to start and a notebook to run


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    return Path(shutil.copytree(ROOT / "notebooks", tmp_path_factory.mktemp("lab") / "notebooks"))


@pytest.fixture(scope="module")
def lab(notebooks):
    """The address of a JupyterLab that shows a copy of the notebooks."""
    folder = notebooks.parent
    log = folder / "log"
    options = ["--no-browser", "--allow-root", "--port=0", "--expose-app-in-browser"]
    command = [sys.executable, "-m", "jupyterlab", *options, "--IdentityProvider.token="]
    env = os.environ | {"HOME": str(folder), "CAPPAPER_DATA": str(folder)}
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=notebooks, env=env, stdout=out, stderr=out)
    try:
        end = time.monotonic() + PATIENCE / 1000
        while not (address := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+", log.read_text())):
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield address[0]
    finally:
        server.terminate()
        server.wait()


@contextmanager
def opened(browser, lab, name, shown):
    """A page with the notebook open, every cell run, and the element ``shown`` there."""
    with open_window(browser) as window:
        page = window.page
        page.set_default_timeout(PATIENCE)
        page.goto(f"{lab}/lab/tree/{name}?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        kernel = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
        page.wait_for_function(f"{kernel}?.status === 'idle'")
        page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for_selector(shown)
        yield page


PICTURE = ".jp-OutputArea .widget-image"


def changed(page, before):
    """The address of the picture that the widgets show, once it is another one."""
    script = f"old => ![undefined, '', old].includes(document.querySelector('{PICTURE}')?.src)"
    page.wait_for_function(script, arg=before)
    return page.eval_on_selector(PICTURE, "picture => picture.src")


def test_a_slider_runs_the_attack_again(browser, lab):
    with opened(browser, lab, "explore.ipynb", PICTURE) as page:
        shown = changed(page, None)
        for name in ("ε", "test digit"):
            page.locator(".widget-slider", has_text=name).locator(".noUi-handle").focus()
            page.keyboard.press("ArrowRight")
            shown = changed(page, shown)


def test_the_slider_of_a_figure_obeys_the_keyboard(browser, lab, notebooks):
    code = "from cappaper.paper import figures\nfigures.beta_explorer(figures.cap, [0.1, 0.5, 1.0])"
    cells = [nbformat.v4.new_code_cell(code)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    small = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(small, notebooks / "small.ipynb")
    with opened(browser, lab, "small.ipynb", ".beta-explorer input") as page:
        page.locator(".beta-explorer input").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.querySelector('.beta-explorer output').value === 'β = 1'")
        hidden = page.eval_on_selector_all(".beta-explorer img", "all => all.map(i => i.hidden)")
        assert hidden == [True, True, False]
