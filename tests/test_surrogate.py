"""A gradient through saturated units: exact outputs, a smooth slope behind them, no trace after."""

import copy
import math
import threading
import warnings
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given, settings, strategies
from torch import nn
from torch.utils.checkpoint import checkpoint

import cappaper
from cappaper import CappedReLU, Population, ScaledSigmoid, mlp, rescale, surrogate_gradient
from cappaper.surrogate import UnreachedWarning
from tests.spellings import SPELLINGS, Function, respelled


def gradient(model, x):
    point = x.clone().requires_grad_()
    model(point).square().sum().backward()
    return point.grad


def surrogate_of(model, x, sharpness=3.0, **settings):
    with surrogate_gradient(model, sharpness, **settings):
        return gradient(model, x)


@pytest.fixture
def images():
    return torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def stuck(activation=lambda: CappedReLU(0.05)):
    """A network whose every hidden unit is saturated, at one end or the other."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), activation(), nn.Linear(16, 10))
    with torch.no_grad():
        net[1].weight.mul_(0.1)
        net[1].bias.copy_(torch.tensor([3.0, -3.0]).repeat(8))
    return net


def test_a_very_sharp_surrogate_is_the_exact_gradient(images):
    net, x = mlp(64, [16], beta=0.1, seed=2).double(), images.double()
    exact = gradient(net, x)
    torch.testing.assert_close(surrogate_of(net, x, 1e9), exact, atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(surrogate_of(net, x)[:1], surrogate_of(net, x[:1]))
    assert torch.equal(surrogate_of(net, x, None), exact)


@pytest.mark.parametrize(
    "net",
    [
        mlp(64, [32, 16]),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU()),
        nn.Sequential(nn.Flatten(), Function(lambda z: torch.minimum(z, z.flip(-1)))),
    ],
    ids=["relu of this package", "relu", "two layers compared"],
)
def test_what_is_no_cap_keeps_its_gradient(net, images):
    torch.testing.assert_close(surrogate_of(net, images), gradient(net, images))


@given(sharpness=strategies.floats(0.5, 50))
def test_a_relu_gets_the_slope_of_a_cap_out_of_reach_on_demand(sharpness):
    """Then only the cap differs: as β grows, the capped network's gradient becomes ReLU's."""
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(4)).double()
    high, low, plain = (mlp(64, [16, 8], beta=b, seed=1).double() for b in (1e6, 0.1, math.inf))
    foreign = nn.Sequential(nn.Flatten(), plain[1], nn.ReLU(), plain[3], nn.ReLU(), plain[5])
    exact, expected = gradient(plain, x), surrogate_of(high, x, sharpness)
    for net in (plain, foreign, Population([plain])):
        own = x[None] if isinstance(net, Population) else x
        slope = surrogate_of(net, own, sharpness, relu=True).reshape(x.shape)
        torch.testing.assert_close(slope, expected)
        assert not torch.allclose(slope, exact)
    with_relu, without = (surrogate_of(low, x, sharpness, relu=relu) for relu in (True, False))
    assert torch.equal(with_relu, without)


@given(beta=strategies.floats(0.01, 10), sharpness=strategies.floats(0.5, 50))
def test_a_network_and_its_rescaled_twin_have_the_same_gradient(beta, sharpness):
    net = mlp(64, [16, 8], beta=0.3, seed=3).double()
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    one, other = (surrogate_of(n, x, sharpness) for n in (net, rescale(net, beta)))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_population_has_the_gradients_of_its_members(images):
    nets = [mlp(64, [16, 8], beta=b, seed=i).double() for i, b in enumerate((0.05, 0.5, 1e9))]
    x = images.double()
    together = surrogate_of(Population(nets), x.expand(3, *x.shape))
    torch.testing.assert_close(together, torch.stack([surrogate_of(net, x) for net in nets]))


@settings(max_examples=40)
@given(
    spelling=strategies.sampled_from(sorted(SPELLINGS)),
    beta=strategies.sampled_from([0.05, 0.5, 4.0]),
    sharpness=strategies.floats(0.5, 50),
    seed=strategies.integers(0, 100),
)
def test_a_cap_in_other_words_has_the_same_gradient(spelling, beta, sharpness, seed):
    net = mlp(64, [16, 8], beta=beta, seed=seed).double()
    other = respelled(net, SPELLINGS[spelling])
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    before = other(x)
    with surrogate_gradient(net, sharpness), surrogate_gradient(other, sharpness) as same:
        assert same is other and torch.equal(other(x), before)
        torch.testing.assert_close(gradient(other, x), gradient(net, x))
    torch.testing.assert_close(gradient(other, x), gradient(net, x))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_cap_in_other_words_is_reached_in_a_population_too(images, spelling):
    nets, x = [respelled(stuck(), SPELLINGS[spelling]).double() for _ in range(2)], images.double()
    together = surrogate_of(Population(nets), x.expand(2, *x.shape))
    torch.testing.assert_close(together[0], surrogate_of(nets[0], x))
    assert together.flatten(2).ne(0).all()


SATURATING = {
    "capped": CappedReLU(0.05),
    "scaled sigmoid": ScaledSigmoid(400.0),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardtanh": nn.Hardtanh(),
    "torch.tanh": Function(torch.tanh),
    "F.hardsigmoid": Function(torch.nn.functional.hardsigmoid),
    "expit": Function(torch.special.expit),
}


@pytest.mark.parametrize("name", SATURATING)
def test_saturated_units_get_a_gradient_and_lose_it_again(images, name):
    net = stuck(lambda: nn.Sequential(Function(lambda z: z * 1e3), SATURATING[name]))
    assert not gradient(net, images).any()
    assert surrogate_of(net, images).flatten(1).ne(0).all()
    assert not gradient(net, images).any()


def test_another_thread_keeps_its_own_gradient(images):
    net, seen = stuck(), []
    with surrogate_gradient(net, 3.0):
        other = threading.Thread(target=lambda: seen.append(gradient(net, images)))
        other.start()
        other.join()
        assert gradient(net, images).any()
    assert not seen[0].any()


def test_blocks_may_be_nested(images):
    net = stuck()
    with surrogate_gradient(net, 30.0):
        outer = gradient(net, images)
        assert not torch.allclose(surrogate_of(net, images), outer)
        assert torch.equal(gradient(net, images), outer)


class Checkpointed(nn.ModuleList):
    def forward(self, x):
        return self[3](checkpoint(nn.Sequential(*[*self][:3]), x, use_reentrant=False))


@pytest.mark.parametrize(
    "changed",
    [
        lambda net: Checkpointed([*net[:3], net[3:]]),
        partial(torch.compile, backend="aot_eager", dynamic=True),
        lambda net: net.compile(backend="aot_eager") or net,
        torch.fx.symbolic_trace,
    ],
    ids=["checkpointed", "compiled", "compiled in place", "traced by fx"],
)
def test_a_model_that_runs_in_another_way_has_the_same_gradient_and_no_warning(images, changed):
    net, y = mlp(64, [16, 8], beta=0.05), torch.zeros(20, dtype=torch.int64)
    other = changed(copy.deepcopy(net))
    torch.testing.assert_close(surrogate_of(other, images), surrogate_of(net, images))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnreachedWarning)
        cappaper.adaptive_pgd(other, images, y, 0.1, steps=2)
    torch.testing.assert_close(gradient(other, images), gradient(net, images))


def test_what_outlives_the_block_has_the_exact_gradient(images):
    """A copy keeps the hooks; an interrupt, for which torch calls no hook, keeps the mode."""
    net, interrupt = stuck(), Mock(side_effect=KeyboardInterrupt)
    with surrogate_gradient(net, 3.0):
        kept = copy.deepcopy(net)
        hook = net[2].register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            net(images)
        hook.remove()
    assert torch.overrides._get_current_function_mode() is None
    assert not gradient(kept, images).any() and not gradient(net, images).any()


@pytest.mark.parametrize("sharpness", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_input_gets_a_sentence(sharpness):
    block = surrogate_gradient(mlp(4, [3]), sharpness)
    with pytest.raises(ValueError, match="finite number above 0"), block:
        pass


def slope(layer, values, sharpness):
    z = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    with surrogate_gradient(layer, sharpness):
        layer(z).sum().backward()
    return z.grad


in_place = Function(lambda z: nn.functional.hardtanh_(z + 0))
FORMULAS = [(nn.Hardtanh(), -1, 1, 1), (nn.ReLU6(), 0, 6, 1), (nn.Hardsigmoid(), -3, 3, 1 / 6)]
FORMULAS += [(Function(nn.functional.hardtanh), -1, 1, 1), (in_place, -1, 1, 1)]


@pytest.mark.parametrize("known", [*FORMULAS, (nn.Tanh(), 0, 0, 4), (nn.Sigmoid(), 0, 0, 1)])
def test_the_slope_is_its_formula(known):
    layer, low, high, steepest = known
    z = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
    k = 2.0 / z.square().mean().sqrt()
    expected = steepest * torch.sigmoid(k * (z - low)) * torch.sigmoid(k * (high - z))
    torch.testing.assert_close(slope(layer, z.tolist(), 2.0)[0], expected)


def test_a_maximum_over_a_dimension_is_no_clamp():
    z = torch.tensor([[-1.0, 2.0]], requires_grad=True)
    with surrogate_gradient(Function(lambda z: z.max(1).values + z.min(dim=1)[0]), 10.0) as model:
        model(z).sum().backward()
    assert z.grad.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("first", [nn.Sigmoid(), nn.Tanh(), nn.Hardsigmoid()])
def test_a_clamp_of_another_activation_multiplies_the_slopes(first):
    """By the chain rule; only a clamp of a clamp is one clamp."""
    then, z = nn.Hardtanh(0.0, 0.9), [-2.0, -0.3, 0.4, 3.0]
    middle = first(torch.tensor(z, dtype=torch.float64)).tolist()
    expected = slope(first, z, 10.0) * slope(then, middle, 10.0)
    torch.testing.assert_close(slope(nn.Sequential(first, then), z, 10.0), expected)
