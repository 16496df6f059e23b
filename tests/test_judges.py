import functools
import itertools
import math
import warnings

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from cappaper import fit, load, masking_report, mlp, paper, pgd
from cappaper.attacks.autoattack import ReliabilityWarning
from cappaper.attacks.common import is_correct
from cappaper.paper import judges
from cappaper.paper.tables import strongest

TINY = paper.profile("quick", epochs=20, hidden=[16, 8])


@pytest.fixture(scope="module")
def data():
    return load("digits", "test", limit=60)


@functools.cache
def trained(beta):
    return fit(mlp(64, [64, 32], beta=beta), *load("digits", "train"), epochs=25, lr=3e-3)


def test_a_low_cap_shows_the_signs_of_masking_and_relu_shows_none(data):
    given = {"steps": [10, 100], "epsilons": [0.3, 1.0]}
    relu = masking_report(trained(math.inf), *data, 0.1, **given)
    capped = masking_report(trained(0.03), *data, 0.1, **given)
    for sign in ("gradient of exactly zero", "random points", "one step", "knows about the cap"):
        assert not any(sign in line for line in relu.signs())
    assert relu.zero_gradient == 0 and relu.by_eps[1.0] == 0
    assert relu.loss[40] > relu.loss[0] and relu.at_cap == 0
    assert capped.zero_gradient > 0.3 and capped.at_cap > 0.1
    assert capped.by_eps[1.0] > 0  # any image is allowed, and PGD finds no example
    for sign in ("gradient of exactly zero", "any image is allowed", "knows about the cap"):
        assert any(sign in line for line in capped.signs())
    with pytest.raises(ValueError, match="steps must not be empty"):
        masking_report(mlp(64, [4]), *data, 0.1, steps=[])


def test_a_report_is_the_mean_of_its_rows(data):
    report = masking_report(trained(0.03), *data, 0.1, seed=3)
    rows = pd.DataFrame(paper.Masking(0.1).rows(trained(0.03), data, 3, [0.1]))
    assert paper.masking_of(rows) == report
    other = paper.masking_of(pd.concat([rows, rows.assign(value=0.0)]))
    assert other.adaptive == pytest.approx(report.adaptive / 2)
    assert other.by_steps == pytest.approx({k: v / 2 for k, v in report.by_steps.items()})


def test_a_second_run_attacks_the_images_that_are_still_robust(data):
    net = trained(math.inf)
    once, twice = (paper.AutoAttack("square", runs).bind(0) for runs in (1, 2))
    first, second = once(net, *data, eps=0.1), twice(net, *data, eps=0.1)
    fooled = ~is_correct(net, first, data.labels)
    assert fooled.any() and not fooled.all()
    assert torch.equal(second[fooled], first[fooled])
    assert not torch.equal(second[~fooled], first[~fooled])
    assert (second - data.images).abs().max() <= 0.1 + 1e-6


def test_judges_agree_image_by_image(fresh):
    """certified <= exact <= any attack <= standard accuracy"""
    specs = paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0])
    weakest_first = [
        *(paper.Certificate("ibp"), paper.Certificate("crown"), paper.Exact()),
        *(paper.AdaptivePGD(10), paper.PGD(10), paper.Clean()),
    ]
    asked = {"epsilons": [0.05], "limit": 12, "by_image": True}
    tables = [paper.run(specs, judge, **asked) for judge in weakest_first]
    tables.append(paper.run(specs, paper.AutoAttack("apgd-ce"), **asked))
    for judge, table in zip([*weakest_first, paper.AutoAttack("apgd-ce")], tables, strict=True):
        assert len(table) == 2 and set(table["attack"]) == {judge.name}
        for _, row in table.iterrows():
            assert set(row["outcomes"]) <= set(".x?") and len(row["outcomes"]) == 12
            assert row["robust_accuracy"] == row["outcomes"].count(".") / 12
    for lower, upper in [*itertools.pairwise(tables[:6]), (tables[2], tables[6])]:
        pairs = zip(lower["outcomes"], upper["outcomes"], strict=True)
        assert [paper.contradictions(a, b) for a, b in pairs] == [0, 0]
    assert paper.run(specs, weakest_first[2], **asked).equals(tables[2])


def test_transfer_takes_the_examples_of_another_network(fresh):
    specs = paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0])
    moved = paper.transfers(specs, [specs[1]] * 2, paper.PGD(10), [0.1], limit=40)
    assert list(moved["attack"]) == ["transfer"] * 2
    x, y = load("digits", "test", limit=40)
    capped, relu = paper.networks(specs)
    adversarial = pgd(relu, x, y, 0.1, steps=10, seed=0)
    for outcomes, model in zip(moved["outcomes"], (capped, relu), strict=True):
        robust = is_correct(model, x, y) & is_correct(model, adversarial, y)
        assert [outcome == "." for outcome in outcomes] == robust.tolist()


def test_the_strongest_attack_is_the_worst_of_all_for_each_image():
    table = pd.DataFrame(
        {
            "beta": [1.0] * 3,
            "attack": ["a", "b", "c"],
            "eps": [0.1] * 3,
            "standard_accuracy": [1.0] * 3,
            "robust_accuracy": [0.75, 0.5, 0.0],
            "outcomes": ["..x.", ".xx?", "xxxx"],
            "warning": [""] * 3,
            "seconds": [0.0] * 3,
        }
    )
    (row,) = strongest(table, ["a", "b"], "both").to_dict("records")
    assert row["outcomes"] == ".xx?" and row["robust_accuracy"] == 0.25 and row["attack"] == "both"
    assert row["success_rate"] == 0.75


def test_a_success_counts_for_every_larger_radius():
    """The attack fools the first half of the images at the small radius, and the rest after."""
    x, y = load("digits", "test", limit=10)

    class Right(torch.nn.Module):
        def forward(self, images):
            known = (images.flatten(1)[:, None] == x.flatten(1)).all(-1).float()
            wrong = F.one_hot((known @ y.float()).long() + 1, 11)[:, :10]
            return torch.where(known.any(1)[:, None], known @ F.one_hot(y, 10).float(), wrong)

    def attack(model, images, labels, *, eps, seed):
        index = (images.flatten(1)[:, None] == x.flatten(1)).all(-1).float().argmax(1)
        hit = (index >= 5) == (eps > 0.15)
        return torch.where(hit[:, None, None, None], (images - eps / 2).abs(), images)

    near, far = judges._attack("Any", "any", attack)().rows(Right(), (x, y), 0, [0.1, 0.2])
    assert near["outcomes"] == "x" * 5 + "." * 5 and near["robust_accuracy"] == 0.5
    assert near["standard_accuracy"] == 1 and near["success_rate"] == 0.5
    assert far["outcomes"] == "x" * 10 and far["success_rate"] == 1


def test_a_warning_of_autoattack_belongs_to_its_radius(monkeypatch):
    def doubting(model, x, y, *, eps, parts, seed):
        if eps > 0.15:
            warnings.warn("zero gradient", ReliabilityWarning, stacklevel=1)
        return x

    monkeypatch.setattr(judges, "auto_attack", doubting)
    model, x = mlp(64, [4]), load("digits", "test", limit=9).images
    data = x, model(x).argmax(1)  # all are correct
    rows = paper.AutoAttack("square").rows(model, data, 0, [0.1, 0.2])
    assert [row["warning"] for row in rows] == ["", "zero gradient"]
