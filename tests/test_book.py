"""The committed chapters: MNIST, the paper profile, and tables that agree with themselves."""

import itertools
import math
import re

import nbformat
import pytest

from cappaper.paper import chapters, claims, experiment, ledger, tables
from cappaper.paper.tables import STRONGEST, contradictions
from tests.answers import BOOK, table_of
from tests.conftest import ROOT

CHAPTERS = {chapter.name: chapter for chapter in chapters.manifest(ROOT)}
NAMES = list(CHAPTERS)


@pytest.mark.parametrize("name", NAMES)
def test_a_chapter_is_of_the_paper_profile_and_of_its_notebook(name, monkeypatch):
    chapter, page = CHAPTERS[name], nbformat.read(BOOK / "chapters" / f"{name}.ipynb", 4)
    (given,) = [c for c in page.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert 'profile = "paper"' in given.source
    outputs = [output for cell in page.cells for output in cell.get("outputs", [])]
    assert not any(output.get("name") == "stderr" for output in outputs)
    origin = table_of(name).attrs["provenance"]
    # The truth is known for small networks on small images alone.
    dataset = "digits" if name == "exact" else "mnist"
    assert (origin["profile"], origin["dataset"]) == ("paper", dataset)
    # One network under several budgets needs no other seed.
    assert len(origin["seeds"].split()) >= (1 if name == "attack-budget" else 5)
    assert "dirty" not in origin["git_commit"]
    assert (BOOK / "results" / f"{name}.svg").exists()
    source = nbformat.read(ROOT / "notebooks" / f"{chapter.source}.ipynb", 4)
    ran = [cell.source for cell in page.cells if cell is not given]
    assert ran[1:] == [cell.source for cell in source.cells][1:]
    assert page.cells[0].source.startswith(f"# {chapter.title}\n")
    verdicts = []  # a chapter that decides a claim shows what its own table says
    monkeypatch.setattr(claims, "show_markdown", verdicts.append)
    claims.show_verdicts(name, table_of(name))
    last = [c for c in page.cells if c.cell_type == "code" and "show_verdicts(" in c.source]
    shown = ["".join(o["data"]["text/markdown"]) for cell in last for o in cell.outputs]
    decides = any(one.chapter == name for claim in claims.CLAIMS for one in claim.comparisons)
    assert shown == verdicts if decides else not last


def test_relu_is_accurate_and_robust_only_after_adversarial_training():
    table, paper = table_of("fig-04"), experiment.profile("paper")
    assert set(table["beta"]) == set(paper.betas) and set(table["images"]) == {10_000}
    assert not table.duplicated(["beta", "seed", "eps"]).any()
    relu = table[table["beta"] == math.inf]
    assert (relu["standard_accuracy"] >= 0.97).all()
    assert (relu[relu["eps"] >= 0.1]["robust_accuracy"] <= 0.1).all()
    at = {"beta": math.inf, "training_eps": 0.1, "attack": "PGD", "eps": 0.1}
    trained = table_of("adversarial-training", **at)
    assert len(trained) == 10  # two orders of layers, five seeds
    assert (trained["standard_accuracy"] >= 0.96).all()
    assert (trained["robust_accuracy"] >= 0.80).all()


RATES_OVER_EPS = "fig-02 fig-03 fig-04 fig-05 capped-layers deeper-networks convolutions"


@pytest.mark.parametrize("name", [*RATES_OVER_EPS.split(), "adversarial-training"])
def test_rates_are_consistent(name):
    table = table_of(name, attack="PGD")
    assert (table["robust_accuracy"] <= table["standard_accuracy"]).all()
    expected = 1 - table["robust_accuracy"] / table["standard_accuracy"]
    assert (table["success_rate"] - expected).abs().max() < 1e-4
    keys = ["architecture", "activation", "placement", "beta", "training_eps", "seed"]
    by_network = table.sort_values("eps").groupby(keys)["robust_accuracy"]
    assert (by_network.diff().dropna() <= 0).all()


def judged(**where):
    """Robust accuracy in how-robust: a row per seed, a column per judge."""
    table = table_of("how-robust", **where)
    return table.pivot(index="seed", columns="attack", values="robust_accuracy")


def test_a_low_cap_stops_pgd_and_not_the_cap_aware_attack():
    low = judged(beta=0.05, training_eps=0.0, eps=0.1)
    assert len(low) >= 3
    assert (low["PGD"] >= 0.7).all() and (low["cap-aware PGD"] <= 0.10).all()
    for part in ("APGD-CE", "APGD-T", "FAB-T", "Square"):
        assert (low["cap-aware PGD"] <= low[part]).all(), part
    warnings = table_of("how-robust", attack="APGD-T", beta=0.05)["warning"]
    assert warnings.str.contains("zero gradient").any()  # AutoAttack's own doubts are kept
    assert outcomes_of("how-robust")[["PGD", "cap-aware PGD"]].notna().all(axis=None)
    relu = judged(beta=math.inf, training_eps=0.1, eps=0.1)  # nothing is hidden there
    gap = (relu["PGD"] - relu["cap-aware PGD"]).round(6)
    assert gap.between(0, 0.01).all()


def test_a_rescaled_network_is_as_robust_as_before():
    keys = ["initialisation", "attack", "beta", "seed"]
    value = table_of("only-a-scale").set_index(keys)["robust_accuracy"]
    wide = value.unstack("attack")
    assert (wide["cap-aware PGD"] <= wide["PGD"]).all()
    moved, trained = value.loc["moved to 1"], value.loc["default"]
    gap = (moved - trained.loc[moved.index]).abs()
    assert len(gap) > 0 and gap.max() <= 0.01


def outcomes_of(name):
    """Outcomes: a row for each network, a column for each judge."""
    table = table_of(name)
    known = ["variant", "recipe", "training_eps", "epochs", "beta", "seed", "eps"]
    keys = [key for key in known if key in table]
    return table.pivot(index=keys, columns="attack", values="outcomes")


def assert_no_contradiction(wide, lower, upper):
    both = wide[[lower, upper]].dropna()
    assert len(both) > 0
    assert sum(contradictions(a, b) for a, b in both.to_numpy()) == 0, (lower, upper)


LADDER = ["certified by IBP", "certified by CROWN", "exact", "cap-aware PGD", "PGD", "no attack"]


@pytest.mark.parametrize("name", ["how-robust", "exact", "what-survives"])
def test_no_bound_contradicts_another_on_any_image(name):
    wide, table = outcomes_of(name), table_of(name)
    steps = [judge for judge in LADDER if judge in wide]
    assert len(steps) >= 4
    for lower, upper in itertools.pairwise(steps):
        assert_no_contradiction(wide, lower, upper)
    shares = table["outcomes"].str.count(r"\.") / table["images"]
    assert (shares - table["robust_accuracy"]).abs().max() < 1e-5


JUDGED = ["how-robust", "what-survives", "train-longer"]


@pytest.mark.parametrize("name", [*JUDGED, "attack-budget"])
def test_the_strongest_attack_is_no_weaker_than_any_on_any_image(name):
    wide = outcomes_of(name)
    others = [a for a in wide if "certified" not in a and a != tables.STRONGEST]
    assert len(others) >= 4
    for attack in others:
        assert_no_contradiction(wide, tables.STRONGEST, attack)


def test_exact_robustness_is_known_for_a_hundred_digits_with_and_without_a_cap():
    truth = table_of("exact", attack="exact")
    assert (truth["images"] >= 100).all()
    assert math.inf in set(truth["beta"]) and (truth["beta"] < math.inf).any()
    page = (BOOK / "chapters" / "exact.ipynb").read_text()
    undecided = truth["outcomes"].str.count(r"\?").sum()
    assert f"undecided: {undecided}\\n" in page


def test_autoattack_finds_little_more_on_the_networks_that_decide_adversarial_training():
    table = table_of("train-convolutions").set_index(["beta", "seed"])
    whole, theirs = (table[table["attack"] == a]["outcomes"] for a in (STRONGEST, "AutoAttack"))
    assert len(whole) == 30
    for network, outcomes in theirs.items():
        left, beside = (o.count(tables.ROBUST) for o in (whole[network][::5], outcomes))
        assert left <= beside + 0.005 * len(outcomes), network  # of every fifth image


TABLE = ledger.networks(ROOT / "book")


def test_rows_are_ordered_and_bounds_agree():
    known = TABLE.dropna(subset="certified")
    assert (known["certified"] <= known["strongest attack"]).all()
    assert (TABLE["strongest attack"] <= TABLE["PGD"]).all()
    assert (TABLE["PGD"] <= TABLE["standard"]).all()
    assert not TABLE.duplicated(["network", "trained at ε", "epochs", "attacked at ε"]).any()
    for _, group in TABLE.groupby("attacked at ε"):
        assert group["strongest attack"].is_monotonic_decreasing
    assert set(TABLE["chapter"]) == {*JUDGED, "train-convolutions", "train-one-step"}


def test_the_recipes_have_the_numbers_of_their_chapters():
    lines = (ROOT / "book" / "results" / "recipes.md").read_text().splitlines()
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in lines if line[:4] == "| 0."]
    assert len(rows) == 10
    for eps, link, *cells in rows:
        chapter = re.search(r"<chapters/(.*)>", link)[1]
        table = table_of(chapter)
        table = table[(table["training_eps"] == float(eps)) & (table["eps"] == float(eps))]
        if "recipe" in table:
            table = table[table["recipe"] == re.search(r"epochs, (.*) <", link)[1]]
            table = table[table["epochs"] == table["epochs"].max()]
        by = ["variant" if "variant" in table else "beta", "attack"]
        mean = table.groupby(by)["robust_accuracy"].mean()
        plain: list[object] = [math.inf, 1.0, 0.5, 0.2]
        if chapter == "what-survives":
            plain = ["ReLU, cap-aware", "β = 1, cap-aware", "", "β = 0.2, cap-aware"]
        for name, cell in zip(plain, cells, strict=True):
            left, pgd = (100 * mean.get((name, a), math.nan) for a in (STRONGEST, "PGD"))
            assert cell == ("" if math.isnan(left) else f"{left:.0f} ({pgd:.0f})"), chapter
