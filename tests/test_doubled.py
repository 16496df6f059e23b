"""Twice of everything: the committed table, and the parameters that make one."""

import nbformat
import pytest

from cappaper.paper import tables
from cappaper.paper.claims import TESTS
from tests import doubled
from tests.answers import BOOK
from tests.test_book import ROOT
from tests.test_notebooks import tagged

TABLE = tables.read(BOOK / "results" / "doubled.csv")


def test_the_table_has_every_test_and_its_page_shows_it():
    assert TABLE["test"].tolist() == [test.says for test in TESTS]
    assert not TABLE["measured_twice"].str.contains("lacks").any()
    assert "dirty" not in TABLE.attrs["provenance"]["git_commit"]
    assert (BOOK / "results" / "doubled.md").read_text() == doubled.page(TABLE)


def test_the_usual_columns_come_from_the_usual_tables():
    rows, _ = doubled.compared(BOOK / "results", BOOK / "results")
    usual = [name for name in rows if "twice" not in name]
    assert rows[usual].to_dict("records") == TABLE[usual].to_dict("records")


def test_no_answer_changes_as_the_pages_say():
    wanted = TABLE["verdict"].map(doubled.WANTED)
    assert (wanted.isna() | (wanted == TABLE["twice"])).all() and wanted.count() > 10
    longer = TABLE[TABLE["chapter"] == "train-longer"].iloc[0]
    leads = [longer[f"measured_{run}"].rpartition("difference ")[2] for run in ("once", "twice")]
    once, twice = (round(100 * float(lead)) for lead in leads)
    sentence = (
        "On one seed, twice the training and twice the attack turn none of the answers around, but"
        f" by the recipe that favours it the lead of β = 1 shrinks from {once} points to {twice}"
    )
    for page in (ROOT / "README.md", BOOK / "index.md"):
        assert sentence in page.read_text()


@pytest.mark.parametrize("chapter", doubled.deciding(ROOT), ids=lambda chapter: chapter.name)
def test_a_chapter_that_decides_can_do_twice_as_much(chapter):
    source = nbformat.read(ROOT / "notebooks" / f"{chapter.source}.ipynb", 4)
    (parameters,) = tagged(source, "parameters")
    assert "\neffort = 1 " in parameters.source and "\nseeds = " in parameters.source
    code = "".join(cell.source for cell in source.cells)
    assert "effort=effort" in code
    assert code.count("paper.Strongest(") == code.count(").times(effort)")
    assert "paper.AutoAttack(part)" not in code and ".PGD()" not in code
