"""The command line: thin commands over plain functions."""

import io
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
from filelock import FileLock, Timeout
from tqdm import tqdm

from cappaper import files
from cappaper.attacks.common import Progress
from cappaper.data import DATASETS, data_root, load
from cappaper.paper import cache, chapters, figures, ledger, tables, user_code
from cappaper.paper.chapters import Chapter, ChapterError
from cappaper.paper.claims import CLAIMS
from cappaper.paper.machines import machine, side_by_side
from cappaper.paper.profiles import PROFILES
from cappaper.paper.weights import DIGITS, digits_script, train
from cappaper.report import robustness_report
from cappaper.zoo import FOLDER

_QUICK = (
    "Quick profile: every figure and number here comes from small networks on scikit-learn's"
    " 8×8 digits, not from MNIST. The text was written for MNIST."
)
_DATA = f"{', '.join(DATASETS)} (their test images), or MODULE:FACTORY of images and labels."
_PROFILE = click.Choice(list(PROFILES))
_COUNT = click.IntRange(min=1)
_PATH = click.Path(path_type=Path)
_device = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is 0, or another after a sentence on what is wrong."""
    # A batch system's SIGTERM ends like Ctrl-C; a shell's background jobs would ignore SIGINT.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    status = 1
    try:
        commands.main(arguments, prog_name="cappaper", standalone_mode=False)
        return 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        status, message = 130, "stopped; what was trained is kept, so a new run resumes"
    except BrokenProcessPool:
        message = "a process died, perhaps for want of memory; what was trained is kept"
    except (ChapterError, OSError, RuntimeError, TypeError, ValueError) as error:
        message = str(error)
    print(f"cappaper: {message}", file=sys.stderr)
    return status


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
def commands() -> None:
    """Reproduce the paper, see what became of its claims, check a network of yours."""


@commands.command()
@click.option("--profile", type=_PROFILE, default="quick", help="quick: digits; paper: MNIST.")
@click.option("--only", multiple=True, metavar="CHAPTER", help="A chapter, or several with commas.")
@_device
@click.option("--jobs", type=_COUNT, help="Processes on a CPU; else one for each core.")
@click.option("--scheduler", metavar="ADDRESS", help="Of a Dask cluster: tcp://host:8786.")
@click.option("--no-build", is_flag=True, help="Stop before the book is built.")
def reproduce(
    profile: str, only: Sequence[str], device: str, jobs: int, scheduler: str, no_build: bool
) -> None:
    """Run chapters, then build the book around them."""
    root, paper = Path.cwd(), profile == "paper"
    listed = chapters.manifest(root)
    chosen = chapters.select(listed, [name for names in only for name in names.split(",")])
    if scheduler and jobs:
        raise ValueError("got both --jobs and --scheduler: a cluster has its own workers")
    here = machine(device, scheduler or jobs or os.cpu_count() or 1)
    # Only the paper profile may change the committed book.
    book = root / "book" if paper else root / "build" / "quick"
    # Digits train in less time than a process starts: quick chapters share the cores instead.
    shared = not paper and isinstance(here.jobs, int)
    at_once, within = (here.jobs, 1) if shared else (1, here.jobs)
    with _lock(book):
        for folder in (cache.root(), book / "chapters", book / "results"):
            files.sweep(folder)
        if not paper:
            if not only:
                shutil.rmtree(book, ignore_errors=True)
            chapters.stage(root, book, _QUICK)
        if shared:
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
        _write(book)
        if not no_build:
            _build(book)


@commands.command()
@click.argument("model", metavar="MODULE:FACTORY")
@click.option("--data", required=True, metavar="DATA", help=_DATA)
@click.option(
    "--eps", type=click.FloatRange(min=0), default=0.1, show_default=True, help="L∞ radius."
)
@click.option("--limit", type=_COUNT, default=200, show_default=True, help="Images.")
@click.option("--steps", type=_COUNT, default=100, help="Of a gradient attack.")
@click.option("--queries", type=_COUNT, default=1000, help="Of Square Attack.")
@_device
@click.option("--json", "to_json", type=_PATH, help="Write all figures here.")
@click.option("--html", "to_html", type=_PATH, help="Write one page here.")
def check(
    model: str, data: str, limit: int, device: str, to_json: Path, to_html: Path, **settings: Any
) -> None:
    """Attack a network of yours, and say whether its gradients are masked.

    MODULE:FACTORY is a function without arguments that returns a torch classifier of images in
    [0, 1], or the classifier itself, in an importable module or a file: my_net.py:make.
    """
    for out in filter(None, (to_json, to_html)):
        if not out.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {out.parent} for {out.name}")
    here = machine(device).device
    images, labels = (part[:limit].to(here) for part in user_code.images(data))
    network = user_code.model(model).to(here)
    report = robustness_report(network, images, labels, name=model, progress=_bar, **settings)
    for path, text in ((to_json, report.json), (to_html, report.html)):
        if path:
            path.write_text(text(), encoding="utf-8")
    if isinstance(sys.stdout, io.TextIOWrapper):  # not every terminal has a β
        sys.stdout.reconfigure(errors="replace")
    print(report)


@commands.command()
@click.option("--write", is_flag=True, help="Write book/claims.md and its ledger again.")
def claims(write: bool) -> None:
    """Both answers to every claim, from the committed tables; fails if the ledger disagrees."""
    book = Path.cwd() / "book"
    if not book.is_dir():
        raise FileNotFoundError("there is no book/ here: run from the project's folder")
    if write:
        _write(book)
    for row in ledger.verdicts(book).to_dict("records"):
        if row["kind"] == "reproduced":
            print(f"{row['claim']}. {CLAIMS[row['claim'] - 1].claim}")
        if question := ledger.QUESTIONS.get(row["kind"]):
            print(f"   {question} {row['answer'].upper()}. {row['says']}")
    if disagreements := ledger.disagreements(book):
        raise ValueError("the ledger and the tables disagree: " + "; ".join(disagreements))


@commands.command()
def refresh() -> None:
    """Run notebooks/ and store their outputs there."""
    chapters.manifest(Path.cwd())  # raises outside the project's folder
    for source in sorted(Path.cwd().glob("notebooks/*.ipynb")):
        print(f"running notebooks/{source.name}", flush=True)
        chapters.refresh(source)


@commands.command()
@click.option("--jobs", type=_COUNT, default=1, help="Processes on a CPU.")
def weights(jobs: int) -> None:
    """Train the networks that the package brings along; write them, and the live page's digits."""
    chapters.manifest(Path.cwd())  # raises outside the project's folder
    for path in train(FOLDER, machine(jobs=jobs)):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
    Path("book", DIGITS).write_text(digits_script(load("mnist", "test")), encoding="utf-8")


