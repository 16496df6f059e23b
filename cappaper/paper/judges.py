"""Judges of one network's robustness: attacks, proofs, and searches for near examples."""

import dataclasses
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from cappaper.attacks.auto_pgd import cw_l2
from cappaper.attacks.common import is_correct, run_in_turn
from cappaper.attacks.pgd import adaptive_pgd, fgsm, pgd
from cappaper.attacks.strongest import auto_attack, strongest_attack
from cappaper.certificates.bounds import certify
from cappaper.certificates.exact import exact_robustness
from cappaper.checks import ReliabilityWarning
from cappaper.data import Dataset
from cappaper.evaluation import is_robust
from cappaper.paper.tables import UNKNOWN, Row, outcome_row, outcomes
from cappaper.surrogate import surrogate_gradient

Radii = Sequence[float]


class Judge(ABC):
    """What answers a question about one network: a frozen dataclass; its ``repr`` is in cache keys.

    ``function`` takes the network, images, labels and the judge's settings.
    """

    trained: bool = True  # False: the question is about the network before training
    function: ClassVar[Callable[..., Any]]

    @property
    @abstractmethod
    def name(self) -> str:
        """The name in tables."""

    @abstractmethod
    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        """Rows of a table about ``model``, a single network in eval mode, on the ``test`` images.

        ``seed`` is for all random numbers; ``epsilons`` are radii, ascending, if it takes any.
        """

    def settings(self) -> dict[str, Any]:
        """The fields without the name."""
        return {key: value for key, value in vars(self).items() if key != "name"}


class Attack(Judge):
    """An attack at growing ε: a success counts for every larger ε too."""

    def bind(self, seed: int) -> Callable[..., Tensor]:
        """The attack as a function, ``attack(model, x, y, eps=...) -> x_adv``."""
        return partial(self.function, seed=seed, **self.settings())

    def times(self, effort: int) -> Any:
        """The same attack with ``effort`` times the steps and queries."""
        given = self.settings()
        longer = {key: effort * given[key] for key in ("steps", "queries") if key in given}
        return dataclasses.replace(cast(Any, self), **longer)

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        attacks = [partial(self.bind(seed), eps=eps) for eps in epsilons]
        return attack_rows(self.name, epsilons, is_robust(model, *test, attacks))


def attack_rows(name: str, epsilons: Radii, robust: Tensor) -> list[Row]:
    """A row per ε; ``robust``, ``[1 + radii, N]``, has the correct images, then the robust ones."""
    correct = int(robust[0].sum())
    rows = []
    for eps, still_robust in zip(epsilons, robust[1:], strict=True):
        success = 1 - int(still_robust.sum()) / correct if correct else 0.0
        images = outcomes(still_robust.tolist())
        rows.append(outcome_row(name, eps, correct / len(images), images, success_rate=success))
    return rows


class Proof(Judge):
    """A proof for each image that no attack can succeed; ``function`` returns the outcomes."""

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        prove = partial(self.function, model, *test, **self.settings())
        standard = accuracy(model, test)
        return [outcome_row(self.name, eps, standard, prove(eps=eps)) for eps in epsilons]


class Search(Judge):
    """A search for near adversarial examples: how often it succeeds, and at which distance.

    ``function`` returns an example for each image, still classified correctly where it failed.
    """

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        """One row; an image for which the search finds no example is at an infinite distance."""
        correct = is_correct(model, *test)
        images, labels = test.images[correct], test.labels[correct]
        standard, success, median = correct.double().mean().item(), math.nan, math.nan
        if len(labels):
            adversarial = self.function(model, images, labels, seed=seed, **self.settings())
            fooled = ~is_correct(model, adversarial, labels)
            length = (adversarial - images).flatten(1).norm(dim=1)
            length[~fooled] = math.inf
            success, median = fooled.double().mean().item(), length.median().item()
        row: Row = {"attack": self.name, "standard_accuracy": standard}
        row |= {"robust_accuracy": standard * (1 - success), "success_rate": success}
        return [row | {"median_l2": median, "images": len(test.labels)}]


def accuracy(model: nn.Module, test: Dataset) -> float:
    return is_correct(model, *test).double().mean().item()


def _judge(base: type, kind: str, name: str, function: Callable[..., Any], **settings: Any) -> Any:
    """A dataclass of judges with this function; ``settings`` are its fields and their defaults."""
    fields = [(key, type(value), value) for key, value in {**settings, "name": name}.items()]
    space = {"function": staticmethod(function), "__module__": __name__}
    return dataclasses.make_dataclass(kind, fields, bases=(base,), frozen=True, namespace=space)


def _unchanged(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, seed: int) -> Tensor:
    """No attack: robust accuracy is standard accuracy."""
    return x


