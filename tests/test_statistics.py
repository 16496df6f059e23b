"""Intervals over seeds and images, against scipy's tests and against simulations."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cappaper import load
from cappaper.paper.claims import MARGIN
from cappaper.paper.effects import LEVEL, TEST_IMAGES, Measured, above, over_constant, widest
from cappaper.paper.tables import outcomes


def drawn(rng, mean, seeds=5, spread=0.03):
    return Measured(pd.Series(rng.normal(mean, spread, seeds)))


def test_intervals_are_a_little_wider_than_those_of_dunnett_and_tukey():
    rng = np.random.default_rng(0)
    networks = {name: drawn(rng, 0.5) for name in "abcd"}
    samples = [network.values for network in networks.values()]
    control = drawn(rng, 0.4)
    effect = above(networks, control)
    dunnett = stats.dunnett(*samples, control=control.values, rng=rng).confidence_interval()
    place = "abcd".index(effect.name)
    assert 1 < (effect.high - effect.low) / (dunnett.high[place] - dunnett.low[place]) < 1.1
    effect = widest(networks)
    tukey = stats.tukey_hsd(*samples).confidence_interval()
    place = "abcd".index(effect.name), "abcd".index(effect.other)
    assert 1 < (effect.high - effect.low) / (tukey.high[place] - tukey.low[place]) < 1.1


def test_one_candidate_has_the_interval_of_students_t_on_the_same_images():
    rng = np.random.default_rng(1)
    one, other = drawn(rng, 0.5), drawn(rng, 0.4)
    with pytest.raises(ValueError, match="were judged on different images"):
        above({"a": one._replace(which="others")}, other)
    effect = above({"a": one}, other)
    expected = stats.ttest_ind(one.values, other.values).confidence_interval()
    assert (effect.low, effect.high) == pytest.approx((expected.low, expected.high))
    effect = over_constant("a", one, 0.3)
    expected = stats.ttest_1samp(one.values, 0.3).confidence_interval()
    assert (effect.low, effect.high) == pytest.approx((expected.low - 0.3, expected.high - 0.3))


def test_one_seed_has_a_difference_and_no_interval():
    one, other = (rows([[True] * good + [False] * (10 - good)], 10) for good in (8, 5))
    for effect in (above({"a": one}, other), widest({"a": one, "b": other})):
        assert effect.ours - effect.theirs == pytest.approx(0.3)
        assert (effect.low, effect.high) == (-math.inf, math.inf)
    assert over_constant("a", one, 0.5)[3:5] == (-math.inf, math.inf)
    assert {"mnist": 10_000, "digits": len(load("digits", "test").labels)} == TEST_IMAGES


def rows(robust, images, value="robust_accuracy"):
    means = [np.mean(row) for row in robust]
    table = {"seed": range(len(robust)), value: means, "images": images, "dataset": "mnist"}
    table |= {"outcomes": [outcomes(row) for row in robust]}
    return Measured.of_rows(pd.DataFrame(table), value)


def test_a_draw_of_images_widens_the_interval_less_where_networks_share_it():
    rng = np.random.default_rng(0)
    one = (rng.random((3, 400)) < 0.6).tolist()
    other = [[a and i % 10 > 0 for i, a in enumerate(row)] for row in one]
    widths = []
    for images, value in ((10_000, "robust_accuracy"), (400, "robust_accuracy"), (400, "kept")):
        effect = above({"a": rows(one, images, value)}, rows(other, images, value))
        widths.append(effect.high - effect.low)
    assert widths[0] < widths[1] < widths[2]
    mixed = above({"a": rows(one, 400)}, rows(other, 400, "kept"))
    assert mixed.high - mixed.low == pytest.approx(widths[2])
    # The sampling itself: as many of 400 images as an average says, with its spread.
    variance = np.var(np.mean(one, axis=0) - np.mean(other, axis=0), ddof=1) / 400 * (1 - 0.04)
    added = (widths[1] ** 2 - widths[0] ** 2) / 4
    assert added == pytest.approx(stats.norm.ppf(1 - LEVEL / 2) ** 2 * variance)
    apart = sum(m * (1 - m) for m in (np.mean(one), np.mean(other))) / 400 * (1 - 0.04)
    assert (widths[2] ** 2 - widths[0] ** 2) / added == pytest.approx(4 * apart / variance)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("caps", [1, 7])
def test_an_effect_that_is_not_there_is_rarely_found(caps, seeds):
    """Every cap exceeds ReLU by the margin itself: neither answer would be right."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        networks = {i: drawn(rng, 0.5 + MARGIN, seeds) for i in range(caps)}
        effect = above(networks, drawn(rng, 0.5, seeds))
        wrong += effect.low > MARGIN or effect.high < MARGIN
        groups = [drawn(rng, 0.5, seeds) for _ in range(caps + 1)]
        wrong += widest(dict(enumerate(groups))).low > 0
    # Two questions; with what 800 trials leave to chance.
    assert wrong / 800 <= LEVEL + 2 * math.sqrt(LEVEL * (1 - LEVEL) / 800)


def test_an_effect_of_twice_the_margin_is_found_by_five_seeds():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        networks = {i: drawn(rng, 0.5 + 2 * MARGIN * (i == 2), spread=0.008) for i in range(7)}
        found += above(networks, drawn(rng, 0.5, spread=0.008)).low > 0
    assert found >= 0.9 * 200


def test_a_network_with_two_rows_in_a_table_is_refused():
    table = pd.DataFrame({"seed": [0, 0], "accuracy": [0.1, 0.2]})
    with pytest.raises(ValueError, match="duplicate rows"):
        Measured.of_rows(table, "accuracy")
