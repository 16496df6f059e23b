"""Checkpoints: which training they belong to, and that a training resumes to the same result."""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from cappaper import CappedReLU, fit, load, mlp, pgd

ONE_STEP = partial(pgd, steps=1, early_exit=False)


@pytest.fixture(scope="module")
def digits():
    return load("digits", "test", limit=20)


@dataclasses.dataclass
class Attacker:
    """An attack with settings, and a method that returns the attack of a step."""

    eps: float
    attack: Callable = pgd

    def __call__(self, model, x, y):
        return self.attack(model, x, y, self.eps, steps=1, early_exit=False)

    def at(self, step, steps):
        return self


def net_with(activation):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), activation, nn.Linear(8, 10))


OTHERS = {
    "cap": lambda x: (mlp(64, [8], beta=5.0), x, {}),
    "images": lambda x: (mlp(64, [8], beta=0.1), 1 - x, {}),
    "width": lambda x: (mlp(64, [9], beta=0.1), x, {}),
    "activation": lambda x: (net_with(nn.GELU()), x, {}),
    "activation's setting": lambda x: (net_with(nn.Hardtanh(0, 0.05)), x, {}),
    "attack": lambda x: (mlp(64, [8], beta=0.1), x, {"attack": partial(ONE_STEP, eps=0.1)}),
    "step size": lambda x: (mlp(64, [8], beta=0.1), x, {"lr": 2e-3}),
    "schedule": lambda x: (mlp(64, [8], beta=0.1), x, {"lr": lambda *at: 1e-3}),
    "seed": lambda x: (mlp(64, [8], beta=0.1), x, {"seed": 1}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_training_is_refused(digits, tmp_path, what):
    x, y = digits
    given = {"epochs": 1, "checkpoint": tmp_path / "training", "lr": 1e-3}
    fit(mlp(64, [8], beta=0.1), x, y, **given)
    fit(mlp(64, [8], beta=0.1), x, y, **given)  # resumes, and has nothing left to do
    net, images, changed = OTHERS[what](x)
    with pytest.raises(ValueError, match="belongs to another training"):
        fit(net, images, y, **given | changed)


@pytest.mark.parametrize(
    "make",
    [
        lambda eps: {"attack": partial(ONE_STEP, eps=eps)},
        lambda eps: {"attack": Attacker(eps)},
        lambda eps: {"attack": Attacker(np.float64(eps))},
        lambda eps: {"attack_at": Attacker(eps).at},
    ],
)
def test_an_attack_counts_by_its_settings(digits, tmp_path, make):
    given = {"epochs": 1, "checkpoint": tmp_path / "training"}
    fit(mlp(64, [8]), *digits, **given, **make(0.1))
    fit(mlp(64, [8]), *digits, **given, **make(0.1))
    with pytest.raises(ValueError, match="belongs to another training"):
        fit(mlp(64, [8]), *digits, **given, **make(0.2))


def test_a_damaged_checkpoint_is_refused(digits, tmp_path):
    path = tmp_path / "training"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="is no checkpoint of a training: delete it"):
        fit(mlp(64, [8]), *digits, epochs=1, checkpoint=path)


def stop_after(epoch):
    def progress(done, epochs):
        if done == epoch:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("again", ["the same network", "a new one"])
def test_a_training_with_dropout_and_statistics_resumes_to_the_same_result(digits, tmp_path, again):
    def make():
        torch.manual_seed(0)
        layers = [nn.Linear(64, 16), nn.BatchNorm1d(16), CappedReLU(1.0), nn.Dropout()]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(16, 10))

    whole = fit(make(), *digits, epochs=2)
    net, path = make(), tmp_path / "training"
    with pytest.raises(KeyboardInterrupt):
        fit(net, *digits, epochs=2, checkpoint=path, progress=stop_after(1))
    torch.rand(7)
    net = net if again == "the same network" else make()
    epochs = []
    fit(net, *digits, epochs=2, checkpoint=path, progress=lambda *at: epochs.append(at))
    assert epochs == [(1, 2), (2, 2)]
    for ours, theirs in zip(net.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
