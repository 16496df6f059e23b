"""The figures of the book, each a function from a result table to a picture."""

from cappaper.paper.figures.curves import cap, functions, headline
from cappaper.paper.figures.grids import followed, heat_maps, hidden, sandwich
from cappaper.paper.figures.lines import (
    by_layer,
    curve_at,
    hardening,
    over_beta,
    over_budget,
    over_epochs,
    placements,
    steepness,
)
from cappaper.paper.figures.slider import beta_explorer
from cappaper.paper.figures.style import RATE_NAMES, SMALL, Picture, beta_label, save, style

__all__ = [
    "RATE_NAMES",
    "SMALL",
    "Picture",
    "beta_explorer",
    "beta_label",
    "by_layer",
    "cap",
    "curve_at",
    "followed",
    "functions",
    "hardening",
    "headline",
    "heat_maps",
    "hidden",
    "over_beta",
    "over_budget",
    "over_epochs",
    "placements",
    "sandwich",
    "save",
    "steepness",
    "style",
]
