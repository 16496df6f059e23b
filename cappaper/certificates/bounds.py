"""Certificates: bounds on the logits over a whole ball, so that no attack can do better."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cappaper.activations import CappedReLU
from cappaper.attacks.common import is_correct
from cappaper.checks import check_batch, check_eps, check_module, one_of
from cappaper.population import Population, members

METHODS = ("ibp", "crown")

SLACK = 1e-6
"""Certificates hold for a ball this much larger: attacks in float32 may step over by rounding."""

_TOGETHER = 100  # examples that are bounded at once: CROWN keeps a matrix for each


class Interval(NamedTuple):
    """Two tensors shaped alike: everything between them is possible."""

    lower: Tensor
    upper: Tensor


class Layers(NamedTuple):
    """A fully connected network in float64; a cap (∞ for ReLU) behind every layer but the last."""

    weights: list[Tensor]
    biases: list[Tensor]
    caps: list[Tensor]


def certified_accuracy(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str = "crown"
) -> float | list[float]:
    """Share of examples that provably keep their class everywhere in the L∞ ball.

    Args:
        model: an :func:`~cappaper.mlp` with ReLU or capped ReLU, any sequence of ``nn.Flatten``,
            ``nn.Linear``, ``nn.ReLU`` and :class:`~cappaper.CappedReLU` in that manner, or a
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
    check_module(model)
    shares = [certify(m, x, y, eps, method).double().mean().item() for m in members(model)]
    return shares if isinstance(model, Population) else shares[0]


def certify(model: nn.Module, x: Tensor, y: Tensor, eps: float, method: str = "crown") -> Tensor:
    """Which examples provably keep their class everywhere in the L∞ ball and the image range.

    The bounds are computed in float64, for a radius of ``eps`` + 1e-6, and must exceed what the
    rounding of a forward pass in the model's own precision can amount to (the standard bound on
    inner products, γₙ = nu / (1 - nu), passed through the layers). So a certificate holds for the
    network that is attacked, not only for the one on paper.

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
        TypeError: the model has a layer that these bounds do not know, or a hook.
        ValueError: as :func:`~cappaper.pgd`; or an unknown method, or weights that are not finite.

    >>> from cappaper import load, mlp
    >>> certify(mlp(64, [32]), *load("digits", "test", limit=3), eps=0.0).shape
    torch.Size([3])
    """
    check_batch(x, y)
    check_eps(eps)
    check_module(model)
    one_of(method, METHODS, "method")
    network, found = read_layers(model), []
    for images, labels in zip(torch.split(x, _TOGETHER), torch.split(y, _TOGETHER), strict=True):
        is_correct(model, images, labels)  # whose checks these bounds need too
        box = _box(network, images, eps)
        *hidden, logits = _bounds(network, box, method)
        inside = _capped(hidden[-1], network.caps[-1]) if hidden else box
        # The true class's logit minus every one: a last layer of each example's own.
        classes = torch.eye(logits.lower.shape[1], dtype=torch.float64, device=x.device)
        rows = classes[labels].unsqueeze(1) - classes
        weight, bias = rows @ network.weights[-1], rows @ network.biases[-1]
        lead = _affine(weight, bias, inside).lower
        if method == "crown":
            lead = lead.maximum(_lower(weight, bias, network, hidden, box))
        error = _rounding(network, hidden, box, torch.finfo(x.dtype))
        own = labels.unsqueeze(1)
        stands = lead > error + error.gather(1, own)
        found.append(stands.scatter(1, own, True).all(1))
    return torch.cat(found)


