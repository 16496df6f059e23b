"""An attack as a judge: it is asked at growing radii."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial

from torch import Tensor, nn

from cappaper.data import Dataset
from cappaper.evaluation import EpsAttack, is_robust
from cappaper.paper.judge import Judge, Radii, Row
from cappaper.paper.tables import outcome_row, outcomes


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
    stands = is_robust(model, *test, [partial(attack, eps=eps) for eps in epsilons])
    return rates(name, epsilons, stands)


def rates(name: str, epsilons: Radii, stands: Tensor) -> list[Row]:
    """Rows from which images stand before the attack and at each ε, ``[1 + radii, N]``."""
    correct, left = stands[0], stands[1:]
    standard, count = correct.double().mean().item(), int(correct.sum())
    rows = []
    for eps, stands in zip(epsilons, left, strict=True):
        success = 1 - int(stands.sum()) / count if count else 0.0
        rows.append(
            outcome_row(name, eps, standard, outcomes(stands.tolist()), success_rate=success)
        )
    return rows
