"""Certificates: bounds on the logits over a whole ball, so that no attack can do better."""

import math
import re
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.activations import CappedReLU
from cappaper.population import Population, members

#: Certificates hold for a ball this much larger, because rounding may take an attack out of it.
SLACK = 1e-6


class Interval(NamedTuple):
    lower: Tensor
    upper: Tensor


class Layers(NamedTuple):
    """A fully connected network in float64; a cap (∞ for ReLU) follows each layer but the last."""

    weights: list[Tensor]
    biases: list[Tensor]
    caps: list[Tensor]


def certified_accuracy(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str = "crown"
) -> float | list[float]:
    """Share of examples that provably keep their class everywhere in the L∞ ball.

    Arguments and errors are as in :func:`certify`; of a :class:`~cappaper.Population` there is one
    number per member.

    >>> from cappaper import certified_accuracy, load, mlp
    >>> certified_accuracy(mlp(64, [32], beta=0.1), *load("digits", "test"), eps=1.0)
    0.0
    """
    shares = [certify(m, x, y, eps, method).double().mean().item() for m in members(model)]
    return shares if isinstance(model, Population) else shares[0]


def certify(model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str = "crown") -> Tensor:
    """Which examples provably keep their class everywhere in the L∞ ball and the image range.

    Over a radius of ``eps`` + 1e-6, the true class must lead by more than rounding can change.
    So a certificate holds for the network as it is computed, not only in exact arithmetic.

    Source: interval bounds, Gowal et al., arXiv 1810.12715; CROWN, Zhang et al.,
    arXiv 1811.00866, intersected with the interval bounds.

    Args:
        model: any ``nn.Sequential`` of ``nn.Flatten``, then ``nn.Linear`` with ``nn.ReLU`` or
            :class:`~cappaper.CappedReLU` between them, such as an :func:`~cappaper.mlp`.
        x: images ``[B, ...]`` in [0, 1].
        y: int64 labels ``[B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.
        method: ``"ibp"`` or ``"crown"``.

    Returns:
        Booleans ``[B]``.

    Raises:
        TypeError, ValueError: as :func:`~cappaper.pgd`; or other layers, hooks, weights that are
            not finite, or an unknown method.

    >>> from cappaper import load, mlp
    >>> certify(mlp(64, [32]), *load("digits", "test", limit=3), eps=0.0).shape
    torch.Size([3])
    """
    checks.attack(x, y, eps)
    network, certified = read_layers(model), []
    for images, labels in zip(x.split(100), y.split(100), strict=True):
        check_reading(network, model, images, labels)
        box = box_around(images, eps)
        hidden = layer_bounds(Layers(*(part[:-1] for part in network)), box, method)
        # The true class's logit minus each logit, as a last layer for each example.
        classes = torch.eye(len(network.biases[-1]), dtype=torch.float64, device=x.device)
        rows = classes[labels].unsqueeze(1) - classes
        weight, bias = rows @ network.weights[-1], rows @ network.biases[-1]
        lead = _lower(weight, bias, network, hidden, box, method)
        error = rounding_error(network, hidden, box, torch.finfo(x.dtype))
        true = labels.unsqueeze(1)
        ahead = lead > error + error.gather(1, true)
        certified.append(ahead.scatter(1, true, True).all(1))
    return torch.cat(certified)


def read_layers(model: nn.Module) -> Layers:
    """The weights, biases and caps of a fully connected network, in float64."""
    layers = list(model) if isinstance(model, nn.Sequential) else []
    letters = {nn.Flatten: "F", nn.Linear: "L", nn.ReLU: "R", CappedReLU: "R"}
    kinds = "".join(letters.get(type(m), "?") for m in layers)
    if type(model) is not nn.Sequential or not re.fullmatch("F*L(RL)*", kinds):
        names = ", ".join(type(m).__name__ for m in layers) or "other layers"
        need = "an nn.Sequential of Linear layers with ReLU or CappedReLU, and no subclasses"
        raise TypeError(f"certificates need {need}, got {type(model).__name__} of {names}")
    checks.no_hooks(model, "a model with certificates")
    if not all(p.isfinite().all() for p in model.parameters()):
        raise ValueError("certificates need finite weights: some are NaN or infinite")
    linear = [m for m in layers if isinstance(m, nn.Linear)]
    weights = [m.weight.detach().double() for m in linear]
    none = weights[0].new_zeros(())
    biases = [none.expand(m.out_features) if m.bias is None else m.bias.double() for m in linear]
    caps = [getattr(m, "beta", none + math.inf).to(none) for m in layers if letters[type(m)] == "R"]
    return Layers(weights, [bias.detach() for bias in biases], [cap.detach() for cap in caps])


