"""Figures of fields with numbers, of bars and of images, and the headline."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cappaper.paper.figures import parts
from cappaper.paper.figures.lines import ROBUST_ACCURACY
from cappaper.paper.figures.parts import Picture
from cappaper.paper.tables import RATES, groups, over_seeds


@parts.style()
def heat_maps(
    table: pd.DataFrame, rows: str, values: Sequence[str] = RATES[:2], label: str = ""
) -> Picture:
    """A panel for each of ``values``: a row for each of ``rows``, a column per β, means as fields.

    ``table`` has columns ``rows``, ``beta`` and ``values``; ``label`` is what the rows are.
    """
    mean = table.groupby([rows, "beta"], sort=False)[list(values)].mean()
    names, betas = list(dict.fromkeys(table[rows])), sorted(table["beta"].unique())
    figure, axes = parts.panels(len(values), height=0.27 * len(names) + 0.4, sharex=True)
    for axis, value in zip(axes[:, 0], values, strict=True):
        parts.draw_grid(axis, mean[value].unstack("beta").reindex(index=names, columns=betas))
        axis.set_title(parts.NAMES[value])
    parts.beta_axis(axes[-1, 0], betas)
    figure.supylabel(label, size="medium")
    return figure


@parts.style()
def sandwich(table: pd.DataFrame, rows: Sequence[str], bounds: Sequence[str] = ()) -> Picture:
    """Robust accuracy: a panel per training, a row per judge, a column per β.

    ``table`` has columns ``training_eps``, ``eps`` (one for each training), ``attack``, ``beta``
    and ``robust_accuracy``; ``rows`` are the judges. A line separates ``bounds``, the certificates.
    """
    trainings = groups(table, "training_eps")
    figure, axes = parts.panels(len(trainings), height=0.27 * len(rows) + 0.8)
    for axis, (training_eps, panel) in zip(axes[:, 0], trainings, strict=True):
        mean = panel.groupby(["attack", "beta"])[ROBUST_ACCURACY].mean().unstack("beta")
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
    summary = over_seeds(table, ["eps", by, "attack"], [ROBUST_ACCURACY])
    names = list(dict.fromkeys(table[by]))
    radii, places = groups(summary, "eps"), np.arange(len(names))
    attacked = "trained and attacked" if table["training_eps"].equals(table["eps"]) else "attacked"
    bars: dict[str, Any] = {"height": 0.55, "edgecolor": parts.COLOURS[0]}
    whiskers: dict[str, Any] = {"fmt": "none", "color": "black", "capsize": 2}
    figure, axes = parts.panels(len(radii), height=0.42 * len(names) + 0.3, sharex=True)
    for axis, (eps, rows) in zip(axes[:, 0], radii, strict=True):
        at = rows.pivot(index=by, columns="attack").reindex(names)
        mean, spread = at[ROBUST_ACCURACY], at[f"{ROBUST_ACCURACY}_spread"].fillna(0)
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
        axis.set_xlim(*parts.SHARE_LIMITS)
        axis.invert_yaxis()
    axes[-1, 0].set_xlabel("robust accuracy")
    return parts.legend(figure)


@parts.style()
def followed(table: pd.DataFrame, images: dict[str, list[tuple[str, Tensor]]]) -> Picture:
    """Attacks step by step: the loss over the steps, and below it what each makes of one image.

    ``table`` has columns ``attack``, ``step`` and ``loss``; ``images`` has for each attack some
    images ``[1, H, W]`` in [0, 1] with a line of text. Below each is its change since the first.
    """
    heights = (2.2, 2.7 * len(images))
    figure = Picture(figsize=(parts.WIDTH, sum(heights)))
    top, bottom = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    axis = top.subplots()
    lines = groups(table.assign(loss_spread=0.0), "attack", sort=False)
    parts.draw_lines(axis, lines, "loss", "step")
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


@parts.style()
def headline(table: pd.DataFrame, eps: float = 0.1) -> Picture:
    """Accuracy over β without attack, under PGD, and under the attack that knows about the cap.

    ``table`` is that of the chapter *How robust*; networks of standard training count.
    """
    chosen = table[(table["training_eps"] == 0) & (table["eps"] == eps)]
    wide = chosen.pivot_table("robust_accuracy", "beta", "attack")
    none, pgd, aware = (wide[name] for name in ("no attack", "PGD", "cap-aware PGD"))
    places, best = range(len(wide)), int(pgd.to_numpy().argmax())
    top, bottom = pgd.iloc[best], aware.iloc[best]
    falls = int((pgd < top / 2).to_numpy().argmax())
    names = ("no attack", "the paper's attack", "an attack that\nknows about the cap")
    # Room for each name, in turn: above its line; right of PGD's fall, or above; above its line.
    fall = (falls - 0.3, top / 2) if falls < len(wide) - 1 else (0.5 * falls, 0.88 * top)
    spots = ((best, 1.06), fall, (0, bottom + 0.13))
    first, second, third, *_ = parts.COLOURS
    looks = ((third, "^", "-."), (first, "o", "-"), (second, "s", "--"))
    figure = Picture(figsize=(parts.WIDTH, 4.2))
    axis = figure.subplots()
    lines = zip((none, pgd, aware), names, spots, looks, strict=True)
    for values, name, spot, (colour, mark, dash) in lines:
        axis.plot(places, values, color=colour, marker=mark, linestyle=dash)
        axis.text(*spot, name, color=colour, va="center")
    axis.fill_between(places, aware, pgd, color="#999999", alpha=0.25)
    axis.text(max(best, 0.3), (top + bottom) / 2, "hidden,\nnot gone", ha="center", va="center")
    axis.set_title("A low cap stops PGD.\nIt does not stop an attack that knows about it.")
    axis.set(ylabel=f"accuracy at ε = {eps:g}", ylim=(-0.03, 1.13))
    parts.beta_axis(axis, list(wide.index))
    return figure
