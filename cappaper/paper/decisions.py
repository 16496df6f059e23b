"""Deciding a claim from a result table: by how much, in every seed, beyond chance."""

from __future__ import annotations

import itertools
import math

import pandas as pd

from cappaper.paper.decision import (
    EPS,
    FAILED,
    POINT,
    STEP,
    SURVIVAL,
    Decision,
    Undecided,
    all_of,
    at_eps,
    best_of,
    caps_and_relu,
    evidence_of,
    mean_of,
)
from cappaper.paper.statistics import (
    CHOICE,
    LEVEL,
    Gain,
    Measured,
    best_elsewhere,
    difference,
    some_beyond,
    widest_beyond,
)
from cappaper.paper.tables import STRONGEST


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
    chosen, decisions = at_eps(chosen, eps), []
    names = chosen["architecture"].unique()
    for name in names:
        caps, relu = caps_and_relu(chosen[chosen["architecture"] == name], "robust_accuracy")
        answer, gain = some_beyond(caps, relu, POINT, level / len(names))
        best = best_of(caps)
        text = f"{name}: β = {best:g} keeps {mean_of(caps[best])}, ReLU {mean_of(relu)}"
        decisions.append(Decision(answer, f"{text}; difference {gain}"))
    return Decision(all_of([d.holds for d in decisions]), evidence_of(decisions))


def surviving(table: pd.DataFrame, attack: str, level: float = LEVEL) -> Decision:
    """Of the gain that PGD shows for its best cap, more than half is left under another attack."""
    chosen = at_eps(table[table["training_eps"] == 0])
    (pgd, pgd_relu), (other, other_relu) = (
        caps_and_relu(chosen[chosen["attack"] == name], "robust_accuracy")
        for name in ("PGD", attack)
    )
    names, best = best_elsewhere({beta: m.values for beta, m in pgd.items()}), best_of(pgd)
    shown = difference([pgd[name] for name in names], [pgd_relu] * len(names))
    left = difference([other[name] for name in names], [other_relu] * len(names))
    rest = Gain(
        left.by_seed - SURVIVAL * shown.by_seed,
        # As if the two gains hung on images of their own: no less than it is.
        left.image_variance + SURVIVAL**2 * shown.image_variance,
    )
    gained = shown.beyond(0, level / CHOICE["best"])  # of what is no gain, nothing can be left
    return Decision(
        rest.beyond(0, level / CHOICE["best"]) if gained else None,
        f"β = {best:g} keeps {mean_of(pgd[best])} under PGD and {mean_of(other[best])} under"
        f" {attack}; ReLU {mean_of(pgd_relu)} and {mean_of(other_relu)}",
    )


def lowering(table: pd.DataFrame, level: float = LEVEL, attack: str = "PGD") -> Decision:
    """Every lower max value has a success rate that is no higher; the lowest has a lower one.

    In every architecture, after standard training.
    """
    rows = _with_success(at_eps(table))
    rows = rows[(rows["attack"] == attack) & (rows["training_eps"] == 0)]
    names = rows["architecture"].unique()
    each = [rows[rows["architecture"] == name] for name in names]
    decisions = [_lowering(one, level / len(names)) for one in each]
    texts = [f"{name}: {d.evidence}" for name, d in zip(names, decisions, strict=True)]
    return Decision(all_of([d.holds for d in decisions]), "; ".join(texts))


def _lowering(rows: pd.DataFrame, level: float) -> Decision:
    caps, relu = caps_and_relu(rows, "success_rate")
    ladder = [*caps.values(), relu]
    steps = [low.minus(high) for low, high in itertools.combinations(ladder, 2)]
    rises = any(step.beyond(POINT, level / len(steps)) for step in steps)
    # Each rise has to be excluded: one that is not proven may be there.
    never = all_of([step.beyond(POINT, level) is False or None for step in steps])
    falls = relu.minus(ladder[0]).beyond(POINT, level)
    standard, _ = caps_and_relu(rows, "standard_accuracy")
    lowest, highest = min(caps), best_of(caps)
    above = caps[highest].values.mean() > relu.values.mean()
    between = f" {mean_of(caps[highest])} at β = {highest:g}," if above else ""
    return Decision(
        False if rises else all_of([never, falls]),
        f"success rate {mean_of(relu)} for ReLU,{between} {mean_of(caps[lowest])} at"
        f" β = {lowest:g}, where standard accuracy is {mean_of(standard[lowest])}",
    )


