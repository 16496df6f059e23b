"""Networks are trained once and judged once, on any machine, and an interrupted run resumes."""

import dataclasses
import math
import shutil
from functools import partial

import pandas as pd
import pytest
import torch

from cappaper import paper
from cappaper.paper import cache, experiment, judges, observers, runner

TINY = paper.profile("quick", epochs=2, hidden=[16, 8])
SPECS = paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0, 1])


def tiny(judge=None, epsilons=(0.05, 0.2), specs=SPECS, **given):
    return paper.run(specs, judge or paper.PGD(steps=3), epsilons, limit=60, **given)


@pytest.fixture
def trained(monkeypatch):
    """The seeds of the networks that are trained from here on."""
    seeds, fit = [], experiment.fit

    def record(model, *args, **kwargs):
        seeds.extend(kwargs["seed"])
        return fit(model, *args, **kwargs)

    monkeypatch.setattr(experiment, "fit", record)
    return seeds


def test_a_table_is_tidy(fresh):
    table = tiny()
    assert len(table) == 2 * 2 * 2
    assert (table["robust_accuracy"] <= table["standard_accuracy"]).all()
    assert set(table["placement"]) == {"1+2", "none"} and set(table["images"]) == {60}
    wide = table.pivot(index=["beta", "seed"], columns="eps", values="robust_accuracy")
    assert (wide[0.2] <= wide[0.05]).all()


def test_a_network_is_trained_once_and_judged_once(fresh, trained):
    first = tiny()
    assert len(trained) == 4
    assert tiny().equals(first)
    assert len(tiny(paper.FGSM(), [0.1])) == 4  # another attack on the same networks
    assert len(trained) == 4
    shutil.rmtree(fresh / "weights")  # without them, only new networks are trained
    trained.clear()
    more = tiny(specs=paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0, 1, 2]))
    assert trained == [2, 2]
    assert more[more["seed"] < 2].reset_index(drop=True).equals(first)
    twice = tiny(specs=[SPECS[0]] * 2)
    assert len(twice) == 4 and twice[:2].equals(twice[2:].reset_index(drop=True))


def test_outcomes_by_image_come_on_demand(fresh):
    plain, by_image = tiny(), tiny(by_image=True)
    assert set(by_image) - set(plain) == {"outcomes", "warning"}
    assert by_image[[*plain]].equals(plain)
    assert (by_image["outcomes"].str.count(r"\.") / 60 == by_image["robust_accuracy"]).all()


@pytest.mark.parametrize("judge", [paper.PGD(), paper.Exact(), paper.Distances(paper.PGD())])
def test_a_judge_that_needs_a_radius_refuses_to_run_without(judge):
    with pytest.raises(ValueError, match=f"{judge.name} needs at least one radius"):
        paper.run(SPECS[:1], judge)


def test_every_setting_is_in_the_key(monkeypatch):
    places, found = [], {"rows": [{}], "seconds": 0.0}
    monkeypatch.setattr(cache, "recall", lambda place: places.append(place) or found)
    spec, cpu, cuda = SPECS[0], paper.Machine("cpu"), paper.Machine("cuda")
    changes = [{"seed": 1}, {"beta": (0.1, 0.2)}, {"epochs": 3}, {"hidden": (16, 9)}, {"after": 1}]
    changes += [{"adversary": paper.Adversary(0.1)}, {"adversary": paper.Adversary(0.1, steps=3)}]
    for one in [spec, *(dataclasses.replace(spec, **change) for change in changes)]:
        for machine in (cpu, cuda):
            paper.run([one], paper.PGD(), [0.1], machine=machine)
    others = [paper.PGD(steps=20), paper.FGSM(name="PGD")]
    for judge in [*others, paper.Distances(paper.PGD()), paper.Distances(paper.FGSM())]:
        paper.run([spec], judge, [0.1])
    paper.run([spec], paper.PGD(), [0.2])
    paper.run([spec], paper.PGD(), [0.1], limit=60)
    assert len(set(places)) == len(places) == 22
    paper.run([dataclasses.replace(spec)], paper.PGD(), [0.1])
    assert places[-1] == places[0]


