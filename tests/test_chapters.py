"""From a notebook to a page: manifest, papermill, command line, and their errors."""

import io
import json
import re
import shutil
import subprocess
import sys
import tomllib

import nbformat
import pytest
import yaml

from cappaper.paper import chapters, cli
from tests.conftest import ROOT
from tests.test_notebooks import tagged
from tests.trust.project import make


def edit(project, before, after):
    notebook = project / "notebooks" / "small.ipynb"
    notebook.write_text(notebook.read_text().replace(before, after))


def test_the_manifest_and_the_table_of_contents_agree():
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    files = [entry["file"] for part in toc["parts"] for entry in part["chapters"]]
    texts = [path.read_text() for path in (ROOT / "book").glob("*.md")]
    for chapter in chapters.manifest(ROOT):  # the pages of some are reached from one that sums up
        page = f"chapters/{chapter.name}"
        linked = any(f"The whole run: {{doc}}`{page}`" in text for text in texts)
        assert (page in files) != linked, page
    assert len(files) + 1 <= 24


def test_both_configurations_of_the_book_are_one():
    """No link: a checkout may be without links."""
    copies = [ROOT / "_config.yml", ROOT / "book" / "_config.yml"]
    assert len({copy.read_text() for copy in copies}) == 1, "cp _config.yml book/"
    assert not any(copy.is_symlink() for copy in copies)


def test_a_chapter_gets_its_title_and_parameters(project, capfd):
    assert cli.main(["reproduce", "--only", "works", "--device", "cpu"]) == 0
    notebook = nbformat.read(project / "build/quick/chapters/works.ipynb", 4)
    assert notebook.cells[0].source == "# It works\n\nText."
    assert "".join(output.text for output in notebook.cells[-1].outputs) == "quick cpu 1\n"
    (parameters,) = tagged(notebook, "injected-parameters")
    assert parameters.metadata.tags == ["injected-parameters", "hide-input"]
    assert str(project) not in json.dumps(notebook)
    out, errors = capfd.readouterr()
    assert "[1/1] works: It works" in out and "fails did not run yet" in out
    assert out.count("\n") == 3 and "%|" not in errors and "\r" not in errors  # no bar


@pytest.mark.parametrize(
    ("jobs", "failure", "message"),
    [
        ("1", "import os; breaks and os._exit(9)  #", ": its kernel died, perhaps out of memory"),
        ("2", "assert not breaks", " in cell [3]: AssertionError: on purpose"),
    ],
)
def test_a_failing_chapter_is_named_and_the_others_run(project, capsys, jobs, failure, message):
    edit(project, "assert not breaks", failure)
    listed = project / "notebooks" / "chapters.yml"
    listed.write_text(yaml.safe_dump(yaml.safe_load(listed.read_text())[::-1]))  # it fails first
    assert cli.main(["reproduce", "--jobs", jobs]) == 1
    errors = capsys.readouterr().err
    assert f"fails failed{message}" in errors and "Traceback" not in errors
    pages = project / "build" / "quick" / "chapters"
    assert (pages / "works.ipynb").exists() and (pages / "fails.partial.ipynb").exists()
    assert not (pages / "fails.ipynb").exists()


def test_page_and_figure_are_those_of_one_run(tmp_path):
    code = "open(f'{save_to}.svg', 'w').write(text); assert not breaks"
    listed = [{"name": "one", "source": "small", "title": "One"}]
    make(tmp_path, code, listed, more="breaks = False\ntext = ''")
    (chapter,), book = chapters.manifest(tmp_path), tmp_path / "build"
    (book / "chapters").mkdir(parents=True)
    page = chapters.execute(chapter, tmp_path, book, {"text": "old"})
    before, figure = page.read_text(), book / "results" / "one.svg"
    assert 'save_to = "build/results/one"' in nbformat.read(page, 4).cells[2].source
    with pytest.raises(chapters.ChapterError):
        chapters.execute(chapter, tmp_path, book, {"text": "new", "breaks": True})
    assert figure.read_text() == "old" and page.read_text() == before
    assert [path.name for path in figure.parent.iterdir()] == ["one.svg"]


def test_the_quick_profile_leaves_the_committed_book_alone(project):
    def state():
        return {p: p.stat().st_mtime_ns for p in (project / "book").rglob("*") if p.is_file()}

    before = state()
    cli.main(["reproduce", "--only", "works"])
    assert state() == before
    config = yaml.safe_load((project / "build/quick/_config.yml").read_text())
    assert "Quick profile" in config["sphinx"]["config"]["html_theme_options"]["announcement"]
    # No table or figure of the paper profile is there, but those that no chapter makes are.
    kept = {path.name.partition(".")[0] for path in (project / "build/quick/results").iterdir()}
    single = {"how-it-is-tested", "coverage", "mutants", "referee", "doubled", "attack"}
    assert {name for name in kept if not name.startswith("how-fast-")} <= single


