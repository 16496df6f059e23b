"""Damaged or exchanged cache entries: a warning names each, and none is used."""

import functools
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from cappaper import paper

# How an entry is damaged: from its bytes, another entry's bytes, and a position.
DAMAGES: dict[str, Callable[[bytes, bytes, int], bytes]] = {
    "cut": lambda data, other, at: data[:at],
    "zeroed": lambda data, other, at: data[:at] + bytes(len(data) - at),
    "flipped": lambda data, other, at: data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :],
    "poisoned": lambda data, other, at: data[:at] + b"\x00\x00\xc0\x7f" + data[at + 4 :],  # NaN
    "foreign": lambda data, other, at: other,
    "mixed": lambda data, other, at: data.split(b"\n")[0] + b"\n" + other.partition(b"\n")[2],
    "emptied": lambda data, other, at: data.split(b"\n")[0] + b'\n{"rows": []}',
}


def trial(draw: random.Random, folder: Path) -> None:
    """Damage an entry of a cache: a run with that cache names it, and has the same table."""
    cache, expected = _sound()
    shutil.copytree(cache, folder / "cache")
    entry, other = draw.sample(sorted((folder / "cache").rglob("*.kept")), 2)
    before, name, after = entry.read_bytes(), draw.choice(sorted(DAMAGES)), b""
    while after in (b"", before):  # zeros in place of zeros are no damage
        after = DAMAGES[name](before, other.read_bytes(), draw.randrange(len(before)))
    entry.write_bytes(after)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Three steps need the results in the cache, and four the weights.
        tables = _tables(folder / "cache", 3, 4)
    what = f"the {name} entry of {entry.parent.name}"
    assert any(entry.name in str(warning.message) for warning in caught), f"{what} is not named"
    assert tables.equals(expected), f"{what} changed the table"


@functools.cache
def _sound() -> tuple[Path, pd.DataFrame]:
    """A cache without damage, and the tables that runs with it should have."""
    folder = Path(tempfile.mkdtemp())
    _tables(folder / "cache", 3)
    shutil.copytree(folder / "cache", folder / "copy")
    return folder / "cache", _tables(folder / "copy", 3, 4)


def _tables(cache: Path, *steps: int) -> pd.DataFrame:
    specs = paper.sweep(paper.profile("quick", betas=[0.1, 1.0], seeds=[0, 1], epochs=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPPAPER_CACHE", str(cache))
        tables = [paper.run(specs, paper.PGD(count), [0.1]) for count in steps]
        return pd.concat(tables).drop(columns="seconds")
