"""What is left of a cap, and what README and landing page say of it."""

import math

import nbformat
import pytest

from cappaper.paper import chapters, claims, decisions, tables
from tests.answers import BOOK, table_of
from tests.test_book import ROOT


def test_what_survives_is_what_the_pages_say():
    """At ε = 0.1 nothing beyond the spread; at 0.3 a cap at 1, under every attack."""
    table = table_of("what-survives")
    by = table.groupby(["eps", "attack", "variant"])["robust_accuracy"].mean()
    assert decisions.lasting(table, eps=0.1).holds is not True
    assert decisions.lasting(table, eps=0.3).holds is True
    for attack in ("PGD", "APGD-CE", "APGD-T", "Square", "cap-aware PGD"):
        assert by[0.3, attack, "β = 1, knowing"] > by[0.3, attack, "ReLU"], attack


def test_moving_caps_did_what_the_landing_page_says():
    """Lower caps stop PGD more and more, and the strongest attack not at all."""
    table = table_of("moving-cap")
    mean = table.groupby(["attack", "variant"], sort=False)["robust_accuracy"].mean()
    moving = [name for name in table["variant"].unique() if name.startswith("moving")]
    pgd, left = mean["PGD"], mean[tables.STRONGEST]
    assert pgd[moving].is_monotonic_increasing and left.max() < left["ReLU"] + 0.01
    free, *_, low = moving
    two = {f"{100 * left[name]:.0f}" for name in (free, low, "ReLU")}
    said = (
        f"pulled hardest, they keep {100 * pgd[low]:.0f} % under PGD instead of"
        f" {100 * pgd[free]:.0f} %, and {two.pop()} % under the strongest attack, as without a"
        " penalty and as ReLU"
    )
    assert not two and said in (BOOK / "index.md").read_text()


def test_longer_training_did_what_the_pages_say():
    """A low cap learns to stop PGD; β = 1 leads beyond chance by one recipe, ReLU by two others."""
    table = table_of("train-longer")
    mean = table.groupby(["attack", "epochs", "beta"])["robust_accuracy"].mean()
    pgd, left = mean["PGD", 40], mean[tables.STRONGEST, 40]
    low = f"{100 * pgd[0.2]:.0f} % under PGD and {100 * left[0.2]:.0f} % under the strongest attack"
    others = [
        table_of(chapter)
        .query("attack == @tables.STRONGEST and epochs == 40")
        .groupby("beta")["robust_accuracy"]
        .mean()
        for chapter in ("another-schedule", "train-knowing")
    ]
    one, relu = ([f"{100 * by[beta]:.0f} %" for by in (left, *others)] for beta in (1.0, math.inf))
    said = (
        f"ReLU keeps {relu[1]} and β = 1 {one[1]}",
        f"ReLU keeps {relu[2]} and β = 1 {one[2]}",
        "At the recipe that suits each best, the two are level",
    )
    for page in (ROOT / "README.md", BOOK / "index.md"):
        text = page.read_text()
        assert low in text and all(sentence in text for sentence in said), page
    assert f"β = 1 keeps {one[0]} and ReLU {relu[0]}" in (BOOK / "index.md").read_text()
    assert f"With β = 1 they keep {one[0]}, ReLU {relu[0]}" in (ROOT / "README.md").read_text()
    best = [max(by[beta] for by in (left, *others)) for beta in (1.0, math.inf)]
    assert abs(best[0] - best[1]) < 0.02
    knowing = others[1]
    assert knowing[math.inf] > knowing[1.0] + 0.1  # "after 40 it is ReLU that keeps more"
    found = decisions.capping(table, eps=0.3, trained=True, attack=tables.STRONGEST)
    assert found.holds is True and left.idxmax() == 1.0
    aware = mean["cap-aware PGD"]
    assert aware[40, math.inf] > aware[32, math.inf] + 0.01  # ReLU was still learning,
    lead = aware[:, 1.0] - aware[:, math.inf]
    assert lead[24] > lead[32] > lead[40]  # and catching up
    assert mean["transfer", 40, 0.2] < pgd[0.2]


