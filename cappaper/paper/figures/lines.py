"""Figures of lines: rates over β, over ε and over budgets, and activations as curves."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from cappaper.activations import capped_relu
from cappaper.paper.figures import parts
from cappaper.paper.figures.parts import Line, Picture
from cappaper.paper.tables import RATES, groups, over_seeds

OF_IMAGES = "share of the test images"
ROBUST_ACCURACY = RATES[1]
_RADIUS = "attack radius ε (0: no attack)"


def _panels(
    content: Sequence[tuple[str, str, Sequence[Line]]], x: str = "", columns: int = 1, **look: Any
) -> tuple[Picture, list[Axes]]:
    """A panel for each (title, column of means, lines), over the column ``x`` or over ranks."""
    figure, axes = parts.panels(-(-len(content) // columns), columns, **look)
    used, free = list(axes.flat[: len(content)]), axes.flat[len(content) :]
    for axis, (title, value, lines) in zip(used, content, strict=True):
        axis.set_title(parts.NAMES.get(title, title))
        parts.draw_lines(axis, lines, value, x)
    for axis in free:
        axis.set_visible(False)
    return figure, used


@parts.style()
def over_beta(table: pd.DataFrame, by: str = "eps", values: Sequence[str] = RATES) -> Picture:
    """A panel for each of ``values`` over β, a line for each of ``by``, such as ``architecture``.

    ``table`` has columns ``beta``, ``seed``, ``by`` and ``values``.
    """
    summary = over_seeds(table, ["beta", by], values)
    betas = sorted(summary["beta"].unique())
    lines: list[Line] = [
        (f"ε = {name:g}" if by == "eps" else str(name), rows.set_index("beta").reindex(betas))
        for name, rows in groups(summary, by, sort=by == "eps")
    ]
    # An attack does not change standard accuracy: one line without a name is enough.
    clean: list[Line] = [(None, lines[0][1])] if by == "eps" else lines
    content = [(v, v, clean if v == RATES[0] else lines) for v in values]
    figure, axes = _panels(content, sharex=True)
    if set(values) <= set(RATES):
        figure.supylabel(OF_IMAGES, size="medium")
    parts.beta_axis(axes[-1], betas)
    return parts.legend(figure)


@parts.style()
def placements(table: pd.DataFrame) -> Picture:
    """Standard and robust accuracy over β, a line per choice of capped layers, and ReLU's level.

    ``table`` has columns ``placement``, ``beta``, ``seed`` and both rates, at one ε.
    """
    plain = table[table["placement"] == "none"]
    capped = table.drop(plain.index).sort_values("placement", kind="stable")
    names = [f"layer{'s' * ('+' in name)} {name} capped" for name in capped["placement"]]
    figure = over_beta(capped.assign(placement=names), "placement", RATES[:2])
    for axis, rate in zip(figure.axes, RATES[:2], strict=True):
        level = axis.axhline(plain[rate].mean(), color="black", linewidth=1)
        level.set_label("ReLU, no layer capped")
    return parts.legend(figure)


@parts.style()
def over_budget(table: pd.DataFrame, factor_of: dict[str, float]) -> Picture:
    """Robust accuracy over the attack's budget: a panel per training, a line per β.

    ``table`` has columns ``training_eps``, ``eps``, ``beta``, ``attack`` (a budget), ``seed`` and
    ``robust_accuracy``; ``factor_of`` has each budget's multiple of the usual one.
    """
    chosen = table[table["attack"].isin(factor_of)]
    chosen = chosen.assign(factor=chosen["attack"].map(factor_of))
    by = ["training_eps", "eps", "beta", "factor"]
    summary = over_seeds(chosen, by, [ROBUST_ACCURACY]).sort_values(by)
    betas, content = summary["beta"].unique(), []
    for (trained, eps), rows in groups(summary, by[:2]):
        title = f"{'adversarial' if trained else 'standard'} training, attacked at ε = {eps:g}"
        content.append((title, ROBUST_ACCURACY, parts.by_network(rows, betas)))
    figure, axes = _panels(content, "factor", sharex=True)
    figure.supylabel("robust accuracy", size="medium")
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks(list(factor_of.values()), [f"{f:g}" for f in factor_of.values()])
    axes[-1].set_xlabel("budget of the attack (1: as in the other chapters)")
    return parts.legend(figure)


@parts.style()
def hardening(table: pd.DataFrame) -> Picture:
    """Robust accuracy over ε: a panel per training, a line per β, the training's ε marked.

    ``table`` has columns ``training_eps`` (0: standard training), ``beta``, ``eps``, ``seed``,
    ``standard_accuracy`` and ``robust_accuracy``, of one attack.
    """
    summary = _from_zero(table, ["training_eps", "beta", "eps"])
    betas, trainings = summary["beta"].unique(), groups(summary, "training_eps")
    content = []
    for eps, rows in trainings:
        title = f"trained at ε = {eps:g}" if eps else "standard training"
        content.append((title, ROBUST_ACCURACY, parts.by_network(rows, betas)))
    figure, axes = _panels(content, "eps", sharex=True)
    figure.supylabel("robust accuracy", size="medium")
    for axis, (eps, _) in zip(axes, trainings, strict=True):
        if eps:
            axis.axvline(eps, color="#888888", linewidth=1, zorder=1, label="training ε")
    axes[-1].set_xlabel(_RADIUS)
    return parts.legend(figure)


@parts.style()
def over_epochs(table: pd.DataFrame, attacks: Sequence[str]) -> Picture:
    """Robust accuracy over the epochs of training: a row per recipe, a panel per attack.

    ``table`` has columns ``recipe``, ``beta``, ``attack``, ``epochs``, ``seed``, and the accuracy.
    """
    by = ["recipe", "attack", "beta", "epochs"]
    summary = over_seeds(table[table["attack"].isin(attacks)], by, [ROBUST_ACCURACY])
    betas = summary["beta"].unique()
    content = [
        (": ".join(panel), ROBUST_ACCURACY, parts.by_network(rows.sort_values("epochs"), betas))
        for panel, rows in groups(summary, by[:2], sort=False)
    ]
    figure, _ = _panels(content, "epochs", columns=len(attacks), height=2.1, head=0.6, sharey=True)
    figure.supxlabel("epochs of training", size="medium")
    figure.supylabel("robust accuracy", size="medium")
    return parts.legend(figure)


@parts.style()
def by_layer(table: pd.DataFrame, values: Sequence[str] = ("linf", "l2")) -> Picture:
    """A row for each of ``values`` over the layers, a column per architecture, a line per β.

    ``table`` has columns ``architecture``, ``beta``, ``layer``, ``seed`` and ``values``, at one ε.
    """
    summary = over_seeds(table, ["architecture", "beta", "layer"], values)
    architectures = groups(summary, "architecture", sort=False)
    figure, axes = parts.panels(len(values), len(architectures), height=2.1, sharey="row")
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
def steepness(families: dict[str, pd.DataFrame]) -> Picture:
    """Standard and robust accuracy over an activation's slope, scaled to outputs in [0, 1].

    ``families`` has a table for each line, with columns ``slope``, ``seed`` and both rates.
    """
    lines: list[Line] = [
        (name, over_seeds(table, ["slope"], RATES[:2]).sort_values("slope"))
        for name, table in families.items()
    ]
    figure, axes = _panels([(rate, rate, lines) for rate in RATES[:2]], "slope", sharex=True)
    figure.supylabel(OF_IMAGES, size="medium")
    for axis in axes:
        axis.set_xscale("log")
    axes[-1].set_xlabel("steepest slope")
    return parts.legend(figure)


@parts.style()
def curve_at(table: pd.DataFrame, beta: float) -> Picture:
    """Robust accuracy over ε at one β, among the curves of all others.

    ``table`` has columns ``beta``, ``eps``, ``seed``, ``standard_accuracy`` and
    ``robust_accuracy``, of one attack.
    """
    chosen = {"color": parts.COLOURS[0], "linewidth": 2.4, "marker": "o", "zorder": 3}
    other = {"color": "#bbbbbb", "linewidth": 1, "zorder": 1, "label": "other β"}
    figure, ((axis,),) = parts.panels(1, height=2.6)
    for each, rows in groups(_from_zero(table, ["beta", "eps"]), "beta"):
        look: Any = chosen | {"label": f"β = {parts.beta_label(beta)}"} if each == beta else other
        spread = rows[f"{ROBUST_ACCURACY}_spread"].fillna(0) if each == beta else None
        axis.errorbar(rows["eps"], rows[ROBUST_ACCURACY], yerr=spread, capsize=3, **look)
    axis.set(ylim=parts.SHARE_LIMITS, xlabel=_RADIUS, ylabel="robust accuracy")
    return parts.legend(figure)


def _from_zero(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Robust accuracy over seeds by ``by``, sorted; at ε = 0 it is standard accuracy."""
    clean = table.assign(eps=0.0, robust_accuracy=table["standard_accuracy"])
    both = pd.concat([clean, table]).drop_duplicates([*by, "seed"])
    return over_seeds(both, by, [ROBUST_ACCURACY]).sort_values(by)


