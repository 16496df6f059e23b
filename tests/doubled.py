"""``python -m tests.doubled``: the verdicts after twice the training, under twice the attack."""

import math
from pathlib import Path

import click
import pandas as pd
import torch

from cappaper.paper import chapters, tables
from cappaper.paper.claims import CLAIMS, TESTS, decided
from cappaper.paper.machines import machine
from cappaper.paper.statistics import AS_MEASURED
from cappaper.paper.tables import markdown_table

TWICE = {"seeds": [0], "effort": 2}
# What trains for hours gets the two networks that its verdict compares.
FEWER = {name: {"betas": [1.0, math.inf]} for name in ("train-longer", "train-knowing")}
WANTED = {"holds": "yes", "does not hold": "no"}


@click.command()
@click.option("--profile", default="paper", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--jobs", default=2, show_default=True, help="Processes on a CPU.")
@click.option("--only", multiple=True, help="This chapter; again for more.")
@click.option("--table", is_flag=True, help="Run nothing: write the table of earlier runs.")
def main(profile: str, device: str, jobs: int, only: tuple[str, ...], table: bool) -> None:
    """Run the chapters that decide claims again, on one seed with twice of everything."""
    root, folder = Path.cwd(), Path.cwd() / "build" / f"doubled-{profile}"
    for part in ("chapters", "results"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    given = {"profile": profile, "device": machine(device, jobs).device, "jobs": jobs, **TWICE}
    for chapter in [] if table else deciding(root, only):
        print(chapter.name, flush=True)
        chapters.execute(chapter, root, folder, given | FEWER.get(chapter.name, {}))
    out = (root / "book" if profile == "paper" else root / "build" / profile) / "results"
    rows, origins = compared(out, folder / "results")
    tables.save(rows, out / "doubled.csv", origins)
    (out / "doubled.md").write_text(page(tables.read(out / "doubled.csv")), encoding="utf-8")


def deciding(root: Path, only: tuple[str, ...] = ()) -> list[chapters.Chapter]:
    """The chapters whose tables decide a claim."""
    names = {test.chapter for test in TESTS}
    return [c for c in chapters.select(chapters.manifest(root), only) if c.name in names]


def compared(usual: Path, doubled: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """A row for each test: its verdict, and the answer on one seed; and the provenance."""
    rows, origins = [], []
    for test in TESTS:
        if not (doubled / f"{test.chapter}.csv").exists():
            continue
        table, twice = (tables.read(folder / f"{test.chapter}.csv") for folder in (usual, doubled))
        alone = {s: decided(test, part, AS_MEASURED) for s, part in table.groupby("seed")}
        double = decided(test, twice, AS_MEASURED)
        row = {"claim": test.claim, "chapter": test.chapter, "test": test.says}
        row |= {"verdict": decided(test, table).verdict, "seeds": len(alone)}
        row |= {"yes": sum(bool(seed.holds) for seed in alone.values())}
        row |= {"once": _answer(alone[0].holds), "measured_once": alone[0].evidence}
        row |= {"twice": _answer(double.holds), "measured_twice": double.evidence}
        rows.append(row)
        origins.append({"chapter": test.chapter} | twice.attrs["provenance"])
    by_chapter = pd.DataFrame(origins).drop_duplicates("chapter")
    origin = {key: by_chapter[key].iloc[0] for key in ("profile", "seeds", "device")}
    commits = " ".join(by_chapter["git_commit"].unique())
    seconds = str(by_chapter["seconds"].astype(int).sum())
    origin |= {"torch": torch.__version__, "git_commit": commits, "seconds": seconds}
    return pd.DataFrame(rows), origin


def _answer(holds: bool | None) -> str:
    return "yes" if holds else "no"


def page(table: pd.DataFrame) -> str:
    """How many verdicts stay the same, which change, and the numbers of both runs."""
    wanted = table["verdict"].map(WANTED)
    other = table[wanted.notna() & (wanted != table["twice"])]
    names = "; ".join(other["test"] + " ({doc}`chapters/" + other["chapter"] + "`)")
    parts = [
        f"**{wanted.count()} of {len(table)} tests of the claims have an answer. On seed 0,"
        f" {wanted.count() - len(other)} of these have the same answer after twice the training"
        " and under twice the attack.**" + f" These have another: {names}." * bool(names)
    ]
    for claim in CLAIMS:
        rows = table[table["claim"] == claim.number]
        links = "{doc}`" + rows["test"] + " <chapters/" + rows["chapter"] + ">`"
        yes = rows["yes"].astype(str) + "/" + rows["seeds"].astype(str)
        answers = {"verdict": rows["verdict"], "say yes": yes, "doubled": rows["twice"]}
        numbers = {"one seed": rows["measured_once"], "twice": rows["measured_twice"]}
        parts += [
            f"## Claim {claim.number}: {claim.says.rstrip('.')}",
            markdown_table(pd.DataFrame(answers).set_axis(links), "test"),
            f":::{{dropdown}} The numbers\n"
            f"{markdown_table(pd.DataFrame(numbers).set_axis(rows['test']), 'test')}\n:::",
        ]
    origin = ", ".join(f"{key} {value}" for key, value in table.attrs["provenance"].items())
    return "\n\n".join([*parts, f"Provenance: {origin}."]) + "\n"


if __name__ == "__main__":
    main()
