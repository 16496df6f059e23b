"""When a difference counts: intervals over seeds and images, and choices that cost nothing."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from cappaper.paper import decisions
from cappaper.paper.statistics import (
    AS_MEASURED,
    LEVEL,
    Gain,
    Measured,
    best_beyond,
    best_elsewhere,
    difference,
    some_beyond,
)
from cappaper.paper.tables import outcomes


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
    """A level, however it is shared, at which a difference is what it is."""
    for mean, answer in ((0.02, True), (0.009, False)):
        gain = Gain(pd.Series([mean]), image_variance=0.5)
        assert gain.beyond(0.01, AS_MEASURED / 7) is answer
        assert gain.text(AS_MEASURED) == f"{mean:+.3f}"
    assert Gain(pd.Series([0.878 - 0.868])).beyond(0.01, AS_MEASURED) is None
    assert Gain(pd.Series([0.02, 0.04])).interval(AS_MEASURED) == pytest.approx((0.03, 0.03))
    answer, text, _ = some_beyond({1.0: rows([[1, 1]], 2)}, rows([[1, 0]], 2), 0.01, AS_MEASURED)
    assert answer is True and text == "+0.500"


def test_a_stricter_level_and_fewer_images_widen_the_interval():
    gains = pd.Series([0.5, 0.6, 0.55])
    widths = [
        high - low
        for low, high in (
            Gain(gains).interval(0.05),
            Gain(gains).interval(0.01),
            Gain(gains, 0.01).interval(0.01),
        )
    ]
    assert widths == sorted(widths) and widths[0] < widths[1] < widths[2]


def rows(stands, images, value="robust_accuracy"):
    table = {
        "seed": range(len(stands)),
        value: [np.mean(row) for row in stands],
        "images": images,
        "dataset": "mnist",
    }
    if value == "robust_accuracy":
        table["outcomes"] = [outcomes(row) for row in stands]
    return Measured.of_rows(pd.DataFrame(table), value)


def test_images_in_common_tell_more_and_all_images_tell_all():
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


def test_who_is_chosen_for_a_number_is_not_judged_by_it():
    lucky = {"a": pd.Series([1.0, 0.0, 0.0]), "b": pd.Series([0.0, 0.9, 0.0])}
    assert best_elsewhere(lucky) == ["b", "a", "a"]
    assert best_elsewhere({"a": pd.Series([0.3]), "b": pd.Series([0.4])}) == ["b"]


def noise(rng, mean, seeds):
    return Measured(pd.Series(rng.normal(mean, 0.05, seeds)), 10_000, 10_000)


def wrong(answers):
    """The share of wrong answers, with what 400 trials leave to chance."""
    return np.mean(answers) - 2 * math.sqrt(LEVEL * (1 - LEVEL) / len(answers))


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("count", [1, 7])
def test_without_a_gain_the_best_of_several_is_rarely_one(seeds, count):
    """Every cap exceeds ReLU by the margin itself: neither answer would be right."""
    rng, found = np.random.default_rng(seeds), []
    for _ in range(400):
        caps = {i: noise(rng, 0.51, seeds) for i in range(count)}
        found.append(some_beyond(caps, noise(rng, 0.5, seeds), 0.01, LEVEL)[0])
    assert wrong([answer is True for answer in found]) <= LEVEL
    assert wrong([answer is False for answer in found]) <= LEVEL


@pytest.mark.parametrize("seeds", [3, 5])
def test_without_a_difference_the_widest_gap_is_rarely_one(seeds):
    rng, found = np.random.default_rng(seeds), []
    for _ in range(400):
        groups = [[noise(rng, 0.5, seeds) for _ in range(3)] for _ in range(3)]
        pairs = [pair for group in groups for pair in itertools.permutations(group, 2)]
        found.append(best_beyond(dict(enumerate(pairs)), 0.0, LEVEL, "widest")[0])
    assert wrong([answer is True for answer in found]) <= LEVEL


def drawn(rng, means, attack="PGD"):
    """A table of five seeds with these robust accuracies, on average."""
    rows = {
        "dataset": "mnist",
        "images": 10_000,
        "architecture": "3-2",
        "placement": "any",
        "attack": attack,
        "eps": 0.1,
        "training_eps": 0.0,
        "seed": range(5),
        "standard_accuracy": 1.0,
    }
    drawn = {beta: rng.normal(mean, 0.03, 5) for beta, mean in means.items()}
    return pd.concat(
        [pd.DataFrame(rows | {"beta": b, "robust_accuracy": v}) for b, v in drawn.items()]
    )


def test_at_the_margin_neither_a_rise_nor_a_fall_is_seen():
    """From ReLU, success rises by the margin itself, and ends below ReLU by the margin."""
    rng, means = np.random.default_rng(0), {0.1: 0.50, 1.0: 0.48, math.inf: 0.49}
    found = [decisions.lowering(drawn(rng, means)).holds for _ in range(400)]
    assert wrong([answer is True for answer in found]) <= LEVEL
    assert wrong([answer is False for answer in found]) <= LEVEL


def test_where_half_of_a_gain_is_left_neither_answer_is_given():
    rng, relu = np.random.default_rng(0), {math.inf: 0.1}
    caps = (0.1, 0.2, 0.5, 1.0, 2.0)
    found = []
    for _ in range(400):
        shown = drawn(rng, dict.fromkeys(caps, 0.7) | relu)
        left = drawn(rng, dict.fromkeys(caps, 0.4) | relu, "other")
        found.append(decisions.surviving(pd.concat([shown, left]), "other").holds)
    assert wrong([answer is not None for answer in found]) <= LEVEL


def test_a_real_gain_and_a_real_gap_are_found():
    rng = np.random.default_rng(0)
    caps = {i: noise(rng, 0.5 + 0.3 * (i == 4), 3) for i in range(7)}
    assert some_beyond(caps, noise(rng, 0.1, 3), 0.01, LEVEL)[0] is True
    assert some_beyond(caps, noise(rng, 2.0, 3), 0.01, LEVEL)[0] is False
    high, low = noise(rng, 2.0, 3), noise(rng, 0.0, 3)
    pairs = {"up": (high, low), "down": (low, high)}
    answer, text, name = best_beyond(pairs, 0.01, LEVEL, "widest")
    assert answer is True and name == "up" and text.startswith("+")


def test_duplicate_rows_of_a_network_are_refused():
    table = pd.DataFrame({"seed": [0, 0], "accuracy": [0.1, 0.2]})
    with pytest.raises(ValueError, match="duplicate rows"):
        Measured.of_rows(table, "accuracy")
