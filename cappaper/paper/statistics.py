"""Differences between networks, with intervals over their seeds and the test images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from cappaper.paper.tables import ROBUST

LEVEL = 0.05  #: The chance that an interval misses the truth.
TEST_IMAGES = {"mnist": 10_000, "digits": 360}  #: A table with fewer images has drawn them.


class Measured(NamedTuple):
    """A number per seed. ``images`` test images, a share ``drawn``, stand for all of them."""

    values: pd.Series
    images: int = 0
    drawn: float = 1.0
    robust: np.ndarray[Any, Any] | None = None  # 0 or 1, [seeds, images]

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @classmethod
    def of_rows(cls, rows: pd.DataFrame, value: str) -> Measured:
        """From one row for each seed.

        Raises:
            ValueError: a seed has two rows.
        """
        if rows["seed"].duplicated().any():
            raise ValueError("a network has duplicate rows: the table holds one for each seed")
        rows = rows.sort_values("seed")
        values = rows.set_index("seed")[value]
        if value not in ("robust_accuracy", "kept") or not len(rows):
            return cls(values)
        images = int(rows["images"].iloc[0])
        drawn = images / TEST_IMAGES[str(rows["dataset"].iloc[0])]
        if value == "kept" or drawn == 1 or "outcomes" not in rows or rows["outcomes"].isna().any():
            return cls(values, images, drawn)
        robust = np.array([[mark == ROBUST for mark in row] for row in rows["outcomes"]], float)
        return cls(values, images, drawn, robust)


class Effect(NamedTuple):
    """What one network has more than another, in the mean over seeds, and its interval.

    The interval allows for the choice of ``name`` among several candidates.
    """

    name: Any
    ours: float
    theirs: float
    low: float
    high: float
    other: Any = "ReLU"

    @property
    def mean(self) -> float:
        return self.ours - self.theirs


def above(candidates: Mapping[Any, Measured], control: Measured) -> Effect:
    """The candidate with the highest mean against a control.

    By Student's t with the pooled variance of all networks, corrected for as many comparisons as
    there are candidates (Bonferroni): a little wider than Dunnett's intervals.
    """
    best = max(candidates, key=lambda name: candidates[name].mean)
    ours, networks = (best, candidates[best]), [*candidates.values(), control]
    return _difference(ours, ("ReLU", control), networks, len(candidates))


def widest(groups: Mapping[Any, Measured]) -> Effect:
    """The highest mean of several against the lowest: as :func:`above`, over all pairs."""
    low, *_, high = sorted(groups.items(), key=lambda item: item[1].mean)
    return _difference(high, low, list(groups.values()), math.comb(len(groups), 2))


def over_constant(name: Any, network: Measured, constant: float) -> Effect:
    """A mean over seeds against a number, by Student's t."""
    count, half = len(network.values), math.inf
    if count > 1:
        t = special.stdtrit(count - 1, 1 - LEVEL / 2)
        half = t * float(network.values.std()) / math.sqrt(count)
    gain = network.mean - constant
    return Effect(name, network.mean, constant, gain - half, gain + half, "no growth")


def _difference(
    ours: tuple[Any, Measured],
    theirs: tuple[Any, Measured],
    networks: Sequence[Measured],
    comparisons: int,
) -> Effect:
    """An infinite interval where the spread over seeds is unknown."""
    (name, one), (other, two) = ours, theirs
    freedom = sum(len(network.values) - 1 for network in networks)
    half, tail = math.inf, LEVEL / comparisons / 2
    if freedom:
        squares = [((n.values - n.mean) ** 2).sum() for n in networks]
        variance = sum(squares) / freedom * (1 / len(one.values) + 1 / len(two.values))
        seeds = special.stdtrit(freedom, 1 - tail) * math.sqrt(variance)
        images = special.ndtri(1 - tail) * math.sqrt(_image_variance(one, two))
        half = math.hypot(seeds, images)
    gain = one.mean - two.mean
    return Effect(name, one.mean, two.mean, gain - half, gain + half, other)


def _image_variance(one: Measured, other: Measured) -> float:
    """Of a difference, from the draw of the test images, which the networks share."""
    if one.drawn >= 1:
        return 0.0
    if one.robust is not None and other.robust is not None:
        variance = float((one.robust.mean(axis=0) - other.robust.mean(axis=0)).var(ddof=1))
    else:  # as for two independent draws, which vary no less
        variance = sum(network.mean * (1 - network.mean) for network in (one, other))
    return variance / one.images * (1 - one.drawn)
