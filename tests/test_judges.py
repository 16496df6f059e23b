"""What each judge reports: rates, outcomes by image, and warnings."""

import itertools
import math
import warnings

import pandas as pd
import pytest
import torch

from cappaper import load, masking_report, mlp, paper, pgd, square
from cappaper.attacks.common import is_correct
from cappaper.checks import ReliabilityWarning
from cappaper.paper import judges
from cappaper.paper.tables import strongest
from tests.spellings import Function
from tests.trained import trained

TINY = paper.profile("quick", epochs=20, hidden=[16, 8])


def test_a_report_is_the_mean_of_its_rows(sixty):
    (net,) = trained(0.05)
    report = masking_report(net, *sixty, 0.1, seed=3)
    rows = pd.DataFrame(paper.Masking(0.1).rows(net, sixty, 3, [0.1]))
    assert paper.masking_of(rows) == report
    other = paper.masking_of(pd.concat([rows, rows.assign(value=0.0)]))
    assert other.adaptive == pytest.approx(report.adaptive / 2)
    assert other.by_steps == pytest.approx({k: v / 2 for k, v in report.by_steps.items()})


def test_a_second_run_attacks_the_images_that_are_still_robust(sixty, monkeypatch):
    def few(model, x, y, *, eps, parts, seed):
        return square(model, x, y, eps, queries=100, seed=seed)

    monkeypatch.setattr(judges, "auto_attack", few)
    net = trained()
    once, twice = (paper.AutoAttack("square", runs).bind(0) for runs in (1, 2))
    first, second = once(net, *sixty, eps=0.1), twice(net, *sixty, eps=0.1)
    fooled = ~is_correct(net, first, sixty.labels)
    assert fooled.any() and not fooled.all()
    assert torch.equal(second[fooled], first[fooled])
    assert not torch.equal(second[~fooled], first[~fooled])
    assert (second - sixty.images).abs().max() <= 0.1 + 1e-6


def test_judges_agree_image_by_image(fresh):
    """certified <= exact <= any attack <= standard accuracy"""
    specs = paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0])
    judges = [paper.Certificate("ibp"), paper.Certificate("crown"), paper.Exact()]
    judges += [paper.AdaptivePGD(10), paper.PGD(10), paper.Clean(), paper.AutoAttack("apgd-ce")]
    given = {"epsilons": [0.05], "limit": 12, "by_image": True}
    tables = [paper.run(specs, judge, **given) for judge in judges]
    for judge, table in zip(judges, tables, strict=True):
        assert len(table) == 2 and set(table["attack"]) == {judge.name}
        for _, row in table.iterrows():
            assert set(row["outcomes"]) <= set(".x?") and len(row["outcomes"]) == 12
            assert row["robust_accuracy"] == row["outcomes"].count(".") / 12
    for lower, upper in [*itertools.pairwise(tables[:6]), (tables[2], tables[6])]:
        pairs = zip(lower["outcomes"], upper["outcomes"], strict=True)
        assert [paper.contradictions(a, b) for a, b in pairs] == [0, 0]
    assert paper.run(specs, judges[2], **given).equals(tables[2])


def test_transfer_takes_the_examples_of_another_network(fresh):
    specs = paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0])
    moved = paper.transfers(specs, [specs[1]] * 2, paper.PGD(10), [0.1], limit=360)
    assert list(moved["attack"]) == ["transfer"] * 2
    x, y = load("digits", "test")
    capped, relu = paper.networks(specs)
    adversarial = pgd(relu, x, y, 0.1, steps=10, seed=0)
    for outcomes, model in zip(moved["outcomes"], (capped, relu), strict=True):
        robust = is_correct(model, x, y) & is_correct(model, adversarial, y)
        assert [outcome == "." for outcome in outcomes] == robust.tolist()


def test_the_strongest_attack_is_the_worst_of_all_for_each_image():
    rows = {"beta": 1.0, "attack": ["a", "b", "c"], "eps": 0.1, "standard_accuracy": 1.0}
    rows |= {"robust_accuracy": [0.75, 0.5, 0.0], "outcomes": ["..x.", ".xx?", "xxxx"]}
    table = pd.DataFrame(rows | {"warning": "", "seconds": 0.0})
    (row,) = strongest(table, ["a", "b"], "both").to_dict("records")
    assert row["outcomes"] == ".xx?" and row["robust_accuracy"] == 0.25 and row["attack"] == "both"
    assert row["success_rate"] == 0.75


def test_a_success_counts_for_every_larger_radius():
    """The attack fools the first half of the images at the small radius, and the rest after."""
    x = (0.4 + torch.arange(10) / 1000).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    data = x, torch.zeros(10, dtype=torch.long)
    dark = Function(lambda x: torch.stack([torch.full((len(x),), 0.42), x.mean((1, 2, 3))], dim=1))

    def attack(model, images, labels, *, eps, seed):
        return torch.where((images > 0.4045) == (eps > 0.15), images + eps / 2, images)

    judge = judges._judge(judges.Attack, "Any", "any", attack)()
    near, far = judge.rows(dark, data, 0, [0.1, 0.2])
    assert near["outcomes"] == "x" * 5 + "." * 5 and near["robust_accuracy"] == 0.5
    assert near["standard_accuracy"] == 1 and near["success_rate"] == 0.5
    assert far["outcomes"] == "x" * 10 and far["success_rate"] == 1


@pytest.mark.parametrize("doubts", [["zero gradient", "another"], []])
def test_the_first_warning_of_autoattack_is_in_its_rows(monkeypatch, doubts):
    def doubting(model, x, y, *, eps, parts, seed):
        for doubt in doubts:
            warnings.warn(doubt, ReliabilityWarning, stacklevel=1)
        return x

    monkeypatch.setattr(judges, "auto_attack", doubting)
    model, x = mlp(64, [4]), load("digits", "test", limit=9).images
    data = x, model(x).argmax(1)  # all are correct
    (row,) = paper.AutoAttack("square").rows(model, data, 0, [0.1])
    assert row["warning"] == "".join(doubts[:1])
