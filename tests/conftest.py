import os
import shutil
import sys
from pathlib import Path
from unittest.mock import MagicMock

import hypothesis
import pytest

import cappaper
from cappaper.data import MNIST_MD5, data_root, import_torchvision
from tests.trust.project import make

ROOT = Path(__file__).parents[1]

# Machines are shared and noisy: a slow example is no failure. CI tries the same examples each time;
# all other runs try new ones.
hypothesis.settings.register_profile("calm", deadline=None, derandomize="CI" in os.environ)
# A mutant is noticed at the first counterexample, whether or not it is the smallest.
hypothesis.settings.register_profile(
    "first",
    hypothesis.settings.get_profile("calm"),
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
hypothesis.settings.load_profile("calm")


@pytest.fixture(scope="session")
def digits():
    """Digits: (train, test)."""
    return cappaper.load("digits", "train"), cappaper.load("digits", "test")


@pytest.fixture(scope="session")
def twenty():
    """Twenty test digits."""
    return cappaper.load("digits", "test", limit=20)


@pytest.fixture(scope="session")
def sixty():
    """Sixty test digits."""
    return cappaper.load("digits", "test", limit=60)


@pytest.fixture(scope="session")
def mnist():
    """MNIST: (train, test); skipped where the files are not there, never downloaded."""
    raw = data_root() / "MNIST" / "raw"
    if not all((raw / name).exists() for name in MNIST_MD5):
        pytest.skip("MNIST is absent: set CAPPAPER_DATA to the folder that holds MNIST/raw")
    return cappaper.load("mnist", "train"), cappaper.load("mnist", "test")


@pytest.fixture(scope="session")
def foolbox():
    return pytest.importorskip("foolbox")


@pytest.fixture(scope="session")
def adv_lib():
    """The attacks of adv-lib, without its plots: they need visdom, which no longer builds."""
    import_torchvision()  # adv-lib imports it
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "visdom", MagicMock())
        return pytest.importorskip("adv_lib.attacks")


@pytest.fixture(autouse=True, scope="session")
def _new_cache(tmp_path_factory):
    """The tests use no result of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPPAPER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A cache with nothing in it."""
    monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of two chapters: one that works, one that fails in its second cell if asked to."""
    listed = [
        {"name": "works", "source": "small", "title": "It works"},
        {"name": "fails", "source": "small", "title": "It fails", "parameters": {"breaks": True}},
    ]
    chapter = "print(profile, device, jobs)\nassert not breaks, 'on purpose'"
    make(tmp_path, chapter, listed, more="breaks = False")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def browser():
    """Chromium, for the tests of one file: while it runs, nothing else can use asyncio."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium to open the page with")
    with sync_playwright() as playwright:
        options = {"executable_path": path, "args": ["--no-sandbox", "--disable-gpu"]}
        with playwright.chromium.launch(**options) as opened:
            yield opened
