"""The bounded activations that this package knows: where each is flat, and how to add yours."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper.activations import cap


class Bounded(NamedTuple):
    """One call of a bounded activation: it has a slope between two bounds of ``z``, 0 outside.

    ``z``: pre-activations, any shape. ``lower``, ``upper``: numbers, or tensors that broadcast
    against ``z``. For a sigmoid both bounds are 0, and ``slope / 4`` is its slope there.
    """

    z: Tensor
    lower: float | Tensor = -math.inf
    upper: float | Tensor = math.inf
    slope: float = 1.0


Reader = Callable[..., Bounded | None]


def register_bounded(activation: Callable[..., Any] | type[nn.Module], read: Reader) -> None:
    """Make a bounded activation of yours known to :func:`~cappaper.surrogate_gradient`.

    Args:
        activation: a class of modules, with its subclasses; or one of torch's functions (others
            raise a ValueError), as the model calls it: ``torch.sign`` and ``Tensor.sign`` are two.
        read: takes what the function takes, or the module and its input, and returns where it is
            flat; None leaves this call alone.

    >>> class Step(nn.Module):
    ...     def forward(self, z):
    ...         return z.sign().clamp(min=0)
    >>> register_bounded(Step, lambda module, z: Bounded(z, 0.0, 0.0))
    """
    functions = torch.overrides.get_testing_overrides()
    if not isinstance(activation, type) and activation not in functions:
        name = getattr(activation, "__name__", activation)
        raise ValueError(f"{name!r} is none of torch's functions: register the module's class")
    _READERS[activation] = read


def reader_of(called: Any) -> Reader | None:
    """The reader of a torch function, or of a module's class or the nearest class above it."""
    if isinstance(called, nn.Module):
        return next((_READERS[kind] for kind in type(called).__mro__ if kind in _READERS), None)
    return _READERS.get(called)


def _hardtanh(input: Tensor, min_val: Any = -1, max_val: Any = 1, *_: Any, **__: Any) -> Bounded:
    return Bounded(input, min_val, max_val)


def _clamp(input: Tensor, min: Any = None, max: Any = None, **_: Any) -> Bounded:
    return Bounded(input, -math.inf if min is None else min, math.inf if max is None else max)


def _pair(is_cap: bool, input: Any, other: Any = None, *_: Any, **__: Any) -> Bounded | None:
    """A minimum or maximum with a bound: with fewer entries, or a parameter or constant."""
    if not (isinstance(input, Tensor) and isinstance(other, Tensor)):
        return None
    one, two = (
        (t.ndim, t.numel(), t.requires_grad and not isinstance(t, nn.Parameter))
        for t in (input, other)
    )
    z, bound = (input, other) if one > two else (other, input)
    call = Bounded(z, upper=bound) if is_cap else Bounded(z, lower=bound)
    return None if one == two else call


_READERS: dict[Any, Reader] = {cap: lambda z, beta: Bounded(z, 0.0, beta)}
for _names, _read in (
    ("relu relu_", lambda input, *_, **__: Bounded(input, 0.0)),
    ("relu6", lambda input, *_, **__: Bounded(input, 0.0, 6.0)),
    ("hardtanh hardtanh_", _hardtanh),
    ("hardsigmoid", lambda input, *_, **__: Bounded(input, -3.0, 3.0, 1 / 6)),
    ("sigmoid sigmoid_ expit", lambda input, *_, **__: Bounded(input, 0.0, 0.0)),
    ("tanh tanh_", lambda input, *_, **__: Bounded(input, 0.0, 0.0, 4.0)),
    ("clamp clamp_ clip clip_", _clamp),
    ("clamp_max clamp_max_", lambda input, max: Bounded(input, upper=max)),
    ("clamp_min clamp_min_", lambda input, min: Bounded(input, lower=min)),
    ("minimum min", partial(_pair, True)),
    ("maximum max", partial(_pair, False)),
):
    for _name in _names.split():
        for _place in (F, torch, Tensor, torch.special):
            if hasattr(_place, _name):
                _READERS[getattr(_place, _name)] = _read
