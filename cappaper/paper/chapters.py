"""Chapters of the book: listed in a manifest, executed by papermill, put into a book's folder."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cappaper.files import together, whole
from cappaper.paper.tables import read

MANIFEST = Path("notebooks/chapters.yml")
_MEASURED = (
    "how-fast-*",
    *("how-it-is-tested.*", "mutants.*", "coverage.*", "referee.*", "doubled.*"),
)


class ChapterError(Exception):
    """A notebook failed; the message names it, the cell and the error."""


@dataclass(frozen=True)
class Chapter:
    """A page of the book: a notebook with parameters, under a title of its own."""

    name: str
    source: str
    title: str
    parameters: dict[str, Any] = field(default_factory=dict)


def manifest(root: Path) -> list[Chapter]:
    """The chapters in the order of the book.

    Raises:
        FileNotFoundError: ``root`` is not the project's folder.
        ValueError: the manifest is no list of chapters, each with a name of its own.
    """
    path = root / MANIFEST
    if not path.exists():
        raise FileNotFoundError(f"there is no {MANIFEST} here: run from the project's folder")
    try:
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{MANIFEST} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"{MANIFEST} must be a list of chapters")
    found: dict[str, Chapter] = {}
    for entry in listed:
        try:
            chapter = Chapter(**entry)
        except TypeError as error:
            wanted = "name, source and title, and parameters if it has any"
            raise ValueError(f"{MANIFEST}: a chapter has {wanted}, got {entry!r}") from error
        if chapter.name in found:
            raise ValueError(f"{MANIFEST} has two chapters called {chapter.name}")
        if not (root / "notebooks" / f"{chapter.source}.ipynb").is_file():
            raise ValueError(f"{MANIFEST}: {chapter.name} needs notebooks/{chapter.source}.ipynb")
        found[chapter.name] = chapter
    return list(found.values())


def select(chapters: Sequence[Chapter], names: Sequence[str]) -> list[Chapter]:
    """The chapters of these names, or all of them if there is no name."""
    known = {chapter.name: chapter for chapter in chapters}
    for name in names:
        if name not in known:
            raise ValueError(f"unknown chapter {name!r}: use one of {', '.join(known)}")
    return [chapter for chapter in chapters if not names or chapter.name in names]


def longest_first(chapters: Sequence[Chapter], root: Path) -> list[Chapter]:
    """Chapters as to begin them side by side, so that no long one is alone at the end.

    How long they take is what their committed tables say: on MNIST, but long is long.
    """

    def seconds(chapter: Chapter) -> float:
        table = root / "book" / "results" / f"{chapter.name}.csv"
        return sum(read(table).get("seconds", ())) if table.exists() else 0.0

    return sorted(chapters, key=seconds, reverse=True)


def execute(chapter: Chapter, root: Path, book: Path, parameters: dict[str, Any]) -> Path:
    """Run a chapter's notebook in the project's folder; put it, its table and figure into a book's.

    ``book`` gets ``chapters/NAME.ipynb`` and ``results/NAME.*``. ``parameters`` (``profile``,
    ``device``, ``jobs``) come on top of the chapter's own.

    Raises:
        ChapterError: a cell failed. The notebook as far as it came lies beside the chapter as
            ``NAME.partial.ipynb``; a chapter that was there before is left alone.
    """
    import nbformat

    target = book / "chapters" / f"{chapter.name}.ipynb"
    notebook = nbformat.read(root / "notebooks" / f"{chapter.source}.ipynb", as_version=4)
    _set_title(notebook, chapter.title)
    # Table and figure take the old ones' places at once, and with the page.
    with whole(target) as unfinished, together(book / "results", chapter.name) as made:
        place = (Path(os.path.relpath(made, root)) / chapter.name).as_posix()
        given = chapter.parameters | parameters | {"save_to": place}
        try:
            executed = _run(chapter.name, notebook, unfinished, root, given)
        except ChapterError as error:
            partial = target.with_suffix(".partial.ipynb")
            shutil.copy(unfinished, partial)
            raise ChapterError(f"{error}; the notebook so far is {partial}") from error
        results = Path(os.path.relpath(book, root)) / "results" / chapter.name
        _fold_parameters(executed, place, results.as_posix())
        nbformat.write(executed, unfinished)
    return target


def refresh(source: Path) -> None:
    """Run a notebook of ``notebooks/`` with its own defaults and store its outputs in it.

    Raises:
        ChapterError: a cell failed. The notebook is as it was.
    """
    import nbformat

    notebook = nbformat.read(source, as_version=4)
    executed = _run(source.stem, notebook, None, source.parent)
    with whole(source) as unfinished:
        nbformat.write(executed, unfinished)


def _run(
    name: str,
    notebook: Any,
    target: Path | None,
    cwd: Path,
    parameters: dict[str, Any] | None = None,
) -> Any:
    """The executed notebook, cleaned; ``target`` has it as far as it came."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    try:
        executed = papermill.execute_notebook(
            notebook,
            target,
            parameters,
            cwd=cwd,
            progress_bar=False,
            # The bars of the long steps; in a log they would be many lines.
            stderr_file=sys.stderr if sys.stderr.isatty() else None,
            # A kernel's own log says nothing new: its errors reach us as exceptions.
            extra_arguments=["--IPKernelApp.log_level=50"],
        )
    except papermill.PapermillExecutionError as error:
        raise ChapterError(
            f"{name} failed in cell [{error.exec_count}]: {error.ename}: {error.evalue}"
        ) from error
    except DeadKernelError as error:
        raise ChapterError(f"{name} failed: its kernel died, perhaps for want of memory") from error
    clean(executed)
    return executed


def clean(notebook: Any) -> None:
    """Drop what differs from run to run and tells a reader nothing: times, paths, progress."""
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        outputs = cell.get("outputs", [])
        for output in outputs:
            # Without its state a widget shows an error; the static page beside it shows itself.
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
        said = [output for output in outputs if output.get("name") == "stderr"]
        if said:
            said[0].text = _as_shown("".join(output.text for output in said))
            cell.outputs = [o for o in outputs if o not in said] + [o for o in said[:1] if o.text]


def _as_shown(text: str) -> str:
    """What a terminal would still show: progress bars return to the line's start, and go."""
    lines = (line.rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return "".join(f"{line}\n" for line in lines if line)


def _fold_parameters(notebook: Any, place: str, results: str) -> None:
    """A page shows the parameters it was run with, on demand, and not the defaults they replace.

    Table and figure were made in one ``place``, and lie in another.
    """
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            tags.append("hide-input")
            cell.source = cell.source.replace(place, results)
        elif "parameters" in tags:
            tags.append("remove-cell")


def _set_title(notebook: Any, title: str) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\A# .*", lambda _: f"# {title}", cell.source)
            return


def stage(root: Path, folder: Path, announcement: str) -> None:
    """Copy the book's own pages to ``folder``, with a line on top of every page.

    Committed chapters and their results stay behind; those in ``folder`` already are kept. What no
    chapter makes, benchmarks and trials, comes along.
    """
    leave = shutil.ignore_patterns("_build", "chapters", "results")
    shutil.copytree(root / "book", folder, ignore=leave, dirs_exist_ok=True)
    (folder / "results").mkdir(exist_ok=True)
    results = root / "book" / "results"
    for measured in _MEASURED:
        for path in results.glob(measured):
            shutil.copy(path, folder / "results")
    path = folder / "_config.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["sphinx"]["config"]["html_theme_options"]["announcement"] = announcement
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
