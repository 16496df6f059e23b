"""``python -m tests.doubled``: the comparisons after twice the training, under twice the attack."""

import math
from pathlib import Path

import click
import pandas as pd
import torch

from cappaper.paper import chapters, tables
from cappaper.paper.claims import CLAIMS, Comparison
from cappaper.paper.machines import machine
from cappaper.paper.tables import markdown_table

TWICE = {"seeds": [0], "effort": 2}
# What trains for hours gets the two networks that its verdict compares.
FEWER = {"train-longer": {"betas": [1.0, math.inf]}}


@click.command()
@click.option("--profile", default="paper", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--jobs", default=2, show_default=True, help="Processes on a CPU.")
@click.option("--only", multiple=True, help="This chapter; again for more.")
@click.option("--table", is_flag=True, help="Run nothing: write the table of earlier runs.")
def main(profile: str, device: str, jobs: int, only: tuple[str, ...], table: bool) -> None:
    """Run the chapters that decide claims again, on one seed with twice as much of everything."""
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
    """The chapters that a claim is compared in."""
    names = {one.chapter for claim in CLAIMS for one in claim.comparisons}
    return [c for c in chapters.manifest(root) if c.name in names and c.name in (only or names)]


def compared(usual: Path, doubled: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """A row for each comparison: its answers on single seeds, without an interval; provenance."""
    rows, origins = [], []
    for claim in CLAIMS:
        for one in claim.comparisons:
            if not (doubled / f"{one.chapter}.csv").exists():
                continue
            pair = (folder / f"{one.chapter}.csv" for folder in (usual, doubled))
            once, twice = map(tables.read, pair)
            alone = {seed: part for seed, part in once.groupby("seed")}
            row = {"claim": claim.number, "chapter": one.chapter, "test": one.asks}
            row |= {"seeds": len(alone), "yes": sum(_yes(one, part) for part in alone.values())}
            for name, table in (("once", alone[0]), ("twice", twice)):
                row |= {name: "yes" if _yes(one, table) else "no"}
                row |= {f"measured_{name}": one.numbers(table).partition(" (")[0]}
            rows.append(row)
            origins.append({"chapter": one.chapter} | twice.attrs["provenance"])
    by_chapter = pd.DataFrame(origins).drop_duplicates("chapter")
    origin = {key: by_chapter[key].iloc[0] for key in ("profile", "seeds", "device")}
    commits = " ".join(by_chapter["git_commit"].unique())
    seconds = str(by_chapter["seconds"].astype(int).sum())
    origin |= {"torch": torch.__version__, "git_commit": commits, "seconds": seconds}
    return pd.DataFrame(rows), origin


def _yes(one: Comparison, table: pd.DataFrame) -> bool:
    effect = one.effect(table)
    return effect.ours - effect.theirs > one.margin


def page(table: pd.DataFrame) -> str:
    """How many answers stay the same, which change, and the numbers of both runs."""
    other = table[table["once"] != table["twice"]]
    names = "; ".join(other["test"] + " ({doc}`chapters/" + other["chapter"] + "`)")
    parts = [
        f"**On seed 0, {len(table) - len(other)} of {len(table)} questions have the same answer"
        " after twice the training and under twice the attack.**"
        + f" The answer changes for: {names}."
        * bool(names)
    ]
    for claim in CLAIMS:
        rows = table[table["claim"] == claim.number]
        links = "{doc}`" + rows["test"] + " <chapters/" + rows["chapter"] + ">`"
        yes = rows["yes"].astype(str) + "/" + rows["seeds"].astype(str)
        answers = {"seeds that say yes": yes, "seed 0": rows["once"], "doubled": rows["twice"]}
        numbers = {"seed 0": rows["measured_once"], "doubled": rows["measured_twice"]}
        parts += [
            f"## Claim {claim.number}: {claim.claim.rstrip('.')}",
            markdown_table(pd.DataFrame(answers).set_axis(links), "question"),
            f":::{{dropdown}} The numbers\n"
            f"{markdown_table(pd.DataFrame(numbers).set_axis(rows['test']), 'question')}\n:::",
        ]
    origin = ", ".join(f"{key} {value}" for key, value in table.attrs["provenance"].items())
    return "\n\n".join([*parts, f"Provenance: {origin}."]) + "\n"


if __name__ == "__main__":
    main()
