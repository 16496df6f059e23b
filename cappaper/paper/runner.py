"""Networks trained and judged, each thing once: what was is recalled, by content.

A notebook says *what* (specs, a judge, radii); :func:`run` answers with a tidy table.

>>> from cappaper import paper
>>> quick = paper.profile("quick", epochs=1)
>>> specs = paper.sweep(quick, betas=[0.1, 1.0], seeds=[0])
>>> paper.run(specs, paper.PGD(steps=2), [0.1], limit=50).shape[0]
2
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cappaper.attacks.common import is_correct
from cappaper.data import Dataset, load
from cappaper.paper import cache, closure
from cappaper.paper.attack import Attack, rates
from cappaper.paper.experiment import Spec, train
from cappaper.paper.judge import Judge
from cappaper.paper.machines import Machine, side_by_side

_TOGETHER = 8  # networks in one population, at most: the pace of saving
_HERE = Machine()
_digest = lru_cache(closure.digest)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over one thread round otherwise than over two: here or in a process of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run(
    specs: Sequence[Spec],
    judge: Judge,
    epsilons: Sequence[float] = (),
    *,
    limit: int | None = None,
    machine: Machine = _HERE,
    by_image: bool = False,
) -> pd.DataFrame:
    """Ask a judge about networks. Only what is not known yet is judged, and only that trained.

    Args:
        epsilons: radii, for a judge that takes them.
        limit: test images; all of them if None.
        by_image: keep ``outcomes``, one character an image (:mod:`cappaper.paper.tables`), and
            ``warning``, what an attack had to say about its own result.

    Returns:
        For each network the columns of :meth:`Spec.columns`, those of the judge's rows, and
        ``seconds``, the judge's alone, on the network's first row.

    Raises:
        ValueError: radii are missing.
    """
    epsilons = sorted(epsilons)
    places = [_judgement(spec, judge, epsilons, limit, machine.device) for spec in specs]
    found: dict[Path, Any] = {place: cache.recall(place) for place in places}
    missing = {p: spec for p, spec in zip(places, specs, strict=True) if found[p] is None}
    todo = list(missing.values())
    models = networks(todo, machine) if judge.trained else [spec.build() for spec in todo]
    calls = [
        (model.cpu(), judge, spec, epsilons, limit, machine.device, _code_of(*_roots(judge)))
        for model, spec in zip(models, todo, strict=True)
    ]
    with _bar(judge.name, len(calls), _watched()) as bar:
        for position, entry in side_by_side(_judge, calls, machine.jobs):
            place = list(missing)[position]
            found[place] = entry
            cache.keep(place, entry)
            bar.update()
    table = _table(specs, [found[place] for place in places])
    return table if by_image else table.drop(columns=["outcomes", "warning"], errors="ignore")


@_one_thread()
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

    The table is that of :func:`run` by image; the attack is called ``transfer``.
    """
    epsilons, entries = sorted(epsilons), []
    made: dict[tuple[Spec, float], Tensor] = {}
    pairs = zip(specs, networks(specs, machine), sources, networks(sources, machine), strict=True)
    for spec, model, source, other in pairs:
        test = _images(spec.dataset, "test", machine.device, limit)
        stands = [is_correct(model, *test)]
        for eps in epsilons:
            if (source, eps) not in made:
                made[source, eps] = attack.bind(source.seed)(other, *test, eps=eps)
            stands.append(stands[-1] & is_correct(model, made[source, eps], test.labels))
        rows = rates("transfer", epsilons, torch.stack(stands))
        entries.append({"rows": rows, "seconds": 0.0})
    return _table(specs, entries)


def networks(specs: Sequence[Spec], machine: Machine = _HERE) -> list[nn.Module]:
    """Trained networks in eval mode, in the order of their specs; each is trained once."""
    places = {spec: _weights(spec, machine.device) for spec in specs}
    weights: dict[Spec, Any] = {spec: cache.recall(place) for spec, place in places.items()}
    groups = _groups([spec for spec in places if weights[spec] is None])
    calls = []
    for i, group in enumerate(groups):
        trainings = dict.fromkeys(spec.training for spec in group)
        names = [_weights(training, machine.device).name for training in trainings]
        label = f"training {len(trainings)} networks, group {i + 1} of {len(groups)}"
        own = {spec: places[spec] for spec in group}
        checkpoint, code = cache.place("checkpoints", *names), _code_of(train.__module__)
        calls.append((own, machine.device, checkpoint, label, _watched(), code))
    for position, trained in side_by_side(_train, calls, machine.jobs):
        # Trained on another machine, they are not here yet.
        weights |= {spec: _keep(places[spec], own) for spec, own in trained.items()}
        calls[position][2].unlink(missing_ok=True)
    models: list[nn.Module] = []
    for spec in specs:
        model = spec.build()
        model.load_state_dict(weights[spec])
        models.append(model.to(machine.device).eval())
    return models


