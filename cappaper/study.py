"""The one seam between notebooks and the rest: declare networks, get them trained, attack them.

A notebook says *what* (specs, an attack, radii); this module trains each network once, keeps it by
content, and answers with a tidy table, one row per network and radius.

>>> from cappaper import study
>>> quick = study.profile("quick", epochs=1, limit=50)
>>> specs = study.sweep(quick, betas=[0.1, 1.0], seeds=[0])
>>> study.rates(specs, study.PGD(steps=2), [0.1], limit=50).shape[0]
2
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from torch import nn

from cappaper import cache
from cappaper.checks import one_of
from cappaper.data import Dataset, load
from cappaper.evaluation import layer_distances, robustness_curve
from cappaper.models import Population
from cappaper.profiles import PROFILES, Profile, profile
from cappaper.progress import report, reporting
from cappaper.specs import FGSM, PGD, Adversary, Spec, sweep
from cappaper.training import fit

__all__ = [
    "FGSM",
    "PGD",
    "PROFILES",
    "Adversary",
    "Profile",
    "Spec",
    "device",
    "distances",
    "networks",
    "profile",
    "rates",
    "sweep",
]

_TOGETHER = 8  # networks trained as one population: the pace of saving, and of resuming


def device(name: str = "auto") -> str:
    """``"cpu"`` or ``"cuda"``; ``"auto"`` takes CUDA where there is one.

    Raises:
        ValueError: another name, or CUDA asked for where there is none.
    """
    one_of(name, ("auto", "cpu", "cuda"), "device")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but torch sees no CUDA device: use 'cpu'")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def networks(specs: Sequence[Spec], device: str = "cpu") -> list[nn.Module]:
    """The trained networks, in the order of their specs; each is trained once, then kept."""
    return [model for model, _ in _trained(specs, device)]


def rates(
    specs: Sequence[Spec],
    attack: PGD | FGSM,
    epsilons: Sequence[float],
    *,
    limit: int | None = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """Train (or recall) networks and attack them on the test images.

    Returns:
        One row per network and radius: the columns of :meth:`Spec.columns`, ``attack``, ``eps``,
        the three rates of :class:`~cappaper.evaluation.Rates`, ``images`` (how many were
        attacked) and ``seconds`` (training and attack of the network, on its first radius).
    """
    rows: list[dict[str, Any]] = []
    epsilons = sorted(epsilons)
    for spec, model, training_seconds in _walk(specs, device, attack.name):
        key = ["rates", _key(spec, device), dataclasses.asdict(attack), epsilons, limit]
        found = cache.find("rates", key)
        if found is None:
            start = time.perf_counter()
            test = _data(spec.dataset, "test", device, limit)
            curve = robustness_curve(model, *test, attack.bind(spec.seed), epsilons)
            found = {
                "rates": [dataclasses.asdict(r) for r in curve],
                "images": len(test.labels),
                "seconds": time.perf_counter() - start,
            }
            cache.store("rates", key, found)
        for eps, row in zip(epsilons, found["rates"], strict=True):
            seconds = found["seconds"] + training_seconds if eps == epsilons[0] else 0.0
            named = {"attack": attack.name, "eps": eps, **row, "images": found["images"]}
            rows.append({**spec.columns(), **named, "seconds": round(seconds, 2)})
    return pd.DataFrame(rows)


def distances(
    specs: Sequence[Spec],
    attack: PGD | FGSM,
    epsilons: Sequence[float],
    *,
    limit: int | None = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """Train (or recall) networks and measure perturbations layer by layer.

    Returns:
        One row per network, radius and hidden layer (1 is the first): the columns of
        :meth:`Spec.columns`, ``attack``, ``eps``, ``layer``, ``units``, and the distances of
        :class:`~cappaper.evaluation.LayerDistance`.
    """
    rows: list[dict[str, Any]] = []
    for spec, model, training_seconds in _walk(specs, device, "distances"):
        start = time.perf_counter()
        x, y = _data(spec.dataset, "test", device, limit)
        for eps in epsilons:
            found = layer_distances(model, x, attack.bind(spec.seed)(model, x, y, eps=eps))
            for j, distance in enumerate(found):
                named = {"attack": attack.name, "eps": eps, **distance._asdict()}
                rows.append({**spec.columns(), **named, "layer": j + 1, "seconds": 0.0})
        rows[-1]["seconds"] = round(training_seconds + time.perf_counter() - start, 2)
    return pd.DataFrame(rows)


def _walk(
    specs: Sequence[Spec], device: str, label: str
) -> Iterator[tuple[Spec, nn.Module, float]]:
    """Each spec with its trained network and the seconds of its training, with progress."""
    trained = _trained(specs, device)
    with reporting():
        for i, (spec, (model, seconds)) in enumerate(zip(specs, trained, strict=True)):
            report(f"{label}: network {i + 1} of {len(specs)}")
            yield spec, model, seconds


def _trained(specs: Sequence[Spec], device: str) -> list[tuple[nn.Module, float]]:
    """Each spec's network in eval mode, and the seconds that its training took."""
    wanted = list(dict.fromkeys(specs))
    entries = {spec: cache.find("weights", _key(spec, device)) for spec in wanted}
    missing = [spec for spec in wanted if entries[spec] is None]
    with reporting():
        done = 0
        for group in _groups(missing):
            train = _data(group[0].dataset, "train", device)
            population = Population([spec.build() for spec in group]).to(device)
            label = f"training networks {done + 1} to {done + len(group)} of {len(missing)}"
            report(label)
            start = time.perf_counter()
            fit(
                population,
                *train,
                epochs=group[0].epochs,
                batch_size=group[0].batch_size,
                lr=group[0].lr,
                attack_at=group[0].adversary.at if group[0].adversary else None,
                seed=[spec.seed for spec in group],
                progress=lambda epoch, epochs, label=label: report(  # type: ignore[misc]
                    f"{label}: epoch {epoch} of {epochs}"
                ),
            )
            seconds = (time.perf_counter() - start) / len(group)
            for spec, member in zip(group, population, strict=True):
                entries[spec] = {"weights": member.cpu().state_dict(), "seconds": seconds}
                cache.store("weights", _key(spec, device), entries[spec])
            done += len(group)
    result: list[tuple[nn.Module, float]] = []
    for spec in specs:
        entry: Any = entries[spec]
        model = spec.build()
        model.load_state_dict(entry["weights"])
        result.append((model.to(device).eval(), float(entry["seconds"])))
    return result


def _groups(specs: Sequence[Spec]) -> Iterator[list[Spec]]:
    """Networks that can train as one population: alike in all but β and seed."""

    def recipe(spec: Spec) -> str:
        return repr(dataclasses.replace(spec, beta=(), seed=0))

    for _, alike in itertools.groupby(sorted(specs, key=recipe), key=recipe):
        group = list(alike)
        yield from (group[i : i + _TOGETHER] for i in range(0, len(group), _TOGETHER))


def _key(spec: Spec, device: str) -> list[Any]:
    checksums = [_checksum(spec.dataset, split) for split in ("train", "test")]
    return [dataclasses.asdict(spec), checksums, device]


@lru_cache(maxsize=8)
def _checksum(name: str, split: str) -> str:
    return _data(name, split, "cpu").checksum()


@lru_cache(maxsize=8)
def _data(name: str, split: str, device: str, limit: int | None = None) -> Dataset:
    return load(name, split, limit=limit).to(device)
