"""The attack on capped networks: never weaker than PGD, and strong where PGD fails."""

import math
import warnings
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cappaper import (
    Bounded,
    Population,
    ScaledSigmoid,
    activations,
    adaptive_pgd,
    evaluate,
    fit,
    masking_report,
    mlp,
    pgd,
    register_bounded,
)
from cappaper.attacks.common import is_correct
from cappaper.surrogate import UnreachedWarning
from tests import trained as networks
from tests.spellings import Function, respelled


@pytest.fixture(scope="module")
def trained(digits):
    """ReLU and a low cap, trained on the digits until the low cap hides most examples from PGD."""
    nets = Population([mlp(64, [128, 64], beta=b) for b in (0.03, math.inf)])
    return fit(nets, *digits[0], epochs=60, batch_size=64, lr=3e-3)


def robust(model, x, y):
    return is_correct(model, x, y).float().mean().item()


def test_pgd_fails_against_a_low_cap_and_the_adaptive_attack_succeeds(trained, digits):
    x, y = digits[1]
    low, relu = trained
    assert robust(low, pgd(low, x, y, 0.1), y) > 0.8
    assert robust(low, adaptive_pgd(low, x, y, 0.1), y) < 0.35
    # Without a cap there is nothing to unmask: what it finds more, any other start would find.
    plain = robust(relu, pgd(relu, x, y, 0.1, restarts=7), y)
    assert abs(robust(relu, adaptive_pgd(relu, x, y, 0.1), y) - plain) <= 0.05


@given(
    beta=st.sampled_from([0.01, 0.1, 1.0, math.inf]),
    eps=st.floats(0, 0.5),
    norm=st.sampled_from(["linf", "l2"]),
    seed=st.integers(0, 50),
)
def test_the_adaptive_attack_is_at_least_as_strong_as_pgd_on_every_example(beta, eps, norm, seed):
    net = mlp(64, [12, 8], beta=beta, seed=seed)
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    y = net(x).argmax(-1)
    settings = {"steps": 5, "norm": norm, "seed": seed}
    plain = is_correct(net, pgd(net, x, y, eps, **settings), y)
    adversarial = adaptive_pgd(net, x, y, eps, sharpnesses=(10.0,), **settings)
    assert not (is_correct(net, adversarial, y) & ~plain).any()


def test_a_traced_copy_and_a_network_without_a_cap_warn(trained, digits):
    x, y = (tensor[:20] for tensor in digits[1])
    for model in (torch.jit.trace(trained[0], x), torch.jit.script(trained[0])):
        for attack in (adaptive_pgd, partial(masking_report, steps=[2], epsilons=[0.1])):
            with pytest.warns(UnreachedWarning, match="into the model, which is traced or script"):
                attack(model, x, y, 0.1)
    clamped = Function(lambda x: x.clamp(0, 1)), nn.Flatten()  # images, not activations
    relu = nn.Sequential(*clamped, nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 10))
    with pytest.warns(UnreachedWarning, match="met no bounded activation in Sequential") as caught:
        evaluate(relu, x, relu(x).argmax(1), partial(adaptive_pgd, eps=0.1, steps=1))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adaptive_pgd(mlp(64, [8], beta=0.1), x, y, 0.1, steps=1)


class StraightThrough(torch.autograd.Function):
    forward = staticmethod(lambda ctx, z: z.clamp(0, 0.05))
    backward = staticmethod(lambda ctx, gradient: 0 * gradient)


class Own(nn.Module):
    def __call__(self, z):
        return super().__call__(z=z)

    def forward(self, z):
        return StraightThrough.apply(z)


def test_a_custom_function_warns_until_its_module_is_registered(trained, digits, monkeypatch):
    monkeypatch.setattr(activations, "_READERS", dict(activations._READERS))
    x, y = (tensor[:60] for tensor in digits[1])
    net = respelled(trained[0], lambda beta: Own())
    with pytest.warns(UnreachedWarning, match="custom autograd function StraightThrough"):
        hidden = adaptive_pgd(net, x, y, 0.1, steps=10)
    register_bounded(Own, lambda module, z: Bounded(z, 0.0, 0.05))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adversarial = adaptive_pgd(net, x, y, 0.1, steps=10)
    assert robust(net, adversarial, y) < robust(net, hidden, y) - 0.3


def test_the_adaptive_attack_succeeds_against_steep_sigmoids(digits):
    x, y = digits[1]
    net = mlp(64, [64], beta=100.0, activation=ScaledSigmoid)
    fit(net, *digits[0], epochs=20, lr=3e-3)
    plain, adaptive = (robust(net, attack(net, x, y, 0.1), y) for attack in (pgd, adaptive_pgd))
    assert adaptive < plain - 0.1


def test_the_margin_loss_has_a_gradient_where_cross_entropy_has_none(digits):
    x, y = digits[1]
    net = networks.trained()
    networks.scaled(net[-1], 1e4)  # the cross-entropy's gradient is zero in float32
    assert robust(net, pgd(net, x, y, 0.2, loss="margin"), y) < 0.3
    assert robust(net, pgd(net, x, y, 0.2), y) > 0.5
