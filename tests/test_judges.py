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


def trained(beta):
    return fit(mlp(64, [64, 32], beta=beta), *load("digits", "train"), epochs=25, lr=3e-3)


def test_a_low_cap_shows_the_signs_of_masking_and_relu_shows_none(data):
    given = {"steps": [10, 100], "epsilons": [0.3, 1.0]}
    relu = masking_report(trained(math.inf), *data, 0.1, **given)
    capped = masking_report(trained(0.03), *data, 0.1, **given)
    for sign in ("gradient of exactly zero", "random points", "one step", "knows about the cap"):
        assert not any(sign in said for said in relu.signs())
    assert relu.zero_gradient == 0 and relu.by_eps[1.0] == 0
    assert relu.loss[40] > relu.loss[0] and relu.at_cap == 0
    assert capped.zero_gradient > 0.3 and capped.at_cap > 0.1
    assert capped.by_eps[1.0] > 0  # the surest sign: any image is allowed, and PGD finds none
    assert any("gradient of exactly zero" in sign for sign in capped.signs())
    assert any("any image is allowed" in sign for sign in capped.signs())
    assert any("knows about the cap" in sign for sign in capped.signs())


def test_rows_of_a_report_tell_it_again(data):
    report = masking_report(trained(0.03), *data, 0.1, seed=3)
    rows = pd.DataFrame(paper.Masking(0.1).rows(trained(0.03), data, 3, [0.1]))
    assert paper.masking_of(rows) == report
    other = paper.masking_of(pd.concat([rows, rows.assign(value=0.0)]))
    assert other.adaptive == pytest.approx(report.adaptive / 2)
    assert other.by_steps == pytest.approx({k: v / 2 for k, v in report.by_steps.items()})


def test_masking_report_needs_something_to_do(data):
    with pytest.raises(ValueError, match="steps must not be empty"):
        masking_report(mlp(64, [4]), *data, 0.1, steps=[])


def test_another_run_attacks_what_the_first_one_left(data):
    """Nothing is lost, its start is another one, and what it finds is no further than allowed."""
    net = trained(math.inf)
    once, twice = (paper.AutoAttack("square", runs).bind(0) for runs in (1, 2))
    first, second = once(net, *data, eps=0.1), twice(net, *data, eps=0.1)
    fell = ~is_correct(net, first, data.labels)
    assert fell.any() and not fell.all()
    assert torch.equal(second[fell], first[fell])
    assert not torch.equal(second[~fell], first[~fell])
    assert (second - data.images).abs().max() <= 0.1 + 1e-6


def test_an_effort_multiplies_what_is_spent():
    doubled = paper.profile("paper", epochs=7, effort=2)
    assert (doubled.epochs, doubled.adversarial_epochs, doubled.steps) == (14, 14, 80)
    assert paper.profile("paper", effort=1) == paper.profile("paper")
    spent = paper.Strongest(steps=3, queries=5, restarts=2).times(4)
    assert spent == paper.Strongest(steps=12, queries=20, restarts=2)


def test_every_judge_speaks_on_every_image(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path))
    specs = paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0])
    asked = [
        paper.Clean(),
        paper.PGD(10),
        paper.AdaptivePGD(10),
        paper.AutoAttack("apgd-ce"),
        paper.Exact(),
        paper.Certificate("crown"),
        paper.Certificate("ibp"),
    ]
    tables = {j.name: paper.run(specs, j, [0.05], limit=12, by_image=True) for j in asked}
    for name, table in tables.items():
        assert len(table) == 2 and set(table["attack"]) == {name}
        for _, row in table.iterrows():
            assert set(row["outcomes"]) <= set(".x?") and len(row["outcomes"]) == 12
            assert row["robust_accuracy"] == row["outcomes"].count(".") / 12
    order = [tables[j.name]["outcomes"] for j in (asked[i] for i in (6, 5, 4, 2, 1, 0))]
    for lower, upper in itertools.pairwise(order):
        assert [paper.contradictions(a, b) for a, b in zip(lower, upper, strict=True)] == [0, 0]
    again = paper.run(specs, asked[2], [0.05], limit=12, by_image=True)
    assert again.equals(tables[asked[2].name])


def test_transfer_takes_the_examples_of_another_network(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPPAPER_CACHE", str(tmp_path))
    specs = paper.sweep(TINY, betas=[0.1, math.inf], seeds=[0])
    moved = paper.transfers(specs, [specs[1]] * 2, paper.PGD(10), [0.1], limit=40)
    assert list(moved["attack"]) == ["transfer"] * 2
    x, y = load("digits", "test", limit=40)
    capped, relu = paper.networks(specs)
    found = pgd(relu, x, y, 0.1, steps=10, seed=0)
    for outcomes, model in zip(moved["outcomes"], (capped, relu), strict=True):
        stands = is_correct(model, x, y) & is_correct(model, found, y)
        assert [mark == "." for mark in outcomes] == stands.tolist()


def test_the_strongest_judge_is_the_worst_of_all_image_by_image():
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


@pytest.fixture
def half_blind(monkeypatch):
    """A network that is right, and an attack that turns only the first or the second half wrong."""
    x, y = load("digits", "test", limit=10)
    right = F.one_hot(y, 10).float()

    class Right(torch.nn.Module):
        def forward(self, images):
            known = (images.flatten(1)[:, None] == x.flatten(1)).all(-1)
            return known.float() @ right - (~known.any(1)).float()[:, None] * torch.eye(10)[0]

    def attack(model, images, labels, *, eps):
        hit = (images.flatten(1)[:, None] == x.flatten(1)).all(-1).float().argmax(1) >= 5
        changed = (images - eps / 2).abs()  # inside the ball, and no image that it knows
        return torch.where(hit[:, None, None, None] == (eps > 0.15), changed, images)

    monkeypatch.setattr(judges, "fgsm", attack)
    return Right(), (x, y)


def test_a_success_counts_for_every_larger_radius(half_blind):
    model, data = half_blind
    near, far = paper.FGSM().rows(model, data, 0, [0.1, 0.2])
    assert near["outcomes"] == "x" * 5 + "." * 5 and near["robust_accuracy"] == 0.5
    assert far["outcomes"] == "x" * 10 and far["success_rate"] == 1  # what fell stays down
    assert near["standard_accuracy"] == 1 and near["success_rate"] == 0.5


def test_autoattacks_doubts_stay_with_their_radius(monkeypatch):
    def doubting(model, x, y, *, eps, parts, seed):
        if eps > 0.15:
            warnings.warn("zero gradient", ReliabilityWarning, stacklevel=1)
        return x

    monkeypatch.setattr(judges, "auto_attack", doubting)
    model, x = mlp(64, [4]), load("digits", "test", limit=9).images
    data = x, model(x).argmax(1)  # all are right
    rows = paper.AutoAttack("square").rows(model, data, 0, [0.1, 0.2])
    assert [row["warning"] for row in rows] == ["", "zero gradient"]
