import math
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import figures as speed
from cappaper.paper import figures, tables
from tests.test_book import BOOK

BETAS = [0.1, 1.0, math.inf]


@pytest.fixture(scope="module")
def table():
    rows = [
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
    ]
    return pd.DataFrame(rows)


def lines(axis):
    return [line for line in axis.get_lines() if len(line.get_xdata()) > 2]


def test_rates_over_beta_draw_every_beta_and_eps(table):
    axes = figures.over_beta(table).axes
    assert [len(lines(axis)) for axis in axes] == [1, 2, 2]
    labels = [label.get_text() for label in axes[-1].get_xticklabels()]
    assert labels == ["0.1", "1", "∞"]
    assert lines(axes[1])[0].get_ydata()[-1] == pytest.approx(0.1)


def test_lines_differ_without_colour(table):
    looks = [
        (line.get_marker(), str(line.get_linestyle()))
        for line in figures.over_beta(table).axes[1].get_lines()
    ]
    assert len(set(looks)) == len(looks)


def test_a_figure_leaves_the_settings_alone_and_is_the_same_twice(table):
    before = dict(matplotlib.rcParams)
    first, second = figures.over_beta(table), figures.over_beta(table)
    assert dict(matplotlib.rcParams) == before
    assert first.png() == second.png() and first.svg() == second.svg()
    assert first.png().startswith(b"\x89PNG") and "\n" not in first.svg()


def test_every_kind_of_figure_draws(table, tmp_path):
    one = table[table["eps"] == 0.1]
    layers = pd.concat([one.assign(layer=i, linf=i, l2=2 * i, relative_l2=0.1 * i) for i in (1, 2)])
    drawn = [
        figures.placements(one),
        figures.by_layer(layers),
        figures.over_beta(one, "architecture", ["success_rate"]),
        figures.functions({"ReLU": torch.relu}, -1, 1),
        figures.steepness({"caps": one[one["beta"] < math.inf].assign(slope=1 / one["beta"])}),
        figures.cap(0.5),
        figures.cap(math.inf),
        figures.curve_at(table, 0.1),
        figures.hardening(pd.concat([table.assign(training_eps=e) for e in (0.0, 0.1)])),
    ]
    assert all(figure.axes for figure in drawn)
    assert figures.save(drawn[0], str(tmp_path / "a" / "figure")) is drawn[0]
    assert (tmp_path / "a" / "figure.svg").exists()


def test_a_panel_over_epochs_has_a_line_for_every_attack(table):
    one = table[table["eps"] == 0.1]
    rows = [one.assign(epochs=e, attack=a) for e in (2, 4) for a in ("PGD", "other")]
    axes = figures.over_epochs(pd.concat(rows), ["PGD", "other"]).axes
    assert [axis.get_title(loc="left") for axis in axes[:3]] == ["ReLU", "β = 1", "β = 0.1"]
    assert not axes[3].get_visible()  # three networks, two columns
    for axis in axes[:3]:
        assert [list(line.get_xdata()) for line in axis.get_lines()] == [[2, 4]] * 2


def test_a_panel_over_the_budget_has_a_line_for_every_network_of_its_training(table):
    one = table[(table["eps"] == 0.1) & (table["beta"] != 0.1)].assign(training_eps=0.0)
    trained = table[(table["eps"] == 0.1) & (table["beta"] != 1)].assign(training_eps=0.3)
    rows = [t.assign(attack=a) for a in ("× 1", "× 2") for t in (one, trained)]
    figure = figures.over_budget(pd.concat(rows), {"× 1": 1.0, "× 2": 2.0})
    for axis in figure.axes:
        assert [list(line.get_xdata()) for line in axis.get_lines()] == [[1, 2]] * 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["ReLU", "β = 1", "β = 0.1"]
    colours = [[line.get_color() for line in axis.get_lines()] for axis in figure.axes]
    assert colours[0][0] == colours[1][0] and colours[0][1] != colours[1][1]  # β by β


def test_figures_of_time_show_others_beside_us_and_how_cost_grows():
    rows = [("PGD", "ours", 1, 1, 1), ("PGD", "theirs", 3, 2, 4), ("fit", "ours", 1, 1, 1)]
    (axis,) = speed.contests(
        pd.DataFrame(rows, columns=["work", "who", "ratio", "low", "high"])
    ).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["PGD", "fit"]
    assert list(axis.get_lines()[0].get_xdata()) == [3]
    grown = pd.DataFrame({"what": "members", "count": [1, 2, 4], "seconds": [0.5, 0.6, 0.9]})
    (axis,) = speed.growth(grown).axes
    measured, even = axis.get_lines()
    assert list(measured.get_ydata()) == [0.5, 0.6, 0.9] and list(even.get_ydata()) == [0.5, 1, 2]


