"""The ledger: the paper's claims, the tables that decide them, and what became of each."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from cappaper import tables, verdicts
from cappaper.verdicts import Finding

LEDGER = Path("results/claims.csv")
SUMS = Path("results/SHA256SUMS")
PAGE = Path("claims.md")


@dataclass(frozen=True)
class Trial:
    """One question put to one chapter's table. ``paper``: by the attack that the paper uses."""

    chapter: str
    protocol: str
    decide: Callable[[pd.DataFrame], Finding]
    paper: bool = True


@dataclass(frozen=True)
class Claim:
    """What the paper says, where it does, and the tests that this book puts it to."""

    number: int
    says: str
    where: str
    tests: tuple[Trial, ...]


_EITHER = "Some cap keeps more than ReLU under PGD at ε = 0.1"
_AWARE = "cap-aware PGD"
_PLACES = "At one β, robust accuracy differs between choices of capped layers"
_TRAINED = "Trained and attacked at ε = {}, some cap keeps more than ReLU under PGD"
_SURVIVES = (
    "More than half of what the best cap gains under PGD is left under a PGD that knows about the"
    " cap"
)
_survives = partial(verdicts.surviving, attack=_AWARE)

CLAIMS = (
    Claim(
        1,
        "Perturbations grow through ReLU layers.",
        "Figure 1",
        (
            Trial(
                "fig-01",
                "The distance between hidden outputs on clean and on PGD examples grows from the"
                " first to the last of equally wide ReLU layers, as it is and divided by the clean"
                " norm",
                verdicts.growth,
            ),
        ),
    ),
    Claim(
        2,
        "Capping improves robustness, and a lower max value is more robust.",
        "Figures 4 and 5",
        (
            Trial("fig-04", _EITHER, verdicts.capping),
            Trial(
                "fig-04",
                "PGD's success rate at ε = 0.1 never rises as β is lowered",
                verdicts.lowering,
            ),
            Trial("fig-05", _EITHER, verdicts.capping),
            Trial("deeper-networks", f"{_EITHER}, in every architecture", verdicts.capping),
            Trial("convolutions", _EITHER, verdicts.capping),
            Trial("how-robust", _SURVIVES, _survives, paper=False),
        ),
    ),
    Claim(
        3,
        "The effect depends on which layers are capped, and on the size and order of the layers.",
        "Figures 2, 4 and 5",
        (
            Trial("fig-02", _PLACES, verdicts.placing),
            Trial("capped-layers", _PLACES, verdicts.placing),
            Trial(
                "deeper-networks",
                "At one β, robust accuracy differs between architectures",
                verdicts.sizing,
            ),
            Trial(
                "deeper-networks",
                "At one β, robust accuracy differs between an order of layers and its reverse",
                verdicts.ordering,
            ),
        ),
    ),
    Claim(
        4,
        "Adversarial training with capped ReLU beats conventional adversarial training.",
        "not in a figure known to us",
        (
            Trial("adversarial-training", _TRAINED.format(0.1), verdicts.hardening),
            Trial(
                "adversarial-training", _TRAINED.format(0.3), partial(verdicts.hardening, eps=0.3)
            ),
            Trial(
                "how-robust",
                f"{_TRAINED.format(0.1)} that knows about the cap",
                partial(verdicts.hardening, attack=_AWARE),
                paper=False,
            ),
            Trial(
                "how-robust",
                f"{_TRAINED.format(0.3)} that knows about the cap",
                partial(verdicts.hardening, eps=0.3, attack=_AWARE),
                paper=False,
            ),
        ),
    ),
    Claim(
        5,
        "Vanishing gradients keep capped ReLU from very large models.",
        "not in a figure known to us",
        (
            Trial(
                "vanishing-gradients",
                "The deepest network with the lowest cap stays ten points behind ReLU after the"
                " same training",
                verdicts.vanishing,
            ),
        ),
    ),
    Claim(
        6,
        "Left open: whether the gain holds under other attacks, such as Carlini and Wagner's.",
        "an open question of the paper",
        (
            Trial(
                "carlini-wagner",
                "Carlini and Wagner's L2 attack, of unlimited radius, fails on some capped network"
                " more often than on ReLU",
                verdicts.carlini,
                paper=False,
            ),
            Trial("how-robust", _SURVIVES, _survives, paper=False),
        ),
    ),
)


def decided(test: Trial, table: pd.DataFrame) -> Finding:
    """What a table says to a test; undecided where it lacks the networks that the test is about."""
    try:
        return test.decide(table)
    except (KeyError, IndexError, ValueError):
        return Finding(None, "the table lacks what the test compares")


def word(holds: bool | None) -> str:
    """A test's outcome as a verdict."""
    return {True: "reproduced", False: "not reproduced", None: "undecided"}[holds]


def verdict(claim: Claim, findings: Sequence[Finding]) -> str:
    """The verdict on a claim from the findings of its tests.

    *reproduced* if all hold, *not reproduced* if none does; *reproduced only under the paper's
    attack* if one by this attack holds and none by another does. *undecided* otherwise.
    """
    mine = [f.holds for t, f in zip(claim.tests, findings, strict=True) if t.paper]
    others = [f.holds for t, f in zip(claim.tests, findings, strict=True) if not t.paper]
    if True in mine and others and set(others) == {False}:
        return "reproduced only under the paper's attack"
    holds = set(mine + others)
    return word(holds.pop()) if len(holds) == 1 else "undecided"


def state(chapter: str, table: pd.DataFrame) -> None:
    """Print a chapter's claims and what its own table says to them: how every chapter ends."""
    mine = [(c, t) for c in CLAIMS for t in c.tests if t.chapter == chapter]
    for claim, test in mine:
        print(textwrap.fill(f"Claim {claim.number}. {test.protocol}:", 76))
        print(f"  {word(decided(test, table).holds)}")
    if not mine:
        print("None of the paper's claims is decided here.")


def ledger(book: Path) -> pd.DataFrame:
    """Every test with its finding, from the result tables of a book's folder.

    Raises:
        FileNotFoundError: a table is missing.
    """
    rows = []
    for claim in CLAIMS:
        paths = [book / "results" / f"{test.chapter}.csv" for test in claim.tests]
        findings = [decided(t, tables.read(p)) for t, p in zip(claim.tests, paths, strict=True)]
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
    found = ledger(book)
    (book / LEDGER).parent.mkdir(parents=True, exist_ok=True)
    found.to_csv(book / LEDGER, index=False)
    (book / PAGE).write_text(page(found), encoding="utf-8")
    sums = "".join(f"{digest}  {name}\n" for name, digest in _checksums(book).items())
    (book / SUMS).write_text(sums, encoding="utf-8")


def disagreements(book: Path) -> list[str]:
    """Where a committed ledger, its page and the result tables do not say the same."""
    now, committed = ledger(book), pd.read_csv(book / LEDGER)
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
        f"A difference counts where its mean over seeds is {verdicts.SPREADS:g} standard deviations"
        f" beyond a margin of {verdicts.POINT:g} ({verdicts.FAILED:g} for failed training, none"
        " for growth); where it is neither beyond nor short of it by as much, the test is"
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
