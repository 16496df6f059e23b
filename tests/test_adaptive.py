"""The attack that knows about the cap: never weaker than PGD, and strong where PGD is lost."""

import math

import pytest
import torch
from hypothesis import given, strategies

from cappaper import Population, ScaledSigmoid, adaptive_pgd, fit, mlp, pgd, rescale
from cappaper.attacks.ascent import classified


@pytest.fixture(scope="module")
def trained(digits):
    """ReLU and a low cap on the digits, as the quick profile trains them."""
    nets = Population([mlp(64, [128, 64], beta=b) for b in (0.03, math.inf)])
    return fit(nets, *digits[0], epochs=60, batch_size=64, lr=3e-3)


def robust(model, x, y):
    return classified(model, x, y).float().mean().item()


def test_pgd_is_lost_in_a_low_cap_and_the_adaptive_attack_is_not(trained, digits):
    x, y = digits[1]
    low, relu = trained
    assert robust(low, pgd(low, x, y, 0.1), y) > 0.8
    assert robust(low, adaptive_pgd(low, x, y, 0.1), y) < 0.35
    # Without a cap there is nothing to unmask: what it finds more, any other start would find.
    plain = robust(relu, pgd(relu, x, y, 0.1, restarts=7), y)
    assert abs(robust(relu, adaptive_pgd(relu, x, y, 0.1), y) - plain) <= 0.015


@given(
    beta=strategies.sampled_from([0.01, 0.1, 1.0, math.inf]),
    eps=strategies.floats(0, 0.5),
    norm=strategies.sampled_from(["linf", "l2"]),
    seed=strategies.integers(0, 50),
)
def test_it_is_at_least_as_strong_as_pgd_on_every_example(beta, eps, norm, seed):
    net = mlp(64, [12, 8], beta=beta, seed=seed)
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    y = net(x).argmax(-1)
    settings = {"steps": 5, "norm": norm, "seed": seed}
    plain = classified(net, pgd(net, x, y, eps, **settings), y)
    adversarial = adaptive_pgd(net, x, y, eps, sharpnesses=(10.0,), **settings)
    assert not (classified(net, adversarial, y) & ~plain).any()
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    delta = (adversarial - x).flatten(1)
    length = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert (length <= eps * (1 + 1e-5) + 1e-6).all()


def test_a_population_falls_as_its_members_do(trained, digits):
    x, y = digits[1].images[:60], digits[1].labels[:60]
    settings = {"eps": 0.1, "steps": 10, "sharpnesses": (10.0,)}
    together = adaptive_pgd(trained, x.expand(2, *x.shape), y.expand(2, -1), **settings)
    stands = classified(trained, together, y.expand(2, -1))
    for i, member in enumerate(trained):
        alone = classified(member, adaptive_pgd(member, x, y, **settings), y)
        assert (stands[i] == alone).float().mean() >= 0.98


def test_a_rescaled_network_falls_alike(trained, digits):
    """β is only a scale: another cap, the same network, the same robust accuracy."""
    x, y = digits[1]
    low = trained[0]
    first, second = (
        robust(net, adaptive_pgd(net, x, y, 0.1), y) for net in (low, rescale(low, 1.0))
    )
    assert abs(first - second) <= 0.01


def test_steep_sigmoids_hide_and_are_found(digits):
    x, y = digits[1]
    net = mlp(64, [64], beta=100.0, activation=ScaledSigmoid)
    fit(net, *digits[0], epochs=20, lr=3e-3)
    plain, adaptive = (robust(net, attack(net, x, y, 0.1), y) for attack in (pgd, adaptive_pgd))
    assert adaptive < plain - 0.1


def test_the_margin_loss_moves_where_the_network_is_all_too_sure(digits):
    x, y = digits[1]
    net = fit(mlp(64, [32]), *digits[0], epochs=20, lr=3e-3)
    with torch.no_grad():
        net[-1].weight.mul_(1e4)  # the cross-entropy's gradient is zero in float32
        net[-1].bias.mul_(1e4)
    assert robust(net, pgd(net, x, y, 0.2, loss="margin"), y) < 0.3
    assert robust(net, pgd(net, x, y, 0.2), y) > 0.5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sharpnesses": ()}, "at least one sharpness"),
        ({"losses": ()}, "and one loss"),
        ({"losses": ("hinge",)}, "unknown loss 'hinge': use one of cross-entropy, margin"),
        ({"sharpnesses": (-1.0,)}, "must be above 0"),
    ],
)
def test_bad_input_gets_a_sentence(changes, says):
    x = torch.rand(4, 1, 2, 2)
    net = mlp(4, [3])
    with pytest.raises(ValueError, match=says):
        adaptive_pgd(net, x, net(x).argmax(-1), 0.0, steps=1, **changes)
