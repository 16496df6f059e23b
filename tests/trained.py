"""Networks of 64-32 hidden units, trained on the digits once for each process, and steeper ones."""

import copy
import functools
import math

from cappaper import fit, load, mlp


@functools.cache
def _trained(beta):
    return fit(mlp(64, [64, 32], beta=beta), *load("digits", "train"), epochs=20, lr=3e-3)


def trained(*betas):
    """Copies of the networks with these caps; of the one with ReLU, if none is named."""
    nets = [copy.deepcopy(_trained(beta)) for beta in betas or (math.inf,)]
    return nets if betas else nets[0]


def scaled(net, factor):
    """The same network or layer, once its weights and biases are multiplied."""
    for parameter in net.parameters():
        parameter.data.mul_(factor)
    return net
