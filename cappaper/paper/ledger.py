"""What is made of all tables together: the ledger of claims, all networks, and their pages."""

import hashlib
from pathlib import Path

import pandas as pd

from cappaper.files import atomic
from cappaper.paper.claims import CLAIMS, MARGIN
from cappaper.paper.tables import STRONGEST, groups, markdown_table, network_name, read

LEDGER, SUMS = Path("results/claims.csv"), Path("results/SHA256SUMS")
PAGE, NETWORKS = Path("claims.md"), Path("all-networks.md")
QUESTIONS = {"reproduced": "Reproduced?", "real": "Is it real?"}
_MARKS = {"yes": "✓", "no": "✗", "reversed": "✗", "in part": "✓✗", "not decided": "?"}

_CROWN = "certified by CROWN"
_BOUNDS = [_CROWN, "certified by IBP"]
_NO_SINGLE_ATTACK = ["no attack", STRONGEST, "our ensemble", "AutoAttack", *_BOUNDS]
# Chapters, and what follows β in the name of a network to say how it was trained.
_CHAPTERS = {
    "how-robust": "",
    "what-survives": ", cap-aware",
    "train-longer": "",  # the recipe
    "train-convolutions": ", convolutions",
    "train-one-step": ", convolutions, one step",
}


def verdicts(book: Path) -> pd.DataFrame:
    """Both answers to every claim, and the evidence, from the result tables of a book's folder.

    A missing table raises a FileNotFoundError, a missing column a ValueError.
    """
    chapters = {one.chapter for claim in CLAIMS for one in claim.comparisons}
    tables = {chapter: read(book / "results" / f"{chapter}.csv") for chapter in sorted(chapters)}
    rows = []
    for claim in CLAIMS:
        for kind, answer in claim.answers(tables).items():
            rows.append((claim.number, kind, answer.chapter, "", answer.word, answer.says))
        for one in claim.comparisons:
            says = one.numbers(tables[one.chapter])
            rows.append((claim.number, "evidence", one.chapter, one.asks, "", says))
    return pd.DataFrame(rows, columns=["claim", "kind", "chapter", "compared", "answer", "says"])


