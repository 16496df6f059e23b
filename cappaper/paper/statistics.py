"""When a difference counts: by a confidence interval over seeds and images, and held-out choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from cappaper.paper.tables import ROBUST

LEVEL = 0.05  #: The chance of a wrong verdict on a claim; its tests share it (Bonferroni).
AS_MEASURED = math.inf  #: A level at which every difference counts as it was measured.
TEST_IMAGES = {"mnist": 10_000, "digits": 360}  #: A table with fewer images has drawn them.
CHOICE = {"best": 2.5, "widest": 4.0}
"""A divisor of the level: chosen on the others, the gains of single seeds are not independent.

In simulations without any difference, up to five seeds then decide wrongly in at most 5 % of cases.
"""


class Gain(NamedTuple):
    """What one network has more than another, for each seed.

    ``image_variance`` is that of the mean over seeds, from the choice of the test images.
    """

    by_seed: pd.Series
    image_variance: float = 0.0

    def interval(self, level: float) -> tuple[float, float]:
        """For the mean, at confidence 1 - ``level``: Student's t over seeds, normal over images.

        At :data:`AS_MEASURED` it is the mean alone.
        """
        mean, count = float(self.by_seed.mean()), len(self.by_seed)
        if level == AS_MEASURED:
            mean = round(mean, 9)  # 0.878 - 0.868 is above 0.01 in binary
            return mean, mean
        if count < 2:  # the spread over seeds is not known
            return -math.inf, math.inf
        t, z = special.stdtrit(count - 1, 1 - level / 2), special.ndtri(1 - level / 2)
        seeds = t * self.by_seed.std() / math.sqrt(count)
        half = math.hypot(seeds, z * math.sqrt(self.image_variance))
        return mean - half, mean + half

    def beyond(self, margin: float, level: float) -> bool | None:
        """Whether the mean exceeds a margin: None if the interval holds the margin."""
        low, high = self.interval(level)
        return True if low > margin else False if high < margin else None

    def text(self, level: float) -> str:
        """The mean, and its interval if it has one."""
        low, high = self.interval(level)
        mean = f"{self.by_seed.mean():+.3f}"
        return mean if level == AS_MEASURED else f"{mean} ({low:+.3f} to {high:+.3f})"


class Measured(NamedTuple):
    """One number per seed, in the order of the seeds; ``images`` were drawn from ``of``."""

    values: pd.Series
    images: int
    of: int
    robust: np.ndarray[Any, Any] | None = None  # 0 or 1, [seeds, images]

    @classmethod
    def of_rows(cls, rows: pd.DataFrame, value: str) -> Measured:
        """From one row for each seed. A table does not say how a median depends on the images."""
        if rows["seed"].duplicated().any():
            raise ValueError("a network has duplicate rows: the table holds one for each seed")
        rows = rows.sort_values("seed")
        images, of, robust = 0, 0, None
        if value not in ("accuracy", "median_l2"):
            images = int(rows["images"].to_numpy()[0])
            of = TEST_IMAGES[str(rows["dataset"].iloc[0])]
        if value == "robust_accuracy" and images < of:
            robust = np.array([[float(mark == ROBUST) for mark in row] for row in rows["outcomes"]])
        return cls(rows.set_index("seed")[value], images, of, robust)

    def minus(self, other: Measured) -> Gain:
        return difference([self] * len(self.values), [other] * len(self.values))

    def __str__(self) -> str:
        return mean_sd(self.values)


def mean_sd(values: pd.Series, digits: str = ".3f") -> str:
    """The mean over seeds and their standard deviation, or the one value there is."""
    mean = format(values.mean(), digits)
    return f"{mean} (± {format(values.std(), digits)})" if len(values) > 1 else mean


def difference(ours: Sequence[Measured], theirs: Sequence[Measured]) -> Gain:
    """What one network has more than another: a pair for each seed."""
    seeds, images, of = theirs[0].values.index, theirs[0].images, theirs[0].of
    our, their = (
        pd.Series([m.values[s] for s, m in zip(seeds, side, strict=True)], seeds)
        for side in (ours, theirs)
    )
    if images >= of:  # all there are
        return Gain(our - their)
    pairs = [(a.robust, b.robust) for a, b in zip(ours, theirs, strict=True)]
    both = [a[i] - b[i] for i, (a, b) in enumerate(pairs) if a is not None and b is not None]
    if len(both) == len(pairs):
        variance = float(np.mean(both, axis=0).var(ddof=1))
    else:  # as for two independent draws of images, which vary no less
        variance = sum(float(share.mean() * (1 - share.mean())) for share in (our, their))
    return Gain(our - their, variance / images * (1 - images / of))


def best_elsewhere(candidates: Mapping[Any, pd.Series]) -> list[Any]:
    """For each seed the candidate with the highest mean over all *other* seeds.

    A number that decides the choice may not judge the candidate too.

    >>> best_elsewhere({"a": pd.Series([1.0, 0.0, 0.0]), "b": pd.Series([0.4, 0.4, 0.4])})
    ['b', 'a', 'a']
    """
    names, values = list(candidates), np.array(list(candidates.values()))  # [candidates, seeds]
    seeds = range(values.shape[1])
    others = [np.delete(values, s, 1) if len(seeds) > 1 else values for s in seeds]
    return [names[int(other.mean(axis=1).argmax())] for other in others]


def best_beyond(
    pairs: Mapping[Any, tuple[Measured, Measured]], margin: float, level: float, choice: str
) -> tuple[bool | None, str, Any]:
    """Whether some first of a pair exceeds its second by more than a margin; the gain; the best.

    Yes by the pair with the largest gap on the other seeds; no if every single gap is smaller.
    ``choice`` is a key of :data:`CHOICE`.
    """
    gaps = {name: high.values - low.values for name, (high, low) in pairs.items()}
    highs, lows = zip(*(pairs[name] for name in best_elsewhere(gaps)), strict=True)
    gain, strict = difference(highs, lows), level / CHOICE[choice]
    answer = gain.beyond(margin, strict)
    if answer is not True:
        singles = (high.minus(low).beyond(margin, level) for high, low in pairs.values())
        answer = False if all(single is False for single in singles) else None
    return answer, gain.text(strict), max(gaps, key=lambda name: gaps[name].mean())


def some_beyond(
    candidates: Mapping[Any, Measured], other: Measured, margin: float, level: float
) -> tuple[bool | None, str, Any]:
    """Whether some candidate exceeds another network by more than a margin; the gain; the best."""
    pairs = {name: (measured, other) for name, measured in candidates.items()}
    return best_beyond(pairs, margin, level, "best")


def survives(gains: Sequence[Gain], share: float, level: float) -> bool | None:
    """Whether more than a share of the first gain is left in the second; None if it is no gain."""
    (first, second), level = gains, level / CHOICE["best"]
    # As for two independent draws of images, which vary no less.
    variance = second.image_variance + share**2 * first.image_variance
    rest = Gain(second.by_seed - share * first.by_seed, variance)
    return rest.beyond(0, level) if first.beyond(0, level) else None
