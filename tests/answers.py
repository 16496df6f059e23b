"""The committed tables."""

from pathlib import Path

from cappaper.paper import tables

BOOK = Path(__file__).parents[1] / "book"


def table_of(name, **where):
    """A chapter's table; with ``where``, its rows with these values."""
    table = tables.read(BOOK / "results" / f"{name}.csv")
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def means(name, *by, **where):
    """Mean robust accuracies."""
    return table_of(name, **where).groupby(list(by), sort=False)["robust_accuracy"].mean()
