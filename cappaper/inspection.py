"""What happens inside a network, layer by layer: how far a perturbation comes, and a gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper.activations import ACTIVATIONS
from cappaper.checks import check_batch, check_logits, check_module, check_tensor


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
    """How far an adversarial perturbation has come at each hidden layer.

    Source: what Figure 1 of arXiv 2405.03777 shows. A hidden layer's output is that of its
    activation (ReLU, capped ReLU or sigmoid).

    Args:
        model: a single classifier, in the mode it is to be looked at in.
        x: clean images ``[B, ...]``.
        x_adv: their adversarial examples, shaped alike.

    Returns:
        One entry per activation, in the order in which they are called; one that is called again
        is listed again.

    Raises:
        ValueError: the shapes differ, or the model calls no activation that this package knows.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU())
    >>> layer_distances(net, torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))[0].l2
    0.0
    """
    check_module(model)
    check_tensor(x, "the clean images")
    check_tensor(x_adv, "the adversarial images")
    if x.shape != x_adv.shape:
        raise ValueError(
            "clean and adversarial images must share a shape,"
            f" got {list(x.shape)} and {list(x_adv.shape)}"
        )
    if not x.numel():
        raise ValueError("the batch is empty: expected at least one image")
    with torch.no_grad():
        with _watched(model) as clean:
            model(x)
        with _watched(model) as adversarial:
            model(x_adv)
    distances = []
    for (layer, _, _, before), (_, _, _, after) in zip(clean, adversarial, strict=True):
        outputs, moved = before.flatten(1), after.flatten(1)
        if not (outputs.isfinite().all() and moved.isfinite().all()):
            raise ValueError(f"the outputs of {layer or 'the model'} are not finite")
        delta, size = moved - outputs, outputs.norm(dim=1)
        length = delta.norm(dim=1)
        seen = size > 0
        relative = (length[seen] / size[seen]).mean().item() if seen.any() else float("nan")
        linf = delta.abs().amax(1).mean().item()
        distances.append(
            LayerDistance(layer, outputs.shape[1], linf, length.mean().item(), relative)
        )
    return distances


class LayerSignal(NamedTuple):
    """What a hidden layer passes on, and what comes back to it.

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
    """How much gradient of the cross-entropy reaches each hidden layer, and where its units stand.

    Args:
        model: a single classifier, in the mode it is to be looked at in.
        x: images ``[B, ...]`` in [0, 1].
        y: int64 labels ``[B]``.

    Returns:
        One entry per activation, in the order in which they are called; one that is called again
        is listed again.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or the model calls no activation that this
            package knows, or its weights do not require gradients.

    >>> from cappaper import load, mlp
    >>> (signal,) = layer_signals(mlp(64, [32], beta=0.1), *load("digits", "test", limit=8))
    >>> 0 <= signal.at_zero + signal.at_cap <= 1
    True
    """
    check_batch(x, y)
    check_module(model)
    with _watched(model) as seen:
        logits = model(x)
    check_logits(logits, y)
    inputs = [call.z for call in seen]
    if not logits.requires_grad or not all(z.requires_grad for z in inputs):
        raise ValueError("the model's weights do not require gradients: call requires_grad_(True)")
    loss = F.cross_entropy(logits, y, reduction="sum")
    signals = []
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    for (layer, module, _, output), gradient in zip(seen, gradients, strict=True):
        length = gradient.flatten(1).norm(dim=1)
        # The norm of a tiny gradient underflows; a silent one has no entry but zero.
        silent = gradient.flatten(1).eq(0).all(1).float().mean().item()
        cap = getattr(module, "beta", getattr(module, "max_val", math.inf))
        signals.append(
            LayerSignal(
                layer,
                output[0].numel(),
                length.mean().item(),
                silent,
                output.eq(0).float().mean().item(),
                output.ge(cap).float().mean().item(),
            )
        )
    return signals


class _Call(NamedTuple):
    """An activation's place in the model, its input and its output in one forward pass."""

    layer: str
    module: nn.Module
    z: Tensor
    output: Tensor


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[_Call]]:
    """Every call of an activation in a forward pass, in their order."""
    seen: list[_Call] = []
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        met: list[Tensor] = []

        def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            met.append(inputs[0])
            # One that works in place overwrites what it was given: a copy.
            return (inputs[0].clone(),) if getattr(module, "inplace", False) else None

        def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            # The output may be changed in place, too.
            seen.append(_Call(name, module, met.pop(), output.detach().clone()))

        handles.append(module.register_forward_pre_hook(before))
        handles.append(module.register_forward_hook(after))

    for name, module in model.named_modules():
        if isinstance(module, ACTIVATIONS):
            watch(name, module)
    if not handles:
        raise ValueError(
            "the model has no hidden layer: expected "
            + ", ".join(activation.__name__ for activation in ACTIVATIONS)
        )
    try:
        yield seen
        if not seen:
            raise ValueError("the model calls none of its activations")
    finally:
        for handle in handles:
            handle.remove()
