"""All networks that every attack of the book was tried on, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pandas as pd

from cappaper.paper import tables
from cappaper.paper.tables import STRONGEST, markdown_table, network_name

CROWN = "certified by CROWN"
# With what sets a chapter's networks apart from those of the same name in the others.
_CHAPTERS = {
    "how-robust": "",
    "what-survives": "",
    "train-longer": "",
    "smaller-radius": "",
    "another-schedule": ", another schedule",
    "train-knowing": ", knowing",
}
_NO_ATTACK = ("no attack", STRONGEST, "all attacks", CROWN, "certified by IBP")


def board(book: Path) -> pd.DataFrame:
    """A row for each kind of network that the strongest attack was asked about, best first.

    Accuracies are means over seeds, on the same images. ``best attack`` leaves least of all that
    were made one by one. What several chapters share is listed once, where it comes first.
    """
    rows = [row for name in _CHAPTERS for row in rows_of(name, tables.read(table_path(book, name)))]
    table = pd.DataFrame(rows).drop_duplicates(
        ["network", "trained at ε", "epochs", "attacked at ε"]
    )
    order = ["attacked at ε", "strongest attack"]
    return table.sort_values(order, ascending=[True, False]).reset_index(drop=True)


def page(book: Path) -> str:
    """The table as a page of the book."""
    table = board(book)
    accuracies = ["standard", "PGD", "strongest attack", "certified"]
    table[accuracies] = table[accuracies].map(lambda v: "" if pd.isna(v) else f"{v:.3f}")
    for column in ("trained at ε", "attacked at ε"):
        table[column] = table[column].map("{:g}".format)
    chapters = table.pop("chapter").map("{{doc}}`chapters/{0}`".format)
    shown = markdown_table(table.assign(chapter=chapters).set_index("network"), "network")
    return _PAGE.format(count=len(table), table=shown)


def table_path(book: Path, chapter: str) -> Path:
    return book / "results" / f"{chapter}.csv"


def rows_of(chapter: str, table: pd.DataFrame) -> list[dict[str, Any]]:
    """A row for each kind of network that a chapter's strongest attack was asked about."""
    about = table.attrs["provenance"]
    told = table[table["attack"] == STRONGEST]
    keys = ["variant" if "variant" in table else "beta", "training_eps", "eps"]
    rows = []
    for (name, trained, eps), _ in told.groupby(keys):
        epochs = int(about["adversarial_epochs" if trained else "epochs"])
        same = (table[keys] == [name, trained, eps]).all(axis=1)
        if "epochs" in table:  # the networks were looked at on their way, too
            same &= table["epochs"] == epochs
        left = table[same].groupby("attack")["robust_accuracy"].mean()
        rows.append(
            {
                "network": (name if isinstance(name, str) else network_name(cast(float, name)))
                + _CHAPTERS[chapter],
                "trained at ε": trained,
                "epochs": epochs,
                "attacked at ε": eps,
                "standard": left["no attack"],
                "PGD": left["PGD"],
                "strongest attack": left[STRONGEST],
                "best attack": left.drop([n for n in _NO_ATTACK if n in left]).idxmin(),
                "certified": left.get(CROWN),
                "seeds": table.loc[same, "seed"].nunique(),
                "images": int(table.loc[same, "images"].iloc[0]),
                "chapter": chapter,
            }
        )
    return rows


_CAPTION = (
    "Share of test images that are classified correctly, mean over seeds. A press of a column's"
    " head sorts by it. Trained at ε = 0 is standard training. *Best attack*: the one that leaves"
    " least of those that were made one by one. *Knowing*: trained against an adversary that knows"
    " about the cap."
)
_PAGE = f"""# All networks in one table

The networks that many attacks were tried on, in {{count}} rows, at each ε the most robust first.
*Strongest attack* is the union of all attacks of a row's chapter, image by image: no other number
here says how robust a network is, and even this one is an upper bound. What *certified* says is
proven.

```{{{{table}}}} {_CAPTION}
:class: sortable
{{table}}
```

Networks with two hidden layers of 300 and 100 units on MNIST. How the attacks are set, and what
they cost, is in the chapters of the last column. This page is made by `cappaper claims --write`
from their tables.
"""
