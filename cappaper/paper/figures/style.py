"""One look for all plots: colours that survive colour-blindness, and marks that survive grey."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cappaper.files import whole
from cappaper.paper.tables import RATES

# Okabe and Ito's palette, dark to light; every line also has a mark and a dash of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKS = ("o", "s", "^", "D", "v", "P")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "figure.dpi": 120,
    "font.size": 10,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "svg.hashsalt": "cappaper",  # the same figure has the same names within it
}

# Inches. On the narrowest phones, whose column has 342 pixels, 9.2 points are still 9 pixels high.
WIDTH = 4.8
SMALL = 9.2

RATE_NAMES = dict(zip(RATES, ("standard accuracy", "robust accuracy", "success rate"), strict=True))
NAMES = RATE_NAMES | {
    "accuracy": "accuracy",
    "at_cap": "share of units at β",
    "at_zero": "share of units at 0",
    "gradient": "gradient's L2 norm",
    "l2": "L2 distance",
    "linf": "L∞ distance",
    "median_l2": "median L2 distortion",
    "relative_l2": "L2 distance / clean norm",
    "silent": "images without gradient",
}


class Picture(Figure):
    """A figure that a notebook shows by itself, with no pyplot and no global state behind it."""

    def png(self) -> bytes:
        """The figure as a PNG; the same figure gives the same bytes."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()

    def svg(self) -> str:
        """The figure as an SVG in one line, letters as outlines; the same figure, the same text."""
        buffer = io.StringIO()
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with style():
            self.savefig(buffer, format="svg", metadata=unsaid)
        return " ".join(line.strip() for line in buffer.getvalue().splitlines())

    _repr_svg_ = svg


@contextmanager
def style() -> Iterator[None]:
    """The look of the book, for plots of your own."""
    with matplotlib.rc_context(_STYLE):
        yield


def save(figure: Picture, save_to: str) -> Picture:
    """Write a figure to ``save_to``.svg, unless ``save_to`` is empty, and hand it back."""
    if save_to:
        with whole(Path(f"{save_to}.svg")) as unfinished:
            unfinished.write_text(figure.svg(), encoding="utf-8")
    return figure


def stacked(panels: int, height: float = 1.9, **shared: Any) -> tuple[Picture, list[Axes]]:
    """A figure of panels one above the other, each ``height`` inches, within :func:`style`."""
    figure = Picture(figsize=(WIDTH, height * panels + 0.8))
    return figure, list(figure.subplots(panels, 1, squeeze=False, **shared)[:, 0])


def beta_label(beta: float) -> str:
    """β as axes and sliders write it.

    >>> beta_label(0.05), beta_label(float("inf"))
    ('0.05', '∞')
    """
    return "∞" if math.isinf(beta) else f"{beta:g}"


def beta_axis(axis: Axes, betas: Sequence[float]) -> None:
    # By rank, not to scale: the grid is close to logarithmic, and ∞ has a place on it.
    axis.set_xticks(range(len(betas)), [beta_label(b) for b in betas], rotation=45)
    axis.set_xlabel("max value β (∞ is ReLU)" if math.isinf(betas[-1]) else "max value β")


def line(
    axis: Axes,
    rows: pd.DataFrame,
    value: str,
    label: str | None,
    look: tuple[Any, ...],
    x: Any = None,
) -> None:
    """A line of means with a band of ± one spread; over ranks where no ``x`` is given."""
    colour, mark, dash = look
    x, mean = np.arange(len(rows)) if x is None else x, rows[value].to_numpy()
    spread = rows[f"{value}_spread"].fillna(0).to_numpy()
    axis.plot(x, mean, color=colour, marker=mark, linestyle=dash, label=label)
    axis.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)


def looks() -> Iterator[tuple[Any, ...]]:
    return zip(cycle(COLOURS), cycle(_MARKS), cycle(_DASHES), strict=False)


def legend(figure: Figure, *axes: Axes) -> None:
    """What the lines of ``axes`` are, above the panels, in as many columns as find room."""
    unique: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        unique |= dict(zip(labels, handles, strict=True))
    room = 0.55 + 0.07 * max(map(len, unique), default=1)  # a mark and the longest name, in inches
    columns = min(len(unique), max(1, int(WIDTH / room)))
    figure.legend(unique.values(), unique.keys(), loc="outside upper left", ncols=columns)