@parts.style()
def functions(curves: dict[str, Callable[[Tensor], Tensor]], low: float, high: float) -> Picture:
    """Activations, by name, as curves over pre-activations from ``low`` to ``high``."""
    z = torch.linspace(low, high, 401)
    figure, ((axis,),) = parts.panels(1, height=2.6)
    looks = parts.line_styles()
    for (name, function), (colour, _, dash) in zip(curves.items(), looks, strict=False):
        axis.plot(z, function(z), color=colour, linestyle=dash, label=name)
    axis.set(xlabel="pre-activation z", ylabel="activation")
    return parts.legend(figure)


@parts.style()
def cap(beta: float) -> Picture:
    """ReLU, its cap at β, and the region where the gradient is zero."""
    z = torch.linspace(-1, 2, 401)
    figure, ((axis,),) = parts.panels(1, height=2.2)
    axis.axvspan(-1, 0, color="#eeeeee", label="gradient is zero")
    if beta < 2:
        axis.axvspan(beta, 2, color="#eeeeee")
    axis.plot(z, torch.relu(z), color="black", linestyle=":", label="ReLU")
    axis.plot(z, capped_relu(z, beta), color=parts.COLOURS[0], linewidth=2.4, label=f"β = {beta:g}")
    axis.set(xlabel="pre-activation z", ylabel="a(z, β)")
    return parts.legend(figure)
