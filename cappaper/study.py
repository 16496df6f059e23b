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
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd
import torch
from torch import nn

from cappaper import cache, measures
from cappaper.checks import one_of
from cappaper.data import Dataset, load
from cappaper.measures import CW, FGSM, PGD, AdaptivePGD, EpsSpec
from cappaper.models import Population
from cappaper.profiles import PROFILES, Profile, profile
from cappaper.progress import report, reporting
from cappaper.specs import Adversary, Spec, sweep
from cappaper.training import fit
from cappaper.workers import side_by_side

__all__ = [
    "CW",
    "FGSM",
    "PGD",
    "PROFILES",
    "AdaptivePGD",
    "Adversary",
    "Profile",
    "Spec",
    "device",
    "distances",
    "distortions",
    "networks",
    "profile",
    "rates",
    "signals",
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
    attack: EpsSpec,
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
    return _table(specs, measures.rates, (attack, sorted(epsilons)), limit, device)


def distances(
    specs: Sequence[Spec],
    attack: EpsSpec,
    epsilons: Sequence[float],
    *,
    limit: int | None = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """Train (or recall) networks and measure perturbations layer by layer.

    Returns:
        One row per network, radius and hidden layer (1 is the first): the columns of
        :meth:`Spec.columns`, ``attack``, ``eps``, ``layer``, ``units``, and the distances of
        :class:`~cappaper.layers.LayerDistance`.
    """
    return _table(specs, measures.distances, (attack, sorted(epsilons)), limit, device)


def distortions(
    specs: Sequence[Spec], attack: CW, *, limit: int | None = None, device: str = "cpu"
) -> pd.DataFrame:
    """Train (or recall) networks and look for their nearest adversarial examples.

    Returns:
        One row per network: the columns of :meth:`Spec.columns` and those of
        :func:`cappaper.measures.distortions`.
    """
    return _table(specs, measures.distortions, (attack,), limit, device)


def signals(
    specs: Sequence[Spec], *, trained: bool = True, limit: int | None = None, device: str = "cpu"
) -> pd.DataFrame:
    """Train (or recall) networks, or take them as they start out, and see what reaches each layer.

    Returns:
        One row per network and hidden layer (1 is the first): the columns of
        :meth:`Spec.columns`, ``trained``, ``layer``, ``accuracy``, and those of
        :class:`~cappaper.layers.LayerSignal`.
    """
    table = _table(specs, measures.signals, (), limit, device, trained)
    return table.assign(trained=trained)


def _table(
    specs: Sequence[Spec],
    measure: Callable[..., list[measures.Row]],
    arguments: tuple[Any, ...],
    limit: int | None,
    device: str,
    trained: bool = True,
) -> pd.DataFrame:
    """A measure of every network, each taken once, then kept; the table's rows in their order."""
    models = _trained(specs, device) if trained else [(spec.build(), 0.0) for spec in specs]
    said = [a if isinstance(a, list) else dataclasses.asdict(a) for a in arguments]
    keys = [[measure.__name__, _key(s, device), said, limit, trained] for s in specs]
    found = [cache.find("measures", key) for key in keys]
    missing = [i for i, entry in enumerate(found) if entry is None]
    calls = [
        (measure, models[i][0].cpu(), specs[i].dataset, limit, device, specs[i].seed, arguments)
        for i in missing
    ]
    with reporting():
        report(f"{measure.__name__}: {len(missing)} networks")
        for done, (position, entry) in enumerate(side_by_side(_measured, calls, device)):
            report(f"{measure.__name__}: network {done + 1} of {len(missing)}")
            found[missing[position]] = entry
            cache.store("measures", keys[missing[position]], entry)
    rows = []
    for spec, (_, training_seconds), entry in zip(specs, models, found, strict=True):
        assert entry is not None
        for i, row in enumerate(entry["rows"]):
            seconds = training_seconds + entry["seconds"] if i == 0 else 0.0
            rows.append({**spec.columns(), **row, "seconds": round(seconds, 2)})
    return pd.DataFrame(rows)


def _measured(
    measure: Callable[..., list[measures.Row]],
    model: nn.Module,
    dataset: str,
    limit: int | None,
    device: str,
    seed: int,
    arguments: tuple[Any, ...],
) -> dict[str, Any]:
    start = time.perf_counter()
    test = _data(dataset, "test", device, limit)
    rows = measure(model.to(device).eval(), test, seed, *arguments)
    return {"rows": rows, "seconds": time.perf_counter() - start}


def _trained(specs: Sequence[Spec], device: str) -> list[tuple[nn.Module, float]]:
    """Each spec's network in eval mode, and the seconds that its training took."""
    wanted = list(dict.fromkeys(specs))
    entries = {spec: cache.find("weights", _key(spec, device)) for spec in wanted}
    groups = list(_groups([spec for spec in wanted if entries[spec] is None]))
    calls = [
        (group, device, f"training group {i + 1} of {len(groups)}")
        for i, group in enumerate(groups)
    ]
    with reporting():
        for position, fitted in side_by_side(_fitted, calls, device):
            for spec, found in zip(groups[position], fitted, strict=True):
                entries[spec] = found
                cache.store("weights", _key(spec, device), found)
    result: list[tuple[nn.Module, float]] = []
    for spec in specs:
        entry: Any = entries[spec]
        model = spec.build()
        model.load_state_dict(entry["weights"])
        result.append((model.to(device).eval(), float(entry["seconds"])))
    return result


def _fitted(group: Sequence[Spec], device: str, label: str) -> list[dict[str, Any]]:
    """Weights and seconds of networks that are trained as one population."""
    train = _data(group[0].dataset, "train", device)
    population = Population([spec.build() for spec in group]).to(device)
    report(f"{label}: {len(group)} networks")
    start = time.perf_counter()
    fit(
        population,
        *train,
        epochs=group[0].epochs,
        batch_size=group[0].batch_size,
        lr=group[0].lr,
        attack_at=group[0].adversary.at if group[0].adversary else None,
        seed=[spec.seed for spec in group],
        progress=lambda epoch, epochs: report(f"{label}: epoch {epoch} of {epochs}"),
    )
    seconds = (time.perf_counter() - start) / len(group)
    return [{"weights": member.cpu().state_dict(), "seconds": seconds} for member in population]


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
