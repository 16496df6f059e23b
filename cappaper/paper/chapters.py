"""Chapters of the book: listed in a manifest, executed by papermill, put into a book's folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cappaper.paper.progress import STATUS_FILE

MANIFEST = Path("notebooks/chapters.yml")

# A kernel's own log would cut through the progress lines; its errors reach us as exceptions.
_QUIETLY = {"progress_bar": False, "extra_arguments": ["--IPKernelApp.log_level=50"]}


class ChapterError(Exception):
    """A chapter's notebook failed; the message names chapter, cell and error."""


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


def execute(
    chapter: Chapter,
    root: Path,
    book: Path,
    parameters: dict[str, Any],
    show: Callable[[str], None] = lambda line: None,
) -> Path:
    """Run one chapter's notebook and put it, its table and its figure into a book's folder.

    Args:
        chapter: what to run.
        root: the project's folder; the notebook runs there.
        book: gets ``chapters/NAME.ipynb`` and ``results/NAME.*``.
        parameters: on top of the chapter's own: ``profile``, ``device``.
        show: called now and then with a line about where the work stands.

    Raises:
        ChapterError: a cell failed. The notebook as far as it came lies beside the chapter as
            ``NAME.partial.ipynb``; a chapter that was there before is left alone.
    """
    import nbformat
    import papermill

    target = book / "chapters" / f"{chapter.name}.ipynb"
    partial = target.with_suffix(".partial.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(root / "notebooks" / f"{chapter.source}.ipynb", as_version=4)
    _set_title(notebook, chapter.title)
    with tempfile.TemporaryDirectory() as folder, _status(show) as status:
        source = Path(folder) / f"{chapter.name}.ipynb"
        nbformat.write(notebook, source)
        results = Path(os.path.relpath(book, root)) / "results" / chapter.name
        given = chapter.parameters | parameters | {"save_to": results.as_posix()}
        try:
            with _environment(STATUS_FILE, str(status)):
                papermill.execute_notebook(source, partial, given, cwd=root, **_QUIETLY)
        except papermill.PapermillExecutionError as error:
            raise ChapterError(
                f"chapter {chapter.name} failed in cell [{error.exec_count}]:"
                f" {error.ename}: {error.evalue}; the notebook so far is {partial}"
            ) from error
    executed = nbformat.read(partial, as_version=4)
    clean(executed)
    _fold_parameters(executed)
    nbformat.write(executed, target)
    partial.unlink()
    return target


def refresh(source: Path) -> None:
    """Run a notebook of ``notebooks/`` with its own defaults and store its outputs in it."""
    import nbformat
    import papermill

    papermill.execute_notebook(source, source, cwd=source.parent, **_QUIETLY)
    notebook = nbformat.read(source, as_version=4)
    clean(notebook)
    nbformat.write(notebook, source)


def clean(notebook: Any) -> None:
    """Drop what differs from run to run and tells a reader nothing: times, paths, widget states."""
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        for output in cell.get("outputs", []):
            # Without its state a widget shows an error; the static page beside it shows itself.
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


def _fold_parameters(notebook: Any) -> None:
    """A page shows the parameters it was run with, on demand, and not the defaults they replace."""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            tags.append("hide-input")
        elif "parameters" in tags:
            tags.append("remove-cell")


def stage(root: Path, folder: Path, announcement: str) -> None:
    """Copy the book's own pages to ``folder``, with a line on top of every page.

    Committed chapters and results stay behind; those in ``folder`` already are kept.
    """
    leave = shutil.ignore_patterns("_build", "chapters", "results")
    shutil.copytree(root / "book", folder, ignore=leave, dirs_exist_ok=True)
    path = folder / "_config.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["sphinx"]["config"]["html_theme_options"]["announcement"] = announcement
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")


def _set_title(notebook: Any, title: str) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\A# .*", lambda _: f"# {title}", cell.source)
            return


@contextmanager
def _status(show: Callable[[str], None]) -> Iterator[Path]:
    """A file for the kernel's progress lines, and a thread that passes each on to ``show``."""
    with tempfile.TemporaryDirectory() as folder:
        path, over = Path(folder) / "status", threading.Event()
        path.touch()

        def watch() -> None:
            seen = ""
            while not over.wait(0.5):
                line = path.read_text()
                if line and line != seen:
                    show(line)
                    seen = line

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            over.set()
            thread.join()


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
