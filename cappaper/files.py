"""Files that are never half written: each is written beside its place, and then moved there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A file to write to, which replaces ``path`` when the block ends without an error."""
    with atomic_folder(path.parent) as unfinished:
        yield unfinished / path.name


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to; its files move to ``folder`` when the block ends without an error."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(suffix=".partial", dir=folder) as unfinished:
        yield Path(unfinished)
        for path in Path(unfinished).iterdir():
            path.replace(folder / path.name)
