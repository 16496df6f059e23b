"""Deciding a claim from a result table: by how much, in every seed, beyond chance."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import pandas as pd

from cappaper.paper.results import STRONGEST
from cappaper.paper.statistics import LEVEL, Gain, Measured, some_beyond, widest_beyond

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

    holds: bool | None
    evidence: str

    @property
    def verdict(self) -> str:
        """*holds*, *does not hold* or *inconclusive*."""
        return {True: "holds", False: "does not hold", None: "inconclusive"}[self.holds]


class Undecided(Exception):
    """A table has the columns, but not the networks that a test compares."""

    def __init__(self) -> None:
        super().__init__("the table lacks what the test compares")


def growth(table: pd.DataFrame, level: float = LEVEL) -> Decision:
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
        _all([Gain(ratio - 1).beyond(0, level / 2) for ratio in ratios.values()]),
        f"over the hidden layers {deepest}: L2 {told['l2']}, divided by the"
        f" clean norm {told['relative_l2']}",
    )


def capping(
    table: pd.DataFrame,
    level: float = LEVEL,
    eps: float = EPS,
    trained: bool = False,
    attack: str = "PGD",
) -> Decision:
    """In every architecture some cap beats ReLU in robust accuracy, by more than a point.

    ``trained``: of networks that were trained against an attack of the same radius.
    """
    training_eps = eps if trained else 0.0
    chosen = table[(table["attack"] == attack) & (table["training_eps"] == training_eps)]
    chosen, decisions = _at(chosen, eps), []
    names = chosen["architecture"].unique()
    for name in names:
        caps, relu = _caps(chosen[chosen["architecture"] == name], "robust_accuracy")
        answer, gain = some_beyond(caps, relu, POINT, level / len(names))
        best = _best(caps)
        told = f"{name}: β = {best:g} keeps {_mean(caps[best])}, ReLU {_mean(relu)}"
        decisions.append(Decision(answer, f"{told}; difference {gain}"))
    return Decision(_all([d.holds for d in decisions]), _evidence(decisions))


def surviving(table: pd.DataFrame, attack: str, level: float = LEVEL) -> Decision:
    """Of the gain that PGD shows for its best cap, more than half is left under another attack."""
    chosen = _at(table[table["training_eps"] == 0])
    (pgd, pgd_relu), (other, other_relu) = (
        _caps(chosen[chosen["attack"] == name], "robust_accuracy") for name in ("PGD", attack)
    )
    best = _best(pgd)
    shown, left = pgd[best].minus(pgd_relu), other[best].minus(other_relu)
    rest = Gain(
        left.by_seed - SURVIVAL * shown.by_seed,
        # As if the two gains hung on images of their own: no less than it is.
        left.image_variance + SURVIVAL**2 * shown.image_variance,
    )
    return Decision(
        rest.beyond(0, level),
        f"β = {best:g} keeps {_mean(pgd[best])} under PGD and {_mean(other[best])} under {attack};"
        f" ReLU {_mean(pgd_relu)} and {_mean(other_relu)}",
    )


def lowering(table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """Every lower max value has a success rate that is no higher; the lowest has a lower one."""
    caps, relu = _caps(_at(table), "success_rate")
    ladder = [*caps.values(), relu]
    rises = [
        low.minus(high).beyond(POINT, level / len(caps)) for low, high in itertools.pairwise(ladder)
    ]
    falls = relu.minus(ladder[0]).beyond(POINT, level)
    robust, _ = _caps(_at(table), "robust_accuracy")
    standard, _ = _caps(_at(table), "standard_accuracy")
    lowest, best = min(caps), _best(robust)
    return Decision(
        False if any(rises) else falls,
        f"success rate {_mean(relu)} for ReLU, {_mean(caps[lowest])} at β = {lowest:g};"
        f" robust accuracy is highest, {_mean(robust[best])}, at β = {best:g}, and"
        f" {_mean(robust[lowest])} at β = {lowest:g}, where standard accuracy is"
        f" {_mean(standard[lowest])}",
    )


def differing(table: pd.DataFrame, level: float = LEVEL, by: str = "architecture") -> Decision:
    """At one β, robust accuracy differs by more than a point between two values of ``by``.

    The widest gap counts, with all else the same.
    """
    rows = _at(table)
    same = ["beta"] if by == "architecture" else ["architecture", "beta"]
    keys, groups = [], []
    for key, group in rows[rows["beta"] < math.inf].groupby(same, sort=False):
        if group[by].nunique() > 1:
            keys.append(key)
            groups.append(
                {
                    (key, value): Measured.of_rows(one, "robust_accuracy")
                    for value, one in group.groupby(by)
                }
            )
    if not groups:
        raise Undecided
    answer, gain, high, low = widest_beyond(groups, POINT, level)
    named = {id(m): name for group in groups for name, m in group.items()}
    (key, upper), (_, lower) = named[id(high)], named[id(low)]
    where = "" if by == "architecture" else f"{key[0]}, "
    what = "" if by == "architecture" else "layers "
    return Decision(
        answer,
        f"{where}β = {key[-1]:g}: {what}{upper} keep {_mean(high)}, {what}{lower}"
        f" {_mean(low)}; difference {gain}",
    )


def ordering(table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """At one β, robust accuracy differs by more than a point between an order and its reverse."""
    rows, pairs = _at(table), []
    for name in rows["architecture"].unique():
        reverse = "-".join(reversed(name.split("-")))
        if name > reverse and (rows["architecture"] == reverse).any():
            pairs.append(rows[rows["architecture"].isin([name, reverse])])
    decisions = [differing(pair, level / len(pairs)) for pair in pairs]
    answers = [d.holds for d in decisions]
    return Decision(any(answers) or _all(answers), _evidence(decisions))


def lasting(
    table: pd.DataFrame, level: float = LEVEL, eps: float = EPS, attack: str = STRONGEST
) -> Decision:
    """Trained and attacked at ``eps``, the best capped variant beats ReLU by more than a point."""
    chosen = table[(table["attack"] == attack) & (table["eps"] == eps)]
    variants = {
        name: Measured.of_rows(rows, "robust_accuracy")
        for name, rows in chosen.groupby("variant", sort=False)
    }
    relu = variants.pop("ReLU", None)
    if relu is None or not variants:
        raise Undecided
    answer, gain = some_beyond(variants, relu, POINT, level)
    best = _best(variants)
    return Decision(
        answer,
        f"the best, {best}, keeps {_mean(variants[best])}, ReLU {_mean(relu)}; difference {gain}",
    )


def vanishing(table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """After the same training, the deepest network fails with the lowest cap, and not with ReLU."""
    trained = table[table["trained"] & (table["layer"] == 1)]
    depth = trained["depth"].max()
    deepest = trained[trained["depth"] == depth]
    caps, relu = _caps(deepest[deepest["initialisation"] == "default"], "accuracy")
    lowest = min(caps)
    told = (
        f"{depth} hidden layers, accuracy: β = {lowest:g} {_mean(caps[lowest])}, ReLU {_mean(relu)}"
    )
    scaled = deepest[(deepest["initialisation"] == "rescaled") & (deepest["beta"] == lowest)]
    if len(scaled):
        rescaled = Measured.of_rows(scaled, "accuracy")
        told += f"; β = {lowest:g} from a rescaled start {_mean(rescaled)}"
    return Decision(relu.minus(caps[lowest]).beyond(FAILED, level), told)


def carlini(table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """Carlini and Wagner's attack fails more often on some capped network than on ReLU."""
    chosen = table[(table["attack"] == "CW") & (table["training_eps"] == 0)]
    chosen = chosen.assign(failure_rate=1 - chosen["success_rate"])
    caps, relu = _caps(chosen, "failure_rate")
    answer, gain = some_beyond(caps, relu, POINT, level)
    best = _best(caps)
    found, found_relu = (Measured(1 - m.values, 0, 0) for m in (caps[best], relu))
    return Decision(
        answer,
        f"finds an example for {_mean(found)} of the images at β = {best:g}, for"
        f" {_mean(found_relu)} with ReLU; difference {gain}",
    )


