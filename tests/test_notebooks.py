"""Parameters, outputs and imports of every notebook."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from cappaper import paper
from cappaper.paper import chapters
from tests.test_book import ROOT

CHECK = "paper.check_parameters"
SOURCES = sorted({chapter.source for chapter in chapters.manifest(ROOT)})


def tagged(notebook, tag):
    return [c for c in notebook.cells if tag in c.metadata.get("tags", [])]


def checked(parameters, **given):
    """Check the parameters of a cell, with others in their place as papermill puts them."""
    namespace: dict = {}
    exec(parameters, namespace)
    lines = "".join(f"{name} = {value!r}\n" for name, value in given.items())
    ran = ["", parameters, "# Parameters\n" + lines] if given else ["", parameters]
    paper.check_parameters(namespace | given | {"In": ran})


PARAMETERS = """
profile = "quick"
save_to = ""
betas = None
seeds = None
eps = 0.1
cycle = None
training_eps = [0.1, 0.3]
epochs = 30
reverse = False
parts = None
architectures = None
"""


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("reverse", "false", "must be true or false, got 'false': papermill's -p passes lists"),
        ("reverse", 0, "must be true or false, got 0"),
        ("betas", "[0.1, inf]", "a list of one or more values, each a number above 0, .inf for"),
        ("betas", ["5e-2", 0.1], "YAML reads 5e-2 and inf as text"),
        ("betas", [0.1, 0], "above 0"),
        ("betas", [math.inf], "must hold a cap, not ReLU (.inf) alone"),
        ("seeds", 3, "a list of one or more values, each a whole number, got 3"),
        ("seeds", [], "a list of one or more values, each a whole number, got []"),
        ("seeds", [0, True], "whole number"),
        ("eps", 8, "must be a number from 0 to 1, got 8"),
        ("eps", [0.1], "must be a number from 0 to 1, got [0.1]"),
        ("eps", math.nan, "must be a number from 0 to 1, got nan"),
        ("eps", None, "must be a number from 0 to 1, got None"),
        ("cycle", "half", "must be a number from 0 to 1, got 'half'"),
        ("training_eps", 0.1, "a list of one or more values, each a number from 0 to 1"),
        ("epochs", 2.5, "must be a whole number of at least 1, got 2.5"),
        ("parts", "square", "each one of apgd-ce"),
        ("architectures", [[64, 0]], "each a list of counts"),
        ("profile", "huge", "must be one of quick, paper, got 'huge'"),
        ("bettas", [0.1], "unknown parameter 'bettas': use one of"),
    ],
)
def test_a_wrong_parameter_gets_a_sentence(name, value, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        checked(PARAMETERS, **{name: value})


def test_right_parameters_pass():
    right = {"betas": [0.1, math.inf], "seeds": [3], "reverse": True, "cycle": None, "eps": 0}
    checked(PARAMETERS, **right, training_eps=(0.2,), parts=["square"], architectures=[[8], [4, 2]])
    paper.check_parameters({"eps": "not a notebook's"})


@pytest.fixture(params=SOURCES)
def notebook(request):
    read = nbformat.read(ROOT / "notebooks" / f"{request.param}.ipynb", as_version=4)
    read.code = [c for c in read.cells if c.cell_type == "code"]
    read.source = request.param
    return read


def test_a_notebook_has_parameters_and_outputs(notebook):
    (parameters,) = tagged(notebook, "parameters")
    for name in ("profile", "device", "jobs", "save_to"):
        assert f"\n{name} = " in f"\n{parameters.source}"
    first = notebook.code[notebook.code.index(parameters) + 1].source
    assert re.search(r"paper\.\w+", re.sub("^(import|from) .*$", "", first, flags=re.M))[0] == CHECK
    checked(parameters.source)
    assert notebook.cells[0].source.startswith("# ")
    assert "papermill" not in notebook.metadata and "widgets" not in notebook.metadata
    assert "widget-view" not in json.dumps(notebook)  # a view without a state shows an error
    ignored = tagged(notebook, "nbval-ignore-output")
    compared = [c for c in notebook.code if c not in ignored]
    assert any(c.outputs for c in compared), "nbval would compare nothing"
    assert not any(o.output_type == "error" for c in compared for o in c.outputs)
    for cell in compared:  # progress goes to standard error, which nbval would compare
        assert not re.search(r"paper\.(run|networks|transfers)\(", cell.source), cell.source
    assert not any(o.get("name") == "stderr" for c in notebook.code for o in c.outputs)


def test_a_notebook_imports_public_names_alone(notebook):
    code = "\n".join(c.source for c in notebook.code)
    for line in re.findall(r"^.*import.*cappaper.*$|^from cappaper.*$", code, re.MULTILINE):
        assert re.match(r"from cappaper import |import cappaper$", line), line
    for name in re.findall(r"\bpaper\.(\w+)", code):
        assert name in paper.__all__, name


def test_a_notebook_glues_only_numbers_that_other_pages_show(notebook):
    text = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    assert not any("{glue:" in t for t in text), "JupyterLab would show the role, not the number"
    mine = [c.name for c in chapters.manifest(ROOT) if c.source == notebook.source]
    pages = "".join(page.read_text() for page in (ROOT / "book").glob("*.md"))
    taken = re.findall(rf"chapters/(?:{'|'.join(mine)})\.ipynb::(\w+)", pages)
    outputs = [o for c in notebook.code for o in c.outputs]
    named = [o.get("metadata", {}).get("scrapbook", {}).get("name") for o in outputs]
    assert {name for name in named if name} == set(taken)


@pytest.mark.parametrize("name", ["start-here", "explore", "template"])
def test_a_notebook_that_is_no_chapter_shows_what_it_does(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
    assert outputs and not any(o.output_type == "error" for o in outputs)
    assert "widget-view" not in json.dumps(notebook)
    assert any(name in (ROOT / page).read_text() for page in ("README.md", "CONTRIBUTING.md"))


def test_nbval_compares_by_the_same_rules_from_any_folder(pytestconfig):
    rules = Path(pytestconfig.option.nbval_sanitize_with)
    assert rules.is_absolute() and "replace: NUMBER" in rules.read_text()


def test_a_notebook_runs_without_our_command_line(tmp_path):
    """As the README says: papermill alone, from anywhere."""
    papermill = Path(sys.executable).with_name("papermill")
    out = tmp_path / "out.ipynb"
    small = ["-p", "epochs", "1", "-y", "{betas: [0.1, .inf], seeds: [0], epsilons: [0.1]}"]
    source = ROOT / "notebooks" / "rates-over-beta.ipynb"
    command = [papermill, source, out, *small, "-p", "reverse", "True"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs = [o for c in nbformat.read(out, 4).cells for o in c.get("outputs", [])]
    # One print may arrive in several pieces.
    printed = "".join(o.text for o in outputs if "text" in o)
    assert "2 networks of (64, 128): 2 max values,\n" in printed
