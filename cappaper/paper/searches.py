"""Attacks without a radius: how far from its image lies the nearest example that one finds."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from cappaper.attacks.carlini_wagner import cw_l2
from cappaper.attacks.common import is_correct
from cappaper.attacks.pgd import adaptive_pgd
from cappaper.data import Dataset
from cappaper.paper.judge import Judge, Radii, Row, settings_of
from cappaper.surrogate import surrogate_gradient


class Search(Judge):
    """A search for near examples, of which a table shows how often it finds one, and how near."""

    @abstractmethod
    def search(self, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        """Its example for each image; where it found none, something still classified correctly."""

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        """One row. ``success_rate``: share of the images classified correctly with an example.

        ``median_l2``: over all images classified correctly; where none was found it counts as ∞.
        """
        correct = is_correct(model, *test)
        images, labels = test.images[correct], test.labels[correct]
        standard, success, median = correct.double().mean().item(), math.nan, math.nan
        if len(labels):
            adversarial = self.search(model, images, labels, seed)
            fooled = ~is_correct(model, adversarial, labels)
            length = (adversarial - images).flatten(1).norm(dim=1)
            length[~fooled] = math.inf
            success, median = fooled.double().mean().item(), length.median().item()
        row: Row = {"attack": self.name, "standard_accuracy": standard}
        row |= {"robust_accuracy": standard * (1 - success), "success_rate": success}
        return [row | {"median_l2": median, "images": len(test.labels)}]


@dataclass(frozen=True)
class CW(Search):
    """:func:`cappaper.cw_l2` with these settings.

    A black pixel starts at w = -7.3: few steps need to be long ones to bring it anywhere.
    ``sharpness``: of the :func:`~cappaper.surrogate_gradient` that it follows, None is the exact
    gradient.
    """

    steps: int = 300
    search_steps: int = 9
    lr: float = 0.1
    initial_const: float = 1e-2
    sharpness: float | None = None
    name: str = "CW"

    def search(self, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        settings = settings_of(self)
        with surrogate_gradient(model, settings.pop("sharpness")):
            return cw_l2(model, x, y, **settings)


@dataclass(frozen=True)
class GrowingBalls(Search):
    """:func:`cappaper.adaptive_pgd` in L2 balls of growing radius, until one has an example."""

    steps: int = 40
    radii: tuple[float, ...] = (0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 3.0)
    name: str = "cap-aware PGD (L2)"

    def search(self, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
        found = x.clone()
        for radius in self.radii:
            stands = is_correct(model, found, y)
            if not stands.any():
                break
            found[stands] = adaptive_pgd(
                model, x[stands], y[stands], radius, steps=self.steps, norm="l2", seed=seed
            )
        return found
