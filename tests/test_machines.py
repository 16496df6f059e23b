"""Processes, threads and devices."""

import pandas as pd
import pytest
import torch

from cappaper import paper
from cappaper.paper import experiment, observers
from cappaper.paper.machines import Machine
from tests.test_runner import SPECS, TINY, tiny


def test_the_number_of_processes_changes_no_result(fresh, monkeypatch):
    specs = [*SPECS, *paper.sweep(TINY, betas=[0.1], seeds=[0], architecture="convnet")]
    one = tiny(specs=specs, machine=Machine("cpu", 1)).drop(columns="seconds")
    monkeypatch.setenv("CAPPAPER_CACHE", str(fresh / "two"))
    two = tiny(specs=specs, machine=Machine("cpu", 2)).drop(columns="seconds")
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_training_and_judging_take_one_thread(fresh, monkeypatch):
    threads = []

    def fit(model, *args, epochs, progress, **kwargs):
        threads.append(torch.get_num_threads())
        progress(epochs, epochs)
        return model

    def rows(*args):
        threads.append(torch.get_num_threads())
        return [{}]

    monkeypatch.setattr(experiment, "fit", fit)
    monkeypatch.setattr(observers.Signals, "rows", rows)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tiny(paper.Signals(), specs=SPECS[:1])
        assert threads == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_device_is_chosen_or_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert paper.machine("auto", 2) == Machine("cpu", 2)
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        paper.machine("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert paper.machine("auto", 4) == paper.machine("cuda", 4) == Machine("cuda", 1)
    assert paper.machine("cpu", 4) == Machine("cpu", 4)
