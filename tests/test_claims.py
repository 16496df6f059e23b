"""What decides a claim, and that a changed number in any table is noticed."""

import math
import re
import shutil

import pandas as pd
import pytest

from cappaper.paper import chapters, cli, effects, ledger
from cappaper.paper.claims import CLAIMS, Claim, Comparison
from tests.answers import table_of
from tests.conftest import ROOT

COMPARISONS = [one for claim in CLAIMS for one in claim.comparisons]
DECIDING = [one for claim in CLAIMS for one in (*claim.reproduced, *claim.real)]
INF = math.inf


def rates(robust, **columns):
    """A table from {β: one value per seed}."""
    given = {"dataset": "mnist", "images": 10_000, "architecture": "3-2", "placement": "any"}
    given |= {"attack": "PGD", "eps": 0.1, "training_eps": 0.0, "standard_accuracy": 0.98}
    rows = [
        {"beta": beta, "seed": seed, "robust_accuracy": value}
        for beta, values in robust.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(**given | columns)


RELU, HIGH = [0.500, 0.501, 0.499], [0.80, 0.82, 0.81]


@pytest.mark.parametrize(
    ("cap", "word"),
    [
        (HIGH, "yes"),
        ([0.501, 0.500, 0.499], "no"),
        ([0.20, 0.21, 0.19], "reversed"),
        ([0.54, 0.50, 0.55], "not decided"),
    ],
)
def test_an_interval_answers_beyond_short_of_or_below_the_margin(cap, word):
    one = Comparison("fig-04", "some_cap", {}, says="{best} keeps {ours:.0%}")
    answer = one.answer(rates({0.1: cap, INF: RELU}))
    assert answer.word == word and answer.says == f"β = 0.1 keeps {100 * sum(cap) / 3:.0f}%"


@pytest.mark.parametrize(
    ("first", "left", "word"),
    [
        *((HIGH, [0.9] * 3, "yes"), (HIGH, [0.7] * 3, "yes"), (HIGH, [0.64] * 3, "no")),
        *((HIGH, [0.55] * 3, "no"), (HIGH, RELU, "no"), (HIGH, [0.2] * 3, "reversed")),
        (HIGH, [0.60, 0.66, 0.70], "not decided"),
        ([0.20, 0.21, 0.19], RELU, "not decided"),  # nothing was gained at first
        ([0.3, 0.5, 0.75], [0.48] * 3, "no"),
    ],
)
def test_more_than_half_of_an_effect_must_be_left_under_better_evidence(first, left, word):
    half = Comparison("fig-04", "some_cap", {"attack": "other"}, half_of={"attack": "PGD"})
    both = [rates({0.1: first, INF: RELU}), rates({0.1: left, INF: RELU}, attack="other")]
    assert half.answer(pd.concat(both)).word == word


def test_comparisons_that_differ_answer_in_part():
    ask = [Comparison("a", "some_cap", {"eps": eps}, says=f"{eps}.") for eps in (0.1, 0.2)]
    claim = Claim(1, "", "", reproduced=ask, real=ask[:1])
    table = pd.concat([rates({0.1: HIGH, INF: RELU}), rates({0.1: RELU, INF: RELU}, eps=0.2)])
    answers = claim.answers({"a": table})
    assert answers["reproduced"][:2] == ("in part", "0.1. 0.2.")
    assert answers["real"].word == "yes"


def test_the_winner_under_pgd_is_chosen_at_its_own_radius():
    chosen = rates({0.1: HIGH, 1.0: RELU, INF: RELU})
    near = {0.1: [0.3] * 3, 1.0: [0.9] * 3, INF: RELU}
    table = pd.concat([chosen, rates(near, attack="other", eps=0.02)])
    effect = effects.winner_under_pgd(table, "other", 0.02, chosen_at=0.1)
    assert effect.name == 0.1 and effect.ours - effect.theirs == pytest.approx(-0.2)


def test_the_best_of_several_is_compared_with_the_worst():
    parts = [rates({0.1: HIGH, 1.0: [0.0] * 3}, placement="1"), rates({0.1: RELU}, placement="2")]
    effect = effects.best_and_worst(pd.concat(parts), "placement", beta=0.1, architecture="3-2")
    assert (effect.name, effect.other) == ("1", "2")
    assert effect.ours - effect.theirs == pytest.approx(0.31)
    other = rates({0.1: RELU}, architecture="2-3")
    both = pd.concat([parts[0], other])
    effect = effects.best_and_worst(both, "architecture", beta=0.1)
    assert (effect.name, effect.other) == ("3-2", "2-3")
    with pytest.raises(effects.Lacking):
        effects.best_and_worst(both, "architecture", ["3-2"], beta=0.1)


def test_growth_is_of_the_last_hidden_layer_over_the_first():
    rows = [
        {"architecture": "5-5-5", "attack": "PGD", "beta": beta, "seed": seed, "layer": layer}
        | {"relative_l2": (1 + seed / 100) * factor ** ((layer - 1) / 2)}
        for beta, factor in ((0.1, 1.5), (1.0, 3.0), (INF, 2.0))
        for seed in range(3)
        for layer in (1, 2, 3)
    ]
    table = pd.DataFrame(rows)
    assert effects.growth(table, "PGD")[:3] == pytest.approx(("ReLU", 2.0, 1.0))
    slowest = effects.slower_growth(table, "PGD")
    assert slowest.other == 0.1 and slowest[1:3] == pytest.approx((2.0, 1.5))


def named(one):
    return f"{one.chapter}-{one.asks}"


@pytest.mark.parametrize("one", COMPARISONS, ids=named)
def test_a_missing_column_is_named(one):
    table = table_of(one.chapter)
    whole, refused = one.numbers(table), []
    for column in table:
        rest = table.drop(columns=column)
        try:
            # Without single images the draw counts as that of two independent ones: wider.
            assert column == "outcomes" or one.numbers(rest) == whole, column
        except ValueError as error:
            refused.append(column)
            message = f"the table of {one.chapter} has no column '{column}': its columns are "
            assert str(error) == message + ", ".join(rest)
    assert "seed" in refused and len(refused) >= 2


@pytest.mark.parametrize("one", COMPARISONS, ids=named)
def test_a_table_without_the_networks_decides_nothing(one):
    empty = table_of(one.chapter)[:0]
    assert one.answer(empty).word == "not decided" and "lacks" in one.numbers(empty)


@pytest.mark.parametrize("one", DECIDING, ids=named)
def test_an_answer_is_decided_by_at_most_three_numbers(one):
    answer = one.answer(table_of(one.chapter))
    assert answer.word in ("yes", "no", "reversed")
    assert len(re.findall(r"\{(?:ours|theirs)", one.says)) <= 3
    assert one.chapter in {chapter.name for chapter in chapters.manifest(ROOT)}


def test_the_committed_ledger_agrees_with_the_tables(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert cli.main(["claims"]) == 0
    printed = capsys.readouterr().out
    for claim in CLAIMS:
        assert f"{claim.number}. {claim.claim}\n   Reproduced? " in printed
    assert printed.count("Is it real? ") == 6
    assert not re.search("inconclusive|mixed|not decided", printed, re.IGNORECASE)


@pytest.fixture
def book(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "book" / "results", tmp_path / "book" / "results")
    for page in (ledger.PAGE, ledger.NETWORKS):
        shutil.copy(ROOT / "book" / page, tmp_path / "book")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "book"


def test_a_number_edited_in_any_table_is_noticed(book, capsys):
    names = [chapter.name for chapter in chapters.manifest(ROOT)]
    for name in names:
        path = book / "results" / f"{name}.csv"
        lines = path.read_text().splitlines(keepends=True)
        digit = max(i for i, c in enumerate(lines[-1]) if c.isdigit())
        other = str((int(lines[-1][digit]) + 1) % 10)
        path.write_text("".join([*lines[:-1], lines[-1][:digit], other, lines[-1][digit + 1 :]]))
    assert cli.main(["claims"]) == 1
    errors = capsys.readouterr().err
    assert all(f"{name}.csv is not the table" in errors for name in names)


def test_an_answer_edited_by_hand_is_noticed(book, capsys):
    path = book / ledger.LEDGER
    path.write_text(path.read_text().replace(",yes,", ",no,", 1))
    assert cli.main(["claims"]) == 1
    assert "claims.csv is not what the tables give" in capsys.readouterr().err
    ledger.write(book)
    assert cli.main(["claims"]) == 0
    (book / ledger.PAGE).write_text("# Another page")
    assert cli.main(["claims"]) == 1


def test_a_missing_column_table_or_folder_gets_a_sentence(book, tmp_path, monkeypatch, capsys):
    path = book / "results" / "fig-04.csv"
    path.write_text(path.read_text().replace("robust_accuracy", "robust"))
    assert cli.main(["claims"]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("cappaper: the table of fig-04 has no column 'robust_accuracy': its")
    assert errors.count("\n") == 1
    path.unlink()
    assert cli.main(["claims"]) == 1
    assert "fig-04.csv" in capsys.readouterr().err
    monkeypatch.chdir(book)
    assert cli.main(["claims"]) == 1
    assert "run from the project's folder" in capsys.readouterr().err
