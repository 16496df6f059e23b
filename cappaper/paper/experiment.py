"""An experiment as plain values: its sizes, its networks and their training."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.activations import Activation, CappedReLU, ScaledSigmoid
from cappaper.attacks.common import Attack
from cappaper.attacks.pgd import pgd
from cappaper.data import IMAGE_SIDE, load
from cappaper.models import convnet, mlp, rescale
from cappaper.population import Population
from cappaper.surrogate import surrogate_gradient
from cappaper.training import fit


@dataclass(frozen=True)
class Profile:
    """The sizes of an experiment, by default of a quick one; chapters add everything else."""

    name: str = "quick"
    dataset: str = "digits"
    hidden: tuple[int, ...] = (128, 64)
    epochs: int = 12
    adversarial_epochs: int = 6  # an epoch of adversarial training costs seven times as much
    batch_size: int = 128
    lr: float = 5e-3
    seeds: tuple[int, ...] = (0,)
    betas: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, math.inf)  # max values, ascending
    constants: tuple[float, ...] = (1.0, 4.0, 10.0, 40.0, 100.0, 400.0)  # of the sigmoid family
    epsilons: tuple[float, ...] = (0.05, 0.1, 0.2)  # L∞ radii, ascending
    steps: int = 20  # of PGD
    effort: int = 1  # the factor in epochs and steps


PROFILES = {
    "quick": Profile(),
    "paper": Profile(
        name="paper",
        dataset="mnist",
        hidden=(300, 100),
        epochs=10,
        adversarial_epochs=6,
        lr=1e-3,
        seeds=tuple(range(10)),
        betas=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, math.inf),
        constants=(1.0, 4.0, 10.0, 20.0, 40.0, 100.0, 200.0, 400.0),
        epsilons=(0.05, 0.1, 0.2, 0.3),
        steps=40,
    ),
}


def profile(name: str = "quick", **changes: Any) -> Profile:
    """``"quick"`` (embedded digits) or ``"paper"`` (MNIST), with single fields changed.

    None keeps the profile's value, and lists become tuples. ``epochs`` sets both trainings, unless
    ``adversarial_epochs`` is given too. ``effort`` multiplies epochs and steps.

    >>> profile("quick", epochs=3, seeds=[7]).seeds
    (7,)
    """
    checks.one_of(name, PROFILES, "profile")
    lists = {k: tuple(v) for k, v in changes.items() if isinstance(v, list)}
    given: dict[str, Any] = {k: v for k, v in (changes | lists).items() if v is not None}
    if "epochs" in given:
        given = {"adversarial_epochs": given["epochs"], **given}
    base = dataclasses.replace(PROFILES[name], **given)
    checks.count(base.effort, "effort")
    longer = ("epochs", "adversarial_epochs", "steps")
    return dataclasses.replace(base, **{k: base.effort * getattr(base, k) for k in longer})


_ACTIVATIONS: dict[str, Activation] = {
    "capped": CappedReLU,
    "learned": partial(CappedReLU, learned=True),
    "sigmoid": ScaledSigmoid,
}


@dataclass(frozen=True)
class Adversary:
    """Adversarial training by L∞ PGD (Madry et al., arXiv 1706.06083).

    ε grows from 0 to ``eps`` over the share ``ramp`` of all steps: with ε = 0.3 from the first step
    on, a small network learns nothing. PGD's steps add up to ``reach`` · ε. With a ``sharpness`` it
    follows the :func:`~cappaper.surrogate_gradient`, also of ReLU. If ``half``, it uses bfloat16.
    """

    eps: float
    steps: int = 7
    ramp: float = 0.5
    sharpness: float | None = None
    reach: float = 2.5
    half: bool = False

    def at(self, step: int, steps: int) -> Attack:
        """The attack of one training step, as ``fit`` wants it."""
        eps = self.eps * min(1.0, step / max(1.0, self.ramp * steps))
        size = self.reach * eps / self.steps or None
        kind = torch.bfloat16 if self.half else None
        run = partial(pgd, steps=self.steps, step_size=size, early_exit=False, autocast=kind)

        def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            with surrogate_gradient(model, self.sharpness, relu=True):
                return run(model, x, y, eps, seed=step)

        return attack


@dataclass(frozen=True)
class Spec:
    """A network and its training: everything that decides its weights.

    ``beta`` holds one constant per hidden layer: β of a capped layer (∞ for ReLU; the start of a
    learned cap), or c of a sigmoid. With an ``initial_cap`` the network is initialised with this
    cap, and :func:`~cappaper.rescale` then changes the cap to ``beta`` but not the logits.
    """

    dataset: str
    hidden: tuple[int, ...]
    beta: tuple[float, ...]
    seed: int
    epochs: int
    batch_size: int
    lr: float
    activation: str = "capped"  # or "learned" (training moves the caps), or "sigmoid"
    adversary: Adversary | None = None  # None: standard training
    architecture: str = "mlp"  # or "convnet"; hidden is the function's argument
    initial_cap: float | None = None  # None: torch's own initialisation
    cycle: float | None = None  # the share of steps in which lr rises, before it falls
    after: int | None = None  # a copy after so many epochs; None: at the end

    def build(self) -> nn.Sequential:
        """The network as it starts out."""
        checks.one_of(self.activation, _ACTIVATIONS, "activation")
        checks.one_of(self.architecture, ("mlp", "convnet"), "architecture")
        if self.after is not None and not 1 <= self.after <= self.epochs:
            raise ValueError(f"after must lie in 1 to {self.epochs}, its epochs, got {self.after}")
        side, beta = IMAGE_SIDE[self.dataset], self.beta
        if self.initial_cap is not None:
            beta = tuple(b if math.isinf(b) else self.initial_cap for b in beta)
        make, size = (mlp, side**2) if self.architecture == "mlp" else (convnet, side)
        activation = _ACTIVATIONS[self.activation]
        model = make(size, self.hidden, beta=beta, seed=self.seed, activation=activation)
        return model if self.initial_cap is None else rescale(model, self.beta)

    @property
    def training(self) -> Spec:
        """The spec without ``after``: copies after earlier epochs come from the same training."""
        return dataclasses.replace(self, after=None)

    @property
    def recipe(self) -> Spec:
        """Everything but β, seed and initialisation: networks that share it can train together."""
        return dataclasses.replace(self.training, beta=(), seed=0, initial_cap=None)

    @property
    def placement(self) -> str:
        """The capped layers, counted from 1: ``"1+2"``, or ``"none"``."""
        return "+".join(str(i + 1) for i, b in enumerate(self.beta) if b < math.inf) or "none"

    def columns(self) -> dict[str, Any]:
        """What identifies the network in a table. ``beta`` is its lowest cap."""
        conv = "conv " * (self.architecture == "convnet")
        return {
            "dataset": self.dataset,
            "architecture": conv + "-".join(map(str, self.hidden)),
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
    adversary: Adversary | None = None,
    **more: Any,
) -> list[Spec]:
    """A network for every β and every seed; None takes the profile's value.

    ``betas`` are max values, or a sigmoid's constants: each one number, or one per hidden layer.
    ``more`` are other fields of :class:`Spec`.
    """
    hidden = tuple(profile.hidden if hidden is None else hidden)
    epochs = profile.adversarial_epochs if adversary else profile.epochs
    sizes: dict[str, Any] = {"epochs": epochs, "batch_size": profile.batch_size, "lr": profile.lr}
    more = sizes | {"adversary": adversary} | more
    return [
        Spec(profile.dataset, hidden, tuple(checks.per_layer(beta, len(hidden))), seed, **more)
        for beta in (profile.betas if betas is None else betas)
        for seed in (profile.seeds if seeds is None else seeds)
    ]


def one_cycle(peak: float, rise: float, step: int, steps: int) -> float:
    """A step's learning rate: it rises linearly to ``peak``, for the share ``rise``, and falls.

    It is above 0 at either end. Source: Wong et al., arXiv 2001.03994, section 5.

    >>> [round(one_cycle(3.0, 0.5, step, 5), 6) for step in range(5)]
    [1.0, 2.0, 3.0, 2.0, 1.0]
    """
    if not 0 < rise < 1:
        raise ValueError(f"a cycle must rise for a share between 0 and 1, got {rise}")
    share = (step + 1) / (steps + 1)
    return peak * min(share / rise, (1 - share) / (1 - rise))


def train(
    specs: Sequence[Spec],
    device: str,
    checkpoint: Path | None = None,
    keep: Callable[[Spec, dict[str, Tensor]], None] = lambda spec, weights: None,
) -> dict[Spec, dict[str, Tensor]]:
    """The weights of networks of one :attr:`Spec.recipe`; several train as one population.

    ``keep`` gets the weights of each network as soon as it is trained.
    """
    recipe = specs[0].recipe
    trainings = list(dict.fromkeys(spec.training for spec in specs))
    built = [spec.build() for spec in trainings]
    model: Any = (built[0] if len(built) == 1 else Population(built)).to(device)
    weights: dict[Spec, dict[str, Tensor]] = {}
    resumed = checkpoint is not None and checkpoint.exists()

    def after_epoch(epoch: int, epochs: int) -> None:
        for spec in specs:
            if epoch == (spec.after or epochs):
                member = model if len(built) == 1 else model[trainings.index(spec.training)]
                weights[spec] = copy.deepcopy(member).cpu().state_dict()
                keep(spec, weights[spec])

    fit(
        model,
        *load(recipe.dataset, "train").to(device),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        lr=recipe.lr if recipe.cycle is None else partial(one_cycle, recipe.lr, recipe.cycle),
        attack_at=recipe.adversary.at if recipe.adversary else None,
        seed=[spec.seed for spec in trainings],
        checkpoint=checkpoint,
        progress=after_epoch,
    )
    if checkpoint is not None and resumed and len(weights) < len(specs):
        # The checkpoint was past an epoch that is wanted now: train from the start.
        checkpoint.unlink(missing_ok=True)
        return train(specs, device, checkpoint, keep)
    return weights
