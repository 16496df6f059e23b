"""Result tables: tidy, on disk as CSV, each with its provenance in its first lines."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cappaper.files import whole
from cappaper.paper.marks import STANDS, worst

RATES = ("standard_accuracy", "robust_accuracy", "success_rate")

STRONGEST = "strongest attack"


def save(table: pd.DataFrame, path: str | Path, origin: dict[str, str]) -> None:
    """Write a table with its provenance as ``# key: value`` lines on top; ``path`` ends in .csv."""
    head = "".join(f"# {key}: {value}\n" for key, value in origin.items())
    text = head + table.to_csv(index=False, float_format="%.6g", na_rep="nan")
    with whole(Path(path)) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def read(path: str | Path) -> pd.DataFrame:
    """A table as :func:`save` wrote it, its provenance in ``table.attrs["provenance"]``."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    head = [line[2:].split(": ", 1) for line in lines if line.startswith("# ")]
    table: pd.DataFrame = pd.read_csv(path, comment="#", keep_default_na=False, na_values=["nan"])
    table.attrs["provenance"] = dict(head)
    return table


def over_seeds(table: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means over seeds: ``by``, each of ``values``, its ``_spread`` (standard deviation), seeds."""
    groups = table.groupby(list(by), sort=False)[list(values)]
    spread = groups.std().add_suffix("_spread")
    summary: pd.DataFrame = groups.mean().join(spread).assign(seeds=groups.size())
    return summary.reset_index()


def strongest(table: pd.DataFrame, attacks: Sequence[str], name: str = STRONGEST) -> pd.DataFrame:
    """Rows of one attack more, which an image withstands only if it does all of these."""
    chosen = table[table["attack"].isin(attacks)]
    own = ("attack", "robust_accuracy", "success_rate", "outcomes", "warning", "seconds")
    same = [column for column in table if column not in own]
    rows = []
    for key, group in chosen.groupby(same, sort=False):
        outcomes = worst(group["outcomes"])
        share = outcomes.count(STANDS) / len(outcomes)
        standard = float(group["standard_accuracy"].iloc[0])
        row: dict[Hashable, Any] = dict(zip(same, key, strict=True)) | {"attack": name}
        row |= {"robust_accuracy": share, "outcomes": outcomes, "warning": "", "seconds": 0.0}
        rows.append(row | {"success_rate": 1 - share / standard if standard else 0.0})
    return pd.DataFrame(rows)