def check_reading(network: Layers, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Which images are correct; refuses a model that does not compute what its layers do."""
    with torch.no_grad():
        logits = checks.logits_of(model, x, y)
    here = Interval(*2 * (x.detach().flatten(1).double(),))
    *hidden, exact = layer_bounds(network, here, "ibp")
    error = rounding_error(network, hidden, here, torch.finfo(x.dtype))
    if ((logits - exact.lower).abs() > error).any():
        helps = "leave torch.autocast, and remove hooks that torch has for all modules"
        raise ValueError(f"the model computes something other than its layers do: {helps}")
    return logits.argmax(-1) == y


def box_around(x: Tensor, eps: float) -> Interval:
    """The pixels ``[B, pixels]`` of all images in the ball, which is enlarged by the slack."""
    pixels, radius = x.detach().flatten(1).double(), eps + SLACK
    return Interval((pixels - radius).clamp(min=0), (pixels + radius).clamp(max=1))


def layer_bounds(network: Layers, box: Interval, method: str) -> list[Interval]:
    """Bounds, in exact arithmetic, on every layer's pre-activations and the logits over a box."""
    checks.one_of(method, ("ibp", "crown"), "method")
    layers: list[Interval] = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        lower = _lower(weight, bias, network, layers, box, method)
        layers.append(Interval(lower, -_lower(-weight, -bias, network, layers, box, method)))
    return layers


def _capped(z: Interval, cap: Tensor) -> Interval:
    return Interval(*(end.clamp(min=0).clamp(max=cap) for end in z))


def _apply(weight: Tensor, x: Tensor) -> Tensor:
    return (weight @ x.unsqueeze(-1)).squeeze(-1)


def _lower(
    weight: Tensor, bias: Tensor, net: Layers, hidden: list[Interval], box: Interval, method: str
) -> Tensor:
    """A lower bound on the layer after the ``hidden`` ones; its weights may differ by example."""
    lower, upper = _capped(hidden[-1], net.caps[len(hidden) - 1]) if hidden else box
    middle, radius = (lower + upper) / 2, (upper - lower) / 2
    interval = _apply(weight, middle) + bias - _apply(weight.abs(), radius)
    if method == "ibp" or not hidden:
        return interval
    # CROWN: each output lies between two lines in its pre-activation, which is linear in the
    # outputs of the layer before, and so on to the pixels.
    for i in reversed(range(len(hidden))):
        (low_slope, low_offset), (high_slope, high_offset) = _lines(hidden[i], net.caps[i])
        plus, minus = weight.clamp(min=0), weight.clamp(max=0)
        weight = plus * low_slope.unsqueeze(1) + minus * high_slope.unsqueeze(1)
        bias = bias + _apply(plus, low_offset) + _apply(minus, high_offset) + weight @ net.biases[i]
        weight = weight @ net.weights[i]
    bias = bias + _apply(weight.clamp(min=0), box.lower) + _apply(weight.clamp(max=0), box.upper)
    return interval.maximum(bias)


def _lines(z: Interval, cap: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Slope and offset of a line below the capped ReLU on an interval, and of one above."""
    # Each is level, or passes through an end and a corner of the graph, whichever is tighter.
    (low, high), (out_low, out_high) = z, _capped(z, cap)
    tiny = torch.finfo(low.dtype).tiny  # where a corner lies outside the interval, the rise is 0
    corner = high.minimum(cap)
    rise = (corner.clamp(min=0) - out_low) / (corner - low).clamp(min=tiny)
    rise = torch.where(out_low + rise * (high - low) / 2 < out_high, rise, 0)
    above = rise, torch.where(rise > 0, out_low - rise * low, out_high)
    corner = low.clamp(min=0)
    rise = (out_high - corner.minimum(cap)) / (high - corner).clamp(min=tiny)
    rise = torch.where(out_high - rise * (high - low) / 2 > out_low, rise, 0)
    return (rise, torch.where(rise > 0, out_high - rise * high, out_low)), above


def rounding_error(net: Layers, hidden: list[Interval], box: Interval, kind: torch.finfo) -> Tensor:
    """The largest rounding error of the logits ``[B, classes]`` of a forward pass in this dtype."""
    error, unit = torch.zeros_like(box.upper), kind.eps / 2
    inputs = [box, *map(_capped, hidden, net.caps)]
    for weight, bias, inside in zip(net.weights, net.biases, inputs, strict=True):
        terms = weight.shape[1] + 1
        gamma = terms * unit / (1 - terms * unit) if terms * unit < 1 else math.inf
        most = _apply(weight.abs(), inside.upper + error) + bias.abs()
        new = gamma * most + terms * kind.tiny  # underflow is an error, too
        error = _apply(weight.abs(), error) + new
        error = torch.where(most + new < kind.max, error, math.inf)  # else it may overflow
    return 2 * error  # doubled for the rounding of the bounds themselves, in float64
