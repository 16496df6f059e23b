"""What this folder has beside tests: sizes, mutants, trials, a referee, and twice of everything."""

import shutil

import nbformat
import pandas as pd
import pytest

import cappaper
from cappaper import PRETRAINED, load
from cappaper.paper import tables
from cappaper.paper.tables import markdown_table
from tests import doubled
from tests.mutants import TARGETS, files_of
from tests.referee import compared
from tests.test_book import BOOK, ROOT
from tests.test_notebooks import tagged
from tests.trust import nonsense
from tests.trust.__main__ import KINDS, count

TRIALS = ROOT / "book" / "results" / "how-it-is-tested.csv"
DOUBLED = tables.read(BOOK / "results" / "doubled.csv")


def test_every_part_names_files_that_exist():
    paths = [path for part in TARGETS for paths in files_of(part) for path in paths]
    assert all((ROOT / path).exists() for path in paths)


@pytest.mark.parametrize(
    ("kind", "cases"), [("nonsense", 300), ("damage", 10), ("interrupts", 50), ("threads", 3)]
)
def test_trials_find_no_fault(kind, cases):
    faults, _ = count(kind, cases, seed=1)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", nonsense.CALLS)
def test_a_call_works_before_its_arguments_become_odd(name):
    assert not nonsense.call(name, {})


@pytest.mark.parametrize(("eps", "fault"), [("0.1", "is wrong"), ("0.2", "KeyError")])
def test_a_trial_finds_wrong_answers_and_bare_errors(monkeypatch, eps, fault):
    monkeypatch.setattr(cappaper, "fgsm", lambda model, x, y, eps: {0.1: x + 1}[eps])
    with pytest.raises(AssertionError, match=fault):
        nonsense.call("fgsm", {"eps": eps})


def test_the_page_shows_the_table_and_nothing_went_wrong_in_it():
    table = pd.read_csv(TRIALS, index_col="trial")
    assert TRIALS.with_suffix(".md").read_text() == f"{markdown_table(table, 'trial')}\n"
    assert (table["went wrong"] == 0).all()
    assert table["cases"].to_dict() == {title: cases for title, cases, *_ in KINDS.values()}


def test_every_public_function_has_a_call_that_works():
    public = {name for name in cappaper.__all__ if callable(getattr(cappaper, name))}
    records = {"Bounded", "Dataset", "Indicator", "MaskingReport", "Rates", "RobustnessReport"}
    assert public - records - {"exact_gradient"} == set(nonsense.CALLS)


def test_the_strongest_attack_leaves_no_more_than_autoattack():
    table = tables.read(BOOK / "results" / "referee.csv")
    assert set(table["network"]) == set(PRETRAINED)
    assert int(table.attrs["provenance"]["images"]) >= 500
    gap = (table["AutoAttack"] - table["strongest_attack"]).set_axis(table["network"])
    assert gap.min() >= 0 and gap["cap-0.05"] > 0.1
    signs = table["signs of masking"].set_axis(table["network"])
    assert (signs[gap > 0.01] >= 4).all() and gap[signs == 0].max() < 0.003
    assert (table["both"] <= table[["strongest_attack", "AutoAttack"]].min(axis=1)).all()
    row = table.set_index("network").loc["cap-0.05"]
    assert row["AutoAttack"] > 3 * row["strongest_attack"]
    assert "on `cap-0.05` it leaves several times as many" in (ROOT / "README.md").read_text()


def test_both_attack_the_same_images_of_the_same_network():
    row = compared("cap-0.05", load("mnist-sample", "test", limit=4))
    assert 0 <= row["both"] <= min(row["strongest_attack"], row["AutoAttack"])
    assert max(row["strongest_attack"], row["AutoAttack"]) <= row["no attack"] <= 1


def test_the_page_shows_its_table():
    assert "dirty" not in DOUBLED.attrs["provenance"]["git_commit"]
    assert (BOOK / "results" / "doubled.md").read_text() == doubled.page(DOUBLED)


def test_a_table_beside_itself_has_the_same_answers(tmp_path):
    shutil.copy(BOOK / "results" / "fig-04.csv", tmp_path)
    rows, origin = doubled.compared(tmp_path, tmp_path)
    assert {*rows["chapter"]} == {"fig-04"} and {*rows["yes"]} == {10}
    assert {*rows["once"], *rows["twice"]} == {"yes"}
    assert "β = 0.05" in rows["measured_twice"][0] and origin["git_commit"]


def test_the_page_says_how_the_lead_shrinks():
    chapters = DOUBLED[DOUBLED["test"].str.contains("ε = 0.3.*strongest")].groupby("chapter")
    rows = chapters.first()[["measured_once", "measured_twice"]]
    leads = rows.apply(lambda column: column.str.rpartition("difference ")[2].astype(float))
    short = leads.loc[["how-robust", "what-survives"]]
    assert (short["measured_twice"] > short["measured_once"]).all()
    once, twice = (100 * leads.loc["train-longer"]).round().astype(int)
    sentence = (
        f"After 40 epochs of adversarial training at ε = 0.3, β = 1 leads by {once} points, and"
        f" after twice as many, by {twice}. Its lead after six epochs does not shrink"
    )
    assert sentence in (BOOK / "doubled.md").read_text()


@pytest.mark.parametrize("chapter", doubled.deciding(ROOT), ids=lambda chapter: chapter.name)
def test_a_chapter_that_decides_can_do_twice_as_much(chapter):
    source = nbformat.read(ROOT / "notebooks" / f"{chapter.source}.ipynb", 4)
    (parameters,) = tagged(source, "parameters")
    assert "\neffort = 1 " in parameters.source and "\nseeds = " in parameters.source
    code = "".join(cell.source for cell in source.cells)
    assert "effort=effort" in code
    assert code.count("paper.Strongest(") == code.count(").times(effort)")
    assert "paper.AutoAttack(part)" not in code and ".PGD()" not in code
