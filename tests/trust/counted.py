"""Trials, counted: each kind as often as it is asked for, and all that went wrong."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.trust.calls import trial
from tests.trust.cluster import worker_killed
from tests.trust.damage import damaged, judged
from tests.trust.disturbed import at_once, killed
from tests.trust.subjects import SUBJECTS

WHOLE = 10  # every so many damages the whole table is made again


@dataclass(frozen=True)
class Count:
    """What a kind of trial came to: cases, and a sentence for each that went wrong."""

    what: str
    cases: int
    wrong: list[str]
    said: str


def nonsense(cases: int, seed: int = 0) -> Count:
    draw, ends = random.Random(seed), []
    for _ in range(cases):
        ends.append(trial(draw, SUBJECTS))
    wrong = [f"{end.call}: {end.wrong}" for end in ends if end.wrong]
    refused = sum(end.refused for end in ends)
    said = f"{refused} got a sentence, {len(ends) - refused} a right answer"
    return Count("nonsense calls", cases, wrong, said)


def damage(cases: int, seed: int = 0) -> Count:
    draw, wrong = random.Random(seed), []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        sound = Path(folder) / "sound"
        patch.setenv("CAPPAPER_CACHE", str(sound))
        expected = judged()
        for case in range(cases):
            wrong += damaged(draw, sound, expected if case % WHOLE == 0 else None)
    said = f"each was named, none used; {-(-cases // WHOLE)} tables made again were equal"
    return Count("damaged cache entries", cases, wrong, said)


def kills(cases: int, seed: int = 0) -> Count:
    rounds = -(-cases // 3)
    wrong = [said for found in _rounds(killed, rounds, seed) for said in found]
    said = f"{rounds} runs of a chapter, each stopped by KILL, TERM and INT, then finished"
    return Count("runs stopped at a random moment", 3 * rounds, wrong, said)


def together(cases: int, seed: int = 0) -> Count:
    wrong = [said for found in _rounds(at_once, cases, seed) for said in found]
    said = "two or four at once, on a cold cache and then on a warm one"
    return Count("rounds of runs at once", cases, wrong, said)


def lost(cases: int, seed: int = 0) -> Count:
    wrong = [said for found in _rounds(worker_killed, cases, seed) for said in found]
    said = "one of two Dask workers is killed midway; the table is that of a run without a cluster"
    return Count("lost workers of a cluster", cases, wrong, said)


def _rounds(
    disturb: Callable[[random.Random, Path], list[str]], rounds: int, seed: int
) -> Iterator[list[str]]:
    draw = random.Random(seed)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            yield disturb(draw, Path(folder))


COUNTS: dict[str, tuple[Callable[[int, int], Count], int]] = {
    "nonsense": (nonsense, 5000),
    "damage": (damage, 500),
    "kills": (kills, 60),
    "together": (together, 20),
    "lost": (lost, 10),
}
