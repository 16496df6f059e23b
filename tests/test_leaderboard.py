"""The table of all networks: its order, its numbers, and its buttons."""

import math
import re

from cappaper.paper import leaderboard
from cappaper.paper.tables import STRONGEST
from tests.answers import table_of
from tests.conftest import ROOT

TABLE = leaderboard.leaderboard(ROOT / "book")


def test_rows_are_ordered_and_bounds_agree():
    known = TABLE.dropna(subset="certified")
    assert (known["certified"] <= known["strongest attack"]).all()
    assert (TABLE["strongest attack"] <= TABLE["PGD"]).all()
    assert (TABLE["PGD"] <= TABLE["standard"]).all()
    assert not TABLE.duplicated(["network", "trained at ε", "epochs", "attacked at ε"]).any()
    for _, group in TABLE.groupby("attacked at ε"):
        assert group["strongest attack"].is_monotonic_decreasing
    names = "how-robust what-survives train-longer smaller-radius another-schedule train-knowing"
    assert set(TABLE["chapter"]) == set(names.split())


def test_the_page_has_every_row():
    page = (ROOT / "book" / "all-networks.md").read_text()
    assert page == leaderboard.page(ROOT / "book")
    for _, row in TABLE.iterrows():
        assert f"| {row['network']} | {row['trained at ε']:g} | {row['epochs']} |" in page


def test_the_recipes_have_the_numbers_of_their_chapters_():
    lines = (ROOT / "book" / "results" / "recipes.md").read_text().splitlines()
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in lines if line[:4] == "| 0."]
    assert len(rows) == 8
    for eps, link, *cells in rows:
        chapter = re.search(r"<chapters/(.*)>", link)[1]
        table = table_of(chapter)
        table = table[(table["training_eps"] == float(eps)) & (table["eps"] == float(eps))]
        if "epochs" in table:
            table = table[table["epochs"] == table["epochs"].max()]
        by = ["variant" if "variant" in table else "beta", "attack"]
        mean = table.groupby(by)["robust_accuracy"].mean()
        knowing = chapter == "what-survives"
        # No ReLU was trained along the smooth slope there: no control, no number.
        plain = ["", "β = 1, knowing", "β = 0.2, knowing"] if knowing else [math.inf, 1.0, 0.2]
        for name, cell in zip(plain, cells, strict=True):
            left, pgd = (100 * mean.get((name, a), math.nan) for a in (STRONGEST, "PGD"))
            assert cell == ("" if math.isnan(left) else f"{left:.0f} ({pgd:.0f})"), chapter
