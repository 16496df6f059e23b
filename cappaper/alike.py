"""In what two modules differ, but for the numbers in their parameters and buffers."""

from __future__ import annotations

import weakref
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_OWN = frozenset(vars(nn.Module()))  # what every module has: parameters, children, hooks, mode


def difference(one: nn.Module, other: nn.Module) -> str | None:
    """The first difference in words, or None: parts, modes, shapes, dtypes, or a setting.

    A setting is whatever a part keeps beside its parameters, buffers and parts, compared by value.
    """
    return _Comparison().modules(one, other)


class _Comparison:
    def __init__(self) -> None:
        # By id, beside the two themselves, so that no others can come to have these ids.
        self._seen: dict[tuple[int, int], tuple[Any, Any]] = {}
        self._registered: set[int] = set()

    def modules(self, one: nn.Module, other: nn.Module) -> str | None:
        parts, others = dict(one.named_modules()), dict(other.named_modules())
        if list(parts) != list(others):
            return "their parts or the order of these"
        if _names(one) != _names(other):
            return "which of their weights are shared"
        self._registered |= {id(tensor) for tensor in (*one.parameters(), *one.buffers())}
        pairs = [(name, part, others[name]) for name, part in parts.items()]
        for _, part, its in pairs:
            self._seen[id(part), id(its)] = part, its
        for name, part, its in pairs:
            where = f"{type(part).__name__}{f' at {name!r}' if name else ''}"
            if type(part) is not type(its):
                return f"the type of {where}"
            if part.training != its.training:
                return f"the mode, train or eval, of {where}"
            if _tensors(part) != _tensors(its):
                return f"the shapes, dtypes, devices or frozen weights of {where}"
            mine, yours = _settings(part), _settings(its)
            for attribute in [*mine, *(yours.keys() - mine.keys())]:
                if not self.same(mine.get(attribute, self), yours.get(attribute, self)):
                    return f"{attribute!r} of {where}"
        return None

    def same(self, one: Any, other: Any) -> bool:
        """Equal by value, as far as one can look; what cannot be compared differs."""
        if one is other or (id(one), id(other)) in self._seen:
            return True
        if type(one) is not type(other):
            return False
        self._seen[id(one), id(other)] = one, other
        match one:
            case weakref.ref():
                return True
            case Tensor():  # a layer's list of its own weights is none
                return id(one) in self._registered or _equal(one, other)
            case np.ndarray():
                return one.dtype == other.dtype and np.array_equal(one, other)
            case nn.Module():
                return self.modules(one, other) is None
            case dict():
                return one.keys() == other.keys() and all(self.same(one[k], other[k]) for k in one)
            case list() | tuple():
                both = zip(one, other, strict=False)
                return len(one) == len(other) and all(self.same(a, b) for a, b in both)
            case partial():
                return self.same(*([p.func, p.args, p.keywords] for p in (one, other)))
            case MethodType():
                return self.same(*([m.__func__, m.__self__] for m in (one, other)))
            case FunctionType():  # made anew for each model, as a lambda is
                return one.__code__ is other.__code__ and self.same(*map(carried, (one, other)))
        try:
            if bool(one == other):
                return True
        except Exception:
            return False
        plain = not any(
            {"__eq__", "__slots__"} & vars(kind).keys() for kind in type(one).__mro__[:-1]
        )
        return plain and hasattr(one, "__dict__") and self.same(vars(one), vars(other))


def _names(module: nn.Module) -> list[str]:
    """Of its parameters and buffers, a shared one under its first name alone."""
    return [name for name, _ in (*module.named_parameters(), *module.named_buffers())]


def _tensors(part: nn.Module) -> list[tuple[Any, ...]]:
    """What is said of a part's own parameters and buffers, but for their numbers."""
    named = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
    return [(name, v.shape, v.dtype, v.device, v.requires_grad) for name, v in named]


def _settings(part: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(part).items() if name not in _OWN}


def carried(function: FunctionType) -> list[Any]:
    """What a function brings along beside its code."""
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # nothing is in it yet
            cells.append(None)
    return [function.__defaults__, function.__kwdefaults__, cells]


def _equal(one: Tensor, other: Tensor) -> bool:
    mine, its = ((t.shape, t.dtype, t.device, t.layout) for t in (one, other))
    return mine == its and one.layout == torch.strided and torch.equal(one, other)
