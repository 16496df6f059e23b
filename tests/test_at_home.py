"""Unusual networks and arguments: blank images, clamped scales, layers in two places."""

import copy
import json
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from cappaper import (
    CappedReLU,
    adaptive_pgd,
    apgd,
    certify,
    exact_robustness,
    fit,
    layer_signals,
    load,
    masking_report,
    mlp,
    pgd,
    replace_relu,
    rescale,
    robustness_report,
    square,
    strongest_attack,
    surrogate_gradient,
)
from cappaper.certificates.bounds import Interval, read_layers, rounding_error
from tests.test_members import normed, shared


@pytest.fixture(scope="module")
def digits():
    return load("digits", "test", limit=20)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_half_precision_are_refused(digits, dtype):
    """Near 1, bfloat16 numbers are 0.004 apart: an attack would leave its ball."""
    x, y = digits
    net = mlp(64, [300]).to(dtype)
    for call in (pgd, adaptive_pgd, certify):
        with pytest.raises(TypeError, match=f"float32 or float64 in .*, got {dtype}"):
            call(net, x.to(dtype), y, 0.1)


def test_a_wrong_class_is_not_certified_and_rounding_is_unbounded_for_many_terms(digits):
    x, net = digits.images, mlp(64, [16])
    wrong = (net(x).argmax(-1) + 1) % 10
    assert not certify(net, x, wrong, 0.0).any()
    box, hidden = (
        Interval(-torch.ones(1, n).double(), torch.ones(1, n).double()) for n in (64, 16)
    )
    for kind, known in ((torch.bfloat16, True), (torch.float8_e4m3fn, False)):  # of 65 terms
        error = rounding_error(read_layers(net), [hidden], box, torch.finfo(kind))
        assert (error.isfinite() == known).all() and (error > 0).all()


def test_surrogate_keeps_the_forward_pass_of_a_blank_image(digits):
    """All pre-activations are 0, and so is their root mean square."""
    x = digits.images.clone()
    x[0] = 0
    layers = [nn.Linear(64, 8, bias=False), CappedReLU(0.5), nn.Linear(8, 10)]
    net = nn.Sequential(nn.Flatten(), *layers)
    plain = net(x)
    for sharpness in (0.1, 30.0):
        with surrogate_gradient(net, sharpness):
            point = x.clone().requires_grad_()
            out = net(point)
            out.sum().backward()
        assert torch.equal(out, plain) and point.grad.isfinite().all()