def differing(
    table: pd.DataFrame,
    level: float = LEVEL,
    by: str = "architecture",
    attack: str = "PGD",
) -> Decision:
    """At one β, success rates differ by more than a point between two values of ``by``.

    The widest gap counts, with all else the same, among the networks that have learned something.
    """
    rows = _learned(_with_success(at_eps(table)))
    rows = rows[rows["attack"] == attack]
    same = ["beta"] if by == "architecture" else ["architecture", "beta"]
    keys, groups = [], []
    for key, group in rows[rows["beta"] < math.inf].groupby(same, sort=False):
        if group[by].nunique() > 1:
            keys.append(key)
            groups.append(
                {
                    (key, value): Measured.of_rows(one, "success_rate")
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
        f"{where}β = {key[-1]:g}: success rate {mean_of(high)} for {what}{upper}, {mean_of(low)}"
        f" for {what}{lower}; difference {gain}",
    )


def _with_success(rows: pd.DataFrame) -> pd.DataFrame:
    """With the success rate of every attack: not every table carries it."""
    return rows.assign(success_rate=1 - rows["robust_accuracy"] / rows["standard_accuracy"])


def _learned(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the networks whose training failed: far behind ReLU in the same architecture."""
    accuracy = rows.groupby(["architecture", "placement", "beta"])["standard_accuracy"]
    relu = rows[rows["beta"] == math.inf].groupby("architecture")["standard_accuracy"].mean()
    return rows[accuracy.transform("mean") > rows["architecture"].map(relu) - FAILED]


def ordering(table: pd.DataFrame, level: float = LEVEL, attack: str = "PGD") -> Decision:
    """At one β, success rates differ by more than a point between narrowing and widening layers.

    Between networks of the same depth, which the table holds in both orders.
    """
    orders: dict[int, set[str]] = {}
    for name in table["architecture"].unique():
        widths = [int(width) for width in name.split("-")]
        if widths[0] != widths[-1] and widths in (sorted(widths), sorted(widths, reverse=True)):
            orders.setdefault(len(widths), set()).add(name)
    pairs = [
        table[table["architecture"].isin(names)] for names in orders.values() if len(names) > 1
    ]
    decisions = [differing(pair, level / len(pairs), attack=attack) for pair in pairs]
    answers = [d.holds for d in decisions]
    return Decision(any(answers) or all_of(answers), evidence_of(decisions))


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
    best = best_of(variants)
    return Decision(
        answer,
        f"the best, {best}, keeps {mean_of(variants[best])}, ReLU {mean_of(relu)};"
        f" difference {gain}",
    )


def vanishing(
    table: pd.DataFrame, level: float = LEVEL, initialisation: str = "default"
) -> Decision:
    """After the same training, the deepest network fails with the lowest cap, and not with ReLU."""
    trained = table[table["trained"] & (table["layer"] == 1)]
    depth = trained["depth"].max()
    deepest = trained[trained["depth"] == depth]
    mine = deepest["initialisation"] == initialisation
    plain = (deepest["initialisation"] == "default") & (deepest["beta"] == math.inf)
    caps, relu = caps_and_relu(deepest[mine | plain], "accuracy")
    lowest = min(caps)
    return Decision(
        relu.minus(caps[lowest]).beyond(FAILED, level),
        f"{depth} hidden layers, accuracy: β = {lowest:g} {mean_of(caps[lowest])},"
        f" ReLU {mean_of(relu)}",
    )


def carlini(table: pd.DataFrame, level: float = LEVEL, attack: str = "CW") -> Decision:
    """Carlini and Wagner's attack fails more often on some capped network than on ReLU."""
    chosen = table[(table["attack"] == attack) & (table["training_eps"] == 0)]
    chosen = chosen.assign(failure_rate=1 - chosen["success_rate"])
    caps, relu = caps_and_relu(chosen, "failure_rate")
    answer, gain = some_beyond(caps, relu, POINT, level)
    best = best_of(caps)
    found, found_relu = (Measured(1 - m.values, 0, 0) for m in (caps[best], relu))
    return Decision(
        answer,
        f"finds an example for {mean_of(found)} of the images at β = {best:g}, for"
        f" {mean_of(found_relu)} with ReLU; difference {gain}",
    )


def farther(table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """The nearest examples lie farther away on some capped network than on ReLU.

    The shortest of all searches' medians counts: no example lies farther than the nearest one
    found, in balls that grow by :data:`~cappaper.paper.decision.STEP`. Over seeds alone: how a
    median depends on the images, a table does not say.
    """
    rows = table[table["training_eps"] == 0]
    nearest = rows["median_l2"].groupby([rows["beta"], rows["seed"]]).min().reset_index()
    caps, relu = caps_and_relu(nearest, "median_l2")
    answer, gain = some_beyond(caps, relu, STEP, level)
    best = best_of(caps)
    return Decision(
        answer,
        f"median L2 {mean_of(caps[best])} at β = {best:g}, {mean_of(relu)} with ReLU;"
        f" difference {gain}",
    )
