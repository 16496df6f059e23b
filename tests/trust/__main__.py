"""``python -m tests.trust``: make the trials that the page *How it is tested* counts."""

import random
import sys
import tempfile
from pathlib import Path

import click
import pandas as pd
import torch

from cappaper.paper.publishing import git_commit
from cappaper.paper.tables import markdown_table
from tests.trust import damage, interrupts, nonsense, runs

# What the page calls a kind, how many cases it counts, the trial, and how all trials should end.
KINDS = {
    "nonsense": ("nonsense calls", 5000, nonsense.trial, "{} were refused, {} had a right answer"),
    "damage": ("damaged cache entries", 500, damage.trial, "each was named, and the table equal"),
    "interrupts": ("attacks interrupted", 3500, interrupts.trial, "the model was as before"),
    "threads": ("attacks in four threads", 200, interrupts.shared, "each found what it does alone"),
    "kills": ("runs stopped at a random moment", 60, runs.killed, "the table was equal"),
    "together": ("rounds of runs at once", 20, runs.at_once, "the tables were equal"),
}
TABLE = Path("book/results/how-it-is-tested.csv")


def count(name: str, cases: int, seed: int) -> tuple[list[str], str]:
    """Make trials of a kind: the faults, a sentence each, and how the others ended."""
    draw, faults, refused = random.Random(seed), [], 0
    _, _, trial, end = KINDS[name]
    for _ in range(cases):
        try:
            with tempfile.TemporaryDirectory() as folder:
                refused += bool(trial(draw, Path(folder)))
        except AssertionError as error:
            faults.append(str(error))
    return faults, end.format(refused, cases - len(faults) - refused)


@click.command()
@click.option("--only", type=click.Choice(list(KINDS)), multiple=True, help="Kinds of trial.")
@click.option("--cases", type=int, help="Cases of each kind; without it the table is written.")
@click.option("--seed", default=0, show_default=True)
def main(only: tuple[str, ...], cases: int | None, seed: int) -> None:
    """Make trials, and put those of the usual number into the table of the page."""
    torch.set_num_threads(1)
    wrong = 0
    for name in only or KINDS:
        title, usual, _, _ = KINDS[name]
        faults, end = count(name, cases or usual, seed)
        print(f"{title}: {cases or usual} cases, {len(faults)} went wrong", *faults, sep="\n")
        wrong += len(faults)
        if not cases:
            table = pd.read_csv(TABLE, index_col="trial")
            table.loc[title] = [usual, len(faults), end, seed, git_commit()]
            TABLE.write_text(table.to_csv(), encoding="utf-8")
            shown = f"{markdown_table(table, 'trial')}\n"
            TABLE.with_suffix(".md").write_text(shown, encoding="utf-8")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
