"""The paper's claims, with two answers each: was it reproduced, and is it real?

``claims.yml`` says what decides each of them, and what else the tables say.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from cappaper.paper import effects
from cappaper.paper.effects import Effect, Lacking
from cappaper.paper.tables import network_name, show_markdown

MARGIN = 0.02  #: Two points of accuracy: smaller differences count as zero.


class Answer(NamedTuple):
    """*yes*, *no*, *reversed*, *in part* or *not decided*, the numbers, and where they are from."""

    word: str
    says: str
    chapter: str = ""


@dataclass(frozen=True)
class Comparison:
    """A question to one chapter's table, and the words for its answer."""

    chapter: str
    measure: str  # a function of cappaper.paper.effects
    given: Mapping[str, Any]
    asks: str = ""
    says: str = ""
    margin: float = MARGIN
    half_of: Mapping[str, Any] | None = None  # arguments of an effect; half of it is the margin

    def effect(self, table: pd.DataFrame, given: Mapping[str, Any] | None = None) -> Effect:
        """The effect in the chapter's table; ``given`` replaces the measure's arguments.

        A table without the networks raises :class:`Lacking`, one without a column a ValueError.
        """
        try:
            effect: Effect = getattr(effects, self.measure)(table, **(given or self.given))
        except KeyError as error:
            columns = ", ".join(map(str, table))
            message = f"the table of {self.chapter} has no column {error}: its columns are "
            raise ValueError(message + columns) from error
        return effect

    def answer(self, table: pd.DataFrame) -> Answer:
        """Yes if the interval is above the margin, no if below it, reversed if as far below 0."""
        try:
            effect = self.effect(table)
            half = self.effect(table, self.half_of) if self.half_of else None
        except Lacking:
            return Answer("not decided", "The table lacks the networks to compare.", self.chapter)
        low = max(half.low, 0) / 2 if half else self.margin
        high = max(half.high, 0) / 2 if half else self.margin
        word = "no" if effect.high < low else "not decided"
        word = "yes" if effect.low > high else "reversed" if effect.high < -high else word
        names = {"best": _name(effect.name), "other": _name(effect.other)}
        says = self.says.format(ours=effect.ours, theirs=effect.theirs, **names)
        return Answer(word, says, self.chapter)

    def numbers(self, table: pd.DataFrame) -> str:
        """Both sides of the effect, and their difference with its interval."""
        try:
            name, ours, theirs, low, high, other = self.effect(table)
        except Lacking:
            return "the table lacks the networks to compare"
        form, scale, unit = ("z.2f", 1, "") if "growth" in self.measure else ("z.1f", 100, "%")
        one, two, gain, low, high = (scale * v for v in (ours, theirs, ours - theirs, low, high))
        sides = f"{_name(name)}: {one:{form}}{unit}, {_name(other)}: {two:{form}}{unit}"
        interval = f"({low:+{form}} to {high:+{form}})" if low > float("-inf") else "on one seed"
        points = f"{gain:+{form}}{unit and ' points'} {interval}"
        return f"{sides}; difference {points.replace('-', '−')}"


@dataclass(frozen=True)
class Claim:
    """What the paper says, where, and the comparisons for it."""

    number: int
    claim: str
    where: str
    reproduced: list[Comparison]
    real: list[Comparison]
    evidence: list[Comparison] = field(default_factory=list)

    @property
    def comparisons(self) -> list[Comparison]:
        return [*self.reproduced, *self.real, *self.evidence]

    def answers(self, tables: Mapping[str, pd.DataFrame]) -> dict[str, Answer]:
        """The answers to ``reproduced`` and ``real``; *in part* if comparisons differ."""
        answers = {}
        for kind in ("reproduced", "real"):
            found = [one.answer(tables[one.chapter]) for one in getattr(self, kind)]
            words, sentences, (chapter, *_) = zip(*found, strict=True)
            word = words[0] if len(set(words)) == 1 else "in part"
            answers[kind] = Answer(word, " ".join(sentences), chapter)
        return answers


_TEXT = Path(__file__).with_suffix(".yml").read_text(encoding="utf-8")
_KINDS = ("reproduced", "real", "evidence")
CLAIMS = [
    Claim(**entry | {kind: [Comparison(**one) for one in entry.get(kind, [])] for kind in _KINDS})
    for entry in yaml.safe_load(_TEXT)
]


def show_verdicts(chapter: str, table: pd.DataFrame) -> None:
    """Show what a chapter's own table says of the claims; those that decide one end with it."""
    lines = ["| claim | answer, or what is compared | what this table says |", "|---|---|---|"]
    for claim in CLAIMS:
        for kind, comparisons in (("reproduced?", claim.reproduced), ("real?", claim.real)):
            for one in comparisons:
                if one.chapter == chapter:
                    word, says, _ = one.answer(table)
                    lines.append(f"| {claim.number}, {kind} | **{word}** | {says} |")
        for one in claim.evidence:
            if one.chapter == chapter:
                lines.append(f"| {claim.number} | {one.asks} | {one.numbers(table)} |")
    show_markdown("\n".join(lines))


def _name(network: Any) -> str:
    name = network_name(network) if isinstance(network, float) else network
    name = re.sub(r"(?<=\d)-(?=\d)", "–", name)  # 300–100
    return f"layer{'s' * ('+' in name)} {name}" if re.fullmatch(r"\d(\+\d)*", name) else name
