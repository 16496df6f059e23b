"""What a right answer of each public function looks like."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

import cappaper
from tests.trust.nonsense import images


def adversarial(given: dict[str, Any], result: Any) -> bool:
    """Images of the same shape, in [0, 1], finite, in the ball where the norm is L∞."""
    x = given["x"]
    if result.shape[-x.ndim :] != x.shape or result.dtype != x.dtype:
        return False
    moved = (result.double() - x.double()).abs().amax()
    near = given.get("norm", "linf") != "linf" or moved <= float(given.get("eps", 1)) + 1e-2
    return bool((result >= 0).all() and (result <= 1).all() and near)


def shares(*values: float) -> bool:
    return all(0 <= value <= 1 for value in values)


def flat(value: Any) -> list[float]:
    return list(value) if isinstance(value, list) else [value]


def rates(given: dict[str, Any], result: Any) -> bool:
    found = [flat(result.standard_accuracy), flat(result.robust_accuracy)]
    return shares(*found[0], *found[1]) and all(a >= b for a, b in zip(*found, strict=True))


def verdicts(given: dict[str, Any], result: Any) -> bool:
    return result.dtype == torch.bool and result.shape[-1] == len(given["x"])


def network(given: dict[str, Any], result: Any) -> bool:
    """A network of finite weights that classifies."""
    with torch.no_grad():
        x = torch.rand(2, given.get("in_channels", 1), 8, 8)
        return all(p.isfinite().all() for p in result.parameters()) and result(x).ndim >= 2


def masking(given: dict[str, Any], result: Any) -> bool:
    return shares(result.standard, result.zero_gradient, result.adaptive) and bool(str(result))


def surrogate(model: nn.Module, sharpness: float | None) -> torch.Tensor:
    with cappaper.surrogate_gradient(model, sharpness) as wrapped:
        x = images().requires_grad_()
        with contextlib.suppress(Exception):  # what the model gives is its own affair
            return torch.autograd.grad(wrapped(x).sum(), x)[0]
    return torch.zeros_like(x)
