"""Chapters of the book: listed in a manifest, executed by papermill, put into a book's folder."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MANIFEST = Path("notebooks/chapters.yml")


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
    """
    path = root / MANIFEST
    if not path.exists():
        raise FileNotFoundError(f"there is no {MANIFEST} here: run from the project's folder")
    return [Chapter(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]


def select(chapters: Sequence[Chapter], names: Sequence[str]) -> list[Chapter]:
    """The chapters of these names, or all of them if there is no name."""
    known = {chapter.name: chapter for chapter in chapters}
    for name in names:
        if name not in known:
            raise ValueError(f"unknown chapter {name!r}: use one of {', '.join(known)}")
    return [chapter for chapter in chapters if not names or chapter.name in names]


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
    partial = target.with_suffix(".partial.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(root / "notebooks" / f"{chapter.source}.ipynb", as_version=4)
    _set_title(notebook, chapter.title)
    results = Path(os.path.relpath(book, root)) / "results" / chapter.name
    given = chapter.parameters | parameters | {"save_to": results.as_posix()}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{chapter.name}.ipynb"
        nbformat.write(notebook, source)
        try:
            executed = _run(source, partial, root, given)
        except ChapterError as error:
            raise ChapterError(f"{error}; the notebook so far is {partial}") from error
    _fold_parameters(executed)
    nbformat.write(executed, target)
    partial.unlink()
    return target


def refresh(source: Path) -> None:
    """Run a notebook of ``notebooks/`` with its own defaults and store its outputs in it.

    Raises:
        ChapterError: a cell failed. The notebook is as it was.
    """
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        executed = _run(source, Path(folder) / source.name, source.parent)
    written = source.with_suffix(".new")
    nbformat.write(executed, written)
    written.replace(source)


def _run(source: Path, target: Path, cwd: Path, parameters: dict[str, Any] | None = None) -> Any:
    """The executed notebook, cleaned; ``target`` has it as far as it came."""
    import papermill

    try:
        executed = papermill.execute_notebook(
            source,
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
            f"{source.stem} failed in cell [{error.exec_count}]: {error.ename}: {error.evalue}"
        ) from error
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


def _fold_parameters(notebook: Any) -> None:
    """A page shows the parameters it was run with, on demand, and not the defaults they replace."""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            tags.append("hide-input")
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
    chapter makes, the benchmarks, comes along.
    """
    leave = shutil.ignore_patterns("_build", "chapters", "results")
    shutil.copytree(root / "book", folder, ignore=leave, dirs_exist_ok=True)
    (folder / "results").mkdir(exist_ok=True)
    for measured in (root / "book" / "results").glob("how-fast-*"):
        shutil.copy(measured, folder / "results")
    path = folder / "_config.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["sphinx"]["config"]["html_theme_options"]["announcement"] = announcement
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
