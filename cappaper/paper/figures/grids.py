"""Figures that are grids: of numbers, of images, and of what becomes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor

from cappaper.paper.figures.style import NAMES, Picture, beta_axis, legend, line, looks, style
from cappaper.paper.results import RATES, over_seeds


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
        size = (0.62 * len(betas) * len(values) + 2.2, 0.42 * len(names) + 1.5)
        figure = Picture(figsize=size)
        axes = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
        for axis, value in zip(axes, values, strict=True):
            grid = mean[value].unstack("beta").reindex(index=names, columns=betas)
            _grid(axis, grid)
            axis.set_title(NAMES[value])
        axes[0].set_ylabel(label)
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
    counts = [panel["beta"].nunique() for panel in panels]
    with style():
        figure = Picture(figsize=(0.5 * sum(counts) + 2.4, 0.34 * len(rows) + 1.3))
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=counts)[0]
        for axis, panel, eps in zip(axes, panels, trainings, strict=True):
            grid = panel.groupby(["attack", "beta"])["robust_accuracy"].mean().unstack("beta")
            _grid(axis, grid.reindex(index=list(rows)).sort_index(axis=1))
            radius = panel["eps"].iloc[0]
            known = "adv. training," if eps else "standard training,"
            axis.set_title(f"{known}\nε = {radius:g}")
            if bounds:
                edge = min(list(rows).index(name) for name in bounds) - 0.5
                axis.axhline(edge, color="white", linewidth=4)
    return figure


def dots(table: pd.DataFrame, by: str, attacks: Sequence[str], panels: str = "eps") -> Picture:
    """Robust accuracy as dots with spreads: a panel per radius, a row for each of ``by``.

    Args:
        table: robust accuracies; one row per network, attack and radius.
        by: the column whose values are the rows, in the order in which they come.
        attacks: a mark for each.
        panels: the column whose values are the panels.
    """
    summary = over_seeds(table, [panels, by, "attack"], ["robust_accuracy"])
    names, values = list(dict.fromkeys(table[by])), sorted(table[panels].unique())
    with style():
        figure = Picture(figsize=(3.4 * len(values) + 2.6, 0.42 * len(names) + 1.2))
        axes = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
        for axis, value in zip(axes, values, strict=True):
            axis.set_title(f"trained and attacked at ε = {value:g}")
            for attack, (colour, mark, _) in zip(attacks, looks(), strict=False):
                chosen = summary[(summary[panels] == value) & (summary["attack"] == attack)]
                rows = chosen.set_index(by).reindex(names)
                axis.errorbar(
                    rows["robust_accuracy"],
                    range(len(names)),
                    xerr=rows["robust_accuracy_spread"].fillna(0),
                    color=colour,
                    marker=mark,
                    linestyle="",
                    capsize=3,
                    label=attack,
                )
            axis.set_yticks(range(len(names)), names)
            axis.set_xlim(-0.03, 1.03)
            axis.set_xlabel("robust accuracy")
        axes[0].invert_yaxis()
        legend(figure, axes[0])
    return figure


def followed(table: pd.DataFrame, images: dict[str, list[tuple[str, Tensor]]]) -> Picture:
    """Attacks step by step: the loss over the steps, and below it what each makes of one image.

    Args:
        table: columns ``attack``, ``step`` and ``loss``.
        images: for each attack some images ``[1, H, W]`` in [0, 1], each with a line of text.
    """
    with style():
        count = max(len(row) for row in images.values())
        figure = Picture(figsize=(1.35 * count + 1.6, 2.6 + 1.75 * len(images)))
        heights = (2.6, 1.75 * len(images))
        top, bottom = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
        axis = top.subplots()
        for (name, rows), look in zip(table.groupby("attack", sort=False), looks(), strict=False):
            loss = rows.assign(loss_spread=0.0)
            line(axis, loss, "loss", str(name), look, x=rows["step"].to_numpy())
        axis.set_xlabel("step of the attack")
        axis.set_ylabel("cross-entropy")
        axis.legend()
        grid = bottom.subplots(len(images), count, squeeze=False)
        for fields, (name, row) in zip(grid, images.items(), strict=True):
            fields[0].set_ylabel(name)
            for field, (text, image) in zip(fields, row, strict=True):
                field.imshow(image[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
                field.set_title(text, size=8, loc="center")
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
            axis.text(j, i, f"{share:.2f}", ha="center", va="center", color=colour, size=8)
    axis.set_yticks(range(len(grid)), [str(name) for name in grid.index])
    beta_axis(axis, [float(b) for b in grid.columns])
    axis.grid(False)
