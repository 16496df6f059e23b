"""What happens inside one network: layer by layer, and the signs of gradient masking."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cappaper import checks
from cappaper.activations import CappedReLU, ScaledSigmoid
from cappaper.data import Dataset
from cappaper.masking import MaskingReport, masking_report
from cappaper.paper.judges import Attack, Judge, Radii, accuracy
from cappaper.paper.tables import Row


class LayerDistance(NamedTuple):
    """Distances between a hidden layer's outputs on clean and on adversarial examples."""

    layer: str  #: the module's name
    units: int
    linf: float  #: mean over examples of the L∞ norm
    l2: float  #: mean over examples of the L2 norm
    relative_l2: float  #: as ``l2``, each divided by the clean output's norm where it is not 0


def layer_distances(model: nn.Sequential, x: Tensor, x_adv: Tensor) -> list[LayerDistance]:
    """How large an adversarial perturbation is after each hidden layer of a Sequential.

    Source: Figure 1 of arXiv 2405.03777.
    """
    distances = []
    with torch.no_grad():
        layers = zip(_hidden(model, x)[1], _hidden(model, x_adv)[1], strict=True)
    for (name, _, _, before), (*_, after) in layers:
        delta, size = (after - before).flatten(1), before.flatten(1).norm(dim=1)
        l2 = delta.norm(dim=1)
        relative = (l2 / size)[size > 0]  # its mean is NaN if all outputs are 0
        means = (values.mean().item() for values in (delta.abs().amax(1), l2, relative))
        distances.append(LayerDistance(name, delta.shape[1], *means))
    return distances


class LayerSignal(NamedTuple):
    """A hidden layer's outputs, and the gradient that reaches it."""

    layer: str  #: the module's name
    units: int
    gradient: float  #: mean L2 norm of the loss's gradient at the layer's pre-activations
    silent: float  #: share of examples for which that gradient is exactly zero
    at_zero: float  #: share of units whose output is 0
    at_cap: float  #: share of units whose output is the max value β


def layer_signals(model: nn.Sequential, x: Tensor, y: Tensor) -> list[LayerSignal]:
    """The loss's gradient at each hidden layer of a Sequential, and units at a bound."""
    logits, layers = _hidden(model, x)
    checks.logits(logits, y)
    loss = F.cross_entropy(logits, y, reduction="sum")
    gradients = torch.autograd.grad(loss, [z for _, _, z, _ in layers])
    signals = []
    for (name, module, _, output), gradient in zip(layers, gradients, strict=True):
        flat = gradient.flatten(1)  # a tiny norm would underflow, so zeros are counted
        cap = getattr(module, "beta", math.inf)
        values = (flat.norm(dim=1), flat.eq(0).all(1), output.eq(0), output.ge(cap))
        means = (value.to(flat).mean().item() for value in values)
        signals.append(LayerSignal(name, output[0].numel(), *means))
    return signals


def _hidden(model: nn.Sequential, x: Tensor) -> tuple[Tensor, list[Any]]:
    """The logits, and the name, module, input and output of each activation."""
    layers = []
    for i, module in enumerate(model):
        z, x = x, module(x)
        if isinstance(module, (CappedReLU, ScaledSigmoid)):
            layers.append((str(i), module, z, x))
    return x, layers


@dataclass(frozen=True)
class Distances(Judge):
    """How large an attack's perturbation is at each hidden layer (1 is the first)."""

    attack: Attack
    name: str = "distances"

    def rows(self, model: Any, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
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

    def rows(self, model: Any, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        shared = {"accuracy": accuracy(model, test), "trained": self.trained}
        signals = layer_signals(model, *test)
        return [{**s._asdict(), "layer": i + 1, **shared} for i, s in enumerate(signals)]


@dataclass(frozen=True)
class Masking(Judge):
    """:func:`cappaper.masking_report` at radius ``eps``, and at its default radii."""

    eps: float
    name: str = "masking"

    def rows(self, model: Any, test: Dataset, seed: int, epsilons: Radii) -> list[Row]:
        """A row per ``question`` and its ``setting``, if it has one, with the ``value``."""
        rows = []
        for question, value in vars(masking_report(model, *test, self.eps, seed=seed)).items():
            settings = value if isinstance(value, dict) else {math.nan: value}
            rows += [{"question": question, "setting": k, "value": v} for k, v in settings.items()]
        return rows


def masking_of(rows: pd.DataFrame) -> MaskingReport:
    """The report that rows of :class:`Masking` describe, each value a mean over their networks."""
    fields: dict[str, Any] = {}
    for question, group in rows.dropna(subset="value").groupby("question"):
        means = group.groupby("setting", dropna=False)["value"].mean()
        fields[str(question)] = means.item() if means.index.isna().all() else means.to_dict()
    return MaskingReport(**fields)
