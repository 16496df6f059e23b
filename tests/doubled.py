"""``make doubled``: does a verdict stand after twice the training, under twice the attack?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import pandas as pd
import torch

from cappaper.paper import chapters, tables
from cappaper.paper.claims import CLAIMS, TESTS, Test, decided
from cappaper.paper.machines import machine
from cappaper.paper.statistics import AS_MEASURED
from cappaper.paper.tables import markdown_table

SEED = 0
# What trains for hours gets the two networks that its verdict compares.
FEWER = {name: {"betas": [1.0, math.inf]} for name in ("train-longer", "train-knowing")}
_WHY = (
    "A verdict can hang on where training happened to stop, or on an attack that gave up too soon."
    " Here every chapter that decides a claim runs once more, on one seed, with twice the epochs"
    " and twice the budget of every attack: twice the steps, twice the queries, AutoAttack's parts"
    " once again from other starts."
)
# In the order of their cost: an interrupted run has the more of them.
LAST = (
    *("carlini-wagner", "convolutions", "smaller-radius", "what-survives"),
    *("train-longer", "another-schedule", "train-knowing"),
)


@click.command()
@click.option("--profile", default="paper", show_default=True, help="Of chapters.")
@click.option("--device", default="auto", show_default=True)
@click.option("--jobs", default=2, show_default=True, help="Processes on a CPU.")
@click.option("--only", multiple=True, help="This chapter; again for more.")
@click.option("--table", is_flag=True, help="Run nothing: the table of what has run.")
def main(profile: str, device: str, jobs: int, only: tuple[str, ...], table: bool) -> None:
    """Run the chapters that decide claims again, on one seed with twice of everything."""
    root, here = Path.cwd(), machine(device, jobs)
    folder = root / "build" / f"doubled-{profile}"
    (folder / "chapters").mkdir(parents=True, exist_ok=True)
    (folder / "results").mkdir(exist_ok=True)
    given = {"profile": profile, "device": here.device, "jobs": jobs}
    for chapter in [] if table else chosen(root, only):
        print(chapter.name, flush=True)
        more: dict[str, Any] = {"seeds": [SEED], "effort": 2, **FEWER.get(chapter.name, {})}
        chapters.execute(chapter, root, folder, given | more)
    book = root / "book" if profile == "paper" else root / "build" / profile
    write(compared(book / "results", folder / "results"), folder / "results", book / "results")


def chosen(root: Path, only: tuple[str, ...] = ()) -> list[chapters.Chapter]:
    """The chapters that decide claims, the dear ones last."""
    asked = {test.chapter for test in TESTS}
    found = [c for c in chapters.select(chapters.manifest(root), only) if c.name in asked]
    return sorted(found, key=lambda c: LAST.index(c.name) if c.name in LAST else -1)


def compared(usual: Path, doubled: Path) -> pd.DataFrame:
    """A row for each test whose chapter has run: its verdict, and what one seed says to it."""
    rows = []
    for test in TESTS:
        if not (doubled / f"{test.chapter}.csv").exists():
            continue
        row = asked(test, tables.read(usual / f"{test.chapter}.csv"))
        twice, measured = one_seed(test, tables.read(doubled / f"{test.chapter}.csv"))
        rows.append(row | {"twice": twice, "measured_twice": measured})
    return pd.DataFrame(rows)


def asked(test: Test, table: pd.DataFrame) -> dict[str, Any]:
    """A test, its verdict over all seeds, and what the numbers of single seeds say."""
    alone = {seed: one_seed(test, rows) for seed, rows in table.groupby("seed")}
    once, measured = alone[SEED]
    return {
        "claim": test.claim,
        "chapter": test.chapter,
        "test": test.says,
        "verdict": decided(test, table).verdict,
        "seeds": len(alone),
        "yes": sum(answer == "yes" for answer, _ in alone.values()),
        "once": once,
        "measured_once": measured,
    }


def one_seed(test: Test, table: pd.DataFrame) -> tuple[str, str]:
    """Yes or no, and the numbers: what is at the margin is not beyond it."""
    decision = decided(test, table, AS_MEASURED)
    return "yes" if decision.holds else "no", decision.evidence


def fate(row: pd.Series[Any]) -> str:
    """What twice of everything does to a verdict, told by one seed.

    *stands*: the seed says the same. *open*: there was no answer. *falls*: it says otherwise, and
    no seed did before. *varies*: it says otherwise, as some single seeds did before.
    """
    wanted = {"holds": "yes", "does not hold": "no"}.get(row["verdict"])
    if wanted is None:
        return "open"
    one_voice = row["yes"] == (row["seeds"] if wanted == "yes" else 0)
    return "stands" if row["twice"] == wanted else "falls" if one_voice else "varies"


def write(table: pd.DataFrame, doubled: Path, out: Path) -> None:
    """The table with its provenance, and what the book shows of it."""
    origins = [
        tables.read(doubled / f"{name}.csv").attrs["provenance"]
        for name in table["chapter"].unique()
    ]
    origin = {
        "profile": origins[0]["profile"],
        "seeds": str(SEED),
        "device": origins[0]["device"],
        "torch": torch.__version__,
        "git_commit": " ".join(dict.fromkeys(o["git_commit"] for o in origins)),
        "seconds": str(sum(int(o["seconds"]) for o in origins)),
    }
    table.attrs["provenance"] = origin
    tables.save(table, out / "doubled.csv", origin)
    (out / "doubled.md").write_text(page(table), encoding="utf-8")
    print(table[["claim", "chapter", "verdict", "once", "twice"]].to_string())


def page(table: pd.DataFrame) -> str:
    """How many verdicts survive, which do not, and the numbers of both runs."""
    fates = table.apply(fate, axis=1)
    count = fates.value_counts().to_dict()
    answered = len(table) - count.get("open", 0)
    stand = count.get("stands", 0)
    told = (
        f"{answered} of {len(table)} tests of the claims have an answer. After twice the training"
        f" and under twice the attack {'all' if stand == answered else stand} of these stand, on"
        f" seed {SEED}."
    )
    for word, what in (
        ("varies", "For {} it says otherwise, as some seeds did before"),
        ("falls", "For {} it says otherwise, as no seed did before"),
    ):
        rows = table[fates == word]
        named = (rows["test"] + " ({doc}`chapters/" + rows["chapter"] + "`)").tolist()
        told += f" {what.format(len(rows))}: {'; '.join(named)}." if named else ""
    parts = [f"**{told}**", _WHY]
    for claim in CLAIMS:
        rows = table[table["claim"] == claim.number]
        if rows.empty:
            continue
        answers = pd.DataFrame(
            {
                "verdict": rows["verdict"],
                "say yes": rows["yes"].astype(str) + "/" + rows["seeds"].astype(str),
                "doubled": rows["twice"],
            }
        ).set_axis("{doc}`" + rows["test"] + " <chapters/" + rows["chapter"] + ">`")
        numbers = pd.DataFrame(
            {"one seed": rows["measured_once"], "twice of everything": rows["measured_twice"]}
        ).set_axis(rows["test"])
        parts += [
            f"## Claim {claim.number}: {claim.says.rstrip('.')}",
            markdown_table(answers, "test"),
            f":::{{dropdown}} The numbers\n{markdown_table(numbers, 'test')}\n:::",
        ]
    told = ", ".join(f"{key} {value}" for key, value in table.attrs["provenance"].items())
    return "\n\n".join([*parts, f"Provenance: {told}."]) + "\n"


if __name__ == "__main__":
    main()
