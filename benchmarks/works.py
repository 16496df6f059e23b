"""The work that is timed: attacks, a curve over ε, and training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

import cappaper
from benchmarks.clock import Hand, contest
from benchmarks.peers import PGD, Attack, autoattack
from cappaper.data import Dataset

EPS = 0.1
HIDDEN = (300, 100)
RADII = [0.04 * i for i in range(1, 9)]
MEMBERS = 36
SIZES = (256, 1024, 4096)

mlp = partial(cappaper.mlp, 28 * 28)


class Bench(NamedTuple):
    """What the work is done on: data, and trained networks by name."""

    train: Dataset
    test: Dataset
    nets: dict[str, nn.Module]


def bench(device: str) -> Bench:
    """MNIST and the networks: ReLU, two caps, convolutions, and adversarially trained ReLU."""
    train, test = (cappaper.load("mnist", split).to(device) for split in ("train", "test"))
    madry = partial(cappaper.pgd, eps=EPS, steps=7, early_exit=False)
    nets: dict[str, nn.Module] = {}
    for name, net, attack in (
        ("ReLU", mlp(HIDDEN), None),
        ("β = 0.1", mlp(HIDDEN, beta=0.1), None),
        ("β = 0.05", mlp(HIDDEN, beta=0.05), None),
        ("convolutions", cappaper.convnet(28, [8, 16, 100]), None),
        ("adversarially trained ReLU", mlp(HIDDEN), madry),
    ):
        nets[name] = cappaper.fit(net.to(device), *train, epochs=2, attack=attack)
    return Bench(train, test, nets)


def works(bench: Bench, images: int) -> Iterator[tuple[str, dict[str, Hand]]]:
    """Every contest: what the work is, and who does it; the first hand is this package."""
    autocast = partial(cappaper.pgd, autocast=torch.bfloat16)
    yield "PGD-40, ReLU", _attacks(bench, "ReLU", cappaper.pgd, PGD, images)
    yield "PGD-40, ReLU, autocast", _attacks(bench, "ReLU", autocast, PGD, images)
    yield "PGD-40, β = 0.1", _attacks(bench, "β = 0.1", cappaper.pgd, PGD, images)
    yield "PGD-40, β = 0.05", _attacks(bench, "β = 0.05", cappaper.pgd, PGD, images)
    few = images // 2
    yield "PGD-40, convolutions", _attacks(bench, "convolutions", cappaper.pgd, PGD, few)
    yield "PGD-40 at 8 radii, ReLU", _curve(bench, few)
    parts: dict[str, Attack] = {
        "apgd-ce": cappaper.apgd,
        "apgd-t": partial(cappaper.apgd, targets=9),
        "square": cappaper.square,
    }
    for name in ("ReLU", "β = 0.1", "adversarially trained ReLU"):
        for part, ours in parts.items():
            peers = {"pyautoattack": partial(autoattack, part)}
            yield f"{part}, {name}", _attacks(bench, name, ours, peers, 500, sizes=(500,))
    yield f"training of {MEMBERS} networks, the same batches", _training(bench, [0] * MEMBERS)
    yield f"training of {MEMBERS} networks, each its own", _training(bench, [*range(MEMBERS)])


def _attacks(
    bench: Bench,
    name: str,
    ours: Attack,
    peers: Mapping[str, Attack],
    images: int,
    radii: Sequence[float] = (EPS,),
    sizes: tuple[int, ...] = SIZES,
) -> dict[str, Hand]:
    """Attacks on a network, which leave the robust accuracy at the last radius."""
    net, (x, y) = bench.nets[name], (t[:images] for t in bench.test)

    def left(attack: Attack, size: int, seed: int) -> float:
        batches = list(zip(x.split(size), y.split(size), strict=True))
        for eps in radii:
            x_adv = torch.cat([attack(net, *batch, eps=eps, seed=seed) for batch in batches])
        with torch.no_grad():
            return float((net(x_adv).argmax(-1) == y).double().mean())

    hands = {"cappaper": ours, **peers}
    return {who: Hand(partial(left, attack), sizes) for who, attack in hands.items()}


def _curve(bench: Bench, images: int) -> dict[str, Hand]:
    """A curve over ε: ours attacks the images that are left, a peer all of them at each radius."""
    net, (x, y) = bench.nets["ReLU"], (t[:images] for t in bench.test)

    def ours(size: int, seed: int) -> float:
        attack = partial(cappaper.pgd, seed=seed)
        curve = cappaper.robustness_curve(net, x, y, attack, RADII, batch_size=size)
        return float(curve[-1].robust_accuracy)  # type: ignore[arg-type]

    peers = _attacks(bench, "ReLU", cappaper.pgd, PGD, images, RADII)
    return peers | {"cappaper": Hand(ours, SIZES)}


def _training(bench: Bench, seeds: list[int]) -> dict[str, Hand]:
    """One epoch of 30 batches: as populations, and network by network with torch's own Adam.

    ``seeds`` are of the order in which each network sees its batches.
    """
    x, y = (t[: 30 * 128] for t in bench.train)

    def nets() -> list[nn.Module]:
        return [mlp(HIDDEN, seed=seed).to(x.device) for seed in range(MEMBERS)]

    def populations(at_once: int, _: int) -> None:
        members = nets()
        for first in range(0, MEMBERS, at_once):
            some = slice(first, first + at_once)
            population = cappaper.Population(members[some])
            cappaper.fit(population, x, y, epochs=1, batch_size=128, seed=seeds[some])

    def loop(*_: int) -> None:
        for seed, net in zip(seeds, nets(), strict=True):
            optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
            order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
            for batch in order.to(x.device).split(128):
                optimizer.zero_grad()
                F.cross_entropy(net(x[batch]), y[batch]).backward()
                optimizer.step()

    return {"cappaper": Hand(populations, (1, 12, 36)), "a loop of torch's Adam": Hand(loop)}


def growth(bench: Bench, repeats: int) -> pd.DataFrame:
    """How cost grows: ``what`` grows, to which ``count``, and the ``seconds``."""
    x, y = (t[:512] for t in bench.test)
    some = tuple(t[: 8 * 128] for t in bench.train)
    rows = []

    def row(what: str, count: int, function: Callable[..., object], *given: Any) -> None:
        hand = Hand(lambda *_: function(*given))
        (seconds,) = contest(f"{what}: {count}", {"cappaper": hand}, repeats)["seconds"]
        rows.append({"what": what, "count": count, "seconds": seconds})

    for members in (1, 4, 16, 64, 256):
        nets = [mlp(HIDDEN, seed=seed).to(x.device) for seed in range(members)]
        fit = partial(cappaper.fit, epochs=1)
        row("members trained as one, 8 steps", members, fit, cappaper.Population(nets), *some)
    for width in (32, 128, 512, 2048):
        pgd = partial(cappaper.pgd, early_exit=False)
        row("width, PGD-40 on 512 images", width, pgd, mlp([width] * 2).to(x.device), x, y, EPS)
    for count in (1, 2, 4, 8, 16, 32):
        radii = [0.32 * (i + 1) / count for i in range(count)]
        curve = partial(cappaper.robustness_curve, attack=cappaper.pgd, epsilons=radii)
        row("radii, PGD-40 on 512 images", count, curve, bench.nets["ReLU"], x, y)
    return pd.DataFrame(rows)