def write(book: Path) -> None:
    """Write the ledger, the book's pages from it, and the checksums, from the result tables."""
    for name, text in _files(book).items():
        with atomic(book / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def disagreements(book: Path) -> list[str]:
    """A sentence for each file that does not agree with the result tables."""
    now = _files(book)
    then = {name: (book / name).read_text(encoding="utf-8") for name in now}
    lines = set(now.pop(SUMS).splitlines()) ^ set(then[SUMS].splitlines())
    changed = sorted({line.split("  ", 1)[1] for line in lines} - {LEDGER.name})
    sentences = [f"{name} is not the table that the ledger was made from" for name in changed]
    others = [name for name in now if now[name] != then[name]]
    return sentences + [f"{name} is not what the tables give: write it again" for name in others]


def _files(book: Path) -> dict[Path, str]:
    """The ledger, the pages made from it, and checksums of all tables for ``sha256sum``."""
    ledger = verdicts(book)
    text = ledger.to_csv(index=False)
    tables = {p.name: p.read_bytes() for p in (book / "results").glob("*.csv")}
    tables[LEDGER.name] = text.encode()
    listed = networks(book)
    sums = [f"{hashlib.sha256(t).hexdigest()}  {name}\n" for name, t in sorted(tables.items())]
    return {
        LEDGER: text,
        PAGE: page(ledger),
        Path("results/verdicts.md"): cards(ledger),
        NETWORKS: networks_page(listed),
        Path("results/recipes.md"): recipes(listed),
        SUMS: "".join(sums),
    }


def cards(ledger: pd.DataFrame) -> str:
    """Each claim with its two answers, as a row of cards for the landing page."""
    answers = ledger.set_index(["claim", "kind"])["answer"]
    lines = ["::::{grid} 1 2 3 3", ":gutter: 2", ""]
    for claim in CLAIMS:
        lines += [f":::{{grid-item-card}} Claim {claim.number}"]
        lines += [f":link: claim-{claim.number}", ":link-type: ref", claim.claim, ""]
        for kind, question in QUESTIONS.items():
            word = answers[claim.number, kind]
            lines += [f"{question} **{_MARKS[word]} {word}**", ""]
        lines += [":::", ""]
    return "\n".join([*lines, "::::", ""])


def page(ledger: pd.DataFrame) -> str:
    """The ledger as a page of the book."""
    sections = []
    for claim in CLAIMS:
        mine = ledger[ledger["claim"] == claim.number].set_index("kind")
        title = f"## {claim.number}. {claim.claim.rstrip('.')}"
        parts = [f"(claim-{claim.number})=\n{title}", f"*{claim.where}*"]
        for kind, question in QUESTIONS.items():
            one = {str(key): str(value) for key, value in mine.loc[kind].items()}
            answer = f"**{question} {one['answer'].capitalize()}.**"
            parts.append(f"{answer} {one['says']} {_link(one['chapter'])}")
        evidence = mine[mine.index == "evidence"].set_index("compared")[["says", "chapter"]]
        table = markdown_table(evidence.assign(chapter=evidence["chapter"].map(_link)), "compared")
        parts.append(f":::{{dropdown}} All comparisons, with their intervals\n{table}\n:::")
        sections.append("\n\n".join(parts))
    text = _template("claims.md")
    return text.format(margin=f"{100 * MARGIN:g}", claims="\n\n".join(sections))


def _link(chapter: str) -> str:
    return f"{{doc}}`chapters/{chapter}`"


def networks(book: Path) -> pd.DataFrame:
    """A row for each kind of network, its mean accuracies over seeds: the most robust first."""
    tables = []
    for chapter, suffix in _CHAPTERS.items():
        table = read(book / "results" / f"{chapter}.csv")
        provenance, trained = table.attrs["provenance"], table["training_eps"] > 0
        keys = trained.map({True: "adversarial_epochs", False: "epochs"})
        epochs = keys.map(provenance).astype(int)
        if "recipe" in table:  # the table has the networks during training, too
            epochs = table.groupby("recipe")["epochs"].transform("max")
            table = table[table["epochs"] == epochs]
        kind = ", " + table["recipe"] if "recipe" in table else suffix
        name = table["variant"] if "variant" in table else table["beta"].map(network_name) + kind
        tables.append(table.assign(network=name, kind=kind, epochs=epochs, chapter=chapter))
    names = {"training_eps": "trained at ε", "eps": "attacked at ε"}
    table = pd.concat(tables, ignore_index=True).rename(columns=names)
    kinds = ["network", "trained at ε", "epochs", "attacked at ε"]
    by = [*kinds, "kind", "chapter"]
    mean = table.pivot_table("robust_accuracy", by, "attack")
    mean = mean.dropna(subset=[STRONGEST, "no attack"])
    counts = table.groupby(by).agg(seeds=("seed", "nunique"), images=("images", "first"))
    mean["best attack"] = mean.drop(columns=_NO_SINGLE_ATTACK).idxmin(axis=1)
    mean = mean.rename(columns={"no attack": "standard", _CROWN: "certified"})
    shown = ["network", "attacked at ε", STRONGEST, "PGD", "standard", "best attack", "certified"]
    shown += ["trained at ε", "epochs", "seeds", "images", "chapter", "kind"]
    table = counts.join(mean, how="inner").reset_index()[shown].drop_duplicates(kinds)
    order = ["attacked at ε", STRONGEST]
    return table.sort_values(order, ascending=[True, False], ignore_index=True)


def networks_page(table: pd.DataFrame) -> str:
    """All :func:`networks` as a page of the book."""
    table = table.drop(columns="kind").set_index("network")
    shown = {eps: table[eps].map("{:g}".format) for eps in ("trained at ε", "attacked at ε")}
    shown["chapter"] = table["chapter"].map(_link)
    shown["certified"] = table["certified"].astype(object).fillna("")
    text = markdown_table(table.assign(**shown), "network")
    return _template("all-networks.md").format(count=len(table), table=text)


def recipes(table: pd.DataFrame) -> str:
    """Recipes of adversarial training among :func:`networks`, for the landing page."""
    table = table[table["trained at ε"] == table["attacked at ε"]]
    rows, place = [], table["chapter"].map([*_CHAPTERS].index).rename("place")
    for (eps, _, chapter, kind), at in groups(table, ["trained at ε", place, "chapter", "kind"]):
        shares = zip(at["network"], at[STRONGEST], at["PGD"], strict=True)
        cells = {name: f"{100 * left:.0f}\u00a0({100 * pgd:.0f})" for name, left, pgd in shares}
        link = f"{{doc}}`{at['epochs'].iloc[0]} epochs{kind} <chapters/{chapter}>`"
        row = {"ε": f"{eps:g}", "recipe": link}
        for name in ("ReLU", "β = 1", "β = 0.5", "β = 0.2"):
            row[name] = cells.get(name + kind, "")  # empty: not trained in this way
        rows.append(row)
    ends = {key: sorted({table[key].min(), table[key].max()}) for key in ("images", "seeds")}
    spans = {key: " or ".join(map(str, values)) for key, values in ends.items()}
    text = markdown_table(pd.DataFrame(rows).set_index("ε"), "ε")
    return _template("recipes.md").format(**spans, table=text)


def _template(name: str) -> str:
    """The prose of a page that is made from tables."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")
