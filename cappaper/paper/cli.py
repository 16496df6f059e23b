"""The command line: thin commands over plain functions.

What only the book's commands need is imported inside them, so the others work without its packages.
"""

import importlib
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
from torch import Tensor, nn

from cappaper import checks
from cappaper.data import DATASETS, load
from cappaper.paper import ledger
from cappaper.paper.claims import CLAIMS
from cappaper.paper.experiment import PROFILES
from cappaper.paper.machines import machine
from cappaper.report import robustness_report

_DATA = f"{', '.join(DATASETS)} (their test images), or MODULE:FACTORY of images and labels."
_COUNT = click.IntRange(min=1)
_PATH = click.Path(path_type=Path)
_device = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is returned. Unless it is 0, a sentence says why."""
    # A batch system's SIGTERM ends like Ctrl-C; a shell's background jobs would ignore SIGINT.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):  # not every terminal has a β
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")
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
        message = "a process died, perhaps out of memory; what was trained is kept"
    except ModuleNotFoundError as error:
        message = f'{error.name} is missing: pip install "cappaper[paper]"'
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        message = str(error)
    print(f"cappaper: {message}", file=sys.stderr)
    return status


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
def commands() -> None:
    """Reproduce the paper, see what became of its claims, check a network of yours."""


@commands.command()
@click.option("--profile", type=click.Choice([*PROFILES]), default="quick", help="paper: MNIST.")
@click.option("--only", multiple=True, metavar="CHAPTER", help="Chapters, separated by commas.")
@_device
@click.option("--jobs", type=_COUNT, help="Processes on a CPU; by default one per core.")
@click.option("--no-build", is_flag=True, help="Stop before the book is built.")
def reproduce(profile: str, only: Sequence[str], device: str, jobs: int, no_build: bool) -> None:
    """Run chapters, then build the book around them."""
    from cappaper.paper import chapters

    here = machine(device, jobs or os.cpu_count() or 1)
    names = [name for listed in only for name in listed.split(",")]
    chapters.reproduce(profile, names, here, not no_build)


def _radius(context: click.Context, parameter: click.Parameter, text: str) -> float:
    """A radius as the field writes it: 0.1 or 8/255."""
    try:
        radius = float(Fraction(text))
    except (ArithmeticError, ValueError):
        radius = -1
    if radius < 0:
        raise click.BadParameter(f"{text!r} is not a number of at least 0, such as 0.1 or 8/255")
    return radius


@commands.command()
@click.argument("model", metavar="MODULE:FACTORY")
@click.option("--data", required=True, metavar="DATA", help=_DATA)
@click.option("--eps", callback=_radius, default="0.1", show_default=True, help="Such as 8/255.")
@click.option("--limit", type=_COUNT, default=200, show_default=True, help="Number of images.")
@click.option("--steps", type=_COUNT, default=100, help="Steps of each gradient attack.")
@click.option("--queries", type=_COUNT, default=1000, help="Queries of Square Attack.")
@click.option("--batch-size", type=_COUNT, default=2048, help="Images attacked at once.")
@_device
@click.option("--json", "to_json", type=_PATH, help="Write all numbers here, as JSON.")
@click.option("--html", "to_html", type=_PATH, help="Write a page here, as HTML.")
@click.option("--strict", is_flag=True, help="Exit with 1 if PGD misleads or may mislead.")
def check(
    model: str, data: str, limit: int, device: str, to_json: Path, to_html: Path, **settings: Any
) -> None:
    """Attack a network of yours, and say whether its gradients are masked.

    MODULE:FACTORY is a function without arguments that returns a torch classifier of images in
    [0, 1], or the classifier itself, in an importable module or a file: my_net.py:make.
    """
    for out in filter(None, (to_json, to_html)):
        if out.is_dir() or not out.parent.is_dir():
            raise ValueError(f"{out} cannot be written: name a file in a folder that exists")
    here, strict = machine(device).device, settings.pop("strict")
    images, labels = (part[:limit].to(here) for part in _images(data))
    network = _model(model).to(here)
    report = robustness_report(network, images, labels, name=model, progress=True, **settings)
    print(report)
    if len(labels.unique()) == 1:
        print(f"\nAll {len(labels)} images are of class {labels[0]}: is the data set sorted?")
    for path, text in ((to_json, report.json), (to_html, report.html)):
        if path:
            path.write_text(text(), encoding="utf-8")
    if strict and (report.misleads or report.doubts):
        raise ValueError("PGD misleads, or may mislead")


def _model(name: str) -> nn.Module:
    """The classifier that ``module:name`` is, or returns."""
    value = _value(name)
    if not isinstance(value, nn.Module):
        raise ValueError(f"{name} must be or return a torch module, got {type(value).__name__}")
    return value


def _images(name: str) -> tuple[Tensor, Tensor]:
    """The test images and labels of a known data set, or those that ``module:name`` returns."""
    if name in DATASETS:
        return load(name, "test")
    if ":" not in name:
        checks.one_of(name, (*DATASETS, "MODULE:FACTORY"), "data")
    match _value(name):
        case [Tensor() as x, Tensor() as y]:
            return x, y
    raise ValueError(f"{name} must return two tensors, images and labels")


def _value(name: str) -> Any:
    """The value of ``module:name``; a function is called, a torch module is not."""
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise ValueError(f"{name!r} must read MODULE:FACTORY, such as my_net.py:make")
    path = Path(place)
    if path.suffix == ".py":
        sys.path.insert(0, str(path.resolve().parent))
        names = _run(place, lambda: runpy.run_path(place, run_name=path.stem))
    else:
        sys.path.insert(0, str(Path.cwd()))
        names = _run(place, lambda: vars(importlib.import_module(place)))
    if attribute not in names:
        raise ValueError(f"{place} has no {attribute!r}")
    value = names[attribute]
    return value if isinstance(value, nn.Module) or not callable(value) else _run(name, value)


def _run(name: str, function: Callable[[], Any]) -> Any:
    """Run the user's code as a script without arguments; an error names the line that failed."""
    arguments, sys.argv = sys.argv, [name]
    try:
        return function()
    except ImportError as error:
        raise ValueError(f"{name} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
        raise ValueError(f"{name} fails: {where}") from error
    finally:
        sys.argv = arguments


@commands.command()
@click.option("--write", is_flag=True, help="Write the ledger, its pages and the headline again.")
def claims(write: bool) -> None:
    """Both answers to every claim, from the committed tables; fails if the ledger disagrees."""
    book = Path.cwd() / "book"
    if not book.is_dir():
        raise FileNotFoundError("there is no book/ here: run from the project's folder")
    if write:
        from cappaper.paper import chapters

        chapters.write(book)
    for row in ledger.verdicts(book).to_dict("records"):
        if row["kind"] == "reproduced":
            print(f"{row['claim']}. {CLAIMS[row['claim'] - 1].claim}")
        if question := ledger.QUESTIONS.get(row["kind"]):
            print(f"   {question} {row['answer'].upper()}. {row['says']}")
    if disagreements := ledger.disagreements(book):
        raise ValueError("the ledger and the tables disagree: " + "; ".join(disagreements))


@commands.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
def refresh(names: Sequence[str]) -> None:
    """Run the named notebooks of notebooks/, or all, and store their outputs there."""
    from cappaper.paper import chapters

    chapters.manifest(Path.cwd())  # raises outside the project's folder
    sources = {path.stem: path for path in sorted(Path.cwd().glob("notebooks/*.ipynb"))}
    for name in names or sources:
        source = sources[checks.one_of(name, sources, "notebook")]
        print(f"running notebooks/{source.name}", flush=True)
        chapters.refresh(source)


@commands.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(DATASETS), metavar="NAME...")
def data(names: Sequence[str]) -> None:
    """Download data sets where they are missing, and check them."""
    for name in names:
        print(f"{name}: {len(load(name, 'test').labels)} test images")
