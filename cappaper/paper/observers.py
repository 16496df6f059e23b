"""Judges of what happens inside one network: layer by layer, and the signs of gradient masking."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from torch import nn

from cappaper.data import Dataset
from cappaper.masking import MaskingReport, masking_report
from cappaper.paper.judges import Attack, Judge, Radii, accuracy
from cappaper.paper.layers import layer_distances, layer_signals
from cappaper.paper.tables import Row


@dataclass(frozen=True)
class Distances(Judge):
    """How far an attack's perturbation has come at each hidden layer (1 is the first)."""

    attack: Attack
    name: str = "distances"

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        rows = []
        for eps in epsilons:
            adversarial = self.attack.bind(seed)(model, *test, eps=eps)
            shared: Row = {"attack": self.attack.name, "eps": eps}
            for i, layer in enumerate(layer_distances(model, test.images, adversarial), 1):
                rows.append(shared | layer._asdict() | {"layer": i})
        return rows


@dataclass(frozen=True)
class Signals(Judge):
    """The gradient that reaches each hidden layer (1 is the first), and where its units are."""

    trained: bool = True
    name: str = "signals"

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        shared = {"accuracy": accuracy(model, test), "trained": self.trained}
        signals = layer_signals(model, *test)
        return [{**s._asdict(), "layer": i + 1, **shared} for i, s in enumerate(signals)]


@dataclass(frozen=True)
class Masking(Judge):
    """:func:`cappaper.masking_report` at radius ``eps``, and at the other radii of its own."""

    eps: float
    name: str = "masking"

    def rows(self, model: nn.Module, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        """A row per ``question`` and its ``setting``, if it has one, with the ``value``."""
        rows = []
        for question, value in vars(masking_report(model, *test, self.eps, seed=seed)).items():
            settings = value if isinstance(value, dict) else {math.nan: value}
            rows += [{"question": question, "setting": k, "value": v} for k, v in settings.items()]
        return rows


def masking_of(rows: pd.DataFrame) -> MaskingReport:
    """The report that rows of :class:`Masking` describe, each value a mean over their networks."""
    means = rows.groupby(["question", "setting"], dropna=False)["value"].mean()
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(MaskingReport):
        values = means[field.name].to_dict()
        (setting, value), *_ = values.items()
        fields[field.name] = value if math.isnan(setting) else values
    if math.isnan(fields["moved"]):
        fields["moved"] = None
    return MaskingReport(**fields)
