"""What a study is made of, as plain values: networks, and how each is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from cappaper import attacks
from cappaper.activations import Activation, CappedReLU, ScaledSigmoid, per_layer
from cappaper.attacks.ascent import Attack
from cappaper.attacks.surrogate import surrogate_gradient
from cappaper.checks import one_of
from cappaper.data import IMAGE_SIDE
from cappaper.models import convnet, mlp, rescale
from cappaper.paper.profiles import Profile

_ACTIVATIONS: dict[str, Activation] = {
    "capped": CappedReLU,
    "learned": partial(CappedReLU, learned=True),
    "sigmoid": ScaledSigmoid,
}


@dataclass(frozen=True)
class Adversary:
    """Adversarial training by L∞ PGD (Madry et al., arXiv 1706.06083).

    ``eps`` is reached after the share ``ramp`` of all steps, growing linearly from 0: from the
    first step on, ε = 0.3 keeps a small network from learning anything. Random starts are fresh
    at every step. ``sharpness`` is for an adversary that knows about the cap: its PGD follows the
    :func:`~cappaper.surrogate_gradient`; None is the exact gradient.
    """

    eps: float
    steps: int = 7
    ramp: float = 0.5
    sharpness: float | None = None

    def at(self, step: int, steps: int) -> Attack:
        """The attack of one training step, as ``fit`` wants it."""
        eps = self.eps * min(1.0, step / max(1.0, self.ramp * steps))

        def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            with surrogate_gradient(model, self.sharpness):
                return attacks.pgd(model, x, y, eps, steps=self.steps, early_exit=False, seed=step)

        return attack


@dataclass(frozen=True)
class Spec:
    """A network and how it is trained: all that decides its weights.

    ``architecture`` is ``"mlp"`` or ``"convnet"``, and ``hidden`` what these functions make of it.
    ``activation`` is ``"capped"``, ``"learned"`` (capped, and training moves the caps) or
    ``"sigmoid"``. ``beta`` holds one constant per hidden layer: β of a capped layer (∞ for ReLU;
    where a learned cap starts), c of a sigmoid.
    ``initial_cap`` is for a scale-aware initialisation: the network starts as the one with this
    cap would, :func:`~cappaper.models.rescale`\\ d to ``beta``; None starts with torch's default.
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
    architecture: str = "mlp"
    initial_cap: float | None = None

    def build(self) -> nn.Sequential:
        """The network as it starts out."""
        one_of(self.activation, tuple(_ACTIVATIONS), "activation")
        one_of(self.architecture, ("mlp", "convnet"), "architecture")
        side, beta = IMAGE_SIDE[self.dataset], self.beta
        if self.initial_cap is not None:
            beta = tuple(b if math.isinf(b) else self.initial_cap for b in beta)
        make, size = (mlp, side**2) if self.architecture == "mlp" else (convnet, side)
        activation = _ACTIVATIONS[self.activation]
        model = make(size, self.hidden, beta=beta, seed=self.seed, activation=activation)
        return model if self.initial_cap is None else rescale(model, self.beta)

    @property
    def placement(self) -> str:
        """The capped layers, counted from 1: ``"1+2"``, or ``"none"``."""
        capped = [str(i + 1) for i, b in enumerate(self.beta) if math.isfinite(b)]
        return "+".join(capped) or "none"

    def columns(self) -> dict[str, Any]:
        """What identifies the network in a table. ``beta`` is that of its capped layers."""
        return {
            "dataset": self.dataset,
            "architecture": ("conv " if self.architecture == "convnet" else "")
            + "-".join(map(str, self.hidden)),
            "activation": self.activation,
            "initialisation": "default" if self.initial_cap is None else "rescaled",
            "placement": self.placement,
            "beta": min(self.beta),
            "training_eps": self.adversary.eps if self.adversary else 0.0,
            "seed": self.seed,
        }


def sweep(
    profile: Profile,
    *,
    betas: Sequence[float | Sequence[float]] | None = None,
    hidden: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    activation: str = "capped",
    adversary: Adversary | None = None,
    architecture: str = "mlp",
    initial_cap: float | None = None,
) -> list[Spec]:
    """Every β with every seed, at the sizes of a profile.

    Args:
        profile: gives what is not said here.
        betas: max values (or a sigmoid's constants); each one number, or one per hidden layer.
        hidden: units of the hidden layers.
        seeds: one network each.
        activation: as :class:`Spec`.
        adversary: adversarial training; None is standard training.
        architecture, initial_cap: as :class:`Spec`.
    """
    hidden = tuple(profile.hidden if hidden is None else hidden)
    return [
        Spec(
            dataset=profile.dataset,
            hidden=hidden,
            beta=tuple(per_layer(beta, len(hidden))),
            seed=seed,
            epochs=profile.adversarial_epochs if adversary else profile.epochs,
            batch_size=profile.batch_size,
            lr=profile.lr,
            activation=activation,
            adversary=adversary,
            architecture=architecture,
            initial_cap=initial_cap,
        )
        for beta in (profile.betas if betas is None else betas)
        for seed in (profile.seeds if seeds is None else seeds)
    ]
