"""Runs and trainings that were interrupted go on, to the same networks."""

import dataclasses
import math

import pytest
import torch

from cappaper import load, paper
from cappaper.paper import experiment

TINY = paper.profile("quick", epochs=2, hidden=[16, 8], limit=60)


def test_an_interrupted_run_resumes(fresh, monkeypatch):
    specs = paper.sweep(TINY, betas=[0.1, 0.5, 1.0, math.inf], seeds=[0, 1, 2])
    real, companies = experiment.fit, []

    def interrupted(population, *args, **kwargs):
        companies.append(len(population))
        if len(companies) == 2:
            raise KeyboardInterrupt
        return real(population, *args, **kwargs)

    monkeypatch.setattr(experiment, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        paper.networks(specs)
    kept = len(list((fresh / "weights").iterdir()))
    assert 0 < kept < len(specs)
    assert len(paper.networks(specs)) == len(specs)
    assert companies[1] == companies[2] and len(companies) == 3  # the same group ran again


def test_an_interrupted_training_goes_on_from_its_last_epoch(fresh, monkeypatch):
    specs = paper.sweep(paper.profile("quick", epochs=5, hidden=[8]), betas=[0.1], seeds=[0, 1])
    whole = paper.networks(specs)
    monkeypatch.setenv("CAPPAPER_CACHE", str(fresh / "other"))
    epochs, real = [], experiment.fit

    def breaking(*args, progress, **kwargs):
        def show(epoch, all_epochs):
            epochs.append(epoch)
            if len(epochs) == 3:
                raise KeyboardInterrupt
            progress(epoch, all_epochs)

        return real(*args, progress=show, **kwargs)

    monkeypatch.setattr(experiment, "fit", breaking)
    with pytest.raises(KeyboardInterrupt):
        paper.networks(specs)
    saved = list((fresh / "other" / "checkpoints").iterdir())
    assert len(saved) == 1
    resumed = paper.networks(specs)
    assert epochs[3] > 2 and epochs[-1] == 5
    assert not saved[0].exists()  # its weights are kept instead
    x, _ = load("digits", "test", limit=50)
    for one, other in zip(whole, resumed, strict=True):
        torch.testing.assert_close(one(x), other(x), atol=1e-3, rtol=0)


def test_networks_taken_out_of_one_training_are_those_of_a_run_that_was_interrupted(
    fresh, monkeypatch
):
    ends = paper.sweep(paper.profile("quick", epochs=5, hidden=[8]), betas=[0.1], seeds=[0, 1])
    early = [dataclasses.replace(spec, after=2) for spec in ends]
    whole = paper.networks([*early, *ends])
    assert not torch.equal(whole[0][1].weight, whole[2][1].weight)
    monkeypatch.setenv("CAPPAPER_CACHE", str(fresh / "other"))
    trained, real = [], experiment.fit

    def breaking(population, *args, progress, **kwargs):
        def show(epoch, epochs):
            trained.append((len(population), epoch))
            progress(epoch, epochs)
            if len(trained) == 4:
                raise KeyboardInterrupt

        return real(population, *args, progress=show, **kwargs)

    monkeypatch.setattr(experiment, "fit", breaking)
    with pytest.raises(KeyboardInterrupt):
        paper.networks([*early, *ends])
    assert len(list((fresh / "other" / "weights").iterdir())) == len(early)  # kept already
    resumed = paper.networks([*early, *ends])
    assert trained == [(2, epoch) for epoch in (1, 2, 3, 4, 4, 5)]
    for one, other in zip(whole, resumed, strict=True):
        assert torch.equal(one[1].weight, other[1].weight)
    with pytest.raises(ValueError, match="after must lie in 1 to 5, its epochs, got 6"):
        dataclasses.replace(ends[0], after=6).build()


def test_an_epoch_that_a_checkpoint_has_passed_is_trained_again(fresh):
    (end,) = paper.sweep(paper.profile("quick", epochs=3, hidden=[8]), betas=[0.1], seeds=[0])
    early = dataclasses.replace(end, after=1)
    place = fresh / "training.pt"
    experiment.train([end], "cpu", checkpoint=place)
    found = experiment.train([early, end], "cpu", checkpoint=place)
    fresh_ones = experiment.train([early, end], "cpu")
    for spec in (early, end):
        assert torch.equal(found[spec]["1.weight"], fresh_ones[spec]["1.weight"])