def test_at_a_smaller_radius_no_cap_has_a_clear_gain():
    """Longer training at ε = 0.1: ReLU keeps most, and a low cap has learned to stop PGD."""
    table = table_of("smaller-radius")
    mean = table[table["epochs"] == 20].groupby(["attack", "beta"])["robust_accuracy"].mean()
    pgd, left = mean["PGD"], mean[tables.STRONGEST]
    kept = f"β = 1 keeps {100 * left[1.0]:.0f} % and ReLU {100 * left[math.inf]:.0f} %"
    for page, said in (
        (
            ROOT / "README.md",
            f"Trained for 20 epochs at ε = 0.1, {kept}: there, no cap has a clear",
        ),
        (BOOK / "index.md", f"a clear gain over ReLU: trained for 20 epochs at ε = 0.1, {kept}"),
    ):
        assert said in page.read_text(), page
    low = f"{100 * pgd[0.2]:.0f} % under PGD and {100 * left[0.2]:.0f} % under the strongest attack"
    assert low in (BOOK / "index.md").read_text()
    found = decisions.capping(table, eps=0.1, trained=True, attack=tables.STRONGEST)
    assert found.holds is not True and left.idxmax() == math.inf


def test_more_budget_and_longer_training_did_what_the_pages_say():
    """Twice the budget finds little more; twice the training, and ReLU has all but caught up."""
    table = table_of("attack-budget")
    wide = table.pivot(
        index=["training_eps", "epochs", "beta"], columns="attack", values="robust_accuracy"
    )
    assert (wide["× 1"] - wide["× 2"]).max() < 0.005
    lead = wide.loc[0.3].xs(1.0, level="beta") - wide.loc[0.3].xs(math.inf, level="beta")
    for budget in ("× 1", "× 2"):
        assert 0 < lead[budget][80] < lead[budget][40]


def test_pictures_say_to_who_cannot_see_them_what_is_so():
    """The findings in the alternative texts of later figures; the first gets its chapter's."""

    def means(chapter, *by, **where):
        table = table_of(chapter)
        for column, value in where.items():
            table = table[table[column] == value]
        return table.groupby(list(by), sort=False).mean(numeric_only=True)

    deep = means("capped-layers", "placement", architecture="300-200-100", beta=0.05)
    left = deep["robust_accuracy"]
    assert left.drop("2").min() > 0.75 > 0.5 > left["2"]
    truth = means("exact", "beta", attack="exact", eps=0.05)["robust_accuracy"].sort_index()
    weak = means("exact", "beta", attack="PGD", eps=0.05)["robust_accuracy"]
    assert truth.is_monotonic_increasing and weak[0.1] > weak[math.inf] - 0.05
    grown = means("fig-01", "attack", "architecture", "beta", "layer")["relative_l2"].unstack()
    growth = grown.apply(lambda row: row.dropna().iloc[-1] / row[1], axis=1)
    pgd = growth["PGD", "-".join(5 * ["100"])]
    assert pgd[math.inf] > 1.5 and pgd[1.0] > 1.5 and pgd[0.1] < 1
    assert growth["noise"].max() < 1.5
    small = means("how-robust", "beta", attack=tables.STRONGEST, eps=0.02)["robust_accuracy"]
    assert small.drop([1.0, math.inf]).max() < small[math.inf] - 0.01
    assert abs(small[1.0] - small[math.inf]) < 0.01
    families = means("fig-03", "activation", "beta", eps=0.1)["robust_accuracy"]
    assert families["sigmoid"].max() < families["capped"].max() - 0.2


@pytest.mark.parametrize("name", [chapter.name for chapter in chapters.manifest(ROOT)])
def test_a_chapter_ends_with_what_its_table_says_to_the_claims(name, monkeypatch):
    said = []
    monkeypatch.setattr(claims, "show_markdown", said.append)
    claims.show_verdicts(name, table_of(name))
    (page,) = [
        "".join(output["data"]["text/markdown"])
        for cell in nbformat.read(BOOK / "chapters" / f"{name}.ipynb", 4).cells
        if cell.cell_type == "code" and "paper.show_verdicts(" in cell.source
        for output in cell.outputs
    ]
    assert page == said[0]
