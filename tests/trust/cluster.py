"""A Dask cluster of one scheduler and two workers, of which one is killed on the way."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.trust import project

PATIENCE = 120  # seconds for scheduler and workers to come up


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The scheduler's address, and two workers of one thread each."""
    said = folder / "scheduler.json"
    started = [_start(folder, "scheduler", "--port", "0", "--scheduler-file", str(said))]
    try:
        _until(lambda: said.exists() and said.read_text().rstrip().endswith("}"))
        rest = ["--scheduler-file", str(said), "--nthreads", "1", "--no-nanny"]
        workers = [_start(folder, "worker", *rest) for _ in range(2)]
        started += workers
        yield json.loads(said.read_text())["address"], workers
    finally:
        for process in started:
            process.kill()
            process.wait()


def worker_killed(draw: random.Random, folder: Path) -> list[str]:
    """A run on a cluster that loses a worker midway has the table of a run without one."""
    project.make(folder / "a")
    alone = project.start(folder / "a")
    said, _ = alone.communicate()
    if alone.returncode:
        return [f"the run without a cluster failed: {said[-300:]}"]
    project.make(folder / "b")
    with cluster(folder) as (address, workers):
        run = project.start(folder / "b", scheduler=address)
        # From its first network to its last judgement the run is in the workers' hands.
        _until(lambda: run.poll() is not None or _busy(folder / "b"))
        time.sleep(draw.uniform(0, 3))
        draw.choice(workers).kill()
        said, _ = run.communicate()
    if run.returncode:
        return [f"the run on a cluster failed: {said[-300:]}"]
    same = project.table(folder / "a") == project.table(folder / "b")
    return [] if same else ["the table differs from that of a run without a cluster"]


def _busy(folder: Path) -> bool:
    """Whether a first epoch is done."""
    return any((folder / "cache").glob("[cw]*/*.kept"))


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("the cluster did not come up")
        time.sleep(0.1)


def _start(folder: Path, what: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard", *options]
    with (folder / f"{what}.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log
        )
