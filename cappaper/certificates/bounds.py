"""Certificates: bounds on the logits over a whole ball, so that no attack can do better."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cappaper import checks
from cappaper.activations import CappedReLU
from cappaper.attacks.common import is_correct
from cappaper.population import Population, members

METHODS = ("ibp", "crown")

SLACK = 1e-6
"""Certificates hold for a ball this much larger, because rounding may take an attack out of it."""

_BATCH = 100  # examples at once: CROWN needs a matrix for each


class Interval(NamedTuple):
    """Elementwise bounds: two tensors of one shape."""

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

    Args:
        model: an :func:`~cappaper.mlp` with ReLU or capped ReLU, any sequence of ``nn.Flatten``,
            ``nn.Linear``, ``nn.ReLU`` and :class:`~cappaper.CappedReLU` in that order, or a
            :class:`~cappaper.Population` of them.
        x, y, eps, method: as :func:`certify`.

    Returns:
        A number, or one number per member of a population.

    Raises:
        TypeError, ValueError: as :func:`certify`.

    >>> from cappaper import certified_accuracy, load, mlp
    >>> certified_accuracy(mlp(64, [32], beta=0.1), *load("digits", "test"), eps=1.0)
    0.0
    """
    checks.module(model)
    shares = [certify(m, x, y, eps, method).double().mean().item() for m in members(model)]
    return shares if isinstance(model, Population) else shares[0]


def certify(model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str = "crown") -> Tensor:
    """Which examples provably keep their class everywhere in the L∞ ball and the image range.

    The bounds are computed in float64, for a radius of ``eps`` + 1e-6. They must exceed the largest
    rounding error of a forward pass in the model's own precision (the standard bound on inner
    products, γₙ = nu / (1 - nu), passed through the layers). So a certificate holds for the network
    that is attacked, not only in exact arithmetic.

    Source: interval bounds, Gowal et al., arXiv 1810.12715; CROWN, Zhang et al.,
    arXiv 1811.00866. CROWN's bounds are intersected with the interval bounds, so it certifies
    whatever these do.

    Args:
        model: as :func:`certified_accuracy`, but one network.
        x: images ``[B, ...]`` in [0, 1].
        y: int64 labels ``[B]``.
        eps: L∞ radius, at least 0, in units of the pixels' range.
        method: ``"ibp"`` or ``"crown"``.

    Returns:
        Booleans ``[B]``.

    Raises:
        TypeError: the model has a layer that these bounds do not know.
        ValueError: as :func:`~cappaper.pgd`; or an unknown method, hooks, or weights that are not
            finite.

    >>> from cappaper import load, mlp
    >>> certify(mlp(64, [32]), *load("digits", "test", limit=3), eps=0.0).shape
    torch.Size([3])
    """
    checks.attack(x, y, eps)
    checks.module(model)
    checks.one_of(method, METHODS, "method")
    network, certified = read_layers(model), []
    for images, labels in zip(torch.split(x, _BATCH), torch.split(y, _BATCH), strict=True):
        is_correct(model, images, labels)  # for its checks of the model and the labels
        box = box_around(network, images, eps)
        *hidden, logits = layer_bounds(network, box, method)
        inside = _capped(hidden[-1], network.caps[-1]) if hidden else box
        # The true class's logit minus each logit, as a last layer for each example.
        classes = torch.eye(logits.lower.shape[1], dtype=torch.float64, device=x.device)
        rows = classes[labels].unsqueeze(1) - classes
        weight, bias = rows @ network.weights[-1], rows @ network.biases[-1]
        lead = _affine(weight, bias, inside).lower
        if method == "crown":
            lead = lead.maximum(_lower(weight, bias, network, hidden, box))
        error = rounding_error(network, hidden, box, torch.finfo(x.dtype))
        true = labels.unsqueeze(1)
        ahead = lead > error + error.gather(1, true)
        certified.append(ahead.scatter(1, true, True).all(1))
    return torch.cat(certified)


def bounds(model: nn.Module, x: Tensor, eps: float, method: str = "crown") -> list[Interval]:
    """Bounds on every layer's pre-activations, and in the end the logits, over the ball.

    They hold for exact arithmetic; rounding may take a forward pass in float32 across them.

    Args:
        model, x, eps, method: as :func:`certify`.

    Returns:
        One interval of float64 tensors ``[B, units]`` per linear layer.

    Raises:
        TypeError, ValueError: as :func:`certify`.

    >>> from cappaper import load, mlp
    >>> net, (x, _) = mlp(64, [32]), load("digits", "test", limit=3)
    >>> lower, upper = bounds(net, x, eps=0.1)[-1]
    >>> bool((lower <= net(x)).all() and (net(x) <= upper).all())
    True
    """
    checks.eps(eps)
    checks.one_of(method, METHODS, "method")
    network = read_layers(model)
    return layer_bounds(network, box_around(network, x, eps), method)