@commands.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(DATASETS), metavar="NAME...")
def data(names: Sequence[str]) -> None:
    """Download data sets where they are missing, and check them."""
    for name in names:
        train, test = load(name, "train"), load(name, "test")
        place = "inside scikit-learn" if name == "digits" else f"in {data_root()}"
        shape = "×".join(map(str, train.images.shape[2:]))
        print(f"{name}: {len(train.labels)} + {len(test.labels)} images of {shape}, {place}")


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


def _write(book: Path) -> None:
    """Write what a book makes of its tables: the ledger, its pages, and the headline."""
    ledger.write(book)
    table = tables.read(book / "results" / "how-robust.csv")
    figures.save(figures.headline(table), str(book / "results" / "headline"))


def _build(book: Path) -> None:
    """Build a book's pages with warnings as errors, and say where to open them."""
    print("building the book", flush=True)
    jupyter_book = str(Path(sysconfig.get_path("scripts"), "jupyter-book"))
    command = [jupyter_book, "build", str(book), "-W", "--keep-going", "-q"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        raise ValueError(f"the book does not build:\n{built.stdout}{built.stderr}")
    print(f"Open {(book / '_build/html/index.html').relative_to(Path.cwd())} in a browser.")


def _bar(part: str) -> Progress:
    """A progress bar for one part of a long check."""
    bar = tqdm(desc=part, leave=False)

    def progress(done: int, of: int) -> None:
        bar.total = of
        bar.update(done - bar.n)
        if done >= of:
            bar.close()

    return progress
