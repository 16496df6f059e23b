"""The ledger: what became of every claim, as a table, a page of the book, and checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from cappaper.files import whole
from cappaper.paper import leaderboard, statistics
from cappaper.paper.claims import CLAIMS, decided, verdict
from cappaper.paper.decision import FAILED, POINT, STEP
from cappaper.paper.tables import read

LEDGER = Path("results/claims.csv")
SUMS = Path("results/SHA256SUMS")
PAGE = Path("claims.md")
STRIP = Path("results/verdicts.md")
NETWORKS = Path("all-networks.md")
RECIPES = Path("results/recipes.md")


def verdicts(book: Path) -> pd.DataFrame:
    """Every test with its verdict and evidence, from the result tables of a book's folder.

    Raises:
        FileNotFoundError, ValueError: a table, or a column of one, is missing.
    """
    asked = dict.fromkeys(test.chapter for claim in CLAIMS for test in claim.tests)
    tables = {name: read(book / "results" / f"{name}.csv") for name in asked}
    rows = []
    for claim in CLAIMS:
        found = [decided(test, tables[test.chapter]) for test in claim.tests]
        for test, decision in zip(claim.tests, found, strict=True):
            rows.append(
                {
                    "claim": claim.number,
                    "claim_verdict": verdict(claim.tests, found),
                    "chapter": test.chapter,
                    "test": test.says,
                    "verdict": decision.verdict,
                    "evidence": decision.evidence,
                }
            )
    return pd.DataFrame(rows)


def write(book: Path) -> None:
    """Write the ledger, what a book shows of it, and the checksums, from its folder of tables."""
    for name, text in _files(book).items():
        with whole(book / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def disagreements(book: Path) -> list[str]:
    """Which of a committed ledger, its page and the result tables do not say the same."""
    now = _files(book)
    then = {name: (book / name).read_text(encoding="utf-8") for name in now}
    lines = set(now[SUMS].splitlines()) ^ set(then[SUMS].splitlines())
    tables = sorted({line.split("  ", 1)[1] for line in lines} - {LEDGER.name})
    said = [f"{name} is not the table that the ledger was made from" for name in tables]
    others = [name for name in (LEDGER, PAGE, STRIP, NETWORKS, RECIPES) if now[name] != then[name]]
    return said + [f"{name} is not what the tables give: write it again" for name in others]


def _files(book: Path) -> dict[Path, str]:
    """The ledger, its page, and checksums of all tables, as ``sha256sum`` checks them."""
    ledger = verdicts(book)
    text = ledger.to_csv(index=False)
    tables = {p.name: p.read_bytes() for p in (book / "results").glob("*.csv")}
    tables[LEDGER.name] = text.encode()
    sums = [f"{hashlib.sha256(t).hexdigest()}  {name}\n" for name, t in sorted(tables.items())]
    pages = {PAGE: page(ledger), STRIP: strip(ledger), NETWORKS: leaderboard.page(book)}
    pages[RECIPES] = leaderboard.recipes(book, ledger)
    return {LEDGER: text, **pages, SUMS: "".join(sums)}


def strip(ledger: pd.DataFrame) -> str:
    """The verdicts as a row of cards, for the landing page."""
    lines = ["::::{grid} 1 2 3 3", ":gutter: 2", ""]
    for claim in CLAIMS:
        of_claim = ledger[ledger["claim"] == claim.number]["claim_verdict"].iloc[0]
        lines += [
            f":::{{grid-item-card}} {claim.number}. {of_claim}",
            ":link: claims",
            ":link-type: doc",
            claim.says,
            ":::",
            "",
        ]
    return "\n".join([*lines, "::::", ""])


def page(ledger: pd.DataFrame) -> str:
    """The ledger as a page of the book."""
    lines = [
        "# What became of the claims",
        "",
        "The paper's claims, the tests that this book puts them to, and what the result tables say."
        " This page is made by `cappaper claims --write`; every number on it comes from a table.",
        "",
        "| | claim | where | verdict |",
        "|---|---|---|---|",
    ]
    for claim in CLAIMS:
        of_claim = ledger[ledger["claim"] == claim.number]["claim_verdict"].iloc[0]
        lines.append(f"| {claim.number} | {claim.says} | {claim.where} | **{of_claim}** |")
    lines += [
        "",
        "A difference counts where its confidence interval lies beyond a margin of"
        f" {POINT:g} ({FAILED:g} for failed training, {STEP:g} for L2 distances, none for growth):"
        " Student's t over seeds, and for shares a normal one over images where not all test images"
        " were judged (distances and medians: over seeds alone). A claim has an error of"
        f" {100 * statistics.LEVEL:g} %, which its tests share, so their intervals are wider than"
        " usual. The best of several caps, and the widest of several gaps, are chosen for each seed"
        " on the other seeds, so a difference need not be that of the two means beside it. A test"
        " *holds* if the interval is beyond the margin,"
        " *does not hold* if it is short of it, and is *inconclusive* if it contains it. A test of"
        " several architectures holds if it does in each, and does not hold if it does not in one;"
        " that of the layers' order needs one pair of orders. That no cap wins is judged by each"
        " cap's own interval, without the price of the choice: narrower than the one printed."
        " A claim *holds* if all its tests hold, *does not hold* if all of them do not hold, is"
        " *mixed* if some hold and others do not hold, and *inconclusive* otherwise. All robust"
        " accuracies are what one attack leaves: upper bounds. Of an open question, *holds* says"
        " that the gain is seen there too. {doc}`doubled` asks every test again, after twice the"
        " training and under twice the attack.",
        "",
    ]
    for claim in CLAIMS:
        lines += [f"## Claim {claim.number}: {claim.says.rstrip('.')}", ""]
        lines += ["| test | chapter | evidence | verdict |", "|---|---|---|---|"]
        for _, row in ledger[ledger["claim"] == claim.number].iterrows():
            chapter = f"{{doc}}`chapters/{row['chapter']}`"
            lines.append(f"| {row['test']} | {chapter} | {row['evidence']} | {row['verdict']} |")
        lines.append("")
    return "\n".join(lines)
