"""Files that are whole or not there: written beside their place, and put there at once."""

from __future__ import annotations

import os
import platform
import re
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
    unfinished = path.with_name(f"{path.stem}.{os.getpid()}@{platform.node()}@{path.suffix}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes of this machine, killed since, have left unfinished in ``folder``."""
    for path in folder.rglob("*"):
        owner = _UNFINISHED.search(path.name)
        if owner and owner[2] == platform.node() and not _runs(int(owner[1])):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # asks, and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, and is someone else's
        pass
    return True
