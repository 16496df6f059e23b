"""Two tables of networks under the strongest attack: all of them, and recipe by recipe."""

from pathlib import Path

import pandas as pd

from cappaper.paper.tables import STRONGEST, groups, markdown_table, network_name, read

_CROWN = "certified by CROWN"
_UNIONS_AND_BOUNDS = ["no attack", STRONGEST, "all attacks", _CROWN, "certified by IBP"]
# Chapters, and how their networks were trained beside their β.
_CHAPTERS = {
    "how-robust": "",
    "what-survives": ", knowing",
    "smaller-radius": "",
    "train-longer": "",
    "another-schedule": ", another schedule",
    "train-knowing": ", knowing",
}


def networks(book: Path) -> pd.DataFrame:
    """A row for each kind of network in each chapter's table: mean accuracies over seeds."""
    tables = []
    for chapter, kind in _CHAPTERS.items():
        table = read(book / "results" / f"{chapter}.csv")
        provenance, trained = table.attrs["provenance"], table["training_eps"] > 0
        keys = trained.map({True: "adversarial_epochs", False: "epochs"})
        epochs = keys.map(provenance).astype(int)
        if "epochs" in table:  # the table has the networks during training, too
            table = table[table["epochs"] == epochs]
        named = "variant" in table
        name = table["variant"] if named else table["beta"].map(network_name) + kind
        tables.append(table.assign(network=name, epochs=epochs, chapter=chapter))
    names = {"training_eps": "trained at ε", "eps": "attacked at ε"}
    table = pd.concat(tables, ignore_index=True).rename(columns=names)
    kinds = ["network", "trained at ε", "epochs", "attacked at ε"]
    mean = table.pivot_table("robust_accuracy", [*kinds, "chapter"], "attack")
    counts = table.groupby([*kinds, "chapter"], sort=False).agg(
        seeds=("seed", "nunique"), images=("images", "first")
    )
    mean["best attack"] = mean.drop(columns=_UNIONS_AND_BOUNDS).idxmin(axis=1)
    mean = mean.rename(columns={"no attack": "standard", _CROWN: "certified"})
    shown = ["standard", "PGD", STRONGEST, "best attack", "certified", "seeds", "images", "chapter"]
    return counts.join(mean).dropna(subset=STRONGEST).reset_index()[[*kinds, *shown]]


def leaderboard(book: Path) -> pd.DataFrame:
    """The networks of all chapters, the most robust first; each network once."""
    table = networks(book)
    table = table.drop_duplicates(["network", "trained at ε", "epochs", "attacked at ε"])
    order = ["attacked at ε", STRONGEST]
    return table.sort_values(order, ascending=[True, False], ignore_index=True)


def page(book: Path) -> str:
    """The leaderboard as a page of the book."""
    table = leaderboard(book)
    for column in ("trained at ε", "attacked at ε"):
        table[column] = table[column].map("{:g}".format)
    table["chapter"] = table["chapter"].map("{{doc}}`chapters/{0}`".format)
    table["certified"] = table["certified"].astype(object).fillna("")
    text = markdown_table(table.set_index("network"), "network")
    return template("all-networks.md").format(count=len(table), table=text)


def recipes(book: Path) -> str:
    """Recipes of adversarial training for the landing page."""
    table = networks(book).sort_values("trained at ε", kind="stable")
    table = table[table["trained at ε"] == table["attacked at ε"]]
    rows = []
    for (eps, chapter), at in groups(table, ["trained at ε", "chapter"], sort=False):
        kind = _CHAPTERS[chapter]
        shares = zip(at["network"], at[STRONGEST], at["PGD"], strict=True)
        cells = {name: f"{100 * left:.0f} ({100 * pgd:.0f})" for name, left, pgd in shares}
        link = f"{{doc}}`{at['epochs'].iloc[0]} epochs{kind} <chapters/{chapter}>`"
        row = {"ε": f"{eps:g}", "recipe": link}
        for name in ("ReLU", "β = 1", "β = 0.2"):
            row[name] = cells.get(name + kind, "")  # empty: not trained in this way
        rows.append(row)
    spans = {}
    for key in ("images", "seeds"):
        ends = sorted({table[key].min(), table[key].max()})
        spans[key] = " to ".join(map(str, ends))
    text = markdown_table(pd.DataFrame(rows).set_index("ε"), "ε")
    return template("recipes.md").format(**spans, table=text)


def template(name: str) -> str:
    """The prose of a page that is made from tables."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
