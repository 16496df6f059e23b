"""Runs that are stopped or that share a cache: the table stays the same."""

import functools
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.trust import project


def killed(draw: random.Random, folder: Path) -> None:
    """Stop a run by a signal at a random moment, and start it again."""
    expected, seconds = _undisturbed()
    stop = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    run = project.start(project.make(folder))
    time.sleep(draw.uniform(0, seconds))
    run.send_signal(stop)
    run.communicate()
    assert _table(folder) == expected, f"after {stop.name} the table differs"


def at_once(draw: random.Random, folder: Path) -> None:
    """Start two or four runs of one book with one cache, which is empty, and then full."""
    project.make(folder)
    for cache in ("an empty", "a full"):
        jobs = [draw.choice("12") for _ in range(draw.choice([2, 4]))]
        for run in [project.start(folder, "--jobs", count) for count in jobs]:
            assert _table(folder, run) == _undisturbed()[0], f"with {cache} cache a table differs"
        shutil.rmtree(folder / "build")


@functools.cache
def _undisturbed() -> tuple[list[str], float]:
    """The table of a run that nothing disturbs, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        return _table(project.make(Path(folder) / "book")), time.monotonic() - start


def _table(folder: Path, run: subprocess.Popen[str] | None = None) -> list[str]:
    """The table that a run publishes at its end, without seconds and provenance."""
    run = run or project.start(folder)
    output, _ = run.communicate()
    assert not run.returncode, f"a run failed: {output[-300:]}"
    names = [
        path.name for part in ("build", "cache", "book") for path in folder.glob(f"{part}/**/*")
    ]
    assert not [name for name in names if "@" in name or ".partial" in name], "files are left over"
    text = (folder / "build" / "quick" / "results" / "small.csv").read_text()
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    column = rows[0].index("seconds")
    return [",".join(row[:column] + row[column + 1 :]) for row in rows]
