"""Checkpoints: which training they belong to, and that a training resumes to the same result."""

import copy
import errno
import math
import os
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from cappaper import CappedReLU, Population, ScaledSigmoid, fit, mlp, pgd
from cappaper.paper import Adversary
from tests.spellings import bounded_by
from tests.test_attack_manners import Moving

ONE_STEP = partial(pgd, steps=1, early_exit=False)


def net_with(activation):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), activation, nn.Linear(8, 10))


def frozen(net):
    net[1].requires_grad_(False)
    return net


def pool(width):
    """A layer whose setting is a tuple."""
    pooled = nn.AvgPool1d(width, stride=1, padding=width // 2)
    return nn.Sequential(nn.Unflatten(1, (1, 8)), pooled, nn.Flatten())


FIRST = {"activation's setting": nn.Hardtanh(0, 0.1), "activation's class": bounded_by(0.1)}
FIRST |= {"activation's constant": ScaledSigmoid(1.0), "tuple": pool(3)}
OTHERS = {
    "cap": lambda x: (mlp(64, [8], beta=5.0), x, {}),
    "images": lambda x: (mlp(64, [8], beta=0.1), 1 - x, {}),
    "width": lambda x: (mlp(64, [9], beta=0.1), x, {}),
    "activation": lambda x: (net_with(nn.GELU()), x, {}),
    "activation's setting": lambda x: (net_with(nn.Hardtanh(0, 0.05)), x, {}),
    "activation's class": lambda x: (net_with(bounded_by(0.05)), x, {}),
    "activation's constant": lambda x: (net_with(ScaledSigmoid(4.0)), x, {}),
    "tuple": lambda x: (net_with(pool(5)), x, {}),
    "frozen weights": lambda x: (frozen(mlp(64, [8], beta=0.1)), x, {}),
    "attack": lambda x: (mlp(64, [8], beta=0.1), x, {"attack": partial(ONE_STEP, eps=0.1)}),
    "step size": lambda x: (mlp(64, [8], beta=0.1), x, {"lr": 2e-3}),
    "schedule": lambda x: (mlp(64, [8], beta=0.1), x, {"lr": lambda *at: 1e-3}),
    "seed": lambda x: (mlp(64, [8], beta=0.1), x, {"seed": 1}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_training_is_refused(twenty, tmp_path, what):
    x, y = twenty
    given = {"epochs": 1, "checkpoint": tmp_path / "training", "lr": 1e-3}
    first = net_with(FIRST[what]) if what in FIRST else mlp(64, [8], beta=0.1)
    fit(first, x, y, **given)
    net, images, changed = OTHERS[what](x)
    with pytest.raises(ValueError, match="belongs to another training: delete it"):
        fit(net, images, y, **given | changed)


def test_a_damaged_checkpoint_is_refused(twenty, tmp_path):
    path = tmp_path / "training"
    given = {"epochs": 1, "checkpoint": path}
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="is not a training checkpoint: delete it"):
        fit(mlp(64, [8]), *twenty, **given)
    path.unlink()
    fit(mlp(64, [8]), *twenty, **given)
    state = torch.load(path)
    for wrong in (
        {"epoch": 2},
        {"epoch": 0},
        {"model": state["model"] | {"1.bias": torch.tensor(math.nan)}},
    ):
        torch.save(state | wrong, path)
        with pytest.raises(ValueError, match="is damaged: delete it"):
            fit(mlp(64, [8]), *twenty, **given)


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return type(self.place).touch, (self.place,)


def test_a_checkpoint_runs_no_code(twenty, tmp_path):
    torch.save({"about": Hostile(tmp_path / "made")}, tmp_path / "training")
    with pytest.raises(ValueError, match="is not a training checkpoint"):
        fit(mlp(64, [4]), *twenty, epochs=1, checkpoint=tmp_path / "training")
    assert not (tmp_path / "made").exists()


def test_a_full_disk_gets_pythons_own_error(twenty, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(Path, "write_bytes", Mock(side_effect=full))
    with pytest.raises(OSError, match="No space left"):
        fit(mlp(64, [8]), *twenty, epochs=1, checkpoint=tmp_path / "training")
    assert not list(tmp_path.iterdir())


def dropout(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(64, 16), nn.BatchNorm1d(16), CappedReLU(1.0), nn.Dropout(), Moving()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(16, 10))


@pytest.mark.parametrize("again", ["the same network", "a new one"])
@pytest.mark.parametrize(
    ("make", "given"),
    [
        (dropout, {}),
        (lambda: mlp(64, [8]), {"attack": partial(ONE_STEP, eps=0.1)}),
        (lambda: Population([mlp(64, [8], seed=i) for i in range(2)]), {"seed": [0, 1]}),
    ],
    ids=["dropout and statistics", "adversarial", "a population"],
)
def test_a_stopped_training_resumes_to_the_same_result(twenty, tmp_path, make, given, again):
    whole = fit(make(), *twenty, epochs=3, **given)

    def stop(epoch, epochs):
        if epoch == 2:
            raise KeyboardInterrupt

    net, path, seen = make(), tmp_path / "deep" / "training.pt", []
    with pytest.raises(KeyboardInterrupt):
        fit(net, *twenty, epochs=3, checkpoint=path, progress=stop, **given)
    torch.rand(7)
    net = net if again == "the same network" else make()
    fit(net, *twenty, epochs=3, checkpoint=path, progress=lambda *at: seen.append(at), **given)
    assert seen == [(2, 3), (3, 3)] and not net.training
    for ours, theirs in zip(net.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    assert list(path.parent.iterdir()) == [path]


def summed(factor):
    return lambda z, y: factor * z.sum()


def called(eps):
    """An object without attributes."""
    call = lambda self, *given: ONE_STEP(*given, eps=eps)  # noqa: E731
    return type("Called", (), {"__call__": call})()


@pytest.mark.parametrize(
    "make",
    [
        lambda v: {"attack": partial(ONE_STEP, eps=v)},
        lambda v: {"attack": partial(ONE_STEP, eps=v, loss=lambda z, y: z.sum())},
        lambda v: {"attack_at": Adversary(v, steps=1).at},
        lambda v: {"attack": partial(ONE_STEP, eps=0.1, loss=summed(v))},
        lambda v: {"lr": (lambda *at: 1e-3) if v > 0.1 else (lambda *at: 2e-3)},
        lambda v: {"attack": called(v)},
    ],
    ids=["a partial", "a partial with a function", "a method", "a closure", "code", "an object"],
)
def test_a_function_counts_by_its_code_its_settings_and_what_it_carries(twenty, tmp_path, make):
    given = {"epochs": 1, "checkpoint": tmp_path / "training"}
    for _ in range(2):  # the second training has nothing left to do
        fit(mlp(64, [8]), *twenty, **given, **make(0.1))
    with pytest.raises(ValueError, match="belongs to another training"):
        fit(mlp(64, [8]), *twenty, **given, **make(0.2))


def test_a_training_resumes_with_an_attack_that_holds_its_network(twenty, tmp_path):
    net = mlp(64, [8])
    attack = partial(lambda held, model, x, y: ONE_STEP(held, x, y, eps=0.1), net)
    given = {"epochs": 2, "checkpoint": tmp_path / "training", "attack": attack}
    fit(net, *twenty, **given)
    fit(net, *twenty, **given | {"attack": partial(attack.func, copy.deepcopy(net))})
