"""Result tables: outcomes of single images, CSV files, means over seeds, Markdown."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cappaper.files import atomic

Row = dict[str, Any]
RATES = ("standard_accuracy", "robust_accuracy", "success_rate")
STRONGEST = "strongest attack"
ROBUST, UNKNOWN, FOOLED = ".?x"  # the outcome of one judge on one image


def outcomes(robust: Iterable[bool]) -> str:
    """A string with a character per image, robust or fooled."""
    return "".join(ROBUST if image else FOOLED for image in robust)


def outcome_row(name: str, eps: float, standard: float, outcomes: str, **more: Any) -> Row:
    """A row of a table; the column ``attack`` has the ``name`` of the attack or certificate."""
    robust = outcomes.count(ROBUST) / len(outcomes)
    row = {"attack": name, "eps": eps, "standard_accuracy": standard, "robust_accuracy": robust}
    return row | more | {"images": len(outcomes), "outcomes": outcomes, "warning": ""}


def contradictions(lower: str, upper: str) -> int:
    """The number of images that a lower bound calls robust although an attack fooled the network.

    >>> contradictions("..x?", ".x..")
    1
    """
    return sum(a == ROBUST and b == FOOLED for a, b in zip(lower, upper, strict=True))


def save(table: pd.DataFrame, path: str | Path, origin: dict[str, str]) -> None:
    """Write a table as CSV, its provenance on top as ``# key: value`` lines."""
    head = "".join(f"# {key}: {value}\n" for key, value in origin.items())
    text = table.to_csv(index=False, float_format="%.6g", na_rep="nan")
    with atomic(Path(path)) as unfinished:
        unfinished.write_text(head + text, encoding="utf-8")


def read(path: str | Path) -> pd.DataFrame:
    """A table as :func:`save` wrote it, its provenance in ``table.attrs["provenance"]``."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    head = [line[2:].split(": ", 1) for line in lines if line.startswith("# ")]
    table = pd.read_csv(path, skiprows=len(head), keep_default_na=False, na_values=["nan"])
    table.attrs["provenance"] = dict(head)
    return table


def groups(table: pd.DataFrame, by: Any, sort: bool = True) -> list[tuple[Any, pd.DataFrame]]:
    """The rows of each value of ``by``, NaN among them."""
    return list(table.groupby(by, sort=sort, dropna=False))


def over_seeds(table: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means over seeds: columns ``by``, ``values``, ``_spread`` (standard deviation), ``seeds``."""
    rows = table.groupby(list(by), sort=False)[list(values)]
    spread = rows.std().add_suffix("_spread")
    return rows.mean().join(spread).assign(seeds=rows.size()).reset_index()


def strongest(table: pd.DataFrame, attacks: Sequence[str], name: str = STRONGEST) -> pd.DataFrame:
    """Rows of one more attack, the union of ``attacks``: a robust image withstands each of them."""
    measured = ("attack", "robust_accuracy", "success_rate", "outcomes", "warning", "seconds")
    same = [column for column in map(str, table) if column not in measured]
    rows = []
    for key, group in groups(table[table["attack"].isin(attacks)], same, sort=False):
        row: Row = dict(zip(same, key, strict=True))
        standard = float(row["standard_accuracy"])
        images = zip(*group["outcomes"], strict=True)
        worst = "".join(max(image, key=[ROBUST, UNKNOWN, FOOLED].index) for image in images)
        row |= outcome_row(name, row["eps"], standard, worst)
        success = 1 - row["robust_accuracy"] / standard if standard else 0.0
        rows.append(row | {"success_rate": success, "seconds": 0.0})
    return pd.DataFrame(rows)


def network_name(beta: float) -> str:
    """A network by its cap: "β = 0.05", or "ReLU" where it is infinite."""
    return "ReLU" if math.isinf(beta) else f"β = {beta:g}"


def format_mean_sd(values: pd.Series[Any]) -> str:
    """A mean over seeds and its standard deviation; "none" where the mean is infinite.

    >>> [format_mean_sd(pd.Series(values)) for values in ([0.1, 0.2, 0.3], [0.25], [math.inf])]
    ['0.200 ± 0.100', '0.250', 'none']
    """
    if math.isinf(values.mean()):
        return "none"
    return f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")


def markdown_table(frame: pd.DataFrame, corner: str = "") -> str:
    """A Markdown table of index and columns; floats have three decimals.

    >>> print(markdown_table(pd.DataFrame({"PGD": [0.5], "at": ["β = 1"]}, ["both"]), "capped"))
    | capped | PGD | at |
    |---|---|---|
    | both | 0.500 | β = 1 |
    """
    rows = frame.itertuples(name=None)  # the index comes first
    texts = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    texts = [[" ".join(text.split()).replace("|", "\\|") for text in row] for row in texts]
    cells = [[text.replace(" ± ", "\u00a0±\u00a0") for text in row] for row in texts]  # one line
    head = [f"| {' | '.join([corner, *frame.columns])} |", "|---" * (1 + frame.shape[1]) + "|"]
    return "\n".join(head + [f"| {' | '.join(row)} |" for row in cells])


def show_markdown(text: str) -> None:
    """Show Markdown as the output of a cell, in JupyterLab and on the book's pages."""
    from IPython.display import display

    text = inspect.cleandoc(text)
    display({"text/markdown": text, "text/plain": text}, raw=True)