def read_layers(model: nn.Module) -> Layers:
    """The weights, biases and caps of a fully connected network, in float64.

    Raises:
        TypeError: the model is not linear layers with ReLU or capped ReLU between them, or one of
            them is a subclass, which may compute anything.
        ValueError: hooks, a ``forward`` of its own, or weights that are not finite.
    """
    # Iteration lists a shared layer as often as it is called; ``children`` lists it once.
    layers = list(model if isinstance(model, nn.Sequential) else model.children())
    letters = {nn.Flatten: "F", nn.Linear: "L", nn.ReLU: "R", CappedReLU: "R"}
    kinds = "".join(letters.get(type(m), "?") for m in layers)
    if type(model) is not nn.Sequential or not re.fullmatch("F*L(RL)*", kinds):
        raise TypeError(
            "certificates need an nn.Sequential of Linear layers with ReLU or CappedReLU between"
            f" them, themselves and no subclasses, got {type(model).__name__} of"
            f" {', '.join(type(m).__name__ for m in layers) or 'nothing'}"
        )
    checks.no_hooks(model, "a model with certificates")
    if not all(p.isfinite().all() for p in model.parameters()):
        raise ValueError("certificates need finite weights: some are NaN or infinite")
    weights, biases, caps = [], [], []
    for m in layers:
        if isinstance(m, nn.Linear):
            weights.append(m.weight.detach().double())
            no_bias = weights[-1].new_zeros(m.out_features)
            biases.append(no_bias if m.bias is None else m.bias.detach().double())
        elif not isinstance(m, nn.Flatten):
            beta = m.beta if isinstance(m, CappedReLU) else torch.tensor(math.inf)
            caps.append(beta.detach().to(weights[-1]))
    return Layers(weights, biases, caps)


def box_around(network: Layers, x: Tensor, eps: float) -> Interval:
    """The pixels ``[B, pixels]`` of all images in the ball, which is enlarged by the slack."""
    pixels = x.detach().flatten(1).double()
    if pixels.shape[1] != network.weights[0].shape[1]:
        raise ValueError(
            f"the first layer takes {network.weights[0].shape[1]} pixels, and images of shape"
            f" {list(x.shape)} have {pixels.shape[1]}"
        )
    radius = eps + SLACK
    return Interval((pixels - radius).clamp(min=0), (pixels + radius).clamp(max=1))


def layer_bounds(network: Layers, box: Interval, method: str) -> list[Interval]:
    """:func:`bounds` on a box of pixels."""
    layers: list[Interval] = []
    inside = box
    for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        if i:
            inside = _capped(layers[-1], network.caps[i - 1])
        lower, upper = _affine(weight, bias, inside)
        if method == "crown" and layers:
            lower = lower.maximum(_lower(weight, bias, network, layers, box))
            upper = upper.minimum(-_lower(-weight, -bias, network, layers, box))
        layers.append(Interval(lower, upper))
    return layers


def _capped(z: Interval, cap: Tensor) -> Interval:
    return Interval(*(end.clamp(min=0).clamp(max=cap) for end in z))


def _affine(weight: Tensor, bias: Tensor, inside: Interval) -> Interval:
    """Interval arithmetic; ``weight`` is ``[out, in]``, or each example's own ``[B, out, in]``."""
    middle, radius = (inside.lower + inside.upper) / 2, (inside.upper - inside.lower) / 2
    centre, reach = _apply(weight, middle) + bias, _apply(weight.abs(), radius)
    return Interval(centre - reach, centre + reach)


def _apply(weight: Tensor, x: Tensor) -> Tensor:
    return (weight @ x.unsqueeze(-1)).squeeze(-1)


def _lower(
    weight: Tensor, bias: Tensor, network: Layers, hidden: list[Interval], box: Interval
) -> Tensor:
    """CROWN's lower bound on the layer that follows these hidden ones.

    The layer is linear in the outputs before it. Each output lies between two lines in its
    pre-activation, which is linear in the outputs of the layer before, and so on to the pixels.
    """
    for i in reversed(range(len(hidden))):
        (low_slope, low_offset), (high_slope, high_offset) = _lines(hidden[i], network.caps[i])
        plus, minus = weight.clamp(min=0), weight.clamp(max=0)
        weight = plus * low_slope.unsqueeze(1) + minus * high_slope.unsqueeze(1)
        bias = bias + _apply(plus, low_offset) + _apply(minus, high_offset)
        bias = bias + weight @ network.biases[i]
        weight = weight @ network.weights[i]
    return bias + _apply(weight.clamp(min=0), box.lower) + _apply(weight.clamp(max=0), box.upper)


def _lines(z: Interval, cap: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Slope and offset of a line below the capped ReLU on an interval, and of one above.

    Each is either level, or passes through an end and a corner (or the other end) of the graph,
    whichever is tighter.
    """
    (low, high), (out_low, out_high) = z, _capped(z, cap)
    level = torch.zeros_like(low)
    corner = high.minimum(cap)
    rise = _ratio(corner.clamp(min=0) - out_low, corner - low)
    rise = torch.where(out_low + rise * (high - low) / 2 < out_high, rise, level)
    above = rise, torch.where(rise > 0, out_low - rise * low, out_high)
    corner = low.clamp(min=0)
    rise = _ratio(out_high - corner.minimum(cap), high - corner)
    rise = torch.where(out_high - rise * (high - low) / 2 > out_low, rise, level)
    return (rise, torch.where(rise > 0, out_high - rise * high, out_low)), above


def _ratio(rise: Tensor, run: Tensor) -> Tensor:
    return torch.where(run > 0, rise / run.clamp(min=torch.finfo(run.dtype).tiny), 0.0)


def rounding_error(
    network: Layers, hidden: list[Interval], box: Interval, numbers: torch.finfo
) -> Tensor:
    """The largest error of the logits ``[B, classes]`` of a forward pass in such numbers."""
    size, error, unit = box.upper, torch.zeros_like(box.upper), numbers.eps / 2
    for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        if i:
            size = _capped(hidden[i - 1], network.caps[i - 1]).upper
        terms = weight.shape[1] + 1
        gamma = terms * unit / (1 - terms * unit) if terms * unit < 1 else math.inf
        most = _apply(weight.abs(), size + error) + bias.abs()
        new = gamma * most + terms * numbers.tiny  # underflow is an error, too
        error = _apply(weight.abs(), error) + new
        error = torch.where(most + new < numbers.max, error, math.inf)  # else it may overflow
    return 2 * error  # twice, for the far smaller rounding of these bounds in float64