def test_a_staged_book_has_every_file_that_its_pages_show(tmp_path):
    chapters.stage(ROOT, tmp_path)
    for chapter in chapters.manifest(ROOT):
        for made in (ROOT / "book" / "results").glob(f"{chapter.name}.*"):
            shutil.copy(made, tmp_path / "results")
    chapters.write(tmp_path)
    pages = "".join(page.read_text() for page in tmp_path.glob("*.md"))
    shown = re.findall(r"\(?\b(results/[\w./-]+\.\w+)", pages)
    assert "results/how-fast-cpu.md" in shown and "results/headline.svg" in shown
    assert [name for name in shown if not (tmp_path / name).exists()] == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["reproduce", "--only", "fig-99"], 1, "unknown chapter 'fig-99': use one of works, fails"),
        (["reproduce", "--device", "cuda"], 1, "torch sees no CUDA device"),
        (["reproduce", "--profile", "huge"], 2, "'huge' is not one of 'quick', 'paper'"),
        (["reproduce", "--jobs", "0"], 2, "'--jobs': 0 is not in the range x>=1"),
        (["reprodcue"], 2, "No such command 'reprodcue'"),
    ],
)
def test_bad_input_gets_a_sentence(project, capsys, monkeypatch, arguments, status, message):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(arguments) == status
    errors = capsys.readouterr().err
    assert message in errors and (status == 2 or errors.count("\n") == 1)


def calls_of(monkeypatch, *arguments):
    """What ``cappaper reproduce`` would run, and in how many processes at once."""
    calls = []
    monkeypatch.setattr(chapters, "side_by_side", lambda *given: calls.append(given[1:]) or [])
    assert cli.main(["reproduce", "--no-build", *arguments]) == 0
    return calls[0]


@pytest.mark.parametrize(
    "only", [["--only", "works", "--only", "fails"], ["--only", "fails,works"], []]
)
def test_several_chapters_are_named_by_repetition_or_with_commas(project, monkeypatch, only):
    calls, _ = calls_of(monkeypatch, *only)
    assert [call[0].name for call in calls] == ["works", "fails"]


@pytest.mark.parametrize(("profile", "at_once", "within"), [("quick", 3, 1), ("paper", 1, 3)])
def test_processes_go_to_chapters_or_into_one(project, monkeypatch, profile, at_once, within):
    given = ["--profile", profile, "--device", "cpu", "--jobs", "3", "--only", "works"]
    calls, jobs = calls_of(monkeypatch, *given)
    assert jobs == at_once and calls[0][3]["jobs"] == within


def test_a_broken_refresh_leaves_the_notebook_alone(project, capsys):
    source = project / "notebooks" / "small.ipynb"
    edit(project, "assert not breaks, 'on purpose'", "raise OSError('on purpose')")
    before = source.read_bytes()
    assert cli.main(["refresh", "smal"]) == 1 and "use one of small" in capsys.readouterr().err
    assert cli.main(["refresh"]) == 1
    assert "small failed in cell [2]: OSError: on purpose" in capsys.readouterr().err
    assert source.read_bytes() == before
    assert sorted(p.name for p in source.parent.iterdir()) == ["chapters.yml", "small.ipynb"]


PROGRESS = """import sys
from tqdm import tqdm
print("a result")
list(tqdm(range(5), desc="long step", leave=False, file=sys.stderr, mininterval=0))
print("a warning", file=sys.stderr)"""


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_reaches_a_terminal_and_no_page(project, monkeypatch, terminal):
    source, stream = project / "notebooks" / "small.ipynb", io.StringIO()
    stream.isatty = lambda: terminal
    edit(project, "assert not breaks, 'on purpose'", json.dumps(PROGRESS)[1:-1])
    monkeypatch.setattr(sys, "stderr", stream)
    chapters.refresh(source)
    printed = [(o.name, o.text) for o in nbformat.read(source, 4).cells[-1].outputs]
    assert printed[1:] == [("stderr", "a warning\n")] and printed[0][1].endswith("a result\n")
    assert ("long step" in stream.getvalue()) is terminal


@pytest.mark.skipif(shutil.which("make") is None, reason="make is absent")
@pytest.mark.parametrize("target", ["reproduce", "test", "book", "lab"])
def test_make_has_the_targets_of_the_readme(target):
    assert f"make {target}" in (ROOT / "README.md").read_text()
    assert subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True).returncode == 0


def test_the_contracts_name_every_module_to_take_home():
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    named = set(linter["contracts"][0]["source_modules"])
    there = {f"cappaper.{path.stem}" for path in (ROOT / "cappaper").glob("[a-z]*")}
    assert named == there - {f"cappaper.{name}" for name in ("paper", "py", "weights", "images")}


def test_conda_users_get_the_versions_of_make():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda[-1] == {"pip": ["-c constraints.txt", "-e .[dev]"]}
