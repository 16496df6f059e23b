"""A wheel in an empty environment, away from the repository. Slow: ``make wheel`` runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_package import HOME, MODULES

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.wheel


def run(*command, folder):
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def wheel(folder):
    """Built from the sdist, as ``make release`` does."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, folder=folder)
    files = [*folder.glob("cappaper-*.whl"), *folder.glob("cappaper-*.tar.gz")]
    run(sys.executable, "-m", "twine", "check", "--strict", *files, folder=folder)
    assert len(files) == 2
    return files[0]


@pytest.fixture(scope="module")
def python(folder):
    run(sys.executable, "-m", "venv", folder / "empty", folder=folder)
    return folder / "empty" / "bin" / "python"


def install(python, what, folder):
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", what, folder=folder)


def imported(python, modules, folder):
    code = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]"
    run(python, "-W", "ignore", "-c", code, *modules, folder=folder)


def test_without_extras_it_is_what_to_take_home(wheel, python, folder):
    install(python, wheel, folder)
    imported(python, HOME, folder)
    installed = run(python, "-m", "pip", "list", "--format=freeze", folder=folder)
    for package in ("pandas", "matplotlib", "papermill", "click", "tqdm", "pyautoattack"):
        assert f"\n{package}==" not in installed, package
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        run(python, "-c", block, folder=folder)
    run(
        python,
        "-c",
        "import cappaper; [cappaper.pretrained(n) for n in cappaper.PRETRAINED]",
        folder=folder,
    )
    place = "import cappaper, pathlib; print(pathlib.Path(cappaper.__file__).parent)"
    package = Path(run(python, "-c", place, folder=folder).strip())
    assert folder in package.parents and (package / "py.typed").exists()
    done = subprocess.run([python.with_name("cappaper")], capture_output=True, text=True)
    assert done.returncode == 1 and 'pip install "cappaper[paper]"' in done.stderr


def test_with_the_extra_paper_it_is_everything(wheel, python, folder):
    install(python, f"{wheel}[paper]", folder)
    imported(python, MODULES, folder)
    run(python.with_name("cappaper"), "data", "digits", folder=folder)
