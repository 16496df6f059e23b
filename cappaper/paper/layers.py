"""Inside a network, layer by layer: the growth of a perturbation, and the gradient."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checks
from cappaper.activations import CappedReLU, ScaledSigmoid


class LayerDistance(NamedTuple):
    """Distances between a hidden layer's outputs on clean and on adversarial examples."""

    layer: str  #: the module's name
    units: int
    linf: float  #: mean over examples of the L∞ norm
    l2: float  #: mean over examples of the L2 norm
    relative_l2: float  #: the same, each divided by the norm of the clean output where it is not 0


def layer_distances(model: nn.Module, x: Tensor, x_adv: Tensor) -> list[LayerDistance]:
    """How large an adversarial perturbation is after each hidden layer.

    Source: Figure 1 of arXiv 2405.03777.

    Args:
        model: an :func:`~cappaper.mlp` or :func:`~cappaper.convnet`; else a TypeError is raised.
        x, x_adv: clean images ``[B, ...]`` and their adversarial examples.

    >>> from cappaper import mlp
    >>> layer_distances(mlp(4, [3]), torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))[0].l2
    0.0
    """
    distances = []
    with torch.no_grad():
        layers = zip(_hidden(model, x)[1], _hidden(model, x_adv)[1], strict=True)
    for (name, _, _, before), (*_, after) in layers:
        delta, size = (after - before).flatten(1), before.flatten(1).norm(dim=1)
        l2 = delta.norm(dim=1)
        relative = (l2 / size)[size > 0]  # its mean is NaN if all outputs are 0
        means = (values.mean().item() for values in (delta.abs().amax(1), l2, relative))
        distances.append(LayerDistance(name, delta.shape[1], *means))
    return distances


class LayerSignal(NamedTuple):
    """A hidden layer's outputs, and the gradient that reaches it."""

    layer: str  #: the module's name
    units: int
    gradient: float  #: mean L2 norm of the loss's gradient by the layer's pre-activations
    silent: float  #: share of examples for which that gradient is exactly zero
    at_zero: float  #: share of units whose output is 0
    at_cap: float  #: share of units whose output is the max value β


def layer_signals(model: nn.Module, x: Tensor, y: Tensor) -> list[LayerSignal]:
    """The loss's gradient at each hidden layer, and the shares of units at a bound.

    Args:
        model: as :func:`layer_distances` takes it; its weights require gradients.
        x, y: images and labels as :func:`~cappaper.pgd` takes them.

    >>> from cappaper import load, mlp
    >>> (signal,) = layer_signals(mlp(64, [32], beta=0.1), *load("digits", "test", limit=8))
    >>> 0 <= signal.at_zero + signal.at_cap <= 1
    True
    """
    logits, layers = _hidden(model, x)
    checks.logits(logits, y)
    loss = F.cross_entropy(logits, y, reduction="sum")
    gradients = torch.autograd.grad(loss, [z for _, _, z, _ in layers])
    signals = []
    for (name, module, _, output), gradient in zip(layers, gradients, strict=True):
        flat = gradient.flatten(1)  # a tiny norm would underflow, so zeros are counted
        cap = getattr(module, "beta", math.inf)
        values = (flat.norm(dim=1), flat.eq(0).all(1), output.eq(0), output.ge(cap))
        means = (value.to(flat).mean().item() for value in values)
        signals.append(LayerSignal(name, output[0].numel(), *means))
    return signals


def _hidden(model: nn.Module, x: Tensor) -> tuple[Tensor, list[tuple[str, Any, Tensor, Tensor]]]:
    """The logits, and the name, module, input and output of each activation."""
    if not isinstance(model, nn.Sequential):
        kind = type(model).__name__
        raise TypeError(f"to look inside, give an nn.Sequential, such as an mlp, not {kind}")
    layers = []
    for name, module in model.named_children():
        z, x = x, module(x)
        if isinstance(module, (CappedReLU, ScaledSigmoid)):
            layers.append((name, module, z, x))
    return x, layers
