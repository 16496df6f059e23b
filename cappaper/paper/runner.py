"""Train networks and ask judges about them: each result is computed once, then cached.

>>> from cappaper import paper
>>> quick = paper.profile("quick", epochs=1)
>>> specs = paper.sweep(quick, betas=[0.1, 1.0], seeds=[0])
>>> paper.run(specs, paper.PGD(steps=2), [0.1], limit=50).shape[0]
2
"""

import hashlib
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from cappaper.attacks.common import is_correct
from cappaper.data import Dataset, load
from cappaper.paper import cache
from cappaper.paper.experiment import Spec, train
from cappaper.paper.judges import Attack, Judge, Radii, attack_rows
from cappaper.paper.machines import Machine, one_thread, side_by_side

_HERE = Machine()


def run(
    specs: Sequence[Spec],
    judge: Judge,
    epsilons: Radii = (),
    *,
    limit: int | None = None,
    machine: Machine = _HERE,
    by_image: bool = False,
) -> pd.DataFrame:
    """Ask a judge about networks; train those that are not trained yet.

    Args:
        epsilons: radii, for a judge that takes them; without any it raises a ValueError.
        limit: number of test images, spaced evenly; all of them if None.
        by_image: keep ``outcomes``, a character per image, and ``warning``, the attack's warning.

    Returns:
        A table with the columns of :meth:`Spec.columns`, those of the judge's rows,
        ``judged_on``, a checksum of the test images, and ``seconds``, the judge's time for a
        network, on its first row.
    """
    epsilons = sorted(epsilons)
    key = [repr(judge), epsilons, machine.device, cache.code(type(judge).__module__)]
    places = {
        spec: cache.place("judgements", weights.name, checksum(spec.dataset, "test", limit), *key)
        for spec, weights in _places(specs, machine).items()
    }
    entries: dict[Spec, Any] = {spec: cache.recall(place) for spec, place in places.items()}
    todo = [spec for spec in places if entries[spec] is None]
    models = networks(todo, machine) if judge.trained else [spec.build() for spec in todo]
    more = (judge, epsilons, limit, machine.device)
    calls = [(spec, model.cpu(), *more) for spec, model in zip(todo, models, strict=True)]
    for i, entry in side_by_side(_ask, calls, machine.jobs, judge.name):
        entries[todo[i]] = entry
        cache.keep(places[todo[i]], entry)
    table = _table(specs, [entries[spec] for spec in specs], limit)
    return table if by_image else table.drop(columns=["outcomes", "warning"], errors="ignore")


@one_thread()
def transfers(
    specs: Sequence[Spec],
    sources: Sequence[Spec],
    attack: Attack,
    epsilons: Sequence[float],
    *,
    limit: int | None = None,
    machine: Machine = _HERE,
) -> pd.DataFrame:
    """Attack networks with examples that were made against others, one source for each.

    The table is that of :func:`run` with ``by_image``, for the attack ``transfer``, not cached.
    """
    epsilons, entries = sorted(epsilons), []
    examples: dict[tuple[Spec, float], Tensor] = {}
    pairs = zip(specs, networks(specs, machine), sources, networks(sources, machine), strict=True)
    for spec, model, source, other in pairs:
        test = test_images(spec.dataset, machine.device, limit)
        robust = [is_correct(model, *test)]
        for eps in epsilons:
            if (source, eps) not in examples:
                examples[source, eps] = attack.bind(source.seed)(other, *test, eps=eps)
            robust.append(robust[-1] & is_correct(model, examples[source, eps], test.labels))
        rows = attack_rows("transfer", epsilons, torch.stack(robust))
        entries.append({"rows": rows, "seconds": 0.0})
    return _table(specs, entries, limit)


def networks(specs: Sequence[Spec], machine: Machine = _HERE) -> list[nn.Module]:
    """Trained networks in eval mode, in the order of their specs; each is trained once.

    On a GPU, and on digits, the networks of one recipe train together, as a population. MNIST on
    a CPU is faster one by one.
    """
    places = _places(specs, machine)
    weights: dict[Spec, Any] = {spec: cache.recall(place) for spec, place in places.items()}
    groups: dict[Spec, dict[Spec, Path]] = {}
    for spec, place in places.items():
        if weights[spec] is None:
            together = machine.device == "cuda" or spec.dataset == "digits"
            shared = spec.recipe if together else spec.training
            groups.setdefault(shared, {})[spec] = place
    calls = []
    for group in groups.values():
        trainings = _places([spec.training for spec in group], machine).values()
        checkpoint = cache.place("checkpoints", *(place.name for place in trainings))
        keep = lambda spec, weights, at=group: cache.keep(at[spec], weights)  # noqa: E731
        calls.append((list(group), machine.device, checkpoint, keep))
    for i, trained in side_by_side(train, calls, machine.jobs, "training"):
        weights |= trained
        calls[i][2].unlink(missing_ok=True)
    models: list[nn.Module] = []
    for spec in specs:
        model = spec.build()
        model.load_state_dict(weights[spec])
        models.append(model.to(machine.device).eval())
    return models


def _ask(
    spec: Spec, model: nn.Module, judge: Judge, radii: Radii, limit: int | None, device: str
) -> dict[str, Any]:
    start = time.perf_counter()
    test = test_images(spec.dataset, device, limit)
    rows = judge.rows(model.to(device).eval(), test, spec.seed, radii)
    if not rows:
        raise ValueError(f"{judge.name} needs at least one radius")
    return {"rows": rows, "seconds": round(time.perf_counter() - start, 2)}


def _table(
    specs: Sequence[Spec], entries: Sequence[dict[str, Any]], limit: int | None
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **spec.columns(),
            **row,
            "judged_on": checksum(spec.dataset, "test", limit),
            "seconds": 0.0 if i else entry["seconds"],
        }
        for spec, entry in zip(specs, entries, strict=True)
        for i, row in enumerate(entry["rows"])
    )


def _places(specs: Sequence[Spec], machine: Machine) -> dict[Spec, Path]:
    """Where the cache keeps the weights of each network."""
    key = [machine.device, cache.code(train.__module__)]
    return {
        spec: cache.place("weights", repr(spec), checksum(spec.dataset, "train"), *key)
        for spec in specs
    }


@lru_cache(maxsize=8)
def checksum(name: str, split: str, limit: int | None = None) -> str:
    """Twelve hexadecimal digits of SHA-256 over images and labels."""
    parts = [part.numpy().tobytes() for part in _spaced(load(name, split), limit)]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


@lru_cache(maxsize=8)
def test_images(name: str, device: str, limit: int | None) -> Dataset:
    return _spaced(load(name, "test"), limit).to(device)


def _spaced(data: Dataset, limit: int | None) -> Dataset:
    """``limit`` examples at even distances: the first ones of MNIST are not a fair sample."""
    count = len(data.labels)
    if limit is None or limit >= count:
        return data
    chosen = torch.arange(limit) * count // limit
    return Dataset(*(part[chosen] for part in data))
