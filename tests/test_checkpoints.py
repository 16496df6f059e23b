"""Trainings that go on: what belongs to one, and what it must not hang on."""

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
    ):
        with pytest.raises(ValueError, match="belongs to another training"):
            fit(net, images, y, **given, **more)
    path.unlink()
    fit(mlp(64, [8]), x, y, **given, attack=attack)
    fit(mlp(64, [8]), x, y, **given, attack=partial(pgd, eps=0.1, steps=1, early_exit=False))
    with pytest.raises(ValueError, match="belongs to another training"):
        fit(mlp(64, [8]), x, y, **given, attack=partial(attack, eps=0.2))


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
