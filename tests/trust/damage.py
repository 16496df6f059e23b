"""Cache entries that are damaged, or another's: none may be used."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from cappaper import paper
from cappaper.paper import cache


def _specs() -> list[paper.Spec]:
    return paper.sweep(paper.profile("quick", betas=[0.1, 1.0], seeds=[0, 1], epochs=1))


def judged() -> pd.DataFrame:
    """A small table from the cache, or computed where there is none."""
    return paper.run(_specs(), paper.PGD(3), [0.1]).drop(columns="seconds")


def _cut(data: bytes, draw: random.Random, other: bytes) -> bytes:
    return data[: draw.randrange(len(data))]


def _zeroed(data: bytes, draw: random.Random, other: bytes) -> bytes:
    start = draw.randrange(len(data))
    end = draw.randrange(start, len(data)) + 1
    return data[:start] + bytes(end - start) + data[end:]


def _flipped(data: bytes, draw: random.Random, other: bytes) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def _foreign(data: bytes, draw: random.Random, other: bytes) -> bytes:
    return other


def _mixed(data: bytes, draw: random.Random, other: bytes) -> bytes:
    """This entry's own first line, another's content."""
    return data.partition(b"\n")[0] + b"\n" + other.partition(b"\n")[2]


def _emptied(data: bytes, draw: random.Random, other: bytes) -> bytes:
    return data.partition(b"\n")[0] + b"\n" + json.dumps({"rows": []}).encode()


def _poisoned(data: bytes, draw: random.Random, other: bytes) -> bytes:
    """NaN in place of a number."""
    place = draw.randrange(max(1, len(data) - 4))
    nan = torch.tensor(float("nan")).numpy().tobytes()
    return data[:place] + nan + data[place + 4 :]


DAMAGES: list[Callable[[bytes, random.Random, bytes], bytes]] = [
    _cut,
    _zeroed,
    _flipped,
    _foreign,
    _mixed,
    _emptied,
    _poisoned,
]


def damaged(draw: random.Random, sound: Path, expected: pd.DataFrame | None = None) -> list[str]:
    """Damage an entry of the cache ``sound`` in a copy: it must be named, and not be used.

    With ``expected`` the table is made again from that cache, and must be this one.
    """
    folder = sound.with_name("damaged")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sound, folder)
    entry, other = draw.sample(sorted(folder.rglob("*.kept")), 2)
    before, how, after = entry.read_bytes(), draw.choice(DAMAGES), b""
    while after in (b"", before):  # zeroes in place of zeroes are no damage
        after = how(before, draw, other.read_bytes())
    entry.write_bytes(after)
    what, wrong = f"{how.__name__.strip('_')} entry of {entry.parent.name}", []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if cache.recall(entry) is not None:
            wrong.append(f"{what} was used")
    if not any(entry.name in str(warning.message) for warning in caught):
        wrong.append(f"{what} was not named")
    if expected is not None:
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch.setenv("CAPPAPER_CACHE", str(folder))
            if not judged().equals(expected):
                wrong.append(f"{what} changed the table")
    return wrong
