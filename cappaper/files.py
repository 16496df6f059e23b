"""Files that are never half written: each is written beside its place, and then moved there."""

import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A file to write to, which replaces ``path`` when the block ends without an error."""
    with atomic_folder(path.parent, path.name) as unfinished:
        yield unfinished / path.name


@contextmanager
def atomic_folder(folder: Path, name: str) -> Iterator[Path]:
    """A folder for the files of ``name``; they move to ``folder`` if the block has no error."""
    unfinished = folder / f"{name}.{os.getpid()}@{platform.node()}@"
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        yield unfinished
        for path in unfinished.iterdir():
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished folders in ``folder`` of this machine's processes that have ended."""
    for path in list(folder.rglob("*@")):
        owner = re.search(r"\.(\d+)@([^@]+)@$", path.name)  # process and machine
        if owner and owner[2] == platform.node():
            try:
                os.kill(int(owner[1]), 0)  # signal 0 does nothing but check
            except PermissionError:  # it runs, and belongs to another user
                pass
            except OSError:
                shutil.rmtree(path, ignore_errors=True)
