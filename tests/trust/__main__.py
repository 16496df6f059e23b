"""``make trust``: as many trials as the page *How it is tested* says, and its table."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pandas as pd
import torch

from cappaper.paper.publishing import git_commit
from cappaper.paper.tables import markdown_table
from tests.trust.counted import COUNTS, Count


@click.command()
@click.option("--only", type=click.Choice(list(COUNTS)), multiple=True, help="Kinds of trial.")
@click.option("--cases", default=None, type=int, help="Cases of each kind, in place of its own.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", default="book/results", show_default=True, help="Folder of the table.")
def main(only: tuple[str, ...], cases: int | None, seed: int, out: str) -> None:
    """Make the trials; a kind that was made in full goes into the table."""
    torch.set_num_threads(1)
    failed = False
    for name in only or COUNTS:
        do, usual = COUNTS[name]
        count = do(cases or usual, seed)
        print(f"{count.what}: {count.cases} cases, {len(count.wrong)} went wrong", flush=True)
        print(*count.wrong, sep="\n", end="\n" if count.wrong else "", flush=True)
        failed |= bool(count.wrong)
        if not cases:
            _keep(Path(out) / "how-it-is-tested.csv", count, seed)
    sys.exit(failed)


def _keep(path: Path, count: Count, seed: int) -> None:
    """Put a kind of trial into the table, in place of an earlier one."""
    row = {
        "trial": count.what,
        "cases": count.cases,
        "went wrong": len(count.wrong),
        "how it ended": count.said,
        "seed": seed,
        "commit": git_commit(),
    }
    table = pd.read_csv(path, index_col="trial") if path.exists() else pd.DataFrame()
    new = pd.DataFrame([row]).set_index("trial")
    table = pd.concat([table.drop(index=count.what, errors="ignore"), new]).sort_index()
    path.write_text(table.to_csv(), encoding="utf-8")
    path.with_suffix(".md").write_text(f"{markdown_table(table, 'trial')}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
