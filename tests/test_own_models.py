"""Models with operations in place, roots, and bounds of many shapes; attacks that users write."""

import copy
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cappaper import (
    CappedReLU,
    Population,
    adaptive_pgd,
    apgd,
    cw_l2,
    evaluate,
    fit,
    masking_report,
    mlp,
    pgd,
    register_bounded,
    replace_relu,
    square,
    surrogate_gradient,
)
from cappaper.checks import ReliabilityWarning
from cappaper.surrogate import Bounded
from tests.spellings import Function
from tests.test_surrogate import surrogate_of as gradient


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


def test_surrogate_handles_a_sum_in_place(twenty):
    apart, in_place = (Residual(kind) for kind in (False, True))
    in_place.load_state_dict(apart.state_dict())
    x = twenty.images
    torch.testing.assert_close(gradient(in_place, x), gradient(apart, x))


def capped(bound):
    return Function(lambda z: torch.minimum(bound(z), z.relu()))


ROW = nn.Parameter(torch.full((1, 16), 0.1))


@pytest.mark.parametrize("bound", [lambda z: torch.full_like(z, 0.1), lambda z: ROW])
def test_surrogate_handles_a_bound_of_any_shape(twenty, bound):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), capped(bound), nn.Linear(16, 10))
    plain = nn.Sequential(*net[:2], capped(lambda z: torch.tensor(0.1)), net[3])
    x = twenty.images
    together = gradient(net, x)
    torch.testing.assert_close(together, gradient(plain, x))
    torch.testing.assert_close(gradient(net, x[:1]), together[:1])


def contrast(x):
    """Divides by an image's standard deviation, and clamps an infinite result."""
    return x * (0.1 / x.flatten(1).std(1)).clamp(max=10.0)[:, None, None, None]


def test_surrogate_handles_a_clamped_infinity(twenty):
    x, y = twenty.images.clone(), twenty.labels
    x[0] = 0.5
    net = nn.Sequential(Function(contrast), *mlp(64, [8], beta=0.1))
    plain = net(x)
    with surrogate_gradient(net, 10.0):
        assert net(x).equal(plain) and plain.isfinite().all()
    assert gradient(net, x).isfinite().all()
    assert adaptive_pgd(net, x, y, 0.1, steps=2).isfinite().all()


def test_attacks_survive_an_infinite_gradient(twenty):
    """At black pixels."""
    x, y = twenty
    net = nn.Sequential(Function(lambda x: x ** (1 / 2.2)), *mlp(64, [16]))
    for attack in (pgd, adaptive_pgd):
        found = attack(net, x, y, 0.5, norm="l2", steps=3)
        assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1
        assert (found - x).flatten(1).norm(dim=1).max() <= 0.5 + 1e-5


def test_a_model_that_changes_its_images_is_refused(twenty):
    net = nn.Sequential(Function(lambda x: x.sub_(0.3)), nn.Flatten(), nn.Linear(64, 10))
    for attack in (pgd, square):
        images = twenty.images.clone()
        with pytest.raises(ValueError, match="changed its images in place"):
            attack(net, images, twenty.labels, 0.1)
        assert torch.equal(images, twenty.images)


def test_a_buffer_that_a_pass_fills_is_empty_again(twenty):
    net = mlp(64, [8])
    net.register_buffer("last", None)
    net.register_forward_pre_hook(lambda module, given: setattr(module, "last", given[0].mean()))
    pgd(net, *twenty, 0.1, steps=1)
    assert net.last is None


def test_a_user_function_cannot_be_registered():
    def quantised(z):
        return (z.clamp(0, 1) * 4).round() / 4

    with pytest.raises(ValueError, match="'quantised' is none of torch's functions"):
        register_bounded(quantised, lambda z: Bounded(z, 0.0, 1.0))


