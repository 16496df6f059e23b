"""AutoAttack's parts, and the warnings that they pass on."""

import math
import warnings

import pytest

from cappaper import auto_attack, fit, load, mlp
from cappaper.attacks.autoattack import PARTS, ReliabilityWarning
from cappaper.attacks.common import is_correct


@pytest.fixture(scope="module")
def nets(digits):
    return [
        fit(mlp(64, [32, 16], beta=b), *digits[0], epochs=10, lr=3e-3) for b in (0.03, math.inf)
    ]


@pytest.mark.parametrize("part", PARTS[:3])
def test_each_part_finds_examples_in_the_ball_without_a_warning(nets, part, twenty):
    x, y = twenty
    with warnings.catch_warnings():
        warnings.simplefilter("error", ReliabilityWarning)
        adversarial = auto_attack(nets[1], x, y, 0.1, parts=[part])
    assert (adversarial - x).abs().max() <= 0.1 + 1e-6
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    assert is_correct(nets[1], adversarial, y).sum() < is_correct(nets[1], x, y).sum()


def test_the_warning_about_zero_gradients_is_passed_on(nets):
    with pytest.warns(ReliabilityWarning, match="zero gradient"):
        auto_attack(nets[0], *load("digits", "test", limit=100), 0.1, parts=["apgd-t"])
