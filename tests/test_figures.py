"""What figures draw: each line, bar and number where it belongs."""

import math
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from cappaper.paper import figures, tables
from tests.answers import BOOK, table_of

BETAS = [0.1, 1.0, math.inf]
TABLE = pd.DataFrame(
    {
        "architecture": "8-4",
        "placement": "none" if math.isinf(beta) else "1+2",
        "beta": beta,
        "seed": seed,
        "eps": eps,
        "standard_accuracy": 0.9,
        "robust_accuracy": 0.9 - eps * beta / (1 + beta) if beta < math.inf else 0.1,
        "success_rate": 0.2 + 0.1 * seed,
    }
    for beta in BETAS
    for seed in (0, 1)
    for eps in (0.1, 0.2)
)
ONE = TABLE[TABLE["eps"] == 0.1]


def named(axis):
    return [label.get_text() for label in axis.get_yticklabels()]


def titles(figure):
    return [axis.get_title(loc="left") for axis in figure.axes]


def points(axis):
    return [list(line.get_xdata()) for line in axis.get_lines()]


def test_rates_over_beta_have_a_line_for_every_eps():
    axes = figures.over_beta(TABLE).axes
    assert [len(axis.get_lines()) for axis in axes] == [1, 2, 2]
    assert [label.get_text() for label in axes[-1].get_xticklabels()] == ["0.1", "1", "∞"]
    first, second = axes[1].get_lines()
    assert first.get_ydata()[-1] == pytest.approx(0.1)
    assert first.get_marker() != second.get_marker()  # they differ in grey, too
    assert first.get_linestyle() != second.get_linestyle()


def test_a_figure_leaves_the_settings_alone_and_is_the_same_twice():
    before = dict(matplotlib.rcParams)
    first, second = figures.over_beta(TABLE), figures.over_beta(TABLE)
    assert dict(matplotlib.rcParams) == before
    assert first.png() == second.png() and first.svg() == second.svg()


def test_every_other_kind_of_figure_draws(tmp_path):
    layers = pd.concat([ONE.assign(layer=i, linf=i, l2=2 * i) for i in (1, 2)])
    drawn = [
        figures.placements(ONE),
        figures.by_layer(layers),
        figures.over_beta(ONE, "architecture", ["success_rate"]),
        figures.functions({"ReLU": torch.relu}, -1, 1),
        figures.steepness({"caps": ONE[ONE["beta"] < math.inf].assign(slope=1 / ONE["beta"])}),
        figures.curve_at(TABLE, 0.1),
        figures.hardening(pd.concat([TABLE.assign(training_eps=e) for e in (0.0, 0.1)])),
    ]
    assert all(figure.axes for figure in drawn)
    assert figures.save(drawn[0], str(tmp_path / "a" / "figure")) is drawn[0]
    assert (tmp_path / "a" / "figure.svg").exists()


def test_a_panel_over_epochs_has_a_line_for_every_network():
    rows = [ONE.assign(epochs=e, attack=a, recipe="one") for e in (2, 4) for a in ("PGD", "other")]
    figure = figures.over_epochs(pd.concat([*rows, rows[0].assign(recipe="two")]), ["PGD", "other"])
    assert titles(figure)[:3] == ["one: PGD", "one: other", "two: PGD"]
    assert not figure.axes[3].get_visible()  # three panels, two columns
    assert [points(axis) for axis in figure.axes[:3]] == [[[2, 4]] * 3] * 2 + [[[2]] * 3]


def test_a_network_has_one_colour_in_every_panel_over_the_budget():
    standard = ONE[ONE["beta"] != 0.1].assign(training_eps=0.0)
    trained = ONE[ONE["beta"] != 1].assign(training_eps=0.3)
    rows = [t.assign(attack=a) for a in ("× 1", "× 2") for t in (standard, trained)]
    figure = figures.over_budget(pd.concat(rows), {"× 1": 1.0, "× 2": 2.0})
    assert [points(axis) for axis in figure.axes] == [[[1, 2]] * 2] * 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["ReLU", "β = 1", "β = 0.1"]
    first, second = ([line.get_color() for line in axis.get_lines()] for axis in figure.axes)
    assert first[0] == second[0] and first[1] != second[1]


