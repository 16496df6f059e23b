"""Chapters of the book: listed in a manifest, run by papermill, and put into a book's folder."""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cappaper import checks
from cappaper.files import together, whole
from cappaper.paper.tables import read

MANIFEST = Path("notebooks/chapters.yml")
# Results that no chapter makes: benchmarks and trials.
_MEASURED = ("how-fast-", "how-it-is-tested.", "mutants.", "coverage.", "referee.", "doubled.")


class ChapterError(RuntimeError):
    """A notebook failed; the message names it, the cell and the error."""


@dataclass(frozen=True)
class Chapter:
    """A page of the book: a notebook with parameters, under a title of its own."""

    name: str
    source: str
    title: str
    parameters: dict[str, Any] = field(default_factory=dict)


def manifest(root: Path) -> list[Chapter]:
    """The chapters in the order of the book; a faulty manifest raises a ValueError."""
    path = root / MANIFEST
    if not path.exists():
        raise FileNotFoundError(f"there is no {MANIFEST} here: run from the project's folder")
    try:
        listed = [Chapter(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    except (TypeError, yaml.YAMLError) as error:
        wanted = "must be a list of chapters with name, source, title and perhaps parameters"
        raise ValueError(f"{MANIFEST} {wanted}: {' '.join(str(error).split())}") from error
    names = [chapter.name for chapter in listed]
    notebooks = {path.name for path in (root / "notebooks").glob("*.ipynb")}
    for chapter in listed:
        # Names become files, and names of parameters become code.
        if not re.fullmatch(r"\w[\w.-]*", f"{chapter.name}"):
            raise ValueError(f"{MANIFEST}: {chapter.name!r} is no name of letters, digits and -")
        for parameter in chapter.parameters:
            if not f"{parameter}".isidentifier():
                raise ValueError(f"{MANIFEST}: {parameter!r} of {chapter.name} is no name")
        if names.count(chapter.name) > 1:
            raise ValueError(f"{MANIFEST} has two chapters called {chapter.name}")
        if f"{chapter.source}.ipynb" not in notebooks:
            raise ValueError(f"{MANIFEST}: {chapter.name} needs notebooks/{chapter.source}.ipynb")
    return listed


def select(chapters: Sequence[Chapter], names: Sequence[str]) -> list[Chapter]:
    """The chapters of these names, or all of them if there is no name."""
    for name in names:
        checks.one_of(name, [chapter.name for chapter in chapters], "chapter")
    return [chapter for chapter in chapters if not names or chapter.name in names]


def longest_first(chapters: Sequence[Chapter], root: Path) -> list[Chapter]:
    """Chapters by the seconds in their committed tables, so that no long one is left to the end."""

    def seconds(chapter: Chapter) -> float:
        table = root / "book" / "results" / f"{chapter.name}.csv"
        return sum(read(table).get("seconds", ())) if table.exists() else 0.0

    return sorted(chapters, key=seconds, reverse=True)


def execute(chapter: Chapter, root: Path, book: Path, parameters: dict[str, Any]) -> Path:
    """Run a chapter's notebook; put ``chapters/NAME.ipynb`` and ``results/NAME.*`` into ``book``.

    ``parameters`` override the chapter's own. Where a cell fails, a ChapterError is raised, files
    of an earlier run stay, and the new notebook is ``NAME.partial.ipynb``.
    """
    import nbformat

    target = book / "chapters" / f"{chapter.name}.ipynb"
    notebook = nbformat.read(root / "notebooks" / f"{chapter.source}.ipynb", as_version=4)
    heading = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    heading.source = re.sub(r"\A# .*", lambda _: f"# {chapter.title}", heading.source)
    with whole(target) as unfinished, together(book / "results", chapter.name) as results:
        place = Path(os.path.relpath(results, root), chapter.name).as_posix()
        given = chapter.parameters | parameters | {"save_to": place}
        try:
            executed = _run(chapter.name, notebook, unfinished, root, given)
        except ChapterError as error:
            partial = target.with_suffix(".partial.ipynb")
            shutil.copy(unfinished, partial)
            raise ChapterError(f"{error}; the notebook so far is {partial}") from error
        # A page shows the parameters of its run on demand, and not the defaults.
        for cell in executed.cells:
            tags = cell.metadata.get("tags", [])
            if "injected-parameters" in tags:
                tags.append("hide-input")
                final = Path(os.path.relpath(book, root), "results", chapter.name).as_posix()
                cell.source = cell.source.replace(place, final)
            elif "parameters" in tags:
                tags.append("remove-cell")
        nbformat.write(executed, unfinished)
    return target


def refresh(source: Path) -> None:
    """Run a notebook with its own defaults and store the outputs in it, unless a cell fails."""
    import nbformat

    notebook = nbformat.read(source, as_version=4)
    with whole(source) as unfinished:
        nbformat.write(_run(source.stem, notebook, None, source.parent, {}), unfinished)


def _run(name: str, notebook: Any, out: Path | None, cwd: Path, parameters: dict[str, Any]) -> Any:
    """The executed notebook, cleaned; ``out`` holds it up to the cell that failed."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    # Progress bars are for a terminal; in a log they would be many lines.
    bars = sys.stderr if sys.stderr.isatty() else None
    # The kernel's own log repeats the errors that reach us as exceptions.
    given: dict[str, Any] = {"extra_arguments": ["--IPKernelApp.log_level=50"], "cwd": cwd}
    given |= {"progress_bar": False, "stderr_file": bars}
    try:
        executed = papermill.execute_notebook(notebook, out, parameters, **given)
    except papermill.PapermillExecutionError as error:
        where = f"{name} failed in cell [{error.exec_count}]"
        raise ChapterError(f"{where}: {error.ename}: {error.evalue}") from error
    except DeadKernelError as error:
        raise ChapterError(f"{name} failed: its kernel died, perhaps for want of memory") from error
    # Remove times, paths and progress, which differ from run to run.
    for part in (executed, *executed.cells):
        for key in ("papermill", "widgets", "execution"):
            part.metadata.pop(key, None)
    for cell in executed.cells:
        outputs = cell.get("outputs", [])
        for output in outputs:
            # Without its state a widget shows an error; the static page has a picture beside it.
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
        if errors := [output for output in outputs if output.get("name") == "stderr"]:
            text = "".join(output.text for output in errors)
            # As a terminal shows it: a progress bar returns to the start of its line, and ends.
            lines = (line.rpartition("\r")[2].rstrip() for line in text.split("\n"))
            errors[0].text = "".join(f"{line}\n" for line in lines if line)
            shown = [output for output in outputs if output not in errors]
            cell.outputs = shown + [output for output in errors[:1] if output.text]
    return executed


def stage(root: Path, folder: Path, announcement: str) -> None:
    """Copy the book without chapters and their results; put a line on top of every page."""
    leave = shutil.ignore_patterns("_build", "chapters", "results")
    shutil.copytree(root / "book", folder, ignore=leave, dirs_exist_ok=True)
    (folder / "results").mkdir(exist_ok=True)
    for path in (root / "book" / "results").iterdir():
        if path.name.startswith(_MEASURED):
            shutil.copy(path, folder / "results")
    path = folder / "_config.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["sphinx"]["config"]["html_theme_options"]["announcement"] = announcement
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
