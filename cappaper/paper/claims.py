"""The paper's claims, the tests of each, and the verdicts of the result tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import pandas as pd

from cappaper.paper import decisions
from cappaper.paper.decisions import STEP, Decision, Undecided
from cappaper.paper.statistics import LEVEL
from cappaper.paper.tables import STRONGEST, show_markdown


@dataclass(frozen=True)
class Claim:
    """What the paper says, and where."""

    number: int
    says: str
    where: str = "not in a figure known to us"

    @property
    def tests(self) -> list[Test]:
        """The tests of this claim."""
        return [test for test in TESTS if test.claim == self.number]


@dataclass(frozen=True)
class Test:
    """What one chapter's table must show. ``paper``: under the attack that the paper uses."""

    __test__: ClassVar[bool] = False  # not one of pytest's

    claim: int
    chapter: str
    says: str
    decide: Callable[..., Decision]  # (table, level=...)
    paper: bool = True


CLAIMS = (
    Claim(1, "Perturbations grow through ReLU layers.", "Figure 1"),
    Claim(
        2, "Capping improves robustness, and a lower max value is more robust.", "Figures 4 and 5"
    ),
    Claim(
        3,
        "The effect depends on which layers are capped, and on the size and order of the layers.",
        "Figures 2, 4 and 5",
    ),
    Claim(4, "Adversarial training with capped ReLU beats conventional adversarial training."),
    Claim(5, "Vanishing gradients keep capped ReLU from very large models."),
    Claim(
        6,
        "Left open: whether the gain holds under other attacks, such as Carlini and Wagner's.",
        "an open question of the paper",
    ),
)

_GROWS = (
    "The distance between hidden outputs on clean and on PGD examples grows from the first to the"
    " last of equally wide ReLU layers, as it is and divided by the clean norm"
)
_RELATIVE = "Divided by the clean norm, that distance grows more"
_OF_RELU = f"{_RELATIVE} through ReLU than through any capped network"
_OF_PGD = f"{_RELATIVE} for PGD examples than for noise of the same size"
_EITHER = "Some cap keeps more than ReLU under PGD at ε = 0.1"
_LOWER = "PGD's success rate at ε = 0.1 never rises as β is lowered"
_LOWER_STILL = _LOWER.replace("PGD's", "The strongest attack's")
_FOUND = "under the strongest attack found"
_NEARBY = f"At ε = 0.02, some cap keeps more than ReLU {_FOUND}"
_TRUTH = (
    "On small networks, where the truth is known, some cap keeps more than ReLU of the exact robust"
    " accuracy at ε = 0.05"
)
_SURVIVES = f"More than half of what the best cap gains under PGD is left {_FOUND}"
_PLACES = "At one β, PGD's success rate differs between choices of capped layers"
_SIZES = "At one β, PGD's success rate differs between shapes of equal size"
_ORDERS = _SIZES.replace("shapes", "narrowing and widening layers")
_SIZES_STILL = _SIZES.replace("PGD's", "the strongest attack's")
_ORDERS_STILL = _ORDERS.replace("PGD's", "the strongest attack's")
_TRAINED = "Trained and attacked at ε = {}, some cap keeps more than ReLU under PGD"
_KEEPS = _TRAINED.replace("under PGD", _FOUND)
_KNOWING = "against an adversary that knows about the cap"
_VARIANT = (
    f"Trained and attacked at ε = {{}}, one of seven ways to cap keeps more than ReLU {_FOUND};"
    f" most are trained {_KNOWING}"
)
_LONGER = f"Trained for longer at ε = {{}}, some cap keeps more than ReLU {_FOUND}"
_SCHEDULE = _LONGER.replace(",", ", with a step size that rises and falls,")
_KNOWING_LONGER = _LONGER.replace(",", f", {_KNOWING},")
_FAILS = (
    "From torch's initialisation, the deepest network with the lowest cap stays ten points behind"
    " ReLU after the same training"
)
_RESCALED = "The same from a start at the scale of the cap"
_CARLINI = (
    "Carlini and Wagner's L2 attack, of unlimited radius, fails on some capped network more often"
    " than on ReLU"
)
_CARLINI_KNOWING = "The same for a version of it that knows about the cap"
_FARTHER = (
    "The nearest that any L2 attack finds lies farther away with some cap than with ReLU, by more"
    f" than {STEP:g}, the search's step"
)
_trained = partial(decisions.capping, trained=True)
_placing = partial(decisions.differing, by="placement")
_surviving = partial(decisions.surviving, attack=STRONGEST)
_nearby = partial(decisions.capping, attack=STRONGEST, eps=0.02)
_rescaled = partial(decisions.vanishing, initialisation="rescaled")
_carlini_knowing = partial(decisions.carlini, attack="cap-aware CW")
_keeping = partial(_trained, attack=STRONGEST)

