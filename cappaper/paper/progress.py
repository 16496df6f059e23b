"""Where long work stands, told wherever someone is looking: terminal, notebook or command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS_FILE = "CAPPAPER_STATUS"
"""Names a file that is to hold the latest line: how the command line looks into a kernel."""


def report(line: str) -> None:
    """Show ``line`` in place of the line before."""
    status = os.environ.get(STATUS_FILE)
    if status:
        Path(status).write_text(line)
    elif _in_notebook():
        _clear_cell(wait=True)
        print(line)
    elif sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


@contextmanager
def reporting() -> Iterator[None]:
    """Reports inside the block leave no trace after it: not in a notebook's outputs either."""
    try:
        yield
    finally:
        status = os.environ.get(STATUS_FILE)
        if status:
            Path(status).write_text("")
        elif _in_notebook():
            _clear_cell(wait=False)
        elif sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _clear_cell(wait: bool) -> None:
    from IPython.display import clear_output

    clear_output(wait=wait)


def _in_notebook() -> bool:
    # Asked of IPython only where it is loaded already: it takes longer than all the rest.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")
