"""The masking report: a right answer for bounded activations however they are written."""

import math

import pytest
import torch
from torch import nn

from cappaper import CappedReLU, fit, masking_report, mlp
from tests.spellings import SPELLINGS, respelled

QUICK = {"steps": [5], "epsilons": [0.3]}


@pytest.fixture(scope="module")
def low(digits):
    return fit(mlp(64, [64], beta=0.02), *digits[0], epochs=20, lr=3e-3)


def test_a_low_cap_shows_its_signs(low, digits):
    x, y = (tensor[:100] for tensor in digits[1])
    told = []
    report = masking_report(low, x, y, 0.1, **QUICK, progress=lambda *at: told.append(at))
    assert report.zero_gradient > 0.3 and report.adaptive < report.by_steps[5] - 0.05
    assert any("knows about the cap" in sign for sign in report.signs())
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))


def test_units_at_their_bounds_are_counted(low, digits):
    x, y = (tensor[:100] for tensor in digits[1])
    report = masking_report(low, x, y, 0.1, **QUICK, batch_size=30)
    z = low[1](low[0](x))
    assert report.at_zero == pytest.approx((z <= 0).double().mean().item())
    assert report.at_cap == pytest.approx((z >= low[2].beta).double().mean().item())


@pytest.mark.parametrize("spelling", ["hardtanh", "relu6", "minimum", "clamp in place"])
def test_other_words_give_the_same_report(low, digits, spelling):
    x, y = digits[1].images[:60].double(), digits[1].labels[:60]
    net = low.double()
    known = masking_report(net, x, y, 0.1, **QUICK)
    other = masking_report(respelled(net, SPELLINGS[spelling]), x, y, 0.1, **QUICK)
    assert other.at_cap == pytest.approx(known.at_cap, abs=1e-3)
    assert other.at_zero == pytest.approx(known.at_zero, abs=1e-3)
    assert other.adaptive == pytest.approx(known.adaptive, abs=0.05)
    low.float()


def test_a_tanh_network_gets_an_answer(digits):
    x, y = (tensor[:60] for tensor in digits[1])
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    fit(net, *digits[0], epochs=5, lr=3e-3)
    report = masking_report(net, x, y, 0.1, **QUICK)
    assert report.at_zero == report.at_cap == 0 and report.standard > 0.5


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": []}, "at least one number of steps"),
        ({"epsilons": []}, "at least one number of steps and one radius"),
        ({"eps": math.nan}, "finite number"),
        ({"x": torch.rand(2, 3, 1, 2, 2), "y": torch.zeros(2, 3).long()}, "not a population"),
    ],
)
def test_bad_input_gets_a_sentence(change, says):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), CappedReLU(0.1), nn.Linear(3, 3))
    given = {"x": torch.rand(3, 1, 2, 2), "y": torch.zeros(3).long(), "eps": 0.1, **QUICK} | change
    with pytest.raises(ValueError, match=says):
        masking_report(net, given.pop("x"), given.pop("y"), **given)
