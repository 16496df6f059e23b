"""What to take home needs nothing of the book, and its public names are documented."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import cappaper

ROOT = Path(__file__).parents[1]
PACKAGE = Path(cappaper.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)
HOME = [m for m in MODULES if not m.startswith("cappaper.paper") and not m.endswith("__main__")]
BOOK = ["pandas", "joblib", "matplotlib", "papermill", "click", "tqdm", "yaml", "IPython"]
EXTRA = {"joblib", "matplotlib", "papermill", "IPython", "grimp", "ipywidgets", "pyautoattack"}


def python(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


IMPORTS = """
import importlib, sys
heavy, blocked, home = {heavy}, {blocked}, {home}
for first in ("cappaper", "cappaper.paper"):
    importlib.import_module(first)
    print(first, *sorted(heavy[first] & set(sys.modules)))
for name in [name for name in sys.modules if name.partition(".")[0] == "cappaper"]:
    del sys.modules[name]
sys.modules.update(dict.fromkeys(blocked))
for module in home:
    importlib.import_module(module)
"""


def test_an_import_stays_light_and_what_to_take_home_needs_nothing_of_the_book():
    heavy = {  # tqdm comes with torch, where it is installed
        "cappaper": {*BOOK, *EXTRA, "torchvision", "torch._dynamo"} - {"tqdm"},
        "cappaper.paper": {*BOOK, "jupyter_book", "sphinx", "myst_nb", "torch._dynamo"} - {"tqdm"},
    }
    blocked = {*BOOK, "ipywidgets", "pyautoattack", "cappaper.paper"}
    done = python(IMPORTS.format(heavy=heavy, blocked=blocked, home=HOME))
    assert len(HOME) > 15 and done.returncode == 0, done.stderr
    assert done.stdout == "cappaper\ncappaper.paper\n"


COMMANDS = """
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys({extra}))
from cappaper.__main__ import main
for sys.argv in {commands}:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        status = main()
    print(json.dumps([status, out.getvalue()]))
"""


def test_the_base_install_answers_and_the_book_says_what_to_install():
    expected = {
        "--help": (0, "reproduce"),
        "data digits mnist-sample": (0, "mnist-sample: 1000 test images"),
        "claims": (0, "1. ReLU lets perturbations grow"),
        "check book/examples/my_net.py:images --data mnist-sample": (1, "torch module"),
        "reproduce": (1, 'is missing: pip install "cappaper[paper]"'),
        "claims --write": (1, 'is missing: pip install "cappaper[paper]"'),
    }
    commands = [["cappaper", *command.split()] for command in expected]
    done = python(COMMANDS.format(extra=sorted(EXTRA), commands=commands))
    answers = map(json.loads, done.stdout.splitlines())
    for (command, (status, said)), answer in zip(expected.items(), answers, strict=True):
        assert answer[0] == status and said in answer[1], (command, answer)
        assert status == 0 or answer[1].count("\n") == 1, answer


@pytest.mark.parametrize("old", ["standing", "exact_gradient", "layer_distances", "layer_signals"])
def test_old_names_lead_to_new_ones_with_a_warning(old):
    with pytest.warns(DeprecationWarning, match=f"cappaper.{old} is now ") as caught:
        value = getattr(cappaper, old)
    assert str(caught[0].message).endswith(f".{value.__name__}") and callable(value)


def test_auto_attack_says_what_to_install(monkeypatch, twenty):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    net, x = cappaper.mlp(64, [4]), twenty.images
    with pytest.raises(ImportError, match=r'pip install "cappaper\[autoattack\]"'):
        cappaper.auto_attack(net, x, net(x).argmax(1), 1e-6, parts=["fab-t"])


def test_every_public_name_has_a_docstring_with_its_errors_and_an_example():
    for name in set(cappaper.__all__) - {"__version__"}:
        text = getattr(cappaper, name).__doc__
        assert text, name
        if callable(getattr(cappaper, name)) and name[0].islower():
            assert ">>>" in text, name


def test_every_pinned_package_takes_the_oldest_python():
    """Else pip looks for other versions for ever, on Debian 12 for example."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    pins = set((ROOT / "constraints.txt").read_text().split())
    found = {f"{canonicalize_name(d.name)}=={d.version}": d for d in metadata.distributions()}
    needs = {pin: found[pin].metadata["Requires-Python"] or "" for pin in pins & set(found)}
    if len(needs) < 100:
        pytest.skip("other versions than the pinned ones are installed")
    assert [pin for pin in needs if not SpecifierSet(needs[pin]).contains(oldest)] == []


def test_no_committed_file_has_a_path_of_a_machine():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    for name in files.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".ipynb", ".yml", ".csv", ".toml", ".txt", ""}:
            text = path.read_text()
            assert not re.search(r"(?<![\w.])/(?:home|root|Users|work)/\w", text), name
