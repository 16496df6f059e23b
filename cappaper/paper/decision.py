"""What a decision is, and what all of them share: margins, and rows turned into measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from cappaper.paper.statistics import Measured

POINT = 0.01
"""One point of accuracy: a smaller difference is none, however steady."""

FAILED = 0.1
"""A network has failed to train if it stays this far behind the same network with ReLU."""

SURVIVAL = 0.5
"""A gain has survived another attack if more than this share of it has."""

STEP = 0.1
"""An L2 radius: balls that grow by it find the nearest example no more closely."""

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


def at_eps(table: pd.DataFrame, eps: float = EPS) -> pd.DataFrame:
    return table[table["eps"] == eps]


def caps_and_relu(rows: pd.DataFrame, value: str) -> tuple[dict[float, Measured], Measured]:
    """What was measured at every β, ascending, and with ReLU."""
    found: dict[float, Measured] = {
        beta: Measured.of_rows(rows[rows["beta"] == beta], value)
        for beta in sorted(rows["beta"].unique())
    }
    relu = found.pop(math.inf, None)
    if relu is None or not found:
        raise Undecided
    return found, relu


def by_seed(rows: pd.DataFrame, by: str, value: str) -> pd.DataFrame:
    """A row per seed, a column per value of ``by``, ascending."""
    chosen = {"seed": rows["seed"], "by": rows[by], "value": rows[value]}
    return pd.DataFrame(chosen).pivot(index="seed", columns="by", values="value")


def best_of(candidates: dict[Any, Measured]) -> Any:
    return max(candidates, key=lambda name: candidates[name].values.mean())


def mean_of(measured: Measured) -> str:
    return spread(measured.values, ".3f")


def spread(values: pd.Series, digits: str) -> str:
    """The mean over seeds and their standard deviation, or the one value there is."""
    mean = format(values.mean(), digits)
    return f"{mean} (± {format(values.std(), digits)})" if len(values) > 1 else mean


def all_of(answers: Sequence[bool | None]) -> bool | None:
    """True if all are, False if one is not, None if it depends on an undecided one."""
    if not answers:
        raise Undecided
    return False if False in answers else None if None in answers else True


def evidence_of(decisions: Sequence[Decision]) -> str:
    return "; ".join(decision.evidence for decision in decisions)
