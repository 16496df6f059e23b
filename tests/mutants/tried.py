"""A mutant, put into a copy of the project, where the tests run until one notices."""

from __future__ import annotations

import queue
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from attrs import evolve
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_item import TestOutcome, WorkItem, WorkResult

LIMIT = 600.0  # seconds, of the tests without a mutant
_LEFT_OUT = shutil.ignore_patterns(".*", "_build", "__pycache__", "dist", "*.egg-info")
_PYTEST = "-m pytest -x -q -p no:cacheprovider --hypothesis-profile=first"


def command(tree: Path, tests: Sequence[str]) -> str:
    """Run the tests in a copy of the project, against the copy's own package."""
    run = f"{shlex.quote(sys.executable)} {_PYTEST} {shlex.join(tests)}"
    return shlex.join(["sh", "-c", f"cd {shlex.quote(str(tree))} && PYTHONPATH=. exec {run}"])


def tried(
    items: Sequence[WorkItem], tests: Sequence[str], root: Path, folder: Path, jobs: int
) -> Iterator[tuple[WorkItem, WorkResult]]:
    """Each mutant with what became of it, as it becomes known. Copies of ``root`` go to ``folder``.

    Raises:
        RuntimeError: the tests fail without any mutant.
    """
    trees: queue.Queue[Path] = queue.Queue()
    for job in range(jobs):
        tree = folder / str(job)
        shutil.copytree(root, tree, ignore=_LEFT_OUT)
        trees.put(tree)

    def one(item: WorkItem) -> WorkResult:
        tree = trees.get()
        try:
            (mutation,) = item.mutations
            there = evolve(mutation, module_path=tree / mutation.module_path)
            return mutate_and_test([there], command(tree, tests), patience)
        finally:
            trees.put(tree)

    start = time.monotonic()
    outcome, output = run_tests(command(tree, tests), LIMIT)
    # A mutant that has the tests run on for much longer was noticed.
    patience = 60 + 3 * jobs * (time.monotonic() - start)
    if outcome != TestOutcome.SURVIVED:
        raise RuntimeError(f"without any mutant, these tests fail:\n{output[-3000:]}")
    with ThreadPoolExecutor(jobs) as pool:
        future_of = {pool.submit(one, item): item for item in items}
        for future in as_completed(future_of):
            yield future_of[future], future.result()
