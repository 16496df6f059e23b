"""The sentences with numbers in README and landing page, made from the tables they speak of."""

import math
from pathlib import Path

from cappaper.paper import tables

BOOK = Path(__file__).parents[1] / "book"


def table_of(name):
    return tables.read(BOOK / "results" / f"{name}.csv")


def readme_numbers():
    """What the README says, computed from the table it speaks of."""
    table = table_of("fig-04")
    at = table[table["eps"] == 0.1]
    mean = tables.over_seeds(at, ["beta"], tables.RATES).set_index("beta")
    best = mean["robust_accuracy"].idxmax()
    relu = mean.loc[math.inf]
    return (
        f"Under PGD at ε = 0.1 the ReLU network keeps a robust accuracy of"
        f" {relu['robust_accuracy']:.3f}; with a cap at β = {best:g} it is"
        f" {mean.loc[best, 'robust_accuracy']:.3f}. Their standard accuracies are"
        f" {relu['standard_accuracy']:.3f} and {mean.loc[best, 'standard_accuracy']:.3f}"
    )


def readme_answer():
    """What the README says of the attack that knows about the cap."""
    table = table_of("how-robust")
    plain = table[(table["training_eps"] == 0) & (table["eps"] == 0.1)]
    mean = plain.groupby(["attack", "beta"])["robust_accuracy"].mean()
    best = mean["PGD"].idxmax()
    return (
        f"on {plain['images'].iloc[0]:,} test images the networks with β = {best:g} keep"
        f" {mean['cap-aware PGD', best]:.3f} under it, and {mean['PGD', best]:.3f} under PGD"
    )


def exact_answer():
    """What README and landing page say of the truth on small networks."""
    table = table_of("exact")
    at = table[(table["attack"] == "exact") & (table["eps"] == 0.05)]
    kept = at.groupby("beta")["robust_accuracy"].mean()
    low, high, relu = kept.index.min(), *kept.index[-2:]
    assert (kept < kept[relu]).sum() == len(kept) - 1
    return (
        f"none of the caps we tried keeps more than ReLU on average: of {at['images'].iloc[0]} test"
        f" images {kept[relu]:.0%} withstand every attack at ε = 0.05 with ReLU,"
        f" {kept[high]:.0%} with β = {high:g}"
        f" and {kept[low]:.0%} with β = {low:g}"
    ).replace("%", " %")
