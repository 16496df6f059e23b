"""Figures of lines: rates over β, over ε, over layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from cappaper.paper.figures.style import (
    COLOURS,
    NAMES,
    RATE_NAMES,
    WIDTH,
    Picture,
    beta_axis,
    beta_label,
    legend,
    line,
    looks,
    stacked,
    style,
)
from cappaper.paper.tables import RATES, network_name, over_seeds


def over_beta(table: pd.DataFrame, by: str = "eps", values: Sequence[str] = RATES) -> Picture:
    """A panel per value over β, a line for each of ``by``; bands are ± one spread over seeds.

    Args:
        table: as :func:`cappaper.paper.run` gives for an attack.
        by: the column whose values are the lines, such as ``eps`` or ``architecture``.
        values: the panels, such as the three rates.
    """
    summary = over_seeds(table, ["beta", by], values)
    betas = sorted(summary["beta"].unique())
    with style():
        figure, axes = stacked(len(values), sharex=True)
        for axis, value in zip(axes, values, strict=True):
            axis.set_title(NAMES[value])
            groups = list(summary.groupby(by, sort=by == "eps"))
            # The attack does not change standard accuracy: one line tells it all.
            one = by == "eps" and value == RATES[0]
            for (name, group), look in zip(groups[: 1 if one else None], looks(), strict=False):
                label = None if one else f"ε = {name:g}" if by == "eps" else str(name)
                line(axis, group.set_index("beta").reindex(betas), value, label, look)
            axis.set_ylim(*((-0.03, 1.03) if value in RATES else (0, None)))
        beta_axis(axes[-1], betas)
        if set(values) <= set(RATES):
            figure.supylabel("share of the test images", size="medium")
        legend(figure, axes[-1])
    return figure


def placements(table: pd.DataFrame, rates: Sequence[str] = RATES[:2]) -> Picture:
    """Accuracies over β, one line per choice of capped layers, and ReLU's level.

    Args:
        table: rates at one ε; its networks without a cap are the level.
        rates: what the panels show.
    """
    summary = over_seeds(table, ["placement", "beta"], rates)
    capped = summary[summary["placement"] != "none"]
    level = summary[summary["placement"] == "none"]
    betas = sorted(capped["beta"].unique())
    with style():
        figure, axes = stacked(len(rates), sharex=True)
        for axis, rate in zip(axes, rates, strict=True):
            axis.set_title(RATE_NAMES[rate])
            for (name, group), look in zip(capped.groupby("placement"), looks(), strict=False):
                label = f"layer {name} capped" if "+" not in str(name) else f"layers {name} capped"
                line(axis, group.set_index("beta").loc[betas], rate, label, look)
            for value in level[rate]:
                axis.axhline(value, color="black", linewidth=1, label="ReLU, no layer capped")
            axis.set_ylim(-0.03, 1.03)
        beta_axis(axes[-1], betas)
        figure.supylabel("share of the test images", size="medium")
        legend(figure, axes[0])
    return figure


def by_layer(table: pd.DataFrame, values: Sequence[str] = ("linf", "l2")) -> Picture:
    """What happens layer by layer: a row per value, a column per architecture, a line per β.

    Args:
        table: as :func:`cappaper.paper.run` gives for distances at one ε, or for
            signals.
        values: the rows. Norms are drawn on a logarithmic axis, shares from 0 to 1.
    """
    summary = over_seeds(table, ["architecture", "beta", "layer"], values)
    architectures = list(summary["architecture"].unique())
    with style():
        figure = Picture(figsize=(WIDTH, 2.1 * len(values) + 0.8))
        axes = figure.subplots(len(values), len(architectures), sharey="row", squeeze=False)
        for column, architecture in zip(axes.T, architectures, strict=True):
            widths = architecture.split("-")
            alike = len(widths) > 2 and len(set(widths)) == 1
            name = f"{len(widths)} × {widths[0]}" if alike else "–".join(widths)
            column[0].set_title(name)
            chosen = summary[summary["architecture"] == architecture]
            by_beta = sorted(chosen.groupby("beta"), key=lambda item: -float(item[0]))
            for axis, value in zip(column, values, strict=True):
                for (beta, group), look in zip(by_beta, looks(), strict=False):
                    label = network_name(beta)
                    line(axis, group.set_index("layer"), value, label, look)
                if value in ("at_cap", "at_zero", "silent"):
                    axis.set_ylim(-0.03, 1.03)
                else:
                    axis.set_yscale("log")
                axis.set_xticks(range(len(group)), [str(i) for i in group["layer"]])
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
    summary = over_seeds(table, ["beta", "attack", "epochs"], ["robust_accuracy"])
    betas = sorted(summary["beta"].unique(), reverse=True)
    with style():
        figure = Picture(figsize=(WIDTH, 2.1 * math.ceil(len(betas) / 2) + 0.6))
        axes = figure.subplots(math.ceil(len(betas) / 2), 2, sharex=True, sharey=True)
        for axis, beta in zip(axes.flat, betas, strict=False):
            axis.set_title(network_name(beta))
            for attack, look in zip(attacks, looks(), strict=False):
                chosen = (summary["beta"] == beta) & (summary["attack"] == attack)
                rows = summary[chosen].sort_values("epochs")
                line(axis, rows, "robust_accuracy", attack, look, x=rows["epochs"].to_numpy())
            axis.set_ylim(-0.03, 1.03)
        for axis in axes.flat[len(betas) :]:
            axis.set_visible(False)
        figure.supxlabel("epochs of training", size="medium")
        figure.supylabel("share of the test images", size="medium")
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
    trainings = summary[["training_eps", "eps"]].drop_duplicates().itertuples(index=False)
    betas = sorted(summary["beta"].unique(), reverse=True)
    look_of = dict(zip(betas, looks(), strict=False))
    with style():
        figure, axes = stacked(summary["training_eps"].nunique(), sharex=True)
        for axis, (training_eps, eps) in zip(axes, trainings, strict=True):
            name = "adversarial" if training_eps else "standard"
            axis.set_title(f"{name} training, attacked at ε = {eps:g}")
            for beta, look in look_of.items():
                is_it = (summary["training_eps"] == training_eps) & (summary["beta"] == beta)
                rows = summary[is_it]
                label = network_name(beta)
                if len(rows):
                    line(axis, rows, "robust_accuracy", label, look, x=rows["factor"].to_numpy())
            axis.set_xscale("log", base=2)
            axis.set_xticks(list(factor_of.values()), [f"{f:g}" for f in factor_of.values()])
            axis.set_ylim(-0.03, 1.03)
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
    with style():
        figure, axes = stacked(len(rates), sharex=True)
        for axis, rate in zip(axes, rates, strict=True):
            axis.set_title(RATE_NAMES[rate])
            for (name, table), look in zip(families.items(), looks(), strict=False):
                rows = over_seeds(table, ["slope"], [rate]).sort_values("slope")
                line(axis, rows, rate, name, look, x=rows["slope"].to_numpy())
            axis.set_xscale("log")
            axis.set_ylim(-0.03, 1.03)
        axes[-1].set_xlabel("slope at full range")
        figure.supylabel("share of the test images", size="medium")
        legend(figure, axes[0])
    return figure


def curve_at(table: pd.DataFrame, beta: float) -> Picture:
    """Robust accuracy over ε at one β, among the curves of all others.

    Args:
        table: as :func:`cappaper.paper.run` gives for one architecture and attack.
        beta: a max value of the table.
    """
    summary = _from_zero(table, ["beta", "eps"])
    with style():
        figure, (axis,) = stacked(1, height=2.6)
        for other, group in summary.groupby("beta"):
            chosen = other == beta
            axis.errorbar(
                group["eps"],
                group["robust_accuracy"],
                yerr=group["robust_accuracy_spread"].fillna(0) if chosen else None,
                color=COLOURS[0] if chosen else "#bbbbbb",
                linewidth=2.4 if chosen else 1,
                marker="o" if chosen else None,
                capsize=3,
                zorder=3 if chosen else 1,
                label=f"β = {beta_label(beta)}" if chosen else "other β",
            )
        axis.set_ylim(-0.03, 1.03)
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
    summary = _from_zero(table, ["training_eps", "beta", "eps"])
    trainings = sorted(summary["training_eps"].unique())
    with style():
        figure, axes = stacked(len(trainings), sharex=True)
        for axis, eps in zip(axes, trainings, strict=True):
            chosen = summary[summary["training_eps"] == eps]
            axis.set_title(f"trained at ε = {eps:g}" if eps else "standard training")
            if eps:
                axis.axvline(eps, color="#888888", linewidth=1, label="training ε")
            betas = sorted(chosen["beta"].unique(), reverse=True)
            for beta, look in zip(betas, looks(), strict=False):
                group = chosen[chosen["beta"] == beta]
                label = network_name(beta)
                line(axis, group, "robust_accuracy", label, look, x=group["eps"].to_numpy())
            axis.set_ylim(-0.03, 1.03)
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