def bounds(model: nn.Module, x: Tensor, eps: float, method: str = "crown") -> list[Interval]:
    """Bounds on every layer's pre-activations, and in the end the logits, over the ball.

    They hold for exact arithmetic; a forward pass in float32 may round across them.

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
    check_eps(eps)
    one_of(method, METHODS, "method")
    network = read_layers(model)
    return _bounds(network, _box(network, x, eps), method)


def read_layers(model: nn.Module) -> Layers:
    """The weights, biases and caps of a fully connected network, in float64.

    Raises:
        TypeError: the model is not linear layers with ReLU or capped ReLU between them, or does
            more than these do: subclasses, hooks, a ``forward`` of its own.
        ValueError: weights or biases that are not finite.
    """
    # Each as often as it is called: ``children`` names a shared layer once.
    layers = list(model if isinstance(model, nn.Sequential) else model.children())
    # Exact types: what a subclass does, its weights do not tell.
    parts = [m for m in layers if type(m) is not nn.Flatten]
    linear = [m for m in parts[::2] if type(m) is nn.Linear]
    between = [m for m in parts[1::2] if type(m) in (nn.ReLU, CappedReLU)]
    known = len(linear) + len(between) == len(parts) and len(linear) == len(between) + 1
    flat = [i for i, m in enumerate(layers) if type(m) is nn.Flatten]
    known = known and not any(type(m) is nn.Linear for i in flat for m in layers[:i])
    if not (type(model) is nn.Sequential and known):
        raise TypeError(
            "certificates need an nn.Sequential of Linear layers with ReLU or CappedReLU between"
            f" them, themselves and no subclasses, got {type(model).__name__} of"
            f" {', '.join(type(m).__name__ for m in layers) or 'nothing'}"
        )
    for name, part in model.named_modules():
        if part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part):
            raise TypeError(
                f"certificates see weights alone, and {name or 'the model'} has a hook or a"
                " forward of its own: remove it"
            )
    if not all(p.isfinite().all() for p in model.parameters()):
        raise ValueError("certificates need finite weights: some are NaN or infinite")
    weights = [m.weight.detach().double() for m in linear]
    none = torch.zeros((), dtype=torch.float64, device=weights[0].device)
    biases = [none.expand(len(m.weight)) if m.bias is None else m.bias.detach() for m in linear]
    caps = [m.beta.detach() if isinstance(m, CappedReLU) else none + torch.inf for m in between]
    return Layers(weights, [b.double() for b in biases], [c.double() for c in caps])


def _box(network: Layers, x: Tensor, eps: float) -> Interval:
    pixels = x.detach().flatten(1).double()
    if pixels.shape[1] != network.weights[0].shape[1]:
        raise ValueError(
            f"the first layer takes {network.weights[0].shape[1]} pixels, and images of shape"
            f" {list(x.shape)} have {pixels.shape[1]}"
        )
    radius = eps + SLACK
    return Interval((pixels - radius).clamp(min=0), (pixels + radius).clamp(max=1))


def _bounds(network: Layers, box: Interval, method: str) -> list[Interval]:
    found: list[Interval] = []
    inside = box
    for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        here = _affine(weight, bias, inside)
        if method == "crown" and found:
            lower = _lower(weight, bias, network, found, box)
            upper = -_lower(-weight, -bias, network, found, box)
            here = Interval(here.lower.maximum(lower), here.upper.minimum(upper))
        found.append(here)
        if i < len(network.caps):
            inside = _capped(here, network.caps[i])
    return found


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
    """CROWN's lower bound on a layer that comes behind these hidden ones.

    The layer is linear in the outputs before it; each of these lies between two lines in its
    pre-activation, which is linear in the outputs before. So down to the pixels.
    """
    depth = len(hidden)
    for i in reversed(range(depth)):
        below, above = _lines(hidden[i], network.caps[i])
        plus, minus = weight.clamp(min=0), weight.clamp(max=0)
        bias = bias + _apply(plus, below.offset) + _apply(minus, above.offset)
        weight = plus * below.slope.unsqueeze(1) + minus * above.slope.unsqueeze(1)
        bias = bias + weight @ network.biases[i]
        weight = weight @ network.weights[i]
    return bias + _apply(weight.clamp(min=0), box.lower) + _apply(weight.clamp(max=0), box.upper)


class _Line(NamedTuple):
    slope: Tensor
    offset: Tensor


def _lines(z: Interval, cap: Tensor) -> tuple[_Line, _Line]:
    """Lines below and above the capped ReLU between two pre-activations.

    Each is either level, or passes through an end and a corner (or the other end) of the graph:
    whichever leaves less room.
    """
    (low, high), (out_low, out_high) = z, _capped(z, cap)
    level = torch.zeros_like(low)
    corner = high.minimum(cap)
    rise = _ratio(corner.clamp(min=0) - out_low, corner - low)
    rise = torch.where(out_low + rise * (high - low) / 2 < out_high, rise, level)
    above = _Line(rise, torch.where(rise > 0, out_low - rise * low, out_high))
    corner = low.clamp(min=0)
    rise = _ratio(out_high - corner.minimum(cap), high - corner)
    rise = torch.where(out_high - rise * (high - low) / 2 > out_low, rise, level)
    below = _Line(rise, torch.where(rise > 0, out_high - rise * high, out_low))
    return below, above


def _ratio(rise: Tensor, run: Tensor) -> Tensor:
    return torch.where(run > 0, rise / run.clamp(min=torch.finfo(run.dtype).tiny), 0.0)


def _rounding(
    network: Layers, hidden: list[Interval], box: Interval, numbers: torch.finfo
) -> Tensor:
    """How far the logits of a forward pass in such numbers can be from the exact ones."""
    size, error, unit = box.upper, torch.zeros_like(box.upper), numbers.eps / 2
    for i, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        terms = weight.shape[1] + 1
        rest = 1 - terms * unit
        gamma = terms * unit / rest if rest > 0 else math.inf  # rounding may do anything
        most = _apply(weight.abs(), size + error) + bias.abs()
        own = gamma * most + terms * numbers.tiny  # what underflows is lost, too
        error = _apply(weight.abs(), error) + own
        error = torch.where(most + own < numbers.max, error, math.inf)  # else it may overflow
        if i < len(hidden):
            size = _capped(hidden[i], network.caps[i]).upper
    return 2 * error  # the bounds' own rounding, in float64, is far less than as much again
