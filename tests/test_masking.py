"""The masking report: a right answer for bounded activations however they are written."""

import dataclasses
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
        ({"steps": []}, "steps must not be empty"),
        ({"epsilons": []}, "epsilons must not be empty"),
        ({"eps": math.nan}, "finite number"),
        ({"x": torch.rand(2, 3, 1, 2, 2), "y": torch.zeros(2, 3).long()}, "not a population"),
    ],
)
def test_bad_input_gets_a_sentence(change, says):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), CappedReLU(0.1), nn.Linear(3, 3))
    given = {"x": torch.rand(3, 1, 2, 2), "y": torch.zeros(3).long(), "eps": 0.1, **QUICK} | change
    with pytest.raises(ValueError, match=says):
        masking_report(net, given.pop("x"), given.pop("y"), **given)


class Noisy(nn.Module):
    """A network whose logits are another draw at every pass."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        logits = self.net(x)
        return logits + logits.detach().norm(dim=1, keepdim=True) * torch.randn_like(logits)


class Band(nn.Module):
    """Wrong in a narrow band of its pixel alone, with a gradient that leads across it."""

    def forward(self, x):
        pixel = x.flatten(1)
        wrong = ((pixel > 0.55) & (pixel < 0.6)).to(x)
        return torch.cat([1 - wrong, wrong + pixel - pixel.detach()], dim=1)


def fails(report):
    return {indicator.name for indicator in report.indicators() if indicator.fails}


def test_a_network_that_hides_nothing_shows_no_indicator(digits):
    net = fit(mlp(64, [64]), *digits[0], epochs=10, lr=3e-3)
    x, y = (tensor[:60] for tensor in digits[1])
    report = masking_report(net, x, y, 0.1, steps=[20, 40], epsilons=[1.0], other=net)
    assert fails(report) <= {"silent success"}  # which PGD does not suffer from as it is
    assert report.signs() == [] and report.moved == 0
    assert report.control == pytest.approx(report.adaptive, abs=0.01)


def test_each_indicator_is_found_where_it_was_put(low, digits):
    x, y = (tensor[:60] for tensor in digits[1])
    asked = {"steps": [5], "epsilons": [1.0]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noisy = masking_report(Noisy(low), x, y, 0.1, **asked)
    assert "unstable predictions" in fails(noisy)
    hidden = masking_report(low, x, y, 0.1, **asked, other=mlp(64, [32], seed=5))
    assert {"unavailable gradients", "unconstrained attack failure"} <= fails(hidden)
    assert "transfer failure" in fails(hidden)  # an untrained network gives nothing away
    pixel = torch.linspace(0.4, 0.54, 100).reshape(-1, 1, 1, 1)
    zero = torch.zeros(100, dtype=torch.int64)
    with pytest.warns(UserWarning, match="met no bounded activation"):
        banded = masking_report(Band(), pixel, zero, 0.3, **asked)
    assert "silent success" in fails(banded)
    found = dataclasses.replace(noisy, by_steps={10: 0.5, 40: 0.4})
    assert "incomplete optimisation" in fails(found)
    assert len(found.indicators()) == 6 and all(i.cure for i in found.indicators())


def test_each_comparison_fails_where_the_other_side_finds_more(low, digits):
    x, y = (tensor[:60] for tensor in digits[1])
    report = masking_report(low, x, y, 0.1, steps=[5], epsilons=[1.0])
    even = dataclasses.replace(
        report,
        noise=0.5,
        one_step=0.5,
        by_steps={10: 0.5, 100: 0.5},
        by_eps={0.2: 0.3, 1.0: 0.0},
        adaptive=0.5,
        control=0.5,
    )
    assert not any(i.fails for i in even.comparisons()) and len(even.comparisons()) == 5
    for changed in (
        {"one_step": 0.4},
        {"noise": 0.4},
        {"by_steps": {10: 0.4, 100: 0.5}},
        {"by_eps": {0.2: 0.0, 0.3: 0.1, 1.0: 0.0}},
        {"adaptive": 0.4},
    ):
        (one,) = (i for i in dataclasses.replace(even, **changed).comparisons() if i.fails)
        assert one.value == pytest.approx(0.1) and one.cure
        assert one.says in dataclasses.replace(even, **changed).signs()
    (alone,) = (i for i in report.comparisons() if "radius" in i.name)
    assert alone.value is None and not alone.fails and alone.says == "not measured"


def test_a_gain_from_more_runs_alone_is_no_sign(low, digits):
    """The cap-aware attack is compared with as many runs that know nothing of the cap."""
    x, y = (tensor[:60] for tensor in digits[1])
    report = masking_report(low, x, y, 0.1, **QUICK)
    assert report.adaptive < report.control - 0.05
    level = dataclasses.replace(report, adaptive=report.control, by_steps={5: 1.0})
    assert not any("knows about the cap" in sign for sign in level.signs())
