"""The bounded activations that this package knows: where each is flat, and how to add yours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import get_testing_overrides

from cappaper import checks

Bound = float | Tensor


class Bounded(NamedTuple):
    """One call of a bounded activation: it rises between two bounds of ``z`` and is flat outside.

    ``z``: pre-activations, any shape. ``lower``, ``upper``: the bounds, in units of ``z``; tensors
    must broadcast against it. ``slope``: between the bounds. A sigmoid is flat everywhere but
    around 0: both bounds are 0, and ``slope / 4`` is its slope there.
    """

    z: Tensor
    lower: Bound = -math.inf
    upper: Bound = math.inf
    slope: float = 1.0


Reader = Callable[..., Bounded | None]


def register_bounded(activation: Callable[..., Any] | type[nn.Module], read: Reader) -> None:
    """Tell :func:`~cappaper.surrogate_gradient` about a bounded activation of yours.

    Args:
        activation: a function of torch, for example ``torch.nn.functional.softsign``, in the
            spelling that the model uses (``torch.sign`` and ``Tensor.sign`` are two); or a class of
            modules, and with it its subclasses. A function of your own, or a
            ``torch.autograd.Function``, is reached by the module that calls it.
        read: takes what the function takes, or the module and its input, and returns where it is
            flat; None leaves this call alone.

    >>> class Step(nn.Module):
    ...     def forward(self, z):
    ...         return z.sign().clamp(min=0)
    >>> register_bounded(Step, lambda module, z: Bounded(z, 0.0, 0.0))
    """
    checks.function(activation, "the activation")
    checks.function(read, "read")
    if not isinstance(activation, type) and activation not in get_testing_overrides():
        raise ValueError(
            f"{getattr(activation, '__name__', activation)!r} is none of torch's functions, and"
            " others are not seen: make it a module, and name the module's class"
        )
    _READERS[activation] = read


@contextmanager
def exact_gradient() -> Iterator[None]:
    """Inside the block, clamps and the like are no activations: their gradient stays as it is.

    For a ``forward`` that clips its input, or guards a division.

    >>> class Clipped(nn.Sequential):
    ...     def forward(self, x):
    ...         with exact_gradient():
    ...             x = x.clamp(0, 1)
    ...         return super().forward(x)
    """
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


def read_call(function: Callable[..., Any], args: Any, kwargs: Any) -> Bounded | None:
    """What the registry says of one call of a torch function; None if it is no activation."""
    read = None if _exact.get() else _READERS.get(function)
    return None if read is None else read(*args, **kwargs)


def reader_of(module: nn.Module) -> Reader | None:
    """What the registry has for a module's class, or for the nearest class above it."""
    return next((_READERS[kind] for kind in type(module).__mro__ if kind in _READERS), None)


_exact: ContextVar[bool] = ContextVar("exact", default=False)


def _fixed(lower: float, upper: float, slope: float = 1.0) -> Reader:
    """The reader of a function whose bounds never change."""
    return lambda input, *_, **__: Bounded(input, lower, upper, slope)


def _hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, *_: Any, **__: Any
) -> Bounded:
    return Bounded(input, min_val, max_val)


def _clamp(input: Tensor, min: Any = None, max: Any = None, **_: Any) -> Bounded:
    return Bounded(input, -math.inf if min is None else min, math.inf if max is None else max)


def _minimum(input: Tensor, other: Any = None, *_: Any, **__: Any) -> Bounded | None:
    both = _with_bound(input, other)
    return both and Bounded(both[0], upper=both[1])


def _maximum(input: Tensor, other: Any = None, *_: Any, **__: Any) -> Bounded | None:
    both = _with_bound(input, other)
    return both and Bounded(both[0], lower=both[1])


def _with_bound(one: Any, other: Any) -> tuple[Tensor, Tensor] | None:
    """Pre-activations and their bound, which has fewer entries or does not depend on the image."""
    if not (isinstance(one, Tensor) and isinstance(other, Tensor)):
        return None
    if one.numel() == other.numel() and one.ndim == other.ndim:
        given = [isinstance(t, nn.Parameter) or not t.requires_grad for t in (one, other)]
        return None if given[0] == given[1] else (other, one) if given[0] else (one, other)
    return (one, other) if (one.ndim, one.numel()) > (other.ndim, other.numel()) else (other, one)


_READERS: dict[Any, Reader] = {}
for _names, _read in (
    ("relu relu_", _fixed(0.0, math.inf)),
    ("relu6", _fixed(0.0, 6.0)),
    ("hardtanh hardtanh_", _hardtanh),
    ("hardsigmoid", _fixed(-3.0, 3.0, 1 / 6)),
    ("sigmoid sigmoid_ expit", _fixed(0.0, 0.0)),
    ("tanh tanh_", _fixed(0.0, 0.0, 4.0)),
    ("clamp clamp_ clip clip_", _clamp),
    ("clamp_max clamp_max_", lambda input, max: Bounded(input, upper=max)),
    ("clamp_min clamp_min_", lambda input, min: Bounded(input, lower=min)),
    ("minimum min", _minimum),
    ("maximum max", _maximum),
):
    for _name in _names.split():
        for _place in (F, torch, Tensor, torch.special):
            if hasattr(_place, _name):
                _READERS[getattr(_place, _name)] = _read