def _at(table: pd.DataFrame, eps: float = EPS) -> pd.DataFrame:
    return table[table["eps"] == eps]


def _caps(rows: pd.DataFrame, value: str) -> tuple[dict[float, Measured], Measured]:
    """What was measured at every β, ascending, and with ReLU."""
    found: dict[float, Measured] = {
        beta: Measured.of_rows(rows[rows["beta"] == beta], value)
        for beta in sorted(rows["beta"].unique())
    }
    relu = found.pop(math.inf, None)
    if relu is None or not found:
        raise Undecided
    return found, relu


def _by_seed(rows: pd.DataFrame, by: str, value: str) -> pd.DataFrame:
    """A row per seed, a column per value of ``by``, ascending."""
    chosen = {"seed": rows["seed"], "by": rows[by], "value": rows[value]}
    return pd.DataFrame(chosen).pivot(index="seed", columns="by", values="value")


def _best(candidates: dict[Any, Measured]) -> Any:
    return max(candidates, key=lambda name: candidates[name].values.mean())


def _mean(measured: Measured) -> str:
    return f"{measured.values.mean():.3f} (± {measured.values.std():.3f})"


def _all(answers: list[bool | None]) -> bool | None:
    """True if all are, False if one is not, None if it hangs on an undecided one."""
    if not answers:
        raise Undecided
    return False if False in answers else None if None in answers else True


def _evidence(decisions: list[Decision]) -> str:
    return "; ".join(decision.evidence for decision in decisions)
