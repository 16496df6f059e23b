"""The ledger: the answers to every claim, as a table, a page of the book, and checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from cappaper.files import whole
from cappaper.paper import leaderboard
from cappaper.paper.claims import CLAIMS, MARGIN
from cappaper.paper.tables import markdown_table, read

LEDGER, SUMS = Path("results/claims.csv"), Path("results/SHA256SUMS")
PAGE, NETWORKS = Path("claims.md"), Path("all-networks.md")
QUESTIONS = {"reproduced": "Reproduced?", "real": "Is it real?"}
_MARKS = {"yes": "✓", "no": "✗", "reversed": "✗", "in part": "✓✗", "not decided": "?"}


def verdicts(book: Path) -> pd.DataFrame:
    """Both answers to every claim, and the evidence, from the result tables of a book's folder.

    Raises:
        FileNotFoundError, ValueError: a table, or a column of one, is missing.
    """
    chapters = {one.chapter for claim in CLAIMS for one in claim.comparisons}
    tables = {chapter: read(book / "results" / f"{chapter}.csv") for chapter in sorted(chapters)}
    rows = []
    for claim in CLAIMS:
        for kind, answer in claim.answers(tables).items():
            rows.append((claim.number, kind, answer.chapters, "", answer.word, answer.says))
        for one in claim.comparisons:
            says = one.numbers(tables[one.chapter])
            rows.append((claim.number, "evidence", one.chapter, one.asks, "", says))
    columns = ["claim", "kind", "chapter", "compared", "answer", "says"]
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
        Path("results/recipes.md"): leaderboard.recipes(book),
        SUMS: "".join(sums),
    }


def cards(ledger: pd.DataFrame) -> str:
    """Each claim with its two answers, as a row of cards for the landing page."""
    answers = ledger.set_index(["claim", "kind"])["answer"]
    lines = ["::::{grid} 1 2 3 3", ":gutter: 2", ""]
    for claim in CLAIMS:
        lines += [f":::{{grid-item-card}} Claim {claim.number}"]
        lines += [f":link: claim-{claim.number}", ":link-type: ref", claim.claim, ""]
        for kind, question in QUESTIONS.items():
            word = answers[claim.number, kind]
            lines += [f"{question} **{_MARKS[word]} {word}**", ""]
        lines += [":::", ""]
    return "\n".join([*lines, "::::", ""])


def page(ledger: pd.DataFrame) -> str:
    """The ledger as a page of the book."""
    sections = []
    for claim in CLAIMS:
        mine = ledger[ledger["claim"] == claim.number].set_index("kind")
        title = f"## {claim.number}. {claim.claim.rstrip('.')}"
        parts = [f"(claim-{claim.number})=\n{title}", f"*{claim.where}*"]
        for kind, question in QUESTIONS.items():
            one = {str(key): str(value) for key, value in mine.loc[kind].items()}
            answer = f"**{question} {one['answer'].capitalize()}.**"
            parts.append(f"{answer} {one['says']} {_link(one['chapter'])}")
        evidence = mine[mine.index == "evidence"].set_index("compared")[["says", "chapter"]]
        table = markdown_table(evidence.assign(chapter=evidence["chapter"].map(_link)), "compared")
        parts.append(f":::{{dropdown}} All comparisons, with their intervals\n{table}\n:::")
        sections.append("\n\n".join(parts))
    text = leaderboard.template("claims.md")
    return text.format(margin=f"{100 * MARGIN:g}", claims="\n\n".join(sections))


def _link(chapter: str) -> str:
    return f"{{doc}}`chapters/{chapter}`"
