"""What a run of networks and judges gives, keeps and resumes."""

import dataclasses
import functools
import itertools
import math
import shutil
import warnings

import pandas as pd
import pytest
import torch

from cappaper import paper
from cappaper.paper import cache, experiment, judges, runner

TINY = paper.profile("quick", epochs=2, hidden=[16, 8], limit=60)


def tiny(judge=None, epsilons=(0.05, 0.2), **given):
    specs = paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0, 1])
    return paper.run(specs, judge or paper.PGD(steps=3), epsilons, limit=60, **given)


@pytest.fixture
def trained(monkeypatch):
    """The networks that are trained from here on."""
    seen, real = [], experiment.fit

    def fit(population, *args, **kwargs):
        seen.extend(kwargs["seed"])
        return real(population, *args, **kwargs)

    monkeypatch.setattr(experiment, "fit", fit)
    return seen


def test_the_same_seed_gives_the_same_table_twice(monkeypatch, tmp_path):
    results = []
    for run in ("first", "second"):
        monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path / run))  # nothing is recalled
        results.append(tiny().drop(columns="seconds"))
    pd.testing.assert_frame_equal(*results, check_exact=True)


def test_a_table_is_tidy(fresh):
    table = tiny()
    assert len(table) == 2 * 2 * 2
    assert not table.duplicated(["beta", "seed", "eps"]).any()
    assert (table["robust_accuracy"] <= table["standard_accuracy"]).all()
    assert set(table["placement"]) == {"1+2", "none"} and set(table["images"]) == {60}
    wide = table.pivot(index=["beta", "seed"], columns="eps", values="robust_accuracy")
    assert (wide[0.2] <= wide[0.05]).all()


def test_a_network_is_trained_once(fresh, trained):
    first = tiny()
    assert len(trained) == 4
    assert tiny().equals(first)
    # Another attack on the same networks trains nothing either.
    assert len(tiny(paper.FGSM(), [0.1])) == 4
    assert len(trained) == 4


def test_runs_at_once_judge_the_weights_of_the_first(fresh, monkeypatch):
    """In other company rounding makes another network of a spec; both runs must mean one."""
    (spec,) = paper.sweep(TINY, betas=[0.1], seeds=[0])
    place, train = runner._weights(spec, "cpu"), runner.train
    other = {name: value + 1 for name, value in spec.build().state_dict().items()}

    @functools.wraps(train)
    def slower(*args, **given):
        cache.keep(place, other)  # meanwhile, the other run
        return train(*args, **given)

    monkeypatch.setattr(runner, "train", slower)
    (net,) = runner.networks([spec])
    for kept in (net.state_dict(), cache.recall(place)):
        assert all(torch.equal(kept[name], value) for name, value in other.items())


def test_what_was_said_of_lost_weights_is_void(fresh, trained):
    """Trained again, in other company, it may be another network: one table, one network."""
    tiny()
    lost, *others = sorted((fresh / "weights").iterdir())
    lost.unlink()
    runner.networks(paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0, 1]))
    assert len(trained) == 5
    kept = {path.name for path in (fresh / "judgements").iterdir()}
    assert kept == {path.stem for path in others}


def test_what_another_machine_trained_is_kept_here(fresh, trained, monkeypatch):
    def elsewhere(function, calls, jobs):
        done = [(i, function(*call)) for i, call in enumerate(calls)]
        shutil.rmtree(fresh / "weights")  # its own disk
        yield from done

    specs = paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0, 1])
    with monkeypatch.context() as patched:
        patched.setattr(runner, "side_by_side", elsewhere)
        runner.networks(specs)
    runner.networks(specs)
    assert len(trained) == len(specs)


def test_what_is_judged_needs_no_network_any_more(fresh, trained):
    first = tiny()
    for path in (fresh / "weights").iterdir():
        path.unlink()
    trained.clear()
    assert tiny().equals(first) and trained == []
    specs = paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0, 1, 2])
    more = paper.run(specs, paper.PGD(steps=3), [0.05, 0.2], limit=60)
    assert trained == [2, 2]  # the two that are new
    known = more[more["seed"] < 2].reset_index(drop=True)
    assert known.equals(first)


def test_the_same_network_twice_is_judged_once_and_has_its_rows_twice(fresh, trained):
    (spec,) = paper.sweep(TINY, betas=[0.1], seeds=[0])
    table = paper.run([spec, spec], paper.PGD(steps=2), [0.1], limit=20)
    assert len(table) == 2 and table.iloc[0].equals(table.iloc[1]) and trained == [0]


