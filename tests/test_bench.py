"""The benchmarks: who takes turns, and what the page shows of it."""

import pytest
from scipy import special

from benchmarks import clock, figures
from benchmarks.clock import Hand, contest
from cappaper.paper import tables
from tests.test_book import BOOK


@pytest.fixture
def ticking(monkeypatch):
    """Time passes only where a hand says so."""
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def taking(seconds, left=None):
        def do(size, seed):
            now[0] += seconds(size)
            return left

        return do

    return taking


def test_hands_take_turns_at_their_best_batch_size(ticking, capsys):
    ours = Hand(ticking(lambda size: 2.0, left=0.25))
    peer = Hand(ticking(lambda size: 10 - size, left=0.5), (1, 4, 2))
    rows = contest("work", {"ours": ours, "peer": peer}, "cpu", repeats=3)
    assert [row["who"] for row in rows] == ["ours", "peer"]
    assert rows[1]["batch_size"] == 4 and rows[1]["seconds"] == 6
    assert [row["ratio"] for row in rows] == [1, 3]
    assert [row["left"] for row in rows] == [0.25, 0.5]
    assert [row["error"] for row in rows] == [0, 0]
    assert "work: peer 6 s, × 3.00" in capsys.readouterr().out


@pytest.fixture
def table():
    return tables.read(BOOK / "results" / "how-fast-cpu.csv")


def test_no_peer_finds_more_by_half_a_point_beyond_chance(table):
    for work, rows in table.groupby("work"):
        own, others = rows.iloc[0], rows.iloc[1:]
        # Of so many comparisons by five rounds each, two standard errors would find one by luck.
        freedom, comparisons = 2 * (own["repeats"] - 1), table["left"].notna().sum()
        errors = special.stdtrit(freedom, 1 - 0.05 / comparisons)
        chance = errors * (own["error"] ** 2 + others["error"] ** 2) ** 0.5
        assert not (own["left"] > others["left"] + 0.005 + chance).any(), work


def test_the_page_claims_no_more_than_its_table(table):
    """Less time for every attack; most where images cannot move, least where they withstand."""
    attacks = table[table["left"].notna() & table.duplicated("work")]
    assert (attacks["ratio"] > 1).all()
    fastest = attacks.groupby("work")["ratio"].min()
    assert fastest["PGD-40, β = 0.05"] > fastest["PGD-40, β = 0.1"] > fastest["PGD-40, ReLU"]
    for part in ("apgd-ce", "apgd-t"):
        assert fastest[f"{part}, ReLU"] > fastest[f"{part}, adversarially trained ReLU"]
    step = table[table["work"] == "a step of PGD"].set_index("who")["ratio"]
    assert step["its matrix products alone"] > 1 > step["these as cappaper has them"]


def test_the_page_says_how_cost_grows():
    grown = tables.read(BOOK / "results" / "how-fast-cpu-growth.csv")
    for what, rows in grown.groupby("what"):
        per_piece = rows["seconds"] / rows["count"]
        assert (per_piece.iloc[-1] > per_piece.iloc[0]) == what.startswith("radii"), what


def test_every_contest_is_on_the_page_with_its_ratio(table):
    assert table.groupby("work").size().ge(2).all()
    assert table.groupby("work")["ratio"].first().eq(1).all()
    shown = (BOOK / "results" / "how-fast-cpu.md").read_text()
    for _, row in table.iterrows():
        assert f"| {row['work']} | {row['who']} | " in shown
        assert f" | {row['ratio']:.2f} | " in shown
    assert "dirty" not in shown


def test_the_figures_show_every_contest_and_everything_that_grows(table):
    axis = figures.contests(table).axes[0]
    named = [t.get_text().replace("\n", " ") for t in axis.get_yticklabels()]
    assert named == list(table["work"].unique())
    grown = tables.read(BOOK / "results" / "how-fast-cpu-growth.csv")
    titles = [axis.get_title(loc="left") for axis in figures.growth(grown).axes]
    assert titles == list(grown["what"].unique())
