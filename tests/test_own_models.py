"""Models with operations in place, roots, and bounds of many shapes."""

import pytest
import torch
from torch import nn

import cappaper
from cappaper import (
    CappedReLU,
    adaptive_pgd,
    certify,
    fit,
    load,
    mlp,
    pgd,
    register_bounded,
    square,
    surrogate_gradient,
)
from cappaper.surrogate import Bounded
from tests.test_surrogate import surrogate_of as gradient


@pytest.fixture(scope="module")
def digits():
    return load("digits", "test", limit=20)


class Residual(nn.Module):
    """Two capped layers with a skip connection."""

    def __init__(self, in_place):
        super().__init__()
        self.first, self.around = nn.Linear(64, 16), nn.Linear(64, 16)
        self.cap, self.last, self.in_place = nn.Hardtanh(0, 0.2), nn.Linear(16, 10), in_place

    def forward(self, x):
        x = x.flatten(1)
        h = self.cap(self.first(x))
        if self.in_place:
            h += self.around(x)
        else:
            h = h + self.around(x)
        return self.last(self.cap(h))


def test_surrogate_handles_a_sum_in_place(digits):
    apart, in_place = (Residual(kind) for kind in (False, True))
    in_place.load_state_dict(apart.state_dict())
    x = digits.images
    torch.testing.assert_close(gradient(in_place, x), gradient(apart, x))


class Bound(nn.Module):
    """A capped layer whose cap is written as a minimum."""

    def __init__(self, cap):
        super().__init__()
        self.first, self.last, self.cap = nn.Linear(64, 16), nn.Linear(16, 10), cap

    def forward(self, x):
        z = self.first(x.flatten(1)).relu()
        cap = torch.full_like(z, 0.1) if self.cap is None else self.cap
        return self.last(torch.minimum(cap, z))


@pytest.mark.parametrize("cap", [None, nn.Parameter(torch.full((1, 16), 0.1))])
def test_surrogate_handles_a_bound_of_any_shape(digits, cap):
    net, x = Bound(cap), digits.images
    plain = Bound(torch.tensor(0.1))
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if k != "cap"})
    together = gradient(net, x)
    torch.testing.assert_close(together, gradient(plain, x))
    torch.testing.assert_close(gradient(net, x[:1]), together[:1])


class Contrast(nn.Module):
    """Divides by an image's standard deviation, and clamps an infinite result."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        gain = (0.1 / x.flatten(1).std(1)).clamp(max=10.0)
        return self.net(x * gain[:, None, None, None])


def test_surrogate_handles_a_clamped_infinity(digits):
    x, y = digits.images.clone(), digits.labels
    x[0] = 0.5
    net = Contrast(mlp(64, [8], beta=0.1))
    plain = net(x)
    with surrogate_gradient(net, 10.0):
        assert net(x).equal(plain) and plain.isfinite().all()
    assert gradient(net, x).isfinite().all()
    assert adaptive_pgd(net, x, y, 0.1, steps=2).isfinite().all()


class Gamma(nn.Module):
    """The gradient is infinite at black pixels."""

    def __init__(self):
        super().__init__()
        self.net = mlp(64, [16])

    def forward(self, x):
        return self.net(x ** (1 / 2.2))


def test_attacks_survive_an_infinite_gradient(digits):
    x, y = digits.images, digits.labels
    for attack in (pgd, adaptive_pgd):
        found = attack(Gamma(), x, y, 0.5, norm="l2", steps=3)
        assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1
        assert (found - x).flatten(1).norm(dim=1).max() <= 0.5 + 1e-5


class Shifted(nn.Sequential):
    def forward(self, x):
        return super().forward(x.sub_(0.3))


def test_a_model_that_changes_its_images_is_refused(digits):
    net = Shifted(nn.Flatten(), nn.Linear(64, 10))
    for attack in (pgd, square):
        with pytest.raises(ValueError, match="changed its images in place"):
            attack(net, digits.images.clone(), digits.labels, 0.1)


def test_a_user_function_cannot_be_registered():
    def quantised(z):
        return (z.clamp(0, 1) * 4).round() / 4

    with pytest.raises(ValueError, match="'quantised' is none of torch's functions"):
        register_bounded(quantised, lambda z: Bounded(z, 0.0, 1.0))


def test_training_stops_if_a_cap_falls_to_zero(digits):
    alone = mlp(64, [8], beta=0.02, activation=_learned)
    for net in (alone, cappaper.Population([alone, alone])):
        with pytest.raises(ValueError, match="moved a learned max value β to 0"):
            fit(net, *digits, epochs=1, lr=3.0, batch_size=1000)


def test_a_parameter_called_beta_is_no_cap(digits):
    net = nn.Sequential(nn.Flatten(), CappedReLU(0.5), nn.Linear(64, 10))
    net.register_parameter("beta", nn.Parameter(torch.tensor(-1.0)))
    assert fit(net, *digits, epochs=1).beta < 0


def _learned(beta):
    return CappedReLU(beta, learned=True)


def test_flat_images_need_no_flatten_layer(digits):
    net = nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    assert certify(net, digits.images.flatten(1), digits.labels, 0.01).shape == (20,)
