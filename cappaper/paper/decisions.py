"""Deciding a claim from a result table: by how much, in every seed, beyond chance."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from cappaper.paper.statistics import (
    LEVEL,
    Gain,
    Measured,
    best_beyond,
    best_elsewhere,
    difference,
    mean_sd,
    some_beyond,
    survives,
)
from cappaper.paper.tables import STRONGEST

POINT = 0.01  #: One point of accuracy: a smaller difference is none, however steady.
FAILED = 0.1  #: A network has failed to train if it is this far behind the same one with ReLU.
SURVIVAL = 0.5  #: A gain survives another attack if more than this share of it is left.
STEP = 0.1  #: An L2 radius: balls that grow by it find the nearest example no more closely.
EPS = 0.1  #: The radius at which claims about robustness are decided, unless they name another.


class Decision(NamedTuple):
    """The answer of a table to a test: yes, no or (None) neither, and the numbers for it."""

    holds: bool | None
    evidence: str

    @property
    def verdict(self) -> str:
        """*holds*, *does not hold* or *inconclusive*."""
        return {True: "holds", False: "does not hold", None: "inconclusive"}[self.holds]


class Undecided(Exception):
    """A table has the columns, but not the networks that a test compares."""


def all_of(answers: Sequence[bool | None]) -> bool | None:
    """True if all are, False if one is not, None if it depends on an undecided one."""
    if not answers:
        raise Undecided
    return False if False in answers else None if None in answers else True


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

    def decide(rows: pd.DataFrame, level: float) -> Decision:
        caps, relu = _caps_and_relu(rows, "robust_accuracy")
        answer, gain, best = some_beyond(caps, relu, POINT, level)
        return Decision(answer, f"β = {best:g} keeps {caps[best]}, ReLU {relu}; difference {gain}")

    rows = _where(table, attack=attack, training_eps=eps if trained else 0.0, eps=eps)
    return _in_every_architecture(rows, level, decide)


def surviving(table: pd.DataFrame, attack: str, level: float = LEVEL) -> Decision:
    """Of the gain that PGD shows for its best cap, more than half is left under another attack."""
    (pgd, relu), (other, other_relu) = sides = [
        _caps_and_relu(_where(table, eps=EPS, training_eps=0, attack=name), "robust_accuracy")
        for name in ("PGD", attack)
    ]
    best = max(pgd, key=lambda beta: pgd[beta].values.mean())
    chosen = best_elsewhere({beta: m.values for beta, m in pgd.items()})
    gains = [difference([caps[b] for b in chosen], [plain] * len(chosen)) for caps, plain in sides]
    return Decision(
        survives(gains, SURVIVAL, level),
        f"β = {best:g} keeps {pgd[best]} under PGD and {other[best]} under {attack};"
        f" ReLU {relu} and {other_relu}",
    )


def lowering(table: pd.DataFrame, level: float = LEVEL, attack: str = "PGD") -> Decision:
    """Every lower max value has a success rate that is no higher; the lowest has a lower one.

    In every architecture, after standard training.
    """

    def decide(rows: pd.DataFrame, level: float) -> Decision:
        caps, relu = _caps_and_relu(rows, "success_rate")
        ladder = [*caps.values(), relu]
        steps = [low.minus(high) for low, high in itertools.combinations(ladder, 2)]
        rises = any(step.beyond(POINT, level / len(steps)) for step in steps)
        # Each rise has to be excluded: one that is not proven may be there.
        never = all_of([step.beyond(POINT, level) is False or None for step in steps])
        falls = relu.minus(ladder[0]).beyond(POINT, level)
        standard, _ = _caps_and_relu(rows, "standard_accuracy")
        lowest, highest = min(caps), max(caps, key=lambda beta: caps[beta].values.mean())
        above = caps[highest].values.mean() > relu.values.mean()
        between = f" {caps[highest]} at β = {highest:g}," * bool(above)
        return Decision(
            False if rises else all_of([never, falls]),
            f"success rate {relu} for ReLU,{between} {caps[lowest]} at β = {lowest:g},"
            f" where standard accuracy is {standard[lowest]}",
        )

    rows = _with_success(_where(table, eps=EPS, attack=attack, training_eps=0))
    return _in_every_architecture(rows, level, decide)


def differing(
    table: pd.DataFrame, level: float = LEVEL, by: str = "architecture", attack: str = "PGD"
) -> Decision:
    """At one β, success rates differ by more than a point between two values of ``by``.

    The widest gap counts, with all else the same, among the networks that have learned something.
    """
    rows = _where(_learned(_with_success(_where(table, eps=EPS))), attack=attack)
    same = ["beta"] if by == "architecture" else ["architecture", "beta"]
    pairs: dict[Any, tuple[Measured, Measured]] = {}
    for key, group in rows[rows["beta"] < math.inf].groupby(same, sort=False):
        measured = {v: Measured.of_rows(part, "success_rate") for v, part in group.groupby(by)}
        for one, other in itertools.permutations(measured, 2):
            pairs[key, one, other] = measured[one], measured[other]
    if not pairs:
        raise Undecided
    answer, gain, widest = best_beyond(pairs, POINT, level, "widest")
    (*places, beta), upper, lower = widest
    high, low = pairs[widest]
    where, what = ("", "") if by == "architecture" else (f"{places[0]}, ", "layers ")
    return Decision(
        answer,
        f"{where}β = {beta:g}: success rate {high} for {what}{upper}, {low} for {what}{lower};"
        f" difference {gain}",
    )


def ordering(table: pd.DataFrame, level: float = LEVEL, attack: str = "PGD") -> Decision:
    """At one β, success rates differ by more than a point between narrowing and widening layers."""
    orders: dict[int, list[str]] = {}
    for name in table["architecture"].unique():
        widths = [int(width) for width in name.split("-")]
        if widths[0] != widths[-1] and widths in (sorted(widths), sorted(widths, reverse=True)):
            orders.setdefault(len(widths), []).append(name)
    pairs = [table[table["architecture"].isin(names)] for names in orders.values() if names[1:]]
    decisions = [differing(pair, level / len(pairs), attack=attack) for pair in pairs]
    answers = [d.holds for d in decisions]
    return Decision(any(answers) or all_of(answers), "; ".join(d.evidence for d in decisions))


def lasting(
    table: pd.DataFrame, level: float = LEVEL, eps: float = EPS, attack: str = STRONGEST
) -> Decision:
    """Trained and attacked at ``eps``, the best capped variant beats ReLU by more than a point."""
    rows = _where(table, attack=attack, eps=eps)
    variants, relu = _caps_and_relu(rows, "robust_accuracy", "variant", "ReLU")
    answer, gain, best = some_beyond(variants, relu, POINT, level)
    text = f"the best, {best}, keeps {variants[best]}, ReLU {relu}; difference {gain}"
    return Decision(answer, text)


def vanishing(
    table: pd.DataFrame, level: float = LEVEL, initialisation: str = "default"
) -> Decision:
    """After the same training, the deepest network fails with the lowest cap, and not with ReLU."""
    trained = _where(table, trained=True, layer=1)
    depth = trained["depth"].max()
    deepest = _where(trained, depth=depth)
    started = deepest["initialisation"]
    plain = (started == "default") & (deepest["beta"] == math.inf)
    caps, relu = _caps_and_relu(deepest[plain | (started == initialisation)], "accuracy")
    lowest = min(caps)
    text = f"{depth} hidden layers, accuracy: β = {lowest:g} {caps[lowest]}, ReLU {relu}"
    return Decision(relu.minus(caps[lowest]).beyond(FAILED, level), text)


def carlini(table: pd.DataFrame, level: float = LEVEL, attack: str = "CW") -> Decision:
    """Carlini and Wagner's attack fails more often on some capped network than on ReLU."""
    rows = _where(table, attack=attack, training_eps=0)
    rows = rows.assign(failure_rate=1 - rows["success_rate"])
    caps, relu = _caps_and_relu(rows, "failure_rate")
    answer, gain, best = some_beyond(caps, relu, POINT, level)
    found, found_relu = mean_sd(1 - caps[best].values), mean_sd(1 - relu.values)
    return Decision(
        answer,
        f"finds an example for {found} of the images at β = {best:g}, for {found_relu} with ReLU;"
        f" difference {gain}",
    )


