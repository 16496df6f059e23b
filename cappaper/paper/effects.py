"""What a result table says of a claim: effects, with intervals over seeds and test images.

``kept`` is the share of the correctly classified images that withstand an attack: one minus its
success rate. ``where`` gives columns, and the value that a row must have in each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from cappaper.paper.tables import ROBUST, groups

LEVEL = 0.05  #: The chance that an interval misses the truth.
TEST_IMAGES = {"mnist": 10_000, "digits": 360}  #: A table with fewer images has a sample of them.


class Measured(NamedTuple):
    """A number per seed, measured on ``images`` test images, a share ``drawn`` of all.

    ``which`` is a checksum of the images; "" if it is not known.
    """

    values: pd.Series
    images: int = 0
    drawn: float = 1.0
    which: str = ""
    robust: np.ndarray[Any, Any] | None = None  # 0 or 1, [seeds, images]

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @classmethod
    def of_rows(cls, rows: pd.DataFrame, value: str) -> Measured:
        """Read one row for each seed; two rows for a seed raise a ValueError."""
        if rows["seed"].duplicated().any():
            raise ValueError("a network has duplicate rows: the table holds one for each seed")
        rows = rows.sort_values("seed")
        values = rows.set_index("seed")[value]
        if value not in ("robust_accuracy", "kept") or not len(rows):
            return cls(values)
        images = int(rows["images"].iloc[0])
        drawn = images / TEST_IMAGES[str(rows["dataset"].iloc[0])]
        which = " ".join(sorted(set(rows["judged_on"]))) if "judged_on" in rows else ""
        if value == "kept" or "outcomes" not in rows or rows["outcomes"].isna().any():
            return cls(values, images, drawn, which)
        robust = np.array([[mark == ROBUST for mark in row] for row in rows["outcomes"]], float)
        return cls(values, images, drawn, which, robust)


class Effect(NamedTuple):
    """By how much one network exceeds another in the mean over seeds, with an interval.

    The interval allows for the choice of ``name`` among several candidates.
    """

    name: Any
    ours: float
    theirs: float
    low: float
    high: float
    other: Any = "ReLU"


def above(candidates: Mapping[Any, Measured], control: Measured) -> Effect:
    """The candidate with the highest mean against a control.

    By Student's t with the pooled variance of all networks, corrected for as many comparisons as
    there are candidates (Bonferroni): a little wider than Dunnett's intervals.
    """
    best = max(candidates, key=lambda name: candidates[name].mean)
    ours, networks = (best, candidates[best]), [*candidates.values(), control]
    return _difference(ours, ("ReLU", control), networks, len(candidates))


def widest(networks: Mapping[Any, Measured]) -> Effect:
    """The highest mean of several against the lowest: as :func:`above`, over all pairs."""
    low, *_, high = sorted(networks.items(), key=lambda item: item[1].mean)
    return _difference(high, low, list(networks.values()), math.comb(len(networks), 2))


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
    """The effect; its interval is infinite if the spread over seeds is unknown."""
    (name, one), (other, two) = ours, theirs
    if len({network.which for network in networks}) > 1:
        raise ValueError("the networks were judged on different images: compare them on the same")
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
    """The variance of a difference due to the draw of the test images, which both share."""
    if one.drawn >= 1:
        return 0.0
    if one.robust is not None and other.robust is not None:
        variance = float((one.robust.mean(axis=0) - other.robust.mean(axis=0)).var(ddof=1))
    else:  # as for two independent draws, which vary no less
        variance = sum(network.mean * (1 - network.mean) for network in (one, other))
    return variance / one.images * (1 - one.drawn)


class Lacking(Exception):
    """A table has the columns, but not the networks that are compared."""


def some_cap(
    table: pd.DataFrame,
    value: str = "robust_accuracy",
    by: str = "beta",
    relu: Any = math.inf,
    **where: Any,
) -> Effect:
    """By how much the best cap exceeds ReLU."""
    rows = _where(table, **where)
    if value == "kept":
        rows = rows.assign(kept=rows["robust_accuracy"] / rows["standard_accuracy"])
    networks = {name: Measured.of_rows(one, value) for name, one in groups(rows, by)}
    control = networks.pop(relu, None)
    if control is None or not networks:
        raise Lacking
    return above(networks, control)


def one_cap(table: pd.DataFrame, cap: float | None = None, **where: Any) -> Effect:
    """By how much one cap, by default the lowest, exceeds ReLU."""
    rows = _where(table, **where)
    chosen = rows["beta"].min() if cap is None else cap
    return some_cap(rows[rows["beta"].isin([chosen, math.inf])])


def winner_under_pgd(table: pd.DataFrame, attack: str, eps: float, chosen_at: float) -> Effect:
    """By how much the cap that keeps most under PGD at another radius exceeds ReLU."""
    rows = _where(table, training_eps=0)
    under_pgd = _where(rows, attack="PGD", eps=chosen_at)
    mean = under_pgd["robust_accuracy"].groupby(under_pgd["beta"]).mean()
    mean = mean.drop(math.inf, errors="ignore")
    if mean.empty:
        raise Lacking
    best: Any = mean.idxmax()
    return one_cap(rows, best, attack=attack, eps=eps)


def best_and_worst(table: pd.DataFrame, by: str, among: Sequence[str] = (), **where: Any) -> Effect:
    """The best against the worst of networks that differ in ``by``, or of those ``among`` them."""
    rows = _where(table, **where)
    rows = rows[rows[by].isin(among)] if among else rows
    networks = {n: Measured.of_rows(one, "robust_accuracy") for n, one in groups(rows, by)}
    if len(networks) < 2:
        raise Lacking
    return widest(networks)


def growth(table: pd.DataFrame, attack: str) -> Effect:
    """The relative L2 distance at the last hidden layer over that at the first, in a deep ReLU."""
    return over_constant("ReLU", _growths(table, attack)[math.inf], 1.0)


def slower_growth(table: pd.DataFrame, attack: str) -> Effect:
    """By how much the :func:`growth` in ReLU exceeds that in the cap that slows it most."""
    grown = {beta: Measured(-one.values) for beta, one in _growths(table, attack).items()}
    relu = grown.pop(math.inf)
    if not grown:
        raise Lacking
    gain = above(grown, relu)
    return gain._replace(ours=-gain.theirs, theirs=-gain.ours, name="ReLU", other=gain.name)


def failing(table: pd.DataFrame, initialisation: str) -> Effect:
    """By how much the deepest network's test error with the lowest cap exceeds that with ReLU."""
    rows = _where(table, trained=True, layer=1)
    rows = _where(rows, depth=rows["depth"].max())
    relu = _where(rows, beta=math.inf, initialisation="default")
    caps = _where(rows, initialisation=initialisation)
    caps = _where(caps, beta=caps["beta"].min())
    rows = pd.concat([relu, caps[caps["beta"] < math.inf]])
    return some_cap(rows.assign(error=1 - rows["accuracy"]), "error")


def _growths(table: pd.DataFrame, attack: str) -> dict[Any, Measured]:
    """The growth for each β in the deepest architecture, a number per seed."""
    rows = _where(table, attack=attack)
    if not (rows["beta"] == math.inf).any():
        raise Lacking
    rows = _where(rows, architecture=rows.sort_values("layer")["architecture"].iloc[-1])
    ratios = {}
    for beta, group in groups(rows, "beta"):
        wide = group["relative_l2"].groupby([group["seed"], group["layer"]]).first().unstack()
        ratios[beta] = Measured(wide.iloc[:, -1] / wide.iloc[:, 0])
    return ratios


def _where(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows that have these values."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table
