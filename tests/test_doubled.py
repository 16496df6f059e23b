"""Twice of everything: the committed table, and the parameters that make one."""

import shutil

import nbformat
import pytest

from cappaper.paper import tables
from tests import doubled
from tests.answers import BOOK
from tests.test_book import ROOT
from tests.test_notebooks import tagged

TABLE = tables.read(BOOK / "results" / "doubled.csv")


def test_the_page_shows_its_table():
    assert "dirty" not in TABLE.attrs["provenance"]["git_commit"]
    assert (BOOK / "results" / "doubled.md").read_text() == doubled.page(TABLE)


def test_a_table_beside_itself_has_the_same_answers(tmp_path):
    shutil.copy(BOOK / "results" / "fig-04.csv", tmp_path)
    rows, origin = doubled.compared(tmp_path, tmp_path)
    assert rows["chapter"].tolist() == ["fig-04"] and rows["yes"].tolist() == [5]
    assert rows["once"].tolist() == rows["twice"].tolist() == ["yes"]
    assert "β = 0.05" in rows["measured_twice"][0] and origin["git_commit"]


def test_the_page_says_how_many_answers_stay():
    same = (TABLE["once"] == TABLE["twice"]).sum()
    longer = TABLE[TABLE["chapter"] == "train-longer"].iloc[0]
    leads = [longer[f"measured_{run}"].rpartition("difference ")[2] for run in ("once", "twice")]
    once, twice = (round(100 * float(lead)) for lead in leads)
    sentence = (
        f"On one seed, {same} of {len(TABLE)} questions have the same answer after twice the"
        " training and under twice the attack; by the recipe that favours it, the lead of β = 1"
        f" shrinks from {once} points to {twice}"
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
