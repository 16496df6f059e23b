"""Torch's Adam without ``torch.optim.Optimizer``, whose first use imports torch's compiler."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.adam import adam


class Adam:
    """Adam by torch's fused kernel, with torch's defaults and its format of a state.

    Importing the compiler takes a process most of a second, and a step is slower by what only
    other optimisers need.

    Source: Kingma and Ba, arXiv 1412.6980, algorithm 1.

    >>> weight = torch.ones(2, requires_grad=True)
    >>> weight.grad = torch.tensor([1.0, -1.0])
    >>> Adam([weight]).step(lr=0.1)
    >>> weight
    tensor([0.9000, 1.1000], requires_grad=True)
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self._weights = list(weights)
        self._state: dict[int, dict[str, Tensor]] = {}

    def forget(self) -> None:
        """No gradients from here on."""
        for weight in self._weights:
            weight.grad = None

    def step(self, lr: float) -> None:
        """Move every weight that has a gradient."""
        moving = [i for i, weight in enumerate(self._weights) if weight.grad is not None]
        for i in moving:
            if i not in self._state:
                self._state[i] = _fresh(self._weights[i])
        states = [self._state[i] for i in moving]
        with torch.no_grad():
            adam(
                [self._weights[i] for i in moving],
                [_laid_out_as(self._weights[i]) for i in moving],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=lr,
                weight_decay=0,
                eps=1e-8,
                maximize=False,
            )

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` takes."""
        return {"state": self._state}

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Go on from a state that was kept."""
        self._state = {
            i: {name: value.to(self._weights[i].device, copy=True) for name, value in state.items()}
            for i, state in kept["state"].items()
        }


def _laid_out_as(weight: Tensor) -> Tensor:
    """Its gradient, in its own order of memory: the kernel walks through both at once."""
    gradient = cast(Tensor, weight.grad)
    same = gradient.stride() == weight.stride()
    return gradient if same else torch.empty_like(weight).copy_(gradient)


def _fresh(weight: Tensor) -> dict[str, Tensor]:
    gradient = cast(Tensor, weight.grad)
    if gradient.layout != torch.strided or gradient.is_complex():
        raise ValueError(
            "Adam takes dense gradients of real numbers, got one of"
            f" {gradient.dtype} in layout {gradient.layout}"
        )
    return {
        "step": torch.zeros((), dtype=torch.float32, device=weight.device),
        "exp_avg": torch.zeros_like(weight),
        "exp_avg_sq": torch.zeros_like(weight),
    }
