"""What certificates and the exact answer refuse, and in which words."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from cappaper import certify, convnet, exact_robustness, load, mlp


class Doubled(nn.Linear):
    def forward(self, z):
        return -2 * super().forward(z)


class Negated(nn.Sequential):
    def forward(self, x):
        return -super().forward(x)


def with_hook():
    net = mlp(64, [4])
    net[2].register_forward_hook(lambda module, inputs, output: -output)
    return net


def with_nan():
    net = mlp(64, [4])
    net[1].weight.data[0, 0] = math.nan
    return net


LATE = [nn.Linear(8, 4), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10)]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: nn.Sequential(nn.Flatten(), Doubled(64, 10)), TypeError, "no subclasses"),
        (lambda: Negated(nn.Flatten(), nn.Linear(64, 10)), TypeError, "got Negated"),
        (lambda: convnet(8, [4, 8]), TypeError, r"Linear layers with ReLU.*Conv2d"),
        (lambda: nn.Sequential(*LATE), TypeError, "Sequential of Linear, ReLU, Flatten, Linear"),
        (with_hook, ValueError, "no hooks"),
        (with_nan, ValueError, "finite weights"),
    ],
)
def test_other_networks_are_refused(make, error, says):
    data = load("digits", "test", limit=4)
    for judge in (certify, exact_robustness):
        with pytest.raises(error, match=says):
            judge(make(), *data, 0.05)


def test_a_model_that_computes_something_else_than_its_layers_is_refused():
    """Autocast rounds by more than a certificate allows; a hook for all modules negates."""
    (x, y), net = load("digits", "test", limit=20), mlp(64, [32, 16], beta=1.0)
    negate = lambda module, inputs, output: -output  # noqa: E731
    hook = partial(nn.modules.module.register_module_forward_hook, negate)
    for judge in (certify, exact_robustness):
        for around in (hook, partial(torch.autocast, "cpu", torch.bfloat16)):
            with around(), pytest.raises(ValueError, match="something other than its layers do"):
                judge(net, x, y, 0.0)
