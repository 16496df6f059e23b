"""Layer signals and distances, checked against a computation by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cappaper import CappedReLU, mlp
from cappaper.paper.observers import layer_distances, layer_signals


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


def test_layer_distances_of_a_network_done_by_hand():
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), CappedReLU(1.0))
    net[1].weight.data = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[[[0.1, 0.4]]]])
    x_adv = torch.tensor([[[[0.9, 0.0]]]])  # outputs (0.2, 0.4) and (1.0, 0.0)
    (layer,) = layer_distances(net, x, x_adv)
    assert layer.linf == pytest.approx(0.8)
    assert layer.l2 == pytest.approx(math.hypot(0.8, 0.4))
    assert layer.relative_l2 == pytest.approx(math.hypot(0.8, 0.4) / math.hypot(0.2, 0.4))
    assert (layer.layer, layer.units) == ("2", 2)
