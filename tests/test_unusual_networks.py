"""Unusual networks: clamped scales, layers in two places, buffers, and a forward of their own."""

import copy
import json
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cappaper import (
    CappedReLU,
    adaptive_pgd,
    apgd,
    evaluate,
    exact_robustness,
    fit,
    load,
    masking_report,
    mlp,
    pgd,
    robustness_report,
    square,
    surrogate_gradient,
)
from cappaper.certificates.bounds import Interval, read_layers, rounding_error
from cappaper.checks import ReliabilityWarning
from tests.spellings import Function
from tests.test_members import normed, sequence
from tests.trained import trained


def test_rounding_is_unbounded_for_more_terms_than_a_type_can_count():
    ends = [torch.ones(1, units).double() for units in (64, 16)]
    box, hidden = (Interval(-end, end) for end in ends)
    for kind, bounded in ((torch.bfloat16, True), (torch.float8_e4m3fn, False)):  # of 65 terms
        error = rounding_error(read_layers(mlp(64, [16])), [hidden], box, torch.finfo(kind))
        assert (error.isfinite() == bounded).all() and (error > 0).all()


def test_surrogate_keeps_the_forward_pass_of_a_blank_image(twenty):
    """All pre-activations are 0, and so is their root mean square."""
    x = twenty.images.clone()
    x[0] = 0
    net = sequence(nn.Linear(64, 8, bias=False), CappedReLU(0.5), nn.Linear(8, 10))
    plain = net(x)
    for sharpness in (0.1, 30.0):
        with surrogate_gradient(net, sharpness):
            out = net(point := x.clone().requires_grad_())
            out.sum().backward()
        assert torch.equal(out, plain) and point.grad.isfinite().all()


def test_a_clamp_of_indices_or_of_a_scale_is_not_an_activation(twenty):
    (net,), place, scale = trained(0.05), nn.Embedding(4, 64), nn.Parameter(torch.ones(()))
    nn.init.zeros_(place.weight)

    def clips(x):
        offset = place(torch.arange(8).clamp(max=3)).mean(0).view(1, 1, 8, 8)
        return net(x + offset) * scale.clamp(max=100.0)

    few = {"steps": [2], "epsilons": [0.2]}
    same, alone = (masking_report(one, *twenty, 0.1, **few) for one in (Function(clips), net))
    assert same == alone


@pytest.mark.parametrize("attack", [pgd, apgd, adaptive_pgd])
def test_attacks_in_train_mode_never_use_a_batch_of_one(twenty, attack):
    """BatchNorm refuses a single example; nearly all succeed at once here."""
    net = fit(normed(), *load("digits", "train", limit=300), epochs=2).train()
    for size in (2048, 9, 18):
        x, y = (part[:19] for part in twenty)
        adversarial = attack(net, x, y, 0.3, steps=5, batch_size=size)
        assert (adversarial - x).abs().max() <= 0.3 + 1e-6


@pytest.mark.parametrize("net", [mlp(64, [8], beta=0.5), normed().train()])
def test_an_attack_keeps_an_earlier_graph(twenty, net):
    """As in TRADES: the clean loss, the attack, and then one backward pass through both."""
    x, y = twenty
    clean = net(x)
    adversarial = pgd(net, x, y, 0.1, steps=2, early_exit=False)
    (F.cross_entropy(clean, y) + F.cross_entropy(net(adversarial), y)).backward()
    assert all(weight.grad.isfinite().all() for weight in net.parameters())


def test_a_train_method_of_the_user_is_called_both_ways(twenty):
    """One that merges weights for evaluation takes them apart for training."""
    modes = []

    class Merges(nn.Linear):
        def train(self, mode=True):
            modes.append(mode)
            return super().train(mode)

    evaluate(nn.Sequential(nn.Flatten(), Merges(64, 10)).train(), *twenty, partial(pgd, eps=0.1))
    assert modes == [True, False, True]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("attack", [partial(apgd, targets=3), partial(pgd, samples=2)])
