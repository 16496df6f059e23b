"""Deciding a claim from a result table: by how much, in every seed, beyond the spread."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import pandas as pd

from cappaper.paper.results import STRONGEST

SPREADS = 2.0
"""A difference counts if its mean over seeds is this many standard deviations from the margin."""

POINT = 0.01
"""One point of accuracy: a smaller difference is none, however steady."""

FAILED = 0.1
"""A network has failed to train if it stays this far behind the same network with ReLU."""

SURVIVAL = 0.5
"""A gain has survived another attack if more than this share of it has."""

EPS = 0.1
"""The radius at which claims about robustness are decided, unless they name another."""


class Decision(NamedTuple):
    """What a table says to a test: yes, no or (None) neither, and the numbers for it."""

    reproduced: bool | None
    evidence: str

    @property
    def verdict(self) -> str:
        """*reproduced*, *not reproduced* or *undecided*."""
        return {True: "reproduced", False: "not reproduced", None: "undecided"}[self.reproduced]


class Undecided(Exception):
    """A table has the columns, but not the networks that a test compares."""

    def __init__(self) -> None:
        super().__init__("the table lacks what the test compares")


def beyond(gain: pd.Series, margin: float = 0.0) -> bool | None:
    """Whether a gain, one number per seed, exceeds a margin by more than its spread.

    True if the mean is above the margin by :data:`SPREADS` standard deviations, False if below by
    as much, None in between, or for a single seed, whose spread nobody knows.

    >>> beyond(pd.Series([0.5, 0.6, 0.55])), beyond(pd.Series([-0.5, 0.6, 0.55]))
    (True, None)
    """
    mean, spread = gain.mean(), SPREADS * gain.std()
    if mean - spread > margin:
        return True
    return False if mean + spread < margin else None


def growth(table: pd.DataFrame) -> Decision:
    """L2 grows from the first to the last hidden layer of the deepest ReLU network.

    Both as it is and divided by the norm of the clean output.
    """
    relu = table[table["beta"] == math.inf]
    if relu.empty:
        raise Undecided
    deepest = relu[relu["layer"] == relu["layer"].max()]["architecture"].iloc[0]
    relu = relu[relu["architecture"] == deepest]
    ratios = {}
    for value in ("l2", "relative_l2"):
        wide = _by_seed(relu, "layer", value)
        ratios[value] = wide.iloc[:, -1] / wide.iloc[:, 0]
    told = {value: f"× {ratio.mean():.2f} (± {ratio.std():.2f})" for value, ratio in ratios.items()}
    return Decision(
        _all([beyond(ratio - 1) for ratio in ratios.values()]),
        f"over the hidden layers {deepest}: L2 {told['l2']}, divided by the"
        f" clean norm {told['relative_l2']}",
    )


def capping(
    table: pd.DataFrame, eps: float = EPS, trained: bool = False, attack: str = "PGD"
) -> Decision:
    """In every architecture some cap beats ReLU in robust accuracy, by more than a point.

    ``trained``: of networks that were trained against an attack of the same radius.
    """
    training_eps = eps if trained else 0.0
    chosen = table[(table["attack"] == attack) & (table["training_eps"] == training_eps)]
    decisions = []
    for name, rows in _at(chosen, eps).groupby("architecture", sort=False):
        wide = _wide(rows, "robust_accuracy")
        best = _best_cap(wide)
        told = f"{name}: β = {best:g} keeps {_mean(wide[best])}, ReLU {_mean(wide[math.inf])}"
        decisions.append(Decision(beyond(wide[best] - wide[math.inf], POINT), told))
    return Decision(_all([d.reproduced for d in decisions]), _evidence(decisions))


def surviving(table: pd.DataFrame, attack: str) -> Decision:
    """Of the gain that PGD shows for its best cap, more than half is left under another attack."""
    chosen = _at(table[table["training_eps"] == 0])
    pgd, other = (
        _wide(chosen[chosen["attack"] == name], "robust_accuracy") for name in ("PGD", attack)
    )
    best = _best_cap(pgd)
    shown, left = (wide[best] - wide[math.inf] for wide in (pgd, other))
    return Decision(
        beyond(left - SURVIVAL * shown),
        f"β = {best:g} keeps {_mean(pgd[best])} under PGD and {_mean(other[best])} under {attack};"
        f" ReLU {_mean(pgd[math.inf])} and {_mean(other[math.inf])}",
    )


def lowering(table: pd.DataFrame) -> Decision:
    """Every lower max value has a success rate that is no higher; the lowest has a lower one."""
    wide = _wide(_at(table), "success_rate")
    rises = [beyond(wide[low] - wide[high], POINT) for low, high in itertools.pairwise(wide)]
    falls = beyond(wide[math.inf] - wide.iloc[:, 0], POINT)
    robust, standard = (_wide(_at(table), f"{kind}_accuracy") for kind in ("robust", "standard"))
    lowest, best = wide.columns[0], _best_cap(robust)
    return Decision(
        False if any(rises) else falls,
        f"success rate {_mean(wide[math.inf])} for ReLU, {_mean(wide[lowest])} at β = {lowest:g};"
        f" robust accuracy is highest, {_mean(robust[best])}, at β = {best:g}, and"
        f" {_mean(robust[lowest])} at β = {lowest:g}, where standard accuracy is"
        f" {_mean(standard[lowest])}",
    )


def differing(table: pd.DataFrame, by: str = "architecture") -> Decision:
    """At one β, robust accuracy differs by more than a point between two values of ``by``.

    The widest gap counts, with all else the same.
    """
    rows = _at(table)
    same = ["beta"] if by == "architecture" else ["architecture", "beta"]
    gaps = []
    for key, group in rows[rows["beta"] < math.inf].groupby(same, sort=False):
        wide = _by_seed(group, by, "robust_accuracy")
        high, low = wide.mean().idxmax(), wide.mean().idxmin()
        gaps.append((wide[high] - wide[low], key, high, low, wide))
    if not gaps:
        raise Undecided
    gap, key, high, low, wide = max(gaps, key=lambda g: g[0].mean())
    where = "" if by == "architecture" else f"{key[0]}, "
    what = "" if by == "architecture" else "layers "
    return Decision(
        beyond(gap, POINT),
        f"{where}β = {key[-1]:g}: {what}{high} keep {_mean(wide[high])}, {what}{low}"
        f" {_mean(wide[low])}",
    )


def ordering(table: pd.DataFrame) -> Decision:
    """At one β, robust accuracy differs by more than a point between an order and its reverse."""
    rows, decisions = _at(table), []
    for name in rows["architecture"].unique():
        reverse = "-".join(reversed(name.split("-")))
        if name > reverse and (rows["architecture"] == reverse).any():
            decisions.append(differing(rows[rows["architecture"].isin([name, reverse])]))
    answers = [d.reproduced for d in decisions]
    return Decision(any(answers) or _all(answers), _evidence(decisions))


def lasting(table: pd.DataFrame, eps: float = EPS, attack: str = STRONGEST) -> Decision:
    """Trained and attacked at ``eps``, the best capped variant beats ReLU by more than a point."""
    chosen = table[(table["attack"] == attack) & (table["eps"] == eps)]
    wide = _by_seed(chosen, "variant", "robust_accuracy")
    if "ReLU" not in wide or wide.shape[1] < 2:
        raise Undecided
    best = str(wide.drop(columns="ReLU").mean().idxmax())
    return Decision(
        beyond(wide[best] - wide["ReLU"], POINT),
        f"the best, {best}, keeps {_mean(wide[best])}, ReLU {_mean(wide['ReLU'])}",
    )


def vanishing(table: pd.DataFrame) -> Decision:
    """After the same training, the deepest network fails with the lowest cap, and not with ReLU."""
    trained = table[table["trained"] & (table["layer"] == 1)]
    depth = trained["depth"].max()
    deepest = trained[trained["depth"] == depth]
    plain = _wide(deepest[deepest["initialisation"] == "default"], "accuracy")
    lowest = plain.columns[0]
    told = (
        f"{depth} hidden layers, accuracy: β = {lowest:g} {_mean(plain[lowest])}, ReLU"
        f" {_mean(plain[math.inf])}"
    )
    scaled = deepest[(deepest["initialisation"] == "rescaled") & (deepest["beta"] == lowest)]
    if len(scaled):
        told += f"; β = {lowest:g} from a rescaled start {_mean(scaled['accuracy'])}"
    return Decision(beyond(plain[math.inf] - plain[lowest], FAILED), told)


def carlini(table: pd.DataFrame) -> Decision:
    """Carlini and Wagner's attack fails more often on some capped network than on ReLU."""
    chosen = table[(table["attack"] == "CW") & (table["training_eps"] == 0)]
    wide = 1 - _wide(chosen, "success_rate")
    best = _best_cap(wide)
    return Decision(
        beyond(wide[best] - wide[math.inf], POINT),
        f"finds an example for {_mean(1 - wide[best])} of the images at β = {best:g}, for"
        f" {_mean(1 - wide[math.inf])} with ReLU",
    )


def _at(table: pd.DataFrame, eps: float = EPS) -> pd.DataFrame:
    return table[table["eps"] == eps]


def _wide(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """A row per seed, a column per β, ascending: some caps, and ReLU."""
    wide = _by_seed(rows, "beta", value)
    if math.inf not in wide or wide.shape[1] < 2:
        raise Undecided
    return wide


def _by_seed(rows: pd.DataFrame, by: str, value: str) -> pd.DataFrame:
    """A row per seed, a column per value of ``by``, ascending."""
    chosen = {"seed": rows["seed"], "by": rows[by], "value": rows[value]}
    return pd.DataFrame(chosen).pivot(index="seed", columns="by", values="value")


def _best_cap(wide: pd.DataFrame) -> float:
    best: Any = wide.drop(columns=math.inf).mean().idxmax()
    return float(best)


def _mean(values: pd.Series) -> str:
    return f"{values.mean():.3f} (± {values.std():.3f})"


def _all(answers: list[bool | None]) -> bool | None:
    """True if all are, False if one is not, None if it hangs on an undecided one."""
    if not answers:
        raise Undecided
    return False if False in answers else None if None in answers else True


def _evidence(decisions: list[Decision]) -> str:
    return "; ".join(decision.evidence for decision in decisions)
