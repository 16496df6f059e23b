"""Runs that are stopped or that share a cache: the table stays the same."""

import functools
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.trust import project


def killed(draw: random.Random, folder: Path) -> None:
    """Stop a run by a signal at a random moment, and start it again."""
    stop = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    run = project.start(project.make(folder))
    time.sleep(draw.uniform(0, _seconds()))
    run.send_signal(stop)
    run.communicate()
    assert table(folder) == undisturbed(), f"after {stop.name} the table differs"
    assert not left_over(folder), "files are left over in the book"


def at_once(draw: random.Random, folder: Path) -> None:
    """Start two or four runs of one book with one cache, which is empty, and then full."""
    project.make(folder)
    for cache in ("an empty", "a full"):
        jobs = [draw.choice("12") for _ in range(draw.choice([2, 4]))]
        for run in [project.start(folder, "--jobs", count) for count in jobs]:
            assert table(folder, run) == undisturbed(), f"with {cache} cache a table differs"
        assert not left_over(folder), "files are left over in the book"
        shutil.rmtree(folder / "build")


@functools.cache
def undisturbed() -> list[str]:
    """The table of the chapter's code in this process, with a cache of its own."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPPAPER_CACHE", str(Path(folder) / "cache"))
        place = Path(folder) / "small"
        given = {"profile": "quick", "device": "cpu", "jobs": 1, "save_to": str(place)}
        exec(project.CHAPTER, given)
        return _rows(place.with_suffix(".csv"))


@functools.cache
def _seconds() -> float:
    """How long a run takes that nothing disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        table(project.make(Path(folder) / "book"))
        return time.monotonic() - start


def table(folder: Path, run: subprocess.Popen[str] | None = None) -> list[str]:
    """The table that a run publishes at its end, without seconds and provenance."""
    run = run or project.start(folder)
    output, _ = run.communicate()
    assert not run.returncode, f"a run failed: {output[-300:]}"
    return _rows(folder / "build" / "quick" / "results" / "small.csv")


def left_over(folder: Path) -> list[str]:
    names = [path.name for part in ("build", "book") for path in folder.glob(f"{part}/**/*")]
    return [name for name in names if ".partial" in name]


def _rows(path: Path) -> list[str]:
    rows = [line.split(",") for line in path.read_text().splitlines() if line[0] != "#"]
    column = rows[0].index("seconds")
    return [",".join(row[:column] + row[column + 1 :]) for row in rows]
