"""Two tables of networks under the strongest attack: all of them, and recipe by recipe."""

from pathlib import Path
from typing import Any, cast

import pandas as pd

from cappaper.paper.tables import STRONGEST, markdown_table, network_name, read

CROWN = "certified by CROWN"
_UNIONS_AND_BOUNDS = ("no attack", STRONGEST, "all attacks", CROWN, "certified by IBP")
# Chapters, and what tells their networks from those of the same name in earlier ones.
_CHAPTERS = {
    "how-robust": "",
    "what-survives": "",
    "train-longer": "",
    "smaller-radius": "",
    "another-schedule": ", another schedule",
    "train-knowing": ", knowing",
}
# Chapter, radius, and what the chapter calls networks of that training beside their β.
_RECIPES = (
    ("how-robust", 0.1, ""),
    ("what-survives", 0.1, ", knowing"),
    ("smaller-radius", 0.1, ""),
    ("how-robust", 0.3, ""),
    ("what-survives", 0.3, ", knowing"),
    ("train-longer", 0.3, ""),
    ("another-schedule", 0.3, ", another schedule"),
    ("train-knowing", 0.3, ", knowing"),
)
_PAGE = """# All networks in one table

The networks that many attacks were tried on, in {count} rows, at each ε the most robust first.
*Strongest attack* is the union of all attacks of a row's chapter, image by image: no other number
here says how robust a network is, and even this one is an upper bound. What *certified* says is
proven.

```{{table}} Share of test images that are classified correctly, mean over seeds. A press of a\
 column's head sorts by it. Trained at ε = 0 is standard training. *Best attack*: the one that\
 leaves least of those that were made one by one. *Knowing*: trained against an adversary that\
 knows about the cap.
:class: sortable
{table}
```

Networks with two hidden layers of 300 and 100 units on MNIST. How the attacks are set, and what
they cost, is in the chapters of the last column. This page is made by `cappaper claims --write`
from their tables.
"""
_RECIPES_CAPTION = (
    "Percent of {} test images that withstand the strongest attack found (in brackets: PGD),"
    " after training at the same ε; means over {} seeds. *Knowing*: the adversary in training"
    " knows about the cap. *Another schedule*: Adam's step size rises and falls. The last column is"
    " the verdict on some cap, the best of all that the chapter tries, keeping more than ReLU under"
    " the strongest attack."
)


def networks_of(book: Path, chapter: str) -> list[dict[str, Any]]:
    """A row for each kind of network in a chapter's table: mean accuracies over seeds."""
    table = read(book / "results" / f"{chapter}.csv")
    kinds = ["variant" if "variant" in table else "beta", "training_eps", "eps"]
    rows = []
    for (name, trained, eps), group in table.groupby(kinds, sort=False):
        key = "adversarial_epochs" if trained else "epochs"
        epochs = int(table.attrs["provenance"][key])
        if "epochs" in group:  # the table has the networks during training, too
            group = group[group["epochs"] == epochs]
        mean = group.groupby("attack")["robust_accuracy"].mean()
        if STRONGEST not in mean:
            continue
        label = name if isinstance(name, str) else network_name(cast(float, name))
        rows.append(
            {
                "network": label + _CHAPTERS[chapter],
                "trained at ε": trained,
                "epochs": epochs,
                "attacked at ε": eps,
                "standard": mean["no attack"],
                "PGD": mean["PGD"],
                STRONGEST: mean[STRONGEST],
                "best attack": mean.drop([a for a in _UNIONS_AND_BOUNDS if a in mean]).idxmin(),
                "certified": mean.get(CROWN),
                "seeds": group["seed"].nunique(),
                "images": int(group["images"].iloc[0]),
                "chapter": chapter,
            }
        )
    return rows


def leaderboard(book: Path) -> pd.DataFrame:
    """The networks of all chapters, the most robust first; each network once."""
    table = pd.DataFrame([row for chapter in _CHAPTERS for row in networks_of(book, chapter)])
    table = table.drop_duplicates(["network", "trained at ε", "epochs", "attacked at ε"])
    order = ["attacked at ε", STRONGEST]
    return table.sort_values(order, ascending=[True, False]).reset_index(drop=True)


def page(book: Path) -> str:
    """The leaderboard as a page of the book."""
    table = leaderboard(book)
    for column in ("trained at ε", "attacked at ε"):
        table[column] = table[column].map("{:g}".format)
    table["chapter"] = table["chapter"].map("{{doc}}`chapters/{0}`".format)
    table["certified"] = table["certified"].astype(object).fillna("")
    return _PAGE.format(
        count=len(table), table=markdown_table(table.set_index("network"), "network")
    )


def recipes(book: Path, ledger: pd.DataFrame) -> str:
    """A table for the landing page: recipes of adversarial training, with the verdict on a cap.

    ``ledger``: the tests of the claims with their verdicts.
    """
    rows, networks = [], []
    for chapter, eps, kind in _RECIPES:
        at = [
            n for n in networks_of(book, chapter) if n["trained at ε"] == n["attacked at ε"] == eps
        ]
        by_name = {network["network"]: network for network in at}
        link = f"{{doc}}`{at[0]['epochs']} epochs{kind} <chapters/{chapter}>`"
        row = {"ε": f"{eps:g}", "recipe": link}
        for name in ("ReLU", "β = 1", "β = 0.2"):
            network = by_name.get(name + kind, by_name.get(name))
            row[name] = (
                f"{100 * network[STRONGEST]:.0f} ({100 * network['PGD']:.0f})" if network else ""
            )
        tests = ledger[(ledger["claim"] == 4) & (ledger["chapter"] == chapter)]
        row["a cap keeps more"] = tests[tests["test"].str.contains(f"at ε = {eps:g}")][
            "verdict"
        ].item()
        rows.append(row)
        networks += at
    counts = [sorted({network[key] for network in networks}) for key in ("images", "seeds")]
    spans = [" to ".join(map(str, dict.fromkeys((c[0], c[-1])))) for c in counts]
    table = markdown_table(pd.DataFrame(rows).set_index("ε"), "ε")
    return f"{_RECIPES_CAPTION.format(*spans)}\n\n{table}\n"