def test_outcomes_by_image_are_there_where_they_are_asked_for(fresh):
    plain, by_image = tiny(), tiny(by_image=True)
    assert set(by_image) - set(plain) == {"outcomes", "warning"}
    assert by_image[[*plain]].equals(plain)
    for _, row in by_image.iterrows():
        assert row["outcomes"].count(".") / 60 == row["robust_accuracy"]


@pytest.mark.parametrize("judge", [paper.PGD(), paper.Exact(), paper.Distances(paper.PGD())])
def test_radii_are_asked_for_where_they_matter(judge):
    specs = paper.sweep(TINY, betas=[0.1], seeds=[0])
    with pytest.raises(ValueError, match=f"{judge.name} needs at least one radius"):
        paper.run(specs, judge)


def test_what_is_recalled_depends_on_all_that_decides_it():
    (spec,) = paper.sweep(TINY, betas=[0.1], seeds=[0])
    changes = [{"seed": 1}, {"beta": (0.1, 0.2)}, {"epochs": 3}, {"hidden": (16, 9)}]
    changes += [
        {"after": 1},
        {"adversary": paper.Adversary(0.1)},
        {"adversary": paper.Adversary(0.1, steps=3)},
    ]
    specs = [spec, *(dataclasses.replace(spec, **change) for change in changes)]
    places = {runner._weights(s, device) for s in specs for device in ("cpu", "cuda")}
    assert len(places) == 2 * len(specs)
    assert runner._weights(dataclasses.replace(spec), "cpu") in places
    asked = [
        (spec, paper.PGD(), [0.1], None, "cpu"),
        (specs[1], paper.PGD(), [0.1], None, "cpu"),
        (spec, paper.PGD(steps=20), [0.1], None, "cpu"),
        (spec, paper.FGSM(name="PGD"), [0.1], None, "cpu"),
        (spec, paper.Distances(paper.PGD()), [0.1], None, "cpu"),
        (spec, paper.Distances(paper.FGSM()), [0.1], None, "cpu"),
        (spec, paper.PGD(), [0.2], None, "cpu"),
        (spec, paper.PGD(), [0.1], 60, "cpu"),
        (spec, paper.PGD(), [0.1], None, "cuda"),
    ]
    assert len({runner._judgement(*one) for one in asked}) == len(asked)


