"""Conclusions with their numbers: Markdown that a notebook's code prints from its tables."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pandas as pd


def say(text: str) -> None:
    """Show Markdown as the output of a cell, in JupyterLab as on the book's pages.

    Where no Markdown is shown, the same text stands as it is.
    """
    from IPython.display import display

    text = inspect.cleandoc(text)
    display({"text/markdown": text, "text/plain": text}, raw=True)


def told(values: pd.Series[Any]) -> str:
    """A mean over seeds and its standard deviation; "none" where the mean is infinite.

    >>> told(pd.Series([0.1, 0.2, 0.3])), told(pd.Series([0.25])), told(pd.Series([math.inf]))
    ('0.200 ± 0.100', '0.250', 'none')
    """
    if math.isinf(values.mean()):
        return "none"
    spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def name_of(beta: float) -> str:
    """What a network with this cap is called.

    >>> name_of(0.05), name_of(math.inf)
    ('β = 0.05', 'ReLU')
    """
    return "ReLU" if math.isinf(beta) else f"β = {beta:g}"


def tabular(frame: pd.DataFrame, corner: str = "") -> str:
    """A Markdown table: index and columns as they are, floats with three decimals.

    >>> print(tabular(pd.DataFrame({"PGD": [0.5], "at": ["β = 1"]}, index=["both"]), "capped"))
    | capped | PGD | at |
    |---|---|---|
    | both | 0.500 | β = 1 |
    """
    rows = [[corner, *frame.columns], ["---"] * (1 + frame.shape[1])]
    rows += [[name, *row] for name, row in zip(frame.index, frame.values.tolist(), strict=True)]
    shown = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    lines = [f"|{'|'.join(row)}|" if "---" in row else f"| {' | '.join(row)} |" for row in shown]
    return "\n".join(lines)
