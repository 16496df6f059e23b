"""Attacks, certificates and the truth: all that is asked of one network about its robustness."""

from __future__ import annotations

import dataclasses
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cappaper.attacks.ascent import classified
from cappaper.attacks.autoattack import ReliabilityWarning, auto_attack
from cappaper.attacks.carlini_wagner import cw_l2
from cappaper.attacks.gradient import adaptive_pgd, fgsm, pgd
from cappaper.attacks.strongest import strongest_attack
from cappaper.attacks.surrogate import surrogate_gradient
from cappaper.certificates.bounds import certify
from cappaper.certificates.exact import exact_robustness
from cappaper.data import Dataset
from cappaper.evaluation import EpsAttack, standing
from cappaper.paper.marks import UNKNOWN, judgement, marks

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
        return partial(pgd, seed=seed, **_settings(self))


@dataclass(frozen=True)
class AdaptivePGD(Attack):
    """:func:`cappaper.adaptive_pgd` with these settings; its seed is that of the network."""

    steps: int = 40
    restarts: int = 1
    name: str = "cap-aware PGD"

    def bind(self, seed: int) -> EpsAttack:
        return partial(adaptive_pgd, seed=seed, **_settings(self))


@dataclass(frozen=True)
class Strongest(Attack):
    """:func:`cappaper.strongest_attack` with these settings; its seed is that of the network."""

    steps: int = 100
    restarts: int = 1
    queries: int = 5000
    name: str = "all attacks"

    def bind(self, seed: int) -> EpsAttack:
        return partial(strongest_attack, seed=seed, **_settings(self))


@dataclass(frozen=True)
class AutoAttack(Attack):
    """One part of :func:`cappaper.auto_attack`; its seed is that of the network."""

    part: str

    @property
    def name(self) -> str:
        return "Square" if self.part == "square" else self.part.upper()

    def bind(self, seed: int) -> EpsAttack:
        return partial(auto_attack, parts=(self.part,), seed=seed)

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


@dataclass(frozen=True)
class CW(Judge):
    """:func:`cappaper.cw_l2` with these settings, of unlimited radius.

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

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        """One row. ``success_rate``: share of the images classified correctly with an example.

        ``median_l2``: over all images classified correctly; where none was found it counts as ∞.
        """
        correct = classified(model, *test)
        images, labels = test.images[correct], test.labels[correct]
        standard, success, median = correct.double().mean().item(), math.nan, math.nan
        if len(labels):
            settings = _settings(self)
            with surrogate_gradient(model, settings.pop("sharpness")):
                adversarial = cw_l2(model, images, labels, **settings)
            fooled = ~classified(model, adversarial, labels)
            length = (adversarial - images).flatten(1).norm(dim=1)
            length[~fooled] = math.inf
            success, median = fooled.double().mean().item(), length.median().item()
        row: Row = {"attack": self.name, "standard_accuracy": standard}
        row |= {"robust_accuracy": standard * (1 - success), "success_rate": success}
        return [row | {"median_l2": median, "images": len(test.labels)}]


class Bound(Judge):
    """Something proven: an outcome for every image, at each ε on its own."""

    @abstractmethod
    def outcomes(self, model: nn.Module, test: Dataset, eps: float) -> str: ...

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        standard = accuracy(model, test)
        return [
            judgement(self.name, eps, standard, self.outcomes(model, test, eps)) for eps in epsilons
        ]


@dataclass(frozen=True)
class Certificate(Bound):
    """:func:`cappaper.certify`: an image stands if no attack can succeed."""

    method: str

    @property
    def name(self) -> str:
        return f"certified by {self.method.upper()}"

    def outcomes(self, model: nn.Module, test: Dataset, eps: float) -> str:
        return marks(certify(model, *test, eps, self.method).tolist())


@dataclass(frozen=True)
class Exact(Bound):
    """:func:`cappaper.exact_robustness`: the truth; what it leaves open is unknown."""

    time_limit: float = 30.0
    name: str = "exact"

    def outcomes(self, model: nn.Module, test: Dataset, eps: float) -> str:
        found = exact_robustness(model, *test, eps, time_limit=self.time_limit)
        both = zip(marks(found.robust.tolist()), found.undecided.tolist(), strict=True)
        return "".join(UNKNOWN if undecided else mark for mark, undecided in both)


def accuracy(model: nn.Module, test: Dataset) -> float:
    return classified(model, *test).double().mean().item()


def _settings(judge: Any) -> dict[str, Any]:
    """The arguments of the function that it calls."""
    return {k: v for k, v in dataclasses.asdict(judge).items() if k != "name"}
