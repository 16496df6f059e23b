"""Chapters of the book: listed in a manifest, run by papermill, and put into a book's folder."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import yaml
from filelock import FileLock, Timeout

from cappaper import checks
from cappaper.files import atomic, atomic_folder
from cappaper.paper import figures, ledger, tables
from cappaper.paper.machines import Machine, side_by_side

MANIFEST = Path("notebooks/chapters.yml")
# Results that no chapter makes: benchmarks, trials, and the animation.
_NO_CHAPTER = re.compile(r"how-fast-|(attack|coverage|doubled|how-it-is-tested|mutants|referee)\.")
_QUICK = (
    "Quick profile: the figures and numbers of all chapters come from small networks on"
    " 8×8 digits, not from MNIST. The text was written for MNIST."
)


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
    """The chapters in the order in which they run; a faulty manifest raises a ValueError."""
    path = root / MANIFEST
    if not path.exists():
        raise FileNotFoundError(f"there is no {MANIFEST} here: run from the project's folder")
    listed = [Chapter(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    names = [chapter.name for chapter in listed]
    for name, source, given in ((c.name, c.source, c.parameters) for c in listed):
        # Names become files, and names of parameters become code.
        words = [re.fullmatch(r"\w[\w.-]*", f"{word}") for word in (name, source)]
        if not all(words) or not all(f"{parameter}".isidentifier() for parameter in given):
            raise ValueError(f"{MANIFEST}: {name!r}, its source or a parameter of it is not a name")
        if names.count(name) > 1:
            raise ValueError(f"{MANIFEST} has two chapters called {name}")
        if not (root / "notebooks" / f"{source}.ipynb").exists():
            raise ValueError(f"{MANIFEST}: {name} needs notebooks/{source}.ipynb")
    return listed


def reproduce(profile: str, names: Sequence[str], here: Machine, build: bool) -> None:
    """Run the chapters of these names, or all of them, and build the book."""
    root, paper = Path.cwd(), profile == "paper"
    listed = manifest(root)
    for name in names:
        checks.one_of(name, [chapter.name for chapter in listed], "chapter")
    chosen = [chapter for chapter in listed if not names or chapter.name in names]
    # Only the paper profile may change the committed book.
    book = root / "book" if paper else root / "build" / "quick"
    # Digits train in less time than a process starts: quick chapters share the cores instead.
    at_once, within = (1, here.jobs) if paper else (here.jobs, 1)
    with _lock(book):
        for left_over in list(book.rglob("*.partial")):  # of a run that was killed
            shutil.rmtree(left_over, ignore_errors=True)  # gone if it lay in another
        if not paper:
            if not names:
                shutil.rmtree(book, ignore_errors=True)
            stage(root, book)
        print(f"{len(chosen)} chapters, profile {profile}, on {here}", flush=True)
        parameters = {"profile": profile, "device": here.device, "jobs": within}
        labels = [f"[{i}/{len(chosen)}] {one.name}" for i, one in enumerate(chosen, 1)]
        calls = [(c, root, book, parameters, n) for c, n in zip(chosen, labels, strict=True)]
        if failed := [error for _, error in side_by_side(_attempt, calls, at_once) if error]:
            raise ChapterError("; ".join(failed))
        missing = [c.name for c in listed if not (book / "chapters" / f"{c.name}.ipynb").exists()]
        if missing:
            print(f"The book is not built: {', '.join(missing)} did not run yet.")
            return
        write(book)
        if build:
            _build(book)


def write(book: Path) -> None:
    """Write what a book makes of its tables: the ledger, its pages, and the headline."""
    ledger.write(book)
    table = tables.read(book / "results" / "how-robust.csv")
    figures.save(figures.headline(table), str(book / "results" / "headline"))


def stage(root: Path, folder: Path) -> None:
    """Copy the book without chapters and their results, under a banner that says it is quick."""
    leave = shutil.ignore_patterns("_build", "chapters", "results")
    shutil.copytree(root / "book", folder, ignore=leave, dirs_exist_ok=True)
    (folder / "results").mkdir(exist_ok=True)
    for path in (root / "book" / "results").iterdir():
        if _NO_CHAPTER.match(path.name):
            shutil.copy(path, folder / "results")
    path = folder / "_config.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["sphinx"]["config"]["html_theme_options"]["announcement"] = _QUICK
    path.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")


def _lock(book: Path) -> AbstractContextManager[Any]:
    """Only one run at a time writes to a book; a second one waits."""
    lock = FileLock(Path.cwd() / "build" / f"{book.name}.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(f"waiting for another run that writes to {book.relative_to(Path.cwd())}", flush=True)
        return lock.acquire()


def _attempt(
    chapter: Chapter, root: Path, book: Path, parameters: dict[str, Any], label: str
) -> str:
    """Run one chapter; its error is returned, so that the others still run."""
    start, failure = time.monotonic(), ""
    try:
        execute(chapter, root, book, parameters)
    except ChapterError as error:
        failure = str(error)
    end = "failed" if failure else f"{chapter.title}, {time.monotonic() - start:.0f} s"
    print(f"{label}: {end}", flush=True)
    return failure


def execute(chapter: Chapter, root: Path, book: Path, parameters: dict[str, Any]) -> Path:
    """Run a chapter's notebook; put ``chapters/NAME.ipynb`` and ``results/NAME.*`` into ``book``.

    ``parameters`` override the chapter's own. Where a cell fails, a ChapterError is raised, files
    of an earlier run stay, and the new notebook is ``NAME.partial.ipynb``.
    """
    target = book / "chapters" / f"{chapter.name}.ipynb"
    notebook = nbformat.read(root / "notebooks" / f"{chapter.source}.ipynb", as_version=4)
    heading = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    heading.source = re.sub(r"\A# .*", lambda _: f"# {chapter.title}", heading.source)
    with atomic(target) as unfinished, atomic_folder(book / "results") as results:
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
    notebook = nbformat.read(source, as_version=4)
    with atomic(source) as unfinished:
        nbformat.write(_run(source.stem, notebook, None, source.parent, {}), unfinished)


def _run(name: str, notebook: Any, out: Path | None, cwd: Path, parameters: dict[str, Any]) -> Any:
    """The executed notebook, cleaned; ``out`` holds it up to the cell that failed."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    # Progress bars are for a terminal; in a log they would be many lines.
    bars = sys.stderr if sys.stderr.isatty() else None
    # The kernel's own log repeats the errors that reach us as exceptions.
    given: dict[str, Any] = {"extra_arguments": ["--IPKernelApp.log_level=50"], "cwd": cwd}
    given |= {"progress_bar": False, "stderr_file": bars, "coalesce_streams": True}
    try:
        executed = papermill.execute_notebook(notebook, out, parameters, **given)
    except papermill.PapermillExecutionError as error:
        where = f"{name} failed in cell [{error.exec_count}]"
        raise ChapterError(f"{where}: {error.ename}: {error.evalue}") from error
    except DeadKernelError as error:
        raise ChapterError(f"{name} failed: its kernel died, perhaps out of memory") from error
    # Remove times, paths and progress, which differ from run to run.
    for part in (executed, *executed.cells):
        for key in ("papermill", "widgets", "execution"):
            part.metadata.pop(key, None)
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            # Without its state a widget shows an error; the static page has a picture beside it.
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            if output.get("name") == "stderr":  # drop a bar, which returns to the start of its line
                output.text = re.sub(r".*\r", "", output.text)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("text") != ""]
    return executed


def _build(book: Path) -> None:
    """Build a book's pages with warnings as errors, and say where to open them."""
    print("building the book", flush=True)
    jupyter_book = str(Path(sysconfig.get_path("scripts"), "jupyter-book"))
    command = [jupyter_book, "build", str(book), "-W", "--keep-going", "-q"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        raise ValueError(f"the book does not build:\n{built.stdout}{built.stderr}")
    print(f"Open {(book / '_build/html/index.html').relative_to(Path.cwd())} in a browser.")
