"""Differences between networks, with intervals over their seeds and the test images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

from cappaper.paper.tables import ROBUST

LEVEL = 0.05  #: The chance that an interval misses the truth.
TEST_IMAGES = {"mnist": 10_000, "digits": 360}  #: A table with fewer images has drawn them.


class Measured(NamedTuple):
    """A number per seed. ``images`` test images, a share ``drawn``, stand for all of them."""

    values: pd.Series
    images: int = 0
    drawn: float = 1.0
    robust: np.ndarray[Any, Any] | None = None  # 0 or 1, [seeds, images]

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


def above(candidates: Mapping[Any, Measured], control: Measured, level: float = LEVEL) -> Effect:
    """The candidate with the highest mean against a control, by Dunnett's test.

    ``scipy.stats.dunnett`` has the intervals of all candidates hold together, over seeds; the draw
    of the test images widens them. One seed has no interval: it is infinite.
    """
    best = max(candidates, key=lambda name: float(candidates[name].values.mean()))
    samples = [one.values.to_numpy() for one in (*candidates.values(), control)]
    half = math.inf
    if all(len(sample) > 1 for sample in samples):
        tested = stats.dunnett(*samples[:-1], control=samples[-1], rng=np.random.default_rng(0))
        place, bounds = list(candidates).index(best), tested.confidence_interval(1 - level)
        half = (bounds.high[place] - bounds.low[place]) / 2
    return _effect(best, half, candidates[best], control, level)


def widest(groups: Mapping[Any, Measured], level: float = LEVEL) -> Effect:
    """The highest mean of several against the lowest, by Tukey's test of all pairs."""
    order = sorted(groups, key=lambda name: float(groups[name].values.mean()))
    samples = [groups[name].values.to_numpy() for name in order]
    half = math.inf
    if all(len(sample) > 1 for sample in samples):
        bounds = stats.tukey_hsd(*samples).confidence_interval(1 - level)
        half = (bounds.high[-1, 0] - bounds.low[-1, 0]) / 2
    high, low = groups[order[-1]], groups[order[0]]
    return _effect(order[-1], half, high, low, level)._replace(other=order[0])


def over_constant(name: Any, values: pd.Series, constant: float, level: float = LEVEL) -> Effect:
    """A mean over seeds against a number, by Student's t."""
    mean, half = float(values.mean()), math.inf
    if len(values) > 1:
        bounds = stats.ttest_1samp(values, constant).confidence_interval(1 - level)
        half = float(bounds.high - bounds.low) / 2
    gain = mean - constant
    return Effect(name, mean, constant, gain - half, gain + half, "no growth")


def _effect(name: Any, half: float, one: Measured, other: Measured, level: float) -> Effect:
    ours, theirs = float(one.values.mean()), float(other.values.mean())
    z = special.ndtri(1 - level / 2)
    half = math.hypot(half, z * math.sqrt(_image_variance(one, other)))
    return Effect(name, ours, theirs, ours - theirs - half, ours - theirs + half)


def _image_variance(one: Measured, other: Measured) -> float:
    """Of a difference, from the draw of the test images, which the networks share."""
    if one.drawn >= 1:
        return 0.0
    if one.robust is not None and other.robust is not None:
        variance = float((one.robust.mean(axis=0) - other.robust.mean(axis=0)).var(ddof=1))
    else:  # as for two independent draws, which vary no less
        means = [float(m.values.mean()) for m in (one, other)]
        variance = sum(share * (1 - share) for share in means)
    return variance / one.images * (1 - one.drawn)
