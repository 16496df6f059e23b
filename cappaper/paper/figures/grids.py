"""Figures that are grids: of numbers, of bars, and of images."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cappaper.paper.figures.style import (
    COLOURS,
    NAMES,
    SHARES,
    SMALL,
    WIDTH,
    Picture,
    beta_axis,
    draw_grid,
    draw_lines,
    draw_pixels,
    groups,
    legend,
    line_styles,
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
            draw_grid(axis, mean[value].unstack("beta").reindex(index=names, columns=betas))
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
    panels = groups(table, "training_eps")
    with style():
        figure, axes = stacked(len(panels), height=0.27 * len(rows) + 0.8)
        for axis, (training_eps, panel) in zip(axes, panels, strict=True):
            mean = panel.groupby(["attack", "beta"])["robust_accuracy"].mean().unstack("beta")
            grid = mean.reindex(index=list(rows)).sort_index(axis=1)
            draw_grid(axis, grid)
            beta_axis(axis, [float(beta) for beta in grid.columns])
            training = "adversarial" if training_eps else "standard"
            axis.set_title(f"{training} training, ε = {panel['eps'].iloc[0]:g}")
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
    names = list(dict.fromkeys(table[by]))
    panels, places = groups(summary, "eps"), np.arange(len(names))
    done = "trained and attacked" if (table["training_eps"] == table["eps"]).all() else "attacked"
    bars: dict[str, Any] = {"height": 0.55, "edgecolor": COLOURS[0]}
    whiskers: dict[str, Any] = {"fmt": "none", "color": "black", "capsize": 2}
    with style():
        figure, axes = stacked(len(panels), height=0.42 * len(names) + 0.3, sharex=True)
        for axis, (eps, rows) in zip(axes, panels, strict=True):
            at = rows.pivot(index=by, columns="attack").reindex(names)
            mean, spread = at["robust_accuracy"], at["robust_accuracy_spread"].fillna(0)
            left, shown = mean[strong].to_numpy(), mean[weak].to_numpy()
            axis.barh(places, left, color=COLOURS[0], label=strong, **bars)
            rest = {"left": left, "hatch": "////", "label": f"hidden from {weak}"}
            axis.barh(places, shown - left, color="white", **rest, **bars)
            for judge, below in ((strong, 0.14), (weak, -0.14)):
                axis.errorbar(mean[judge], places + below, xerr=spread[judge], **whiskers)
            others = itertools.islice(line_styles(), 1, None)
            for judge, (colour, mark, _) in zip(points, others, strict=False):
                axis.plot(mean[judge], places, color=colour, marker=mark, linestyle="", label=judge)
            axis.set_title(f"{done} at ε = {eps:g}")
            axis.set_yticks(places, [textwrap.fill(str(name), 18) for name in names], size=SMALL)
            axis.set_xlim(*SHARES)
            axis.invert_yaxis()
        axes[-1].set_xlabel("robust accuracy")
        legend(figure, axes[0])
    return figure


def followed(table: pd.DataFrame, images: dict[str, list[tuple[str, Tensor]]]) -> Picture:
    """Attacks step by step: the loss over the steps, and below it what each makes of one image.

    Args:
        table: columns ``attack``, ``step`` and ``loss``.
        images: for each attack some images ``[1, H, W]`` in [0, 1], each with a line of text; under
            each is what has changed since the first.
    """
    with style():
        heights = (2.2, 2.7 * len(images))
        figure = Picture(figsize=(WIDTH, sum(heights)))
        top, bottom = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
        axis = top.subplots()
        table = table.assign(loss_spread=0.0)
        draw_lines(axis, groups(table, "attack", sort=False), "loss", "step")
        axis.set_xlabel("step of the attack")
        axis.set_ylabel("cross-entropy")
        axis.legend()
        columns = max(map(len, images.values()))
        grid = bottom.subplots(2 * len(images), columns, squeeze=False)
        for fields, changes, (name, row) in zip(grid[::2], grid[1::2], images.items(), strict=True):
            fields[0].set_ylabel(name)
            changes[0].set_ylabel("change")
            for field, change, (text, image) in zip(fields, changes, row, strict=True):
                draw_pixels(field, image)
                field.set_title(text, size=SMALL, loc="center")
                draw_pixels(change, image - row[0][1], change=_FULL)
    return figure
