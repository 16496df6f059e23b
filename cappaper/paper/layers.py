"""Inside a network, layer by layer: the growth of a perturbation, and the gradient."""

import math
import threading
import warnings
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checks
from cappaper.activations import CappedReLU, LeftAloneWarning, ScaledSigmoid
from cappaper.attacks.common import undisturbed
from cappaper.surrogate import bounded_calls

# The layers whose outputs are a hidden layer's outputs; ReLU6 is a Hardtanh.
ACTIVATIONS = (nn.ReLU, CappedReLU, ScaledSigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh)


class LayerDistance(NamedTuple):
    """Distances between a hidden layer's outputs on clean and on adversarial examples."""

    layer: str  #: the module's name
    units: int
    linf: float  #: mean over examples of the L∞ norm
    l2: float  #: mean over examples of the L2 norm
    relative_l2: float  #: the same, each divided by the norm of the clean output where it is not 0


def layer_distances(model: nn.Module, x: Tensor, x_adv: Tensor) -> list[LayerDistance]:
    """How large an adversarial perturbation is after each activation, in the order of their calls.

    Source: Figure 1 of arXiv 2405.03777.

    Args:
        model: a single classifier, whose activations are modules; its mode stays.
        x, x_adv: clean images ``[B, ...]`` and their adversarial examples, of the same shape.

    Warns:
        LeftAloneWarning: the model calls bounded activations or ReLU as functions, too.

    Raises:
        ValueError: the shapes differ, or the model calls no activation that this package knows.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU())
    >>> layer_distances(net, torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))[0].l2
    0.0
    """
    checks.module(model)
    if not (isinstance(x_adv, Tensor) and x.shape == x_adv.shape):
        raise ValueError(
            f"x_adv must be images of shape {list(x.shape)}, got {checks.shown(x_adv)}"
        )
    clean, adversarial = (_calls(model, images)[1] for images in (x.detach(), x_adv.detach()))
    distances = []
    for (layer, *_, before), (*_, after) in zip(clean, adversarial, strict=True):
        delta, size = (after - before).flatten(1), before.flatten(1).norm(dim=1)
        l2, units = delta.norm(dim=1), delta.shape[1]
        relative = (l2 / size)[size > 0]  # its mean is NaN if all outputs are 0
        means = (values.mean().item() for values in (delta.abs().amax(1), l2, relative))
        distances.append(LayerDistance(layer, units, *means))
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
    """The loss's gradient at each activation, in the order of their calls, and units at a bound.

    Args:
        model, x, y: a single classifier, images and labels as :func:`~cappaper.pgd` takes them.

    Warns:
        LeftAloneWarning: as :func:`layer_distances`.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or no activation or gradient is there.

    >>> from cappaper import load, mlp
    >>> (signal,) = layer_signals(mlp(64, [32], beta=0.1), *load("digits", "test", limit=8))
    >>> 0 <= signal.at_zero + signal.at_cap <= 1
    True
    """
    checks.batch(x, y)
    checks.module(model)
    logits, calls = _calls(model, x)
    checks.logits(logits, y)
    inputs = [z for _, _, z, _ in calls]
    if not all(z.requires_grad for z in [logits, *inputs]):
        raise ValueError("the model's weights do not require gradients: call requires_grad_(True)")
    loss = F.cross_entropy(logits, y, reduction="sum")
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    signals = []
    for (layer, module, _, output), gradient in zip(calls, gradients, strict=True):
        flat = gradient.flatten(1)  # a tiny norm would underflow, so zeros are counted
        cap = getattr(module, "beta", getattr(module, "max_val", math.inf))
        values = (flat.norm(dim=1), flat.eq(0).all(1), output.eq(0), output.ge(cap))
        means = (value.to(flat).mean().item() for value in values)
        signals.append(LayerSignal(layer, output[0].numel(), *means))
    return signals


def _calls(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Any]]:
    """The logits, and the name, module, input and output of each call of an activation."""
    calls, own = [], threading.get_ident()
    names = {part: name for name, part in model.named_modules() if isinstance(part, ACTIVATIONS)}

    def watch(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if threading.get_ident() != own:
            return None
        # Each call gets a copy, because an activation may change its input in place.
        output = module.forward(args[0].detach().clone()).detach()
        calls.append((names[module], module, args[0], output))
        return (args[0].clone(),)

    with undisturbed(model):
        with ExitStack() as hooks:
            for module in names:
                hooks.enter_context(module.register_forward_pre_hook(watch))
            logits = model(x)
        called, _ = bounded_calls(model, x, torch.zeros(len(x), dtype=torch.int64, device=x.device))
    if not calls:
        known = ", ".join(activation.__name__ for activation in ACTIVATIONS)
        raise ValueError(f"no hidden layer: the model calls none of its activations ({known})")
    count = sum(not isinstance(call.z, nn.Parameter) for call in called) - len(calls)
    if count > 0:
        text = f"{count} activations or clamps are functions, and not listed: make them modules"
        warnings.warn(text, LeftAloneWarning, stacklevel=3)
    return logits, calls
