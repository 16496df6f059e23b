"""What to take home needs nothing of the book, and its public names are documented."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cappaper

ROOT = Path(__file__).parents[1]
PACKAGE = Path(cappaper.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)
HOME = [m for m in MODULES if not m.startswith("cappaper.paper") and not m.endswith("__main__")]
BOOK = ["pandas", "joblib", "matplotlib", "papermill", "click", "tqdm", "yaml", "IPython"]
EXTRA = {"matplotlib", "papermill", "IPython", "grimp", "ipywidgets", "pyautoattack"}


def python(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_what_to_take_home_needs_nothing_of_the_book():
    blocked = {*BOOK, "ipywidgets", "pyautoattack", "cappaper.paper"}
    code = (
        f"import importlib, sys\nsys.modules.update(dict.fromkeys({sorted(blocked)!r}))\n"
        f"for module in {HOME!r}: importlib.import_module(module)"
    )
    done = python(code)
    assert len(HOME) > 15 and done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cappaper", {*BOOK, *EXTRA, "torchvision", "sklearn", "torch._dynamo"}),
        ("cappaper.paper", {*BOOK, "jupyter_book", "sphinx", "myst_nb", "torch._dynamo"}),
    ],
)
def test_an_import_stays_light(module, heavy):
    heavy -= {"tqdm"}  # it comes with torch, where it is installed
    done = python(f"import sys, {module}; print(sorted({heavy!r} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


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
        "claims": (0, "1. Perturbations grow"),
        "data digits mnist-sample": (0, "1000 images of 28×28"),
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


@pytest.mark.parametrize("old", ["standing", "layer_distances"])
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
