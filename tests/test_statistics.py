"""When a difference counts: intervals over seeds and images, and a choice among several caps."""

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest

from cappaper.paper import decisions
from cappaper.paper.statistics import (
    AS_MEASURED,
    LEVEL,
    Gain,
    Measured,
    best_elsewhere,
    difference,
    some_beyond,
    widest_beyond,
)
from cappaper.paper.tables import outcomes
from tests.test_claims import rates


@pytest.mark.parametrize(
    ("gain", "margin", "answer"),
    [
        ([0.5, 0.6, 0.55], 0.01, True),
        ([0.0, 0.0, 0.0], 0.01, False),
        ([-0.5, -0.6, -0.55], 0.0, False),
        ([0.5, -0.4, 0.1], 0.0, None),
        ([0.02, 0.03, 0.01], 0.01, None),
        ([0.9], 0.0, None),  # a single seed
    ],
)
def test_a_difference_counts_beyond_margin_and_interval(gain, margin, answer):
    assert Gain(pd.Series(gain)).beyond(margin, LEVEL) is answer


def test_as_measured_one_seed_answers_and_has_no_interval():
    """At this level, even a part of it, a difference is taken as it was measured."""
    for mean, answer in ((0.02, True), (0.009, False)):
        gain = Gain(pd.Series([mean]), image_variance=0.5)
        assert gain.beyond(0.01, AS_MEASURED / 7) is answer
        assert gain.text(AS_MEASURED) == f"{mean:+.3f}"
    assert Gain(pd.Series([0.878 - 0.868])).beyond(0.01, AS_MEASURED) is None
    assert Gain(pd.Series([0.02, 0.04])).interval(AS_MEASURED) == pytest.approx((0.03, 0.03))
    answer, text = some_beyond({1.0: rows([[1, 1]], 2)}, rows([[1, 0]], 2), 0.01, AS_MEASURED)
    assert answer is True and text == "+0.500"


def test_a_stricter_level_and_fewer_images_widen_the_interval():
    gains, few = Gain(pd.Series([0.5, 0.6, 0.55])), Gain(pd.Series([0.5, 0.6, 0.55]), 0.01)
    intervals = (gains.interval(0.05), gains.interval(0.01), few.interval(0.01))
    widths = [high - low for low, high in intervals]
    assert widths[0] < widths[1] < widths[2]


def rows(robust, images, value="robust_accuracy"):
    means = [np.mean(row) for row in robust]
    table = {"seed": range(len(robust)), value: means, "images": images, "dataset": "mnist"}
    if value == "robust_accuracy":
        table["outcomes"] = [outcomes(row) for row in robust]
    return Measured.of_rows(pd.DataFrame(table), value)


def test_common_images_lower_the_variance_and_all_images_leave_none():
    rng = np.random.default_rng(0)
    one = (rng.random((3, 400)) < 0.6).tolist()
    other = [[a and i % 10 > 0 for i, a in enumerate(row)] for row in one]
    paired = difference([rows(one, 400)] * 3, [rows(other, 400)] * 3)
    apart = rows(one, 400, "success_rate").minus(rows(other, 400, "success_rate"))
    assert 0 < paired.image_variance < apart.image_variance
    assert rows(one, 10_000).minus(rows(other, 10_000)).image_variance == 0
    # The sampling itself: as many of 400 images as an average says, with its spread.
    expected = np.var(np.mean(one, axis=0) - np.mean(other, axis=0), ddof=1) / 400 * (1 - 0.04)
    assert paired.image_variance == pytest.approx(expected)


def test_a_cap_is_chosen_by_other_seeds_than_those_that_judge_it():
    lucky = {"a": pd.Series([1.0, 0.0, 0.0]), "b": pd.Series([0.0, 0.9, 0.0])}
    assert best_elsewhere(lucky) == ["b", "a", "a"]
    assert best_elsewhere({"a": pd.Series([0.3]), "b": pd.Series([0.4])}) == ["b"]


def noise(rng, mean, seeds):
    return Measured(pd.Series(rng.normal(mean, 0.05, seeds)), 10_000, 10_000)


def drawn(rng, means, **columns):
    """A table of five seeds with these robust accuracies, on average."""
    return rates({beta: rng.normal(mean, 0.03, 5) for beta, mean in means.items()}, **columns)


def best_of_caps(rng, seeds, count):
    """Every cap exceeds ReLU by the margin itself: neither answer would be right."""
    caps = {i: noise(rng, 0.51, seeds) for i in range(count)}
    return some_beyond(caps, noise(rng, 0.5, seeds), 0.01, LEVEL)[0]


def widest_gap(rng, seeds):
    """There is none."""
    groups = [{i: noise(rng, 0.5, seeds) for i in range(3)} for _ in range(3)]
    return widest_beyond(groups, 0.0, LEVEL)[0]


def rise_and_fall(rng):
    """From ReLU, success rises by the margin itself, and ends below ReLU by the margin."""
    return decisions.lowering(drawn(rng, {0.1: 0.50, 1.0: 0.48, math.inf: 0.49})).holds


def half_a_gain(rng):
    """Under the other attack half of the gain is left: neither answer would be right."""
    caps, relu = (0.1, 0.2, 0.5, 1.0, 2.0), {math.inf: 0.1}
    shown, left = (dict.fromkeys(caps, mean) | relu for mean in (0.7, 0.4))
    tables = [drawn(rng, shown), drawn(rng, left, attack="other")]
    return decisions.surviving(pd.concat(tables), "other").holds


@pytest.mark.parametrize(
    ("decide", "wrong"),
    [(partial(best_of_caps, seeds=s, count=n), (True, False)) for s in (3, 5) for n in (1, 7)]
    + [(partial(widest_gap, seeds=3), (True,)), (partial(widest_gap, seeds=5), (True,))]
    + [(rise_and_fall, (True, False)), (half_a_gain, (True, False))],
)
def test_a_wrong_answer_is_rare(decide, wrong):
    rng = np.random.default_rng(0)
    answers = [decide(rng) for _ in range(400)]
    for answer in wrong:  # with what 400 trials leave to chance
        limit = LEVEL + 2 * math.sqrt(LEVEL * (1 - LEVEL) / len(answers))
        assert np.mean([a is answer for a in answers]) <= limit


def test_a_large_gain_and_a_large_gap_are_reported():
    rng = np.random.default_rng(0)
    caps = {i: noise(rng, 0.5 + 0.3 * (i == 4), 3) for i in range(7)}
    assert some_beyond(caps, noise(rng, 0.1, 3), 0.01, LEVEL)[0] is True
    assert some_beyond(caps, noise(rng, 2.0, 3), 0.01, LEVEL)[0] is False
    groups = [{"high": noise(rng, 2.0, 3), "low": noise(rng, 0.0, 3)}]
    answer, text, high, low = widest_beyond(groups, 0.01, LEVEL)
    assert answer is True and high is groups[0]["high"] and low is groups[0]["low"]
    assert text.startswith("+")


def test_a_network_with_two_rows_in_a_table_is_refused():
    table = pd.DataFrame({"seed": [0, 0], "accuracy": [0.1, 0.2]})
    with pytest.raises(ValueError, match="duplicate rows"):
        Measured.of_rows(table, "accuracy")
