"""What a cap gains from adversarial training, recipe by recipe: a table of the landing page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cappaper.paper import tables
from cappaper.paper.board import rows_of, table_path
from cappaper.paper.tables import STRONGEST, markdown_table

# Chapter, radius, and what the networks of that training are called beside their β.
_RECIPES = (
    ("how-robust", 0.1, ""),
    ("what-survives", 0.1, "knowing"),
    ("smaller-radius", 0.1, ""),
    ("how-robust", 0.3, ""),
    ("what-survives", 0.3, "knowing"),
    ("train-longer", 0.3, ""),
    ("another-schedule", 0.3, "another schedule"),
    ("train-knowing", 0.3, "knowing"),
)
_NETWORKS = ("ReLU", "β = 1", "β = 0.2")
_CAPTION = (
    "Percent of {images} test images that withstand the strongest attack found (in brackets: PGD),"
    " after training at the same ε; means over {seeds} seeds. *Knowing*: the adversary in training"
    " knows about the cap. *Another schedule*: Adam's step size rises and falls. The last column is"
    " the verdict on some cap, the best of all that the chapter tries, keeping more than ReLU under"
    " the strongest attack."
)


def table(book: Path, ledger: pd.DataFrame) -> str:
    """A row for each recipe: what the strongest attack leaves, and whether a cap has more.

    ``ledger``: the tests of the claims with their verdicts.
    """
    rows, seeds, images = [], set[int](), set[int]()
    for chapter, eps, kind in _RECIPES:
        found = {
            row["network"]: row
            for row in rows_of(chapter, tables.read(table_path(book, chapter)))
            if row["trained at ε"] == row["attacked at ε"] == eps
        }
        asked = (ledger["chapter"] == chapter) & ledger["test"].str.contains(f"at ε = {eps:g}")
        (verdict,) = ledger[asked & (ledger["claim"] == 4)]["verdict"]
        cells = {}
        for name in _NETWORKS:
            row = found.get(", ".join(filter(None, (name, kind))), found.get(name))
            cells[name] = f"{100 * row[STRONGEST]:.0f} ({100 * row['PGD']:.0f})" if row else ""
        seeds |= {row["seeds"] for row in found.values()}
        images |= {row["images"] for row in found.values()}
        epochs = next(iter(found.values()))["epochs"]
        recipe = f"{epochs} epochs" + (f", {kind}" if kind else "")
        link = f"{{doc}}`{recipe} <chapters/{chapter}>`"
        rows.append({"ε": f"{eps:g}", "recipe": link, **cells, "a cap keeps more": verdict})
    shown = markdown_table(pd.DataFrame(rows).set_index("ε"), "ε")
    caption = _CAPTION.format(images=_span(images), seeds=_span(seeds))
    return f"{caption}\n\n{shown}\n"


def _span(counts: set[int]) -> str:
    return " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
