"""Bad input gets one sentence: what was wrong, and what is allowed."""

from __future__ import annotations

import math
import numbers

import torch
from torch import Tensor, nn


def check_batch(x: Tensor, y: Tensor) -> None:
    """Refuse anything but float images in [0, 1] with one int64 label each.

    The labels' shape ([B], or [M, B] for a population) says which dimensions are batch.
    """
    for value, what in ((x, "images"), (y, "labels")):
        if not isinstance(value, Tensor):
            raise TypeError(f"{what} must be a tensor, got {type(value).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"images must be floating point in [0, 1], got {x.dtype}")
    if y.dtype != torch.int64:
        raise TypeError(f"labels must be int64 class indices, got {y.dtype}")
    if y.ndim not in (1, 2) or x.ndim <= y.ndim or x.shape[: y.ndim] != y.shape:
        raise ValueError(
            "expected images [B, ...] with labels [B], or [M, B, ...] with [M, B] for a population;"
            f" got {list(x.shape)} and {list(y.shape)}"
        )
    if not x.numel():
        raise ValueError("the batch is empty: expected at least one image")
    low, high = torch.aminmax(x.detach())
    if not (low >= 0 and high <= 1):  # NaN fails too
        raise ValueError(f"images must lie in [0, 1], got values from {low:.3g} to {high:.3g}")


def logits_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The model's logits for images, checked against their labels."""
    if not callable(model):
        raise TypeError(f"the model must be callable, got {type(model).__name__}")
    try:
        logits: Tensor = model(x)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"the model fails on images of shape {list(x.shape)}: {reason}") from error
    check_logits(logits, y)
    return logits


def check_logits(logits: Tensor, y: Tensor) -> None:
    """Refuse logits that do not fit the labels, and labels that are no class of the model."""
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"the model must return a tensor of logits, got {type(logits).__name__}: wrap it in a"
            " module that returns the logits alone"
        )
    if logits.ndim != y.ndim + 1 or logits.shape[:-1] != y.shape:
        raise ValueError(
            f"labels of shape {list(y.shape)} need logits of shape {[*y.shape, 'classes']},"
            f" the model gave {list(logits.shape)}"
            f"{'; a population needs [M, B]' if logits.ndim == y.ndim + 2 else ''}"
        )
    if logits.shape[-1] < 2:
        raise ValueError("the model has one class: a classifier needs at least 2")
    if logits.isnan().any():
        raise ValueError("the model's logits are NaN: its weights or its input are not finite")
    low, high = torch.aminmax(y)
    if low < 0 or high >= logits.shape[-1]:
        raise ValueError(
            f"labels must lie in 0 to {logits.shape[-1] - 1},"
            f" got values from {low.item()} to {high.item()}"
        )


def check_eps(eps: float) -> None:
    """Refuse a negative, infinite or undefined attack radius."""
    check_number(eps, "ε")
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"ε must be a finite number of at least 0, got {eps}")


def check_count(value: int, what: str) -> None:
    """Refuse a count below 1, and what is no whole number."""
    check_whole(value, what)
    if value < 1:
        raise ValueError(f"{what} must be at least 1, got {value}")


def check_whole(value: int, what: str) -> None:
    """Refuse what is no whole number: a seed may be any."""
    if not isinstance(value, numbers.Integral):
        raise TypeError(f"{what} must be a whole number, got {value!r}")


def check_number(value: float, what: str) -> None:
    """Refuse what is no real number."""
    if not isinstance(value, (numbers.Real, Tensor)):
        raise TypeError(f"{what} must be a number, got {value!r}")


def one_of(value: str, allowed: tuple[str, ...], what: str) -> None:
    """Refuse a name that is not on the list."""
    if value not in allowed:
        raise ValueError(f"unknown {what} {value!r}: use one of {', '.join(allowed)}")