def _groups(specs: Sequence[Spec]) -> list[list[Spec]]:
    """Networks that train together: alike, at most eight, and as many in one group as in another.

    Rounding depends on the company, so the groups depend on the networks alone; and those that an
    interrupted run left over form the same groups again.
    """
    alike: dict[Spec, dict[Spec, list[Spec]]] = {}
    for spec in specs:
        alike.setdefault(spec.recipe, {}).setdefault(spec.training, []).append(spec)
    groups = []
    for trainings in alike.values():
        members = list(trainings.values())
        parts = np.array_split(np.arange(len(members)), -(-len(members) // _TOGETHER))
        groups += [[spec for i in part for spec in members[i]] for part in parts]
    return sorted(groups, key=len, reverse=True)


def _keep(place: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep a network, or take the one that another run has kept first."""
    kept = cache.keep_first(place, weights)
    if kept is weights:  # what was said of others that were here before is void
        shutil.rmtree(_judgements(place), ignore_errors=True)
    return kept


@_one_thread()
def _train(
    places: dict[Spec, Path],
    device: str,
    checkpoint: Path,
    label: str,
    watched: bool,
    code: tuple[Any, ...],
) -> dict[Spec, dict[str, Tensor]]:
    """Train a group, and keep each network in its place as soon as it is there."""
    _unedited(code)
    group, kept = list(places), dict[Spec, dict[str, Tensor]]()
    with _bar(label, group[0].epochs, watched) as bar:

        def keep(spec: Spec, weights: dict[str, Tensor]) -> None:
            kept[spec] = _keep(places[spec], weights)

        def show(epoch: int, epochs: int) -> None:
            bar.update(epoch - bar.n)

        train(group, device, checkpoint=checkpoint, keep=keep, progress=show)
    return kept


@_one_thread()
def _judge(
    model: nn.Module,
    judge: Judge,
    spec: Spec,
    epsilons: Sequence[float],
    limit: int | None,
    device: str,
    code: tuple[Any, ...],
) -> dict[str, Any]:
    _unedited(code)
    start = time.perf_counter()
    test = _images(spec.dataset, "test", device, limit)
    rows = judge.rows(model.to(device).eval(), test, spec.seed, epsilons)
    if not rows:
        raise ValueError(f"{judge.name} needs at least one radius")
    return {"rows": rows, "seconds": round(time.perf_counter() - start, 2)}


def _table(specs: Sequence[Spec], entries: Sequence[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        {**spec.columns(), **row, "seconds": 0.0 if i else entry["seconds"]}
        for spec, entry in zip(specs, entries, strict=True)
        for i, row in enumerate(entry["rows"])
    )


def _weights(spec: Spec, device: str) -> Path:
    code = _digest(train.__module__)
    return cache.place("weights", repr(spec), _checksum(spec.dataset, "train"), device, code)


def _judgement(
    spec: Spec, judge: Judge, epsilons: Sequence[float], limit: int | None, device: str
) -> Path:
    code = _digest(*_roots(judge))
    asked = [repr(judge), epsilons, limit, _checksum(spec.dataset, "test"), device, code]
    weights = _weights(spec, device)
    return _judgements(weights) / cache.place("judgements", weights.name, *asked).name


def _judgements(weights: Path) -> Path:
    """Where all that is said of these weights is kept."""
    return cache.root() / "judgements" / weights.stem


def _code_of(*roots: str) -> tuple[Any, ...]:
    return roots, _digest(*roots)


def _unedited(code: tuple[Any, ...]) -> None:
    """Refuse to work under another code's key: a process imports what is there when it starts."""
    if _code_of(*code[0]) != code:
        raise RuntimeError("the package was edited while it ran, or differs here: start again")


def _roots(judge: Judge) -> list[str]:
    return [f"{type(part).__module__}:{type(part).__name__}" for part in _parts(judge)]


def _parts(judge: Any) -> Iterator[Any]:
    """A judge, and the judges that it makes use of."""
    yield judge
    for field in dataclasses.fields(judge):
        value = getattr(judge, field.name)
        if dataclasses.is_dataclass(value):
            yield from _parts(value)


@lru_cache(maxsize=8)
def _checksum(name: str, split: str) -> str:
    return _images(name, split, "cpu").checksum()


@lru_cache(maxsize=8)
def _images(name: str, split: str, device: str, limit: int | None = None) -> Dataset:
    return load(name, split, limit=limit).to(device)


def _bar(label: str, total: int, watched: bool) -> tqdm[Any]:
    return tqdm(
        total=total, desc=label, leave=False, mininterval=1, file=sys.stderr, disable=not watched
    )


def _watched() -> bool:
    """Whether someone follows standard error: a terminal, or a kernel, which passes it on."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")
