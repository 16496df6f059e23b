"""Where the work is done: on which device, in how many processes, and on which cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from joblib import Parallel, delayed, parallel_config

from cappaper import checks

_PATIENCE = 10  # seconds in which a scheduler must answer


@dataclass(frozen=True)
class Machine:
    """A device, ``"cpu"`` or ``"cuda"``, and who shares the work on it.

    ``jobs`` is a number of processes, or the address of a Dask scheduler, whose workers do the
    work then. No result depends on it.
    """

    device: str = "cpu"
    jobs: int | str = 1

    def __str__(self) -> str:
        """Both in words, for a table's provenance."""
        if self.device == "cuda":
            return f"cuda ({torch.cuda.get_device_name()})"
        if isinstance(self.jobs, str):
            return f"{self.device} (a Dask cluster, 1 thread a worker)"
        return f"{self.device} ({self.jobs} process{'es' * (self.jobs > 1)} of 1 thread)"


def machine(device: str = "auto", jobs: int | str = 1) -> Machine:
    """This machine. ``"auto"`` takes CUDA where there is one; a GPU is fed by one process.

    The work of a Dask cluster, ``jobs="tcp://host:8786"``, is done on the CPUs of its workers.

    Raises:
        ValueError: another device, CUDA where there is none or with a cluster, a number of
            processes below 1, or what is no scheduler's address.
    """
    checks.one_of(device, ("auto", "cpu", "cuda"), "device")
    if isinstance(jobs, str):
        if "://" not in jobs:
            raise ValueError(
                "jobs must be a whole number of at least 1, or a scheduler's address such as"
                f" tcp://host:8786, got {jobs!r}"
            )
        if device == "cuda":
            raise ValueError("a cluster's work is done on CPUs: use device 'cpu'")
        return Machine("cpu", jobs)
    if not isinstance(jobs, int) or jobs < 1:
        raise ValueError(f"jobs must be a whole number of at least 1, got {jobs!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but torch sees no CUDA device: use 'cpu'")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Machine(device, jobs if device == "cpu" else 1)


def side_by_side(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], jobs: int | str
) -> Iterator[tuple[int, Any]]:
    """Positions and results of ``function(*call)`` for every call, as they finish.

    Networks of this book's size leave a second thread little to do, and a second process much: up
    to ``jobs`` processes share the calls and the cores. Where ``jobs`` is the address of a Dask
    scheduler, its workers share them; what a lost worker had begun, another begins again.
    """
    if isinstance(jobs, str):
        with _cluster(jobs) as workers:
            yield from workers(
                delayed(_numbered)(i, function, call) for i, call in enumerate(calls)
            )
        return
    jobs = min(jobs, len(calls))
    if jobs <= 1:
        yield from ((i, function(*call)) for i, call in enumerate(calls))
        return
    # One worker may wait long for another's last call; after joblib's five minutes it would go
    # home, with a warning that ends up in the chapter.
    workers = Parallel(
        n_jobs=jobs,
        return_as="generator_unordered",
        pre_dispatch=jobs,
        idle_worker_timeout=3600,
    )
    yield from workers(delayed(_numbered)(i, function, call) for i, call in enumerate(calls))


@contextmanager
def _cluster(address: str) -> Iterator[Parallel]:
    """The workers of a scheduler, for as long as the block lasts."""
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError('a scheduler needs Dask: pip install "cappaper[cluster]"') from error
    try:
        client = Client(address, set_as_default=False, timeout=_PATIENCE)
    except OSError as error:
        raise OSError(f"no Dask scheduler answers at {address}") from error
    with client, parallel_config("dask", client=client):
        yield Parallel(n_jobs=-1, return_as="generator_unordered", batch_size=1)


def _numbered(i: int, function: Callable[..., Any], call: tuple[Any, ...]) -> tuple[int, Any]:
    return i, function(*call)
