"""The figures of the book, each a function from a result table to a picture."""

from cappaper.paper.figures.grids import followed, headline, heat_maps, hidden, sandwich
from cappaper.paper.figures.lines import (
    by_layer,
    cap,
    curve_at,
    functions,
    hardening,
    over_beta,
    over_budget,
    over_epochs,
    placements,
    steepness,
)
from cappaper.paper.figures.parts import SMALL, Picture, beta_explorer, save, style

__all__ = [
    "SMALL", "Picture", "beta_explorer", "by_layer", "cap", "curve_at", "followed", "functions",
    "hardening", "headline", "heat_maps", "hidden", "over_beta", "over_budget", "over_epochs",
    "placements", "sandwich", "save", "steepness", "style",
]  # fmt: skip
