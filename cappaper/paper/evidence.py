"""What a study asks beyond the paper's measures: every judge's word on every single image."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import pandas as pd
import torch
from torch import Tensor, nn

from cappaper.attacks.ascent import classified
from cappaper.attacks.autoattack import ReliabilityWarning, auto_attack
from cappaper.certificates.bounds import certify
from cappaper.certificates.exact import exact_robustness
from cappaper.data import Dataset
from cappaper.evaluation import EpsAttack
from cappaper.masking import masking_report
from cappaper.paper.measures import FGSM, PGD, AdaptivePGD, Row

STANDS, FALLS, UNKNOWN = ".", "x", "?"
"""One character for every image in the column ``outcomes``."""

STRONGEST = "strongest attack"


@dataclass(frozen=True)
class Clean:
    """No attack at all: what stands is standard accuracy."""

    name: str = "no attack"

    def bind(self, seed: int) -> EpsAttack:
        return _unchanged


@dataclass(frozen=True)
class Transfer:
    """Examples that were made against another network."""

    examples: Tensor
    name: str = "transfer"

    def bind(self, seed: int) -> EpsAttack:
        return lambda model, x, y, *, eps: self.examples


@dataclass(frozen=True)
class AutoAttack:
    """One part of :func:`cappaper.auto_attack`; its seed is that of the network."""

    part: str

    @property
    def name(self) -> str:
        return "Square" if self.part == "square" else self.part.upper()

    def bind(self, seed: int) -> EpsAttack:
        return partial(auto_attack, parts=(self.part,), seed=seed)


@dataclass(frozen=True)
class Certificate:
    """:func:`cappaper.certify`: what stands is a lower bound on any robust accuracy."""

    method: str

    @property
    def name(self) -> str:
        return f"certified by {self.method.upper()}"


@dataclass(frozen=True)
class Exact:
    """:func:`cappaper.exact_robustness`: what stands is the truth, what it leaves open is "?"."""

    time_limit: float = 30.0
    name: str = "exact"


class Judge(Protocol):
    """An attack, a certificate or the truth, as a value with a name."""

    @property
    def name(self) -> str: ...


def outcomes(
    model: nn.Module, test: Dataset, seed: int, judge: Judge, epsilons: Sequence[float]
) -> list[Row]:
    """A row per radius: the judge's word on each image, and the share that stands.

    ``attack`` names the judge, certificate or not: tables of rates have that column too.
    ``outcomes`` has one character for each image: "." stands, "x" falls, "?" is undecided.
    ``warning`` is what AutoAttack had to say about its own result.
    """
    rows = []
    standard = classified(model, *test).double().mean().item()
    for eps in epsilons:
        stands, unknown, warning = _judged(model, *test, eps, judge, seed)
        marks = [
            UNKNOWN if open_ else STANDS if holds else FALLS
            for holds, open_ in zip(stands, unknown, strict=True)
        ]
        row: Row = {"attack": judge.name, "eps": eps, "standard_accuracy": standard}
        row["robust_accuracy"] = marks.count(STANDS) / len(marks)
        row |= {"images": len(marks), "outcomes": "".join(marks), "warning": warning}
        rows.append(row)
    return rows


def masking(model: nn.Module, test: Dataset, seed: int, eps: float) -> list[Row]:
    """A row per question of :func:`cappaper.masking_report` and its setting, if it has one."""
    report = masking_report(model, *test, eps, seed=seed)
    rows = []
    for field in dataclasses.fields(report):
        value = getattr(report, field.name)
        settings = value if isinstance(value, dict) else {float("nan"): value}
        rows += [{"question": field.name, "setting": k, "value": v} for k, v in settings.items()]
    return rows


def strongest(table: pd.DataFrame, judges: Sequence[str], name: str = STRONGEST) -> pd.DataFrame:
    """Rows of one judge more, before whom an image stands only if it does before all of these."""
    chosen = table[table["attack"].isin(judges)]
    own = ("attack", "robust_accuracy", "outcomes", "warning", "seconds")
    same = [column for column in table if column not in own]
    rows = []
    for key, group in chosen.groupby(same, sort=False):
        both = "".join(_worst(marks) for marks in zip(*group["outcomes"], strict=True))
        share = both.count(STANDS) / len(both)
        row = dict(zip(same, key, strict=True)) | {"attack": name, "robust_accuracy": share}
        rows.append({**row, "outcomes": both, "warning": "", "seconds": 0.0})
    return pd.DataFrame(rows)


def contradictions(lower: str, upper: str) -> int:
    """For how many images a lower bound says that it stands, and an upper bound that it falls.

    >>> contradictions("..x?", ".x..")
    1
    """
    return sum(a == STANDS and b == FALLS for a, b in zip(lower, upper, strict=True))


def _judged(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, judge: Judge, seed: int
) -> tuple[list[bool], list[bool], str]:
    """For each image whether it stands, and whether that is unknown; and a warning."""
    correct = classified(model, x, y)
    certain = torch.zeros_like(correct)
    if isinstance(judge, Certificate):
        return certify(model, x, y, eps, judge.method).tolist(), certain.tolist(), ""
    if isinstance(judge, Exact):
        found = exact_robustness(model, x, y, eps, time_limit=judge.time_limit)
        return found.robust.tolist(), found.undecided.tolist(), ""
    assert isinstance(judge, (Clean, Transfer, FGSM, PGD, AdaptivePGD, AutoAttack))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ReliabilityWarning)
        adversarial = judge.bind(seed)(model, x, y, eps=eps)
    said = [str(w.message) for w in caught if issubclass(w.category, ReliabilityWarning)]
    stands = correct & classified(model, adversarial, y)
    return stands.tolist(), certain.tolist(), said[0] if said else ""


def _worst(marks: Sequence[str]) -> str:
    return FALLS if FALLS in marks else UNKNOWN if UNKNOWN in marks else STANDS


def _unchanged(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
    return x
