"""Figures that are grids: of numbers, of bars, of images, and of panels with lines."""

import itertools
import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cappaper.paper.figures import parts
from cappaper.paper.figures.lines import OF_IMAGES, ROBUST
from cappaper.paper.figures.parts import Picture
from cappaper.paper.tables import RATES, groups, network_name, over_seeds


@parts.style()
def heat_maps(
    table: pd.DataFrame, rows: str, values: Sequence[str] = RATES[:2], label: str = ""
) -> Picture:
    """A panel for each of ``values``: a row for each of ``rows``, a column per β, means as fields.

    ``table`` has columns ``rows``, ``beta`` and ``values``; ``label`` is what the rows are.
    """
    mean = table.groupby([rows, "beta"], sort=False)[list(values)].mean()
    names, betas = list(dict.fromkeys(table[rows])), sorted(table["beta"].unique())
    figure, axes = parts.stacked(len(values), height=0.27 * len(names) + 0.4, sharex=True)
    for axis, value in zip(axes, values, strict=True):
        parts.draw_grid(axis, mean[value].unstack("beta").reindex(index=names, columns=betas))
        axis.set_title(parts.NAMES[value])
    parts.beta_axis(axes[-1], betas)
    figure.supylabel(label, size="medium")
    return figure


@parts.style()
def sandwich(table: pd.DataFrame, rows: Sequence[str], bounds: Sequence[str] = ()) -> Picture:
    """Robust accuracy: a panel per training, a row per judge, a column per β.

    ``table`` has columns ``training_eps``, ``eps`` (one for each training), ``attack``, ``beta``
    and ``robust_accuracy``; ``rows`` are the judges. A line parts ``bounds``, the certificates.
    """
    panels = groups(table, "training_eps")
    figure, axes = parts.stacked(len(panels), height=0.27 * len(rows) + 0.8)
    for axis, (training_eps, panel) in zip(axes, panels, strict=True):
        mean = panel.groupby(["attack", "beta"])[ROBUST].mean().unstack("beta")
        grid = mean.reindex(index=list(rows)).sort_index(axis=1)
        parts.draw_grid(axis, grid)
        parts.beta_axis(axis, [float(beta) for beta in grid.columns])
        training = "adversarial" if training_eps else "standard"
        axis.set_title(f"{training} training, ε = {panel['eps'].iloc[0]:g}")
        if bounds:
            edge = min(list(rows).index(name) for name in bounds) - 0.5
            axis.axhline(edge, color="white", linewidth=4)
    return figure


@parts.style()
def hidden(table: pd.DataFrame, by: str, weak: str, strong: str, *points: str) -> Picture:
    """What a weak attack leaves, and how much of it a strong one takes: a row for each of ``by``.

    ``table`` has columns ``by``, ``training_eps``, ``eps`` (a panel each), ``attack``, ``seed`` and
    ``robust_accuracy``. A bar ends at what ``strong`` leaves, and is hatched up to what ``weak``
    leaves: robustness that only seems to be there. Further judges, ``points``, have a mark each.
    """
    summary = over_seeds(table, ["eps", by, "attack"], [ROBUST])
    names = list(dict.fromkeys(table[by]))
    panels, places = groups(summary, "eps"), np.arange(len(names))
    attacked = "trained and attacked" if table["training_eps"].equals(table["eps"]) else "attacked"
    bars: dict[str, Any] = {"height": 0.55, "edgecolor": parts.COLOURS[0]}
    whiskers: dict[str, Any] = {"fmt": "none", "color": "black", "capsize": 2}
    figure, axes = parts.stacked(len(panels), height=0.42 * len(names) + 0.3, sharex=True)
    for axis, (eps, rows) in zip(axes, panels, strict=True):
        at = rows.pivot(index=by, columns="attack").reindex(names)
        mean, spread = at[ROBUST], at[f"{ROBUST}_spread"].fillna(0)
        left, shown = mean[strong].to_numpy(), mean[weak].to_numpy()
        axis.barh(places, left, color=parts.COLOURS[0], label=strong, **bars)
        rest = {"left": left, "hatch": "////", "label": f"hidden from {weak}"}
        axis.barh(places, shown - left, color="white", **rest, **bars)
        for judge, below in ((strong, 0.14), (weak, -0.14)):
            axis.errorbar(mean[judge], places + below, xerr=spread[judge], **whiskers)
        others = itertools.islice(parts.line_styles(), 1, None)
        for judge, (colour, mark, _) in zip(points, others, strict=False):
            axis.plot(mean[judge], places, color=colour, marker=mark, linestyle="", label=judge)
        axis.set_title(f"{attacked} at ε = {eps:g}")
        axis.set_yticks(places, [textwrap.fill(str(name), 18) for name in names], size=parts.SMALL)
        axis.set_xlim(*parts.SHARES)
        axis.invert_yaxis()
    axes[-1].set_xlabel("robust accuracy")
    return parts.legend(figure)