def test_an_interrupted_run_resumes(fresh, monkeypatch):
    """Networks and early copies are kept, and the training goes on from its last epoch."""
    ends = paper.sweep(paper.profile("quick", epochs=4, hidden=[8]), betas=[0.1], seeds=[0, 1])
    specs = [*(dataclasses.replace(spec, after=2) for spec in ends), *ends]
    expected = paper.networks(specs)
    assert not torch.equal(expected[0][1].weight, expected[2][1].weight)
    monkeypatch.setenv("CAPPAPER_CACHE", str(fresh / "other"))
    epochs, fit = [], experiment.fit

    def interrupted(*args, seed, progress, **kwargs):
        def show(epoch, of):
            epochs.append((*seed, epoch))
            progress(epoch, of)
            if len(epochs) == 3:
                raise KeyboardInterrupt

        return fit(*args, seed=seed, progress=show, **kwargs)

    monkeypatch.setattr(experiment, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        paper.networks(specs)
    assert len(list((fresh / "other" / "weights").iterdir())) == 2
    (checkpoint,) = (fresh / "other" / "checkpoints").iterdir()
    resumed = paper.networks(specs)
    assert epochs == [(0, 1, i) for i in (1, 2, 3, 3, 4)]
    assert not checkpoint.exists()
    for one, other in zip(expected, resumed, strict=True):
        assert torch.equal(one[1].weight, other[1].weight)
    with pytest.raises(ValueError, match="after must lie in 1 to 4, its epochs, got 6"):
        dataclasses.replace(ends[0], after=6).build()


@pytest.mark.parametrize(
    ("device", "dataset", "sizes"),
    [("cpu", "mnist", [1] * 4), ("cpu", "digits", [4]), ("cuda", "mnist", [4])],
)
def test_one_recipe_trains_together_where_it_pays(fresh, monkeypatch, device, dataset, sizes):
    groups = []
    specs = [dataclasses.replace(spec, dataset=dataset) for spec in SPECS]

    def stop(train, calls, *more):
        groups.extend(calls)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "side_by_side", stop)
    monkeypatch.setattr(runner, "checksum", lambda *data: "")  # of images that are not needed
    with pytest.raises(KeyboardInterrupt):
        runner.networks(specs, paper.Machine(device))
    assert [len(specs) for specs, *_ in groups] == sizes


