"""The activation of the paper, its smooth relatives, and how to put it into any model."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cappaper import checks

Activation = Callable[[float], nn.Module]
"""Makes a hidden layer's activation from the layer's constant (β, or c)."""


def capped_relu(z: Tensor, beta: float | Tensor) -> Tensor:
    """Capped ReLU, ``a(z, β) = max(0, min(z, β))``.

    Source: Sooksatra, Hamerly and Rivas, arXiv 2405.03777, the activation that the paper proposes.

    Args:
        z: pre-activations, any shape.
        beta: the max value, above 0; ``inf`` gives ReLU. A tensor must broadcast against ``z``.

    Returns:
        A tensor shaped like ``z`` with values in [0, β]. Its derivative is 1 on (0, β] and 0
        elsewhere, so ``beta=inf`` has exactly ReLU's gradient.

    Raises:
        ValueError: a number ``beta`` that is 0, negative or NaN.

    >>> capped_relu(torch.tensor([-1.0, 0.5, 3.0]), 1.0)
    tensor([0.0000, 0.5000, 1.0000])
    """
    checks.tensor(z, "z")
    if not isinstance(beta, Tensor):
        _positive(beta, "the max value β")
    return torch.relu(z).clamp(max=beta)


class CappedReLU(nn.Module):
    """:func:`capped_relu` as a layer.

    ``beta`` is a buffer: it moves with the model, is saved with it, and stacks by itself in a
    :class:`~cappaper.population.Population`.

    Args:
        beta: the max value, above 0; the default ``inf`` makes the layer a ReLU.
        learned: make ``beta`` a parameter, which training moves: the clipping that Choi et al.,
            arXiv 1805.06085, section 3, train for quantisation.

    Raises:
        ValueError: ``beta`` is 0, negative or NaN; or infinite and learned.

    >>> CappedReLU(0.1)(torch.tensor([-1.0, 0.05, 3.0]))
    tensor([0.0000, 0.0500, 0.1000])
    """

    beta: Tensor

    def __init__(self, beta: float = math.inf, *, learned: bool = False) -> None:
        super().__init__()
        value = torch.tensor(_positive(beta, "the max value β"))
        if learned and value.isinf():
            raise ValueError("a learned max value β must start finite")
        if learned:
            self.beta = nn.Parameter(value)
        else:
            self.register_buffer("beta", value)

    def forward(self, z: Tensor) -> Tensor:
        return capped_relu(z, self.beta)

    def extra_repr(self) -> str:
        return f"beta={self.beta.item():g}"


class ScaledSigmoid(nn.Module):
    """Sigmoid with a slope constant, ``σ(c·z) = 1 / (1 + exp(-c·z))``.

    Source: the family in the caption of Figure 3 of arXiv 2405.03777, as this project reads it.

    Args:
        c: the constant, above 0; a large one comes close to a step, with slope c/4 at 0.

    Raises:
        ValueError: ``c`` is 0, negative, infinite or NaN.

    >>> ScaledSigmoid(4.0)(torch.tensor([0.0]))
    tensor([0.5000])
    """

    c: Tensor

    def __init__(self, c: float) -> None:
        super().__init__()
        if math.isinf(_positive(c, "the sigmoid constant c")):
            raise ValueError("the sigmoid constant c must be finite")
        self.register_buffer("c", torch.tensor(float(c)))

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.c * z)

    def extra_repr(self) -> str:
        return f"c={self.c.item():g}"


ACTIVATIONS = (
    nn.ReLU,
    CappedReLU,
    ScaledSigmoid,
    nn.Hardtanh,  # and ReLU6, which is one
    nn.Hardsigmoid,
    nn.Sigmoid,
    nn.Tanh,
)
"""The layers whose outputs this package calls a hidden layer's outputs."""


class LeftAloneWarning(UserWarning):
    """Activations of a model that :func:`replace_relu` did not cap."""


