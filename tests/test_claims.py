"""What decides a claim, and that a changed number in any table is noticed."""

import math
import re
import shutil

import pandas as pd
import pytest

from cappaper.paper import chapters, claims, cli, decisions, growth, ledger, tables
from cappaper.paper.decision import Decision, Undecided
from tests.conftest import ROOT

TABLES = sorted({test.chapter for test in claims.TESTS})


def rates(robust, **columns):
    """A table from {β: one value per seed}."""
    given = {"dataset": "mnist", "images": 10_000, "architecture": "3-2", "placement": "any"}
    given |= {"attack": "PGD", "eps": 0.1, "training_eps": 0.0, "standard_accuracy": 0.98}
    rows = [
        {"beta": beta, "seed": seed, "robust_accuracy": value, "success_rate": 1 - value / 0.98}
        for beta, values in robust.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(**given | columns)


RELU = {math.inf: [0.05, 0.06, 0.04]}
HIGH, LOW = [0.8, 0.82, 0.81], [0.02, 0.02, 0.02]


def test_a_cap_must_beat_relu_in_every_architecture():
    better, worse = rates({0.1: HIGH, **RELU}), rates({0.1: LOW, **RELU}, architecture="2-3")
    assert decisions.capping(better).holds is True
    assert decisions.capping(worse).holds is False
    both = decisions.capping(pd.concat([better, worse]))
    assert both.holds is False and "3-2" in both.evidence and "2-3" in both.evidence


def test_a_gain_must_survive_another_attack():
    shown = rates({0.1: HIGH, **RELU})
    lost, kept = (rates({0.1: v, **RELU}, attack="other") for v in (RELU[math.inf], HIGH))
    trained = rates({0.1: HIGH}, attack="other", training_eps=0.1)
    for other, answer in (([lost], False), ([kept], True), ([lost, trained], False)):
        assert decisions.surviving(pd.concat([shown, *other]), "other").holds is answer
    no_gain = rates({0.1: LOW, math.inf: HIGH})  # nothing that could survive
    assert decisions.surviving(pd.concat([no_gain, kept]), "other").holds is None


STEPS = {2.0: [0.9] * 3, 1.0: [0.891] * 3, 0.5: [0.882] * 3, 0.2: [0.873] * 3}


@pytest.mark.parametrize(
    ("robust", "answer"),
    [
        ({0.1: [0.9, 0.9, 0.91], 1.0: [0.5, 0.52, 0.51], **RELU}, True),
        ({0.01: [0.3, 0.3, 0.31], 0.1: [0.9, 0.9, 0.91], 1.0: [0.5, 0.52, 0.51], **RELU}, False),
        # Steps of less than a point add up to 0.027.
        ({0.1: [0.97] * 3, **STEPS, math.inf: [0.905] * 3}, False),
        ({0.1: [0.9, 0.9, 0.91], 1.0: [0.05, 0.02, 0.06], **RELU}, None),  # noise
    ],
    ids=["falls all the way", "turns", "small steps", "noisy seeds"],
)
def test_a_lower_cap_must_be_better_all_the_way(robust, answer):
    assert decisions.lowering(rates(robust)).holds is answer


def test_a_lower_cap_must_be_better_in_every_architecture():
    falling = rates({0.1: [0.9, 0.9, 0.91], **RELU})
    rising = rates({0.1: LOW, **RELU}, architecture="2-3")
    both = pd.concat([falling, rising])
    assert decisions.lowering(both).holds is False
    both["training_eps"] = [0.0] * len(falling) + [0.1] * len(rising)  # another question
    assert decisions.lowering(both).holds is True
    with pytest.raises(Undecided):
        decisions.lowering(both, attack="other")


def distances(**growth):
    """A table of a network of three layers for each β: how its L2 grows, for each attack."""
    rows = [
        {"architecture": "5-5-5", "attack": attack, "beta": beta, "seed": seed, "layer": layer}
        | {name: (1 + seed / 100) * factor ** ((layer - 1) / 2) for name in ("l2", "relative_l2")}
        for attack, factors in growth.items()
        for beta, factor in factors.items()
        for seed in range(3)
        for layer in (1, 2, 3)
    ]
    return pd.DataFrame(rows)


def test_growth_is_compared_between_networks_and_between_attacks():
    less = distances(PGD={0.1: 1.0, math.inf: 2.0}, noise={0.1: 0.5, math.inf: 0.5})
    more = distances(PGD={0.1: 1.0, 1.0: 3.0, math.inf: 2.0}, noise={math.inf: 2.5})
    for table in (less, more):
        assert growth.growth(table).holds is True
    assert growth.growth_of_relu(less).holds is True
    assert growth.growth_of_relu(more).holds is False  # one cap with more is enough
    assert growth.growth_of_attack(less).holds is True
    assert growth.growth_of_attack(more).holds is False
    with pytest.raises(Undecided):
        growth.growth_of_relu(less[less["beta"] == math.inf])


def test_an_untrained_network_is_not_compared():
    wide = rates({0.1: HIGH, **RELU})
    failed = rates({0.1: [0.1] * 3}, architecture="2-3", standard_accuracy=0.2)
    relu = rates(RELU, architecture="2-3")
    with pytest.raises(Undecided):  # one network is left at this β
        decisions.differing(pd.concat([wide, failed, relu]))
    assert decisions.differing(pd.concat([wide, failed.assign(standard_accuracy=0.95), relu])).holds


def test_order_is_compared_at_the_same_cap():
    there = rates({0.1: HIGH, **RELU})
    with pytest.raises(Undecided):  # nothing to compare it with
        decisions.ordering(there)
    back = rates({0.1: [0.5, 0.51, 0.52], **RELU}, architecture="2-3")
    decision = decisions.ordering(pd.concat([there, back]))
    assert decision.holds is True and "0.480 (± 0.010) for 2-3" in decision.evidence
    same = rates({0.1: HIGH, **RELU}, architecture="2-3")
    assert decisions.ordering(pd.concat([there, same])).holds is False


@pytest.mark.parametrize(
    ("paper", "other", "verdict"),
    [
        ([True, True], [], "holds"),
        ([False, False], [], "does not hold"),
        ([True, False], [], "mixed"),
        ([False, None], [], "inconclusive"),
        ([True, True], [False], "mixed: under the paper's attack only"),
        ([True, True], [False, None], "mixed"),
        ([True, True], [None], "inconclusive"),
        ([], [True], "holds"),
        ([], [None], "inconclusive"),
    ],
)
def test_the_verdict_on_a_claim(paper, other, verdict):
    uses = [True] * len(paper) + [False] * len(other)
    tests = [claims.Test(1, "x", "says", growth.growth, paper=own) for own in uses]
    assert claims.verdict(tests, [Decision(answer, "") for answer in paper + other]) == verdict


def committed(test):
    return tables.read(ROOT / "book" / "results" / f"{test.chapter}.csv")


@pytest.mark.parametrize("test", claims.TESTS, ids=lambda test: f"{test.claim}-{test.chapter}")
def test_a_missing_column_is_no_inconclusive_test(test):
    table = committed(test)
    whole, refused = claims.decided(test, table), []
    for column in table:
        rest = table.drop(columns=column)
        try:
            assert claims.decided(test, rest) == whole, column
        except ValueError as error:
            refused.append(column)
            message = f"the table of {test.chapter} has no column '{column}': its columns are "
            assert str(error) == message + ", ".join(rest)
    assert "seed" in refused and len(refused) >= 3


@pytest.mark.parametrize("test", claims.TESTS, ids=lambda test: f"{test.claim}-{test.chapter}")
def test_a_table_without_the_networks_is_inconclusive(test):
    table = committed(test)
    # Without a cap there is nothing to compare; growth through ReLU lacks ReLU instead.
    about = (growth.growth, growth.growth_of_attack)
    relu, about_relu = table["beta"] == math.inf, test.decide in about
    for few in (table[:0], table[~relu if about_relu else relu]):
        assert claims.decided(test, few).verdict == "inconclusive"


def test_every_claim_is_decided_by_a_table_with_all_its_columns():
    verdicts = ledger.verdicts(ROOT / "book")
    assert sorted(set(verdicts["claim"])) == [1, 2, 3, 4, 5, 6]
    assert not verdicts["evidence"].str.contains("lacks|nan").any()
    assert set(verdicts["chapter"]) <= {chapter.name for chapter in chapters.manifest(ROOT)}


def test_a_test_is_of_the_papers_attack_unless_it_names_another():
    other = re.compile("strongest attack|exact robust|knows about|L2|Carlini")
    for test in claims.TESTS:
        assert test.paper is not bool(other.search(test.says)), test.says


def test_the_committed_ledger_agrees_with_the_tables(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert cli.main(["claims"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{claim.number}. {claim.says} " in printed for claim in claims.CLAIMS)


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


def test_a_verdict_edited_by_hand_is_noticed(book, capsys):
    path = book / ledger.LEDGER
    path.write_text(path.read_text().replace(",holds,", ",does not hold,", 1))
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
    (book / "results" / f"{TABLES[0]}.csv").unlink()
    assert cli.main(["claims"]) == 1
    assert f"{TABLES[0]}.csv" in capsys.readouterr().err
    monkeypatch.chdir(book)
    assert cli.main(["claims"]) == 1
    assert "run from the project's folder" in capsys.readouterr().err
