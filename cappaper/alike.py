"""Whether two modules are the same but for the numbers in their parameters and buffers."""

from __future__ import annotations

import weakref
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

_OWN = frozenset(vars(nn.Module()))  # what every module has: parameters, children, hooks, mode


# By id, beside the two themselves, so that no others can come to have these ids.
_Seen = dict[tuple[int, int], tuple[Any, Any]]


def alike(one: nn.Module, other: nn.Module) -> bool:
    """Same parts under the same names, same shapes and dtypes, and same settings in every part."""
    return _modules(one, other, {})


def _modules(one: nn.Module, other: nn.Module, seen: _Seen) -> bool:
    parts, others = dict(one.named_modules()), dict(other.named_modules())
    if parts.keys() != others.keys() or _tensors(one) != _tensors(other):
        return False
    return all(
        type(part) is type(others[name]) and _same(_settings(part), _settings(others[name]), seen)
        for name, part in parts.items()
    )


def _tensors(module: nn.Module) -> list[tuple[Any, ...]]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return [(name, v.shape, v.dtype, v.device, v.requires_grad) for name, v in named]


def _settings(part: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name not in _OWN}


def _same(one: Any, other: Any, seen: _Seen) -> bool:
    """Equal by value, as far as one can look; what cannot be compared differs."""
    if one is other or (id(one), id(other)) in seen:
        return True
    if type(one) is not type(other):
        return False
    seen[id(one), id(other)] = one, other
    match one:
        case nn.Parameter() | weakref.ref():  # a layer's list of its own weights
            return True
        case Tensor():
            same = one.shape == other.shape and one.device == other.device
            return same and torch.equal(one, other)
        case nn.Module():
            return _modules(one, other, seen)
        case dict():
            return one.keys() == other.keys() and all(_same(one[k], other[k], seen) for k in one)
        case list() | tuple():
            return len(one) == len(other) and all(
                _same(a, b, seen) for a, b in zip(one, other, strict=True)
            )
        case partial():
            return _same(one.__reduce__()[2], other.__reduce__()[2], seen)
        case FunctionType():  # made anew for each model, as a lambda is
            cells = [[c.cell_contents for c in f.__closure__ or ()] for f in (one, other)]
            return one.__code__ is other.__code__ and _same(
                [one.__defaults__, cells[0]], [other.__defaults__, cells[1]], seen
            )
    try:
        if bool(one == other):
            return True
    except Exception:
        return False
    return hasattr(one, "__dict__") and _same(vars(one), vars(other), seen)
