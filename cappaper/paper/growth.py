"""Deciding whether perturbations grow from layer to layer."""

import math

import pandas as pd

from cappaper.paper.decision import Decision, Undecided, all_of, by_seed, spread
from cappaper.paper.statistics import LEVEL, Gain


def growth(table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """L2 grows from the first to the last hidden layer of the deepest ReLU network.

    Both as it is and divided by the norm of the clean output.
    """
    name, texts, answers = "", [], []
    for value, label in (("l2", "L2"), ("relative_l2", "divided by the clean norm")):
        name, _, relu = _growths(table, value)
        texts.append(f"{label} {_times(relu)}")
        answers.append(Gain(relu - 1).beyond(0, level / 2))
    return Decision(all_of(answers), f"over the hidden layers {name}: {', '.join(texts)}")


def growth_of_relu(table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """Divided by the clean norm, L2 grows more through ReLU than through any capped network."""
    name, caps, relu = _growths(table, "relative_l2")
    if not caps:
        raise Undecided
    answers = [Gain(relu - cap).beyond(0, level / len(caps)) for cap in caps.values()]
    texts = [f"β = {beta:g} {_times(cap)}" for beta, cap in caps.items()]
    return Decision(
        all_of(answers), f"over the hidden layers {name}: ReLU {_times(relu)}, {', '.join(texts)}"
    )


def growth_of_attack(table: pd.DataFrame, level: float = LEVEL, noise: str = "noise") -> Decision:
    """Divided by the clean norm, L2 grows more for PGD examples than for noise, through ReLU."""
    name, _, pgd = _growths(table, "relative_l2")
    _, _, other = _growths(table, "relative_l2", noise)
    return Decision(
        Gain(pgd - other).beyond(0, level),
        f"over the hidden layers {name}: PGD {_times(pgd)}, {noise} {_times(other)}",
    )


def _growths(
    table: pd.DataFrame, value: str, attack: str = "PGD"
) -> tuple[str, dict[float, pd.Series], pd.Series]:
    """The deepest architecture; last hidden layer over first, by seed, at every β, and for ReLU."""
    rows = table[table["attack"] == attack]
    if not (rows["beta"] == math.inf).any():
        raise Undecided
    name = rows[rows["layer"] == rows["layer"].max()]["architecture"].iloc[0]
    found = {}
    for beta, group in rows[rows["architecture"] == name].groupby("beta"):
        wide = by_seed(group, "layer", value)
        found[float(beta)] = wide.iloc[:, -1] / wide.iloc[:, 0]
    relu = found.pop(math.inf)
    return name, found, relu


def _times(ratio: pd.Series) -> str:
    return f"× {spread(ratio, '.2f')}"
