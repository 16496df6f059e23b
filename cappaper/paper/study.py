"""The one seam between notebooks and the rest: declare networks, get them trained, attack them.

A notebook says *what* (specs, an attack, radii); this module trains each network once, keeps it by
content, and answers with a tidy table, one row per network and radius.

>>> from cappaper.paper import study
>>> quick = study.profile("quick", epochs=1, limit=50)
>>> specs = study.sweep(quick, betas=[0.1, 1.0], seeds=[0])
>>> study.rates(specs, study.PGD(steps=2), [0.1], limit=50).shape[0]
2
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from cappaper.checks import one_of
from cappaper.paper import cache, evidence, measures
from cappaper.paper.evidence import AutoAttack, Certificate, Clean, Exact, Judge, strongest
from cappaper.paper.measures import CW, FGSM, PGD, AdaptivePGD, EpsSpec
from cappaper.paper.networks import fitted, images, key, networks
from cappaper.paper.profiles import PROFILES, Profile, profile
from cappaper.paper.progress import report, reporting
from cappaper.paper.specs import Adversary, Spec, sweep
from cappaper.paper.workers import jobs, side_by_side

__all__ = [
    "CW",
    "FGSM",
    "PGD",
    "PROFILES",
    "AdaptivePGD",
    "Adversary",
    "AutoAttack",
    "Certificate",
    "Clean",
    "Exact",
    "Profile",
    "Spec",
    "device",
    "distances",
    "distortions",
    "masking",
    "networks",
    "outcomes",
    "profile",
    "rates",
    "signals",
    "strongest",
    "sweep",
    "transfers",
]


def device(name: str = "auto") -> str:
    """``"cpu"`` or ``"cuda"``; ``"auto"`` takes CUDA where there is one.

    Raises:
        ValueError: another name, or CUDA asked for where there is none.
    """
    one_of(name, ("auto", "cpu", "cuda"), "device")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but torch sees no CUDA device: use 'cpu'")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


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
        :class:`~cappaper.inspection.LayerDistance`.
    """
    return _table(specs, measures.distances, (attack, sorted(epsilons)), limit, device)


def distortions(
    specs: Sequence[Spec], attack: CW, *, limit: int | None = None, device: str = "cpu"
) -> pd.DataFrame:
    """Train (or recall) networks and look for their nearest adversarial examples.

    Returns:
        One row per network: the columns of :meth:`Spec.columns` and those of
        :func:`cappaper.paper.measures.distortions`.
    """
    return _table(specs, measures.distortions, (attack,), limit, device)


def signals(
    specs: Sequence[Spec], *, trained: bool = True, limit: int | None = None, device: str = "cpu"
) -> pd.DataFrame:
    """Train (or recall) networks, or take them as they start out, and see what reaches each layer.

    Returns:
        One row per network and hidden layer (1 is the first): the columns of
        :meth:`Spec.columns`, ``trained``, ``layer``, ``accuracy``, and those of
        :class:`~cappaper.inspection.LayerSignal`.
    """
    table = _table(specs, measures.signals, (), limit, device, trained)
    return table.assign(trained=trained)


def outcomes(
    specs: Sequence[Spec],
    judge: Judge,
    epsilons: Sequence[float],
    *,
    limit: int | None = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """Train (or recall) networks and note for every image whether it stands before a judge.

    Returns:
        One row per network and radius: the columns of :meth:`Spec.columns`, those of
        :func:`cappaper.paper.evidence.outcomes`, and ``seconds``, the judge's alone.
    """
    return _table(specs, evidence.outcomes, (judge, sorted(epsilons)), limit, device)


def transfers(
    specs: Sequence[Spec],
    sources: Sequence[Spec],
    attack: EpsSpec,
    epsilons: Sequence[float],
    *,
    limit: int | None = None,
    device: str = "cpu",
) -> pd.DataFrame:
    """Attack networks with the examples that were made against others, one for each.

    Returns:
        As :func:`outcomes`; the attack is called ``transfer``.
    """
    rows = []
    made: dict[tuple[Spec, float], Tensor] = {}
    pairs = zip(specs, networks(specs, device), sources, networks(sources, device), strict=True)
    for spec, model, source, other in pairs:
        test = images(spec.dataset, "test", device, limit)
        for eps in sorted(epsilons):
            if (source, eps) not in made:
                made[source, eps] = attack.bind(source.seed)(other, *test, eps=eps)
            judge = evidence.Transfer(made[source, eps])
            (row,) = evidence.outcomes(model, test, spec.seed, judge, [eps])
            rows.append({**spec.columns(), **row, "seconds": 0.0})
    return pd.DataFrame(rows)


def masking(
    specs: Sequence[Spec], eps: float, *, limit: int | None = None, device: str = "cpu"
) -> pd.DataFrame:
    """Train (or recall) networks and look for signs that PGD stands still on them.

    Returns:
        One row per network and question: the columns of :meth:`Spec.columns` and those of
        :func:`cappaper.paper.evidence.masking`.
    """
    return _table(specs, evidence.masking, (eps,), limit, device)


def _table(
    specs: Sequence[Spec],
    measure: Callable[..., list[measures.Row]],
    arguments: tuple[Any, ...],
    limit: int | None,
    device: str,
    trained: bool = True,
) -> pd.DataFrame:
    """A measure of every network, each taken once, then kept; the table's rows in their order."""
    models = fitted(specs, device) if trained else [(spec.build(), 0.0) for spec in specs]
    said = [a if isinstance(a, (list, float)) else dataclasses.asdict(a) for a in arguments]
    keys = [[measure.__name__, key(s, device), said, limit, trained] for s in specs]
    kind = measure.__module__.rpartition(".")[2]
    found = [cache.find(kind, key) for key in keys]
    missing = [i for i, entry in enumerate(found) if entry is None]
    calls = [
        (measure, models[i][0].cpu(), specs[i].dataset, limit, device, specs[i].seed, arguments)
        for i in missing
    ]
    with reporting():
        report(f"{measure.__name__}: {len(missing)} networks")
        for done, (position, entry) in enumerate(side_by_side(_measured, calls, jobs(device))):
            report(f"{measure.__name__}: network {done + 1} of {len(missing)}")
            found[missing[position]] = entry
            cache.store(kind, keys[missing[position]], entry)
    rows = []
    for spec, (_, training_seconds), entry in zip(specs, models, found, strict=True):
        assert entry is not None
        for i, row in enumerate(entry["rows"]):
            # Judges are many: only the paper's measures count the training again.
            both = entry["seconds"] + (training_seconds if kind == "measures" else 0.0)
            seconds = both if i == 0 else 0.0
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
    test = images(dataset, "test", device, limit)
    rows = measure(model.to(device).eval(), test, seed, *arguments)
    return {"rows": rows, "seconds": time.perf_counter() - start}