def test_the_number_of_processes_changes_no_result(fresh, monkeypatch):
    specs = [*SPECS, *paper.sweep(TINY, betas=[0.1], seeds=[0], architecture="convnet")]
    one = tiny(specs=specs, machine=paper.Machine("cpu", 1)).drop(columns="seconds")
    monkeypatch.setenv("CAPPAPER_CACHE", str(fresh / "two"))
    two = tiny(specs=specs, machine=paper.Machine("cpu", 2)).drop(columns="seconds")
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_training_and_judging_take_one_thread(fresh, monkeypatch):
    threads, fit, rows = [], experiment.fit, observers.Signals.rows

    def work(function, *given, **named):
        threads.append(torch.get_num_threads())
        return function(*given, **named)

    monkeypatch.setattr(experiment, "fit", partial(work, fit))
    monkeypatch.setattr(observers.Signals, "rows", lambda *given: work(rows, *given))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tiny(paper.Signals(), specs=SPECS[:1])
        assert threads == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_device_is_chosen_or_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert paper.machine("auto", 2) == paper.Machine("cpu", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert paper.machine("auto", 4) == paper.machine("cuda", 4) == paper.Machine("cuda", 1)
    assert paper.machine("cpu", 4) == paper.Machine("cpu", 4)


def test_distances_cover_every_layer(fresh):
    specs = paper.sweep(TINY, hidden=[16, 12, 8], betas=[0.1], seeds=[0])
    table = tiny(paper.Distances(paper.PGD(steps=3, early_exit=False)), [0.1], specs)
    assert table["layer"].tolist() == [1, 2, 3] and table["units"].tolist() == [16, 12, 8]
    assert (table["linf"] <= 0.1 + 1e-6).all()


def test_signals_before_training_train_nothing(fresh, trained):
    specs = paper.sweep(TINY, betas=[0.1], seeds=[0], initial_cap=1.0)
    table = tiny(paper.Signals(trained=False), specs=specs)
    assert table["layer"].tolist() == [1, 2] and not table["trained"].any() and trained == []
    assert set(table["initialisation"]) == {"rescaled"}
    (at_one,) = paper.sweep(TINY, betas=[1.0], seeds=[0])
    image = torch.ones(1, 1, 8, 8)
    torch.testing.assert_close(at_one.build()(image), specs[0].build()(image))


def test_an_image_without_an_example_is_infinitely_far(fresh, monkeypatch):
    specs = paper.sweep(TINY, betas=[0.3, math.inf], seeds=[0])
    cw = tiny(paper.CW(steps=100, sharpness=10.0), specs=specs)
    assert cw["success_rate"].between(0, 1).all() and cw["median_l2"].between(0.01, 3).all()
    left = cw["standard_accuracy"] * (1 - cw["success_rate"])
    assert cw["robust_accuracy"].tolist() == pytest.approx(left.tolist())
    balls = tiny(paper.GrowingBalls(steps=40), specs=specs)
    assert (balls["success_rate"] == 1).all()
    # A ball is attacked as a whole: its example lies up to a step of the radii too far out.
    assert (balls["median_l2"] < 1.3 * cw["median_l2"] + 0.2).all()
    monkeypatch.setattr(judges, "cw_l2", lambda model, x, y, **settings: x)
    row = tiny(paper.CW(), specs=specs).iloc[0]
    assert (row["success_rate"], row["median_l2"]) == (0, math.inf)


def test_a_profile_has_epochs_for_each_training_and_an_effort():
    large = paper.profile("paper")
    for adversary, epochs in ((None, large.epochs), (paper.Adversary(0.1), 6)):
        assert paper.sweep(large, betas=[1.0], adversary=adversary)[0].epochs == epochs
    assert paper.profile("paper", epochs=1).adversarial_epochs == 1
    assert paper.profile("paper", epochs=1, adversarial_epochs=2).adversarial_epochs == 2
    doubled = paper.profile("paper", epochs=7, effort=2)
    assert (doubled.epochs, doubled.adversarial_epochs, doubled.steps) == (14, 14, 80)
    assert paper.profile("paper", effort=1) == large
    spent = paper.Strongest(steps=3, queries=5, restarts=2).times(4)
    assert spent == paper.Strongest(steps=12, queries=20, restarts=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: paper.profile("huge"), "unknown profile 'huge': use one of quick, paper"),
        (lambda: paper.profile("quick", lr_rate=1), "unexpected keyword argument 'lr_rate'"),
        (lambda: paper.profile("quick", effort=0), "effort must be at least 1, got 0"),
        (lambda: paper.machine("tpu"), "unknown device 'tpu': use one of auto, cpu, cuda"),
        (lambda: paper.machine("cpu", 0), "jobs must be at least 1, got 0"),
        (lambda: paper.sweep(TINY, betas=[[0.1, 0.2, 0.3]]), "3 max values for 2 layers"),
        (lambda: paper.sweep(TINY, activation="tanh")[0].build(), "unknown activation 'tanh'"),
        (lambda: paper.sweep(TINY, architecture="vit")[0].build(), "unknown architecture 'vit'"),
    ],
)
def test_bad_input_gets_a_sentence(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
