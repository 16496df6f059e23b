"""Contests: the same work by several hands, in turns, so that a busy moment hits all of them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

Row = dict[str, Any]


class Hand(NamedTuple):
    """Who does the work. ``do``: takes batch size and seed, returns the share left, or None."""

    do: Callable[[int, int], float | None]
    batch_sizes: tuple[int, ...] = (0,)


def contest(work: str, hands: Mapping[str, Hand], device: str, repeats: int) -> list[Row]:
    """A row for each hand: its median seconds at the batch size that suits it best.

    Hands take turns, ``repeats`` rounds of them, each with a seed of its own. ``ratio``: how many
    times the first hand's seconds this one takes, the median over rounds; ``low`` and ``high`` are
    its extremes. ``left``: the mean over rounds, and ``error`` its standard error.
    """
    best = {name: _fastest(hand, device) for name, hand in hands.items()}
    seconds: dict[str, list[float]] = {name: [] for name in hands}
    left: dict[str, list[float]] = {name: [] for name in hands}
    for seed in range(repeats):
        for name, hand in hands.items():
            took, share = _timed(hand.do, best[name], seed, device)
            seconds[name].append(took)
            left[name] += [] if share is None else [share]
    own = seconds[next(iter(hands))]
    rows = []
    for name, times in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(times, own, strict=True)]
        rows.append(
            {
                "work": work,
                "who": name,
                "seconds": statistics.median(times),
                "ratio": statistics.median(ratios),
                "low": min(ratios),
                "high": max(ratios),
                "left": statistics.mean(left[name]) if left[name] else None,
                "error": _error(left[name]),
                "batch_size": best[name],
                "repeats": repeats,
            }
        )
        print(f"{work}: {name} {rows[-1]['seconds']:.3g} s, × {rows[-1]['ratio']:.2f}", flush=True)
    return rows


def _fastest(hand: Hand, device: str) -> int:
    """The batch size of one quick round; which also warms everything up."""
    if len(hand.batch_sizes) == 1:
        hand.do(hand.batch_sizes[0], 0)
        return hand.batch_sizes[0]
    hand.do(hand.batch_sizes[0], 0)
    return min(hand.batch_sizes, key=lambda size: _timed(hand.do, size, 0, device)[0])


def _error(shares: list[float]) -> float | None:
    few = len(shares) < 2
    return None if few else statistics.stdev(shares) / math.sqrt(len(shares))


def _timed(
    do: Callable[[int, int], float | None], size: int, seed: int, device: str
) -> tuple[float, float | None]:
    _wait(device)
    start = time.perf_counter()
    left = do(size, seed)
    _wait(device)
    return time.perf_counter() - start, left


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
