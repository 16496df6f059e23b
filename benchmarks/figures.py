"""Figures of time: this package's against others', and how cost grows."""

from __future__ import annotations

import textwrap

import pandas as pd

from cappaper.paper.figures.parts import COLOURS, SMALL, WIDTH, Picture, legend, line_styles, style


def contests(table: pd.DataFrame) -> Picture:
    """For each work, others' seconds divided by this package's; whiskers reach over all rounds.

    Args:
        table: ``work``, ``who``, ``ratio``, ``low``, ``high``; the first of each work is ours.
    """
    works = list(table["work"].unique())
    others = table[table.duplicated("work")]
    with style():
        figure = Picture(figsize=(WIDTH, 1.4 + 0.42 * len(works)))
        axis = figure.subplots()
        groups = others.groupby("who", sort=False)
        for (who, rows), (colour, mark, _) in zip(groups, line_styles(), strict=False):
            place = [len(works) - works.index(work) for work in rows["work"]]
            reach = [rows["ratio"] - rows["low"], rows["high"] - rows["ratio"]]
            shape = {"fmt": mark, "color": colour, "capsize": 2, "label": str(who)}
            axis.errorbar(rows["ratio"], place, xerr=reach, **shape)
        axis.axvline(1, color=COLOURS[0], linewidth=1)
        names = [textwrap.fill(work, 24) for work in works]
        axis.set_yticks(range(len(works), 0, -1), names, size=SMALL)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_xlabel("seconds, divided by this package's")
        legend(figure)
    return figure


def growth(table: pd.DataFrame) -> Picture:
    """Seconds over what grows, a panel each, both axes logarithmic.

    Args:
        table: ``what`` grows, to what ``count``, and the ``seconds``.
    """
    groups = list(table.groupby("what", sort=False))
    with style():
        figure = Picture(figsize=(WIDTH, 2.2 * len(groups)))
        axes = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
        for axis, (what, rows) in zip(axes, groups, strict=True):
            count, seconds = rows["count"], rows["seconds"]
            in_proportion = seconds.iloc[0] * count / count.iloc[0]
            axis.plot(count, seconds, "o-", color=COLOURS[0], label="measured")
            axis.plot(count, in_proportion, ":", color="#555555", label="in proportion")
            axis.set_title(str(what))
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xticks(count, count)
            axis.minorticks_off()
            axis.set_ylabel("seconds")
        axes[0].legend()
    return figure