@parts.style()
def by_layer(table: pd.DataFrame, values: Sequence[str] = ("linf", "l2")) -> Picture:
    """A row for each of ``values`` over the layers, a column per architecture, a line per β.

    ``table`` has columns ``architecture``, ``beta``, ``layer``, ``seed`` and ``values``, at one ε.
    """
    summary = over_seeds(table, ["architecture", "beta", "layer"], values)
    architectures = groups(summary, "architecture", sort=False)
    figure = Picture(figsize=(parts.WIDTH, 2.1 * len(values) + 0.8))
    axes = figure.subplots(len(values), len(architectures), sharey="row", squeeze=False)
    for column, (architecture, rows) in zip(axes.T, architectures, strict=True):
        widths = architecture.split("-")
        equal = len(widths) > 2 and len(set(widths)) == 1
        column[0].set_title(f"{len(widths)} × {widths[0]}" if equal else "–".join(widths))
        layers = rows["layer"].unique()
        for axis, value in zip(column, values, strict=True):
            parts.draw_lines(axis, parts.by_network(rows, rows["beta"].unique()), value)
            axis.set_xticks(range(len(layers)), map(str, layers))
    for axis, value in zip(axes[:, 0], values, strict=True):
        axis.set_ylabel(parts.NAMES[value])
    figure.supxlabel("hidden layer", size="medium")
    return parts.legend(figure)


@parts.style()
def over_epochs(table: pd.DataFrame, attacks: Sequence[str]) -> Picture:
    """Robust accuracy over the epochs of a training: a panel per β, a line for each of ``attacks``.

    ``table`` has columns ``beta``, ``attack``, ``epochs``, ``seed`` and ``robust_accuracy``.
    """
    summary = over_seeds(table, ["beta", "attack", "epochs"], [ROBUST]).sort_values("epochs")
    networks = groups(summary, "beta")[::-1]
    height = math.ceil(len(networks) / 2)
    figure = Picture(figsize=(parts.WIDTH, 2.1 * height + 0.6))
    axes = figure.subplots(height, 2, sharex=True, sharey=True)
    for axis, (beta, rows) in zip(axes.flat, networks, strict=False):
        axis.set_title(network_name(beta))
        lines = [(attack, rows[rows["attack"] == attack]) for attack in attacks]
        parts.draw_lines(axis, lines, ROBUST, "epochs")
    for axis in axes.flat[len(networks) :]:
        axis.set_visible(False)
    figure.supxlabel("epochs of training", size="medium")
    figure.supylabel(OF_IMAGES, size="medium")
    return parts.legend(figure)


@parts.style()
def followed(table: pd.DataFrame, images: dict[str, list[tuple[str, Tensor]]]) -> Picture:
    """Attacks step by step: the loss over the steps, and below it what each makes of one image.

    ``table`` has columns ``attack``, ``step`` and ``loss``; ``images`` has for each attack some
    images ``[1, H, W]`` in [0, 1] with a line of text, under each the change since the first.
    """
    heights = (2.2, 2.7 * len(images))
    figure = Picture(figsize=(parts.WIDTH, sum(heights)))
    top, bottom = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    axis = top.subplots()
    parts.draw_lines(
        axis, groups(table.assign(loss_spread=0.0), "attack", sort=False), "loss", "step"
    )
    axis.set(xlabel="step of the attack", ylabel="cross-entropy")
    axis.legend()
    columns = max(map(len, images.values()))
    grid = bottom.subplots(2 * len(images), columns, squeeze=False)
    for fields, changes, (name, row) in zip(grid[::2], grid[1::2], images.items(), strict=True):
        fields[0].set_ylabel(name)
        changes[0].set_ylabel("change")
        for field, change, (text, image) in zip(fields, changes, row, strict=True):
            parts.draw_pixels(field, image)
            field.set_title(text, size=parts.SMALL, loc="center")
            parts.draw_pixels(change, image - row[0][1], change=0.1)
    return figure
