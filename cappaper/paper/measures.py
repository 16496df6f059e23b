"""What a study asks of one trained network: each measure gives rows of a table.

A measure takes the network, the images it is judged on, the seed of whatever it draws, and its own
settings, and holds nothing else: it can run in a process of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from cappaper import attacks
from cappaper.attacks.ascent import Attack, classified
from cappaper.data import Dataset
from cappaper.evaluation import EpsAttack, robustness_curve
from cappaper.inspection import layer_distances, layer_signals

Row = dict[str, Any]


@dataclass(frozen=True)
class FGSM:
    """:func:`cappaper.fgsm`."""

    name: str = "FGSM"

    def bind(self, seed: int) -> EpsAttack:
        return attacks.fgsm


@dataclass(frozen=True)
class PGD:
    """:func:`cappaper.pgd` with these settings; its seed is that of the network."""

    steps: int = 40
    norm: str = "linf"
    restarts: int = 1
    early_exit: bool = True
    name: str = "PGD"

    def bind(self, seed: int) -> EpsAttack:
        settings = {k: v for k, v in dataclasses.asdict(self).items() if k != "name"}
        return partial(attacks.pgd, seed=seed, **settings)


@dataclass(frozen=True)
class AdaptivePGD:
    """:func:`cappaper.adaptive_pgd` with these settings; its seed is that of the network."""

    steps: int = 40
    restarts: int = 1
    name: str = "cap-aware PGD"

    def bind(self, seed: int) -> EpsAttack:
        return partial(attacks.adaptive_pgd, seed=seed, steps=self.steps, restarts=self.restarts)


EpsSpec = FGSM | PGD | AdaptivePGD
"""An attack of a given radius, as a value."""


@dataclass(frozen=True)
class CW:
    """:func:`cappaper.cw_l2` with these settings.

    A black pixel starts at w = -7.3: few steps need to be long ones to bring it anywhere.
    """

    steps: int = 300
    search_steps: int = 9
    lr: float = 0.1
    initial_const: float = 1e-2
    name: str = "CW"

    def bind(self, seed: int) -> Attack:
        settings = {k: v for k, v in dataclasses.asdict(self).items() if k != "name"}
        return partial(attacks.cw_l2, **settings)


def rates(
    model: nn.Module, test: Dataset, seed: int, attack: EpsSpec, epsilons: Sequence[float]
) -> list[Row]:
    """A row per radius: the three rates of :class:`~cappaper.evaluation.Rates`."""
    curve = robustness_curve(model, *test, attack.bind(seed), epsilons)
    return [
        {"attack": attack.name, "eps": eps, **dataclasses.asdict(found), "images": len(test.labels)}
        for eps, found in zip(epsilons, curve, strict=True)
    ]


def distances(
    model: nn.Module, test: Dataset, seed: int, attack: EpsSpec, epsilons: Sequence[float]
) -> list[Row]:
    """A row per radius and hidden layer (1 is the first): how far the perturbation has come."""
    rows = []
    for eps in epsilons:
        adversarial = attack.bind(seed)(model, *test, eps=eps)
        for i, found in enumerate(layer_distances(model, test.images, adversarial)):
            named = {"attack": attack.name, "eps": eps, **found._asdict()}
            rows.append({**named, "layer": i + 1})
    return rows


def signals(model: nn.Module, test: Dataset, seed: int) -> list[Row]:
    """A row per hidden layer (1 is the first): the gradient that reaches it, and its units."""
    accuracy = classified(model, *test).float().mean().item()
    found = layer_signals(model, *test)
    return [{**f._asdict(), "layer": i + 1, "accuracy": accuracy} for i, f in enumerate(found)]


def distortions(model: nn.Module, test: Dataset, seed: int, attack: CW) -> list[Row]:
    """One row: how near the nearest adversarial examples are.

    ``success_rate``: share of the images classified correctly for which one was found.
    ``median_l2``: over all images classified correctly; where none was found it counts as ∞.
    """
    correct = classified(model, *test)
    images, labels = test.images[correct], test.labels[correct]
    row: Row = {"attack": attack.name, "standard_accuracy": correct.float().mean().item()}
    if len(labels) == 0:
        nothing = float("nan")
        found = {"success_rate": nothing, "median_l2": nothing}
    else:
        adversarial = attack.bind(seed)(model, images, labels)
        fooled = ~classified(model, adversarial, labels)
        length = (adversarial - images).flatten(1).norm(dim=1)
        length[~fooled] = float("inf")
        found = {
            "success_rate": fooled.float().mean().item(),
            "median_l2": length.median().item(),
        }
    left = row["standard_accuracy"] * (1 - found["success_rate"])
    return [{**row, "robust_accuracy": left, **found, "images": len(test.labels)}]
