"""Networks like the paper's, and the same network under another cap."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from cappaper import checks
from cappaper.activations import Activation, CappedReLU, per_layer


def mlp(
    in_features: int,
    hidden: Sequence[int],
    *,
    num_classes: int = 10,
    beta: float | Sequence[float] = math.inf,
    seed: int = 0,
    activation: Activation = CappedReLU,
) -> nn.Sequential:
    """A fully connected classifier with capped hidden layers.

    Args:
        in_features: pixels of an image (channels × height × width).
        hidden: units of each hidden layer, from the input on, for example ``[300, 100]``.
        num_classes: logits that it returns.
        beta: the max value of every hidden layer, or one per hidden layer; ``inf`` is ReLU.
        seed: of the initialisation (torch's default for ``nn.Linear``); it does not depend on
            ``beta``, and the global random state stays as it was.
        activation: made from each layer's ``beta``; :class:`~cappaper.activations.ScaledSigmoid`
            reads it as its constant ``c``.

    Returns:
        A module from images ``[B, 1, H, W]`` to logits ``[B, num_classes]``.

    Raises:
        TypeError: a width that is no whole number.
        ValueError: a width below 1, a ``beta`` not above 0, or one ``beta`` too many or too few.

    >>> mlp(784, [300, 100], beta=[0.1, math.inf])(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    hidden = checks.sequence(hidden, "hidden", "widths", empty=True)
    widths = [in_features, *hidden]
    for units in [*widths, num_classes]:
        checks.count(units, "every width of a network")
    layers: list[nn.Module] = [nn.Flatten()]
    with seeded(seed):
        for fan_in, units, constant in zip(
            widths, hidden, per_layer(beta, len(hidden)), strict=False
        ):
            layers += [nn.Linear(fan_in, units), _layer(activation, constant)]
        layers.append(nn.Linear(widths[-1], num_classes))
    return nn.Sequential(*layers)


def convnet(
    side: int,
    hidden: Sequence[int],
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    beta: float | Sequence[float] = math.inf,
    seed: int = 0,
    activation: Activation = CappedReLU,
) -> nn.Sequential:
    """A convolutional classifier with capped hidden layers: convolutions, then one dense layer.

    Every convolution is 5×5 with stride 2, so that it halves the side and nothing needs pooling.

    Args:
        side: height and width of an image.
        hidden: filters of each convolution, from the input on, then units of the dense layer, for
            example ``[8, 16, 100]``.
        in_channels: 1 for grey images.
        num_classes, beta, seed, activation: as :func:`mlp`.

    Returns:
        A module from images ``[B, in_channels, side, side]`` to logits ``[B, num_classes]``.

    Raises:
        ValueError: as :func:`mlp`; or there is no convolution in ``hidden``.

    >>> convnet(28, [8, 16, 100], beta=0.5)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    hidden = checks.sequence(hidden, "hidden", "widths")
    for count in (side, in_channels, num_classes, *hidden):
        checks.count(count, "every width of a network")
    if len(hidden) < 2:
        raise ValueError(
            f"hidden must hold at least one convolution and the dense layer, got {[*hidden]}"
        )
    *caps, dense_cap = per_layer(beta, len(hidden))
    *filters, units = hidden
    layers: list[nn.Module] = []
    with seeded(seed):
        for before, after, cap in zip([in_channels, *filters], filters, caps, strict=False):
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2), _layer(activation, cap)]
            side = math.ceil(side / 2)
        layers += [
            nn.Flatten(),
            nn.Linear(filters[-1] * side**2, units),
            _layer(activation, dense_cap),
        ]
        layers.append(nn.Linear(units, num_classes))
    return nn.Sequential(*layers)


def rescale(model: nn.Sequential, beta: float | Sequence[float]) -> nn.Sequential:
    """Copy a network with other max values and the same logits.

    A cap is only a scale: ``a(z, β) = (β/β') · a((β'/β) · z, β')``. So a layer's weights and bias
    are multiplied by β'/β, and the next layer's weights divided by it.

    Args:
        model: as :func:`mlp` or :func:`convnet` give it, with :class:`CappedReLU` layers.
        beta: the new max value of every capped layer, or one per layer. A ReLU layer (β = ∞) has
            no cap to move, so its new one must be ``inf``.

    Raises:
        TypeError: the model is not a sequence of linear, convolutional, capped and flatten layers.
        ValueError: weights and caps do not take turns, or one layer's weights serve in two places;
            a finite cap for a ReLU layer or the reverse; or one cap too many or too few.

    >>> net = mlp(64, [32, 16], beta=1.0)
    >>> x = torch.rand(5, 1, 8, 8)
    >>> torch.allclose(net(x), rescale(net, 0.05)(x), atol=1e-5)
    True
    """
    checks.module(model)
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"rescale takes an nn.Sequential, got {type(model).__name__}")
    known = (nn.Flatten, nn.Linear, nn.Conv2d, CappedReLU)
    for module in model:
        if not isinstance(module, known):
            names = ", ".join(kind.__name__ for kind in known)
            raise TypeError(f"rescale knows {names} in sequence, not {type(module).__name__}")
    order = [isinstance(m, CappedReLU) for m in model if not isinstance(m, nn.Flatten)]
    if len(order) % 2 == 0 or order != [bool(i % 2) for i in range(len(order))]:
        raise ValueError("rescale needs weights and caps in turn, and weights at either end")
    model = copy.deepcopy(model)
    caps = [module for module in model if isinstance(module, CappedReLU)]
    news, factors = per_layer(beta, len(caps)), []
    for old, new in zip([cap.beta.item() for cap in caps], news, strict=True):
        if math.isinf(old) != math.isinf(new):
            raise ValueError(f"a cap at {old:g} cannot be rescaled to {new:g}: both finite, or ∞")
        factors.append(1.0 if math.isinf(old) else new / old)
    weighted = [module for module in model if isinstance(module, (nn.Linear, nn.Conv2d))]
    # A cap may be in several places, with one new value; weights would be scaled once for each.
    if len(set(weighted)) < len(weighted) or len(set(caps)) < len({*zip(caps, news, strict=True)}):
        raise ValueError("rescale needs weights of its own for every layer, and one β for a cap")
    with torch.no_grad():
        for cap, new in zip(caps, news, strict=True):
            cap.beta.copy_(CappedReLU(new).beta)
        for module, before, after in zip(weighted, [1.0, *factors], [*factors, 1.0], strict=True):
            module.weight.mul_(after / before)
            if module.bias is not None:
                module.bias.mul_(after)
    return model


def _layer(activation: Activation, constant: float) -> nn.Module:
    checks.function(activation, "the activation")
    layer = activation(constant)
    checks.module(layer, "what the activation returns")
    return layer


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` inside the block; the global random state is restored after it."""
    checks.whole(seed, "the seed")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(seed))  # torch.manual_seed would reseed a GPU's too
        yield
