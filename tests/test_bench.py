"""The benchmarks: turns, tables, and the claims of their page."""

from functools import partial

from scipy import special

from benchmarks import clock
from benchmarks.clock import Hand, contest
from cappaper.paper import tables
from tests.test_book import BOOK

TABLE = tables.read(BOOK / "results" / "how-fast-cpu.csv")
GROWTH = tables.read(BOOK / "results" / "how-fast-cpu-growth.csv")


def test_competitors_take_turns_at_their_best_batch_size(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def work(seconds, left, size, seed):
        now[0] += seconds(size)
        return left

    ours = Hand(partial(work, lambda size: 2.0, 0.25))
    peer = Hand(partial(work, lambda size: 10 - size, 0.5), (1, 4, 2))
    table = contest("work", {"ours": ours, "peer": peer}, repeats=3)
    assert table["who"].tolist() == ["ours", "peer"]
    assert table["batch_size"].tolist() == [0, 4] and table["seconds"].tolist() == [2, 6]
    assert table["ratio"].tolist() == table["low"].tolist() == table["high"].tolist() == [1, 3]
    assert table["left"].tolist() == [0.25, 0.5] and table["error"].tolist() == [0, 0]


def test_no_peer_finds_more_by_half_a_point_beyond_chance():
    for work, rows in TABLE.groupby("work"):
        own, others = rows.iloc[0], rows.iloc[1:]
        # Of so many comparisons by five rounds each, two standard errors would find one by luck.
        freedom, comparisons = 2 * (own["repeats"] - 1), TABLE["left"].notna().sum()
        errors = special.stdtrit(freedom, 1 - 0.05 / comparisons)
        chance = errors * (own["error"] ** 2 + others["error"] ** 2) ** 0.5
        assert not (own["left"] > others["left"] + 0.005 + chance).any(), work


def test_every_attack_takes_less_time_and_low_caps_gain_most():
    attacks = TABLE[TABLE["left"].notna() & TABLE.duplicated("work")]
    assert (attacks["ratio"] > 1).all()
    fastest = attacks.groupby("work")["ratio"].min()
    assert fastest["PGD-40, β = 0.05"] > fastest["PGD-40, β = 0.1"] > fastest["PGD-40, ReLU"]
    for part in ("apgd-ce", "apgd-t"):
        assert fastest[f"{part}, ReLU"] > fastest[f"{part}, adversarially trained ReLU"]


def test_every_contest_is_on_the_page_with_its_ratio():
    assert TABLE.groupby("work").size().ge(2).all()
    assert TABLE.groupby("work")["ratio"].first().eq(1).all()
    shown = (BOOK / "results" / "how-fast-cpu.md").read_text()
    for _, row in TABLE.iterrows():
        for text in (f"| {row['work']} | {row['who']} | ", f" | {row['ratio']:.2f} | "):
            assert text in shown
    assert "dirty" not in shown
