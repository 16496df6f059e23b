import itertools
import math

import pandas as pd
import pytest

from cappaper import fit, load, masking_report, mlp, pgd
from cappaper.attacks.ascent import classified
from cappaper.paper import study
from cappaper.paper.evidence import contradictions, strongest

TINY = study.profile("quick", epochs=20, hidden=[16, 8])


@pytest.fixture(scope="module")
def data():
    return load("digits", "test", limit=60)


def trained(beta):
    return fit(mlp(64, [64, 32], beta=beta), *load("digits", "train"), epochs=25, lr=3e-3)


def test_a_low_cap_shows_the_signs_of_masking_and_relu_shows_none(data):
    given = {"steps": [10, 100], "epsilons": [0.3, 1.0]}
    relu = masking_report(trained(math.inf), *data, 0.1, **given)
    capped = masking_report(trained(0.03), *data, 0.1, **given)
    assert relu.signs() == []
    assert relu.zero_gradient == 0 and relu.by_eps[1.0] == 0
    assert relu.loss[40] > relu.loss[0] and relu.at_cap == 0
    assert capped.zero_gradient > 0.3 and capped.at_cap > 0.1
    assert capped.by_eps[1.0] > 0  # the surest sign: any image is allowed, and PGD finds none
    assert any("gradient of exactly zero" in sign for sign in capped.signs())
    assert any("any image is allowed" in sign for sign in capped.signs())
    assert any("knows about the cap" in sign for sign in capped.signs())


def test_masking_report_needs_something_to_do(data):
    with pytest.raises(ValueError, match="at least one"):
        masking_report(mlp(64, [4]), *data, 0.1, steps=[])


def test_every_judge_speaks_on_every_image(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path))
    specs = study.sweep(TINY, betas=[0.1, math.inf], seeds=[0])
    judges = [
        study.Clean(),
        study.PGD(10),
        study.AdaptivePGD(10),
        study.AutoAttack("apgd-ce"),
        study.Exact(),
        study.Certificate("crown"),
        study.Certificate("ibp"),
    ]
    tables = {j.name: study.outcomes(specs, j, [0.05], limit=12) for j in judges}
    for name, table in tables.items():
        assert len(table) == 2 and set(table["attack"]) == {name}
        for _, row in table.iterrows():
            assert set(row["outcomes"]) <= set(".x?") and len(row["outcomes"]) == 12
            assert row["robust_accuracy"] == row["outcomes"].count(".") / 12
    order = [tables[j.name]["outcomes"] for j in (judges[i] for i in (6, 5, 4, 2, 1, 0))]
    for lower, upper in itertools.pairwise(order):
        assert [contradictions(a, b) for a, b in zip(lower, upper, strict=True)] == [0, 0]
    again = study.outcomes(specs, judges[2], [0.05], limit=12)
    assert again.equals(tables[judges[2].name])


def test_transfer_takes_the_examples_of_another_network(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path))
    specs = study.sweep(TINY, betas=[0.1, math.inf], seeds=[0])
    moved = study.transfers(specs, [specs[1]] * 2, study.PGD(10), [0.1], limit=40)
    assert list(moved["attack"]) == ["transfer"] * 2
    x, y = load("digits", "test", limit=40)
    capped, relu = study.networks(specs)
    found = pgd(relu, x, y, 0.1, steps=10, seed=0)
    for outcomes, model in zip(moved["outcomes"], (capped, relu), strict=True):
        stands = classified(model, x, y) & classified(model, found, y)
        assert [mark == "." for mark in outcomes] == stands.tolist()


def test_the_strongest_judge_is_the_worst_of_all_image_by_image():
    table = pd.DataFrame(
        {
            "beta": [1.0] * 3,
            "attack": ["a", "b", "c"],
            "eps": [0.1] * 3,
            "robust_accuracy": [0.75, 0.5, 0.0],
            "outcomes": ["..x.", ".xx?", "xxxx"],
            "warning": [""] * 3,
            "seconds": [0.0] * 3,
        }
    )
    (row,) = strongest(table, ["a", "b"], "both").to_dict("records")
    assert row["outcomes"] == ".xx?" and row["robust_accuracy"] == 0.25 and row["attack"] == "both"
