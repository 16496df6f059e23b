"""Runs that are killed, and runs that get in each other's way."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from tests.trust import project

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def killed(
    draw: random.Random, folder: Path, signals: Sequence[signal.Signals] = SIGNALS
) -> list[str]:
    """A run is stopped by each signal once, at a random moment; then it may end.

    Its table must be that of a run that nobody disturbed, and nothing else may lie about.
    """
    project.make(folder / "a")
    started = time.monotonic()
    quiet = project.start(folder / "a")
    said, _ = quiet.communicate()
    whole, wrong = time.monotonic() - started, []
    if quiet.returncode:
        return [f"the undisturbed run failed: {said[-300:]}"]
    project.make(folder / "b")
    for stop in draw.sample(signals, len(signals)):
        run = project.start(folder / "b")
        time.sleep(draw.uniform(0, whole))
        run.send_signal(stop)
        said, _ = run.communicate()
        if stop != signal.SIGKILL and run.returncode and "Traceback" in said:
            wrong.append(f"{stop.name} gets no sentence: {said[-300:]}")
    run = project.start(folder / "b")
    said, _ = run.communicate()
    if run.returncode:
        wrong.append(f"the run after the kills failed: {said[-300:]}")
    elif project.table(folder / "a") != project.table(folder / "b"):
        wrong.append("the table differs from that of an undisturbed run")
    return wrong + [f"left behind: {name}" for name in project.leftovers(folder / "b")]


def at_once(draw: random.Random, folder: Path) -> list[str]:
    """Two or four runs of one book with one cache, which is cold at first, and warm then."""
    project.make(folder)
    tables, wrong = [], []
    count = draw.choice([2, 4])
    for cache in ("cold", "warm"):
        runs = [project.start(folder, jobs=draw.choice([1, 2])) for _ in range(count)]
        ends = [(run.communicate()[0], run.returncode) for run in runs]
        wrong += [f"{cache}, {count} at once: {said[-300:]}" for said, code in ends if code]
        if wrong:
            return wrong
        tables.append(project.table(folder))
        shutil.rmtree(folder / "build")
    if tables[0] != tables[1]:
        wrong.append("the tables differ")
    return wrong + [f"left behind: {name}" for name in project.leftovers(folder)]
