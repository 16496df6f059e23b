"""The ledger: what became of every claim, as a table, a page of the book, and checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from cappaper.paper import decisions, results
from cappaper.paper.claims import CLAIMS, decided, verdict, word

LEDGER = Path("results/claims.csv")
SUMS = Path("results/SHA256SUMS")
PAGE = Path("claims.md")


def weigh(book: Path) -> pd.DataFrame:
    """Every test with its finding, from the result tables of a book's folder.

    Raises:
        FileNotFoundError: a table is missing.
    """
    rows = []
    for claim in CLAIMS:
        paths = [book / "results" / f"{test.chapter}.csv" for test in claim.tests]
        findings = [decided(t, results.read(p)) for t, p in zip(claim.tests, paths, strict=True)]
        for test, finding in zip(claim.tests, findings, strict=True):
            rows.append(
                {
                    "claim": claim.number,
                    "verdict": verdict(claim, findings),
                    "chapter": test.chapter,
                    "protocol": test.protocol,
                    "finding": word(finding.holds),
                    "evidence": finding.evidence,
                }
            )
    return pd.DataFrame(rows)


def write(book: Path) -> None:
    """Write the ledger, its page and the checksums from the tables of a book's folder."""
    found = weigh(book)
    (book / LEDGER).parent.mkdir(parents=True, exist_ok=True)
    found.to_csv(book / LEDGER, index=False)
    (book / PAGE).write_text(page(found), encoding="utf-8")
    sums = "".join(f"{digest}  {name}\n" for name, digest in _checksums(book).items())
    (book / SUMS).write_text(sums, encoding="utf-8")


def disagreements(book: Path) -> list[str]:
    """Where a committed ledger, its page and the result tables do not say the same."""
    now, committed = weigh(book), pd.read_csv(book / LEDGER)
    keys = ["claim", "chapter", "protocol"]
    if not now[keys].equals(committed[keys]):
        return [f"{LEDGER} lists other tests than the code: write it again"]
    said = []
    for (_, new), (_, old) in zip(now.iterrows(), committed.iterrows(), strict=True):
        for column in ("verdict", "finding", "evidence"):
            if new[column] != old[column]:
                said.append(
                    f"claim {new['claim']}, {new['chapter']}: the ledger says {old[column]!r},"
                    f" the table {new[column]!r}"
                )
    lines = (book / SUMS).read_text(encoding="utf-8").splitlines()
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    present = _checksums(book)
    for name in sorted({**listed, **present}):
        if listed.get(name) != present.get(name):
            said.append(f"{name} is not the table that the ledger was made from")
    if not said and (book / PAGE).read_text(encoding="utf-8") != page(now):
        said.append(f"{PAGE} does not say what the ledger says")
    return said


def _checksums(book: Path) -> dict[str, str]:
    """Of every table, claims or not: as ``sha256sum`` writes and checks them."""
    paths = sorted((book / "results").glob("*.csv"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def page(found: pd.DataFrame) -> str:
    """The ledger as a page of the book."""
    lines = [
        "# Weigh the claims",
        "",
        "The paper's claims, the tests that this book puts them to, and what the result tables say."
        " This page is made by `cappaper claims --write`; every number on it comes from a table.",
        "",
        "| | claim | where | verdict |",
        "|---|---|---|---|",
    ]
    for claim in CLAIMS:
        rows = found[found["claim"] == claim.number]
        lines.append(
            f"| {claim.number} | {claim.says} | {claim.where} | **{rows['verdict'].iloc[0]}** |"
        )
    lines += [
        "",
        f"A difference counts where its mean over seeds is {decisions.SPREADS:g} standard"
        f" deviations beyond a margin of {decisions.POINT:g} ({decisions.FAILED:g} for failed"
        " training, none for growth); where it is neither beyond nor short of it by as much, the test is"
        " *undecided*. A claim is *reproduced* if all its tests are, *not reproduced* if none is,"
        " *reproduced only under the paper's attack* if a test by this attack holds and none by"
        " another does, and *undecided* otherwise. All robust accuracies are what one attack"
        " leaves: upper bounds. Of an open question, *reproduced* says that the gain is seen there"
        " too.",
        "",
    ]
    for claim in CLAIMS:
        lines += [f"## Claim {claim.number}: {claim.says.rstrip('.')}", ""]
        lines += ["| test | chapter | evidence | |", "|---|---|---|---|"]
        for _, row in found[found["claim"] == claim.number].iterrows():
            chapter = f"{{doc}}`chapters/{row['chapter']}`"
            lines.append(
                f"| {row['protocol']} | {chapter} | {row['evidence']} | {row['finding']} |"
            )
        lines.append("")
    return "\n".join(lines)
