"""Contests: several take turns at the same work, so that a busy moment slows all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pandas as pd
import torch

Work = Callable[[int, int], object]  # of batch size and seed; a float is the robust accuracy


class Hand(NamedTuple):
    """Who does the work, and the batch sizes to choose from."""

    work: Work
    batch_sizes: tuple[int, ...] = (0,)


def contest(name: str, hands: Mapping[str, Hand], repeats: int) -> pd.DataFrame:
    """A row for each hand: its median seconds at the batch size that suits it best.

    Hands take turns, ``repeats`` rounds of them, each with a seed of its own. ``ratio``: how many
    times the first hand's seconds this one takes, the median over rounds; ``low`` and ``high`` are
    its extremes. ``left``: mean robust accuracy over rounds, and ``error`` its standard error.
    """
    sizes = {who: _fastest(hand) for who, hand in hands.items()}
    rounds = [
        {"who": who, "round": seed, **_timed(hand.work, sizes[who], seed)}
        for seed in range(repeats)
        for who, hand in hands.items()
    ]
    table = pd.DataFrame(rounds)
    own = table.groupby("round")["seconds"].transform("first")
    groups = table.assign(work=name, ratio=table["seconds"] / own).groupby(
        ["work", "who"], sort=False
    )
    rows = groups.agg(
        seconds=("seconds", "median"),
        ratio=("ratio", "median"),
        low=("ratio", "min"),
        high=("ratio", "max"),
        left=("left", "mean"),
        error=("left", "sem"),
    )
    rows = rows.reset_index().assign(batch_size=list(sizes.values()), repeats=repeats)
    print(rows[["work", "who", "seconds", "ratio"]].to_string(index=False, header=False))
    return rows


def _fastest(hand: Hand) -> int:
    """The batch size of the fastest of single rounds, after one that warms everything up."""
    hand.work(hand.batch_sizes[0], 0)
    if len(hand.batch_sizes) == 1:
        return hand.batch_sizes[0]
    return min(hand.batch_sizes, key=lambda size: _timed(hand.work, size, 0)["seconds"])


def _timed(work: Work, size: int, seed: int) -> dict[str, float]:
    start = _now()
    left = work(size, seed)
    seconds = _now() - start
    return {"seconds": seconds, "left": left if isinstance(left, float) else math.nan}


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
