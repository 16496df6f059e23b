"""The command line: ``reproduce`` runs the paper, ``claims`` weighs it, ``data`` gets images."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path

from cappaper.checks import check_count
from cappaper.data import DATASETS, data_root, load
from cappaper.paper import chapters, claims, ledger, study, workers

_QUICK = (
    "Quick profile: every figure and number here comes from small networks on scikit-learn's"
    " 8×8 digits, not from MNIST. The text was written for MNIST."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0, or 1 after a sentence on what went wrong."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (chapters.ChapterError, OSError, ValueError) as error:
        print(f"cappaper: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cappaper: stopped; what was trained is kept, so a new run resumes", file=sys.stderr)
        return 130
    return 0


def reproduce(options: argparse.Namespace) -> None:
    """Execute chapters, then build the book around them."""
    root = Path.cwd()
    listed = chapters.manifest(root)
    chosen = chapters.select(listed, options.only)
    device = study.device(options.device)
    if options.jobs is not None:
        check_count(options.jobs, "--jobs")
    # Only the paper's own profile may touch the book that is committed.
    book = root / "book" if options.profile == "paper" else root / "build" / "quick"
    if options.profile != "paper":
        if not options.only:
            shutil.rmtree(book, ignore_errors=True)
        chapters.stage(root, book, _QUICK)
    os.environ[workers.JOBS] = str(options.jobs or os.cpu_count() or 1)
    at_once = 1
    if options.profile != "paper":
        # A network on digits is over before a second process has started: there, chapters share
        # the cores; on MNIST, the networks of one chapter do.
        at_once, os.environ[workers.JOBS] = workers.jobs(device), "1"
    print(f"{len(chosen)} chapters, profile {options.profile}, on {device}", flush=True)
    parameters = {"profile": options.profile, "device": device}
    calls = [
        (chapter, root, book, parameters, f"[{i + 1}/{len(chosen)}] {chapter.name}")
        for i, chapter in enumerate(chosen)
    ]
    failed = [error for _, error in workers.side_by_side(_execute, calls, at_once) if error]
    if failed:
        raise chapters.ChapterError("; ".join(failed))
    missing = [c.name for c in listed if not (book / "chapters" / f"{c.name}.ipynb").exists()]
    if missing:
        print(f"The book is not built: {', '.join(missing)} did not run yet.")
        return
    ledger.write(book)
    if not options.no_build:
        build(book)


def _execute(
    chapter: chapters.Chapter, root: Path, book: Path, parameters: dict[str, str], label: str
) -> str | None:
    """Run one chapter; what went wrong is returned, so that the others still run."""
    show, start = _Line(label), time.monotonic()
    show("starting")
    try:
        chapters.execute(chapter, root, book, parameters, show)
    except chapters.ChapterError as error:
        show.end("failed")
        return str(error)
    show.end(f"{chapter.title}, {time.monotonic() - start:.0f} s")
    return None


def build(book: Path) -> None:
    """Build a book's pages with warnings as errors, and say where to open them."""
    print("building the book", flush=True)
    jupyter_book = Path(sysconfig.get_path("scripts")) / "jupyter-book"
    command = [str(jupyter_book), "build", str(book), "-W", "--keep-going", "-q"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"the book does not build:\n{done.stdout}{done.stderr}")
    page = book / "_build" / "html" / "index.html"
    print(f"Open {page.relative_to(Path.cwd())} in a browser.")


def weigh(options: argparse.Namespace) -> None:
    """Print what became of every claim; fail if the committed ledger says otherwise."""
    book = Path.cwd() / "book"
    if not book.is_dir():
        raise FileNotFoundError("there is no book/ here: run from the project's folder")
    if options.write:
        ledger.write(book)
    found = ledger.weigh(book)
    for claim in claims.CLAIMS:
        rows = found[found["claim"] == claim.number]
        print(f"{claim.number}. {claim.says} {rows['verdict'].iloc[0].upper()}")
        for _, row in rows.iterrows():
            print(f"   {row['finding']:>14}  {row['chapter']}: {row['evidence']}")
    if said := ledger.disagreements(book):
        raise ValueError("the ledger and the tables disagree: " + "; ".join(said))


def data(options: argparse.Namespace) -> None:
    """Download a data set where it is missing, check it, and say what is there."""
    for name in options.names:
        train, test = load(name, "train"), load(name, "test")
        place = "inside scikit-learn" if name == "digits" else f"in {data_root()}"
        shape = "×".join(map(str, train.images.shape[2:]))
        print(f"{name}: {len(train.labels)} + {len(test.labels)} images of {shape}, {place}")


def refresh(options: argparse.Namespace) -> None:
    """Store in the notebooks what they give with their own defaults."""
    for source in sorted({chapter.source for chapter in chapters.manifest(Path.cwd())}):
        print(f"running notebooks/{source}.ipynb", flush=True)
        chapters.refresh(Path.cwd() / "notebooks" / f"{source}.ipynb")


class _Line:
    """Progress: on a terminal one line that changes, elsewhere a line now and then."""

    def __init__(self, label: str, every: float = 20.0) -> None:
        self._label, self._every, self._last = label, every, float("-inf")
        self._terminal = sys.stdout.isatty()

    def __call__(self, text: str) -> None:
        if self._terminal:
            print(f"\r\033[K{self._label}: {text}", end="", flush=True)
        elif time.monotonic() - self._last > self._every:
            self._last = time.monotonic()
            print(f"{self._label}: {text}", flush=True)

    def end(self, text: str) -> None:
        print(
            f"{chr(13) + chr(27) + '[K' if self._terminal else ''}{self._label}: {text}", flush=True
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cappaper", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("reproduce", help="run chapters and build the book")
    command.add_argument(
        "--profile", choices=study.PROFILES, default="quick", help="quick: digits; paper: MNIST"
    )
    command.add_argument(
        "--only", nargs="+", default=[], metavar="CHAPTER", help="these chapters alone"
    )
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    command.add_argument(
        "--jobs", type=int, metavar="N", help="processes on a CPU; one a core if not said"
    )
    command.add_argument("--no-build", action="store_true", help="stop before the book is built")
    command.set_defaults(run=reproduce)
    command = commands.add_parser("claims", help="the verdict on every claim, from the tables")
    command.add_argument(
        "--write", action="store_true", help="write book/claims.md and its ledger again"
    )
    command.set_defaults(run=weigh)
    command = commands.add_parser("refresh", help="run notebooks/ and store their outputs there")
    command.set_defaults(run=refresh)
    command = commands.add_parser("data", help="download and check data sets")
    command.add_argument("names", nargs="+", choices=DATASETS, metavar="NAME")
    command.set_defaults(run=data)
    return parser


if __name__ == "__main__":
    sys.exit(main())
