import dataclasses
import itertools
import math
import subprocess
import sys
import warnings

import pandas as pd
import pytest
import torch

from cappaper import load, mlp
from cappaper.paper import cache, networks, results, study, workers

TINY = study.profile("quick", epochs=2, hidden=[16, 8], limit=60)


def tiny_rates(**changes):
    specs = study.sweep(TINY, betas=[0.1, math.inf], seeds=[0, 1])
    given = {"attack": study.PGD(steps=3), "epsilons": [0.05, 0.2], "limit": 60} | changes
    return study.rates(specs, given.pop("attack"), given.pop("epsilons"), **given)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path))
    return tmp_path


def test_the_same_seed_gives_the_same_table_twice(monkeypatch, tmp_path):
    results = []
    for run in ("first", "second"):
        monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path / run))  # nothing is recalled
        results.append(tiny_rates().drop(columns="seconds"))
    pd.testing.assert_frame_equal(*results, check_exact=True)


def test_a_table_is_tidy(fresh):
    table = tiny_rates()
    assert len(table) == 2 * 2 * 2
    assert not table.duplicated(["beta", "seed", "eps"]).any()
    assert (table["robust_accuracy"] <= table["standard_accuracy"]).all()
    assert set(table["placement"]) == {"1+2", "none"} and set(table["images"]) == {60}
    wide = table.pivot(index=["beta", "seed"], columns="eps", values="robust_accuracy")
    assert (wide[0.2] <= wide[0.05]).all()


def test_a_network_is_trained_once(fresh, monkeypatch):
    first = tiny_rates()

    def fail(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(networks, "fit", fail)
    assert tiny_rates().equals(first)
    # Another attack on the same networks trains nothing either.
    assert len(tiny_rates(attack=study.FGSM(), epsilons=[0.1])) == 4


def test_an_interrupted_run_resumes(fresh, monkeypatch):
    specs = study.sweep(TINY, betas=[0.1, 0.5, 1.0, math.inf], seeds=[0, 1, 2])
    real, calls = networks.fit, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(networks, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study.networks(specs)
    kept = len(list(fresh.rglob("*.pt")))
    assert 0 < kept < len(specs)
    assert len(study.networks(specs)) == len(specs)
    assert len(calls) == 3  # one group was kept, one broke off and ran again


def test_what_is_recalled_depends_on_all_that_decides_it(fresh):
    spec = study.sweep(TINY, betas=[0.1], seeds=[0])[0]
    cache.store("weights", networks.key(spec, "cpu"), {"x": 1})
    assert cache.find("weights", networks.key(spec, "cpu")) == {"x": 1}
    for change in ({"seed": 1}, {"beta": (0.1, 0.2)}, {"epochs": 3}, {"hidden": (16, 9)}):
        other = dataclasses.replace(spec, **change)
        assert cache.find("weights", networks.key(other, "cpu")) is None
    assert cache.find("weights", networks.key(spec, "cuda")) is None


def test_a_damaged_entry_is_computed_again(fresh):
    before = tiny_rates()
    for path in fresh.rglob("*.pt"):
        path.write_bytes(b"cut off")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        after = tiny_rates()
    assert "damaged cache entry" in str(caught[0].message)
    assert after.drop(columns="seconds").equals(before.drop(columns="seconds"))


def test_distances_cover_every_layer(fresh):
    specs = study.sweep(TINY, hidden=[16, 12, 8], betas=[0.1], seeds=[0])
    table = study.distances(specs, study.PGD(steps=3, early_exit=False), [0.1], limit=60)
    assert table["layer"].tolist() == [1, 2, 3] and table["units"].tolist() == [16, 12, 8]
    assert (table["linf"] <= 0.1 + 1e-6).all()


def test_processes_side_by_side_give_the_same_table(monkeypatch, tmp_path):
    results = []
    for jobs in ("1", "2"):
        monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path / jobs))
        monkeypatch.setenv(workers.JOBS, jobs)
        specs = study.sweep(TINY, betas=[0.1, math.inf], seeds=[0, 1])
        specs += study.sweep(TINY, betas=[0.1], seeds=[0], architecture="convnet")
        results.append(study.rates(specs, study.PGD(steps=3), [0.1], limit=60))
    one, two = (table.drop(columns="seconds") for table in results)
    pd.testing.assert_frame_equal(one, two, atol=0.05)  # one thread sums in another order than two


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_alike_networks_are_dealt_out_evenly(processes):
    many = study.sweep(TINY, betas=[0.1, 1.0, math.inf], seeds=range(6))
    few = study.sweep(TINY, hidden=[8, 8], betas=[0.1], seeds=[0])
    groups = networks._groups([*many, *few], processes)
    dealt = itertools.chain.from_iterable(groups)
    assert sorted(dealt, key=repr) == sorted([*many, *few], key=repr)
    assert all(len({spec.hidden for spec in group}) == 1 for group in groups)
    sizes = [len(group) for group in groups if group != few]
    assert max(sizes) <= 8 and max(sizes) - min(sizes) <= 1 and len(sizes) % processes == 0


