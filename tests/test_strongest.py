"""The strongest attack beside its parts, and AutoAttack with its warnings."""

import math
import warnings
from functools import partial

import pytest
import torch

from cappaper import adaptive_pgd, apgd, auto_attack, load, mlp, pgd, square, strongest_attack
from cappaper.attacks import strongest
from cappaper.attacks.common import is_correct
from cappaper.attacks.strongest import PARTS as AUTO_PARTS
from cappaper.checks import ReliabilityWarning
from tests.trained import trained

EPS = 0.08
PARTS = {"pgd", "cap_aware_runs", "apgd", "square"}
FEW = {"steps": 15, "queries": 100}


@pytest.fixture(scope="module")
def nets():
    """The same network with ReLU and with two caps, on digits."""
    return trained(math.inf, 0.05, 0.5)


SINGLE = {
    "PGD": partial(pgd, steps=15),
    "cap-aware PGD": partial(adaptive_pgd, steps=15),
    "APGD-CE": partial(apgd, steps=15),
    "APGD-T": partial(apgd, steps=15, targets=9),
    "Square": partial(square, queries=100),
}


@pytest.mark.filterwarnings("ignore::cappaper.surrogate.UnreachedWarning")
def test_no_single_attack_leaves_fewer_images(nets):
    x, y = load("digits", "test", limit=150)
    for net in nets:
        strongest = strongest_attack(net, x, y, EPS, twins=[nets[0]], **FEW)
        left = is_correct(net, strongest, y).sum()
        for name, attack in SINGLE.items():
            assert left <= is_correct(net, attack(net, x, y, EPS), y).sum(), name


def test_each_part_gets_the_images_that_the_others_left(nets, monkeypatch):
    """Each succeeds alone, where all other attacks do nothing."""
    x, y = load("digits", "test", limit=80)
    net, blind = nets[1], lambda *given, **settings: given[-2]  # the images
    nothing = dict.fromkeys(PARTS, blind) | {"cap_aware_runs": lambda *given, **settings: [blind]}
    for name in PARTS:
        with monkeypatch.context() as patch:
            for other in PARTS - {name}:
                patch.setattr(strongest, other, nothing[other])
            adversarial = strongest_attack(net, x, y, 0.15, twins=[nets[0]], **FEW)
        assert is_correct(net, adversarial, y).sum() < is_correct(net, x, y).sum(), name


def test_twins_and_the_surrogate_are_used(nets, monkeypatch):
    x, y = load("digits", "test", limit=100)
    calls = []

    def record(model, *given, **settings):
        x = given[-2]
        net = next(i for i, other in enumerate(nets) if other is model)
        point = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model(point).sum(), point)
        calls.append((net, settings.get("targets"), bool(gradient.flatten(1).any(1).all())))
        return x

    for name in PARTS:
        monkeypatch.setattr(strongest, name, record)
    monkeypatch.setattr(strongest, "cap_aware_runs", lambda model, **_: [partial(record, model)])
    strongest_attack(nets[1], x, y, EPS, twins=[nets[0], nets[2]], **FEW)
    assert [net for net, *_ in calls] == [0, 2, 1, 1, 1, 1, 1, 1]
    assert [targets for _, targets, _ in calls[3:7]] == [0, 0, 9, 9]
    # Some images have no exact gradient; along the surrogate all have one.
    assert [has_gradient for *_, has_gradient in calls[3:7]] == [False, True, False, True]


@pytest.mark.parametrize(("classes", "targets"), [(3, {0}), (4, {0, 3}), (12, {0, 9})])
def test_it_aims_at_nine_other_classes_at_most_and_at_none_of_few(monkeypatch, classes, targets):
    seen = set()
    record = lambda model, x, y, *, targets, **_: seen.add(targets) or x  # noqa: E731
    monkeypatch.setattr(strongest, "apgd", record)
    x, net = load("digits", "test", limit=4).images, mlp(64, [4], num_classes=classes, beta=1.0)
    strongest_attack(net, x, net(x).argmax(1), 1e-6, **FEW)
    assert seen == targets


class Dynamic(torch.nn.Sequential):
    """A defence that takes gradients of its own."""

    def forward(self, x):
        with torch.enable_grad():
            point = x.detach().requires_grad_()
            torch.autograd.grad(point.sum(), point)
        return super().forward(x)


@pytest.mark.parametrize("part", AUTO_PARTS[:3])
def test_each_part_finds_examples_and_warns_of_a_dynamic_defence_alone(nets, part, twenty):
    x, y = twenty
    for net in (nets[0], Dynamic(nets[0]), nets[0]):
        with warnings.catch_warnings(record=True) as given:
            adversarial = auto_attack(net, x, y, 0.1, parts=[part])
        assert is_correct(net, adversarial, y).sum() < is_correct(net, x, y).sum()
        said = [str(w.message) for w in given if w.category is ReliabilityWarning]
        assert ["dynamic defense" in text for text in said] == [True] * isinstance(net, Dynamic)


def test_the_warning_about_zero_gradients_is_passed_on(nets):
    with pytest.warns(ReliabilityWarning, match="zero gradient"):
        auto_attack(nets[1], *load("digits", "test", limit=100), 0.1, parts=["apgd-t"])
