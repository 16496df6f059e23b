"""Figures of lines: rates over β, over ε, over layers."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from cappaper.paper.figures.style import (
    COLOURS,
    NAMES,
    SHARES,
    WIDTH,
    Picture,
    beta_axis,
    beta_label,
    draw_lines,
    groups,
    legend,
    stacked,
    style,
)
from cappaper.paper.tables import RATES, network_name, over_seeds

_OF_IMAGES = "share of the test images"


def over_beta(table: pd.DataFrame, by: str = "eps", values: Sequence[str] = RATES) -> Picture:
    """A panel per value over β, a line for each of ``by``; bands are ± one spread over seeds.

    Args:
        table: as :func:`cappaper.paper.run` gives for an attack.
        by: the column whose values are the lines, such as ``eps`` or ``architecture``.
        values: the panels, such as the three rates.
    """
    summary = over_seeds(table, ["beta", by], values)
    betas = sorted(summary["beta"].unique())
    lines = [
        (f"ε = {name:g}" if by == "eps" else str(name), rows.set_index("beta").reindex(betas))
        for name, rows in summary.groupby(by, sort=by == "eps")
    ]
    with style():
        figure, axes = stacked(len(values), sharex=True)
        for axis, value in zip(axes, values, strict=True):
            axis.set_title(NAMES[value])
            # An attack does not change standard accuracy: one line without a name is enough.
            one = by == "eps" and value == RATES[0]
            draw_lines(axis, [(None, lines[0][1])] if one else lines, value)
            if value not in RATES:
                axis.set_ylim(0, None)
        beta_axis(axes[-1], betas)
        if set(values) <= set(RATES):
            figure.supylabel(_OF_IMAGES, size="medium")
        legend(figure, axes[-1])
    return figure


def placements(table: pd.DataFrame, rates: Sequence[str] = RATES[:2]) -> Picture:
    """Accuracies over β, one line per choice of capped layers, and ReLU's level.

    Args:
        table: rates at one ε; its networks without a cap are the level.
        rates: what the panels show.
    """
    summary = over_seeds(table, ["placement", "beta"], rates)
    capped, level = (summary[(summary["placement"] == "none") == plain] for plain in (False, True))
    betas = sorted(capped["beta"].unique())
    lines = [
        (f"layer{'s' if '+' in str(name) else ''} {name} capped", rows.set_index("beta").loc[betas])
        for name, rows in capped.groupby("placement")
    ]
    with style():
        figure, axes = stacked(len(rates), sharex=True)
        for axis, rate in zip(axes, rates, strict=True):
            axis.set_title(NAMES[rate])
            draw_lines(axis, lines, rate)
            for value in level[rate]:
                axis.axhline(value, color="black", linewidth=1, label="ReLU, no layer capped")
        beta_axis(axes[-1], betas)
        figure.supylabel(_OF_IMAGES, size="medium")
        legend(figure, axes[0])
    return figure


def by_layer(table: pd.DataFrame, values: Sequence[str] = ("linf", "l2")) -> Picture:
    """What happens layer by layer: a row per value, a column per architecture, a line per β.

    Args:
        table: as :func:`cappaper.paper.run` gives for distances at one ε, or for signals.
        values: the rows. Norms are drawn on a logarithmic axis, shares from 0 to 1.
    """
    summary = over_seeds(table, ["architecture", "beta", "layer"], values)
    architectures = list(summary["architecture"].unique())
    with style():
        figure = Picture(figsize=(WIDTH, 2.1 * len(values) + 0.8))
        axes = figure.subplots(len(values), len(architectures), sharey="row", squeeze=False)
        for column, architecture in zip(axes.T, architectures, strict=True):
            widths = architecture.split("-")
            equal = len(widths) > 2 and len(set(widths)) == 1
            column[0].set_title(f"{len(widths)} × {widths[0]}" if equal else "–".join(widths))
            chosen = summary[summary["architecture"] == architecture]
            by_beta = groups(chosen, "beta")[::-1]
            for axis, value in zip(column, values, strict=True):
                draw_lines(axis, [(network_name(beta), rows) for beta, rows in by_beta], value)
                if value in ("at_cap", "at_zero", "silent"):
                    axis.set_ylim(*SHARES)
                else:
                    axis.set_yscale("log")
                layers = by_beta[-1][1]["layer"]
                axis.set_xticks(range(len(layers)), map(str, layers))
        for axis, value in zip(axes[:, 0], values, strict=True):
            axis.set_ylabel(NAMES[value])
        figure.supxlabel("hidden layer", size="medium")
        legend(figure, axes[0, 0])
    return figure


def over_epochs(table: pd.DataFrame, attacks: Sequence[str]) -> Picture:
    """Robust accuracy over the epochs of a training: a panel per β, a line per attack.

    Args:
        table: robust accuracies; one row per network, attack and number of ``epochs``.
        attacks: the lines, "no attack" among them.
    """
    by = ["beta", "attack", "epochs"]
    summary = over_seeds(table, by, ["robust_accuracy"]).sort_values("epochs")
    betas = sorted(summary["beta"].unique(), reverse=True)
    with style():
        figure = Picture(figsize=(WIDTH, 2.1 * math.ceil(len(betas) / 2) + 0.6))
        axes = figure.subplots(math.ceil(len(betas) / 2), 2, sharex=True, sharey=True)
        for axis, beta in zip(axes.flat, betas, strict=False):
            axis.set_title(network_name(beta))
            rows = summary[summary["beta"] == beta]
            lines = [(attack, rows[rows["attack"] == attack]) for attack in attacks]
            draw_lines(axis, lines, "robust_accuracy", "epochs")
        for axis in axes.flat[len(betas) :]:
            axis.set_visible(False)
        figure.supxlabel("epochs of training", size="medium")
        figure.supylabel(_OF_IMAGES, size="medium")
        legend(figure, axes.flat[0])
    return figure


def over_budget(table: pd.DataFrame, factor_of: dict[str, float]) -> Picture:
    """Robust accuracy over the attack's budget: a panel per training, a line per β.

    Args:
        table: robust accuracies; one row per network and budget, which is called its ``attack``.
        factor_of: the budgets to draw, each with its multiple of the usual one.
    """
    chosen = table[table["attack"].isin(factor_of)]
    chosen = chosen.assign(factor=chosen["attack"].map(factor_of))
    by = ["training_eps", "eps", "beta", "factor"]
    summary = over_seeds(chosen, by, ["robust_accuracy"]).sort_values(by)
    panels = groups(summary, ["training_eps", "eps"])
    betas = sorted(summary["beta"].unique(), reverse=True)
    with style():
        figure, axes = stacked(len(panels), sharex=True)
        for axis, ((training_eps, eps), rows) in zip(axes, panels, strict=True):
            name = "adversarial" if training_eps else "standard"
            axis.set_title(f"{name} training, attacked at ε = {eps:g}")
            lines = [(network_name(beta), rows[rows["beta"] == beta]) for beta in betas]
            draw_lines(axis, lines, "robust_accuracy", "factor")
            axis.set_xscale("log", base=2)
            axis.set_xticks(list(factor_of.values()), [f"{f:g}" for f in factor_of.values()])
        axes[-1].set_xlabel("budget of the attack (1: as in the other chapters)")
        figure.supylabel("robust accuracy", size="medium")
        legend(figure, *axes)
    return figure


def steepness(families: dict[str, pd.DataFrame], rates: Sequence[str] = RATES[:2]) -> Picture:
    """Accuracies over the slope that an activation would have if its outputs spanned [0, 1].

    Args:
        families: name and rates at one ε; each table with a column ``slope``.
        rates: what the panels show.
    """
    lines = [
        (name, over_seeds(table, ["slope"], rates).sort_values("slope"))
        for name, table in families.items()
    ]
    with style():
        figure, axes = stacked(len(rates), sharex=True)
        for axis, rate in zip(axes, rates, strict=True):
            axis.set_title(NAMES[rate])
            draw_lines(axis, lines, rate, "slope")
            axis.set_xscale("log")
        axes[-1].set_xlabel("slope at full range")
        figure.supylabel(_OF_IMAGES, size="medium")
        legend(figure, axes[0])
    return figure


def curve_at(table: pd.DataFrame, beta: float) -> Picture:
    """Robust accuracy over ε at one β, among the curves of all others.

    Args:
        table: as :func:`cappaper.paper.run` gives for one architecture and attack.
        beta: a max value of the table.
    """
    chosen: dict[str, Any] = {"color": COLOURS[0], "linewidth": 2.4, "marker": "o", "zorder": 3}
    other: dict[str, Any] = {"color": "#bbbbbb", "linewidth": 1, "zorder": 1, "label": "other β"}
    with style():
        figure, (axis,) = stacked(1, height=2.6)
        for each, rows in groups(_from_zero(table, ["beta", "eps"]), "beta"):
            look = chosen | {"label": f"β = {beta_label(beta)}"} if each == beta else other
            spread = rows["robust_accuracy_spread"].fillna(0) if each == beta else None
            axis.errorbar(rows["eps"], rows["robust_accuracy"], yerr=spread, capsize=3, **look)
        axis.set_ylim(*SHARES)
        axis.set_xlabel("attack radius ε (0: no attack)")
        axis.set_ylabel("robust accuracy")
        legend(figure, axis)
    return figure


def hardening(table: pd.DataFrame) -> Picture:
    """Robust accuracy over ε: a panel per training, a line per β, the training's ε marked.

    Args:
        table: as :func:`cappaper.paper.run` gives for one architecture and attack, with
            several values of ``training_eps`` (0 is standard training).
    """
    panels = groups(_from_zero(table, ["training_eps", "beta", "eps"]), "training_eps")
    with style():
        figure, axes = stacked(len(panels), sharex=True)
        for axis, (eps, panel) in zip(axes, panels, strict=True):
            axis.set_title(f"trained at ε = {eps:g}" if eps else "standard training")
            if eps:
                axis.axvline(eps, color="#888888", linewidth=1, label="training ε")
            lines = [(network_name(beta), rows) for beta, rows in groups(panel, "beta")]
            draw_lines(axis, lines[::-1], "robust_accuracy", "eps")
        axes[-1].set_xlabel("attack radius ε (0: no attack)")
        figure.supylabel("robust accuracy", size="medium")
        # Not every training has every β.
        legend(figure, max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[1])))
    return figure


def _from_zero(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Robust accuracy over seeds by ``by``, sorted; at ε = 0 it is standard accuracy."""
    clean = table.assign(eps=0.0, robust_accuracy=table["standard_accuracy"])
    both = pd.concat([clean, table]).drop_duplicates([*by, "seed"])
    return over_seeds(both, by, ["robust_accuracy"]).sort_values(by)