def test_a_heat_map_shows_every_mean_where_it_belongs():
    (axis,) = figures.heat_maps(ONE, "placement", ["robust_accuracy"]).axes
    shown = {tuple(map(int, t.get_position())): t.get_text() for t in axis.texts}
    # Rows in their order (1+2, none), columns ascending (0.1, 1, ∞).
    assert shown == {(0, 0): "0.89", (1, 0): "0.85", (2, 1): "0.10"}
    assert named(axis) == ["1+2", "none"]


def test_a_sandwich_has_a_row_for_every_judge_and_a_panel_for_every_training():
    judges = ["no attack", "PGD", "certified"]
    rows = [ONE.assign(training_eps=e, attack=judge) for e in (0.0, 0.3) for judge in judges]
    axes = figures.sandwich(pd.concat(rows), judges, ["certified"]).axes
    assert [len(axis.texts) for axis in axes] == [9, 9] and named(axes[0]) == judges
    (edge,) = axes[0].get_lines()
    assert list(edge.get_ydata()) == [1.5, 1.5]


def test_a_bar_ends_at_the_strong_attack_and_is_hatched_to_the_weak_one():
    left = {"none": 1.0, "PGD": 0.5, "strong": 0.1}
    capped = TABLE[TABLE["beta"] < 1]
    attacked = pd.concat(capped.assign(robust_accuracy=x, attack=a) for a, x in left.items())
    other, figure = (
        figures.hidden(attacked.assign(training_eps=eps), "placement", "PGD", "strong", "none")
        for eps in (attacked["eps"], 0.0)
    )
    assert titles(figure) == ["attacked at ε = 0.1", "attacked at ε = 0.2"]
    assert titles(other) == [f"trained and {title}" for title in titles(figure)]
    for axis in figure.axes:
        full, hatched = axis.patches
        assert (full.get_x(), full.get_width()) == pytest.approx((0, 0.1))
        assert (hatched.get_x(), hatched.get_width()) == pytest.approx((0.1, 0.4))
        assert points(axis)[-1] == [1.0] and named(axis) == ["1+2"]


def test_steps_of_an_attack_show_the_loss_the_images_and_the_change():
    path = pd.DataFrame({"attack": "PGD", "step": range(3), "loss": [0.1, 0.5, 2.0]})
    first, last = torch.zeros(1, 4, 4), torch.full((1, 4, 4), 0.05)
    axes = figures.followed(path, {"PGD": [("step 0", first), ("step 2", last)]}).axes
    assert list(axes[0].get_lines()[0].get_ydata()) == [0.1, 0.5, 2.0]
    highest = [float(axis.images[0].get_array().max()) for axis in axes[1:]]
    assert highest == pytest.approx([0, 0.05, 0, 0.05])


def drawn_lines(svg):
    """The points of a picture's lines, scaled: versions of matplotlib differ in margins."""
    paths = " ".join(re.findall(r'"line2d_\d+"> <path d="([^"]+)', svg))
    points = np.array(re.findall(r"[\d.]+", paths), dtype=float).reshape(-1, 2)
    return (points - points.min(0)) / np.ptp(points, axis=0)


def test_the_headline_is_that_of_the_committed_table():
    figure = figures.headline(table_of("how-robust"))
    means = tables.over_seeds(
        table_of("how-robust", training_eps=0, eps=0.1), ["attack", "beta"], ["robust_accuracy"]
    ).set_index("attack")
    attacks = ["no attack", "PGD", "cap-aware PGD"]
    for line, attack in zip(figure.axes[0].lines, attacks, strict=True):
        expected = means.loc[attack].sort_values("beta")["robust_accuracy"]
        assert np.allclose(line.get_ydata(), expected)
    svgs = (figure.svg(), (BOOK / "results" / "headline.svg").read_text())
    now, then = map(drawn_lines, svgs)
    assert now.size > 40 and np.allclose(now, then, atol=0.005)
