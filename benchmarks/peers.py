"""Attacks of other libraries, with our settings: ``attack(model, x, y, eps=, seed=)``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import torch
from foolbox.attacks import LinfPGD
from foolbox.models.pytorch import PyTorchModel
from pyautoattack import AutoAttack
from torch import Tensor

from cappaper.data import import_torchvision

STEPS = 40
STEP = 2.5 / STEPS  # of ε

Attack = Callable[..., Any]  # a Tensor: peers have no type hints


def torchattacks(model: Any, x: Tensor, y: Tensor, *, eps: float, seed: int) -> Any:
    from torchattacks import PGD

    torch.manual_seed(seed)
    return PGD(model, eps=eps, alpha=STEP * eps, steps=STEPS)(x, y)


def foolbox(model: Any, x: Tensor, y: Tensor, *, eps: float, seed: int) -> Any:
    torch.manual_seed(seed)
    wrapped = PyTorchModel(model, bounds=(0, 1), device=x.device)
    return LinfPGD(steps=STEPS, rel_stepsize=STEP)(wrapped, x, y, epsilons=eps)[1]


def advlib(model: Any, x: Tensor, y: Tensor, *, eps: float, seed: int) -> Any:
    import_torchvision()  # adv-lib imports it
    sys.modules.setdefault("visdom", MagicMock())  # its plots need visdom, its attacks do not
    from adv_lib.attacks import pgd_linf

    torch.manual_seed(seed)
    settings = {"steps": STEPS, "relative_step_size": STEP, "random_init": True}
    return pgd_linf(model, x, y, ε=eps, **settings)


def autoattack(part: str, model: Any, x: Tensor, y: Tensor, *, eps: float, seed: int) -> Any:
    """One part of AutoAttack, as its authors wrote it."""
    attack = AutoAttack(model, norm="Linf", eps=eps, seed=seed, device=x.device)
    attack.attacks_to_run = [part]
    with torch.random.fork_rng():
        return attack.run_standard_evaluation(x, y, batch_size=len(x))[0]


PGD: dict[str, Attack] = {"torchattacks": torchattacks, "Foolbox": foolbox, "adv-lib": advlib}
