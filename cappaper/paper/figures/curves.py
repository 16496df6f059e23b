"""The figure of the landing page, and activations as curves."""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from cappaper.activations import capped_relu
from cappaper.paper.figures.style import (
    COLOURS,
    WIDTH,
    Picture,
    beta_axis,
    legend,
    line_styles,
    stacked,
    style,
)
from cappaper.paper.tables import over_seeds

_LINES = {  # a name, and its style: colour, mark, dash
    "no attack": ("no attack", COLOURS[2], "^", "-."),
    "PGD": ("the paper's attack", COLOURS[0], "o", "-"),
    "cap-aware PGD": ("an attack that\nknows about the cap", COLOURS[1], "s", "--"),
}


def headline(table: pd.DataFrame, eps: float = 0.1) -> Picture:
    """Accuracy over the cap without attack, under PGD, and under the attack that knows about it.

    Args:
        table: that of the chapter *How robust*; networks of standard training count.
        eps: the attacks' radius.
    """
    chosen = table[(table["training_eps"] == 0) & (table["eps"] == eps)]
    means = over_seeds(chosen, ["attack", "beta"], ["robust_accuracy"])
    wide = means.pivot(index="beta", columns="attack", values="robust_accuracy").sort_index()
    places = range(len(wide))
    best = int(wide["PGD"].to_numpy().argmax())
    pgd, aware = wide["PGD"].iloc[best], wide["cap-aware PGD"].iloc[best]
    falls = int((wide["PGD"] < pgd / 2).to_numpy().argmax())
    # Each name is where its line has room around it: above, to the right, above.
    spots = [(best, 1.06), (falls - 0.3, pgd / 2), (0, aware + 0.13)]
    with style():
        figure = Picture(figsize=(WIDTH, 4.2))
        axis = figure.subplots()
        for attack, (_, colour, mark, dash) in _LINES.items():
            axis.plot(places, wide[attack], color=colour, marker=mark, linestyle=dash)
        axis.fill_between(places, wide["cap-aware PGD"], wide["PGD"], color="#999999", alpha=0.25)
        for (name, colour, *_), spot in zip(_LINES.values(), spots, strict=True):
            axis.text(*spot, name, color=colour, va="center")
        axis.text(best, (pgd + aware) / 2, "hidden,\nnot gone", ha="center", va="center")
        axis.set_title("A low cap stops PGD.\nIt does not stop an attack that knows about it.")
        axis.set_ylabel(f"accuracy at ε = {eps:g}")
        axis.set_ylim(-0.03, 1.13)
        beta_axis(axis, list(wide.index))
    return figure


def functions(curves: dict[str, Callable[[Tensor], Tensor]], low: float, high: float) -> Picture:
    """Activations as curves over the pre-activation z.

    Args:
        curves: what each is called, and the function.
        low, high: the range of z.
    """
    z = torch.linspace(low, high, 401)
    with style():
        figure, (axis,) = stacked(1, height=2.6)
        for (name, function), (colour, _, dash) in zip(curves.items(), line_styles(), strict=False):
            axis.plot(z, function(z), color=colour, linestyle=dash, label=name)
        axis.set_xlabel("pre-activation z")
        axis.set_ylabel("activation")
        legend(figure, axis)
    return figure


def cap(beta: float, limit: float = 2.0) -> Picture:
    """ReLU, its cap at β, and the region where the gradient is zero."""
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
