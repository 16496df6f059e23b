"""``cappaper reproduce``: run chapters, then build the book around them."""

import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cappaper import files
from cappaper.paper import cache, chapters, figures, ledger, tables
from cappaper.paper.chapters import Chapter, ChapterError
from cappaper.paper.machines import Machine, side_by_side

_QUICK = (
    "Quick profile: every figure and number here comes from small networks on scikit-learn's"
    " 8×8 digits, not from MNIST. The text was written for MNIST."
)


def run(profile: str, names: Sequence[str], here: Machine, build: bool) -> None:
    """Run the chapters of these names, or all of them, and build the book."""
    root, paper = Path.cwd(), profile == "paper"
    listed = chapters.manifest(root)
    chosen = chapters.select(listed, names)
    # Only the paper profile may change the committed book.
    book = root / "book" if paper else root / "build" / "quick"
    # Digits train in less time than a process starts: quick chapters share the cores instead.
    at_once, within = (1, here.jobs) if paper else (here.jobs, 1)
    with _lock(book):
        for folder in (cache.root(), book / "chapters", book / "results"):
            files.sweep(folder)
        if not paper:
            if not names:
                shutil.rmtree(book, ignore_errors=True)
            chapters.stage(root, book, _QUICK)
            chosen = chapters.longest_first(chosen, root)
        print(f"{len(chosen)} chapters, profile {profile}, on {here}", flush=True)
        parameters = {"profile": profile, "device": here.device, "jobs": within}
        labels = [f"[{i}/{len(chosen)}] {one.name}" for i, one in enumerate(chosen, 1)]
        calls = [(c, root, book, parameters, n) for c, n in zip(chosen, labels, strict=True)]
        if failed := [error for _, error in side_by_side(_execute, calls, at_once) if error]:
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


def _lock(book: Path) -> AbstractContextManager[Any]:
    """Only one run at a time writes to a book; a second one waits."""
    place = cache.place("locks", str(book.resolve()))
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(place).acquire(timeout=0)
    except Timeout:
        print(f"waiting for another run that writes to {book.relative_to(Path.cwd())}", flush=True)
        return FileLock(place).acquire()


def _execute(
    chapter: Chapter, root: Path, book: Path, parameters: dict[str, Any], label: str
) -> str:
    """Run one chapter; its error is returned, so that the others still run."""
    start, failure = time.monotonic(), ""
    if sys.stdout.isatty():
        print(f"{label}: running", flush=True)
    try:
        chapters.execute(chapter, root, book, parameters)
    except ChapterError as error:
        failure = str(error)
    end = "failed" if failure else f"{chapter.title}, {time.monotonic() - start:.0f} s"
    print(f"{label}: {end}", flush=True)
    return failure


def _build(book: Path) -> None:
    """Build a book's pages with warnings as errors, and say where to open them."""
    print("building the book", flush=True)
    jupyter_book = str(Path(sysconfig.get_path("scripts"), "jupyter-book"))
    command = [jupyter_book, "build", str(book), "-W", "--keep-going", "-q"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        raise ValueError(f"the book does not build:\n{built.stdout}{built.stderr}")
    print(f"Open {(book / '_build/html/index.html').relative_to(Path.cwd())} in a browser.")