def test_a_heat_map_shows_every_mean_where_it_belongs(table):
    one = table[table["eps"] == 0.1]
    (axis,) = figures.heat_maps(one, "placement", ["robust_accuracy"]).axes
    shown = {tuple(map(int, t.get_position())): t.get_text() for t in axis.texts}
    # Rows as they come (1+2, none), columns ascending (0.1, 1, ∞).
    assert shown == {(0, 0): "0.89", (1, 0): "0.85", (2, 1): "0.10"}
    assert [label.get_text() for label in axis.get_yticklabels()] == ["1+2", "none"]


def test_a_sandwich_has_a_row_for_every_judge_and_a_panel_for_every_training(table):
    one = table[table["eps"] == 0.1]
    trainings = [one.assign(training_eps=e) for e in (0.0, 0.3)]
    judges = ["no attack", "PGD", "certified"]
    rows = pd.concat([t.assign(attack=judge) for t in trainings for judge in judges])
    axes = figures.sandwich(rows, judges, ["certified"]).axes
    assert len(axes) == 2 and [len(axis.texts) for axis in axes] == [9, 9]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == judges
    (edge,) = axes[0].get_lines()
    assert list(edge.get_ydata()) == [1.5, 1.5]


def test_a_bar_goes_as_far_as_the_strong_attack_leaves_and_hatched_to_the_weak_one(table):
    left = {"none": 1.0, "PGD": 0.5, "strong": 0.1}
    capped = table[table["beta"] < 1]
    attacked = pd.concat(capped.assign(robust_accuracy=x, attack=a) for a, x in left.items())
    drawn = [
        figures.hidden(attacked.assign(training_eps=eps), "placement", "PGD", "strong", "none")
        for eps in (0.0, attacked["eps"])
    ]
    titles = [[axis.get_title(loc="left") for axis in figure.axes] for figure in drawn]
    assert titles[0] == ["attacked at ε = 0.1", "attacked at ε = 0.2"]
    assert titles[1] == [f"trained and {title}" for title in titles[0]]
    (first, second) = drawn[0].axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["1+2"]
    for axis in (first, second):
        full, hatched = axis.patches
        assert (full.get_x(), full.get_width()) == pytest.approx((0, 0.1))
        assert (hatched.get_x(), hatched.get_width()) == pytest.approx((0.1, 0.4))
        assert list(axis.get_lines()[-1].get_xdata()) == [1.0]


def test_steps_draw_the_loss_the_images_and_what_has_changed():
    path = pd.DataFrame({"attack": "PGD", "step": range(3), "loss": [0.1, 0.5, 2.0]})
    first, last = torch.zeros(1, 4, 4), torch.full((1, 4, 4), 0.05)
    drawn = figures.followed(path, {"PGD": [("step 0", first), ("step 2", last)]})
    assert list(drawn.axes[0].get_lines()[0].get_ydata()) == [0.1, 0.5, 2.0]
    shown = [axis.images[0].get_array() for axis in drawn.axes[1:]]
    assert [float(pixels.max()) for pixels in shown] == pytest.approx([0, 0.05, 0, 0.05])


def drawn(svg):
    """The points of a picture's lines, scaled: matplotlib's versions differ in margins."""
    paths = " ".join(re.findall(r'"line2d_\d+"> <path d="([^"]+)', svg))
    points = np.array(re.findall(r"[\d.]+", paths), dtype=float).reshape(-1, 2)
    return (points - points.min(0)) / np.ptp(points, axis=0)


def test_the_headline_is_that_of_the_committed_table():
    table = tables.read(BOOK / "results" / "how-robust.csv")
    figure = figures.headline(table)
    chosen = table[(table["training_eps"] == 0) & (table["eps"] == 0.1)]
    means = chosen.groupby(["attack", "beta"])["robust_accuracy"].mean()
    for line, attack in zip(
        figure.axes[0].lines, ["no attack", "PGD", "cap-aware PGD"], strict=True
    ):
        assert np.allclose(line.get_ydata(), means[attack].sort_index())
    now, then = map(drawn, (figure.svg(), (BOOK / "results" / "headline.svg").read_text()))
    assert now.size > 40 and np.allclose(now, then, atol=0.005)