def farther(table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """The nearest examples of all searches lie farther away on some capped network than on ReLU."""
    rows = _where(table, training_eps=0)
    nearest = rows["median_l2"].groupby([rows["beta"], rows["seed"]]).min().reset_index()
    caps, relu = _caps_and_relu(nearest, "median_l2")
    answer, gain, best = some_beyond(caps, relu, STEP, level)
    text = f"median L2 {caps[best]} at β = {best:g}, {relu} with ReLU; difference {gain}"
    return Decision(answer, text)


def growth(table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """L2, and L2 divided by the clean norm, grow over the hidden layers of the deepest ReLU net."""
    (where, _, plain), (_, _, relative) = _growths(table, "l2"), _growths(table)
    answers = [Gain(times - 1).beyond(0, level / 2) for times in (plain, relative)]
    text = f"{where}: L2 {_times(plain)}, divided by the clean norm {_times(relative)}"
    return Decision(all_of(answers), text)


def growth_of_relu(table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """Divided by the clean norm, L2 grows more through ReLU than through any capped network."""
    where, caps, relu = _growths(table)
    answers = [Gain(relu - cap).beyond(0, level / len(caps)) for cap in caps.values()]
    texts = [f"β = {beta:g} {_times(cap)}" for beta, cap in caps.items()]
    return Decision(all_of(answers), f"{where}: ReLU {_times(relu)}, {', '.join(texts)}")


def growth_of_attack(table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """Divided by the clean norm, L2 grows more for PGD examples than for noise, through ReLU."""
    (where, _, pgd), (_, _, noise) = _growths(table), _growths(table, attack="noise")
    text = f"{where}: PGD {_times(pgd)}, noise {_times(noise)}"
    return Decision(Gain(pgd - noise).beyond(0, level), text)


def _growths(
    table: pd.DataFrame, value: str = "relative_l2", attack: str = "PGD"
) -> tuple[str, dict[float, pd.Series], pd.Series]:
    """The deepest architecture; last hidden layer over first, by seed, at every β, and for ReLU."""
    rows = _where(table, attack=attack)
    if not (rows["beta"] == math.inf).any():
        raise Undecided
    name = rows[rows["layer"] == rows["layer"].max()]["architecture"].iloc[0]
    ratios: dict[Any, pd.Series] = {}
    for beta, group in _where(rows, architecture=name).groupby("beta"):
        wide = group.set_index([group["seed"], group["layer"]])[value].unstack()
        ratios[beta] = wide.iloc[:, -1] / wide.iloc[:, 0]
    relu = ratios.pop(math.inf)
    return f"over the hidden layers {name}", ratios, relu


def _times(ratio: pd.Series) -> str:
    return f"× {mean_sd(ratio, '.2f')}"


def _where(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows that have these values."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def _with_success(rows: pd.DataFrame) -> pd.DataFrame:
    """With the success rate of every attack: not every table carries it."""
    return rows.assign(success_rate=1 - rows["robust_accuracy"] / rows["standard_accuracy"])


def _learned(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the networks whose training failed: far behind ReLU in the same architecture."""
    accuracy = rows.groupby(["architecture", "placement", "beta"])["standard_accuracy"]
    relu = _where(rows, beta=math.inf).groupby("architecture")["standard_accuracy"].mean()
    return rows[accuracy.transform("mean") > rows["architecture"].map(relu) - FAILED]


def _caps_and_relu(
    rows: pd.DataFrame, value: str, by: str = "beta", relu: Any = math.inf
) -> tuple[dict[Any, Measured], Measured]:
    """What was measured with every cap, in the order of β, and with ReLU."""
    caps = {name: Measured.of_rows(one, value) for name, one in rows.groupby(by)}
    other = caps.pop(relu, None)
    if other is None or not caps:
        raise Undecided
    return caps, other


def _in_every_architecture(
    rows: pd.DataFrame, level: float, decide: Callable[[pd.DataFrame, float], Decision]
) -> Decision:
    """Yes if it is in each; the architectures share the level."""
    names = rows["architecture"].unique()
    each = [decide(_where(rows, architecture=name), level / len(names)) for name in names]
    texts = [f"{name}: {d.evidence}" for name, d in zip(names, each, strict=True)]
    return Decision(all_of([d.holds for d in each]), "; ".join(texts))
