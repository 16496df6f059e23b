"""Files that are never half written: each is written beside its place, and then moved there."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = re.compile(r"\.(\d+)@([^@]+)@[^@]*$")  # process and machine


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write to, which replaces ``path`` when the block ends without an error."""
    unfinished = _beside(path)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def together(folder: Path, name: str) -> Iterator[Path]:
    """A folder for the files of ``name``; they move to ``folder`` if the block has no error."""
    unfinished = _beside(folder / name)
    unfinished.mkdir(exist_ok=True)
    try:
        yield unfinished
        for path in unfinished.iterdir():
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _beside(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{path.stem}.{os.getpid()}@{platform.node()}@{path.suffix}")


def sweep(folder: Path) -> None:
    """Remove the unfinished files in ``folder`` of this machine's processes that have ended."""
    for path in list(folder.rglob("*")):
        owner = _UNFINISHED.search(path.name)
        if owner and owner[2] == platform.node() and not _runs(int(owner[1])):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 does nothing but check
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
