"""Attacks that are interrupted, and several threads with one model: nothing is left behind."""

import copy
import threading
from functools import partial

import pytest
import torch
from torch import nn

from cappaper import Population, evaluate
from tests.test_doubtful_models import ATTACKS, quiet


class Interrupted(nn.Module):
    """A network in which Ctrl-C arrives in a given call of a layer."""

    def __init__(self, left=None):
        super().__init__()
        self.left = left

    def forward(self, x):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return x


@quiet
@pytest.mark.parametrize("together", [False, True], ids=["alone", "in a population"])
@pytest.mark.parametrize("name", ATTACKS)
def test_an_interrupt_leaves_nothing_behind(twenty, name, together):
    """At moments spread over the attack, in the model's forward pass."""
    x, y = (t[:4] for t in twenty)
    layers = [nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU6(), nn.Linear(8, 10)]
    brake = Interrupted()
    model = nn.Sequential(*layers[:3], brake, *layers[3:]).train()
    if together:
        model = Population([model, copy.deepcopy(model)])
        brake, x, y = model.template[3], torch.stack([x, x]), torch.stack([y, y])

    def state():
        point = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(point).square().sum(), point)
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
        modes = [
            m.training for m in (*model.modules(), *getattr(model, "template", model).modules())
        ]
        return gradient, [b.clone() for b in model.buffers()], hooks, modes, torch.is_grad_enabled()

    kept = copy.deepcopy(model.state_dict())
    before = state()
    model.load_state_dict(kept)
    brake.left = 10**9
    ATTACKS[name](model, x, y)
    passes = 10**9 - brake.left
    draw = torch.Generator().manual_seed(0)
    for moment in torch.randint(passes, (17,), generator=draw).tolist():
        brake.left = moment
        with pytest.raises(KeyboardInterrupt):
            ATTACKS[name](model, x, y)
        brake.left = None
        torch.testing.assert_close(state(), before, atol=0, rtol=0)
        model.load_state_dict(kept)


def test_two_threads_that_evaluate_one_model_leave_its_modes_and_buffers(twenty):
    layers = [nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.9), nn.Linear(8, 10)]
    model = nn.Sequential(*layers)
    x, y = twenty.images, model.eval()(twenty.images).argmax(1)
    model.train()
    kept, gate = copy.deepcopy(model.state_dict()), threading.Barrier(2)
    modes = []

    def attack(model, x, y, wait):
        gate.wait()  # both are inside
        if wait:
            other.join()  # the other one has left
        modes.append(model.training)
        return x

    threads = [
        threading.Thread(target=evaluate, args=(model, x, y, partial(attack, wait=wait)))
        for wait in (False, True)
    ]
    other = threads[0]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert modes == [False, False] and all(part.training for part in model.modules())
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
