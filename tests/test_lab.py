"""A notebook in JupyterLab: a real browser, and a kernel."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from tests.browser import open_window
from tests.conftest import ROOT

PATIENCE = 120_000  # milliseconds for a kernel to start and a notebook to run


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab with a copy of the notebooks, whose images come along."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    log = folder / "log"
    options = ["--no-browser", "--allow-root", "--port=0", "--expose-app-in-browser"]
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options, "--IdentityProvider.token="],
            cwd=folder / "notebooks",
            env=os.environ
            | {"HOME": str(folder), "CAPPAPER_DATA": str(folder), "OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=out,
        )
    try:
        end = time.monotonic() + PATIENCE / 1000
        while not (address := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+", log.read_text())):
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield address[0]
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def notebook(browser, lab):
    """A page with the notebook open and every cell run."""
    with open_window(browser) as window:
        page = window.page
        page.set_default_timeout(PATIENCE)
        page.goto(f"{lab}/lab/tree/explore.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        kernel = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel"
        page.wait_for_function(f"{kernel}?.status === 'idle'")
        page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for_selector(".jp-OutputArea .widget-image")
        yield page


PICTURE = ".jp-OutputArea .widget-image"


def changed(page, before):
    """The address of the picture that the widgets show, once it is another one."""
    script = f"old => ![undefined, '', old].includes(document.querySelector('{PICTURE}')?.src)"
    page.wait_for_function(script, arg=before)
    return page.eval_on_selector(PICTURE, "picture => picture.src")


def test_a_slider_runs_the_attack_again_and_a_wrong_cap_is_refused(notebook):
    page, shown = notebook, changed(notebook, None)
    for name in ("ε", "test digit"):
        slider = page.locator(".widget-slider", has_text=name).locator(".noUi-handle")
        slider.focus()
        page.keyboard.press("ArrowRight")
        shown = changed(page, shown)
    cap = page.locator(".widget-text", has_text="β of layer 1").locator("input")
    cap.fill("-1")
    cap.press("Enter")
    page.wait_for_selector("text=a cap is a number above 0, or inf for ReLU")
    assert page.eval_on_selector(PICTURE, "picture => picture.src") == shown
