"""Where the work is done: on which device, and in how many processes side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cappaper.checks import one_of


@dataclass(frozen=True)
class Machine:
    """A device, ``"cpu"`` or ``"cuda"``, and how many processes share the work on it.

    No result depends on the number of processes.
    """

    device: str = "cpu"
    jobs: int = 1

    def __str__(self) -> str:
        """Both in words, for a table's provenance."""
        if self.device == "cuda":
            return f"cuda ({torch.cuda.get_device_name()})"
        return f"{self.device} ({self.jobs} process{'es' * (self.jobs > 1)} of 1 thread)"


def machine(device: str = "auto", jobs: int = 1) -> Machine:
    """This machine. ``"auto"`` takes CUDA where there is one; a GPU is fed by one process.

    Raises:
        ValueError: another device, CUDA where there is none, or a number of processes below 1.
    """
    one_of(device, ("auto", "cpu", "cuda"), "device")
    if not isinstance(jobs, int) or jobs < 1:
        raise ValueError(f"jobs must be a whole number of at least 1, got {jobs!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but torch sees no CUDA device: use 'cpu'")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Machine(device, jobs if device == "cpu" else 1)


def side_by_side(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], jobs: int
) -> Iterator[tuple[int, Any]]:
    """Positions and results of ``function(*call)`` for every call, as they finish.

    Networks of this book's size leave a second thread little to do, and a second process much: up
    to ``jobs`` processes share the calls and the cores.
    """
    jobs = min(jobs, len(calls))
    if jobs <= 1:
        yield from ((i, function(*call)) for i, call in enumerate(calls))
        return
    from joblib import Parallel, delayed

    # One worker may wait long for another's last call; after joblib's five minutes it would go
    # home, with a warning that ends up in the chapter.
    workers = Parallel(
        n_jobs=jobs,
        return_as="generator_unordered",
        pre_dispatch=jobs,
        idle_worker_timeout=3600,
    )
    yield from workers(delayed(_numbered)(i, function, call) for i, call in enumerate(calls))


def _numbered(i: int, function: Callable[..., Any], call: tuple[Any, ...]) -> tuple[int, Any]:
    return i, function(*call)
