"""What a result table says of a claim: functions from a table to the effect that it measured.

``kept`` is the share of the correctly classified images that withstand an attack: one minus its
success rate. ``where`` are columns and the values that count in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from cappaper.paper.statistics import Effect, Measured, above, over_constant, widest
from cappaper.paper.tables import groups


class Lacking(Exception):
    """A table has the columns, but not the networks that are compared."""


def some_cap(
    table: pd.DataFrame,
    value: str = "robust_accuracy",
    by: str = "beta",
    relu: Any = math.inf,
    **where: Any,
) -> Effect:
    """What the best cap has more than ReLU."""
    rows = _where(table, **where)
    if value == "kept":
        rows = rows.assign(kept=rows["robust_accuracy"] / rows["standard_accuracy"])
    networks = {name: Measured.of_rows(one, value) for name, one in groups(rows, by)}
    control = networks.pop(relu, None)
    if control is None or not networks:
        raise Lacking
    return above(networks, control)


def one_cap(table: pd.DataFrame, cap: float | None = None, **where: Any) -> Effect:
    """What one cap, or else the lowest, has more than ReLU."""
    rows = _where(table, **where)
    chosen = rows["beta"].min() if cap is None else cap
    return some_cap(rows[rows["beta"].isin([chosen, math.inf])])


def winner_under_pgd(table: pd.DataFrame, attack: str, eps: float, chosen_at: float) -> Effect:
    """What the cap that keeps most under PGD at another radius has more than ReLU."""
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
    """How much a relative L2 distance grows, last hidden layer over first, through deep ReLU."""
    return over_constant("ReLU", _growths(table, attack)[math.inf], 1.0)


def slower_growth(table: pd.DataFrame, attack: str) -> Effect:
    """How much more that distance grows through ReLU than through the cap that slows it most."""
    grown = {beta: Measured(-one.values) for beta, one in _growths(table, attack).items()}
    relu = grown.pop(math.inf)
    if not grown:
        raise Lacking
    gain = above(grown, relu)
    return gain._replace(ours=-gain.theirs, theirs=-gain.ours, name="ReLU", other=gain.name)


def failing(table: pd.DataFrame, initialisation: str) -> Effect:
    """The test error of the deepest network with the lowest cap, and of the same one with ReLU."""
    rows = _where(table, trained=True, layer=1)
    rows = _where(rows, depth=rows["depth"].max())
    relu = _where(rows, beta=math.inf, initialisation="default")
    caps = _where(rows, initialisation=initialisation)
    caps = _where(caps, beta=caps["beta"].min())
    rows = pd.concat([relu, caps[caps["beta"] < math.inf]])
    return some_cap(rows.assign(error=1 - rows["accuracy"]), "error")


def nearest(table: pd.DataFrame) -> Effect:
    """How much farther away the nearest example of all searches lies: the median, in L2."""
    found = table["median_l2"].groupby([table["beta"], table["seed"]]).min().reset_index()
    return some_cap(found, "median_l2")


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
