"""What figures share: colours for the colour-blind, marks for print in grey, parts, a slider."""

import base64
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cappaper.files import atomic
from cappaper.paper.tables import RATES, network_name

Line = tuple[str | None, pd.DataFrame]  # a label, and the rows whose means a line goes through

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
    "svg.hashsalt": "cappaper",  # the same figure has the same ids in its SVG
}

# Inches and points. In a column of 342 pixels, as on the narrowest phones, 9.2 points are 9 pixels.
WIDTH = 4.8
SMALL = 9.2
SHARE_LIMITS = (-0.03, 1.03)  # the limits of an axis of shares

_NORMS = {
    "gradient": "gradient's L2 norm",
    "l2": "L2 distance",
    "linf": "L∞ distance",
    "relative_l2": "L2 distance / clean norm",
}
_SHARES = {rate: rate.replace("_", " ") for rate in (*RATES, "accuracy")} | {
    "at_cap": "share of units at β",
    "at_zero": "share of units at 0",
    "silent": "images without gradient",
}
NAMES = _NORMS | _SHARES | {"median_l2": "median L2 distortion"}


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
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        with style():
            self.savefig(buffer, format="svg", metadata=nothing)
        return " ".join(line.strip() for line in buffer.getvalue().splitlines())

    _repr_svg_ = svg


@contextmanager
def style() -> Iterator[None]:
    """The look of the book, for plots of your own: a context, or a decorator of a function."""
    with matplotlib.rc_context(_STYLE):
        yield


def save(figure: Picture, save_to: str) -> Picture:
    """Write a figure to ``save_to``.svg, unless ``save_to`` is empty, and return it."""
    if save_to:
        with atomic(Path(f"{save_to}.svg")) as unfinished:
            unfinished.write_text(figure.svg(), encoding="utf-8")
    return figure


def panels(
    rows: int, columns: int = 1, height: float = 1.9, head: float = 0.8, **shared: Any
) -> tuple[Picture, np.ndarray[Any, Any]]:
    """Panels of ``height`` inches each, under a ``head``, and their axes ``[rows, columns]``."""
    figure = Picture(figsize=(WIDTH, height * rows + head))
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def beta_label(beta: float) -> str:
    """β as axes and sliders write it: "0.05", or "∞"."""
    return "∞" if math.isinf(beta) else f"{beta:g}"


def beta_axis(axis: Axes, betas: Sequence[float]) -> None:
    # By rank, not to scale: the grid is close to logarithmic, and ∞ has a place on it.
    axis.set_xticks(range(len(betas)), [beta_label(b) for b in betas], rotation=45)
    axis.set_xlabel("max value β (∞ is ReLU)" if math.isinf(betas[-1]) else "max value β")


def line_styles() -> Iterator[tuple[Any, ...]]:
    """Colour, mark and dash of one line after another; no two of six share any."""
    return cycle(zip(COLOURS, _MARKS, _DASHES, strict=True))


def by_network(rows: pd.DataFrame, betas: Iterable[float]) -> list[Line]:
    """A line for each of ``betas``, the highest first; a network without rows keeps its style."""
    return [(network_name(b), rows[rows["beta"] == b]) for b in sorted(betas, reverse=True)]


def draw_lines(axis: Axes, lines: Iterable[Line], value: str, x: str = "") -> None:
    """Means over the column ``x`` or ranks, with bands of ± one spread; black if unlabelled."""
    for (label, rows), (colour, mark, dash) in zip(lines, line_styles(), strict=False):
        if len(rows):
            colour, mark = (colour, mark) if label else ("black", ".")
            places = rows[x].to_numpy() if x else np.arange(len(rows))
            mean, spread = rows[value].to_numpy(), rows[f"{value}_spread"].fillna(0).to_numpy()
            axis.plot(places, mean, color=colour, marker=mark, linestyle=dash, label=label)
            low, high = mean - spread, mean + spread
            axis.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    if value in _SHARES:
        axis.set_ylim(*SHARE_LIMITS)
    elif value in _NORMS:
        axis.set_yscale("log")
    elif value == "median_l2":
        axis.set_ylim(0, None)


