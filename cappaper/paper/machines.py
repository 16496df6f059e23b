"""The device and the processes that do the work."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from cappaper import checks


@dataclass(frozen=True)
class Machine:
    """A device, ``"cpu"`` or ``"cuda"``, and the number of processes that work side by side."""

    device: str = "cpu"
    jobs: int = 1

    def __str__(self) -> str:
        """In words, for the provenance of a table."""
        if self.device == "cuda":
            return f"cuda ({torch.cuda.get_device_name()})"
        return f"{self.device} ({self.jobs} process{'es' * (self.jobs > 1)} of 1 thread)"


def machine(device: str = "auto", jobs: int = 1) -> Machine:
    """This machine: ``"auto"`` takes CUDA if there is any; a GPU gets one process.

    No result depends on ``jobs``. Bad values, and CUDA where there is none, raise a ValueError.
    """
    checks.one_of(device, ("auto", "cpu", "cuda"), "device")
    checks.count(jobs, "jobs")
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise ValueError("device 'cuda' was asked for, but torch sees no CUDA device: use 'cpu'")
    return Machine("cuda") if there and device != "cpu" else Machine("cpu", jobs)


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread inside the block: the rounding of sums depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], jobs: int, label: str = ""
) -> Iterator[tuple[int, Any]]:
    """Positions and results of ``function(*call)`` for every call, in the order they finish.

    ``jobs`` processes share the calls: the networks are too small for a second thread. With a
    ``label`` there is a progress bar.
    """
    from joblib import Parallel, delayed  # which the command check does not need

    # A bar is for a terminal, or for a kernel, which passes it on.
    watched = sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
    jobs = max(1, min(jobs, len(calls)))
    # After joblib's own five minutes an idle worker would end, with a warning in the chapter.
    more = {"pre_dispatch": jobs, "idle_worker_timeout": 3600} if jobs > 1 else {}
    workers = Parallel(jobs, return_as="generator_unordered", **more)
    finished = workers(delayed(_call)(i, function, call) for i, call in enumerate(calls))
    hidden = not (label and watched)
    yield from tqdm(finished, label, len(calls), leave=False, file=sys.stderr, disable=hidden)


def _call(i: int, function: Callable[..., Any], call: tuple[Any, ...]) -> tuple[int, Any]:
    with one_thread():
        return i, function(*call)
