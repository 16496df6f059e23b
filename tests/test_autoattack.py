import math
import warnings

import pytest
import torch

from cappaper import Population, auto_attack, fit, load, mlp
from cappaper.attacks.autoattack import PARTS, ReliabilityWarning
from cappaper.attacks.common import is_correct


@pytest.fixture(scope="module")
def trained():
    models = [mlp(64, [32, 16], beta=beta) for beta in (0.03, math.inf)]
    population = Population(models)
    fit(population, *load("digits", "train"), epochs=10, lr=3e-3)
    return list(population)


@pytest.mark.parametrize("part", PARTS[:3])
def test_parts_stay_in_the_ball_and_leave_the_random_state_alone(trained, part):
    x, y = load("digits", "test", limit=20)
    before = torch.random.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReliabilityWarning)
        found = auto_attack(trained[1], x, y, 0.1, parts=[part])
        again = auto_attack(trained[1], x, y, 0.1, parts=[part])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(found, again)
    assert (found - x).abs().max() <= 0.1 + 1e-6 and found.min() >= 0 and found.max() <= 1
    stands = is_correct(trained[1], x, y)
    assert is_correct(trained[1], found, y).sum() < stands.sum()


def test_the_warning_about_zero_gradients_is_passed_on(trained):
    x, y = load("digits", "test", limit=100)
    with pytest.warns(ReliabilityWarning, match="zero gradient"):
        auto_attack(trained[0], x, y, 0.1, parts=["apgd-t"])


def test_there_is_no_warning_where_gradients_lead_somewhere(trained):
    x, y = load("digits", "test", limit=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReliabilityWarning)
        auto_attack(trained[1], x, y, 0.1, parts=["apgd-ce"])


def test_members_of_a_population_are_attacked_as_they_would_be_alone(trained):
    x, y = load("digits", "test", limit=10)
    both = torch.stack([x, x]), torch.stack([y, y])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReliabilityWarning)
        found = auto_attack(Population(trained), *both, 0.1, parts=["apgd-ce"])
        for i, model in enumerate(trained):
            assert torch.equal(found[i], auto_attack(model, x, y, 0.1, parts=["apgd-ce"]))


def test_bad_input_is_refused_in_a_sentence():
    x, y = load("digits", "test", limit=4)
    model = mlp(64, [4])
    with pytest.raises(ValueError, match="part"):
        auto_attack(model, x, y, 0.1, parts=["apgd"])
    with pytest.raises(ValueError, match="parts must not be empty"):
        auto_attack(model, x, y, 0.1, parts=[])
    with pytest.raises(ValueError, match="above 0"):
        auto_attack(model, x, y, 0.0)
    with pytest.raises(ValueError, match=r"\[B, C, H, W\]"):
        auto_attack(model, x.flatten(1), y, 0.1)
    with pytest.raises(ValueError, match="4 classes"):
        auto_attack(mlp(64, [4], num_classes=3), x, y % 3, 0.1)