def test_a_clamp_of_indices_or_of_a_scale_is_no_activation(digits):
    class Clip(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.place = mlp(64, [16], beta=1.0), nn.Embedding(4, 64)
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            place = self.place(torch.arange(8).clamp(max=3)).mean(0).view(1, 1, 8, 8)
            return self.net(x + place) * self.scale.clamp(max=100.0)

    x, y = digits
    net = Clip()
    asked = {"steps": [2], "epsilons": [0.2]}
    report = masking_report(net, x, y, 0.1, **asked)
    assert 0 < report.at_zero < 1
    with torch.no_grad():
        net.place.weight.zero_()
    same, alone = (masking_report(one, x, y, 0.1, **asked) for one in (net, net.net))
    assert (same.at_zero, same.at_cap) == (alone.at_zero, alone.at_cap)


def test_units_are_counted_whatever_their_shape(digits):
    """All pre-activations are negative; some shapes merge units with the batch."""

    class Merged(nn.Module):
        def __init__(self, shape):
            super().__init__()
            self.first, self.last, self.shape = nn.Linear(64, 16), nn.Linear(16, 10), shape
            nn.init.constant_(self.first.bias, -100.0)

        def forward(self, x):
            z = self.first(x.flatten(1))
            return self.last(z.reshape(self.shape).relu().reshape(z.shape))

    for shape in ((-1, 8), (-1,), (-1, 4, 4)):
        report = masking_report(Merged(shape), *digits, 0.1, steps=[2], epsilons=[0.2])
        assert report.at_zero == 1


@pytest.mark.parametrize("attack", [pgd, apgd, adaptive_pgd])
def test_attacks_in_train_mode_never_use_a_batch_of_one(digits, attack):
    """BatchNorm refuses a single example; nearly all succeed at once here."""
    net = fit(normed(), *load("digits", "train", limit=300), epochs=2).train()
    found = attack(net, *digits, 0.3, steps=5)
    assert (found - digits.images).abs().max() <= 0.3 + 1e-6


class Moving(nn.Module):
    """Each forward pass assigns a new buffer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return self.linear((x - self.mean).flatten(1))


@pytest.mark.parametrize(
    "net",
    [nn.Sequential(nn.Flatten(), spectral_norm(nn.Linear(64, 10))), Moving()],
    ids=["spectral norm", "by assignment"],
)
def test_an_attack_puts_all_buffers_back(digits, net):
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    pgd(net, *digits, 0.1, steps=3, early_exit=False)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_an_attack_keeps_an_earlier_graph(digits):
    """As in TRADES: the clean loss, the attack, and then one backward pass through both."""
    x, y = digits
    net = mlp(64, [8], beta=0.5).train()
    clean = net(x)
    found = pgd(net, x, y, 0.1, steps=2, early_exit=False)
    (F.cross_entropy(clean, y) + F.cross_entropy(net(found), y)).backward()
    assert all(weight.grad.isfinite().all() for weight in net.parameters())


def test_square_uses_no_short_cut_through_an_unknown_forward():
    x = torch.rand(4, 3, 5, 9, generator=torch.Generator().manual_seed(0))
    first = [nn.Flatten(2), nn.Linear(45, 8), nn.ReLU(), nn.Flatten(), nn.Linear(24, 10)]
    net = nn.Sequential(*first)
    assert square(net, x, net(x).argmax(1), 0.1, queries=20).shape == x.shape

    class Negative(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(1 - x)

    images, labels = load("digits", "test", limit=30)
    plain = mlp(64, [16])
    wrapped = Negative(copy.deepcopy(plain))
    forward = plain.forward
    plain.forward = lambda x: forward(1 - x)
    y = wrapped(images).argmax(-1)
    ours, theirs = (square(net, images, y, 0.2, queries=100) for net in (plain, wrapped))
    assert torch.equal(ours, theirs) and labels.shape == y.shape


def test_a_constant_unit_makes_nothing_robust(digits):
    """The pre-activation is 0, or at the cap, on the whole ball."""
    x = digits.images[:3]
    for bias in (0.0, 0.1):
        net = mlp(64, [4], beta=0.1)
        with torch.no_grad():
            net[1].weight[0] = 0
            net[1].bias[0] = bias
        assert not exact_robustness(net, x, net(x).argmax(1), 1.0).robust.any()


def test_two_classes_are_enough_for_the_strongest_attack(digits):
    x, y = digits
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), CappedReLU(1.0), nn.Linear(8, 2))
    report = robustness_report(net, x, y % 2, np.float32(0.1), steps=5, queries=10)
    assert report.strongest <= report.pgd and json.loads(report.json())["eps"] < 0.11


def test_many_classes_do_not_multiply_a_batch(digits):
    sizes = []

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU6(), nn.Linear(8, 300))

        def forward(self, x):
            sizes.append(len(x))
            return self.net(x)

    x, net = digits.images[:4], Wide()
    y = net(x).argmax(1)  # all are robust, so every target is tried
    strongest_attack(net, x, y, 1e-6, steps=2, queries=5, batch_size=2)
    apgd(net, x, y, 1e-6, steps=2, targets=40, batch_size=2)
    assert max(sizes) <= 16


def test_a_cap_in_two_places_moves_once(digits):
    net = shared()
    assert torch.allclose(rescale(net, 0.05)(digits.images), net(digits.images), atol=1e-6)
    with pytest.raises(ValueError, match="one β for a cap"):
        rescale(net, [0.05, 0.1])
    linear = nn.Linear(64, 64)
    tied = nn.Sequential(nn.Flatten(), linear, CappedReLU(1.0), linear)
    with pytest.raises(ValueError, match="weights of its own"):
        rescale(tied, 0.1)


def test_an_activation_in_place_shows_the_gradient_before_it(digits):
    def dead(inplace):
        layers = [nn.Linear(64, 16), nn.ReLU(inplace), nn.Linear(16, 10)]
        net = nn.Sequential(nn.Flatten(), *layers)
        with torch.no_grad():
            net[1].bias.fill_(-100)
        return net

    for inplace in (False, True):
        (signal,) = layer_signals(dead(inplace), *digits)
        assert signal.silent == 1

    class After(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.last = nn.Linear(64, 16), CappedReLU(0.1), nn.Linear(16, 10)

        def forward(self, x):
            h = self.act(self.first(x.flatten(1)))
            h += 5
            return self.last(h)

    (signal,) = layer_signals(After(), *digits)
    assert signal.at_zero > 0.1 and signal.at_zero + signal.at_cap < 1


def test_a_seed_is_set_on_no_gpu():
    with mock.patch("torch.cuda.manual_seed_all") as reseeded:
        mlp(64, [8], seed=5)
    reseeded.assert_not_called()


def test_a_seed_may_be_numpys(digits):
    x, y = digits
    assert torch.equal(*(mlp(64, [8], seed=seed)[1].weight for seed in (3, np.int64(3))))
    for attack in (pgd, apgd, partial(square, queries=5), adaptive_pgd):
        found = [attack(mlp(64, [8]), x, y, eps=0.1, seed=seed) for seed in (3, np.int64(3))]
        assert torch.equal(*found)
    nets = [fit(mlp(64, [8]), x, y, epochs=1, seed=seed) for seed in (3, np.int64(3))]
    assert torch.equal(*(net[1].weight for net in nets))


def test_a_cap_goes_where_the_weights_are():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU()).to("meta")
    with mock.patch("cappaper.activations.checks.module"):
        assert replace_relu(net, 1.0)[1].beta.is_meta
