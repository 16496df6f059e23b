"""What a study is made of, as plain values: networks to be trained, and attacks to be run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from cappaper import attacks
from cappaper.activations import CappedReLU, ScaledSigmoid, per_layer
from cappaper.attacks import Attack
from cappaper.checks import one_of
from cappaper.data import IMAGE_SIDE
from cappaper.evaluation import EpsAttack
from cappaper.models import mlp
from cappaper.profiles import Profile

_ACTIVATIONS = {"capped": CappedReLU, "sigmoid": ScaledSigmoid}


@dataclass(frozen=True)
class Adversary:
    """Adversarial training by L∞ PGD (Madry et al., arXiv 1706.06083).

    ``eps`` is reached after the share ``ramp`` of all steps, growing linearly from 0: from the
    first step on, ε = 0.3 keeps a small network from learning anything. Random starts are fresh
    at every step.
    """

    eps: float
    steps: int = 7
    ramp: float = 0.5

    def at(self, step: int, steps: int) -> Attack:
        """The attack of one training step, as ``fit`` wants it."""
        eps = self.eps * min(1.0, step / max(1.0, self.ramp * steps))
        return partial(attacks.pgd, eps=eps, steps=self.steps, early_exit=False, seed=step)


@dataclass(frozen=True)
class Spec:
    """A network and how it is trained: all that decides its weights.

    ``beta`` holds one constant per hidden layer: β of a capped layer (∞ for ReLU), c of a sigmoid.
    """

    dataset: str
    hidden: tuple[int, ...]
    beta: tuple[float, ...]
    seed: int
    epochs: int
    batch_size: int
    lr: float
    activation: str = "capped"
    adversary: Adversary | None = None

    def build(self) -> nn.Sequential:
        """The network as it starts out."""
        one_of(self.activation, tuple(_ACTIVATIONS), "activation")
        make = _ACTIVATIONS[self.activation]
        pixels = IMAGE_SIDE[self.dataset] ** 2
        return mlp(pixels, self.hidden, beta=self.beta, seed=self.seed, activation=make)

    @property
    def placement(self) -> str:
        """The capped layers, counted from 1: ``"1+2"``, or ``"none"``."""
        capped = [str(i + 1) for i, b in enumerate(self.beta) if math.isfinite(b)]
        return "+".join(capped) or "none"

    def columns(self) -> dict[str, Any]:
        """What identifies the network in a table. ``beta`` is that of its capped layers."""
        return {
            "dataset": self.dataset,
            "architecture": "-".join(map(str, self.hidden)),
            "activation": self.activation,
            "placement": self.placement,
            "beta": min(self.beta),
            "training_eps": self.adversary.eps if self.adversary else 0.0,
            "seed": self.seed,
        }


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


def sweep(
    profile: Profile,
    *,
    betas: Sequence[float | Sequence[float]] | None = None,
    hidden: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    activation: str = "capped",
    adversary: Adversary | None = None,
) -> list[Spec]:
    """Every β with every seed, at the sizes of a profile.

    Args:
        profile: gives what is not said here.
        betas: max values (or a sigmoid's constants); each one number, or one per hidden layer.
        hidden: units of the hidden layers.
        seeds: one network each.
        activation: ``"capped"`` or ``"sigmoid"``.
        adversary: adversarial training; None is standard training.
    """
    hidden = tuple(profile.hidden if hidden is None else hidden)
    return [
        Spec(
            dataset=profile.dataset,
            hidden=hidden,
            beta=tuple(per_layer(beta, len(hidden))),
            seed=seed,
            epochs=profile.epochs,
            batch_size=profile.batch_size,
            lr=profile.lr,
            activation=activation,
            adversary=adversary,
        )
        for beta in (profile.betas if betas is None else betas)
        for seed in (profile.seeds if seeds is None else seeds)
    ]
