"""Capped ReLU as people write it: the same function, in other words."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from cappaper import CappedReLU, capped_relu


class Subclass(CappedReLU):
    pass


class Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, z):
        return self.function(z)


def bounded_by(bound):
    """A layer whose bound is known to its class alone."""

    class Own(nn.Module):
        def forward(self, z):
            return z.clamp(0, bound)

    return Own()


def scale(factor):
    return Function(lambda z: z * factor)


def ceiling(z, beta):
    return torch.tensor(beta, dtype=z.dtype)


SPELLINGS = {
    "subclass": Subclass,
    "capped_relu": lambda b: Function(lambda z: capped_relu(z, b)),
    "hardtanh": lambda b: nn.Hardtanh(0, b),
    "hardtanh in place": lambda b: nn.Hardtanh(0, b, inplace=True),
    "relu6 module": lambda b: nn.Sequential(scale(6 / b), nn.ReLU6(), scale(b / 6)),
    "relu6": lambda b: Function(lambda z: F.relu6(z * (6 / b)) * (b / 6)),
    "clamp": lambda b: Function(lambda z: z.clamp(0, b)),
    "clamp in place": lambda b: Function(lambda z: (z + 0).clamp_(0, b)),
    "clip": lambda b: Function(lambda z: torch.clip(z, min=0, max=b)),
    "minimum": lambda b: Function(lambda z: torch.minimum(torch.relu(z), ceiling(z, b))),
    "min, then relu": lambda b: Function(lambda z: F.relu(z.clamp_max(b))),
    "relu in place": lambda b: Function(lambda z: F.relu(z + 0, inplace=True).min(ceiling(z, b))),
    "maximum": lambda b: Function(lambda z: torch.maximum(z.clamp(max=b), ceiling(z, 0.0))),
}


def respelled(net, spelling):
    """A copy of a capped network with its activations written in another way."""
    layers = [
        spelling(m.beta.item()) if isinstance(m, CappedReLU) else copy.deepcopy(m) for m in net
    ]
    return nn.Sequential(*layers).to(next(net.parameters()))