def replace_relu(
    model: nn.Module,
    beta: float | Sequence[float],
    layers: Sequence[int | str] | None = None,
) -> nn.Module:
    """Copy a model with its ReLUs capped; the original stays as it is.

    Works on any model whose ReLUs are modules (``nn.ReLU``, ``nn.ReLU6`` or :class:`CappedReLU`),
    such as torchvision's ResNets and MobileNets. It does not reach functions inside a ``forward``,
    such as ``torch.nn.functional.relu``: make them modules first.

    Args:
        model: any torch module.
        beta: one max value for all chosen layers, or one per chosen layer, in their order.
        layers: which ReLUs to cap, by position (0 is the first to be registered) or by name as in
            ``model.named_modules()``; all of them by default.

    Returns:
        A deep copy of ``model``: same weights, same training mode, capped activations.

    Warns:
        LeftAloneWarning: all ReLUs were to be capped, and a module is an activation of another
            kind.

    Raises:
        ValueError: there is no ReLU module, a layer does not exist, ``beta`` is not above 0, or
            there are not as many max values as layers.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU6())
    >>> replace_relu(net, 0.5, layers=[1])[3]
    CappedReLU(beta=0.5)
    """
    checks.module(model)
    model = copy.deepcopy(model)
    # A module may be registered twice (one ReLU used all over a network): keep every name it has.
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, (nn.ReLU, nn.ReLU6, CappedReLU)):
            names.setdefault(module, []).append(name)
    if not names:
        raise ValueError(
            "the model has no ReLU to cap: expected nn.ReLU, nn.ReLU6 or CappedReLU modules;"
            " functions inside a forward cannot be replaced"
        )
    chosen = list(names) if layers is None else _select(layers, names)
    device = next((weight.device for weight in model.parameters()), None)
    for relu, value in zip(chosen, per_layer(beta, len(chosen)), strict=True):
        capped = CappedReLU(value).train(relu.training).to(device)
        for name in names[relu]:
            if not name:
                return capped
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, capped)
    others = [
        f"{type(module).__name__} at {name!r}"
        for name, module in model.named_modules()
        if type(module).__module__ == "torch.nn.modules.activation"
        and not isinstance(module, (nn.ReLU, nn.ReLU6, nn.MultiheadAttention, nn.Softmax))
    ]
    if others and layers is None:
        message = f"replace_relu left alone: {'; '.join(others)}"
        warnings.warn(message, LeftAloneWarning, stacklevel=2)
    return model


def per_layer(value: float | Sequence[float], count: int, what: str = "max value") -> list[float]:
    """One number for all of ``count`` layers, or a sequence with one for each, as a list."""
    listed = checks.entries(value)
    values: tuple[Any, ...] = (value,) * count if listed is None else listed
    for one in values:
        checks.number(one, f"a {what}")
    if len(values) != count:
        raise ValueError(
            f"got {len(values)} {what}s for {count} layers: give one number or {count}"
        )
    return [float(one) for one in values]


def _select(layers: Sequence[int | str], names: dict[nn.Module, list[str]]) -> list[nn.Module]:
    """The modules at these positions or of these names."""
    layers = checks.sequence(layers, "layers", "positions or names")
    known: dict[int | str, nn.Module] = dict(enumerate(names))
    known |= {name: module for module, all_names in names.items() for name in all_names}
    for layer in layers:
        if not isinstance(layer, (int, str)) or layer not in known:
            first = ", ".join(repr(all_names[0]) for all_names in names.values())
            raise ValueError(
                f"there is no ReLU layer {checks.shown(layer)}:"
                f" use 0 to {len(names) - 1} or a name of {first}"
            )
    chosen = [known[layer] for layer in layers]
    if len(set(chosen)) < len(chosen):
        raise ValueError("a ReLU layer was named twice: name each layer once")
    return chosen


def _positive(value: float, what: str) -> float:
    checks.number(value, what)
    value = float(value)
    if not value > 0:
        raise ValueError(f"{what} must be above 0, got {value}")
    return value
