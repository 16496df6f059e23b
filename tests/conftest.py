import os

import hypothesis
import pytest

import cappaper
from cappaper.data import MNIST_MD5, data_root

# Machines are shared and noisy: a slow example is no failure. CI judges a change, so there it tries
# the same examples each time; new ones are looked for everywhere else.
hypothesis.settings.register_profile("calm", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("calm")


@pytest.fixture(scope="session")
def digits():
    """Digits: (train, test)."""
    return cappaper.load("digits", "train"), cappaper.load("digits", "test")


@pytest.fixture(scope="session")
def mnist():
    """MNIST: (train, test); skipped where the files are not there, never downloaded."""
    raw = data_root() / "MNIST" / "raw"
    if not all((raw / name).exists() for name in MNIST_MD5):
        pytest.skip("MNIST is absent: set CAPPAPER_DATA to the folder that holds MNIST/raw")
    return cappaper.load("mnist", "train"), cappaper.load("mnist", "test")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """What the tests compute is computed here and now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPPAPER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """A cache with nothing in it."""
    monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path))
    return tmp_path
