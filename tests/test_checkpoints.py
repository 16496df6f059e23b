"""Trainings that go on: what belongs to one, and what it must not hang on."""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from cappaper import (
    CappedReLU,
    fit,
    load,
    mlp,
    pgd,
)


@pytest.fixture(scope="module")
def digits():
    return load("digits", "test", limit=20)


def test_a_checkpoint_is_of_one_training_alone(digits, tmp_path):
    x, y = digits
    path = tmp_path / "training"
    given = {"epochs": 1, "checkpoint": path, "lr": np.float64(1e-3)}
    fit(mlp(64, [8], beta=0.1), x, y, **given)
    again = fit(mlp(64, [8], beta=0.1), x, y, **given)  # goes on from it, and has nothing to do
    assert again[2].beta == pytest.approx(0.1)
    attack = partial(pgd, eps=0.1, steps=1, early_exit=False)
    for net, images, more in (
        (mlp(64, [8], beta=5.0), x, {}),
        (mlp(64, [8], beta=0.1), 1 - x, {}),
        (mlp(64, [9], beta=0.1), x, {}),
        (mlp(64, [8], beta=0.1), x, {"attack": attack}),
        (mlp(64, [8], beta=0.1), x, {"lr": lambda *at: 1e-3}),
    ):
        with pytest.raises(ValueError, match="belongs to another training"):
            fit(net, images, y, **given | more)
    path.unlink()
    fit(mlp(64, [8]), x, y, **given, attack=attack)
    fit(mlp(64, [8]), x, y, **given, attack=partial(pgd, eps=0.1, steps=1, early_exit=False))
    fit(mlp(64, [8]), x, y, **given, attack=partial(pgd, steps=1, early_exit=False, eps=0.1))
    with pytest.raises(ValueError, match="belongs to another training"):
        fit(mlp(64, [8]), x, y, **given, attack=partial(attack, eps=0.2))


class Stronger:
    """An object that is called, and whose method says what attack a step gets."""

    def __init__(self, eps):
        self.eps = eps

    def __call__(self, model, x, y):
        return pgd(model, x, y, self.eps, steps=1, early_exit=False)

    def at(self, step, steps):
        return self


def closure(eps):
    return lambda model, x, y: pgd(model, x, y, eps, steps=1, early_exit=False)


@dataclasses.dataclass
class Attacker:
    eps: float
    attack: Callable = pgd

    def __call__(self, model, x, y):
        return self.attack(model, x, y, self.eps, steps=1, early_exit=False)


@pytest.mark.parametrize(
    "made",
    [
        lambda eps: {"attack": Stronger(eps)},
        lambda eps: {"attack_at": Stronger(eps).at},
        lambda eps: {"attack": closure(eps)},
        lambda eps: {"attack": Attacker(eps)},
        lambda eps: {"attack": Attacker(np.float64(eps))},
    ],
)
def test_an_attack_is_known_by_what_it_carries(digits, tmp_path, made):
    given = {"epochs": 1, "checkpoint": tmp_path / "training"}
    fit(mlp(64, [8]), *digits, **given, **made(0.1))
    fit(mlp(64, [8]), *digits, **given, **made(0.1))
    with pytest.raises(ValueError, match="belongs to another training"):
        fit(mlp(64, [8]), *digits, **given, **made(0.2))


def test_what_a_function_says_counts_and_so_do_layers_without_weights(digits, tmp_path):
    def weak(model, x, y):
        return pgd(model, x, y, 0.1, steps=1, early_exit=False)

    def strong(model, x, y):
        return pgd(model, x, y, 0.3, steps=1, early_exit=False)

    strong.__qualname__ = weak.__qualname__  # the same cell, edited
    given = {"epochs": 1, "checkpoint": tmp_path / "training"}
    fit(mlp(64, [8]), *digits, **given, attack=weak)
    with pytest.raises(ValueError, match="belongs to another training"):
        fit(mlp(64, [8]), *digits, **given, attack=strong)

    def net(activation):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), activation, nn.Linear(8, 10))

    given["checkpoint"] = tmp_path / "other"
    fit(net(nn.ReLU()), *digits, **given)
    for other in (nn.GELU(), nn.Hardtanh(0, 0.05)):
        with pytest.raises(ValueError, match="belongs to another training"):
            fit(net(other), *digits, **given)


def test_a_penalty_may_hold_the_network_that_is_trained(digits, tmp_path):
    def penalty(net, model):
        return net[2].beta.square().sum()

    net = mlp(64, [8], activation=partial(CappedReLU, learned=True), beta=1.0)
    given = {"epochs": 2, "checkpoint": tmp_path / "t", "penalty": partial(penalty, net)}
    fit(net, *digits, **given)
    fit(net, *digits, **given)


def test_a_cell_that_was_stopped_goes_on_with_the_network_it_had(digits, tmp_path):
    """Statistics that training has moved are no setting, as caps are."""
    layers = [nn.Linear(64, 8), nn.BatchNorm1d(8), CappedReLU(1.0), nn.Linear(8, 10)]
    net = nn.Sequential(nn.Flatten(), *layers)
    seen = []

    def progress(done, of):
        seen.append(done)
        if seen == [1]:
            raise KeyboardInterrupt

    given = {"epochs": 2, "checkpoint": tmp_path / "training", "progress": progress}
    with pytest.raises(KeyboardInterrupt):
        fit(net, *digits, **given)
    fit(net, *digits, **given)
    assert seen == [1, 1, 2]
    net[3] = CappedReLU(2.0)
    with pytest.raises(ValueError, match="belongs to another training"):
        fit(net, *digits, **given)


def test_a_training_with_dropout_goes_on_to_the_same_result(digits, tmp_path):
    def train(name, stop):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(), nn.Linear(16, 10))

        def progress(done, of):
            if done == stop:
                raise KeyboardInterrupt

        return fit(net, *digits, epochs=2, checkpoint=tmp_path / name, progress=progress)

    whole = train("whole", None)
    with pytest.raises(KeyboardInterrupt):
        train("halves", 1)
    torch.rand(7)
    halves = train("halves", None)
    for ours, theirs in zip(halves.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
