"""A wheel in an empty environment, away from the repository: ``pytest -m wheel``."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.test_package import HOME, MODULES, ROOT

pytestmark = pytest.mark.wheel
IMPORT = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def run(folder):
    # Modules are compiled when they are imported, and few are.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def run(*command):
        command = [*map(str, command)]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def wheel(run, folder):
    """Built from the sdist, as a release is."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    files = [*folder.glob("cappaper-*.whl"), *folder.glob("cappaper-*.tar.gz")]
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    assert len(files) == 2
    return files[0]


@pytest.fixture(scope="module")
def python(run, folder):
    run(sys.executable, "-m", "venv", "empty")
    return folder / "empty" / "bin" / "python"


@pytest.fixture(scope="module")
def install(run, python):
    given = (python, "-m", "pip", "install", "-q", "--no-compile", "-c", ROOT / "constraints.txt")
    return partial(run, *given)


def test_without_extras_the_package_for_home_works(wheel, install, python, run, folder):
    install(wheel)
    run(python, "-W", "ignore", "-c", IMPORT, *HOME)
    installed = run(python, "-m", "pip", "list", "--format=freeze")
    for package in ("matplotlib", "papermill", "ipython", "grimp", "pyautoattack"):
        assert f"\n{package}==" not in installed, package
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    run(python, "-c", "\n".join(blocks))
    where = "[cappaper.pretrained(n) for n in cappaper.PRETRAINED]; print(cappaper.__file__)"
    package = Path(run(python, "-c", f"import cappaper; {where}").strip()).parent
    assert folder in package.parents and (package / "py.typed").exists()
    cappaper = python.with_name("cappaper")
    assert "check" in run(cappaper, "--help")
    (folder / "my_net.py").write_text("import cappaper\nmake = cappaper.pretrained('cap-1')\n")
    few = ["--limit", 20, "--steps", 5, "--queries", 20, "--eps", "8/255"]
    said = run(cappaper, "check", "my_net.py:make", "--data", "mnist-sample", *few)
    assert "my_net.py:make: 20 images, L∞ ball of radius 0.0313725" in said
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("_build"))
    assert "1. ReLU lets perturbations grow" in run(cappaper, "claims")
    done = subprocess.run([cappaper, "reproduce"], capture_output=True, text=True)
    assert done.returncode == 1 and 'pip install "cappaper[paper]"' in done.stderr


def test_with_the_extra_paper_everything_works(wheel, install, python, run):
    install(f"{wheel}[paper]")
    run(python, "-W", "ignore", "-c", IMPORT, *MODULES)
    assert "reproduce" in run(python.with_name("cappaper"), "--help")