def flipped(content):
    """One bit in the middle is another."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES = [lambda content: b"cut off", lambda content: content[:-100], flipped, lambda content: b""]


@pytest.mark.parametrize("damage", [*DAMAGES, "swapped"])
@pytest.mark.parametrize("kind", ["weights", "judgements"])
def test_a_damaged_or_foreign_entry_is_computed_again(fresh, damage, kind):
    before = tiny()
    paths = sorted((fresh / kind).rglob("*.kept"))
    contents = [path.read_bytes() for path in paths]
    # Swapped: whole entries, in one another's places.
    damaged = [*contents[1:], contents[0]] if damage == "swapped" else map(damage, contents)
    for path, content in zip(paths, damaged, strict=True):
        path.write_bytes(content)
    if kind == "weights":  # they are looked at only where a judgement is missing
        shutil.rmtree(fresh / "judgements")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        after = tiny()
    assert len([w for w in caught if "damaged cache entry" in str(w.message)]) == len(paths)
    assert after.drop(columns="seconds").equals(before.drop(columns="seconds"))


def test_distances_cover_every_layer(fresh):
    specs = paper.sweep(TINY, hidden=[16, 12, 8], betas=[0.1], seeds=[0])
    judge = paper.Distances(paper.PGD(steps=3, early_exit=False))
    table = paper.run(specs, judge, [0.1], limit=60)
    assert table["layer"].tolist() == [1, 2, 3] and table["units"].tolist() == [16, 12, 8]
    assert (table["linf"] <= 0.1 + 1e-6).all()


def test_alike_networks_are_dealt_out_evenly():
    many = paper.sweep(TINY, betas=[0.1, 1.0, math.inf], seeds=range(7))
    few = paper.sweep(TINY, hidden=[8, 8], betas=[0.1], seeds=[0])
    groups = runner._groups([*few, *many])
    dealt = list(itertools.chain.from_iterable(groups))
    assert sorted(dealt, key=repr) == sorted([*many, *few], key=repr)
    assert all(len({spec.recipe for spec in group}) == 1 for group in groups)
    assert [len(group) for group in groups] == [7, 7, 7, 1]


@pytest.mark.parametrize("count", [3, 8, 9, 20, 30, 41])
def test_what_is_left_after_an_interruption_forms_the_same_groups(count):
    specs = paper.sweep(TINY, betas=[0.1], seeds=range(count))
    groups = runner._groups(specs)
    for done in range(len(groups)):
        left = [spec for spec in specs if spec not in groups[done]]
        assert runner._groups(left) == [g for i, g in enumerate(groups) if i != done]


def test_adversarial_training_has_epochs_of_its_own():
    large = paper.profile("paper")
    for adversary, epochs in ((None, large.epochs), (paper.Adversary(0.1), 6)):
        assert paper.sweep(large, betas=[1.0], adversary=adversary)[0].epochs == epochs
    assert paper.profile("paper", epochs=1).adversarial_epochs == 1
    assert paper.profile("paper", epochs=1, adversarial_epochs=2).adversarial_epochs == 2


def test_signals_at_the_start_train_nothing(fresh, monkeypatch):
    specs = paper.sweep(TINY, betas=[0.1], seeds=[0], initial_cap=1.0)
    monkeypatch.setattr(experiment, "fit", None)
    table = paper.run(specs, paper.Signals(trained=False), limit=60)
    assert table["layer"].tolist() == [1, 2] and not table["trained"].any()
    assert set(table["initialisation"]) == {"rescaled"}
    (at_one,) = paper.sweep(TINY, betas=[1.0], seeds=[0])
    torch.testing.assert_close(
        at_one.build()(torch.ones(1, 1, 8, 8)), specs[0].build()(torch.ones(1, 1, 8, 8))
    )


def test_distortions_count_what_was_not_found(fresh, monkeypatch):
    specs = paper.sweep(TINY, betas=[math.inf], seeds=[0])
    table = paper.run(specs, paper.CW(steps=60), limit=60)
    (row,) = table.to_dict("records")
    assert 0 < row["success_rate"] <= 1 and 0 < row["median_l2"] < 3
    assert row["robust_accuracy"] == pytest.approx(
        row["standard_accuracy"] * (1 - row["success_rate"])
    )
    # An attack that does nothing finds nothing, and nothing is infinitely far.
    monkeypatch.setattr(judges, "cw_l2", lambda model, x, y, **settings: x)
    (row,) = paper.run(specs, paper.CW(), limit=60).to_dict("records")
    assert (row["success_rate"], row["median_l2"]) == (0, math.inf)


def test_growing_balls_come_as_near_as_carlini_and_wagner(fresh):
    specs = paper.sweep(TINY, betas=[0.3, math.inf], seeds=[0])
    balls, cw = (
        paper.run(specs, search, limit=60)
        for search in (paper.GrowingBalls(steps=40), paper.CW(steps=100, sharpness=10.0))
    )
    assert (balls["success_rate"] == 1).all()
    # A ball is passed on whole: its example lies up to a step of the radii too far out.
    assert (balls["median_l2"] < 1.3 * cw["median_l2"] + 0.2).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: paper.profile("huge"), "unknown profile 'huge': use one of quick, paper"),
        (lambda: paper.profile("quick", lr_rate=1), "unknown profile field 'lr_rate'"),
        (lambda: paper.profile("quick", effort=0), "effort must be at least 1, got 0"),
        (lambda: paper.machine("tpu"), "unknown device 'tpu': use one of auto, cpu, cuda"),
        (lambda: paper.machine("cpu", 0), "jobs must be a whole number of at least 1, got 0"),
        (lambda: paper.machine("cpu", "two"), "jobs must be a whole number .* got 'two'"),
        (lambda: paper.machine("cpu", 1.5), "jobs must be a whole number of at least 1, got 1.5"),
        (lambda: paper.sweep(TINY, betas=[[0.1, 0.2, 0.3]]), "3 max values for 2 layers"),
        (lambda: paper.sweep(TINY, activation="tanh")[0].build(), "unknown activation 'tanh'"),
        (lambda: paper.sweep(TINY, architecture="vit")[0].build(), "unknown architecture 'vit'"),
    ],
)
def test_bad_input_gets_a_sentence(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_penalty_lowers_learned_caps_and_needs_them(fresh):
    one = {"betas": [1.0], "seeds": [0]}
    free, lowered = (
        paper.networks(paper.sweep(TINY, activation="learned", cap_penalty=weight, **one))[0]
        for weight in (0.0, 10.0)
    )
    caps = [(a.beta, b.beta) for a, b in zip(free, lowered, strict=True) if hasattr(a, "beta")]
    assert len(caps) == 2 and all(low < high - 0.01 for high, low in caps)
    with pytest.raises(ValueError, match="cap_penalty is for learned caps"):
        paper.networks(paper.sweep(TINY, cap_penalty=1.0, **one))