def test_classes_that_a_model_excludes_hide_nothing(sixty, attack):
    x, y = (part[sixty.labels < 3] for part in sixty)
    net, others = trained().eval(), torch.arange(3, 10)

    def left(value):
        excluded = nn.Sequential(net, Function(lambda z: z.index_fill(1, others, value)))
        return evaluate(excluded, x, y, partial(attack, eps=0.2)).robust_accuracy

    assert left(-math.inf) <= left(-1e4) + 0.1 < 0.9
    draws = Function(lambda z: (z + torch.randn_like(z)).index_fill(1, others, -1e9))
    with pytest.warns(ReliabilityWarning, match="is stochastic"):
        pgd(nn.Sequential(net, draws), x, y, 0.1)


def test_an_image_without_logits_does_not_hide_that_a_model_is_stochastic(twenty):
    x = torch.cat([torch.zeros(1, 1, 8, 8), twenty.images])
    bright = Function(lambda x: x / x.amax((1, 2, 3), keepdim=True))  # NaN for a blank image
    with pytest.warns(ReliabilityWarning, match="is stochastic"):
        pgd(nn.Sequential(bright, nn.Dropout(), *mlp(64, [8])), x[:20], twenty.labels, 0.1)


def test_square_uses_the_forward_that_a_model_has():
    x = torch.rand(4, 3, 5, 9, generator=torch.Generator().manual_seed(0))
    layers = [nn.Flatten(2), nn.Linear(45, 8), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10)]
    net = nn.Sequential(*layers)  # its first dense layer sees a part of the image
    assert square(net, x, net(x).argmax(1), 0.1, queries=20).shape == x.shape
    net = nn.Sequential(nn.Flatten(), nn.Identity(), nn.Linear(135, 10))
    assert square(net, x, net(x).argmax(1), 0.1, queries=20).shape == x.shape
    images, plain = load("digits", "test", limit=30).images, mlp(64, [16])
    net = copy.deepcopy(plain)
    net.forward = lambda x: plain(1 - x)
    y = net(images).argmax(-1)
    ours, theirs = (square(m, images, y, 0.2, queries=100) for m in (net, lambda x: plain(1 - x)))
    assert torch.equal(ours, theirs)


def test_a_constant_unit_makes_nothing_robust(twenty):
    """The pre-activation is 0, or at the cap, on the whole ball."""
    x = twenty.images[:3]
    for bias in (0.0, 0.1):
        net = mlp(64, [4], beta=0.1)
        net[1].weight.data[0], net[1].bias.data[0] = 0, bias
        assert not exact_robustness(net, x, net(x).argmax(1), 1.0).robust.any()


def test_two_classes_are_enough_for_the_strongest_attack(twenty):
    x, y = twenty
    net = sequence(nn.Linear(64, 8), CappedReLU(1.0), nn.Linear(8, 2))
    report = robustness_report(net, x, y % 2, np.float32(0.1), steps=5, queries=10)
    assert report.strongest <= report.pgd and json.loads(report.json())["eps"] < 0.11


def test_many_classes_do_not_multiply_a_batch(twenty):
    sizes, x = [], twenty.images[:4]
    layers = sequence(nn.Linear(64, 8), nn.ReLU6(), nn.Linear(8, 300))
    net = Function(lambda x: sizes.append(len(x)) or layers(x))
    y = net(x).argmax(1)  # all are robust, so every target is tried
    apgd(net, x, y, 1e-6, steps=2, targets=40, batch_size=2)
    assert max(sizes) <= 16


def test_a_seed_may_be_a_number_of_numpy(twenty):
    seeds = (3, np.int64(3))
    for attack in (pgd, apgd, partial(square, queries=5), adaptive_pgd):
        assert torch.equal(*(attack(mlp(64, [8]), *twenty, eps=0.1, seed=s) for s in seeds))
    nets = [fit(mlp(64, [8], seed=s), *twenty, epochs=1, seed=s) for s in seeds]
    assert torch.equal(*(net[1].weight for net in nets))