def draw_grid(axis: Axes, grid: pd.DataFrame) -> None:
    """Shares as coloured fields with their numbers; rows are named, columns are max values."""
    axis.imshow(grid, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (i, j), share in np.ndenumerate(grid.to_numpy()):
        colour = "black" if share > 0.6 else "white"  # dark letters on light fields
        if not math.isnan(share):
            axis.text(j, i, f"{share:.2f}", ha="center", va="center", color=colour, size=SMALL)
    axis.set_yticks(range(len(grid)), [str(name) for name in grid.index], size=SMALL)
    axis.grid(False)


def draw_pixels(axis: Axes, image: Tensor, title: str = "", change: float = 0.0) -> None:
    """Draw an image ``[1, H, W]`` in [0, 1], or a difference with full colour at ±``change``."""
    low, high, colours = (-change, change, "PuOr_r") if change else (0, 1, "gray_r")
    axis.imshow(image[0].numpy(), cmap=colours, vmin=low, vmax=high)
    axis.set_title(title)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)


def legend(figure: Picture) -> Picture:
    """Add a legend of all lines above the panels, in as many columns as fit."""
    unique: dict[str, Any] = {}
    # Not every panel has every line: the one with most of them sets the order.
    entries = [axis.get_legend_handles_labels() for axis in figure.axes]
    for handles, labels in sorted(entries, key=lambda both: -len(set(both[1]))):
        unique |= dict(zip(labels, handles, strict=True))
    for earlier in list(figure.legends):
        earlier.remove()
    room = 0.55 + 0.07 * max(map(len, unique), default=1)  # a mark and the longest name, in inches
    columns = min(len(unique), max(1, int(WIDTH / room)))
    figure.legend(unique.values(), unique.keys(), loc="outside upper left", ncols=columns)
    return figure


# No ids: a page may have several sliders.
_SCRIPT = (
    "const box = this.closest('.beta-explorer');"
    "box.querySelectorAll('img').forEach((image, i) => { image.hidden = i != this.value; });"
    "box.querySelector('output').value ="
    " 'β = ' + box.querySelectorAll('img')[this.value].dataset.beta;"
)


def beta_explorer(
    draw: Callable[[float], Picture], betas: Sequence[float], *, start: float | None = None
) -> None:
    """Show ``draw(β)`` under a slider of ``betas``, in a notebook as on a page of the book.

    The slider begins at ``start``, or in the middle. A ``start`` that is not in ``betas`` raises a
    ValueError, and so do empty ``betas``.
    """
    start = betas[len(betas) // 2] if betas and start is None else start
    if start is None or start not in betas:
        raise ValueError(f"β = {start} is not on the slider: use one of {list(betas)}")
    labels = [beta_label(beta) for beta in betas]
    images = "".join(
        still(draw(beta).png(), f"the figure at β = {label}", f'data-beta="{label}"{hidden}')
        for beta, label in zip(betas, labels, strict=True)
        for hidden in (" hidden" * (beta != start),)
    )
    first = list(betas).index(start)
    show(
        '<div class="beta-explorer"><label>max value β '
        f'<input type="range" min="0" max="{len(betas) - 1}" value="{first}"'
        # JupyterLab would take the arrow keys for its own.
        f' oninput="{_SCRIPT}" onkeydown="event.stopPropagation()"></label>'
        f" <output>β = {labels[first]}</output><br>{images}</div>",
        f"β explorer over {', '.join(labels)}",
    )


def show(html: str, text: str, **more: object) -> None:
    """Show HTML, or ``text`` in a terminal; ``more`` are other forms of the output."""
    display(more | {"text/html": html, "text/plain": text}, raw=True)


def still(png: bytes, alt: str, attributes: str = "") -> str:
    """A picture as HTML that needs no file."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<img alt="{alt}" {attributes} src="{source}">'
