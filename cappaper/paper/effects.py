"""What a result table says of a claim: the effect that it measured.

``kept`` is the share of the correctly classified images that withstand an attack: one minus its
success rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import pandas as pd

from cappaper.paper.statistics import LEVEL, Effect, Measured, above, over_constant, widest
from cappaper.paper.tables import groups


class Lacking(Exception):
    """A table has the columns, but not the networks that are compared."""


class Measure(Protocol):
    """A table's effect, with an interval that misses the truth with the chance ``level``."""

    def __call__(self, table: pd.DataFrame, level: float = LEVEL) -> Effect: ...


def some_cap(
    value: str = "robust_accuracy", by: str = "beta", relu: Any = math.inf, **where: Any
) -> Measure:
    """What the best cap has more than ReLU."""

    def measure(table: pd.DataFrame, level: float = LEVEL) -> Effect:
        rows = _where(table, **where)
        if value == "kept":
            rows = rows.assign(kept=rows["robust_accuracy"] / rows["standard_accuracy"])
        networks = {name: Measured.of_rows(one, value) for name, one in groups(rows, by)}
        control = networks.pop(relu, None)
        if control is None or not networks:
            raise Lacking
        return above(networks, control, level)

    return measure


def one_cap(cap: float | None = None, **where: Any) -> Measure:
    """What one cap, or else the lowest, has more than ReLU."""

    def measure(table: pd.DataFrame, level: float = LEVEL) -> Effect:
        rows = _where(table, **where)
        chosen = rows["beta"].min() if cap is None else cap
        return some_cap()(rows[rows["beta"].isin([chosen, math.inf])], level)

    return measure


def winner_under_pgd(attack: str, eps: float, chosen_at: float) -> Measure:
    """What the cap that keeps most under PGD at another radius has more than ReLU."""

    def measure(table: pd.DataFrame, level: float = LEVEL) -> Effect:
        rows = _where(table, training_eps=0)
        under_pgd = _where(rows, attack="PGD", eps=chosen_at)
        mean = under_pgd["robust_accuracy"].groupby(under_pgd["beta"]).mean()
        mean = mean.drop(math.inf, errors="ignore")
        if mean.empty:
            raise Lacking
        rows = rows[rows["beta"].isin([mean.idxmax(), math.inf])]
        return some_cap(attack=attack, eps=eps)(rows, level)

    return measure


def placements(attack: str, eps: float, hidden: str) -> Measure:
    """At the lowest cap: the best choice of capped layers against the worst."""

    def measure(table: pd.DataFrame, level: float = LEVEL) -> Effect:
        rows = _where(table, attack=attack, eps=eps, architecture=hidden)
        return _between(_where(rows, beta=rows["beta"].min()), "placement", level)

    return measure


def shapes(attack: str, eps: float, beta: float, names: Sequence[str] = ()) -> Measure:
    """Of networks of equal size with the same cap: the best shape against the worst."""

    def measure(table: pd.DataFrame, level: float = LEVEL) -> Effect:
        rows = _where(table, attack=attack, eps=eps, beta=beta)
        rows = rows[rows["architecture"].isin(names)] if names else rows
        return _between(rows, "architecture", level)

    return measure


def growth(attack: str) -> Measure:
    """How much a relative L2 distance grows, last hidden layer over first, through deep ReLU."""

    def measure(table: pd.DataFrame, level: float = LEVEL) -> Effect:
        return over_constant("ReLU", _growths(table, attack)[math.inf], 1.0, level)

    return measure


def slower_growth(attack: str) -> Measure:
    """How much more that distance grows through ReLU than through the cap that slows it most."""

    def measure(table: pd.DataFrame, level: float = LEVEL) -> Effect:
        grown = {beta: Measured(-one.values) for beta, one in _growths(table, attack).items()}
        relu = grown.pop(math.inf)
        if not grown:
            raise Lacking
        gain = above(grown, relu, level)
        return gain._replace(ours=-gain.theirs, theirs=-gain.ours, name="ReLU", other=gain.name)

    return measure


def failing(initialisation: str) -> Measure:
    """The test error of the deepest network with the lowest cap, and of the same one with ReLU."""

    def measure(table: pd.DataFrame, level: float = LEVEL) -> Effect:
        rows = _where(table, trained=True, layer=1)
        rows = _where(rows, depth=rows["depth"].max())
        relu = _where(rows, beta=math.inf, initialisation="default")
        caps = _where(rows, initialisation=initialisation)
        caps = _where(caps, beta=caps["beta"].min())
        rows = pd.concat([relu, caps[caps["beta"] < math.inf]])
        return some_cap("error")(rows.assign(error=1 - rows["accuracy"]), level)

    return measure


def nearest() -> Measure:
    """How much farther away the nearest example of all searches lies: the median, in L2."""

    def measure(table: pd.DataFrame, level: float = LEVEL) -> Effect:
        found = table["median_l2"].groupby([table["beta"], table["seed"]]).min().reset_index()
        return some_cap("median_l2")(found, level)

    return measure


def _between(rows: pd.DataFrame, by: str, level: float) -> Effect:
    networks = {n: Measured.of_rows(one, "robust_accuracy") for n, one in groups(rows, by)}
    if len(networks) < 2:
        raise Lacking
    return widest(networks, level)


def _growths(table: pd.DataFrame, attack: str) -> dict[Any, Measured]:
    """For each β of the deepest architecture."""
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
