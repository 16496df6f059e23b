"""Figures that are grids: of numbers, of images, and of what becomes of them."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor

from cappaper.paper.figures.style import (
    COLOURS,
    NAMES,
    SMALL,
    WIDTH,
    Picture,
    beta_axis,
    legend,
    line,
    looks,
    stacked,
    style,
)
from cappaper.paper.tables import RATES, over_seeds

_FULL = 0.1  # a change of a pixel that is drawn in full colour


def heat_maps(
    table: pd.DataFrame, rows: str, values: Sequence[str] = RATES[:2], label: str = ""
) -> Picture:
    """A panel per value: a row for each of ``rows``, a column for each β, the mean in each field.

    Args:
        table: one row per network; accuracies or rates.
        rows: the column whose values are the rows, in the order in which they come.
        values: the panels.
        label: what the rows are.
    """
    mean = table.groupby([rows, "beta"], sort=False)[list(values)].mean()
    names, betas = list(dict.fromkeys(table[rows])), sorted(table["beta"].unique())
    with style():
        figure, axes = stacked(len(values), height=0.27 * len(names) + 0.4, sharex=True)
        for axis, value in zip(axes, values, strict=True):
            _grid(axis, mean[value].unstack("beta").reindex(index=names, columns=betas))
            axis.set_title(NAMES[value])
        beta_axis(axes[-1], betas)
        figure.supylabel(label, size="medium")
    return figure


def sandwich(table: pd.DataFrame, rows: Sequence[str], bounds: Sequence[str] = ()) -> Picture:
    """Robust accuracy by judge: a panel per training, a row per judge, a column per β.

    Args:
        table: as :func:`cappaper.paper.run` gives for judges; one radius per ``training_eps``.
        rows: the judges, from the weakest attack to the weakest certificate.
        bounds: those of them that are certificates; a line parts them from the attacks.
    """
    trainings = sorted(table["training_eps"].unique())
    panels = [table[table["training_eps"] == eps] for eps in trainings]
    with style():
        figure, axes = stacked(len(panels), height=0.27 * len(rows) + 0.8)
        for axis, panel, eps in zip(axes, panels, trainings, strict=True):
            mean = panel.groupby(["attack", "beta"])["robust_accuracy"].mean().unstack("beta")
            grid = mean.reindex(index=list(rows)).sort_index(axis=1)
            _grid(axis, grid)
            beta_axis(axis, [float(beta) for beta in grid.columns])
            known = "adversarial" if eps else "standard"
            axis.set_title(f"{known} training, ε = {panel['eps'].iloc[0]:g}")
            if bounds:
                edge = min(list(rows).index(name) for name in bounds) - 0.5
                axis.axhline(edge, color="white", linewidth=4)
    return figure


def hidden(table: pd.DataFrame, by: str, weak: str, strong: str, *points: str) -> Picture:
    """What a weak attack leaves, and how much of that a strong one takes: a row for each of ``by``.

    Args:
        table: robust accuracies; one row per network, attack and radius; a panel for each radius.
            Its title says whether the networks were trained at that radius.
        by: the column whose values are the rows, in the order in which they come.
        weak, strong: the attacks. A bar goes as far as ``strong`` leaves, and hatched from there to
            what ``weak`` leaves: robustness that only seems to be there. Whiskers are ± one spread.
        points: further judges, a mark for each.
    """
    summary = over_seeds(table, ["eps", by, "attack"], ["robust_accuracy"])
    names, radii = list(dict.fromkeys(table[by])), sorted(table["eps"].unique())
    places = np.arange(len(names))
    done = "trained and attacked" if (table["training_eps"] == table["eps"]).all() else "attacked"
    with style():
        figure, axes = stacked(len(radii), height=0.42 * len(names) + 0.3, sharex=True)
        for axis, eps in zip(axes, radii, strict=True):
            at = summary[summary["eps"] == eps].set_index(["attack", by])
            mean, spread = at["robust_accuracy"], at["robust_accuracy_spread"].fillna(0)
            left, shown = (mean[judge].reindex(names).to_numpy() for judge in (strong, weak))
            bars: dict[str, Any] = {"height": 0.55, "edgecolor": COLOURS[0]}
            axis.barh(places, left, color=COLOURS[0], label=strong, **bars)
            rest = {"left": left, "hatch": "////", "label": f"hidden from {weak}"}
            axis.barh(places, shown - left, color="white", **rest, **bars)
            for judge, value, below in ((strong, left, 0.14), (weak, shown, -0.14)):
                reach = spread[judge].reindex(names)
                axis.errorbar(
                    value, places + below, xerr=reach, fmt="none", color="black", capsize=2
                )
            for judge, (colour, mark, _) in zip(
                points, itertools.islice(looks(), 1, None), strict=False
            ):
                value = mean[judge].reindex(names)
                axis.plot(value, places, color=colour, marker=mark, linestyle="", label=judge)
            axis.set_title(f"{done} at ε = {eps:g}")
            axis.set_yticks(places, [textwrap.fill(str(name), 18) for name in names], size=SMALL)
            axis.set_xlim(-0.03, 1.03)
            axis.invert_yaxis()
        axes[-1].set_xlabel("robust accuracy")
        legend(figure, axes[0])
    return figure


def followed(table: pd.DataFrame, images: dict[str, list[tuple[str, Tensor]]]) -> Picture:
    """Attacks step by step: the loss over the steps, and below it what each makes of one image.

    Args:
        table: columns ``attack``, ``step`` and ``loss``.
        images: for each attack some images ``[1, H, W]`` in [0, 1], each with a line of text; under
            each stands what has changed since the first.
    """
    with style():
        count = max(len(row) for row in images.values())
        heights = (2.2, 2.7 * len(images))
        figure = Picture(figsize=(WIDTH, sum(heights)))
        top, bottom = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
        axis = top.subplots()
        for (name, rows), look in zip(table.groupby("attack", sort=False), looks(), strict=False):
            loss = rows.assign(loss_spread=0.0)
            line(axis, loss, "loss", str(name), look, x=rows["step"].to_numpy())
        axis.set_xlabel("step of the attack")
        axis.set_ylabel("cross-entropy")
        axis.legend()
        grid = bottom.subplots(2 * len(images), count, squeeze=False)
        for place, (name, row) in enumerate(images.items()):
            fields, changes = grid[2 * place], grid[2 * place + 1]
            fields[0].set_ylabel(name)
            changes[0].set_ylabel("change")
            first = row[0][1]
            for field, change, (text, image) in zip(fields, changes, row, strict=True):
                field.imshow(image[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
                field.set_title(text, size=SMALL, loc="center")
                moved = (image - first)[0].numpy()
                change.imshow(moved, cmap="PuOr_r", vmin=-_FULL, vmax=_FULL)
        for field in grid.flat:
            field.set_xticks([])
            field.set_yticks([])
            field.grid(False)
    return figure


def _grid(axis: Axes, grid: pd.DataFrame) -> None:
    """Shares as fields with their numbers; rows are named, columns are max values."""
    axis.imshow(grid, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (i, j), share in np.ndenumerate(grid.to_numpy()):
        # Dark letters on light fields, light ones on dark.
        colour = "black" if share > 0.6 else "white"
        if not math.isnan(share):
            axis.text(j, i, f"{share:.2f}", ha="center", va="center", color=colour, size=SMALL)
    axis.set_yticks(range(len(grid)), [str(name) for name in grid.index], size=SMALL)
    axis.grid(False)