TESTS = (
    Test(1, "fig-01", _GROWS, decisions.growth),
    Test(1, "fig-01", _OF_RELU, decisions.growth_of_relu),
    Test(1, "fig-01", _OF_PGD, decisions.growth_of_attack),
    Test(2, "fig-04", _EITHER, decisions.capping),
    Test(2, "fig-04", _LOWER, decisions.lowering),
    Test(2, "fig-05", _EITHER, decisions.capping),
    Test(2, "fig-05", _LOWER, decisions.lowering),
    Test(2, "deeper-networks", f"{_EITHER}, in every architecture", decisions.capping),
    Test(2, "deeper-networks", f"{_LOWER}, in every architecture", decisions.lowering),
    Test(2, "convolutions", _EITHER, decisions.capping),
    Test(2, "convolutions", _LOWER, decisions.lowering),
    Test(2, "how-robust", _SURVIVES, _surviving, False),
    Test(2, "how-robust", _LOWER_STILL, partial(decisions.lowering, attack=STRONGEST), False),
    Test(2, "how-robust", _NEARBY, _nearby, False),
    Test(2, "exact", _TRUTH, partial(decisions.capping, attack="exact", eps=0.05), False),
    Test(3, "fig-02", _PLACES, _placing),
    Test(3, "capped-layers", _PLACES, _placing),
    Test(3, "deeper-networks", _SIZES, decisions.differing),
    Test(3, "deeper-networks", _ORDERS, decisions.ordering),
    Test(3, "deeper-networks", _SIZES_STILL, partial(decisions.differing, attack=STRONGEST), False),
    Test(3, "deeper-networks", _ORDERS_STILL, partial(decisions.ordering, attack=STRONGEST), False),
    Test(4, "adversarial-training", _TRAINED.format(0.1), partial(_trained, eps=0.1)),
    Test(4, "adversarial-training", _TRAINED.format(0.3), partial(_trained, eps=0.3)),
    Test(4, "how-robust", _KEEPS.format(0.1), partial(_keeping, eps=0.1), False),
    Test(4, "how-robust", _KEEPS.format(0.3), partial(_keeping, eps=0.3), False),
    Test(4, "what-survives", _VARIANT.format(0.1), partial(decisions.lasting, eps=0.1), False),
    Test(4, "what-survives", _VARIANT.format(0.3), partial(decisions.lasting, eps=0.3), False),
    Test(4, "train-longer", _LONGER.format(0.3), partial(_keeping, eps=0.3), False),
    Test(4, "smaller-radius", _LONGER.format(0.1), partial(_keeping, eps=0.1), False),
    Test(4, "another-schedule", _SCHEDULE.format(0.3), partial(_keeping, eps=0.3), False),
    Test(4, "train-knowing", _KNOWING_LONGER.format(0.3), partial(_keeping, eps=0.3), False),
    Test(5, "vanishing-gradients", _FAILS, decisions.vanishing),
    Test(5, "vanishing-gradients", _RESCALED, _rescaled),
    Test(6, "carlini-wagner", _CARLINI, decisions.carlini, False),
    Test(6, "carlini-wagner", _CARLINI_KNOWING, _carlini_knowing, False),
    Test(6, "carlini-wagner", _FARTHER, decisions.farther, False),
    Test(6, "how-robust", _SURVIVES, _surviving, False),
)


def decided(test: Test, table: pd.DataFrame, level: float = LEVEL) -> Decision:
    """The answer of a table to a test; inconclusive where it lacks the networks to compare.

    The tests of one claim share its level: of many tests, one easily holds by chance. At
    :data:`~cappaper.paper.statistics.AS_MEASURED` the numbers count as they are.

    Raises:
        ValueError: the table lacks a column: it is another table.
    """
    count = sum(other.claim == test.claim for other in TESTS)
    try:
        return test.decide(table, level=level / count)
    except Undecided:
        return Decision(None, "the table lacks what the test compares")
    except KeyError as error:
        columns = ", ".join(map(str, table))
        message = f"the table of {test.chapter} has no column {error}: its columns are {columns}"
        raise ValueError(message) from error


def verdict(tests: Sequence[Test], decisions: Sequence[Decision]) -> str:
    """The verdict on a claim from the decisions of its tests.

    *holds* if all hold, *does not hold* if all do not hold; *mixed* if some do and others do not,
    with a note where that is the paper's attack against the others; *inconclusive* otherwise.
    """
    both = list(zip(tests, decisions, strict=True))
    paper = {decision.verdict for test, decision in both if test.paper}
    others = {decision.verdict for test, decision in both if not test.paper}
    verdicts = paper | others
    if {"holds", "does not hold"} <= verdicts:
        only = paper == {"holds"} and others == {"does not hold"}
        return "mixed: under the paper's attack only" if only else "mixed"
    return verdicts.pop() if len(verdicts) == 1 else "inconclusive"


def show_verdicts(chapter: str, table: pd.DataFrame) -> None:
    """Show the verdicts of a chapter's own table on its tests: how every chapter ends."""
    tests = [test for test in TESTS if test.chapter == chapter]
    if not tests:
        show_markdown("None of the paper's claims is decided here.")
        return
    lines = ["| claim | what this chapter asks | verdict |", "|---|---|---|"]
    for test in tests:
        lines.append(f"| {test.claim} | {test.says} | **{decided(test, table).verdict}** |")
    show_markdown("\n".join(lines))
