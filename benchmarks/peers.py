"""Attacks of other libraries, with our settings: ``attack(model, x, y, eps, seed) -> x_adv``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from cappaper.data import import_torchvision

STEPS = 40
STEP = 2.5 / STEPS  # of ε

Peer = Callable[[nn.Module, Tensor, Tensor, float, int], Tensor]


def torchattacks_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    import torchattacks

    attack = torchattacks.PGD(model, eps=eps, alpha=STEP * eps, steps=STEPS, random_start=True)
    torch.manual_seed(seed)
    found: Tensor = attack(x, y)
    return found


def foolbox_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    from foolbox.attacks import LinfPGD
    from foolbox.models.pytorch import PyTorchModel

    attack = LinfPGD(steps=STEPS, rel_stepsize=STEP, random_start=True)
    wrapped = PyTorchModel(model, bounds=(0, 1), device=x.device)
    torch.manual_seed(seed)
    found: Tensor = attack(wrapped, x, y, epsilons=eps)[1]
    return found


def advlib_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    import_torchvision()  # adv-lib imports it
    # Its plots need visdom, whose source package no longer builds; its attacks do not.
    sys.modules.setdefault("visdom", MagicMock())
    from adv_lib.attacks import pgd_linf

    settings: dict[str, Any] = {"steps": STEPS, "relative_step_size": STEP, "random_init": True}
    torch.manual_seed(seed)
    found: Tensor = pgd_linf(model, x, y, ε=eps, **settings)
    return found


PGD: dict[str, Peer] = {
    "torchattacks": torchattacks_pgd,
    "Foolbox": foolbox_pgd,
    "adv-lib": advlib_pgd,
}


def pyautoattack_part(part: str) -> Peer:
    """One part of AutoAttack, as its authors wrote it."""
    from pyautoattack import AutoAttack

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        attack = AutoAttack(model, norm="Linf", eps=eps, seed=seed, device=x.device)
        attack.attacks_to_run = [part]
        with torch.random.fork_rng():
            found: Tensor = attack.run_standard_evaluation(x, y, batch_size=len(x))[0]
        return found

    return run
