"""What is committed in the book: MNIST, the paper profile, numbers that agree with their tables."""

import itertools
import math
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from cappaper.paper import chapters, profiles, tables
from cappaper.paper.tables import contradictions
from tests.answers import BOOK, exact_answer, readme_answer, readme_numbers, table_of

ROOT = Path(__file__).parents[1]
NAMES = [chapter.name for chapter in chapters.manifest(ROOT)]


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_chapter_is_of_the_paper_profile(name):
    notebook = nbformat.read(BOOK / "chapters" / f"{name}.ipynb", 4)
    (given,) = [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert 'profile = "paper"' in given.source
    assert not any(o.get("name") == "stderr" for c in notebook.cells for o in c.get("outputs", []))
    origin = table_of(name).attrs["provenance"]
    # The truth is known for small networks on small images alone.
    assert origin["profile"] == "paper"
    assert origin["dataset"] == ("digits" if name == "exact" else "mnist")
    # The same network under several budgets is a comparison that needs no other.
    assert len(origin["seeds"].split()) >= (1 if name == "attack-budget" else 5)
    assert "dirty" not in origin["git_commit"]
    assert (BOOK / "results" / f"{name}.svg").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_chapter_is_of_the_notebook_as_it_stands(name):
    """A notebook edited after its chapter ran must run again."""
    chapter = chapters.select(chapters.manifest(ROOT), [name])[0]
    source = nbformat.read(ROOT / "notebooks" / f"{chapter.source}.ipynb", 4)
    page = nbformat.read(BOOK / "chapters" / f"{name}.ipynb", 4)
    code = [c.source for c in page.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    assert code[1:] == [c.source for c in source.cells][1:]
    assert page.cells[0].source.startswith(f"# {chapter.title}\n")


def test_every_network_of_the_paper_profile_is_in_the_table():
    paper = profiles.profile("paper")
    for name in ("fig-04", "fig-05"):
        table = table_of(name)
        seeds = table.attrs["provenance"]["seeds"].split()
        assert len(table) == len(paper.betas) * len(seeds) * len(paper.epsilons)
        assert set(table["beta"]) == set(paper.betas) and math.inf in set(table["beta"])
        assert set(table["images"]) == {10_000}


def test_the_relu_baseline_is_what_the_field_knows():
    """MLP 300-100 on MNIST: accurate, and helpless under PGD-40."""
    table = table_of("fig-04")
    relu = table[table["beta"] == math.inf]
    assert (relu["standard_accuracy"] >= 0.97).all()
    assert (relu[relu["eps"] == 0.1]["robust_accuracy"] <= 0.1).all()
    assert (relu[relu["eps"] == 0.3]["robust_accuracy"] == 0).all()


def test_adversarial_training_does_what_the_field_knows():
    """ReLU, trained and attacked at ε = 0.1: accurate, and far from helpless."""
    table = table_of("adversarial-training")
    relu = table[(table["beta"] == math.inf) & (table["training_eps"] == 0.1)]
    at = relu[(relu["attack"] == "PGD") & (relu["eps"] == 0.1)]
    assert len(at) == 10  # two orders of layers, five seeds
    assert (at["standard_accuracy"] >= 0.96).all()
    assert (at["robust_accuracy"] >= 0.80).all()


RATES_OVER_EPS = [
    *("fig-02", "fig-03", "fig-04", "fig-05"),
    *("capped-layers", "deeper-networks", "convolutions", "adversarial-training"),
]


@pytest.mark.parametrize("name", RATES_OVER_EPS)
def test_rates_are_consistent(name):
    table = table_of(name)
    table = table[table["attack"] == "PGD"]
    assert (table["robust_accuracy"] <= table["standard_accuracy"]).all()
    expected = 1 - table["robust_accuracy"] / table["standard_accuracy"]
    assert (table["success_rate"] - expected).abs().max() < 1e-4
    sorted_eps = table.sort_values("eps")
    keys = ["architecture", "activation", "placement", "beta", "training_eps", "seed"]
    assert (sorted_eps.groupby(keys)["robust_accuracy"].diff().dropna() <= 0).all()


def prose():
    """Name and text of everything that a reader of the book reads, without what is glued in."""
    for path in [ROOT / "README.md", *sorted(BOOK.glob("*.md"))]:
        yield path.name, path.read_text()
    for name in NAMES:
        notebook = nbformat.read(BOOK / "chapters" / f"{name}.ipynb", 4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown" or "show_markdown(" in cell.source:
                yield name, cell.source


def test_no_result_is_typed():
    """Results have three decimals: in prose they are glued, or checked by another test here."""
    checked = {
        "README.md": [readme_numbers(), readme_answer()],
        "method.md": [method_numbers()],
    }
    for name, text in prose():
        if name in ("claims.md", "all-networks.md"):  # generated as a whole
            continue
        text = re.sub(r"\s+", " ", re.sub(r"\{glue:\w+\}`[^`]*`", "", text))
        for sentence in checked.get(name, []):
            text = text.replace(sentence, "")
        assert not re.findall(r"(?<![\w/])0?\.\d{3,}", text), name


def method_numbers():
    """What the method page says about the paper profile, computed from the profile."""
    paper = profiles.profile("paper")
    return (
        f"step size {paper.lr:g}, batches of {paper.batch_size}, {paper.epochs} epochs"
        f" ({paper.adversarial_epochs} of adversarial training), 60,000 images"
    )


def test_the_method_says_what_the_profile_says():
    text = (BOOK / "method.md").read_text()
    paper = profiles.profile("paper")
    assert method_numbers() in text
    assert f"{paper.hidden[0]} and {paper.hidden[1]} units" in text
    assert f"PGD in L∞, {paper.steps} steps of 2.5·ε/{paper.steps}" in text
    assert f"ε = {', '.join(f'{e:g}' for e in paper.epsilons)} of the pixels' range" in text


def test_the_readme_says_what_the_table_says():
    text = re.sub(r"\s+", " ", (ROOT / "README.md").read_text())
    assert readme_numbers() in text
    assert readme_answer() in text
    assert exact_answer() in text and exact_answer() in (BOOK / "index.md").read_text()


def judged(beta, training_eps=0.0, eps=0.1):
    """Robust accuracy on the how-robust page: a row per seed, a column per judge."""
    table = table_of("how-robust")
    chosen = (table["beta"] == beta) & (table["training_eps"] == training_eps)
    chosen &= table["eps"] == eps
    return table[chosen].pivot(index="seed", columns="attack", values="robust_accuracy")


def test_the_cap_hides_from_pgd_and_not_from_the_attack_that_knows():
    low = judged(0.05)
    assert len(low) >= 3
    assert (low["PGD"] >= 0.7).all() and (low["cap-aware PGD"] <= 0.10).all()


def test_no_part_of_autoattack_finds_more_on_the_cap():
    low = judged(0.05)
    for part in ("APGD-CE", "APGD-T", "FAB-T", "Square"):
        assert (low["cap-aware PGD"] <= low[part]).all(), part
    table = table_of("how-robust")
    said = table[(table["attack"] == "APGD-T") & (table["beta"] == 0.05)]["warning"]
    assert said.str.contains("zero gradient").any()  # AutoAttack's own doubts are kept


def test_where_nothing_is_hidden_nothing_is_unmasked():
    wide = judged(math.inf, training_eps=0.1)
    gap = (wide["PGD"] - wide["cap-aware PGD"]).round(6)  # 0.846 - 0.836 is above 0.01 in binary
    assert gap.between(0, 0.01).all()


LADDER = ["certified by IBP", "certified by CROWN", "exact", "cap-aware PGD", "PGD", "no attack"]


@pytest.mark.parametrize("name", ["how-robust", "exact", "what-survives"])
def test_no_committed_bound_contradicts_another_on_any_image(name):
    table = table_of(name)
    keys = ["variant"] if "variant" in table else []
    keys += ["training_eps", "beta", "seed", "eps"]
    wide = table.pivot(index=keys, columns="attack", values="outcomes")
    steps = [judge for judge in LADDER if judge in wide]
    assert len(steps) >= 4
    for lower, upper in itertools.pairwise(steps):
        both = wide[[lower, upper]].dropna()
        assert len(both) > 0
        assert sum(contradictions(a, b) for a, b in both.to_numpy()) == 0, (lower, upper)
    shares = table["outcomes"].str.count(r"\.") / table["images"]
    assert (shares - table["robust_accuracy"]).abs().max() < 1e-5


def test_the_truth_is_known_for_a_hundred_digits_with_and_without_a_cap():
    table = table_of("exact")
    truth = table[table["attack"] == "exact"]
    assert (truth["images"] >= 100).all()
    assert math.inf in set(truth["beta"]) and (truth["beta"] < math.inf).any()
    page = (BOOK / "chapters" / "exact.ipynb").read_text()
    undecided = truth["outcomes"].str.count(r"\?").sum()  # time-outs are told
    assert f"undecided: {undecided}\\n" in page


JUDGED = [
    "how-robust",
    "what-survives",
    "moving-cap",
    "train-longer",
    "smaller-radius",
    "another-schedule",
    "train-knowing",
    "attack-budget",
]


@pytest.mark.parametrize("name", JUDGED)
def test_the_strongest_attack_is_no_weaker_than_any_on_any_image(name):
    table = table_of(name)
    keys = [k for k in ("variant", "training_eps", "epochs", "beta", "seed", "eps") if k in table]
    wide = table.pivot(index=keys, columns="attack", values="outcomes")
    others = [a for a in wide if "certified" not in a and a != tables.STRONGEST]
    assert len(others) >= 4
    for attack in others:
        both = wide[[tables.STRONGEST, attack]].dropna()
        assert len(both) > 0
        assert sum(contradictions(a, b) for a, b in both.to_numpy()) == 0, attack


def test_a_moved_network_falls_as_it_did():
    """β is only a scale: the same function, the same robust accuracy."""
    table = table_of("only-a-scale")
    keys = ["attack", "beta", "seed"]
    value = table.set_index(["initialisation", *keys])["robust_accuracy"]
    moved, trained = value.loc["moved to 1"], value.loc["default"]
    gap = (moved - trained.loc[moved.index]).abs()
    assert len(gap) > 0 and gap.max() <= 0.01


def test_the_attack_that_knows_is_never_weaker():
    table = pd.concat([table_of("how-robust"), table_of("only-a-scale")])
    keys = ["training_eps", "initialisation", "eps", "beta", "seed"]
    table = table.drop_duplicates([*keys, "attack"])
    wide = table.pivot(index=keys, columns="attack", values="robust_accuracy")
    assert (wide["cap-aware PGD"] <= wide["PGD"]).all()


def test_the_page_on_method_names_the_chapters_of_three_seeds():
    few = {name for name in NAMES if len(table_of(name).attrs["provenance"]["seeds"].split()) < 5}
    (line,) = [row for row in (BOOK / "method.md").read_text().splitlines() if "| seeds |" in row]
    assert few == set(re.findall(r"{doc}`chapters/([\w-]+)`", line))
