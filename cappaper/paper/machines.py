"""The device and the processes that do the work: on this machine, or on a Dask cluster."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from cappaper import checks


@dataclass(frozen=True)
class Machine:
    """A device, ``"cpu"`` or ``"cuda"``, and ``jobs``: processes, or a Dask scheduler's address."""

    device: str = "cpu"
    jobs: int | str = 1

    def __str__(self) -> str:
        """In words, for the provenance of a table."""
        if self.device == "cuda":
            return f"cuda ({torch.cuda.get_device_name()})"
        if isinstance(self.jobs, str):
            return f"{self.device} (a Dask cluster, 1 thread a worker)"
        return f"{self.device} ({self.jobs} process{'es' * (self.jobs > 1)} of 1 thread)"


def machine(device: str = "auto", jobs: int | str = 1) -> Machine:
    """This machine, or a Dask cluster of CPUs at ``jobs="tls://host:8786"``.

    Who reaches a scheduler's port runs code on the cluster. With ``tls://`` only holders of a
    certificate do: Dask's own configuration, ``distributed.comm.tls``, names the files. ``tcp://``
    is for a network in which you trust everyone.

    ``"auto"`` takes CUDA if there is any; a GPU gets one process. No result depends on ``jobs``.
    Bad values, and CUDA where there is none, raise a ValueError.
    """
    checks.one_of(device, ("auto", "cpu", "cuda"), "device")
    cluster, there = isinstance(jobs, str) and "://" in jobs, torch.cuda.is_available()
    if not cluster and (not isinstance(jobs, int) or jobs < 1):
        address = ", or a scheduler's address such as tls://host:8786" * isinstance(jobs, str)
        raise ValueError(f"jobs must be a whole number of at least 1{address}, got {jobs!r}")
    if device == "cuda" and (cluster or not there):
        where = "a cluster works on CPUs" if cluster else "torch sees no CUDA device"
        raise ValueError(f"device 'cuda' was asked for, but {where}: use device 'cpu'")
    return Machine("cpu", jobs) if device == "cpu" or cluster or not there else Machine("cuda")


@contextmanager
def one_thread() -> Iterator[None]:
    """With one thread sums are always the same: their rounding depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], jobs: int | str, label: str = ""
) -> Iterator[tuple[int, Any]]:
    """Positions and results of ``function(*call)`` for every call, in the order they finish.

    ``jobs`` processes share the calls, or the workers of the Dask scheduler at this address: the
    networks are too small for a second thread. A ``label`` asks for a progress bar.
    """
    # A bar is for a terminal, or for a kernel, which passes it on.
    watched = sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
    hidden = not (label and watched)
    bar = tqdm(total=len(calls), desc=label, leave=False, file=sys.stderr, disable=hidden)
    with bar, _workers(jobs, len(calls)) as workers:
        for result in workers(delayed(_call)(i, function, call) for i, call in enumerate(calls)):
            bar.update()
            yield result


@contextmanager
def _workers(jobs: int | str, calls: int) -> Iterator[Parallel]:
    if isinstance(jobs, int):
        jobs = max(1, min(jobs, calls))
        # After joblib's own five minutes an idle worker would end, with a warning in the chapter.
        more = {"pre_dispatch": jobs, "idle_worker_timeout": 3600} if jobs > 1 else {}
        yield Parallel(jobs, return_as="generator_unordered", **more)
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise ValueError('a scheduler needs Dask: pip install "cappaper[cluster]"') from error
    try:
        client = Client(jobs, set_as_default=False, timeout=10)
    except TypeError as error:  # Dask's sentence on a certificate that its configuration lacks
        raise ValueError(f"{jobs} needs certificates, in Dask's configuration: {error}") from error
    except OSError as error:
        raise OSError(f"no Dask scheduler answers at {jobs}") from error
    with client, parallel_config("dask", client=client):
        yield Parallel(-1, return_as="generator_unordered", batch_size=1)


def _call(i: int, function: Callable[..., Any], call: tuple[Any, ...]) -> tuple[int, Any]:
    with one_thread():
        return i, function(*call)
