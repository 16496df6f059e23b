"""A judge: whatever is asked of one network. An attack is one that is asked at growing radii."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from cappaper.attacks.ascent import classified
from cappaper.data import Dataset
from cappaper.evaluation import EpsAttack, standing
from cappaper.paper.marks import judgement, marks

Row = dict[str, Any]
Radii = Sequence[float]


class Judge(ABC):
    """What is asked of one network: a frozen dataclass, so that its ``repr`` says all about it."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What tables call it."""

    @property
    def trained(self) -> bool:
        """Whether it looks at networks after their training, or as they start out."""
        return True

    @abstractmethod
    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        """Rows of a table about ``model``, a single network in eval mode, on the ``test`` images.

        ``seed`` is that of whatever is drawn; ``epsilons`` are radii, ascending, if it takes any.
        """


class Attack(Judge):
    """An attack, asked at growing ε: a success counts for every larger one too."""

    @abstractmethod
    def bind(self, seed: int) -> EpsAttack:
        """The attack as a function, ``attack(model, x, y, eps=...) -> x_adv``."""

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        return attacked(self.name, self.bind(seed), model, test, epsilons)


def attacked(
    name: str, attack: EpsAttack, model: nn.Module, test: Dataset, epsilons: Radii
) -> list[Row]:
    """A row per radius: the rates of :class:`~cappaper.Rates`, and every image's outcome."""
    if not epsilons:
        return []
    stands = standing(model, *test, [partial(attack, eps=eps) for eps in epsilons])
    return rates(name, epsilons, stands)


def rates(name: str, epsilons: Radii, stands: Tensor) -> list[Row]:
    """Rows from which images stand before the attack and at each ε, ``[1 + radii, N]``."""
    correct, left = stands[0], stands[1:]
    standard, count = correct.double().mean().item(), int(correct.sum())
    rows = []
    for eps, stands in zip(epsilons, left, strict=True):
        success = 1 - int(stands.sum()) / count if count else 0.0
        rows.append(judgement(name, eps, standard, marks(stands.tolist()), success_rate=success))
    return rows


def accuracy(model: nn.Module, test: Dataset) -> float:
    return classified(model, *test).double().mean().item()


def settings_of(judge: Any) -> dict[str, Any]:
    """The arguments of the function that it calls."""
    return {k: v for k, v in dataclasses.asdict(judge).items() if k != "name"}
