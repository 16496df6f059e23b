"""When a difference counts: by a confidence interval over seeds and images, and held-out choice."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from cappaper.paper.tables import ROBUST

LEVEL = 0.05
"""The chance that one claim gets a wrong verdict, at most; its tests share it (Bonferroni)."""

AS_MEASURED = math.inf
"""A level at which every difference counts as it was measured: the answer of one seed alone."""

TEST_IMAGES = {"mnist": 10_000, "digits": 360}
"""A table that judged fewer images has drawn them, and another draw would give other numbers."""

CHOICE = {"best": 2.5, "widest": 4.0}
"""By how much a choice costs level: made on the other seeds, it still knows a little of its own.

Simulated without any difference, up to five seeds then decide wrongly in 5 % of all cases at most;
more seeds leave a choice more to know.
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

        >>> low, high = Gain(pd.Series([0.5, 0.6, 0.55])).interval(0.05)
        >>> round(low, 3), round(high, 3)
        (0.426, 0.674)
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
        """Whether the mean exceeds a margin: None if the interval holds the margin.

        >>> Gain(pd.Series([0.5, 0.6, 0.55])).beyond(0.01, 0.05)
        True
        """
        low, high = self.interval(level)
        return True if low > margin else False if high < margin else None

    def text(self, level: float) -> str:
        """The mean, and its interval if it has one."""
        low, high = self.interval(level)
        mean = f"{self.by_seed.mean():+.3f}"
        return mean if level == AS_MEASURED else f"{mean} ({low:+.3f} to {high:+.3f})"


class Measured(NamedTuple):
    """One number per seed, in the order of the seeds, with what is known of the images behind."""

    values: pd.Series
    images: int
    of: int
    stands: np.ndarray[Any, Any] | None = None  # [seeds, images]

    @classmethod
    def of_rows(cls, rows: pd.DataFrame, value: str) -> Measured:
        """From one row for each seed.

        An ``accuracy`` is one of all images; how a median depends on them, a table does not say.
        """
        if rows["seed"].duplicated().any():
            raise ValueError("a network has duplicate rows: the table holds one for each seed")
        rows = rows.sort_values("seed")
        images, of, stands = 0, 0, None
        if value not in ("accuracy", "median_l2"):
            images = int(rows["images"].to_numpy()[0])
            of = TEST_IMAGES[str(rows["dataset"].iloc[0])]
        if value == "robust_accuracy" and images < of:
            stands = np.array([[mark == ROBUST for mark in row] for row in rows["outcomes"]])
        return cls(rows.set_index("seed")[value], images, of, stands)

    def minus(self, other: Measured) -> Gain:
        return difference([self] * len(self.values), [other] * len(self.values))


def difference(ours: Sequence[Measured], theirs: Sequence[Measured]) -> Gain:
    """What one network has more than another: a pair for each seed."""
    seeds = theirs[0].values.index
    pairs = list(zip(seeds, ours, theirs, strict=True))
    by_seed = pd.Series([our.values[s] - their.values[s] for s, our, their in pairs], seeds)
    images, of = theirs[0].images, theirs[0].of
    if images >= of:  # all there are
        return Gain(by_seed)
    stands = [(our.stands, their.stands) for _, our, their in pairs]
    both = [(a[i], b[i]) for i, (a, b) in enumerate(stands) if a is not None and b is not None]
    if len(both) == len(pairs):
        each = np.array([a.astype(float) - b for a, b in both]).mean(axis=0)
        variance = float(each.var(ddof=1))
    else:  # as if the two had been judged on images of their own: no less than it is
        means = [
            np.mean([m.values[s] for s, m in zip(seeds, side, strict=True)])
            for side in (ours, theirs)
        ]
        variance = sum(float(p) * (1 - float(p)) for p in means)
    return Gain(by_seed, variance / images * (1 - images / of))


def best_elsewhere(candidates: Mapping[Any, pd.Series]) -> list[Any]:
    """For each seed the candidate with the highest mean over all *other* seeds.

    Who is chosen because of a number may not be judged by it.

    >>> best_elsewhere({"a": pd.Series([1.0, 0.0, 0.0]), "b": pd.Series([0.4, 0.4, 0.4])})
    ['b', 'a', 'a']
    """
    names, values = list(candidates), np.array(list(candidates.values()))  # [candidates, seeds]
    seeds = range(values.shape[1])
    others = [
        values.mean(axis=1) if len(seeds) < 2 else np.delete(values, s, 1).mean(1) for s in seeds
    ]
    return [names[int(mean.argmax())] for mean in others]


def some_beyond(
    candidates: Mapping[Any, Measured], other: Measured, margin: float, level: float
) -> tuple[bool | None, str]:
    """Whether some candidate exceeds another network by more than a margin; the gain, in words.

    Yes by the candidate that is best on the other seeds; no if every single one stays below.
    """
    names = best_elsewhere({name: m.values for name, m in candidates.items()})
    gain = difference([candidates[name] for name in names], [other] * len(names))
    answer = gain.beyond(margin, level / CHOICE["best"])
    if answer is not True:
        each = [m.minus(other).beyond(margin, level) for m in candidates.values()]
        answer = False if all(a is False for a in each) else None
    return answer, gain.text(level / CHOICE["best"])


def widest_beyond(
    groups: Sequence[Mapping[Any, Measured]], margin: float, level: float
) -> tuple[bool | None, str, Measured, Measured]:
    """Whether the widest gap inside a group exceeds a margin; the gap in words, and its two ends.

    Yes by the pair that is furthest apart on the other seeds; no if every pair is closer.
    """
    pairs = [pair for group in groups for pair in itertools.permutations(group.values(), 2)]
    gaps = {i: high.values - low.values for i, (high, low) in enumerate(pairs)}
    elsewhere = [pairs[i] for i in best_elsewhere(gaps)]
    gain = difference([high for high, _ in elsewhere], [low for _, low in elsewhere])
    answer = gain.beyond(margin, level / CHOICE["widest"])
    if answer is not True:
        each = [high.minus(low).beyond(margin, level) for high, low in pairs]
        answer = False if all(a is False for a in each) else None
    widest = max(gaps, key=lambda i: gaps[i].mean())
    return answer, gain.text(level / CHOICE["widest"]), *pairs[widest]
