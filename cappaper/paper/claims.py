"""The paper's claims, the tests they are put to, and what tables say to these."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from cappaper.paper import decisions
from cappaper.paper.decisions import Finding
from cappaper.paper.evidence import STRONGEST


@dataclass(frozen=True)
class Trial:
    """One question put to one chapter's table. ``paper``: by the attack that the paper uses."""

    chapter: str
    protocol: str
    decide: Callable[[pd.DataFrame], Finding]
    paper: bool = True


@dataclass(frozen=True)
class Claim:
    """What the paper says, where it does, and the tests that this book puts it to."""

    number: int
    says: str
    where: str
    tests: tuple[Trial, ...]


_EITHER = "Some cap keeps more than ReLU under PGD at ε = 0.1"
_PLACES = "At one β, robust accuracy differs between choices of capped layers"
_TRAINED = "Trained and attacked at ε = {}, some cap keeps more than ReLU under PGD"
_SURVIVES = (
    "More than half of what the best cap gains under PGD is left under the strongest attack found"
)
_survives = partial(decisions.surviving, attack=STRONGEST)
_KEEPS = (
    "Trained and attacked at ε = {}, some cap keeps more than ReLU under the strongest attack found"
)
_KNOWING = (
    "The same at ε = {} for seven ways to cap, most of them trained against an adversary that knows"
    " about the cap"
)

CLAIMS = (
    Claim(
        1,
        "Perturbations grow through ReLU layers.",
        "Figure 1",
        (
            Trial(
                "fig-01",
                "The distance between hidden outputs on clean and on PGD examples grows from the"
                " first to the last of equally wide ReLU layers, as it is and divided by the clean"
                " norm",
                decisions.growth,
            ),
        ),
    ),
    Claim(
        2,
        "Capping improves robustness, and a lower max value is more robust.",
        "Figures 4 and 5",
        (
            Trial("fig-04", _EITHER, decisions.capping),
            Trial(
                "fig-04",
                "PGD's success rate at ε = 0.1 never rises as β is lowered",
                decisions.lowering,
            ),
            Trial("fig-05", _EITHER, decisions.capping),
            Trial("deeper-networks", f"{_EITHER}, in every architecture", decisions.capping),
            Trial("convolutions", _EITHER, decisions.capping),
            Trial("how-robust", _SURVIVES, _survives, paper=False),
        ),
    ),
    Claim(
        3,
        "The effect depends on which layers are capped, and on the size and order of the layers.",
        "Figures 2, 4 and 5",
        (
            Trial("fig-02", _PLACES, decisions.placing),
            Trial("capped-layers", _PLACES, decisions.placing),
            Trial(
                "deeper-networks",
                "At one β, robust accuracy differs between architectures",
                decisions.sizing,
            ),
            Trial(
                "deeper-networks",
                "At one β, robust accuracy differs between an order of layers and its reverse",
                decisions.ordering,
            ),
        ),
    ),
    Claim(
        4,
        "Adversarial training with capped ReLU beats conventional adversarial training.",
        "not in a figure known to us",
        (
            Trial("adversarial-training", _TRAINED.format(0.1), decisions.hardening),
            Trial(
                "adversarial-training", _TRAINED.format(0.3), partial(decisions.hardening, eps=0.3)
            ),
            Trial(
                "how-robust",
                _KEEPS.format(0.1),
                partial(decisions.hardening, attack=STRONGEST),
                paper=False,
            ),
            Trial(
                "how-robust",
                _KEEPS.format(0.3),
                partial(decisions.hardening, eps=0.3, attack=STRONGEST),
                paper=False,
            ),
            Trial("what-survives", _KNOWING.format(0.1), decisions.lasting, paper=False),
            Trial(
                "what-survives",
                _KNOWING.format(0.3),
                partial(decisions.lasting, eps=0.3),
                paper=False,
            ),
        ),
    ),
    Claim(
        5,
        "Vanishing gradients keep capped ReLU from very large models.",
        "not in a figure known to us",
        (
            Trial(
                "vanishing-gradients",
                "The deepest network with the lowest cap stays ten points behind ReLU after the"
                " same training",
                decisions.vanishing,
            ),
        ),
    ),
    Claim(
        6,
        "Left open: whether the gain holds under other attacks, such as Carlini and Wagner's.",
        "an open question of the paper",
        (
            Trial(
                "carlini-wagner",
                "Carlini and Wagner's L2 attack, of unlimited radius, fails on some capped network"
                " more often than on ReLU",
                decisions.carlini,
                paper=False,
            ),
            Trial("how-robust", _SURVIVES, _survives, paper=False),
        ),
    ),
)


def decided(test: Trial, table: pd.DataFrame) -> Finding:
    """What a table says to a test; undecided where it lacks the networks that the test is about."""
    try:
        return test.decide(table)
    except (KeyError, IndexError, ValueError):
        return Finding(None, "the table lacks what the test compares")


def word(holds: bool | None) -> str:
    """A test's outcome as a verdict."""
    return {True: "reproduced", False: "not reproduced", None: "undecided"}[holds]


def verdict(claim: Claim, findings: Sequence[Finding]) -> str:
    """The verdict on a claim from the findings of its tests.

    *reproduced* if all hold, *not reproduced* if none does; *reproduced only under the paper's
    attack* if one by this attack holds and none by another does. *undecided* otherwise.
    """
    mine = [f.holds for t, f in zip(claim.tests, findings, strict=True) if t.paper]
    others = [f.holds for t, f in zip(claim.tests, findings, strict=True) if not t.paper]
    if True in mine and others and set(others) == {False}:
        return "reproduced only under the paper's attack"
    holds = set(mine + others)
    return word(holds.pop()) if len(holds) == 1 else "undecided"


def state(chapter: str, table: pd.DataFrame) -> None:
    """Print a chapter's claims and what its own table says to them: how every chapter ends."""
    mine = [(c, t) for c in CLAIMS for t in c.tests if t.chapter == chapter]
    for claim, test in mine:
        print(textwrap.fill(f"Claim {claim.number}. {test.protocol}:", 76))
        print(f"  {word(decided(test, table).holds)}")
    if not mine:
        print("None of the paper's claims is decided here.")
