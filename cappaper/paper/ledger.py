"""The ledger: the verdict on every claim, as a table, a page of the book, and checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from cappaper.files import whole
from cappaper.paper import leaderboard, statistics
from cappaper.paper.claims import CLAIMS, TESTS, decided, verdict
from cappaper.paper.decisions import FAILED, POINT, STEP
from cappaper.paper.tables import markdown_table, read

LEDGER, SUMS = Path("results/claims.csv"), Path("results/SHA256SUMS")
PAGE, NETWORKS = Path("claims.md"), Path("all-networks.md")


def verdicts(book: Path) -> pd.DataFrame:
    """Every test with its verdict and evidence, from the result tables of a book's folder.

    Raises:
        FileNotFoundError, ValueError: a table, or a column of one, is missing.
    """
    tables = {c: read(book / "results" / f"{c}.csv") for c in {test.chapter for test in TESTS}}
    rows = []
    for claim in CLAIMS:
        decisions = [decided(test, tables[test.chapter]) for test in claim.tests]
        on_claim = (claim.number, verdict(claim.tests, decisions))
        for test, decision in zip(claim.tests, decisions, strict=True):
            rows.append((*on_claim, test.chapter, test.says, decision.verdict, decision.evidence))
    columns = ["claim", "claim_verdict", "chapter", "test", "verdict", "evidence"]
    return pd.DataFrame(rows, columns=columns)


def write(book: Path) -> None:
    """Write the ledger, the book's pages from it, and the checksums, from the result tables."""
    for name, text in _files(book).items():
        with whole(book / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def disagreements(book: Path) -> list[str]:
    """A sentence for each file that does not agree with the result tables."""
    now = _files(book)
    then = {name: (book / name).read_text(encoding="utf-8") for name in now}
    lines = set(now.pop(SUMS).splitlines()) ^ set(then[SUMS].splitlines())
    changed = sorted({line.split("  ", 1)[1] for line in lines} - {LEDGER.name})
    sentences = [f"{name} is not the table that the ledger was made from" for name in changed]
    others = [name for name in now if now[name] != then[name]]
    return sentences + [f"{name} is not what the tables give: write it again" for name in others]


def _files(book: Path) -> dict[Path, str]:
    """The ledger, the pages made from it, and checksums of all tables for ``sha256sum``."""
    ledger = verdicts(book)
    text = ledger.to_csv(index=False)
    tables = {p.name: p.read_bytes() for p in (book / "results").glob("*.csv")}
    tables[LEDGER.name] = text.encode()
    sums = [f"{hashlib.sha256(t).hexdigest()}  {name}\n" for name, t in sorted(tables.items())]
    return {
        LEDGER: text,
        PAGE: page(ledger),
        Path("results/verdicts.md"): cards(ledger),
        NETWORKS: leaderboard.page(book),
        Path("results/recipes.md"): leaderboard.recipes(book, ledger),
        SUMS: "".join(sums),
    }


def cards(ledger: pd.DataFrame) -> str:
    """The verdicts as a row of cards, for the landing page."""
    verdict_on = dict(zip(ledger["claim"], ledger["claim_verdict"], strict=True))
    lines = ["::::{grid} 1 2 3 3", ":gutter: 2", ""]
    for claim in CLAIMS:
        title = f":::{{grid-item-card}} {claim.number}. {verdict_on[claim.number]}"
        lines += [title, ":link: claims", ":link-type: doc", claim.says, ":::", ""]
    return "\n".join([*lines, "::::", ""])


def page(ledger: pd.DataFrame) -> str:
    """The ledger as a page of the book."""
    rows, sections = [], []
    for claim in CLAIMS:
        tests = ledger[ledger["claim"] == claim.number].set_index("test")
        on_claim = tests["claim_verdict"].iloc[0]
        rows.append(f"| {claim.number} | {claim.says} | {claim.where} | **{on_claim}** |")
        tests["chapter"] = tests["chapter"].map("{{doc}}`chapters/{}`".format)
        table = markdown_table(tests[["chapter", "evidence", "verdict"]], "test")
        sections.append(f"## Claim {claim.number}: {claim.says.rstrip('.')}\n\n{table}\n")
    margins = {"point": POINT, "failed": FAILED, "step": STEP, "level": 100 * statistics.LEVEL}
    tables = {"claims": "\n".join(rows), "sections": "\n".join(sections)}
    return leaderboard.template("claims.md").format(**margins, **tables)
