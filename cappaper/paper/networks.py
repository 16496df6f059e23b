"""Networks by what they are made of: each trained once, then kept by content."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from torch import nn

from cappaper.data import Dataset, load
from cappaper.paper import cache
from cappaper.paper.progress import report, reporting
from cappaper.paper.specs import Spec
from cappaper.paper.workers import jobs, side_by_side
from cappaper.population import Population
from cappaper.training import fit

_TOGETHER = 8  # networks in one population, at most: the pace of saving, and of resuming


def networks(specs: Sequence[Spec], device: str = "cpu") -> list[nn.Module]:
    """The trained networks, in the order of their specs; each is trained once, then kept."""
    return [model for model, _ in fitted(specs, device)]


def fitted(specs: Sequence[Spec], device: str) -> list[tuple[nn.Module, float]]:
    """Each spec's network, trained, in eval mode, and the seconds that its training took."""
    wanted = list(dict.fromkeys(specs))
    entries = {spec: cache.find("weights", key(spec, device)) for spec in wanted}
    groups = _groups([spec for spec in wanted if entries[spec] is None], jobs(device))
    calls = [
        (group, device, f"training group {i + 1} of {len(groups)}")
        for i, group in enumerate(groups)
    ]
    with reporting():
        for position, fitted in side_by_side(_train, calls, jobs(device)):
            for spec, found in zip(groups[position], fitted, strict=True):
                entries[spec] = found
                cache.store("weights", key(spec, device), found)
    result: list[tuple[nn.Module, float]] = []
    for spec in specs:
        entry: Any = entries[spec]
        model = spec.build()
        model.load_state_dict(entry["weights"])
        result.append((model.to(device).eval(), float(entry["seconds"])))
    return result


def _train(group: Sequence[Spec], device: str, label: str) -> list[dict[str, Any]]:
    """Weights and seconds of networks that are trained as one population."""
    train = images(group[0].dataset, "train", device)
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


def _groups(specs: Sequence[Spec], processes: int) -> list[list[Spec]]:
    """Networks that can train as one population: alike in all but β, seed and how they start.

    Alike networks are dealt out evenly, so that no process waits long for another's last group.
    """

    def recipe(spec: Spec) -> str:
        return repr(dataclasses.replace(spec, beta=(), seed=0, initial_cap=None))

    groups = []
    for _, alike in itertools.groupby(sorted(specs, key=recipe), key=recipe):
        group = list(alike)
        rounds = math.ceil(len(group) / (_TOGETHER * processes))
        count = min(rounds * processes, len(group))
        groups += [group[i::count] for i in range(count)]
    return sorted(groups, key=len, reverse=True)


def key(spec: Spec, device: str) -> list[Any]:
    checksums = [_checksum(spec.dataset, split) for split in ("train", "test")]
    return [dataclasses.asdict(spec), checksums, device]


@lru_cache(maxsize=8)
def _checksum(name: str, split: str) -> str:
    return images(name, split, "cpu").checksum()


@lru_cache(maxsize=8)
def images(name: str, split: str, device: str, limit: int | None = None) -> Dataset:
    return load(name, split, limit=limit).to(device)