def _noise(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, seed: int) -> Tensor:
    """Every pixel moves by ε, up or down at random: as far as PGD moves it, without a gradient."""
    sign = torch.randint(2, x.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return (x + eps * sign.to(x)).clamp(0, 1)


def _fgsm(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, seed: int) -> Tensor:
    """The fast gradient sign method: one step of size ε for every example."""
    return fgsm(model, x, y, eps)


def _along_slope(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, seed: int, steps: int, sharpness: float
) -> Tensor:
    """PGD along the smooth slope of the cap; it takes all steps, for the largest perturbation."""
    with surrogate_gradient(model, sharpness):
        return pgd(model, x, y, eps, steps=steps, seed=seed, early_exit=False)


def _exact(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, time_limit: float) -> str:
    """:func:`cappaper.exact_robustness`; an image without an answer in time is unknown."""
    answer = exact_robustness(model, x, y, eps, time_limit=time_limit)
    images = zip(outcomes(answer.robust.tolist()), answer.undecided.tolist(), strict=True)
    return "".join(UNKNOWN if undecided else outcome for outcome, undecided in images)


def _cw(
    model: nn.Module, x: Tensor, y: Tensor, *, seed: int, sharpness: float | None, **settings: Any
) -> Tensor:
    """:func:`cappaper.cw_l2`; with a ``sharpness``, by the :func:`~cappaper.surrogate_gradient`."""
    with surrogate_gradient(model, sharpness):
        return cw_l2(model, x, y, **settings)


def _growing_balls(
    model: nn.Module, x: Tensor, y: Tensor, *, seed: int, steps: int, radii: Radii
) -> Tensor:
    """:func:`cappaper.adaptive_pgd` in L2 balls of growing radius, up to its first success."""
    attack = partial(adaptive_pgd, model, steps=steps, norm="l2", seed=seed)
    return run_in_turn(model, [partial(attack, eps=radius) for radius in radii], x, y)


Clean = _judge(Attack, "Clean", "no attack", _unchanged)
Noise = _judge(Attack, "Noise", "noise", _noise)
FGSM = _judge(Attack, "FGSM", "FGSM", _fgsm)
PGD = _judge(Attack, "PGD", "PGD", pgd, steps=40, norm="linf", restarts=1, early_exit=True)
AdaptivePGD = _judge(Attack, "AdaptivePGD", "cap-aware PGD", adaptive_pgd, steps=40, restarts=1)
SmoothPGD = _judge(Attack, "SmoothPGD", "cap-aware PGD", _along_slope, steps=40, sharpness=10.0)
_most = {"steps": 100, "restarts": 1, "queries": 5000}
Strongest = _judge(Attack, "Strongest", "our ensemble", strongest_attack, **_most)
Exact = _judge(Proof, "Exact", "exact", _exact, time_limit=30.0)
# A black pixel starts at w = -7.3: with few steps, the steps must be long.
_search = {"steps": 300, "search_steps": 9, "lr": 0.1, "initial_const": 1e-2, "sharpness": None}
CW = _judge(Search, "CW", "CW", _cw, **_search)
_balls = {"steps": 40, "radii": (0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 3.0)}
GrowingBalls = _judge(Search, "GrowingBalls", "cap-aware PGD (L2)", _growing_balls, **_balls)


@dataclass(frozen=True)
class AutoAttack(Attack):
    """One part of :func:`cappaper.auto_attack`, with the network's seed.

    Each of several ``runs`` has other random starts, and attacks the images that are still robust.
    """

    part: str
    runs: int = 1

    @property
    def name(self) -> str:
        return "Square" if self.part == "square" else self.part.upper()

    def bind(self, seed: int) -> Callable[..., Tensor]:
        def attack(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> Tensor:
            part = partial(auto_attack, model, eps=eps, parts=(self.part,))
            # 1000 is more than the networks' seeds differ.
            runs = [partial(part, seed=seed + 1000 * run) for run in range(self.runs)]
            return run_in_turn(model, runs, x, y)

        return attack

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        """The rows of an attack, with the first warning of AutoAttack as ``warning``."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ReliabilityWarning)
            rows = super().rows(model, test, seed, epsilons)
        said = [str(w.message) for w in caught if issubclass(w.category, ReliabilityWarning)]
        return [row | {"warning": said[0] if said else ""} for row in rows]


@dataclass(frozen=True)
class Certificate(Proof):
    """:func:`cappaper.certify` by the method ``"ibp"`` or ``"crown"``."""

    method: str

    @property
    def name(self) -> str:
        return f"certified by {self.method.upper()}"

    @staticmethod
    def function(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, method: str) -> str:
        return outcomes(certify(model, x, y, eps, method).tolist())
