"""Networks side by side: on a CPU, as many processes of one thread as are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

JOBS = "CAPPAPER_JOBS"
"""Names how many processes train and attack on a CPU; 1, the default, is this one alone."""


def jobs(device: str = "cpu") -> int:
    """How many processes are asked for; a GPU has one."""
    return int(os.environ.get(JOBS) or 1) if device == "cpu" else 1


def side_by_side(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], count: int
) -> Iterator[tuple[int, Any]]:
    """Positions and results of ``function(*call)`` for every call, as they finish.

    Networks of this book's size leave a second thread little to do, and a second process much: up
    to ``count`` processes share the calls and the cores.
    """
    count = min(count, len(calls))
    if count <= 1:
        yield from ((i, function(*call)) for i, call in enumerate(calls))
        return
    from joblib import Parallel, delayed

    # One worker may wait long for another's last group; after joblib's five minutes it would go
    # home, with a warning that ends up in the chapter.
    workers = Parallel(
        n_jobs=count,
        return_as="generator_unordered",
        pre_dispatch=count,
        idle_worker_timeout=3600,
    )
    yield from workers(delayed(_numbered)(i, function, call) for i, call in enumerate(calls))


def _numbered(i: int, function: Callable[..., Any], call: tuple[Any, ...]) -> tuple[int, Any]:
    torch.set_num_threads(1)
    return i, function(*call)
