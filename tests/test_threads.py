"""Several threads with one model: nothing is left behind."""

import copy
import threading
from functools import partial

import torch
from torch import nn

from cappaper import evaluate


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
