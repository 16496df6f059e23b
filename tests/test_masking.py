"""The masking report: each sign appears on a network that has it, and on no other."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from cappaper import evaluate, fgsm, fit, masking_report, mlp, pgd
from cappaper.attacks.balls import BALLS
from tests.spellings import Function


@pytest.fixture(scope="module")
def low(digits):
    return fit(mlp(64, [64], beta=0.02), *digits[0], epochs=20, lr=3e-3)


def test_a_low_cap_shows_its_signs(low, digits):
    x, y = (tensor[:100] for tensor in digits[1])
    progress, asked = [], {"steps": [5], "epsilons": [0.3], "other": low, "batch_size": 30}
    report = masking_report(low, x, y, 0.1, **asked, progress=lambda *at: progress.append(at))
    end = pgd(low, x, y, 0.1, steps=5, step_size=2.5 * 0.1 / 40, early_exit=False, batch_size=30)
    here, there, end = map(low, (x, BALLS["linf"](0.1 / 1000, 1).random(x, 0), end))
    change = (there - here).norm(dim=1) / here.norm(dim=1)
    assert report.unstable == pytest.approx(change.mean().item(), rel=0.01)
    expected = nn.functional.cross_entropy(end, y).item()
    assert report.loss[5] == pytest.approx(expected, rel=1e-5)
    assert [*report.loss] == [0, 1, 2, 5]
    defaults = {"steps": (10, 40, 100, 1000), "epsilons": (0.2, 0.3, 0.5, 1.0)}
    assert defaults.items() <= masking_report.__kwdefaults__.items()
    assert report.zero_gradient > 0.3 and report.adaptive < report.by_steps[5] - 0.05
    assert [done for done, _ in progress] == list(range(1, progress[-1][1] + 1))
    # The control has as many runs without the cap: a gain from more runs alone is no sign.
    assert report.adaptive < report.control - 0.05
    assert any("knows about the cap" in sign for sign in report.signs())
    level = replace(report, adaptive=report.control, by_steps={5: 1.0})
    assert not any("knows about the cap" in sign for sign in level.signs())


def noisy(z):
    return z + z.detach().norm(dim=1, keepdim=True) * torch.randn_like(z)


def band(x):
    """Errs only in a narrow band of its pixel; the gradient leads across it."""
    pixel = x.flatten(1)
    wrong = ((pixel > 0.55) & (pixel < 0.6)).to(x)
    return torch.cat([1 - wrong, wrong + pixel - pixel.detach()], dim=1)


def fails(report):
    return {indicator.name for indicator in report.indicators() if indicator.fails}


def test_a_relu_network_shows_no_sign(digits):
    net = fit(mlp(64, [64]), *digits[0], epochs=10, lr=3e-3)
    x, y = (tensor[:60] for tensor in digits[1])
    report = masking_report(net, x, y, 0.1, steps=[20, 40], epsilons=[1.0], other=net)
    assert fails(report) <= {"silent success"}  # which early_exit cures
    assert report.signs() == [] and report.moved == 0 and report.silent < 0.1
    assert report.control == pytest.approx(report.adaptive, abs=0.01)


def test_each_indicator_fails_on_its_network(low, digits):
    x, y = (tensor[:60] for tensor in digits[1])
    asked = {"steps": [5], "epsilons": [1.0]}
    plain = mlp(64, [32], seed=1)
    one_step = masking_report(plain, x, y, 0.02, **asked).one_step
    still = masking_report(plain, x, y, 0.0, **asked)
    assert still.one_step == still.standard
    assert one_step == evaluate(plain, x, y, partial(fgsm, eps=0.02)).robust_accuracy
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unstable = masking_report(nn.Sequential(low, Function(noisy)), x, y, 0.1, **asked)
    assert "unstable predictions" in fails(unstable)
    other = fit(mlp(64, [32]), *digits[0], epochs=3, lr=3e-3)
    hidden = masking_report(low, x, y, 0.1, **asked, other=other)
    assert {"unavailable gradients", "unconstrained attack failure"} <= fails(hidden)
    assert "transfer failure" in fails(hidden)
    wrong = masking_report(plain, x, y, 0.02, **asked, other=Function(lambda x: -plain(x)))
    assert "transfer failure" not in fails(wrong)  # it was wrong without an attack
    pixel = torch.linspace(0.4, 0.54, 100).reshape(-1, 1, 1, 1)
    zero = torch.zeros(100, dtype=torch.int64)
    with pytest.warns(UserWarning, match="met no bounded activation"):
        banded = masking_report(Function(band), pixel, zero, 0.3, **asked)
    assert "silent success" in fails(banded)
    incomplete = replace(unstable, by_steps={5: 0.4, 10: 0.5, 40: 0.4}, by_eps={0.5: 0.9})
    assert "incomplete optimisation" in fails(incomplete)
    assert incomplete.indicators()[5].value is None  # no radius allows any image
    assert len(incomplete.indicators()) == 6 and all(i.cure for i in incomplete.indicators())


def test_each_comparison_fails_if_the_other_side_finds_more(low, digits):
    report = masking_report(low, *(part[:60] for part in digits[1]), 0.1, steps=[5], epsilons=[1.0])
    (alone,) = (i for i in report.comparisons() if "radius" in i.name)
    assert alone.value is None and not alone.fails and alone.says == "not measured"
    even = {"noise": 0.5, "one_step": 0.5, "by_steps": {10: 0.5, 100: 0.5}, "adaptive": 0.5}
    even = replace(report, **even, by_eps={0.2: 0.3, 1.0: 0.0}, control=0.5)
    assert [i.fails for i in even.comparisons()] == [False] * 5
    for changed in (
        {"one_step": 0.4},
        {"noise": 0.4},
        {"by_steps": {10: 0.4, 100: 0.5}},
        {"by_eps": {0.2: 0.0, 0.3: 0.1, 1.0: 0.0}},
        {"adaptive": 0.4},
    ):
        worse = replace(even, **changed)
        (one,) = (i for i in worse.comparisons() if i.fails)
        assert one.value == pytest.approx(0.1) and one.cure and one.says in worse.signs()
        assert "by_eps" not in changed or "from ε = 0.2 to 0.3," in one.says
