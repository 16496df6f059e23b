"""Files that are whole or not there: written beside their place, and put there at once."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = re.compile(r"\.(\d+)@([^@]+)@[^@]*$")  # whose it is


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of ``path`` once the block has ended well.

    A reader sees the old file or the new one, never half of either; where the block fails, on a
    full disk for instance, nothing of it stays.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder) / "a.txt") as unfinished:
    ...         _ = unfinished.write_text("all of it")
    ...     [path.name for path in Path(folder).iterdir()]
    ['a.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _beside(path)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def together(folder: Path, name: str) -> Iterator[Path]:
    """A folder to write files to, which move to ``folder`` once the block has ended well.

    ``name`` is what they belong to. Where the block fails, those that were there stay.
    """
    unfinished = _beside(folder / name)
    unfinished.mkdir(parents=True, exist_ok=True)
    try:
        yield unfinished
        for path in unfinished.iterdir():
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.{os.getpid()}@{platform.node()}@{path.suffix}")


def sweep(folder: Path) -> None:
    """Remove what processes of this machine, killed since, have left unfinished in ``folder``."""
    for path in list(folder.rglob("*")):
        owner = _UNFINISHED.search(path.name)
        if owner and owner[2] == platform.node() and not _runs(int(owner[1])):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks, and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, and is someone else's
        pass
    return True
