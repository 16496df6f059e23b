"""Attacks, certificates and the truth: all that is asked of one network about its robustness."""

from __future__ import annotations

import dataclasses
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from cappaper.attacks.autoattack import ReliabilityWarning, auto_attack
from cappaper.attacks.common import run_in_turn
from cappaper.attacks.pgd import adaptive_pgd, fgsm, pgd
from cappaper.attacks.strongest import strongest_attack
from cappaper.certificates.bounds import certify
from cappaper.certificates.exact import exact_robustness
from cappaper.data import Dataset
from cappaper.evaluation import EpsAttack
from cappaper.paper.attack import Attack, attacked
from cappaper.paper.judge import Judge, Radii, Row, accuracy, settings_of
from cappaper.paper.tables import UNKNOWN, outcome_row, outcomes

_APART = 1000  # between the seeds of two runs: further than those of two networks


@dataclass(frozen=True)
class Clean(Attack):
    """No attack at all: what stands is standard accuracy."""

    name: str = "no attack"

    def bind(self, seed: int) -> EpsAttack:
        return lambda model, x, y, *, eps: x


@dataclass(frozen=True)
class Noise(Attack):
    """Every pixel moves by ε, up or down at random: as far as PGD's, and made for no network."""

    name: str = "noise"

    def bind(self, seed: int) -> EpsAttack:
        def attack(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            sign = torch.randint(2, x.shape, generator=generator) * 2 - 1
            return (x + eps * sign.to(x)).clamp(0, 1)

        return attack


@dataclass(frozen=True)
class FGSM(Attack):
    """:func:`cappaper.fgsm`."""

    name: str = "FGSM"

    def bind(self, seed: int) -> EpsAttack:
        return fgsm


@dataclass(frozen=True)
class PGD(Attack):
    """:func:`cappaper.pgd` with these settings; its seed is that of the network."""

    steps: int = 40
    norm: str = "linf"
    restarts: int = 1
    early_exit: bool = True
    name: str = "PGD"

    def bind(self, seed: int) -> EpsAttack:
        return partial(pgd, seed=seed, **settings_of(self))


@dataclass(frozen=True)
class AdaptivePGD(Attack):
    """:func:`cappaper.adaptive_pgd` with these settings; its seed is that of the network."""

    steps: int = 40
    restarts: int = 1
    name: str = "cap-aware PGD"

    def bind(self, seed: int) -> EpsAttack:
        return partial(adaptive_pgd, seed=seed, **settings_of(self))


@dataclass(frozen=True)
class Strongest(Attack):
    """:func:`cappaper.strongest_attack` with these settings; its seed is that of the network."""

    steps: int = 100
    restarts: int = 1
    queries: int = 5000
    name: str = "all attacks"

    def times(self, effort: int) -> Strongest:
        """With so many times the steps and queries."""
        more = {field: effort * getattr(self, field) for field in ("steps", "queries")}
        return dataclasses.replace(self, **more)

    def bind(self, seed: int) -> EpsAttack:
        return partial(strongest_attack, seed=seed, **settings_of(self))


@dataclass(frozen=True)
class AutoAttack(Attack):
    """One part of :func:`cappaper.auto_attack`, once or again from other starts.

    Its seed is that of the network; a later run attacks what the earlier ones left.
    """

    part: str
    runs: int = 1

    @property
    def name(self) -> str:
        return "Square" if self.part == "square" else self.part.upper()

    def bind(self, seed: int) -> EpsAttack:
        seeds = [seed + _APART * run for run in range(self.runs)]

        def attack(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
            part = partial(auto_attack, model, eps=eps, parts=(self.part,))
            return run_in_turn(model, [partial(part, seed=each) for each in seeds], x, y)

        return attack

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        """As any attack's; ``warning`` is AutoAttack's own, the first at each ε."""
        attack, doubts = self.bind(seed), dict[float, str]()

        def noting(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ReliabilityWarning)
                found = attack(model, x, y, eps=eps)
            for warning in caught:
                if issubclass(warning.category, ReliabilityWarning):
                    doubts.setdefault(eps, str(warning.message))
            return found

        rows = attacked(self.name, noting, model, test, epsilons)
        return [row | {"warning": doubts.get(row["eps"], "")} for row in rows]


class Bound(Judge):
    """Something proven: an outcome for every image, at each ε on its own."""

    @abstractmethod
    def outcomes(self, model: nn.Module, test: Dataset, eps: float) -> str: ...

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        standard = accuracy(model, test)
        return [
            outcome_row(self.name, eps, standard, self.outcomes(model, test, eps))
            for eps in epsilons
        ]


@dataclass(frozen=True)
class Certificate(Bound):
    """:func:`cappaper.certify`: an image stands if no attack can succeed."""

    method: str

    @property
    def name(self) -> str:
        return f"certified by {self.method.upper()}"

    def outcomes(self, model: nn.Module, test: Dataset, eps: float) -> str:
        return outcomes(certify(model, *test, eps, self.method).tolist())


@dataclass(frozen=True)
class Exact(Bound):
    """:func:`cappaper.exact_robustness`: the truth; what it leaves open is unknown."""

    time_limit: float = 30.0
    name: str = "exact"

    def outcomes(self, model: nn.Module, test: Dataset, eps: float) -> str:
        found = exact_robustness(model, *test, eps, time_limit=self.time_limit)
        both = zip(outcomes(found.robust.tolist()), found.undecided.tolist(), strict=True)
        return "".join(UNKNOWN if undecided else mark for mark, undecided in both)
