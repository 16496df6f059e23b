"""A judge: whatever is asked of one network."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import nn

from cappaper.attacks.common import is_correct
from cappaper.data import Dataset

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


def accuracy(model: nn.Module, test: Dataset) -> float:
    return is_correct(model, *test).double().mean().item()


def settings_of(judge: Any) -> dict[str, Any]:
    """The arguments of the function that it calls."""
    return {k: v for k, v in dataclasses.asdict(judge).items() if k != "name"}
