"""Layer signals and distances, checked against a computation by hand."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cappaper import mlp
from cappaper.activations import LeftAloneWarning
from cappaper.paper.layers import layer_distances, layer_signals
from tests.spellings import Function


def test_signals_agree_with_a_computation_by_hand(digits):
    x, y = (tensor[:50] for tensor in digits[1])
    net = mlp(64, [12, 8], beta=[0.2, 0.05], seed=3)
    flat, first, cap1, second, cap2, last = net
    z1 = first(flat(x)).detach().requires_grad_()
    z2 = second(cap1(z1))
    z2.retain_grad()
    F.cross_entropy(last(cap2(z2)), y, reduction="sum").backward()
    signals = layer_signals(net, x, y)
    for signal, z, beta in zip(signals, (z1, z2), (0.2, 0.05), strict=True):
        assert signal.units == z.shape[1]
        assert signal.gradient == pytest.approx(z.grad.norm(dim=1).mean().item(), rel=1e-5)
        assert signal.at_cap == pytest.approx((z >= beta).float().mean().item())
        assert signal.at_zero == pytest.approx((z <= 0).float().mean().item())
        assert signal.silent == pytest.approx((z.grad == 0).all(1).float().mean().item())
    assert all(parameter.grad is None for parameter in net[1].parameters())


def test_an_activation_that_is_called_twice_is_listed_twice(digits):
    x, y = (tensor[:20] for tensor in digits[1])
    relu, layers = nn.ReLU(), [nn.Linear(64, 9), nn.Linear(9, 7), nn.Linear(7, 10)]
    shared = nn.Sequential(nn.Flatten(), layers[0], relu, layers[1], relu, layers[2])
    apart = nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    both = [layer_signals(net, x, y) for net in (shared, apart)]
    assert [signal.units for signal in both[0]] == [9, 7]
    assert [signal[1:] for signal in both[0]] == [signal[1:] for signal in both[1]]
    near = (x + 0.01).clamp(0, 1)
    both = [layer_distances(net, x, near) for net in (shared, apart)]
    assert [distance[1:] for distance in both[0]] == [distance[1:] for distance in both[1]]


class Branch(nn.Module):
    """The output of its second activation is not used."""

    def __init__(self, called=True):
        super().__init__()
        self.one, self.two, self.called = nn.ReLU(), nn.ReLU(), called
        self.inside, self.last = nn.Linear(4, 3), nn.Linear(3, 10)

    def forward(self, x):
        z = self.inside(x.flatten(1))
        if not self.called:
            return self.last(z)
        self.two(z)
        return self.last(self.one(z))


def test_an_unused_branch_has_no_gradient():
    x, y, net = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2]), Branch()
    for weight in net.parameters():
        weight.data.abs_()  # no unit is silent by chance
    signals = {signal.layer: signal for signal in layer_signals(net, x, y)}
    assert list(signals) == ["two", "one"]  # in the order of the calls
    assert signals["one"].gradient > 0
    for look in (layer_signals, layer_distances):
        with pytest.raises(ValueError, match="calls none of its activations"):
            look(Branch(called=False), x, y if look is layer_signals else x)


def test_activations_that_are_functions_are_named_and_not_listed(twenty):
    layers = [nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 8), Function(F.relu), nn.Linear(8, 10)]
    net = nn.Sequential(nn.Flatten(), *layers)
    with pytest.warns(LeftAloneWarning, match="1 activations or clamps are functions"):
        assert len(layer_signals(net, *twenty)) == 1
    with pytest.warns(LeftAloneWarning, match="1 activations or clamps are functions"):
        assert len(layer_distances(net, twenty.images, twenty.images)) == 1


def test_a_look_inside_leaves_the_model_as_it_was_and_threads_apart(twenty):
    x, y = twenty
    net = nn.Sequential(nn.BatchNorm2d(1), *mlp(64, [16], beta=0.1)).train()
    before = copy.deepcopy(net.state_dict())
    alone = layer_signals(net, x, y)
    with ThreadPoolExecutor(4) as threads:
        looks = list(threads.map(lambda _: layer_distances(net.eval(), x, x), range(40)))
    assert alone[0].units == 16 and all(len(distances) == 1 for distances in looks)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_bad_arguments_are_refused():
    x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="no hidden layer"):
        layer_signals(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x, y)
    with pytest.raises(ValueError, match="labels must lie in 0 to 9"):
        layer_signals(mlp(4, [3]), x, y + 10)
    with pytest.raises(ValueError, match="do not require gradients"):
        layer_signals(mlp(4, [3]).requires_grad_(False), x, y)
