"""Activations as pictures: their curves, and where no gradient comes back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cappaper.activations import capped_relu
from cappaper.paper.figures.style import COLOURS, Picture, legend, looks, stacked, style


def functions(curves: dict[str, Callable[[Tensor], Tensor]], low: float, high: float) -> Picture:
    """Activations as curves over the pre-activation z.

    Args:
        curves: what each is called, and the function.
        low, high: the range of z.
    """
    z = torch.linspace(low, high, 401)
    with style():
        figure, (axis,) = stacked(1, height=2.6)
        for (name, function), (colour, _, dash) in zip(curves.items(), looks(), strict=False):
            axis.plot(z, function(z), color=colour, linestyle=dash, label=name)
        axis.set_xlabel("pre-activation z")
        axis.set_ylabel("activation")
        legend(figure, axis)
    return figure


def cap(beta: float, limit: float = 2.0) -> Picture:
    """ReLU, its cap at β, and the region from which no gradient comes back."""
    z = torch.linspace(-limit / 2, limit, 401)
    with style():
        figure, (axis,) = stacked(1, height=2.2)
        axis.axvspan(-limit / 2, 0, color="#eeeeee", label="gradient is zero")
        if beta < limit:
            axis.axvspan(beta, limit, color="#eeeeee")
        axis.plot(z, torch.relu(z), color="black", linestyle=":", label="ReLU")
        axis.plot(z, capped_relu(z, beta), color=COLOURS[0], linewidth=2.4, label=f"β = {beta:g}")
        axis.set_xlabel("pre-activation z")
        axis.set_ylabel("a(z, β)")
        legend(figure, axis)
    return figure
