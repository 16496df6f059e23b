"""A judge's outcome on every single image, as one character each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

STANDS, FALLS, UNKNOWN = ".", "x", "?"


def marks(stands: Iterable[bool]) -> str:
    """Outcomes that are all known."""
    return "".join(STANDS if it_does else FALLS for it_does in stands)


def judgement(
    name: str, eps: float, standard: float, outcomes: str, **more: float
) -> dict[str, Any]:
    """A row of a table. ``attack`` names the judge, certificate or not: attacks have it too."""
    return {
        "attack": name,
        "eps": eps,
        "standard_accuracy": standard,
        "robust_accuracy": outcomes.count(STANDS) / len(outcomes),
        **more,
        "images": len(outcomes),
        "outcomes": outcomes,
        "warning": "",
    }


def contradictions(lower: str, upper: str) -> int:
    """For how many images a lower bound says that it stands, and an upper bound that it falls.

    >>> contradictions("..x?", ".x..")
    1
    """
    return sum(a == STANDS and b == FALLS for a, b in zip(lower, upper, strict=True))


def worst(outcomes: Iterable[str]) -> str:
    """What is known of every image after several attacks: one success is enough.

    >>> worst(["..x.", ".xx?"])
    '.xx?'
    """
    return "".join(
        FALLS if FALLS in image else UNKNOWN if UNKNOWN in image else STANDS
        for image in zip(*outcomes, strict=True)
    )