def test_adversarial_training_has_epochs_of_its_own():
    paper = study.profile("paper")
    for adversary, epochs in ((None, paper.epochs), (study.Adversary(0.1), 6)):
        assert study.sweep(paper, betas=[1.0], adversary=adversary)[0].epochs == epochs
    assert study.profile("paper", epochs=1).adversarial_epochs == 1
    assert study.profile("paper", epochs=1, adversarial_epochs=2).adversarial_epochs == 2


def test_signals_at_the_start_train_nothing(fresh, monkeypatch):
    specs = study.sweep(TINY, betas=[0.1], seeds=[0], initial_cap=1.0)
    monkeypatch.setattr(networks, "fit", None)
    table = study.signals(specs, trained=False, limit=60)
    assert table["layer"].tolist() == [1, 2] and not table["trained"].any()
    assert set(table["initialisation"]) == {"rescaled"}
    (at_one,) = study.sweep(TINY, betas=[1.0], seeds=[0])
    torch.testing.assert_close(
        at_one.build()(torch.ones(1, 1, 8, 8)), specs[0].build()(torch.ones(1, 1, 8, 8))
    )


def test_distortions_count_what_was_not_found(fresh, monkeypatch):
    specs = study.sweep(TINY, betas=[math.inf], seeds=[0])
    table = study.distortions(specs, study.CW(steps=60), limit=60)
    (row,) = table.to_dict("records")
    assert 0 < row["success_rate"] <= 1 and 0 < row["median_l2"] < 3
    assert row["robust_accuracy"] == pytest.approx(
        row["standard_accuracy"] * (1 - row["success_rate"])
    )
    # An attack that does nothing finds nothing, and nothing is infinitely far.
    monkeypatch.setattr("cappaper.attacks.cw_l2", lambda model, x, y, **settings: x)
    (row,) = study.distortions(specs, study.CW(), limit=60).to_dict("records")
    assert (row["success_rate"], row["median_l2"]) == (0, math.inf)


def test_a_table_survives_the_disk_with_its_provenance(fresh, tmp_path):
    table = tiny_rates()
    results.publish(table, TINY, "cpu", str(tmp_path / "some" / "table"))
    back = results.read(tmp_path / "some" / "table.csv")
    pd.testing.assert_frame_equal(back, table, rtol=1e-5, check_dtype=False)
    origin = back.attrs["provenance"]
    assert origin["profile"] == "quick" and origin["torch"] == torch.__version__
    for key in ("seeds", "device", "dataset_checksum", "git_commit", "seconds", "python"):
        assert origin[key], key


def test_nothing_is_written_where_nothing_is_asked(tmp_path, monkeypatch, fresh):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*.csv"))
    results.publish(tiny_rates(), TINY, "cpu", "")
    assert sorted(tmp_path.rglob("*.csv")) == before


def test_over_seeds():
    table = pd.DataFrame({"beta": [1, 1, 2, 2], "value": [0.0, 1.0, 3.0, 3.0]})
    summary = results.over_seeds(table, ["beta"], ["value"])
    assert summary["value"].tolist() == [0.5, 3.0] and summary["seeds"].tolist() == [2, 2]
    assert summary["value_spread"].tolist() == pytest.approx([0.5**0.5, 0.0])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: study.profile("huge"), "unknown profile 'huge': use one of quick, paper"),
        (lambda: study.profile("quick", lr_rate=1), "unknown profile field 'lr_rate'"),
        (lambda: study.device("tpu"), "unknown device 'tpu': use one of auto, cpu, cuda"),
        (lambda: study.sweep(TINY, betas=[[0.1, 0.2, 0.3]]), "3 max values for 2 layers"),
        (lambda: study.sweep(TINY, activation="tanh")[0].build(), "unknown activation 'tanh'"),
        (lambda: study.sweep(TINY, architecture="vit")[0].build(), "unknown architecture 'vit'"),
    ],
)
def test_bad_input_gets_a_sentence(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert study.device("auto") == "cpu"
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        study.device("cuda")


def test_importing_the_package_stays_light():
    code = (
        "import sys, cappaper;"
        "heavy = {'matplotlib', 'papermill', 'ipywidgets', 'IPython', 'pandas', 'torchvision'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_adversary_that_knows_about_the_cap_moves_where_pgd_stands_still():
    x, y = load("digits", "test", limit=20)
    plain, knowing = study.Adversary(0.1).at(5, 10), study.Adversary(0.1, sharpness=10.0).at(5, 10)
    relu, capped = mlp(64, [16], seed=0), mlp(64, [16], beta=1e-4, seed=0)
    assert torch.equal(plain(relu, x, y), knowing(relu, x, y))
    assert not torch.equal(plain(capped, x, y), knowing(capped, x, y))
    assert (knowing(capped, x, y) - x).abs().max() <= 0.1 + 1e-6
