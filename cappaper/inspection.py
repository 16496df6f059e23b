"""Inside a network, layer by layer: the growth of a perturbation, and the gradient."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checks
from cappaper.activations import ACTIVATIONS


class LayerDistance(NamedTuple):
    """Distances between a hidden layer's outputs on clean and on adversarial examples.

    ``linf``, ``l2``: means over examples of the distances' norms. ``relative_l2``: their mean
    after division by the norm of the clean output (examples where that is 0 are left out).
    """

    layer: str
    units: int
    linf: float
    l2: float
    relative_l2: float


def layer_distances(model: nn.Module, x: Tensor, x_adv: Tensor) -> list[LayerDistance]:
    """How large an adversarial perturbation is at each hidden layer.

    Source: Figure 1 of arXiv 2405.03777. A hidden layer's output is that of its activation (ReLU,
    capped ReLU or sigmoid).

    Args:
        model: a single classifier; its mode stays.
        x: clean images ``[B, ...]``.
        x_adv: their adversarial examples, of the same shape.

    Returns:
        One entry per call of an activation, in the order of the calls.

    Raises:
        ValueError: the shapes differ, or the model calls no activation that this package knows.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU())
    >>> layer_distances(net, torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))[0].l2
    0.0
    """
    checks.module(model)
    checks.tensor(x, "the clean images")
    checks.tensor(x_adv, "the adversarial images")
    if x.shape != x_adv.shape:
        raise ValueError(
            "clean and adversarial images must share a shape,"
            f" got {list(x.shape)} and {list(x_adv.shape)}"
        )
    if not x.numel():
        raise ValueError("the batch is empty: expected at least one image")
    with torch.no_grad():
        (_, clean), (_, adversarial) = (_calls(model, images) for images in (x, x_adv))
    distances = []
    for call, moved in zip(clean, adversarial, strict=True):
        before, after = call.output.flatten(1), moved.output.flatten(1)
        if not (before.isfinite().all() and after.isfinite().all()):
            raise ValueError(f"the outputs of {call.layer or 'the model'} are not finite")
        delta, size = after - before, before.norm(dim=1)
        linf, l2 = delta.abs().amax(1).mean().item(), delta.norm(dim=1)
        relative = (l2[size > 0] / size[size > 0]).mean().item()  # NaN if all outputs are 0
        distances.append(
            LayerDistance(call.layer, before.shape[1], linf, l2.mean().item(), relative)
        )
    return distances


class LayerSignal(NamedTuple):
    """A hidden layer's outputs, and the gradient that reaches it.

    ``gradient``: mean over examples of the L2 norm of the loss's gradient with respect to the
    layer's pre-activations. ``silent``: share of examples for which that gradient is exactly zero.
    ``at_zero``, ``at_cap``: share of units (over examples) whose output is 0, or the max value β.
    """

    layer: str
    units: int
    gradient: float
    silent: float
    at_zero: float
    at_cap: float


def layer_signals(model: nn.Module, x: Tensor, y: Tensor) -> list[LayerSignal]:
    """The gradient of the cross-entropy at each hidden layer, and the share of units at a bound.

    Args:
        model: a single classifier; its mode stays.
        x: images ``[B, ...]`` in [0, 1].
        y: int64 labels ``[B]``.

    Returns:
        One entry per call of an activation, in the order of the calls.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or the model calls no activation that this
            package knows, or its weights do not require gradients.

    >>> from cappaper import load, mlp
    >>> (signal,) = layer_signals(mlp(64, [32], beta=0.1), *load("digits", "test", limit=8))
    >>> 0 <= signal.at_zero + signal.at_cap <= 1
    True
    """
    checks.batch(x, y)
    checks.module(model)
    logits, calls = _calls(model, x)
    checks.logits(logits, y)
    inputs = [call.z for call in calls]
    if not logits.requires_grad or not all(z.requires_grad for z in inputs):
        raise ValueError("the model's weights do not require gradients: call requires_grad_(True)")
    loss = F.cross_entropy(logits, y, reduction="sum")
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    signals = []
    for (layer, module, _, output), gradient in zip(calls, gradients, strict=True):
        flat = gradient.flatten(1)
        cap = getattr(module, "beta", getattr(module, "max_val", math.inf))
        shares = (flat.eq(0).all(1), output.eq(0), output.ge(cap))  # a tiny norm would underflow
        silent, at_zero, at_cap = (share.float().mean().item() for share in shares)
        norm = flat.norm(dim=1).mean().item()
        signals.append(LayerSignal(layer, output[0].numel(), norm, silent, at_zero, at_cap))
    return signals


class _Call(NamedTuple):
    """One call of an activation in a forward pass."""

    layer: str
    module: nn.Module
    z: Tensor
    output: Tensor


def _calls(model: nn.Module, x: Tensor) -> tuple[Any, list[_Call]]:
    """What the model returns for images, and all calls of its activations."""
    calls: list[_Call] = []
    inputs: list[Tensor] = []
    names = {module: name for name, module in model.named_modules()}

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        inputs.append(args[0])
        # An activation in place overwrites its input, so it gets a copy.
        return (args[0].clone(),) if getattr(module, "inplace", False) else None

    def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        # The model may change the output in place, too.
        calls.append(_Call(names[module], module, inputs.pop(), output.detach().clone()))

    activations = [module for module in names if isinstance(module, ACTIVATIONS)]
    if not activations:
        known = ", ".join(activation.__name__ for activation in ACTIVATIONS)
        raise ValueError(f"the model has no hidden layer: expected {known}")
    handles = [module.register_forward_pre_hook(before) for module in activations]
    handles += [module.register_forward_hook(after) for module in activations]
    try:
        output = model(x)
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise ValueError("the model calls none of its activations")
    return output, calls
