"""The figure of the landing page: the whole argument in one panel."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from cappaper.paper.figures.style import COLOURS, WIDTH, Picture, beta_axis, style
from cappaper.paper.tables import over_seeds

_LINES = (
    ("no attack", "no attack", COLOURS[2], "^", "-."),
    ("PGD", "the paper's attack", COLOURS[0], "o", "-"),
    ("cap-aware PGD", "an attack that\nknows about the cap", COLOURS[1], "s", "--"),
)


def headline(table: pd.DataFrame, eps: float = 0.1) -> Picture:
    """Accuracy over the cap without attack, under PGD, and under the attack that knows about it.

    Args:
        table: that of the chapter *How robust*; networks of standard training count.
        eps: the attacks' radius.
    """
    chosen = table[(table["training_eps"] == 0) & (table["eps"] == eps)]
    means = over_seeds(chosen, ["attack", "beta"], ["robust_accuracy"])
    wide = means.pivot(index="beta", columns="attack", values="robust_accuracy").sort_index()
    with style():
        figure = Picture(figsize=(WIDTH, 4.2))
        axis = figure.subplots()
        places = range(len(wide))
        for attack, _, colour, mark, dash in _LINES:
            axis.plot(places, wide[attack], color=colour, marker=mark, linestyle=dash)
        axis.fill_between(places, wide["cap-aware PGD"], wide["PGD"], color="#999999", alpha=0.25)
        best = int(wide["PGD"].to_numpy().argmax())
        shown = wide.iloc[best]
        # Each name stands where its line has room around it: above, to the right, above.
        falls = int((wide["PGD"] < shown["PGD"] / 2).to_numpy().argmax())
        _name(axis, 0, best, 1.06)
        _name(axis, 1, falls - 0.3, shown["PGD"] / 2)
        _name(axis, 2, 0, shown["cap-aware PGD"] + 0.13)
        middle = (shown["PGD"] + shown["cap-aware PGD"]) / 2
        axis.text(best, middle, "hidden,\nnot gone", ha="center", va="center")
        axis.set_title("A low cap stops PGD.\nIt does not stop an attack that knows about it.")
        axis.set_ylabel(f"accuracy at ε = {eps:g}")
        axis.set_ylim(-0.03, 1.13)
        beta_axis(axis, list(wide.index))
    return figure


def _name(axis: Axes, line: int, x: float, y: float) -> None:
    _, label, colour, *_ = _LINES[line]
    axis.text(x, y, label, color=colour, va="center")