def test_training_stops_if_a_cap_falls_to_zero(twenty):
    alone = mlp(64, [8], beta=0.02, activation=lambda beta: CappedReLU(beta, learned=True))
    for net in (alone, Population([alone, alone])):
        with pytest.raises(ValueError, match="moved a learned max value β to 0"):
            fit(net, *twenty, epochs=1, lr=3.0, batch_size=1000)


def test_a_parameter_called_beta_is_no_cap(twenty):
    net = nn.Sequential(nn.Flatten(), CappedReLU(0.5), nn.Linear(64, 10))
    net.register_parameter("beta", nn.Parameter(torch.tensor(-1.0)))
    assert fit(net, *twenty, epochs=1).beta < 0


@pytest.mark.parametrize("attack", [pgd, apgd, lambda *given: cw_l2(*given[:3], steps=2)])
def test_attacks_report_a_gradient_of_nan(twenty, attack):
    net = nn.Sequential(Function(lambda x: x + (0 * x).sqrt()), *mlp(64, [16]))
    with pytest.warns(ReliabilityWarning, match="gradient of some images has NaN"):
        attack(net, *twenty, 0.1)
    assert masking_report(net, *twenty, 0.1, steps=[1], epsilons=[1.0]).zero_gradient == 1


def test_a_cap_works_in_place_where_the_relu_did():
    relu, z = nn.ReLU(inplace=True), torch.linspace(-1, 1, 9)
    capped, before = replace_relu(relu, 0.5)(z), z.clone()
    assert capped is z and z.min() == 0 and z.max() == 0.5
    assert torch.equal(replace_relu(relu, math.inf)(z), before)


def patched(net, _):
    inner = net.forward
    net.forward = lambda x: inner(x).float()


def hooked(net, first):
    net.register_forward_hook(lambda *given: first.bias.zero_())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (patched, "forward"),
        (lambda net, first: setattr(net, "forward", contrast), "forward"),
        (lambda net, first: setattr(net, "block", lambda x: first(x)), "block"),
        (hooked, "forward_hooks"),
    ],
)
def test_a_function_that_a_copy_would_share_is_refused(change, name):
    net = mlp(64, [8])
    change(net, net[1])
    with pytest.raises(ValueError, match=f"a copy of this Sequential would share its {name}:"):
        replace_relu(net, 0.1)


def test_a_relu_is_capped_where_a_list_holds_it_too(twenty):
    net = mlp(64, [8])
    net.steps = [*net]
    capped = replace_relu(net, 0.1)
    assert capped.steps[2] is capped[2] and capped[2].beta == torch.tensor(0.1)


def careless(model, x, y):
    model.train(not model.training)
    y.zero_()
    return x


def test_an_attack_may_work_in_place_and_change_the_mode(twenty):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.BatchNorm1d(9), nn.Dropout(0.9))
    x, y = twenty.images, net.eval()(twenty.images).argmax(1)  # all correct: all are attacked
    net.train()
    with pytest.raises(ValueError, match="left its ball"):
        evaluate(net, x, y, partial(lambda model, x, y, eps: x.mul_(0), eps=0.1))
    assert evaluate(net, x, y, careless).success_rate == 0
    plain = fit(copy.deepcopy(net), x, y, epochs=1).state_dict()
    fit(net, x, y, epochs=1, attack=careless)
    assert plain["2.num_batches_tracked"] > 0
    assert all(value.equal(plain[name]) for name, value in net.state_dict().items())


def test_apgd_takes_logits_of_half_precision(twenty):
    net = nn.Sequential(*mlp(64, [16]), Function(torch.Tensor.half))
    assert apgd(net, *twenty, 0.1, steps=2, targets=9).isfinite().all()


def test_logits_of_impossible_classes_do_not_hide_that_others_jump(twenty):
    net = nn.Sequential(*mlp(64, [16]), Function(lambda z: (1e5 * z).sin()))
    padded = nn.Sequential(*net, Function(lambda z: F.pad(z, (0, 5), value=-1e9)))
    for model in (net, padded):
        assert masking_report(model, *twenty, 0.1, steps=[1], epsilons=[1.0]).unstable > 0.1
