"""Figures of lines: rates over β, over ε and over budgets, and activations as curves."""

from __future__ import annotations

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
ROBUST = "robust_accuracy"
_RADIUS = "attack radius ε (0: no attack)"


def panels(
    content: Sequence[tuple[str, str, Sequence[Line]]], x: str = "", label: str = OF_IMAGES
) -> tuple[Picture, list[Axes]]:
    """Panels of lines: for each a title, the column with the means, and its lines.

    ``x`` is the column on the horizontal axis (ranks without it), ``label`` the vertical axis's.
    """
    figure, axes = parts.stacked(len(content), sharex=True)
    for axis, (title, value, lines) in zip(axes, content, strict=True):
        axis.set_title(parts.NAMES.get(title, title))
        parts.draw_lines(axis, lines, value, x)
        if value not in RATES:
            axis.set_ylim(0, None)
    if all(value in RATES for _, value, _ in content):
        figure.supylabel(label, size="medium")
    return figure, axes


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
    figure, axes = panels([(v, v, clean if v == RATES[0] else lines) for v in values])
    parts.beta_axis(axes[-1], betas)
    return parts.legend(figure)


@parts.style()
def placements(table: pd.DataFrame, rates: Sequence[str] = RATES[:2]) -> Picture:
    """A panel for each of ``rates`` over β, a line per choice of capped layers, and ReLU's level.

    ``table`` has columns ``placement``, ``beta``, ``seed`` and ``rates``, at one ε.
    """
    plain = table[table["placement"] == "none"]
    capped = table.drop(plain.index).sort_values("placement", kind="stable")
    names = [f"layer{'s' * ('+' in name)} {name} capped" for name in capped["placement"]]
    figure = over_beta(capped.assign(placement=names), "placement", rates)
    for axis, rate in zip(figure.axes, rates, strict=True):
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
    summary = over_seeds(chosen, by, [ROBUST]).sort_values(by)
    content = []
    for (trained, eps), rows in groups(summary, by[:2]):
        title = f"{'adversarial' if trained else 'standard'} training, attacked at ε = {eps:g}"
        content.append((title, ROBUST, parts.by_network(rows, summary["beta"].unique())))
    figure, axes = panels(content, "factor", "robust accuracy")
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
    trainings, content = groups(summary, "training_eps"), []
    for eps, rows in trainings:
        title = f"trained at ε = {eps:g}" if eps else "standard training"
        content.append((title, ROBUST, parts.by_network(rows, summary["beta"].unique())))
    figure, axes = panels(content, "eps", "robust accuracy")
    for axis, (eps, _) in zip(axes, trainings, strict=True):
        if eps:
            axis.axvline(eps, color="#888888", linewidth=1, zorder=1, label="training ε")
    axes[-1].set_xlabel(_RADIUS)
    return parts.legend(figure)


@parts.style()
def steepness(families: dict[str, pd.DataFrame], rates: Sequence[str] = RATES[:2]) -> Picture:
    """A panel for each of ``rates``, over the slope of an activation scaled to outputs in [0, 1].

    ``families`` has a table for each line, with columns ``slope``, ``seed`` and ``rates``.
    """
    lines: list[Line] = [
        (name, over_seeds(table, ["slope"], rates).sort_values("slope"))
        for name, table in families.items()
    ]
    figure, axes = panels([(rate, rate, lines) for rate in rates], "slope")
    for axis in axes:
        axis.set_xscale("log")
    axes[-1].set_xlabel("slope at full range")
    return parts.legend(figure)


@parts.style()
def curve_at(table: pd.DataFrame, beta: float) -> Picture:
    """Robust accuracy over ε at one β, among the curves of all others.

    ``table`` has columns ``beta``, ``eps``, ``seed``, ``standard_accuracy`` and
    ``robust_accuracy``, of one attack.
    """
    chosen = {"color": parts.COLOURS[0], "linewidth": 2.4, "marker": "o", "zorder": 3}
    other = {"color": "#bbbbbb", "linewidth": 1, "zorder": 1, "label": "other β"}
    figure, (axis,) = parts.stacked(1, height=2.6)
    for each, rows in groups(_from_zero(table, ["beta", "eps"]), "beta"):
        look: Any = chosen | {"label": f"β = {parts.beta_label(beta)}"} if each == beta else other
        spread = rows[f"{ROBUST}_spread"].fillna(0) if each == beta else None
        axis.errorbar(rows["eps"], rows[ROBUST], yerr=spread, capsize=3, **look)
    axis.set(ylim=parts.SHARES, xlabel=_RADIUS, ylabel="robust accuracy")
    return parts.legend(figure)


def _from_zero(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Robust accuracy over seeds by ``by``, sorted; at ε = 0 it is standard accuracy."""
    clean = table.assign(eps=0.0, robust_accuracy=table["standard_accuracy"])
    both = pd.concat([clean, table]).drop_duplicates([*by, "seed"])
    return over_seeds(both, by, [ROBUST]).sort_values(by)


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
    # Each name is where its line has room around it: above, to the right, above.
    spots = ((best, 1.06), (falls - 0.3, top / 2), (0, bottom + 0.13))
    first, second, third, *_ = parts.COLOURS
    looks = ((third, "^", "-."), (first, "o", "-"), (second, "s", "--"))
    figure = Picture(figsize=(parts.WIDTH, 4.2))
    axis = figure.subplots()
    lines = zip((none, pgd, aware), names, spots, looks, strict=True)
    for values, name, spot, (colour, mark, dash) in lines:
        axis.plot(places, values, color=colour, marker=mark, linestyle=dash)
        axis.text(*spot, name, color=colour, va="center")
    axis.fill_between(places, aware, pgd, color="#999999", alpha=0.25)
    axis.text(best, (top + bottom) / 2, "hidden,\nnot gone", ha="center", va="center")
    axis.set_title("A low cap stops PGD.\nIt does not stop an attack that knows about it.")
    axis.set_ylabel(f"accuracy at ε = {eps:g}")
    axis.set_ylim(-0.03, 1.13)
    parts.beta_axis(axis, list(wide.index))
    return figure


@parts.style()
def functions(curves: dict[str, Callable[[Tensor], Tensor]], low: float, high: float) -> Picture:
    """Activations, by name, as curves over pre-activations from ``low`` to ``high``."""
    z = torch.linspace(low, high, 401)
    figure, (axis,) = parts.stacked(1, height=2.6)
    looks = parts.line_styles()
    for (name, function), (colour, _, dash) in zip(curves.items(), looks, strict=False):
        axis.plot(z, function(z), color=colour, linestyle=dash, label=name)
    axis.set(xlabel="pre-activation z", ylabel="activation")
    return parts.legend(figure)


@parts.style()
def cap(beta: float, limit: float = 2.0) -> Picture:
    """ReLU, its cap at β, and the region where the gradient is zero."""
    z = torch.linspace(-limit / 2, limit, 401)
    figure, (axis,) = parts.stacked(1, height=2.2)
    axis.axvspan(-limit / 2, 0, color="#eeeeee", label="gradient is zero")
    if beta < limit:
        axis.axvspan(beta, limit, color="#eeeeee")
    axis.plot(z, torch.relu(z), color="black", linestyle=":", label="ReLU")
    axis.plot(z, capped_relu(z, beta), color=parts.COLOURS[0], linewidth=2.4, label=f"β = {beta:g}")
    axis.set(xlabel="pre-activation z", ylabel="a(z, β)")
    return parts.legend(figure)
